"""The reference of the library, made of its docstrings: pages that load nothing from a network."""

from pathlib import Path

from rdlib.extras import extra

with extra("site", "The API reference"):
    import pdoc
    import pdoc.render

LEFT_OUT = ("!rdlib.tools", "!rdlib.__main__")  # for the maintainers; a command


def write(folder: Path) -> Path:
    """Write a page for each module, and one to search them all, into a folder.

    Returns:
        The first page.
    """
    pdoc.render.configure(docformat="google", footer_text="rdlib", show_source=False)
    pdoc.pdoc("rdlib", *LEFT_OUT, output_directory=folder)
    return folder / "rdlib.html"
