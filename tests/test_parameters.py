"""What a parameters cell may say, and what a YAML file may set."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from rdlib.runs.parameters import Parameter, ParameterError, chosen, declared

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
        ("layer = 2", "line 1"),
        ("layer: int", "line 1"),
        ("import os", "line 1"),
        ("x: float | None = None", "float | None"),
        ("d: dict = dict(k=1)", "default of d"),
        ("layer: int = 2.0", "no int"),
        ("layer: int = True", "no int"),
        ("bits: list[int] = [1, 'a']", r"no list\[int\]"),
        ("layer: int = = 2", "invalid syntax"),
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


def test_chosen(tmp_path, parameters):
    file = tmp_path / "01_it.yaml"
    file.write_text("layer: 8\nclip: 4\nbits: [3]\nmodel: meta-llama/Llama-3.2-1B\n")
    values = {"layer": 8, "clip": 4, "bits": [3], "model": "meta-llama/Llama-3.2-1B"}
    assert chosen(file, parameters) == values


@pytest.mark.parametrize("content", ["", "# nothing differs\n", "{}\n"])
def test_empty_file_keeps_defaults(tmp_path, parameters, content):
    file = tmp_path / "01_it.yaml"
    file.write_text(content)
    assert chosen(file, parameters) == {}


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
    file = tmp_path / "01_it.yaml"
    file.write_text(content)
    with pytest.raises(ParameterError) as caught:
        chosen(file, parameters)
    message = str(caught.value)
    assert all(word in message for word in ["01_it.yaml", *words]), message
    assert "\n" not in message and message.endswith(".")


def test_hint_is_a_float(tmp_path, parameters):
    file = tmp_path / "01_it.yaml"
    file.write_text("clip: 1.0e-02\n")
    assert chosen(file, parameters) == {"clip": 0.01}
