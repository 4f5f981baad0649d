"""An index is tried as an engineer does it: JupyterLab beside the running app, estimate, trial, keep, undo, by keyboard."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from browser import NotebookPage, jupyterlab, launched, needs_chromium

from perfnb.recording import Recording
from perfnb.staging import staged
from perfnb.trials.shown import trials_of
from perfnb.tuner.recorded import tunings

pytestmark = [*needs_chromium, pytest.mark.demo]

FAULT = "missing-index"
A_WHILE = 240_000
BUSY_S = 20.0
SEEN_S = 60.0
PANEL = ".pnb-live:has(button:has-text('Try it'))"  # the notebook has other live controls, too
INDEXES = "SELECT indexrelid::regclass::text, indisvalid FROM pg_index ORDER BY 1"


@dataclass(frozen=True)
class Opened:
    """The notebook on the database, run from top to bottom, with the database and the recording it is about."""

    notebook: NotebookPage
    dsn: str
    recording: Path
    indexes_before: list[Any]

    @property
    def indexes(self) -> list[Any]:
        return indexes(self.dsn)


def indexes(dsn: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(INDEXES).fetchall()


def wait_until_seen(path: Path) -> None:
    """Wait until the slow statement has been counted at two looks."""
    until = time.monotonic() + SEEN_S
    looks = "SELECT count(DISTINCT time) AS looks FROM statements WHERE query LIKE '%FROM messages%'"
    while time.monotonic() < until:
        with Recording.open(path) as recording:
            if recording.has("statements") and recording.query(looks)["looks"].iloc[0] >= 3:
                return
        time.sleep(1)
    raise AssertionError("the app's statements were not counted")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Yield the notebook in JupyterLab; the DSN reaches it in its environment, as no recording holds a password."""
    folder = tmp_path_factory.mktemp("database")
    path = folder / "incident.perfnb"
    with staged(path, [FAULT]) as stage, pytest.MonkeyPatch.context() as patch:
        stage.demo.run_workload(stage.users_url, BUSY_S)  # then calm, so that every cell tells of the same
        wait_until_seen(path)
        patch.setenv("PERFNB_DSN", stage.demo.dsn)
        before = indexes(stage.demo.dsn)
        with jupyterlab(folder, "lab", str(path)) as address, launched() as browser:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(60_000)
            notebook = NotebookPage(page, address, "04_database.ipynb")
            notebook.run_all()
            notebook.find(PANEL)
            yield Opened(notebook, stage.demo.dsn, path, before)


def said(opened: Opened, pattern: str) -> str:
    """Wait until the panel says something like ``pattern``, and return it."""
    status = opened.notebook.page.locator(f"{PANEL} [role=status]").filter(has_text=re.compile(pattern))
    status.wait_for(timeout=A_WHILE)
    return str(status.inner_text())


def press(opened: Opened, name: str) -> None:
    """Press a button of the panel by keyboard, once it can be."""
    page = opened.notebook.page
    button = page.locator(PANEL).get_by_role("button", name=name)
    page.wait_for_function("button => !button.disabled", arg=button.element_handle(), timeout=A_WHILE)
    button.focus()
    page.keyboard.press("Enter")


def tick(opened: Opened) -> None:
    """Say yes to the cost by keyboard."""
    page = opened.notebook.page
    box = page.locator(PANEL).get_by_role("checkbox")
    page.wait_for_function("box => !box.disabled", arg=box.element_handle(), timeout=A_WHILE)
    box.focus()
    page.keyboard.press("Space")
    assert box.is_checked()


def test_the_page_says_whether_it_is_the_database_and_shows_no_error(opened: Opened) -> None:
    assert opened.notebook.errors() == []
    assert opened.notebook.strangers == []
    text: Any = opened.notebook.find("text=Is it the database?").locator("xpath=..").text_content()
    assert f"look first at {FAULT}" in text


def test_the_estimate_of_the_index_that_is_missing_stands_there_at_once(opened: Opened) -> None:
    estimate: Any = opened.notebook.find(".pnb-estimate")
    chosen = opened.notebook.page.locator(f"{PANEL} select").first
    assert FAULT in (chosen.locator("option:checked").text_content() or "").replace("\u00a0", " ")
    assert "Add an index to the database" in estimate.text_content()
    assert "session_id" in estimate.text_content()
    assert "time of the statement" in estimate.text_content()


def test_a_trial_tells_its_cost_first_and_leaves_no_index(opened: Opened) -> None:
    assert "rolled back" in said(opened, "A trial runs the one statement")
    press(opened, "Try it")
    assert "tick" in said(opened, "Nothing is done yet")
    assert opened.indexes == opened.indexes_before
    tick(opened)
    press(opened, "Try it")
    opened.notebook.page.locator(".pnb-trial").filter(has_text=re.compile("better|undecided")).wait_for(timeout=A_WHILE)
    assert opened.indexes == opened.indexes_before
    with Recording.open(opened.recording) as recording:
        (trial,) = trials_of(recording)
    assert trial.was_undone
    blocks = trial["statement_blocks"]  # how long it takes hangs on the machine, what it reads does not
    assert blocks.b < blocks.a


def test_keep_builds_it_and_undo_takes_it_away_again(opened: Opened) -> None:
    press(opened, "Keep")
    said(opened, "Nothing is done yet")
    assert opened.indexes == opened.indexes_before
    tick(opened)
    press(opened, "Keep")
    said(opened, "undone")
    (built,) = set(opened.indexes) - set(opened.indexes_before)
    assert built[1] is True, "valid, so the app's statements use it"
    press(opened, "Undo")
    said(opened, "is dropped")
    assert opened.indexes == opened.indexes_before
    press(opened, "Undo")
    said(opened, "Nothing is set")


def test_a_vector_search_is_tuned_and_the_result_stands_below(opened: Opened) -> None:
    button = opened.notebook.find("button:has-text('Tune')")
    button.focus()
    opened.notebook.page.keyboard.press("Enter")
    page = opened.notebook.page
    page.locator("[role=status]").filter(has_text="documents.embedding: ").wait_for(timeout=A_WHILE)
    assert "held back" in opened.notebook.find(".pnb-trial:has-text('held back')").text_content()
    with Recording.open(opened.recording) as recording:
        assert len(tunings(recording)) == 1


def test_no_password_is_written_into_the_recording(opened: Opened) -> None:
    password = psycopg.conninfo.conninfo_to_dict(opened.dsn)["password"]
    files = [each for each in opened.recording.rglob("*") if each.is_file()]
    assert files
    assert not [each for each in files if str(password).encode() in each.read_bytes()]
