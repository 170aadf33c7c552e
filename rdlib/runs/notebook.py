"""Execute a notebook, keep what is the same every time, and take out its figures.

python -m rdlib.runs.notebook            # execute the committed notebooks again, in place
python -m rdlib.runs.notebook 02_scalar_rd
"""

import argparse
import base64
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import joblib
import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets import Int, List, Unicode
from traitlets.config import Config

from rdlib.files import write_whole
from rdlib.runs.check import DEFAULTS, FAST, RESULTS
from rdlib.runs.parameters import declared

LOG = logging.getLogger(__name__)
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
KEPT = (
    "alt",
    "jupyter",
    "name",
    "tags",
)  # metadata of a cell that an author writes; the rest comes from tools
INJECTED = "injected-parameters"  # Papermill's tag
PEAK = """try:
    import resource

    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # KiB, on a Mac bytes
except ModuleNotFoundError:  # on Windows
    print(0)"""
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")  # variables that say how many; those of the caller stay
PATIENCE = 600  # seconds, on a machine that is busy: for a kernel to start, and for what a cell has printed to arrive
WIDGET = "application/vnd.jupyter.widget-view+json"  # a widget of the running kernel, of a random id


@dataclass(frozen=True)
class Effort:
    """What it took to run a notebook.

    Args:
        seconds: in its cells.
        gigabytes: of memory, the most that its kernel held.
    """

    seconds: float
    gigabytes: float


class NotebookFailed(RuntimeError):
    """A cell raised, or the kernel died; ``partial`` is the notebook up to there, with the traceback."""

    def __init__(self, message: str, partial: NotebookNode):
        super().__init__(message)
        self.partial = partial


class Manager(AsyncKernelManager):
    """Starts kernels in a folder, with a share of the cores.

    They inherit an open file, so that a lock on it lasts until the kernel, too, has ended.
    """

    running: ClassVar[set["Manager"]] = set()
    inherited = List(Int(), help="file descriptors").tag(config=True)
    folder = Unicode(help="in which kernels run").tag(config=True)
    threads = Int(1, help="of compiled loops and of products of matrices").tag(config=True)

    async def start_kernel(self, **more: object) -> None:
        """Start the kernel."""
        env = (
            dict.fromkeys(THREADS, str(self.threads)) | os.environ | {FAST: "0"}
        )  # a run says its parameters
        files = {"pass_fds": self.inherited} if os.name == "posix" else {}  # Windows has no such thing
        await super().start_kernel(**more | files | {"cwd": self.folder, "env": env})
        self.running.add(self)

    async def cleanup_resources(self, restart: bool = False) -> None:
        """After the kernel has ended."""
        self.running.discard(self)
        await super().cleanup_resources(restart)


def kill_kernels() -> None:
    """End all kernels of this process at once: whoever waits for one is told that it has died."""
    for manager in list(Manager.running):
        if os.name == "posix":
            os.killpg(manager.provisioner.pid, signal.SIGKILL)
        else:
            os.kill(manager.provisioner.pid, signal.SIGTERM)


def execute(
    path: Path, parameters: dict[str, object], inherited: Sequence[int] = (), jobs: int = 1
) -> tuple[NotebookNode, Effort]:
    """Run a notebook in its own folder and a fresh kernel of this Python; the file itself is not touched.

    What cells write to stderr (warnings, not progress bars) is passed on to this process's stderr.

    Args:
        path: of the notebook.
        parameters: those that differ from its defaults.
        inherited: file descriptors that the kernel keeps open.
        jobs: how many run at a time and share the cores.

    Raises:
        NotebookFailed: the message names notebook, cell and error in one sentence.
    """
    with tempfile.TemporaryDirectory() as folder:
        running = Path(folder) / "running.ipynb"  # Papermill writes it after every cell
        source = nbformat.read(path, as_version=4)
        source.cells.append(nbformat.v4.new_code_cell(PEAK))
        try:
            papermill.execute_notebook(
                source,
                running,
                parameters=parameters,
                kernel_name=KERNEL["name"],
                language=KERNEL["language"],
                start_timeout=PATIENCE,
                iopub_timeout=PATIENCE,  # after its own four seconds the client goes on without an output
                raise_on_iopub_timeout=True,
                progress_bar={"desc": path.stem, "file": sys.stderr},
                kernel_manager_class=Manager,
                config=Config(
                    KernelManager={"transport_encryption": "auto"},  # between this process and the kernel
                    Manager={
                        "inherited": list(inherited),
                        "folder": str(path.parent),
                        "threads": max(1, joblib.cpu_count() // jobs),
                    },
                ),
            )
        except (
            PapermillExecutionError,
            RuntimeError,
            TimeoutError,
        ) as error:  # RuntimeError: the kernel died
            partial = nbformat.read(running, as_version=4)
            partial.cells.pop()
            raise NotebookFailed(f"{path} stopped {_where(partial, error)}", partial) from None
        executed = nbformat.read(running, as_version=4)
    effort = _effort(executed)
    for line in warnings(executed):
        LOG.warning("%s: %s", path.stem, line)
    return tidy(executed), effort


def _effort(executed: NotebookNode) -> Effort:
    """What the notebook took, from the times of its cells and from the cell at its end, which is removed."""
    seconds = sum(cell.metadata.papermill.get("duration") or 0 for cell in executed.cells)
    peak = int(executed.cells.pop().outputs[0].text) * (1 if sys.platform == "darwin" else 1024)
    return Effort(round(seconds, 1), round(peak / 1e9, 2))


def tidy(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what differs from run to run: times, versions, random ids, stderr."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: cell.metadata[k] for k in KEPT if cell.metadata.get(k)})
        if INJECTED in cell.metadata.get("tags", []):
            cell.id = INJECTED
        if cell.cell_type == "code":
            cell.outputs = _joined(output for output in cell.outputs if output.get("name") != "stderr")
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)  # the text of a widget stays
    return notebook


def _joined(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """The outputs of a cell; what it prints comes in as many pieces as the machine is busy, and is made one."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def warnings(notebook: NotebookNode) -> list[str]:
    """The lines that cells wrote to stderr, but for progress bars, which return to their line's start."""
    streams = (output for cell in notebook.cells for output in cell.get("outputs", []))
    text = "\n".join(output.text for output in streams if output.get("name") == "stderr")
    return [line for line in text.split("\n") if line.strip() and "\r" not in line]


@dataclass(frozen=True)
class Figure:
    """A PNG among the outputs of a notebook: its name, the index of its cell, and the picture in base64."""

    name: str
    cell: int
    base64: str


def placed_figures(notebook: NotebookNode) -> list[Figure]:
    """Every PNG among the outputs, named by the ``name`` in its cell's metadata or else by its order."""
    found: list[Figure] = []
    for place, cell in enumerate(notebook.cells):
        pictures = [o.data["image/png"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
        for k, picture in enumerate(pictures, 1):
            name = cell.metadata.get("name")
            name = f"{len(found) + 1}" if name is None else name if k == 1 else f"{name}-{k}"
            found.append(Figure(name, place, "".join(picture.split())))
    return found


def figures(notebook: NotebookNode) -> dict[str, bytes]:
    """The bytes of every figure by its name, see :func:`placed_figures`."""
    return {figure.name: base64.b64decode(figure.base64) for figure in placed_figures(notebook)}


def text(notebook: NotebookNode) -> str:
    """The notebook as stored in its file."""
    return nbformat.writes(notebook) + "\n"


def defaults(notebooks: list[Path]) -> str:
    """The default parameters of notebooks, as :func:`rdlib.runs.check.check_parameters` reads them."""
    return (
        json.dumps(
            {
                path.stem: {k: p.default for k, p in declared(path).items() if k != RESULTS}
                for path in notebooks
            },
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
    )


def _where(partial: NotebookNode, error: Exception) -> str:
    """``in cell [7] (`first line`): Error: message.``, from the last cell that was started."""
    started = [c for c in partial.cells if c.cell_type == "code" and c.metadata.papermill.get("start_time")]
    if not started:
        return f"before its first cell: {error}"
    cell = started[-1]
    number = sum(c.cell_type == "code" for c in partial.cells[: partial.cells.index(cell) + 1])
    raised = [f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error"]
    reason = (raised or [str(error) or type(error).__name__])[-1].strip().splitlines()[0]
    return f"in code cell {number} (`{cell.source.strip().splitlines()[0]}`): {reason}"


def main() -> None:
    """Execute notebooks in place with their default parameters."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", nargs="*", help="a notebook, like 02_scalar_rd; all, if none is named")
    parser.add_argument("--folder", type=Path, default=Path("notebooks"), help="(default: %(default)s)")
    options = parser.parse_args()
    notebooks = [options.folder / f"{name.removesuffix('.ipynb')}.ipynb" for name in options.name]
    for path in notebooks or sorted(options.folder.glob("*.ipynb")):
        if not path.is_file():
            sys.exit(f"There is no notebook {path}.")
        try:
            write_whole(path, text(execute(path, {})[0]))
        except NotebookFailed as failure:
            sys.exit(str(failure))
    write_whole(DEFAULTS, defaults(sorted(options.folder.glob("[0-9]*.ipynb"))))


if __name__ == "__main__":
    main()
