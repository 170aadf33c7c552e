"""The rules for committed notebooks, each tried on every notebook and on one that breaks it.

A rule is a function that yields what is wrong with a notebook, one sentence a fault.  The tests under nbval
then run the notebooks themselves; these rules make sure that there is something for nbval to compare.
"""

import ast
import copy
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill.cli import papermill as papermill_command

from rdlib.runs.check import DEFAULTS
from rdlib.runs.experiment import plan
from rdlib.runs.notebook import INJECTED, defaults, tidy
from rdlib.runs.parameters import declared

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUMBERED = [path for path in NOTEBOOKS if path.name[0].isdigit()]

IMPORTS = {"IPython", "ipywidgets", "math", "matplotlib", "numpy", "pandas", "pathlib", "rdlib", "tqdm"}
WIDGETS = {"tqdm.auto", "tqdm.notebook"}  # of another random id in every run; tqdm itself writes to stderr
TIMING = {"datetime", "perf_counter", "process_time", "strftime", "time", "timeit", "today"}
VERSION = {"__version__", "platform", "version", "version_info", "versions"}
NBVAL_LOOSE = "NBVAL_IGNORE_OUTPUT"
NBVAL_REFUSED = ("NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION", "PYTEST_VALIDATE_IGNORE_OUTPUT")
HEADINGS = ["Question", "Answer", "Check", "Takeaway"]
ABSOLUTE = re.compile(r"(/|~/|[A-Za-z]:[\\/])\w")
MANY_DIGITS = re.compile(r"(?<![\w.])-?0*\.?0*[1-9][\d.]*(?=e|\b)")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """Every output with the number of its code cell."""
    for number, cell in enumerate(code_cells(notebook), 1):
        for output in cell.outputs:
            yield number, output


def is_solution(cell: NotebookNode) -> bool:
    return "solution" in cell.metadata.get("tags", [])


def has_assert(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and any(
        isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source))
    )


# --- rules -----------------------------------------------------------------------------------------------


def is_executed(notebook: NotebookNode) -> Iterator[str]:
    """Nbval compares nothing where the execution count is null."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the execution counts are {counts}, not 1, 2, ..."


def is_short(notebook: NotebookNode) -> Iterator[str]:
    told = [cell for cell in code_cells(notebook) if not is_solution(cell)]
    if len(told) > 20:
        yield f"{len(told)} code cells, more than 20"
    for number, cell in enumerate(code_cells(notebook), 1):
        if len(cell.source.splitlines()) > 15:
            yield f"code cell {number} has {len(cell.source.splitlines())} lines, more than 15"


def is_thin(notebook: NotebookNode) -> Iterator[str]:
    """Method lives in rdlib; nothing depends on the machine, the day or the version."""
    for number, cell in enumerate(code_cells(notebook), 1):
        try:
            tree = ast.parse(cell.source)
        except SyntaxError as error:  # also %magic and !shell
            yield f"code cell {number} is not plain Python: {error.text}"
            continue
        for node in ast.walk(tree):
            if fault := _fault(node):
                yield f"code cell {number} has {fault}"


def _fault(node: ast.AST) -> str | None:
    """What a thin notebook does not hold."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return f"the definition of {node.name}"
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = (
            [node.module or "."] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        )
        foreign = [name for name in names if name.partition(".")[0] not in IMPORTS or name in WIDGETS]
        return f"an import of {foreign[0]}" if foreign else None
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and ABSOLUTE.match(node.value):
        return f"the absolute path {node.value}"
    if isinstance(node, ast.Attribute | ast.Name):
        name = node.attr if isinstance(node, ast.Attribute) else node.id
        if name in TIMING | VERSION:
            return f"a time or version: {name}"
    return None


def prints_what_it_shows(notebook: NotebookNode) -> Iterator[str]:
    """No bare last expression, no semicolon to silence one (nbval sees through it), figures by plt.show()."""
    for number, cell in enumerate(code_cells(notebook), 1):
        if any(output.output_type == "execute_result" for output in cell.outputs):
            yield f"code cell {number} ends in a bare value; print or display it"
        if cell.source.rstrip().endswith(";"):
            yield f"code cell {number} ends in a semicolon"
        pictures = any("image/png" in output.get("data", {}) for output in cell.outputs)
        if pictures and cell.source.rstrip().splitlines()[-1].strip() != "plt.show()":
            yield f"code cell {number} draws a figure and does not end in plt.show()"


def prints_few_digits(notebook: NotebookNode) -> Iterator[str]:
    """More than six significant digits differ between machines."""
    for number, output in outputs(notebook):
        text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for match in MANY_DIGITS.findall(text):
            if "." in match and len(match.lstrip("-0.").replace(".", "")) > 6:
                yield f"code cell {number} prints {match}"


def has_no_error_and_no_stderr(notebook: NotebookNode) -> Iterator[str]:
    for number, output in outputs(notebook):
        if output.output_type == "error" or output.get("name") == "stderr":
            yield f"code cell {number} has an error or writes to stderr"


def has_clean_metadata(notebook: NotebookNode) -> Iterator[str]:
    if tidy(copy.deepcopy(notebook)) != notebook:
        yield "the metadata is not as `make refresh` leaves it"
    if any(INJECTED in cell.metadata.get("tags", []) for cell in notebook.cells):
        yield "parameters that Papermill injected are left in it"


def ignores_little(notebook: NotebookNode) -> Iterator[str]:
    """At most one cell in ten goes uncompared, and the next cell asserts what it should have shown."""
    cells = code_cells(notebook)
    loose = [i for i, cell in enumerate(cells) if NBVAL_LOOSE in marks(cell)]
    if 10 * len(loose) > len(cells):
        yield f"{len(loose)} of {len(cells)} code cells are not compared, more than one in ten"
    for i in loose:
        if i + 1 == len(cells) or not has_assert(cells[i + 1]):
            yield f"code cell {i + 1} is not compared, and the next one asserts nothing"
    for number, cell in enumerate(cells, 1):
        if any(mark in marks(cell) for mark in NBVAL_REFUSED):
            yield f"code cell {number} is kept from nbval"


def marks(cell: NotebookNode) -> str:
    """Where nbval looks for its marks: the source, and the tags in any spelling."""
    tags = " ".join(cell.metadata.get("tags", [])).upper().replace("-", "_")
    return f"{cell.source} {tags.replace('RAISES_EXCEPTION', 'NBVAL_RAISES_EXCEPTION')}"


def has_its_sections(notebook: NotebookNode) -> Iterator[str]:
    """Question, an answer with numbers, a check that asserts, a takeaway: in this order."""
    section, text, checks = None, {}, False
    for cell in notebook.cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else []:
            if line.startswith("## "):
                section = line.removeprefix("## ").split()[0].rstrip(".:")
                text[section] = ""
            elif section:
                text[section] += line + "\n"
        checks |= section == "Check" and has_assert(cell)
    found = [heading for heading in text if heading in HEADINGS]
    if found != HEADINGS:
        yield f"the headings are {found}, not {HEADINGS}"
    if not re.search(r"\d", text.get("Answer", "")):
        yield "the answer has no number"
    if not checks:
        yield "the section Check asserts nothing"


def teaches(notebook: NotebookNode) -> Iterator[str]:
    """What one needs before it, two to four exercises with folded solutions that assert, further reading."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    if "*Before this you need:*" not in text:
        yield "nothing says what one needs before it"
    solutions = [i for i, cell in enumerate(notebook.cells) if is_solution(cell)]
    if "## Exercises" not in text or not 2 <= len(solutions) <= 4:
        yield f"{len(solutions)} exercises with solutions, not two to four below '## Exercises'"
    for number, i in enumerate(solutions, 1):
        if not re.search(rf"^\*\*{number}\.\*\* ", notebook.cells[i - 1].source, re.M):
            yield f"solution {number} does not follow its exercise"
        if not notebook.cells[i].metadata.get("jupyter", {}).get("source_hidden"):
            yield f"solution {number} is not folded"
        if not has_assert(notebook.cells[i]):
            yield f"solution {number} asserts nothing"
    reading = text.partition("## Further reading")[2]
    if len(re.findall(r"https://(doi\.org|arxiv\.org/abs)/", reading)) < 2:
        yield "further reading has fewer than two links"


RULES = [
    is_executed,
    is_short,
    is_thin,
    prints_what_it_shows,
    prints_few_digits,
    has_no_error_and_no_stderr,
    has_clean_metadata,
    ignores_little,
]


# --- the committed notebooks -----------------------------------------------------------------------------


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture(params=NUMBERED, ids=lambda path: path.stem)
def numbered(request) -> Path:
    return request.param


def test_there_are_notebooks():
    assert ROOT / "notebooks" / "index.ipynb" in NOTEBOOKS
    assert len(NUMBERED) > 1


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule(path, rule):
    assert list(rule(nbformat.read(path, as_version=4))) == []


def test_sections(numbered):
    assert list(has_its_sections(nbformat.read(numbered, as_version=4))) == []


def test_teaching(numbered):
    assert list(teaches(nbformat.read(numbered, as_version=4))) == []


def test_help_of_papermill_reads_well(numbered, capsys):
    """`papermill --help-notebook` prints every parameter with its type, default and meaning."""
    with pytest.raises(SystemExit):
        papermill_command([str(numbered), "--help-notebook"])
    printed = capsys.readouterr().out
    for name, parameter in declared(numbered).items():
        assert re.search(rf"{name}: {re.escape(parameter.kind)}", printed), printed
        assert parameter.comment.split()[0] in printed


def test_links(path):
    """Links lead to notebooks and files that exist."""
    source = "\n".join(
        cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"
    )
    targets = re.findall(r"\]\(([^)#\s]+)", source)
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert missing == []


def test_where_you_are(numbered):
    """The first cell leads to the contents, the previous and the next notebook."""
    k = NUMBERED.index(numbered)
    wanted = {"index.ipynb"} | {NUMBERED[i].name for i in (k - 1, k + 1) if 0 <= i < len(NUMBERED)}
    first = nbformat.read(numbered, as_version=4).cells[0].source
    line = next(line for line in first.splitlines() if line.startswith("←") and line.endswith("→"))
    assert wanted == set(re.findall(r"\]\(([\w.]+\.ipynb)\)", line))


def test_contents_lists_all():
    cells = nbformat.read(ROOT / "notebooks" / "index.ipynb", as_version=4).cells
    source = "\n".join(cell.source for cell in cells)
    assert [path.name for path in NUMBERED if f"({path.name})" not in source] == []


def test_parameters(numbered):
    """Papermill reads what Python reads, which it does not of every line, and each says what it means."""
    parameters = declared(numbered)
    assert parameters["results"].kind == "str" and parameters["results"].default == ""
    assert [name for name, parameter in parameters.items() if not parameter.comment] == []
    cells = nbformat.read(numbered, as_version=4).cells
    (cell,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    lines = {line.target.id: line for line in ast.parse(cell.source).body}
    read = {name: (ast.unparse(x.annotation), ast.literal_eval(x.value)) for name, x in lines.items()}
    assert {name: (p.kind, p.default) for name, p in parameters.items()} == read


def test_defaults_are_recorded():
    """What the check cells compare with; `make refresh` writes it."""
    assert DEFAULTS.read_text() == defaults(NUMBERED)


def test_parameters_are_checked_before_anything_is_opened(numbered):
    source = "\n".join(cell.source for cell in code_cells(nbformat.read(numbered, as_version=4)))
    call = f'parameters = check_parameters("{numbered.stem}", globals())\n'
    assert source.count("check_parameters(") == 1 and "open_checkpoint(" not in source.partition(call)[0]
    assert call in source


def test_claims_about_the_defaults_are_guarded(numbered):
    """What is asserted of the embedded model only is asserted of the default parameters only."""
    cells = code_cells(nbformat.read(numbered, as_version=4))
    assert any("if parameters.are_default(" in cell.source for cell in cells)
    for cell in cells:
        asserted = [ast.unparse(n) for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Assert)]
        assert [text for text in asserted if "embedded" in text or re.search(r"\bmodel\b", text)] == []


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (ROOT / "params").glob("*.yaml")))
def test_experiment_fits_its_notebooks(experiment):
    assert plan(ROOT, experiment)


def test_demo_runs_every_notebook():
    assert [step.notebook for step in plan(ROOT, "demo")] == NUMBERED


def test_outputs_are_not_sanitised():
    """A sanitiser could hide a number, and drops a rule with an empty replacement: none is used."""
    where = [ROOT / name for name in ("Makefile", "pyproject.toml", "conftest.py", ".ci/run")]
    assert [path for path in where if "sanitize" in path.read_text()] == []


# --- every rule bites ------------------------------------------------------------------------------------


def cell(source: str = "print(1)", *outputs: NotebookNode, count: int | None = 1, **metadata) -> NotebookNode:
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


FIGURE = new_output("display_data", data={"image/png": "iVBORw0KGgo="})
FAULTS = [
    (is_executed, [cell(count=None)]),
    (is_executed, [cell(count=2)]),
    (is_executed, [cell(), cell(count=1)]),
    (is_short, [cell() for _ in range(21)]),
    (is_short, [cell("x = 1\n" * 16)]),
    (is_thin, [cell("def f():\n    return 1")]),
    (is_thin, [cell("class A:\n    pass")]),
    (is_thin, [cell("%pip install rdlib")]),
    (is_thin, [cell("!ls")]),
    (is_thin, [cell("import sys\nsys.path.append('..')")]),
    (is_thin, [cell("import torch")]),
    (is_thin, [cell("from tqdm.auto import tqdm")]),
    (is_thin, [cell("from time import perf_counter")]),
    (is_thin, [cell("open('/work/model.txt')")]),
    (is_thin, [cell("open('~/model.txt')")]),
    (is_thin, [cell("open(r'C:\\model.txt')")]),
    (is_thin, [cell("print(np.__version__)")]),
    (is_thin, [cell("%%time\nprint(1)")]),
    (prints_what_it_shows, [cell("x", new_output("execute_result", data={"text/plain": "1"}))]),
    (prints_what_it_shows, [cell("plt.plot([1]);")]),
    (prints_what_it_shows, [cell("plt.plot([1])", FIGURE)]),
    (prints_few_digits, [cell("print(x)", new_output("stream", text="x 0.123456789\n"))]),
    (prints_few_digits, [cell("print(x)", new_output("stream", text="x = -1.23456789e-05\n"))]),
    (prints_few_digits, [cell("show(x)", new_output("display_data", data={"text/plain": "1234.56789"}))]),
    (has_no_error_and_no_stderr, [cell("1/0", new_output("error", ename="E", evalue="", traceback=[]))]),
    (has_no_error_and_no_stderr, [cell("warn()", new_output("stream", name="stderr", text="careful"))]),
    (has_clean_metadata, [cell(execution={"iopub.execute_input": "2026-11-23T20:00:00Z"})]),
    (has_clean_metadata, [cell(tags=[INJECTED])]),
    (ignores_little, [cell(f"# {NBVAL_LOOSE}\nprint(1)"), cell("assert True")]),
    (ignores_little, [cell(f"# {NBVAL_LOOSE}\nprint(1)")] + [cell() for _ in range(10)]),
    (ignores_little, [cell() for _ in range(10)] + [cell(tags=["nbval-ignore-output"])]),
    (ignores_little, [cell("# NBVAL_SKIP\nprint(1)")]),
    (ignores_little, [cell(tags=["raises-exception"])]),
    (
        has_its_sections,
        [new_markdown_cell("## Question\n\n## Answer\n\n3 bits.\n\n## Takeaway"), cell("assert True")],
    ),
    (has_its_sections, [new_markdown_cell("## Question\n## Answer\nNone.\n## Check\n## Takeaway")]),
]


@pytest.mark.parametrize(("rule", "cells"), FAULTS)
def test_rule_bites(rule, cells):
    assert list(rule(new_notebook(cells=cells)))


def test_rules_pass_a_good_notebook():
    notebook = tidy(
        new_notebook(
            cells=[
                new_markdown_cell("## Question\nHow much?\n\n## Answer\n0.25 bits."),
                cell("import numpy as np\nx = np.sqrt(0.0625)"),
                cell("print(x)", new_output("stream", text="0.25 0.000123 123456 1,234.5 12.5 %\n"), count=2),
                cell("import matplotlib.pyplot as plt\n\nplt.plot([x])\nplt.show()", FIGURE, count=3),
                new_markdown_cell("## Check"),
                cell("assert x == 0.25", count=4),
                new_markdown_cell("## Takeaway\nThis much."),
            ]
        )
    )
    assert [fault for rule in [*RULES, has_its_sections] for fault in rule(notebook)] == []
