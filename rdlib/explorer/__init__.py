"""The explorer of notebook 00: one matrix, one quantizer, and every number and line that follows from them."""

from rdlib.extras import extra

with extra("notebooks", "rdlib.explorer"):
    from rdlib.explorer.controls import CHOICES, with_clip, with_group
    from rdlib.explorer.picture import Picture, picture
    from rdlib.explorer.sources import SOURCES
    from rdlib.explorer.subject import Subject
    from rdlib.explorer.widget import Explorer
