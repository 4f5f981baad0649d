"""A change is tried as an engineer does it: JupyterLab on the running demo, estimate, trial, keep, undo, by keyboard."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import NotebookPage, jupyterlab, launched, needs_chromium

from perfnb.recording import Recording
from perfnb.trials.shown import trials_of

pytestmark = [*needs_chromium, pytest.mark.demo]

DEMO = ("demo", "--fault", "no-output-limit", "--seconds", "8", "--time-scale", "10")
A_WHILE = 240_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trial")


@pytest.fixture(scope="module")
def costs(folder: Path) -> Iterator[NotebookPage]:
    """Yield the notebook on costs, run from top to bottom on the running demo."""
    with jupyterlab(folder, *DEMO) as address, launched() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        notebook = NotebookPage(page, address, "02_costs.ipynb")
        notebook.run_all()
        notebook.find(".pnb-live")
        yield notebook


def said(notebook: NotebookPage, pattern: str) -> str:
    """Wait until the panel says something like ``pattern``, and return it."""
    status = notebook.page.locator(".pnb-live [role=status]").filter(has_text=re.compile(pattern))
    status.wait_for(timeout=A_WHILE)
    return str(status.inner_text())


def press(notebook: NotebookPage, name: str) -> None:
    """Press a button of the panel by keyboard, once it can be."""
    button = notebook.page.locator(".pnb-live").get_by_role("button", name=name)
    notebook.page.wait_for_function("button => !button.disabled", arg=button.element_handle(), timeout=A_WHILE)
    button.focus()
    notebook.page.keyboard.press("Enter")


def test_the_estimate_of_the_fitting_change_stands_there_at_once(costs: NotebookPage) -> None:
    assert costs.errors() == []
    chosen = costs.page.locator(".pnb-live select").first
    assert "no-output-limit" in (chosen.locator("option:checked").text_content() or "").replace("\u00a0", " ")
    estimate: Any = costs.find(".pnb-estimate")
    assert "Let no answer be longer" in estimate.text_content()
    assert re.search(r"\$0\.\d+ to \$0\.\d+", estimate.text_content()), "dollars stay dollars"
    assert costs.page.locator("mjx-container, .MathJax").count() == 0


def test_a_slider_moved_by_keyboard_changes_the_estimate(costs: NotebookPage) -> None:
    slider = costs.find(".pnb-live [role=slider]")
    before = slider.get_attribute("aria-valuenow")
    slider.focus()
    for _ in range(3):
        costs.page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuenow") != before
    value = str(round(float(slider.get_attribute("aria-valuetext") or slider.get_attribute("aria-valuenow"))))
    costs.page.locator(".pnb-estimate .pnb-setting").filter(has_text=value).wait_for(timeout=A_WHILE)


def test_a_trial_can_be_followed_stopped_and_leaves_nothing_set(costs: NotebookPage, folder: Path) -> None:
    assert "undoes the change" in said(costs, "A trial takes")
    press(costs, "Try it")
    said(costs, "pair [1-9]")
    press(costs, "Stop")
    said(costs, "stopped")
    told: Any = costs.find(".pnb-trial")
    assert "stopped" in told.text_content()
    with Recording.open(folder / "perfnb-out" / "recording.perfnb") as recording:
        (trial,) = trials_of(recording)
    assert (trial.outcome, trial.was_undone) == ("stopped", True)


def test_keep_sets_it_and_undo_takes_it_back(costs: NotebookPage) -> None:
    press(costs, "Keep")
    said(costs, "it stays until it is undone")
    press(costs, "Undo")
    said(costs, "does again what it did")
    press(costs, "Undo")
    said(costs, "Nothing is set")
