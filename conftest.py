"""What holds for the tests and for the notebooks under nbval alike, in one process or in several."""

import os
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings

settings.register_profile("any pace", deadline=None)  # its own is 200 ms an example
settings.load_profile("any pace")

# Tests that may be skipped, each with the reason why; any other skip is a failure.
ALLOWED_SKIPS: dict[str, str] = {
    "tests/test_block_formats.py::test_microscaling_formats_equal_torchao": "torchao is of the extra 'peers'",
    "tests/test_block_formats.py::test_hqq_equals_hqq": "hqq is of the extra 'peers'",
    "tests/test_api.py": "pdoc is of the extra 'site', which make site installs",
    "tests/test_browser.py::test_lab_opens_at_the_contents": "there is no Chromium on the machine",
    "tests/test_browser.py::test_explorer_follows_its_sliders": "there is no Chromium on the machine",
    "tests/test_explorer_page.py::test_sliders_show_what_the_library_says": "there is no Chromium on the machine",
    "tests/test_explorer_page.py::test_a_state_is_in_the_address": "there is no Chromium on the machine",
    "tests/test_explorer_page.py::test_the_page_fits_a_phone_and_every_control_has_a_name": "there is no Chromium",
    "tests/test_report.py::test_script_sorts_and_filters": "there is no Chromium on the machine",
    "tests/test_checkpoints_direct.py::test_decoded_as_the_package_decodes_it": "of the extra 'producers', and legacy",
}


# Files that take longest. They begin first, so that all processes end at about the same time; and before them one that
# compiles the loops of all quantizers where they are not, beside one that needs none, so that no two compile the same.
LONGEST = (
    "test_determinism.py",
    "test_experiment.py",
    "03_vector_rd.ipynb",
    "05_functional.ipynb",
    "07_allocation.ipynb",
    "08_whole_model.ipynb",
    "04_sota.ipynb",
    "test_audit.py",
    "test_faults.py",
    "06_limits.ipynb",
    "test_census.py",
    "test_explorer.py",
    "test_contract.py",
    "test_lattice.py",
    "02_scalar_rd.ipynb",
    "test_engine.py",
    "test_vector.py",
    "test_browser.py",
    "test_fuzz.py",
    "test_allocation.py",
    "test_safety.py",
    "test_report.py",
    "test_properties.py",
    "test_wheel.py",
    "test_theory.py",
    "test_trellis.py",
    "test_entropy.py",
)
PATIENCE = 600  # seconds: only there so that nothing hangs for ever
WORKERS = 8  # at most: each imports torch and takes about 1 GB


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process a core that we may use, and one more: some wait for a browser or a process (`-n auto`)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores + 1, WORKERS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; within a file, and among the others, the order stays.

    And nbval is patient: it would wait for five seconds for what a cell of a busy machine has printed.
    """
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = PATIENCE
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Let nbval ignore stderr, which carries progress bars (and which committed notebooks do not hold)."""
    if collector.nodeid.endswith(".ipynb"):
        collector.skip_compare += ("stderr",)


TALLY: Counter[str] = Counter()


@pytest.fixture
def tally() -> Callable[[str, int], None]:
    """Adds to the figures that are printed at the end of a run: examples, mutations, kills."""
    return lambda name, count: TALLY.update({name: count})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist hands its figures over."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = dict(TALLY)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    """The process that prints adds up the figures of all workers."""
    TALLY.update(getattr(node, "workeroutput", {}).get("tally", {}))


def pytest_terminal_summary(terminalreporter) -> None:
    """Print how often it was tried to break something."""
    if TALLY:
        terminalreporter.section("trust")
        for name, count in sorted(TALLY.items()):
            terminalreporter.write_line(f"{count:10,} {name}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item):
    return _refuse_skip((yield), item.nodeid)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector):
    return _refuse_skip((yield), collector.nodeid)


def _refuse_skip(report, nodeid: str):
    """Turn a skip (or an expected failure) that is not on the list into a failure."""
    if report.skipped and nodeid.partition("[")[0] not in ALLOWED_SKIPS:
        report.outcome = "failed"
        report.longrepr = f"{nodeid} was skipped, and conftest.py allows no such skip: {report.longrepr}"
        vars(report).pop("wasxfail", None)
    return report
