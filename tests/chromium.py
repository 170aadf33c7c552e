"""The browser of the tests, where there is one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect, sync_playwright

SECONDS = 300  # that any one thing may take, on a machine that does much else
PHONE = 390, 844


@contextmanager
def chromium(width: int, height: int) -> Iterator[BrowserContext]:
    """Windows of Chromium: that of the machine, or that of Playwright; the test is skipped where there is neither."""
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = shutil.which("chromium") or shutil.which("google-chrome") or (own.exists() and str(own))
        if not found:
            pytest.skip("there is no Chromium on the machine: apt-get install chromium")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        windows = browser.new_context(viewport={"width": width, "height": height})
        windows.set_default_timeout(1000 * SECONDS)
        expect.set_options(timeout=1000 * SECONDS)
        yield windows
        browser.close()
