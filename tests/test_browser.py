"""What a person does: `make lab`, a click on the explorer, Run All Cells, a slider moved with the arrow keys.

JupyterLab is started as the Makefile starts it, on a copy of the notebooks and away from the user's settings;
Chromium is driven through Playwright.  Screenshots go to build/screenshots.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import SECONDS, chromium
from playwright.sync_api import Locator, Page, expect

from rdlib.explorer import CHOICES, Subject, with_clip
from rdlib.models.checkpoint import open_checkpoint

ROOT = Path(__file__).parents[1]
SCREENSHOTS = ROOT / "build" / "screenshots"
LAB = ["-m", "jupyterlab", "notebooks/index.ipynb"]

SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # cells out of sight are there too
}


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A browser window."""
    with chromium(1500, 1100) as windows:
        yield windows.new_page()


@pytest.fixture(scope="module")
def lab(page, tmp_path_factory) -> Iterator[str]:
    """The address that `make lab` opens a browser at."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    for name, text in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    browser = home / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{home}/address.new && mv {home}/address.new {home}/address\n')
    browser.chmod(0o755)
    folders = {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "IPYTHONDIR": str(home / "ipython")}
    folders |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"), "BROWSER": f"{browser} %s"}
    command = [sys.executable, *LAB, f"--ServerApp.port={free_port()}"]
    command += ["--allow-root"] if os.geteuid() == 0 else []
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=home, env=os.environ | folders, stdout=log, stderr=log)
        try:
            until = time.monotonic() + SECONDS
            while not (home / "address").exists():
                assert server.poll() is None and time.monotonic() < until, (home / "log").read_text()
                time.sleep(0.1)
            yield (home / "address").read_text().strip()
        finally:
            server.terminate()  # and its kernels with it
            server.wait(SECONDS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def shoot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def expect_numbers(explorer: Locator, numbers: dict[str, str]) -> None:
    """Wait until the explorer shows these numbers, and no others."""
    expect(explorer.locator(".rdlib-readout th")).to_have_text(list(numbers))
    expect(explorer.locator(".rdlib-readout td")).to_have_text(list(numbers.values()))


def test_lab_opens_at_the_contents(page, lab):
    """`make lab` opens the contents notebook, and that leads to rendered reference pages and to the explorer."""
    assert f"$(BIN)/python {' '.join(LAB)}\n" in (ROOT / "Makefile").read_text()
    page.goto(lab)
    contents = page.locator(".jp-NotebookPanel:visible")
    expect(contents.locator("h1")).to_contain_text("How far is weight quantization")
    expect(contents.locator("table").first).to_be_visible()
    shoot(page, "contents")
    contents.get_by_role("link", name="Quantizers").click()
    expect(page.locator(".jp-MarkdownViewer:visible h1")).to_have_text(re.compile("Quantizers"))
    shoot(page, "reference")
    page.get_by_role("tab", name="index.ipynb").click()
    contents.get_by_role("link", name="00 explorer").click()
    expect(page.locator(".jp-NotebookPanel:visible h1")).to_contain_text("00 · Explorer")


def test_explorer_follows_its_sliders(page, lab):
    """The numbers on the screen are those of the library for the state of the controls."""
    if not page.get_by_role("tab", name="00_explorer.ipynb").count():
        page.goto(lab)
        page.locator(".jp-NotebookPanel:visible").get_by_role("link", name="00 explorer").click()
    notebook = page.locator(".jp-NotebookPanel:visible")
    heading, kernel = notebook.locator("h1"), notebook.locator(".jp-Notebook-ExecutionIndicator")
    expect(heading).to_contain_text("00 · Explorer")
    expect(kernel).to_have_attribute("data-status", "idle")
    heading.click()  # what the menu runs is the notebook that has the focus, which may come later than the notebook
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    explorer = page.locator(".rdlib-explorer")
    checkpoint = open_checkpoint("embedded")
    weight = next(w for w in checkpoint.layer(1) if w.group == "down")
    subject, lloyd_max = Subject("1.down", checkpoint.tensor(weight)), CHOICES["Lloyd–Max"]
    expect_numbers(explorer, subject.readout(lloyd_max))

    _, bits, _, clip = explorer.locator(".noUi-handle").all()
    figure = explorer.locator("img")
    before = figure.get_attribute("src")
    bits.press("ArrowRight")
    expect_numbers(explorer, subject.readout(lloyd_max.at(5)))
    expect(figure).not_to_have_attribute("src", before)

    clipped = CHOICES["uniform, clipped at kσ"]
    explorer.locator("select").nth(2).select_option("uniform, clipped at kσ")
    expect_numbers(explorer, subject.readout(clipped.at(5)))
    clip.press("ArrowRight")
    expect_numbers(explorer, subject.readout(with_clip(clipped.at(5), 3.1)))
    expect(
        page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")
    ).to_have_count(0)
    figure.scroll_into_view_if_needed()
    shoot(page, "explorer")
