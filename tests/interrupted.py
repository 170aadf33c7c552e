"""A command that keeps a part for each tensor, interrupted in the third tensor, however fast the machine is."""

import signal
import subprocess
import sys
from pathlib import Path

TWO_THEN_WAIT = """
import importlib, signal, sys, threading
from rdlib.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in its background

run, name = importlib.import_module(sys.argv.pop(1)), sys.argv.pop(1)
rows_of, begun = getattr(run, name), []

def two_then_wait(*arguments):
    begun.append(0)
    if len(begun) == 3:
        print("waiting", flush=True)
        threading.Event().wait()  # for the signal
    return rows_of(*arguments)

setattr(run, name, two_then_wait)
main()
"""


def interrupt(module: str, name: str, *arguments: object, parts: Path) -> dict[Path, int]:
    """Interrupt `rdlib arguments` when the function ``name`` of a module is called a third time.

    Returns:
        The two parts that are kept by then, and when they were written.
    """
    command = [sys.executable, "-c", TWO_THEN_WAIT, module, name, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waiting\n", process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 1 and "the next run goes on from there" in stderr
    times = {part: part.stat().st_mtime_ns for part in parts.iterdir()}
    assert len(times) == 2
    return times
