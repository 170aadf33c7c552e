"""The runner, on small notebooks of its own in a folder of their own."""

import gc
import json
import shutil
import sys
import time
import tomllib
from asyncio import AbstractEventLoop
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from rdlib.__main__ import main
from rdlib.files import sha256
from rdlib.runs import experiment, fingerprint, notebook
from rdlib.runs.experiment import Busy, exclusive, plan, plan_model
from rdlib.runs.notebook import NotebookFailed
from rdlib.runs.values import ParameterError

PARAMETERS = (
    "divisor: int = 1  # what to divide by\ntext: str = ''  # a file\nresults: str = ''  # folder of tables"
)
COUNT = "import sys\n\nprint(1 / divisor)\nprint('careful', file=sys.stderr)"
TABLE = (  # copied, because pandas would take a kernel as long as all the rest
    "import shutil\n\nif results:\n    shutil.copyfile('table.parquet', f'{results}/NAME.parquet')"
)
TWO = "02_two:\n  divisor: 2\n  text: story.txt\n"  # what the second notebook is given
FIGURE = "import matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.show()"


def make(root: Path, name: str, /, *sources: str, **metadata: str) -> None:
    """Write a notebook of a link, the parameters and these cells, of which the last gets the metadata; and a table."""
    pd.DataFrame({"bits": [1, 2], "mse": [4, 1.5]}).to_parquet(root / "notebooks/table.parquet")
    cells = [new_code_cell(source.replace("NAME", name)) for source in (PARAMETERS, *sources)]
    cells[0].metadata["tags"] = ["parameters"]
    cells[-1].metadata.update(metadata)
    cells.insert(0, new_markdown_cell("[next](02_two.ipynb)"))
    nbformat.write(new_notebook(cells=cells), root / "notebooks" / f"{name}.ipynb")


def run(root: Path, name: str) -> Path:
    return experiment.run(root, name, plan(root, name))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder that is the same every time."""
    found = [path for path in files(folder) if path.name != "effort.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A project with an experiment of two notebooks that was run once."""
    root = tmp_path_factory.mktemp("project")
    (root / "notebooks").mkdir()
    (root / "params").mkdir()
    make(root, "01_one", COUNT, TABLE, FIGURE, name="line")
    make(root, "02_two", COUNT, TABLE, FIGURE + "\nplt.plot([2, 1])\nplt.show()")
    (root / "params/demo.yaml").write_text(TWO)
    (root / "notebooks/story.txt").write_text("Once.")
    (root / "rdlib/assets").mkdir(parents=True)
    (root / "rdlib/it.py").write_text("x = 1\n")
    (root / "rdlib/assets/model.txt").write_text("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "PACKAGE", root / "rdlib")
        run(root, "demo")
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch) -> Path:
    """A copy of it."""
    root = Path(shutil.copytree(finished, tmp_path / "project"))
    monkeypatch.setattr(fingerprint, "PACKAGE", root / "rdlib")
    return root


# --- what a run makes ------------------------------------------------------------------------------------


def test_files(finished):
    assert set(contents(finished / "build" / "demo")) == {
        *("01_one.ipynb", "01_one.html", "02_two.ipynb", "02_two.html"),
        *("figures/01_one-line.png", "figures/02_two-1.png", "figures/02_two-2.png"),
        *("tables/01_one.parquet", "tables/02_two.parquet"),
        *("results.csv", "results.parquet", "manifest.json", "index.html"),
        *("state/01_one.json", "state/02_two.json", "state/lock"),
    }
    assert (finished / "build/demo/figures/01_one-line.png").read_bytes().startswith(b"\x89PNG")
    assert 'href="02_two.html"' in (finished / "build/demo/01_one.html").read_text()


def test_results(finished):
    table = pd.read_parquet(finished / "build/demo/results.parquet")
    assert list(table.columns) == ["notebook", "bits", "mse"]
    assert list(table.notebook) == ["01_one"] * 2 + ["02_two"] * 2
    pd.testing.assert_frame_equal(table, pd.read_csv(finished / "build/demo/results.csv"))


def test_manifest(finished):
    manifest = json.loads((finished / "build/demo/manifest.json").read_text())
    two = manifest["notebooks"]["02_two"]
    assert two["parameters"] == {"divisor": 2, "text": "story.txt"}
    assert two["inputs"] == {"story.txt": sha256(b"Once.")}
    assert manifest["assets"] == {"assets/model.txt": sha256(b"weights")}
    hashes = manifest["files"] | manifest["notebooks"]["01_one"]["files"] | two["files"]
    build = contents(finished / "build/demo")
    assert hashes == {name: sha256(build[name]) for name in hashes}
    assert set(build) - set(hashes) == {
        "index.html",
        "manifest.json",
        "state/01_one.json",
        "state/02_two.json",
        "state/lock",
    }


def test_no_event_loop_stays_open(project):
    """Found as a test that failed for the garbage of another: Papermill makes a loop for each thread."""
    (project / "build/demo/state/02_two.json").unlink()
    before = open_loops()
    run(project, "demo")
    assert open_loops() == before


def open_loops() -> list[AbstractEventLoop]:
    """Of this process: a test before, or nbval, may have one in its main thread."""
    loops = [o for o in gc.get_objects() if issubclass(type(o), AbstractEventLoop)]
    return [loop for loop in loops if not loop.is_closed()]


def test_nothing_tells_where_or_when(finished):
    for name, data in contents(finished / "build/demo").items():
        assert str(finished).encode() not in data, name
        assert b"start_time" not in data, name
    executed = nbformat.read(finished / "build/demo/01_one.ipynb", as_version=4)
    assert executed == notebook.tidy(nbformat.from_dict(json.loads(json.dumps(executed))))


def test_what_it_took(finished):
    effort = json.loads((finished / "build/demo/effort.json").read_text())
    assert list(effort) == ["01_one", "02_two"]
    assert all(took["seconds"] > 0 and 0.02 < took["gigabytes"] < 4 for took in effort.values())


def test_what_a_cell_prints_is_one_piece():
    """A busy machine hands it over in several, and progress bars come between them."""
    pieces = [("stdout", "a\n"), ("stderr", "50 %"), ("stdout", "b\n"), ("stdout", "c\n")]
    outputs = [new_output("stream", name=name, text=text) for name, text in pieces]
    cell = new_code_cell(outputs=[*outputs[:3], new_output("display_data"), *outputs[3:]])
    tidied = notebook.tidy(new_notebook(cells=[cell])).cells[0].outputs
    assert [output.get("text") for output in tidied] == ["a\nb\n", None, "c\n"]


LATE = """import time

get_ipython().kernel.iopub_thread.schedule(lambda: time.sleep(5))
print('late')"""


def test_an_output_is_waited_for(project):
    """Found at a hundredth of a core: the client went on after four seconds, and the output was lost."""
    make(project, "03_three", LATE)
    executed, _ = notebook.execute(project / "notebooks/03_three.ipynb", {})
    assert executed.cells[-1].outputs[0].text == "late\n"


def test_warnings_are_logged(project, caplog):
    (project / "params/demo.yaml").write_text("02_two: {divisor: 4}\n")
    run(project, "demo")
    assert "02_two: careful" in caplog.messages


def test_committed_notebooks_are_not_touched(finished):
    cells = nbformat.read(finished / "notebooks/01_one.ipynb", as_version=4).cells
    assert all(cell.execution_count is None for cell in cells if cell.cell_type == "code")


# --- what it does the next time --------------------------------------------------------------------------


def test_up_to_date_is_not_run_again(project, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(notebook, "execute", lambda *_: pytest.fail("ran again"))
    before = contents(project / "build")
    run(project, "demo")
    assert contents(project / "build") == before
    assert caplog.messages == ["01_one is up to date.", "02_two is up to date."]


def change_source(root: Path) -> None:
    make(root, "02_two", COUNT)


def change_parameter(root: Path) -> None:
    (root / "params/demo.yaml").write_text(TWO.replace("2\n", "4\n"))


def change_named_file(root: Path) -> None:
    (root / "notebooks/story.txt").write_text("Twice.")


def change_library(root: Path) -> None:
    (root / "rdlib/it.py").write_text("x = 2\n")


def change_model(root: Path) -> None:
    (root / "rdlib/assets/model.txt").write_text("other weights")


def lose_output(root: Path) -> None:
    (root / "build/demo/02_two.html").unlink()


def damage_output(root: Path) -> None:
    (root / "build/demo/tables/02_two.parquet").write_bytes(b"")


def damage_state(root: Path) -> None:
    (root / "build/demo/state/02_two.json").write_bytes(b"{")


ONE = [change_source, change_parameter, change_named_file, lose_output, damage_output, damage_state]
ALL = [change_library, change_model]


@pytest.mark.parametrize(
    ("change", "first"), [(change, "02_two") for change in ONE] + [(change, "01_one") for change in ALL]
)
def test_what_changed_is_run_again(project, monkeypatch, change, first):
    ran = []

    def fail(path, *_):
        ran.append(path.stem)
        raise NotebookFailed("stop here", new_notebook())

    monkeypatch.setattr(notebook, "execute", fail)
    change(project)
    with pytest.raises(NotebookFailed):
        run(project, "demo")
    assert ran == [first]


def test_same_inputs_same_bytes_also_two_at_a_time(project):
    before = contents(project / "build")
    shutil.rmtree(project / "build")
    experiment.run(project, "demo", plan(project, "demo"), jobs=2)
    assert contents(project / "build") == before
    assert len(json.loads((project / "build/demo/effort.json").read_text())) == 2


def test_what_is_no_longer_made_goes(project):
    make(project, "02_two", COUNT)
    (project / "params/demo.yaml").write_text(f"notebooks: [02_two]\n{TWO}")
    run(project, "demo")
    names = {
        "02_two.html",
        "02_two.ipynb",
        "index.html",
        "manifest.json",
        "results.csv",
        "results.parquet",
        "state/02_two.json",
    }
    assert set(contents(project / "build/demo")) == names | {"state/lock"}


# --- when something is wrong -----------------------------------------------------------------------------


def test_of_notebooks_that_are_left_out_the_results_stay(project, monkeypatch):
    before = json.loads((project / "build/demo/manifest.json").read_text())["notebooks"]
    make(project, "01_one", COUNT, TABLE)
    make(project, "02_two", "raise SystemExit('is not run')")
    pd.DataFrame({"bits": [1, 2], "mse": [4, 1]}).to_parquet(project / "notebooks/table.parquet")
    monkeypatch.setattr(experiment, "commit", lambda root: "another")
    experiment.run(project, "demo", plan(project, "demo"), only=["01_one"])
    after = json.loads((project / "build/demo/manifest.json").read_text())["notebooks"]
    assert after["01_one"]["commit"] == "another" and after["01_one"]["files"] != before["01_one"]["files"]
    assert {k: v for k, v in after["02_two"].items() if k != "inputs"} == {
        k: v for k, v in before["02_two"].items() if k != "inputs"
    }
    points = pd.read_parquet(project / "build/demo/results.parquet")
    assert points.groupby("notebook").mse.min().to_dict() == {"01_one": 1, "02_two": 1.5}
    with pytest.raises(ParameterError, match="There is no notebook '03'; 01_one, 02_two"):
        experiment.run(project, "demo", plan(project, "demo"), only=["03"])


def test_failure_keeps_what_was_whole(project):
    before = contents(project / "build/demo")
    (project / "params/demo.yaml").write_text("02_two: {divisor: 0}\n")
    with pytest.raises(NotebookFailed) as caught:
        run(project, "demo")
    where = "02_two.ipynb stopped in code cell 3 (`import sys`): ZeroDivisionError: division by zero"
    assert where in str(caught.value) and "\n" not in str(caught.value)
    after = contents(project / "build/demo")
    partial = after.pop("02_two.partial.ipynb")
    assert after == before
    assert b"ZeroDivisionError" in partial
    (project / "params/demo.yaml").write_text(TWO)
    run(project, "demo")
    assert contents(project / "build/demo") == before


def test_first_failure_shows_how_far_it_came(project):
    shutil.rmtree(project / "build")
    (project / "params/demo.yaml").write_text("02_two: {divisor: 0}\n")
    with pytest.raises(NotebookFailed):
        run(project, "demo")
    index = (project / "build/demo/index.html").read_text()
    assert "not run to its end" in index and "ZeroDivisionError: division by zero" in index
    assert 'href="01_one.html"' in index and 'href="02_two.html"' not in index


def test_dead_kernel_is_a_failure(project):
    make(project, "02_two", COUNT, "import os\n\nos._exit(1)")
    with pytest.raises(NotebookFailed, match=r"code cell 4 \(`import os`\)"):
        run(project, "demo")
    assert (project / "build/demo/02_two.partial.ipynb").exists()


def test_exit_status(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    main(["run", "demo"])  # it returns: status 0
    done = capsys.readouterr().out
    assert done.startswith("Look at build/demo/index.html: 2 notebooks") and "4 points" in done
    (project / "params/demo.yaml").write_text("02_two: {divisor: 0}\n")
    with pytest.raises(SystemExit, match=r"code cell 3 \(.*ZeroDivisionError"):
        main(["run", "demo"])
    shutil.rmtree(project / "build")
    (project / "build").write_text("a file in the place of the folder")
    with pytest.raises(SystemExit) as barred:
        main(["run", "demo"])
    assert "\n" not in barred.value.code and "build/demo" in barred.value.code


def test_whoever_waits_for_a_kernel_is_told_that_it_was_ended(project):
    make(project, "03_three", "import time\n\nprint('begun', flush=True)\ntime.sleep(600)")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(notebook.execute, project / "notebooks/03_three.ipynb", {})
        while not notebook.Manager.running:
            time.sleep(0.1)
        notebook.kill_kernels()
        with pytest.raises(NotebookFailed, match="03_three.ipynb stopped"):
            waiting.result(timeout=600)


def test_two_runs_at_once(project):
    with exclusive(project / "build/demo"), pytest.raises(Busy, match="build/demo"):
        run(project, "demo")


def test_a_kernel_holds_the_lock_of_its_run(project):
    """So that none that outlives its run can write into the folder of the next."""
    make(project, "03_three", "import os\n\nprint(os.fstat(divisor).st_ino)")
    with exclusive(project / "build/demo") as lock:
        executed, _ = notebook.execute(project / "notebooks/03_three.ipynb", {"divisor": lock}, [lock])
    assert int(executed.cells[-1].outputs[0].text) == (project / "build/demo/state/lock").stat().st_ino


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("divizor: 2", ["demo.yaml", "'divizor'", "divisor, results, text"]),
        ("divisor: two", ["demo.yaml", "divisor", "'two'", "no int"]),
        ("02_two: {divisor: two}", ["demo.yaml", "divisor", "'two'", "no int"]),
        ("02_two: {divizor: 2}", ["demo.yaml below 02_two", "'divizor'"]),
        ("02_two: 3", ["demo.yaml", "02_two 3"]),
        ("results: /tmp", ["demo.yaml", "results"]),
        ("03_three: {divisor: 1}", ["demo.yaml", "'03_three'"]),
        ("notebooks: [03_three]", ["demo.yaml", "03_three", "01_one, 02_two"]),
        ("notebooks: []", ["demo.yaml", "01_one, 02_two"]),
    ],
)
def test_bad_input_is_refused_before_anything_runs(project, monkeypatch, content, words):
    monkeypatch.setattr(notebook, "execute", lambda *_: pytest.fail("ran"))
    (project / "params/demo.yaml").write_text(content)
    before = contents(project / "build")
    with pytest.raises(ParameterError) as caught:
        run(project, "demo")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert contents(project / "build") == before


@pytest.mark.parametrize("name", ["no-such", "../params/demo", "", "."])
def test_unknown_experiment(project, name):
    with pytest.raises(ParameterError, match="params has: demo"):
        plan(project, name)


def test_no_notebooks(tmp_path):
    (tmp_path / "params").mkdir()
    (tmp_path / "params/empty.yaml").write_text("")
    with pytest.raises(ParameterError, match="holds no notebook; run this in the folder of the project"):
        plan(tmp_path, "empty")


def test_what_is_shared_is_said_once(project):
    """A shared parameter goes to the notebooks that have it; what a notebook says itself comes first."""
    extra = new_code_cell(
        "layer: int = 1  # of it\ntext: str = ''  # a file", metadata={"tags": ["parameters"]}
    )
    nbformat.write(new_notebook(cells=[extra]), project / "notebooks/03_three.ipynb")
    (project / "params/demo.yaml").write_text("layer: 8\ntext: a\n02_two: {text: b}\n03_three:\n")
    chosen = {step.name: step.chosen for step in plan(project, "demo")}
    assert chosen == {"01_one": {"text": "a"}, "02_two": {"text": "b"}, "03_three": {"layer": 8, "text": "a"}}


# --- a model alone ---------------------------------------------------------------------------------------


@pytest.fixture
def with_model(project, monkeypatch) -> Path:
    """A project whose second notebook reads a model; the working directory is in it."""
    cell = new_code_cell("model: str = 'embedded'  # which", metadata={"tags": ["parameters"]})
    nbformat.write(
        new_notebook(cells=[cell, new_code_cell("print(model)")]), project / "notebooks/02_two.ipynb"
    )
    (project / "notebooks/01_one.ipynb").unlink()
    monkeypatch.chdir(project)
    return project


def test_a_model_needs_no_yaml(with_model):
    name, steps = plan_model(Path(), "embedded")
    build = experiment.run(Path(), name, steps)
    assert build == Path("build/embedded") and (build / "index.html").exists()


def test_models_of_one_name_do_not_share_a_folder(with_model):
    for owner in "ab":
        (with_model / owner / "x").mkdir(parents=True)
    models = ["c/x", "d/x", "a/x", "b/x"]  # two of the hub, two folders
    names = [plan_model(Path(), model)[0] for model in models]
    assert len(set(names)) == 4 and all("/" not in name and "x" in name for name in names), names
    assert names[:2] == ["c--x", "d--x"]
    assert plan_model(Path(), "c/x:y.gguf")[0] == "c--x--y.gguf"
    assert plan_model(Path(), str(with_model / "a" / "x"))[0] == names[2], "the same folder by another path"
    Path("a/x.gguf").touch()
    for model in "a/x", "a/x.gguf":
        (step,) = plan_model(Path(), model)[1]
        assert (Path("notebooks") / step.chosen["model"]).samefile(model), "as the notebook sees it"


@pytest.mark.parametrize("model", ["", "demo", "../none", "a/b/c", "two words/x"])
def test_what_is_no_model_is_refused(with_model, model):
    with pytest.raises(ParameterError, match="There is no folder"):
        plan_model(Path(), model)


def test_a_model_of_the_hub_that_changes_is_noticed(with_model, monkeypatch, caplog):
    """The commit is part of what a result depends on, not only the id."""
    caplog.set_level("INFO")
    first, second = "1f" * 20, "2e" * 20
    asked, commits = [], iter([first, first, second])

    def find(model: str) -> Path:
        asked.append(model)
        return with_model / "snapshots" / next(commits)

    monkeypatch.setattr(fingerprint, "find_model", find)
    name, steps = plan_model(Path(), "owner/name")
    for _ in range(3):
        experiment.run(Path(), name, steps)
    assert asked == ["owner/name"] * 3 and sum("up to date" in m for m in caplog.messages) == 1
    manifest = json.loads((with_model / "build/owner--name/manifest.json").read_text())
    assert manifest["notebooks"]["02_two"]["inputs"] == {"owner/name": second}


def test_a_model_that_cannot_be_had_is_no_error_yet(with_model, monkeypatch):
    def refuse(model: str) -> Path:
        raise ValueError(f"{model} is gated")

    monkeypatch.setattr(fingerprint, "find_model", refuse)
    found = fingerprint.inputs(
        Path("notebooks"), {"02_two": {"checkpoints": ["a/b", "in-the-box"], "text": "a/c"}}
    )
    assert found == {"02_two": {"a/b": None}}


def test_what_the_site_installs_makes_no_notebook_run_again(monkeypatch):
    """`make site` brings pdoc, and `make run` after it has nothing to do."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    own = [need.partition(">")[0] for need in project["optional-dependencies"]["site"][1:]]
    found = [SimpleNamespace(name=name, version="1") for name in ("numpy", *own)]
    monkeypatch.setattr(fingerprint, "distributions", lambda: found)
    assert own and fingerprint.packages.__wrapped__() == {"numpy": "1"}


# --- make refresh ----------------------------------------------------------------------------------------


def test_refresh(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["rdlib.runs.notebook", "01_one"])
    monkeypatch.setattr(notebook, "DEFAULTS", project / "defaults.json")
    notebook.main()
    first = Path("notebooks/01_one.ipynb").read_bytes()
    refreshed = nbformat.reads(first, as_version=4)
    code = [cell for cell in refreshed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
    assert code[1].outputs[0].text == "1.0\n"
    assert refreshed.metadata == {"kernelspec": notebook.KERNEL, "language_info": notebook.LANGUAGE}
    assert json.loads((project / "defaults.json").read_text())["02_two"] == {"divisor": 1, "text": ""}
    notebook.main()
    assert Path("notebooks/01_one.ipynb").read_bytes() == first
