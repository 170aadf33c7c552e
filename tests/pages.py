"""Small experiments as a run leaves them, and what a page would load, for the tests of pages."""

import json
import re
from pathlib import Path

import nbformat
import pandas as pd
from bs4 import BeautifulSoup
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
OTHER = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def figure(picture: str = PIXEL, **metadata: object) -> NotebookNode:
    """A cell that has drawn a figure."""
    output = new_output("display_data", data={"image/png": picture + "\n", "text/plain": "<Figure>"})
    return new_code_cell("plt.show()", metadata=metadata, outputs=[output], execution_count=1)


def notebook(
    *cells: NotebookNode, answer: str = "About $\\tfrac12$ bit, see [02](02_two.ipynb)."
) -> NotebookNode:
    """A notebook with a title, a question, an answer and parameters, then these cells."""
    parameters = new_code_cell('model: str = "embedded"  # which', metadata={"tags": ["parameters"]})
    texts = ["# 01 · One\n\n← back · on →", f"## Question\n\nHow far?\n\n## Answer\n\n{answer}"]
    return new_notebook(cells=[*map(new_markdown_cell, texts), parameters, *cells])


def build(
    folder: Path, table: pd.DataFrame, *, notebooks: dict | None = None, model: str = "embedded"
) -> Path:
    """Write what a run leaves: notebooks, the table of results and a manifest."""
    folder.mkdir(parents=True)
    notebooks = notebooks or {"01_one": notebook(figure(name="only"))}
    for name, content in notebooks.items():
        nbformat.write(content, folder / f"{name}.ipynb")
    table.to_csv(folder / "results.csv", index=False)
    table.to_parquet(folder / "results.parquet")
    entry = {
        "parameters": {"model": model},
        "inputs": {},
        "model": None,
        "commit": "0123456789abcdef",
        "files": {f"figures/{model}.png": "0a"},
    }
    manifest = {
        "experiment": folder.name,
        "commit": "0123456789abcdef",
        "python": "CPython 3.11",
        "packages": {"numpy": "2.2"},
        "assets": {},
        "notebooks": dict.fromkeys(notebooks, entry),
        "files": {"results.csv": "0b"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def loads(page: str) -> list[str]:
    """What a browser would fetch to show a page; what is in the page itself (``data:``) is no fetch."""
    soup = BeautifulSoup(page, features="html.parser")
    found = [
        str(tag[key]) for key in ("src", "srcset", "poster", "data") for tag in soup.find_all(**{key: True})
    ]
    found += [str(link["href"]) for link in soup.find_all("link", href=True)]
    styles = [tag.get_text() for tag in soup("style")] + [tag["style"] for tag in soup.find_all(style=True)]
    found += [url.strip("'\" ") for style in styles for url in re.findall(r"url\(([^)]*)\)", style)]
    found += [rule for style in styles for rule in re.findall(r"@import[^;]*", style)]
    found += [url for tag in soup("script") for url in re.findall(r"https?://[^\s\"']+", tag.get_text())]
    return [address for address in found if not address.startswith(("data:", "#"))]
