"""What a parameters cell may say, and what a YAML file may set."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from rdlib.runs.check import DEFAULTS, check_parameters
from rdlib.runs.experiment import plan
from rdlib.runs.parameters import Parameter, chosen, declared, read
from rdlib.runs.values import ParameterError, check_value

ROOT = Path(__file__).parents[1]
CELL = """\
model: str = "embedded"  # a folder, a hub id, or embedded
layer: int = 2  # block, counted from 0
clip: float = 3.0  # half width, σ
rotate: bool = False  # whether to rotate first
bits: list[int] = [1, 2]  # rates
"""


def notebook(folder: Path, *cells: str) -> Path:
    """A notebook whose parameters cells are these."""
    tagged = [new_code_cell(cell, metadata={"tags": ["parameters"]}) for cell in cells]
    path = folder / "01_it.ipynb"
    nbformat.write(new_notebook(cells=tagged), path)
    return path


@pytest.fixture
def parameters(tmp_path) -> dict[str, Parameter]:
    return declared(notebook(tmp_path, CELL))


def test_declared(parameters):
    assert parameters["clip"] == Parameter("clip", "float", 3.0, "half width, σ")
    assert [p.kind for p in parameters.values()] == ["str", "int", "float", "bool", "list[int]"]


def test_no_parameters_cell(tmp_path):
    assert declared(notebook(tmp_path)) == {}


@pytest.mark.parametrize(
    ("cell", "word"),
    [
        ("layer = 2", "layer has the type None"),
        ("d: set = set()", "d has the type set"),
        ("d: dict = dict()", "default of d"),
        ("layer: int = 2.0", "no int"),
        ("layer: int = True", "no int"),
        ("bits: list[int] = [1, 'a']", r"no list\[int\]"),
        ("layer: int = 2 2", "default of layer"),
    ],
)
def test_bad_cell(tmp_path, cell, word):
    with pytest.raises(ParameterError, match=word):
        declared(notebook(tmp_path, cell))


def test_two_cells(tmp_path):
    with pytest.raises(ParameterError, match="2 cells"):
        declared(notebook(tmp_path, "a: int = 1", "b: int = 1"))


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_no_notebook(tmp_path, content):
    path = tmp_path / "01_it.ipynb"
    path.write_text(content)
    with pytest.raises(ParameterError, match="01_it.ipynb cannot be read as a notebook"):
        declared(path)


def given(file: Path, parameters: dict[str, Parameter]) -> dict[str, object]:
    """What a file gives to the one notebook that there is."""
    return chosen(read(file), {"01_it": parameters}, file)["01_it"]


def test_chosen(tmp_path, parameters):
    file = tmp_path / "it.yaml"
    file.write_text("layer: 8\nclip: 4\nbits: [3]\nmodel: meta-llama/Llama-3.2-1B\n")
    values = {"layer": 8, "clip": 4, "bits": [3], "model": "meta-llama/Llama-3.2-1B"}
    assert given(file, parameters) == values


@pytest.mark.parametrize("file", sorted((ROOT / "params").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_fits_the_notebooks(file):
    assert plan(ROOT, file.stem)


def test_an_experiment_sets_what_differs_from_its_base(tmp_path):
    file = tmp_path / "it.yaml"
    (tmp_path / "other.yaml").write_text("layer: 1\nclip: 2\n01_it: {bits: [3], layer: 2}\n")
    file.write_text("base: other\nlayer: 8\n01_it: {layer: 9}\n")
    assert read(file) == {"layer": 8, "clip": 2, "01_it": {"bits": [3], "layer": 9}}


@pytest.mark.parametrize("base", ["other", "absent", "it"])
def test_a_base_has_to_be_an_experiment_without_one(tmp_path, base):
    (tmp_path / "other.yaml").write_text("base: third\n")
    (tmp_path / "it.yaml").write_text(f"base: {base}\n")
    with pytest.raises(ParameterError, match=f"names the base '{base}', which must be"):
        read(tmp_path / "it.yaml")


@pytest.mark.parametrize("content", ["", "# nothing differs\n", "{}\n"])
def test_empty_file_keeps_defaults(tmp_path, parameters, content):
    file = tmp_path / "it.yaml"
    file.write_text(content)
    assert given(file, parameters) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("layr: 8", ["'layr'", "bits, clip, layer, model, rotate"]),
        ("layer: eight", ["layer", "'eight'", "no int"]),
        ("layer: 8.0", ["layer", "8.0", "no int"]),
        ("layer: yes", ["layer", "True", "no int"]),
        ("layer:", ["layer", "None", "no int"]),
        ("rotate: 1", ["rotate", "1", "no bool"]),
        ("model: 3", ["model", "3", "no str"]),
        ("clip: 1e-2", ["clip", "'1e-2'", "no float", "write 1.0e-02"]),
        ("model: 2024", ["model", "2024", "no str", "in quotes"]),
        ("bits: '[2, 3]'", ["bits", "'[2, 3]'", "no list[int]", "-y 'bits: [2, 3]'"]),
        ("bits: []", ["bits", "empty"]),
        ("bits: [2, 3, 2]", ["bits", "2 twice"]),
        ("bits: [9]", ["bits", "9", "1 … 8"]),
        ("layer: -1", ["layer", "-1", "0 or more"]),
        ("clip: wide", ["clip", "'wide'", "no float"]),
        ("bits: 3", ["bits", "3", "no list[int]"]),
        ("bits: [3, x]", ["bits", "[3, 'x']", "no list[int]"]),
        ("layer: 1\nlayer: 2", ["layer is given twice"]),
        ("- layer", ["'name: value'", "list"]),
        ("layer 8", ["'name: value'", "str"]),
        ("layer: [", ["not valid YAML"]),
        ("model: !!python/object:os.system ls", ["not valid YAML"]),
    ],
)
def test_bad_file(tmp_path, parameters, content, words):
    file = tmp_path / "it.yaml"
    file.write_text(content)
    with pytest.raises(ParameterError) as caught:
        given(file, parameters)
    message = str(caught.value)
    assert all(word in message for word in ["it.yaml", *words]), message
    assert "\n" not in message and message.endswith(".")


def test_hint_is_a_float(tmp_path, parameters):
    file = tmp_path / "it.yaml"
    file.write_text("clip: 1.0e-02\n")
    assert given(file, parameters) == {"clip": 0.01}


# --- in a running notebook -------------------------------------------------------------------------------


def kernel(notebook: str = "02_scalar_rd", **changed: object) -> dict[str, object]:
    """The names of a notebook right after its parameters, some of which Papermill has set."""
    defaults = json.loads(DEFAULTS.read_bytes())[notebook]
    kinds = {k: list[type((v or [0])[0])] if isinstance(v, list) else type(v) for k, v in defaults.items()}
    return {"__annotations__": kinds, "results": "", "In": [], **defaults, **changed}


def test_defaults_are_default(capsys):
    parameters = check_parameters("02_scalar_rd", kernel(results="../build"))
    assert parameters.are_default("a claim") and not parameters.changed and capsys.readouterr().out == ""


def test_what_is_not_checked_is_said(capsys):
    parameters = check_parameters("02_scalar_rd", kernel(bits=[2, 3, 4]))
    assert not parameters.are_default("6.02 dB a bit") and parameters.changed == {"bits": [2, 3, 4]}
    printed = capsys.readouterr().out
    assert (
        printed.count("\n") == 1 and "bits = [2, 3, 4]" in printed and printed.endswith(": 6.02 dB a bit.\n")
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"group": "down_proj"}, "group: there is no group 'down_proj'; q, k, v, o, gate, up, down."),
        ({"bits": "[2,3]"}, "bits is '[2,3]', which is no list[int] but text; Papermill takes a list as -y"),
        ({"model": 2024}, "model is 2024, which is no str; Papermill takes text as -r model 2024"),
        ({"bits": [2, 3.5]}, "bits is [2, 3.5], which is no list[int]."),
        ({"layer": True}, "layer is True, which is no int."),
        ({"layer": -1}, "layer is -1, but -1 is not allowed: give 0 or more."),
    ],
)
def test_bad_parameters_are_refused_in_the_kernel(changed, message):
    with pytest.raises(ParameterError, match=re.escape(message)) as caught:
        check_parameters("02_scalar_rd", kernel(**changed))
    assert "\n" not in str(caught.value)


OTHER = {
    list: lambda some: some[:1],
    int: lambda number: number + 1,
    str: lambda _: "q",
}  # values of one's own


@pytest.mark.parametrize("notebook", json.loads(DEFAULTS.read_bytes()))
def test_FAST_is_the_experiment_of_that_name(notebook, monkeypatch, capsys):
    """What a notebook opened by hand takes under FAST=1 is what `rdlib run fast` gives it, and own values stay."""
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setenv("FAST", "1")
    (step,) = (step for step in plan(ROOT, "fast") if step.name == notebook)
    names = kernel(notebook)
    assert check_parameters(notebook, names).changed == step.chosen
    assert names.items() >= step.parameters.items() and capsys.readouterr().out.startswith("FAST=1: ")
    for own in step.chosen:
        given = OTHER[type(step.defaults[own])](step.defaults[own])
        names = kernel(notebook, **{own: given})
        assert check_parameters(notebook, names).changed == step.chosen | {own: given}


@pytest.mark.parametrize("value", ["", "0", None])
def test_without_FAST_parameters_stay(value, monkeypatch):
    monkeypatch.setenv("FAST", value) if value is not None else monkeypatch.delenv("FAST", raising=False)
    assert not check_parameters("03_vector_rd", kernel("03_vector_rd")).changed


def test_FAST_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAST", "1")
    with pytest.raises(ParameterError, match="FAST=1 needs ../params/fast.yaml"):
        check_parameters("02_scalar_rd", kernel())


@pytest.mark.parametrize("value", [["q", "down"], []])
def test_good_values(value):
    check_value("groups", value, "list[str]")
    check_value("bits", [1, 2.5, 8], "list[float]")


@pytest.mark.parametrize("value", [["a"], [float("nan")], [True], [None]])
def test_rates_are_numbers(value):
    with pytest.raises(ParameterError, match="bits"):
        check_value("bits", value, "list")
