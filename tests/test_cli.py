"""``rdlib``: its help, its errors, and that `make` and pyproject.toml call it."""

import logging
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rdlib.__main__ import main
from rdlib.extras import MissingExtra, extra

ROOT = Path(__file__).parents[1]
COMMANDS = [
    "run",
    "lab",
    "compare",
    "site",
    "slides",
    "report",
    "keep",
    "census",
    "audit",
    "export",
    "plan",
    "contract",
    "complete",
]


def printed(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_command(capsys):
    text = printed(capsys, "--help")
    assert re.findall(r"^    (\w+) +[A-Z]", text, re.M) == COMMANDS
    for line in re.findall(r"^  rdlib (\w+)", text, re.M):
        assert line in COMMANDS, "an example of no command"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(capsys, command):
    text = printed(capsys, command, "--help")
    assert text.startswith(f"usage: rdlib {command} ") and "\n\n" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "demos"], "There is no experiment 'demos'; params has: none."),
        (["run", "--model", "no/such/thing"], "There is no folder 'no/such/thing', and it is not a hub id"),
        (["run", "--model", ""], "There is no folder ''"),
        (["compare", "a", "b"], "There is no finished experiment 'a'"),
        (["report", "build/a"], "build/a holds no executed notebook"),
        (["slides", "a"], "build/a holds no executed notebook"),
        (["keep", "a"], "build/a has no manifest.json: run the experiment to its end first"),
        (["site"], "build/demo holds no finished run; run the experiment first"),
        (["census", "no/such/thing", "out"], "There is no folder 'no/such/thing'"),
        (["audit", "no/such/thing", "x"], "There is no folder 'no/such/thing'"),
        (["export", "no/such/thing", "out"], "There is no folder 'no/such/thing'"),
        (["plan", "no/such/thing", "--bits", "4"], "There is no folder 'no/such/thing'"),
        (["export", "embedded", ".."], ".. exists already: name a folder that does not"),
    ],
)
def test_an_error_is_one_sentence(monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert str(ended.value.code).startswith(message) and "\n" not in str(ended.value.code)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "demo", "--model", "x"], ["compare", "a"]])
def test_what_is_no_command_is_refused(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage: rdlib" in capsys.readouterr().err


def test_the_shell_completes_commands_and_options(capsys):
    main(["complete"])
    script = capsys.readouterr().out + (
        'COMP_WORDS=(rdlib cen) COMP_CWORD=1; _rdlib; echo "${COMPREPLY[@]}"\n'
        'COMP_WORDS=(rdlib audit --tok) COMP_CWORD=2; _rdlib; echo "${COMPREPLY[@]}"\n'
    )
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=600)
    assert ran.stdout.splitlines() == ["census", "--tokens"], ran.stderr


def test_what_the_library_logs_is_printed(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    log = logging.getLogger("rdlib.runs").info
    monkeypatch.setattr("rdlib.runs.report.write", lambda _: log("At work."))
    main(["report", "build/demo"])
    assert capsys.readouterr().err == "At work.\n"
    log("Nobody listens.")
    assert capsys.readouterr().err == ""


def test_lab_copies_the_notebooks_into_an_empty_folder_and_leaves_what_is_there(tmp_path, monkeypatch):
    from jupyterlab.labapp import LabApp

    opened = []
    monkeypatch.setattr(LabApp, "launch_instance", classmethod(lambda _, arguments: opened.append(arguments)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/demo.yaml").write_text("mine")
    for _ in range(2):
        main(["lab"])
    assert opened == [["notebooks/index.ipynb"]] * 2 and (tmp_path / "params/demo.yaml").read_text() == "mine"
    names = {
        path.relative_to(ROOT)
        for path in (ROOT / "notebooks").rglob("*.*")
        if "_checkpoints" not in str(path)
    }
    assert names and all((tmp_path / name).read_bytes() == (ROOT / name).read_bytes() for name in names)


def test_help_needs_no_extra():
    """Nothing heavy is imported before a command runs."""
    code = "import sys, rdlib.__main__; print(*(m for m in sys.modules if '.' not in m))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert not {"torch", "pandas", "matplotlib", "papermill", "numpy"} & set(run.stdout.split())


def test_it_is_a_command():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"] == {
        "rdlib": "rdlib.__main__:main"
    }


def test_a_missing_extra_is_named():
    with pytest.raises(MissingExtra, match=r"^It needs no_such_package: pip install 'rdlib\[models\]'$"):
        with extra("models", "It"):
            import no_such_package  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="rdlib.nowhere"), extra("models", "It"):
        import rdlib.nowhere  # noqa: F401


# --- make ------------------------------------------------------------------------------------------------

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z][a-z-]*):.*##", MAKEFILE, re.M)


def make(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_make_help_lists_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M)[1].split()
    listed = re.findall(r"^  ([a-z-]+) +\S", make("help").stdout, re.M)
    assert sorted(listed) == sorted(TARGETS) == sorted(phony)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["run"], "rdlib run demo"),
        (["run", "FAST=1"], "rdlib run fast"),
        (["slides", "FAST=0"], "rdlib slides 'demo'"),
        (["run", "EXPERIMENT=llama-3.2-1b"], "rdlib run llama-3.2-1b"),
        (["run", "JOBS=1"], "rdlib run --jobs '1' demo"),
        (["run", "MODEL=owner/name"], "rdlib run --model 'owner/name'"),
        (["compare", "A=a", "B=b"], "rdlib compare 'a' 'b'"),
        (["census", "MODEL=a b"], "rdlib census 'a b' 'build/census'"),
    ],
)
def test_make_calls_it(arguments, command):
    ran = make("--dry-run", *arguments)
    assert ran.returncode == 0 and command in ran.stdout, ran.stderr


def test_make_says_what_is_missing():
    assert "Say which two" in make("--dry-run", "compare").stderr
    assert "Say which model" in make("--dry-run", "census").stderr
