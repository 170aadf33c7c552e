"""What README and reference say is true: code runs, commands and links lead somewhere, numbers are the notebooks'."""

import re
import runpy
import subprocess
from pathlib import Path

import nbformat
import pytest

from rdlib import quantizers
from rdlib.models.gguf import TYPES
from rdlib.models.gguf.floats import FloatType
from rdlib.network.architecture import LLAMA_SHAPED
from rdlib.runs.kept import kept_table
from rdlib.runs.notebook import figures

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "notebooks/reference").glob("*.md"))]
TEXTS = {path.name: path.read_text() for path in PAGES}
README = TEXTS["README.md"]
TEXT = "\n".join(TEXTS.values())
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
COMMANDS = re.findall(r"^\$ (.+)$", TEXT, re.M)
NOTEBOOK, FIGURE = "08_whole_model", "whole-model"

HELD_OUT = r" +3\.\d+ +\S+ +\S+ +\S+ +\S+ +(\S+) +\S+$"  # a column of the table of gaps in 07

# Each number on the first screen, the notebook that prints it, and where.
CLAIMS = {
    "wastes 0.46 bit of 2": ("03_vector_rd", r"Lloyd–Max tensor +2\.\S+ +\S+ +\S+ +\S+ +(\S+)"),
    "wastes 0.035 bit": ("03_vector_rd", r"entropy-coded TCQ 256 states +\S+ +\S+ +\S+ +\S+ +(\S+)"),
    "1.13 bits more than the limit": ("07_allocation", rf"(?m)^GPTQ asymmetric g128{HELD_OUT}"),
    "entropy coder spends 0.43": ("07_allocation", rf"(?m)^ECSQ \+ feedback{HELD_OUT}"),
    "(WaterSIC) 0.36": ("07_allocation", rf"(?m)^WaterSIC{HELD_OUT}"),
    "trellis inside 0.17": ("07_allocation", rf"(?m)^trellis \+ feedback 64 states{HELD_OUT}"),
    "is 0.45": ("05_functional", r"(?m)^weight MSE +0\S+ +\S+ +\S+ +\S+ +(\S+)"),
    "reaches 0.95": ("05_functional", r"(?m)^output error +0\S+ +\S+ +\S+ +\S+ +(\S+)"),
}


# Each row of the table of two models: what 02 and 07 print of the small one, and the points of the real one.
COMPARED = {
    "uniform rounding": ("02_scalar_rd", "uniform tensor", 4, "gap_bits"),
    "Lloyd–Max": ("02_scalar_rd", "Lloyd–Max tensor", 4, "gap_bits"),
    "rounding in groups": ("02_scalar_rd", "asymmetric opt. clip g128", 4, "gap_bits"),
    "GPTQ": ("07_allocation", "GPTQ asymmetric g128", 3, "unseen"),
    "entropy-coded trellis": ("07_allocation", "trellis + feedback 64 states", 3, "unseen"),
}


def notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def printed(name: str) -> str:
    """All that a committed notebook prints."""
    outputs = (o for cell in notebook(name).cells for o in cell.get("outputs", []))
    return "\n".join(o.get("text", "") for o in outputs)


@pytest.mark.parametrize("claim", CLAIMS)
def test_first_screen_is_what_the_notebooks_print(claim):
    """Every claim stands in the README, and each printed number rounds to it."""
    said = re.search(r"\d+\.\d+", claim)[0]
    name, where = CLAIMS[claim]
    number = float(re.search(where, printed(name))[1])
    assert claim in " ".join(README.split())
    assert f"{number:.{len(said.partition('.')[2])}f}" == said


@pytest.mark.parametrize("row", COMPARED)
def test_two_models_are_what_their_runs_found(row):
    name, method, bits, gap = COMPARED[row]
    found = re.search(rf"(?m)^\| {re.escape(row)}.*\| (\d\.\d\d) \| (\d\.\d\d) \|$", README)
    table = kept_table("smollm2-135m", name)
    table = table[(table.method == method) & (table.bits == bits)]
    if name == "02_scalar_rd":
        table, line = table[table.group == "down"], rf" *{method} +4\.\S+ .* (\S+)$"
    else:
        line = re.escape(method) + HELD_OUT
    small = re.search(rf"(?m)^{line}", printed(name))[1]
    real = table[gap].mean()
    assert found.groups() == (f"{float(small):.2f}", f"{real:.2f}")


def test_every_number_on_the_first_screen_is_a_claim():
    screen = README[README.index("- **Rounding") : README.index("*All rates")]
    numbers = re.findall(r"\d+\.\d+", screen)
    assert sorted(numbers) == sorted(re.search(r"\d+\.\d+", claim)[0] for claim in CLAIMS)


@pytest.mark.parametrize("code", BLOCKS, ids=[re.findall(r"^\S.*", code, re.M)[-1][:40] for code in BLOCKS])
def test_code_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "block.py"
    file.write_text(code)
    runpy.run_path(str(file), run_name="__main__")


def test_there_is_code():
    assert len(BLOCKS) >= 4 and len(COMMANDS) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_targets(command):
    """Every command is a make target, and Makefile accepts it as written."""
    words = command.partition("#")[0].split()
    assert words[0] == "make", command
    dry = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr


def test_experiments_that_are_named_exist():
    named = set(re.findall(r"EXPERIMENT=([\w.-]+)", TEXT))
    assert named and all((ROOT / "params" / f"{name}.yaml").is_file() for name in named)


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda p: p.name
)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_anchors_are_headings(page):
    """A link to a section names a heading of the page that it leads to."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        path = page.parent / target if target else page
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
        assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]


@pytest.mark.parametrize("file", sorted(set(re.findall(r"tests/\w+\.py", TEXT))))
def test_files_that_are_named_exist(file):
    assert (ROOT / file).is_file()


def test_figure_is_that_of_the_notebook():
    """To renew it: write figures(…)["whole-model"] of the executed notebook to notebooks/whole-model.png."""
    assert (ROOT / "notebooks" / f"{FIGURE}.png").read_bytes() == figures(notebook(NOTEBOOK))[FIGURE]


def test_every_notebook_has_its_row():
    names = [path.name for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
    assert [name for name in names if f"(notebooks/{name})" not in README] == []


def test_reference_is_linked_from_readme_and_contents():
    contents = (ROOT / "notebooks/index.ipynb").read_text()
    for path in PAGES[1:]:
        assert f"(notebooks/reference/{path.name})" in README
        assert f"(reference/{path.name})" in contents


# --- the table of formats ------------------------------------------------------------------------------------

ROWS = [[cell.strip() for cell in row.split("|")[1:-1]] for row in README.splitlines() if row.count("|") == 6]
FORMATS = dict(zip(*zip(*((row[0], row[1:]) for row in ROWS[2:]), strict=True), strict=True))


def test_every_type_of_gguf_is_in_the_table():
    """The types of a row are those between the ends of a range, in the order of llama.cpp's families."""
    blocks = {kind.method for kind in TYPES.values() if not isinstance(kind, FloatType)}
    named = set(
        re.findall(r"\b(?:I?Q\d|TQ|MXFP|NVFP)\w*", " ".join(row for row in FORMATS if row.startswith("GGUF")))
    )
    assert named <= blocks
    families = {re.sub(r"\d.*", "", kind) + kind[-2:] * kind.endswith("_K") for kind in blocks - named}
    assert families == {"IQ", "Q_K"}, "what is between the ends of Q2_K … Q6_K and IQ1_S … IQ4_XS"


def test_what_is_simulated_is_a_quantizer():
    named = set(re.findall(r"`(\w+)`", " ".join(row[2] for row in FORMATS.values())))
    assert named - {"LlamaCpp", "LlamaCppImportance"} <= set(quantizers.__all__)
    formats = {name for name in quantizers.__all__ if "blocks" in getattr(quantizers, name).__module__}
    assert formats - {"E2M1"} <= named, "E2M1 is the table of FP4 as it is in MXFP4 and NVFP4"


def test_what_is_compared_with_is_pinned():
    pins = (ROOT / "constraints.txt").read_text() + (ROOT / "requirements-legacy.txt").read_text()
    for peer in {peer for row in FORMATS.values() for peer in row[3].split(", ") if peer}:
        name, version = peer.split()
        assert re.search(rf"(?m)^{name}=={re.escape(version)}", pins), peer


def test_models_that_run_are_named():
    text = README[README.index("Models are") :].split(";")[0].lower()
    assert all(kind in text for kind in LLAMA_SHAPED)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120
