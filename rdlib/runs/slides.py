"""A deck of slides from a finished run: one page, moved with the arrow keys, printed a slide a sheet.

Of each notebook: its question, its key figure, the cells tagged ``slide`` in their order, and its answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape
from nbformat import NotebookNode

from rdlib.files import write_whole
from rdlib.runs import page, report
from rdlib.runs.findings import findings

TAG = "slide"  # of cells that are slides of their own


@dataclass(frozen=True)
class Slide:
    """One slide.

    Args:
        title: of the slide.
        body: HTML.
        figure: a PNG in base64; empty if there is none.
        description: of the figure, in words.
    """

    title: str
    body: Markup = Markup("")
    figure: str = ""
    description: str = ""


def write(build: Path) -> Path:
    """Write ``slides.html`` into the folder of a run; it contains all it shows and loads nothing.

    Raises:
        FileNotFoundError: the folder holds no executed notebook.
    """
    text = report.TEMPLATES.get_template("slides.html.j2").render(
        title="Slides · rdlib",
        findings=findings(report.tables_in(build / "tables")),
        slides=[slide for name in report.executed(build) for slide in slides_of(build, name)],
    )
    write_whole(build / "slides.html", text)
    return build / "slides.html"


def slides_of(build: Path, name: str) -> Iterator[Slide]:
    """The slides of one notebook."""
    chapter = report.chapter(build, name, {})
    yield Slide(chapter.title, chapter.question)
    if chapter.figure:
        yield Slide(chapter.title, figure=chapter.figure, description=chapter.description)
    cells = report.read(build, name).cells
    yield from (_of_cell(chapter.title, cell) for cell in cells if TAG in cell.metadata.get("tags", []))
    yield Slide(f"{chapter.title}: the answer", chapter.answer)


def _of_cell(title: str, cell: NotebookNode) -> Slide:
    """A cell as a slide: its text, or the figure and the words that it gives out."""
    if cell.cell_type == "markdown":
        return Slide(title, Markup(page.markdown(cell.source)))
    data = [output.get("data", {}) for output in cell.outputs]
    pictures = ["".join(d["image/png"].split()) for d in data if "image/png" in d]
    words = [Markup("<pre>{}</pre>").format(o.text) for o in cell.outputs if o.output_type == "stream"]
    words += [Markup(page.markdown(d["text/markdown"])) for d in data if "text/markdown" in d]
    alt = cell.metadata.get("alt") or escape(cell.metadata.get("name", "figure").replace("-", " "))
    return Slide(title, Markup("").join(words), pictures[0] if pictures else "", str(alt) if pictures else "")
