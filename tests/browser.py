"""What tests in a real browser share: which one, and a JupyterLab to look at with it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_chromium = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium); CI has it"),
]

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 30.0
RUN_TIMEOUT_S = 240.0
IDLE_LOOKS = 5


@contextmanager
def launched() -> Iterator[Any]:
    """Yield a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@contextmanager
def jupyterlab(folder: Path, *command: str) -> Iterator[str]:
    """Run ``perfnb COMMAND`` in ``folder`` and yield the address (token included) its JupyterLab tells."""
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1", "BROWSER": "true", "HOME": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-m", "perfnb.cli", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    try:
        yield _address(process, process.stdout)
    finally:
        _stop(process)


def _address(process: "subprocess.Popen[str]", lines: Any) -> str:
    said = []
    alarm = threading.Timer(START_TIMEOUT_S, process.kill)
    alarm.start()
    for line in lines:
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", line):
            alarm.cancel()
            threading.Thread(target=_drain, args=(lines,), daemon=True).start()
            return found[0]
    raise AssertionError("JupyterLab told no address:\n" + "".join(said[-30:]))


def _drain(lines: Any) -> None:
    with lines:
        for _ in lines:
            pass


def _stop(process: "subprocess.Popen[str]") -> None:
    """Stop as a user does: Ctrl-C twice, which reaches all of the session."""
    for _ in range(2):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                continue
    try:
        process.wait(STOP_TIMEOUT_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class NotebookPage:
    """A notebook in JupyterLab, as its user sees and drives it."""

    def __init__(self, page: Any, address: str, name: str) -> None:
        self.page = page
        self.strangers: list[str] = []
        page.on("request", lambda request: self._note(request.url))
        page.goto(address.replace("/lab?", f"/lab/tree/{name}?"))
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_selector("text=Python 3", timeout=60_000)

    def _note(self, url: str) -> None:
        if not re.match(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|data:|blob:", url):
            self.strangers.append(url)

    def run_all(self) -> None:
        """Run all cells from the menu and wait until the kernel has nothing more to do."""
        self.page.click("li.lm-MenuBar-item:has-text('Run')")
        self.page.click("text=Run All Cells")
        first = self.page.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[\d+\]")).first
        first.wait_for(timeout=RUN_TIMEOUT_S * 1000)
        deadline, idle = time.monotonic() + RUN_TIMEOUT_S, 0
        while idle < IDLE_LOOKS:  # between two cells it is idle for a moment, too
            assert time.monotonic() < deadline, "the notebook runs on and on"
            self.page.wait_for_timeout(500)
            idle = 0 if self.page.locator("[data-status=busy]").count() else idle + 1

    def find(self, selector: str) -> Any:
        """Return the first element for ``selector``, scrolled into view; cells out of view may not be drawn at all."""
        pane = self.page.locator(".jp-WindowedPanel-outer").first
        pane.evaluate("pane => { pane.scrollTop = 0; }")
        for _ in range(120):
            found = self.page.locator(selector)
            if found.count():
                found.first.scroll_into_view_if_needed()
                return found.first
            before = pane.evaluate("pane => pane.scrollTop")
            pane.evaluate("pane => { pane.scrollTop += 500; }")
            self.page.wait_for_timeout(150)
            if pane.evaluate("pane => pane.scrollTop") == before:
                break
        raise AssertionError(f"nothing in the notebook is {selector}")

    def errors(self) -> list[str]:
        """Return the tracebacks that show anywhere in the notebook."""
        selector = ".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']"
        return [each.inner_text() for each in self.page.locator(selector).all()]
