"""Rate and distortion of every tensor of a checkpoint, however large, without ever loading the model."""

from rdlib.extras import extra

with extra("census", "rdlib.census"):
    from rdlib.census.page import html
    from rdlib.census.run import census
    from rdlib.census.tensors import stored_tensors
