"""No pickle, no foreign code, no network in the demo, no token in an output, no path out of a folder."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import nbformat
import pytest
from nbformat import NotebookNode
from safetensors.numpy import save_file
from sources import gaussian
from test_determinism import SETTINGS

from rdlib.models.checkpoint import Checkpoint

ROOT = Path(__file__).parents[1]
PYTHON = sorted(
    [*(ROOT / "rdlib").rglob("*.py"), *(ROOT / "tests").glob("*.py"), *(ROOT / ".ci").glob("*.py")]
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REFUSED_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
REFUSED_CALLS = {"eval", "exec", "torch.load", "joblib.load", "joblib.dump", "pd.read_pickle", "torch.save"}
TOKEN = "hf_thisIsNoTokenButMustNotLeak0123456789"


def faults(tree: ast.AST) -> list[str]:
    """Pickle, evaluation, and code of a model's author, wherever they are called or imported."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            found += [name for name in names if name.partition(".")[0] in REFUSED_IMPORTS]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += [name] if name in REFUSED_CALLS else []
            for keyword in node.keywords:
                allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in ("trust_remote_code", "allow_pickle") and not allowed:
                    found.append(keyword.arg)
    return found


def test_no_pickle_and_no_foreign_code():
    assert len(PYTHON) > 250
    assert [(path, fault) for path in PYTHON for fault in faults(ast.parse(path.read_text()))] == []


def test_no_pickle_in_notebooks():
    for path in NOTEBOOKS:
        cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        assert [fault for source in cells for fault in faults(ast.parse(source))] == [], path


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "torch.load(x)",
        "f(trust_remote_code=True)",
        "np.load(x, allow_pickle=True)",
        "eval(x)",
    ],
)
def test_the_rule_bites(code):
    assert faults(ast.parse(code))


BLOCK = """
import socket

_connect = socket.socket.connect

def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(("127.", "::1")):
        raise OSError(f"the network was asked for {address}")
    return _connect(self, address)

def resolve(host, *rest, **more):
    if host not in (None, "", "localhost", "127.0.0.1", "::1"):
        raise OSError(f"the network was asked for {host}")
    return _resolve(host, *rest, **more)

_resolve = socket.getaddrinfo
socket.socket.connect, socket.getaddrinfo = connect, resolve
open(__MARK__, "a").write("blocked\\n")
"""


@pytest.fixture(scope="module")
def isolated_run(tmp_path_factory) -> tuple[Path, Path]:
    """The first notebook as an experiment, without a network, with a token in the environment and at home.

    And on another number of threads.
    """
    root, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    mark = home / "blocked"
    (home / "sitecustomize.py").write_text(BLOCK.replace("__MARK__", repr(str(mark))))
    (home / ".cache/huggingface").mkdir(parents=True)
    (home / ".cache/huggingface/token").write_text(TOKEN)
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    (root / "params").mkdir()
    (root / "params/mini.yaml").write_text("notebooks: [01_extraction]\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PYTHONPATH"))}
    extra = SETTINGS | {"HOME": str(home), "HF_TOKEN": TOKEN, "PYTHONPATH": str(home)}
    extra["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # fonts are not looked for again
    run = subprocess.run(
        [sys.executable, "-m", "rdlib", "run", "mini"],
        cwd=root, env=kept | extra, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert len(mark.read_text().split()) >= 2, "driver and kernel were cut off from the network"
    assert TOKEN not in run.stdout + run.stderr
    return root, home


def test_a_demo_needs_no_network(isolated_run):
    assert (isolated_run[0] / "build/mini/index.html").stat().st_size > 10_000


def test_it_prints_what_is_committed(isolated_run):
    """Nbval compares every notebook on as many threads as the rest of `make test` has; this is the shortest."""
    committed, executed = (
        shown(nbformat.read(folder / "01_extraction.ipynb", as_version=4))
        for folder in (ROOT / "notebooks", isolated_run[0] / "build/mini")
    )
    assert len(committed) > 2000 and executed == committed


def shown(notebook: NotebookNode) -> str:
    """All text that a notebook shows; what is printed may come in one piece or in several."""
    outputs = [
        out for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") != "stderr"
    ]
    return "".join(out.get("text") or out.get("data", {}).get("text/plain", "") for out in outputs)


def test_a_token_reaches_no_output(isolated_run):
    """Neither as it is nor in the tables, nor does the name of the home folder."""
    root, home = isolated_run
    written = [path for path in (root / "build").rglob("*") if path.is_file()]
    assert len(written) > 8
    leaks = [
        p.name
        for p in written
        for secret in (TOKEN, str(home), str(root))
        if secret.encode() in p.read_bytes()
    ]
    assert leaks == []


@pytest.mark.parametrize("target", ["../outside.safetensors", "sub/../../outside.safetensors", "ABSOLUTE"])
def test_an_index_cannot_leave_the_folder(tmp_path, target):
    outside = tmp_path / "outside.safetensors"
    save_file({"w": gaussian((2, 2))}, outside)
    folder = tmp_path / "model"
    folder.mkdir()
    name = str(outside) if target == "ABSOLUTE" else target
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(ValueError, match="outside of the folder"):
        Checkpoint(folder)


def test_packages_fit_together():
    """`pip check`: no installed package lacks another, or has one that it refuses."""
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
