"""Killed at any moment, a run or a census goes on and ends with the bytes of one that was left in peace."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from effort import KILLS, SEED
from random_checkpoint import write_checkpoint
from test_experiment import COUNT, TABLE, make

LONG = 3600  # seconds: only there so that nothing hangs for ever
FIGURE = """from base64 import b64decode

from IPython.display import Image, display

display(Image(b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)))"""  # one pixel
SMALL = {"vocabulary": 64, "layers": 1, "hidden": 64, "inner": 96, "key_value": 32}

# Imports once and forks for every run, so that a kill costs no start of Python.  (What is compiled cannot be shared:
# a child of a process that used OpenMP is ended.)
SERVER = """
import os, resource, signal, sys, time
from pathlib import Path
import matplotlib.pyplot as plt, nbformat
from rdlib.runs import experiment, fingerprint, page
from rdlib.census import run as census
from rdlib.plot import png

page.html(nbformat.v4.new_notebook(), "")  # reads templates and fonts, once for all that is forked
png(plt.subplots()[0])

class Moment:  # so many seconds from now, or when a file is there
    def __init__(self, when):
        self.file, self.end = Path(when), None
        if when.replace(".", "").isdigit():
            self.end = time.monotonic() + float(when)

    def has_come(self):
        return self.file.exists() if self.end is None else time.monotonic() > self.end

def work(kind, *folders):
    if kind == "room":  # no file may grow beyond so many bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(folders[0]), int(folders[0])))
        return work(*folders[1:])
    if kind == "nobody":  # root may write anywhere
        nbformat.validate(nbformat.v4.new_notebook())  # this and the codec are imported late,
        "".encode("utf-8-sig")  # from where nobody may not read
        os.seteuid(65534)
        return work(*folders)
    if kind == "census":
        census.census(folders[0], folders[1], jobs=1)
    else:
        fingerprint.PACKAGE = Path(folders[0]) / "rdlib"
        root = Path(folders[0])
        experiment.run(root, "demo", experiment.plan(root, "demo"))

for line in sys.stdin:
    moment, whole_group, *arguments = line.rstrip().split("|")
    child = os.fork()
    if not child:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            work(*arguments)
        except OSError:
            os._exit(28)
        except BaseException:
            os._exit(1)
        os._exit(0)
    moment, status = Moment(moment), 0
    while not moment.has_come() and not status:
        done, code = os.waitpid(child, os.WNOHANG)
        status = f"exit {os.waitstatus_to_exitcode(code)}" if done else 0
        time.sleep(0.002)
    if not status:
        (os.killpg if whole_group == "1" else os.kill)(child, signal.SIGKILL)
        os.waitpid(child, 0)
        status = "killed"
    print(status, flush=True)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))},
    )  # fmt: skip
    yield process
    process.stdin.close()
    process.wait(timeout=LONG)


def work(server: subprocess.Popen, moment: float | Path, whole_group: bool, *arguments: object) -> str:
    """Let it run for so many seconds, or until a file is there, then kill it; says how it ended."""
    print(moment, int(whole_group), *arguments, sep="|", file=server.stdin, flush=True)
    return server.stdout.readline().strip()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder that is a result; what a run took is no result."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("lock", "effort.json")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}


def finish(server: subprocess.Popen, *arguments: object) -> None:
    """Let it run to its end, once the kernel of a killed driver no longer holds the folder."""
    end = time.monotonic() + LONG
    while (status := work(server, LONG, True, *arguments)) != "exit 0":
        assert status == "exit 1" and time.monotonic() < end, status
        time.sleep(0.5)


def project(root: Path, *cells: str) -> Path:
    """An experiment of two small notebooks, the first with these cells."""
    for folder in ("notebooks", "params", "rdlib/assets"):
        (root / folder).mkdir(parents=True)
    make(root, "01_one", COUNT, TABLE, *cells)
    make(root, "02_two", COUNT, TABLE, FIGURE, name="line")
    (root / "params/demo.yaml").write_text("")
    return root


def undertaking(kind: str, folder: Path) -> tuple[tuple[object, ...], Path]:
    """What the server is asked for a run or a census in a folder, and where its results will be."""
    if kind == "run":
        root = project(folder / "project")
        return ("run", root), root / "build/demo"
    return ("census", write_checkpoint(folder / "model", **SMALL), folder / "out"), folder / "out"


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory) -> dict[str, tuple[tuple[object, ...], Path, dict[str, bytes]]]:
    """A run and a census, where their results are, and what these are; what is compiled is compiled then."""
    done = {}
    for kind in ("run", "census"):
        arguments, out = undertaking(kind, tmp_path_factory.mktemp(kind))
        assert work(server, LONG, True, *arguments) == "exit 0"
        done[kind] = arguments, out, contents(out)
    return done


def results(found: dict[str, bytes]) -> dict[str, bytes]:
    """Without the parts of a census, and without what was being written: killed ones may leave both."""
    return {n: d for n, d in found.items() if not n.startswith("parts/") and ".unfinished/" not in n}


@pytest.mark.parametrize("kind", ["run", "census"])
def test_it_survives_kills(server, undisturbed, kind, tally):
    """Killed at moments uniform over an undisturbed one, again and again, until one gets through."""
    arguments, out, whole = undisturbed[kind]
    shutil.rmtree(out)
    begin = time.monotonic()
    assert work(server, LONG, True, *arguments) == "exit 0"
    duration, chance, killed, through = time.monotonic() - begin, random.Random(SEED), 0, 0
    shutil.rmtree(out)
    while killed < KILLS // 2:
        end = work(server, chance.uniform(0, duration), chance.random() < 0.5, *arguments)
        killed += end == "killed"
        if end == "exit 0":
            through += 1
            assert results(contents(out)) == results(whole), f"after {killed} kills"
            shutil.rmtree(out)
    finish(server, *arguments)
    assert results(contents(out)) == results(whole), f"after {killed} kills"
    tally(f"kills of a {kind}", killed)
    tally(f"times that a {kind} was whole in the end", through + 1)


@pytest.mark.parametrize("kind", ["run", "census"])
def test_without_room_nothing_half_written_is_taken_for_whole(server, undisturbed, kind, tally):
    """No file may grow beyond a limit: an error of the system in whichever write comes first."""
    arguments, out, whole = undisturbed[kind]
    sizes = sorted({len(data) for data in whole.values()})
    shutil.rmtree(out)
    for limit in [1, *(size - 1 for size in sizes[:: max(2 * len(sizes) // KILLS, 1)]), sizes[-1] - 1]:
        end = work(server, LONG, True, "room", limit, *arguments)
        assert end in ("exit 28", "exit 1"), f"{limit} bytes: {end}"
        half = {name for name, data in contents(out).items() if name in whole and data != whole[name]}
        assert half <= {"index.html"}, "a first failure shows how far it came"
        tally("writes without room", 1)
    finish(server, *arguments)
    assert {n: d for n, d in contents(out).items() if "unfinished" not in n and "partial" not in n} == whole


@pytest.mark.parametrize("kind", ["run", "census"])
def test_without_the_right_to_write_there_is_an_error_of_the_system(server, kind):
    """As another user, who may read but not write."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        arguments, out = undertaking(kind, Path(folder))
        out = out.parent if kind == "run" else out
        out.parent.chmod(0o555)
        nobody = ("nobody",) if os.geteuid() == 0 else ()
        assert work(server, LONG, True, *nobody, *arguments) == "exit 28"
        out.parent.chmod(0o755)
        assert not out.exists()


def test_a_kernel_that_is_left_behind_holds_the_folder(server, undisturbed, tmp_path):
    """Only the driver is killed, in the middle of a cell: the next run waits until its kernel has ended."""
    slow = f"import time\n\nopen('begun', 'w').close()\ntime.sleep({LONG})\nopen('late', 'w').close()"
    root = project(tmp_path / "project", slow)
    assert work(server, root / "notebooks/begun", False, "run", root) == "killed"
    make(root, "01_one", COUNT, TABLE)  # the same without the wait
    finish(server, "run", root)
    assert not (root / "notebooks/late").exists()
    whole = undisturbed["run"][2]
    for name in ("results.csv", "results.parquet", "tables/01_one.parquet", "figures/02_two-line.png"):
        assert (root / "build/demo" / name).read_bytes() == whole[name]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    """Root may write anywhere, so that a folder that cannot be is what stands for a read-only one."""
    (tmp_path / "out").write_text("")
    model = write_checkpoint(tmp_path / "model", **SMALL)
    command = [sys.executable, "-m", "rdlib", "census", str(model), str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 1 and "Traceback" not in run.stderr and "out" in run.stderr


def test_a_clock_that_goes_back_changes_nothing(tmp_path, server):
    """What is up to date is told by content: files from the future, or from 1970, are as good."""
    root = project(tmp_path / "project")
    assert work(server, LONG, True, "run", root) == "exit 0"
    before = contents(root / "build/demo")
    for k, path in enumerate(p for p in root.rglob("*") if p.is_file()):
        os.utime(path, (0, 0) if k % 2 else (4e9, 4e9))
    times = {p: p.stat().st_mtime for p in (root / "build").rglob("01_one.ipynb")}
    assert work(server, LONG, True, "run", root) == "exit 0"
    assert contents(root / "build/demo") == before
    assert all(p.stat().st_mtime == t for p, t in times.items()), "it was not run again"


assert signal.SIGKILL  # these tests are of POSIX systems
