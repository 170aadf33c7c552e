"""The page of an experiment: ``index.html``, which contains all it shows and loads nothing.

What was found, question and answer of every notebook with its key figure, all measured points, and the manifest.
A run ends with it; by hand it also shows a run that stopped.  What else of a site (:mod:`rdlib.runs.site`) lies in the
folder is linked.  The same folder gives the same bytes.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
from markupsafe import Markup
from nbformat import NotebookNode

from rdlib.files import write_whole
from rdlib.runs import notebook as notebooks
from rdlib.runs import page
from rdlib.runs.findings import findings, side_by_side
from rdlib.runs.kept import kept_models
from rdlib.runs.launch import launch_links
from rdlib.runs.parameters import declared
from rdlib.runs.templating import records, templates

ANSWER = "answer"  # the tag of the cell that displays the answer, computed from the run, as Markdown
NOTE = "note"  # the tag of cells whose printed text is shown beside the answer
KEY = "key-figure"  # the tag of the cell whose figure represents its notebook; without one, the last figure
PARTIAL = ".partial.ipynb"
LEAD = "08_whole_model"  # whose figure represents the project
NAMES = {  # of models, for a reader
    "embedded": "the small Llama of the package",
    "smollm2-135m": "SmolLM2-135M-Instruct, a real Llama",
}
FIRST = (
    "notebook",
    "source",
    "layer",
    "group",
    "method",
    "bits",
    "rate",
    "gap_bits",
    "gap",
    "sqnr_db",
)  # columns
WAYS = {  # parts of a site, by what they match in its folder
    "explorer.html": "Explorer: turn the knobs",
    "slides.html": "Slides",
    "real-*.html": "Results on {}",
    "audit-*.html": "Files of {}, audited",
    "api/rdlib.html": "API",
}

TEMPLATES = templates(Path(__file__).parent)


@dataclass(frozen=True)
class Chapter:
    """What the page says about one notebook.

    Args:
        name: of the file.
        title: its first heading.
        question: HTML.
        answer: HTML; where a cell computes it, what that displays.
        computed: whether the answer is of this run, and not of the notebook's own parameters.
        notes: what the cells tagged ``note`` print, a line each.
        figure: the key figure, a PNG in base64; empty if there is none.
        picture: the name of its file.
        description: of the figure, in words.
        changed: parameters that are not at the notebook's own value.
        whole: it has run to its end, be it in an earlier run.
        stopped: the error that ended its last run; empty if there is none.
    """

    name: str
    title: str
    question: Markup
    answer: Markup
    computed: bool
    notes: list[str]
    figure: str
    picture: str
    description: str
    changed: dict[str, object]
    whole: bool
    stopped: str


def write(build: Path) -> Path:
    """Write ``index.html`` into the folder of an experiment, whole or not at all.

    Raises:
        FileNotFoundError: the folder holds no executed notebook.
    """
    path = build / "index.html"
    write_whole(path, render(build))
    return path


def render(build: Path) -> str:
    """The page of the experiment in a folder, finished or not.

    Raises:
        FileNotFoundError: the folder holds no executed notebook.
    """
    path = build / "manifest.json"
    manifest = json.loads(path.read_bytes()) if path.is_file() else {}
    names, known = executed(build), manifest.get("notebooks", {})
    found = [chapter(build, name, known.get(name, {}).get("parameters", {})) for name in names]
    models = dict.fromkeys(str(entry["parameters"].get("model", "")) for entry in known.values())
    table = build / "results.parquet"
    columns, rows = point_records(pd.read_parquet(table) if table.is_file() else pd.DataFrame())
    tables = tables_in(build / "tables")
    model = ", ".join(NAMES.get(model, model) for model in models if model) or "no model"
    others = {name: its for name, its in kept_models().items() if name not in models}
    lines = side_by_side({model: tables} | others)
    return TEMPLATES.get_template("report.html.j2").render(
        title=f"{build.resolve().name} · rdlib",
        experiment=build.resolve().name,
        model=model,
        manifest=manifest,
        chapters=found,
        lead=next((c for c in found if c.name == LEAD and c.figure), None),
        findings=findings(tables),
        models=[model, *(NAMES.get(other, other) for other in others)],
        lines=lines if others else [],
        launch={name: launch_links(name) for name in names},
        ways=ways(build),
        reference=sorted(path.stem for path in (build / "reference").glob("*.html")),
        columns=columns,
        rows=rows,
    )


def folder_of(experiment: str) -> Path:
    """The folder of an experiment: a path to it, or its name below ``build``."""
    path = Path(experiment)
    return path if path.is_dir() or len(path.parts) > 1 else Path("build") / path


def executed(build: Path) -> list[str]:
    """The notebooks that have run in a folder, also those that stopped.

    Raises:
        FileNotFoundError: there is none.
    """
    names = sorted({file.name.split(".")[0] for file in build.glob("[0-9]*.ipynb")})
    if not names:
        raise FileNotFoundError(f"{build} holds no executed notebook; run the experiment first.")
    return names


def read(build: Path, name: str) -> NotebookNode:
    """An executed notebook: whole, or up to where it stopped."""
    path = build / f"{name}.ipynb"
    return nbformat.read(path if path.is_file() else build / f"{name}{PARTIAL}", as_version=4)


def tables_in(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of notebooks that lie in a folder, by name."""
    return {path.stem: pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}


def point_records(points: pd.DataFrame) -> tuple[list[str], list[list[object]]]:
    """:func:`rdlib.runs.templating.records`, with what a reader looks for in the first columns."""
    return records(points[[*(c for c in FIRST if c in points), *(c for c in points if c not in FIRST)]])


def ways(build: Path) -> dict[str, str]:
    """What else of a site lies in the folder: its address there, and what to call it."""
    found = [(path, text) for glob, text in WAYS.items() for path in sorted(build.glob(glob))]
    names = [path.stem.partition("-")[2] for path, _ in found]
    return {
        path.relative_to(build).as_posix(): text.format(NAMES.get(name, name))
        for (path, text), name in zip(found, names, strict=True)
    }


def chapter(build: Path, name: str, parameters: dict[str, object]) -> Chapter:
    """What the page says about one notebook, run with these parameters."""
    path, partial = build / f"{name}.ipynb", build / f"{name}{PARTIAL}"
    notebook = read(build, name)
    figure = key_figure(notebook)
    own = {key: parameter.default for key, parameter in declared(path if path.is_file() else partial).items()}
    texts, found = sections(notebook), answer(notebook)
    return Chapter(
        name=name,
        title=title(notebook) or name,
        question=Markup(_links(page.markdown(texts.get("Question", "")), name)),
        answer=Markup(_links(page.markdown(found or texts.get("Answer", "")), name)),
        computed=bool(found),
        notes=notes(notebook),
        figure=figure.base64 if figure else "",
        picture=f"{name}-{figure.name}.png" if figure else "",
        description=page.descriptions(notebook)[figure.name] if figure else "",
        changed={key: value for key, value in parameters.items() if own.get(key, value) != value},
        whole=path.is_file(),
        stopped=error(nbformat.read(partial, as_version=4)) if partial.is_file() else "",
    )


def title(notebook: NotebookNode) -> str:
    """The first heading of a notebook; empty if it has none."""
    found = [re.search(r"(?m)^# +(.+)$", source) for source in _texts(notebook)]
    return next((page.plain(heading[1]) for heading in found if heading), "")


def sections(notebook: NotebookNode) -> dict[str, str]:
    """The Markdown below every second-level heading, by heading, up to the end of its cell."""
    parts = [re.split(r"(?m)^## +(.+)$", source) for source in _texts(notebook)]
    return {name.strip(): body.strip() for p in parts for name, body in zip(p[1::2], p[2::2], strict=True)}


def answer(notebook: NotebookNode) -> str:
    """The Markdown that the cells tagged ``answer`` display; empty where there is none."""
    shown = [o.get("data", {}).get("text/markdown", "") for o in _outputs(notebook, ANSWER)]
    return "\n\n".join(filter(None, shown))


def notes(notebook: NotebookNode) -> list[str]:
    """The lines that cells tagged ``note`` print."""
    return [line for o in _outputs(notebook, NOTE) for line in o.get("text", "").splitlines()]


def key_figure(notebook: NotebookNode) -> notebooks.Figure | None:
    """The figure that represents a notebook: of the cell tagged ``key-figure``, or else the last."""
    found = notebooks.placed_figures(notebook)
    tagged = [f for f in found if KEY in notebook.cells[f.cell].metadata.get("tags", [])]
    return (tagged or found[-1:] or [None])[0]


def error(notebook: NotebookNode) -> str:
    """The error that ended a notebook, as ``Name: message``."""
    raised = [o for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "error"]
    return f"{raised[-1].ename}: {raised[-1].evalue}" if raised else "no more than a dead kernel"


def _texts(notebook: NotebookNode) -> list[str]:
    """The Markdown cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def _outputs(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    """What the cells of a tag give out."""
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    return [output for cell in cells for output in cell.get("outputs", [])]


def _links(html: str, name: str) -> str:
    """Links to notebooks, and to places in this one, turned into links to their pages."""
    return re.sub(r'href="([\w.-]+)\.ipynb', r'href="\1.html', html.replace('href="#', f'href="{name}.html#'))
