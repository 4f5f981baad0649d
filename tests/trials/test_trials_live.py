"""Trials of a real app in a process of its own, changed over its settings endpoint."""

import contextlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perfnb.errors import NotReachable
from perfnb.finding import Estimate
from perfnb.load import Limits, Workload
from perfnb.recording import Recording
from perfnb.target import Request
from perfnb.trials import Guard, Plan, TrialProgress, TrialResult, run_trial

ANY_LATENESS = Limits(late_ms=60_000, busy=100)
PLAN = Plan(looks=(5,), alpha=0.05, seconds=0.5, warm_up_s=0.1, settle_s=0.02, evidence_s=0.0, limits=ANY_LATENESS)
LONG = Plan(looks=(40,), alpha=0.05, seconds=0.5, warm_up_s=0.1, settle_s=0.02, evidence_s=0.0, limits=ANY_LATENESS)
QUICK, SLOW = {"delay_ms": 20}, {"delay_ms": 160}


class Settings:
    """A knob over the app's settings."""

    name = "settings"
    title = "The app's settings"

    def __init__(self, url: str) -> None:
        self.history: list[Any] = []
        self._url = f"{url}/settings"
        self._before = self.current()

    def current(self) -> Any:
        return self._asked(None)

    def set(self, value: Any) -> None:
        self.history.append(value)
        self._asked(json.dumps(value).encode())

    def undo(self) -> None:
        self.set(self._before)

    def shown(self, value: Any) -> Any:
        return value

    def _asked(self, body: bytes | None) -> Any:
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url, body), timeout=5) as answer:
                return json.load(answer)
        except OSError as error:
            raise NotReachable(f"the app's settings: {error}", hint="is it running?") from None


class SplitSettings(Settings):
    """… which the app can hold for each arm at once."""

    splits_by_trace = True

    def split(self, trial: str, a: Any, b: Any) -> None:
        self.set({"split": {"trial": trial, "A": a, "B": b}})


@contextlib.contextmanager
def changing(_: Recording, knob: Any, value: Any) -> Iterator[None]:
    """Set and undo, without the note on how to after a crash."""
    knob.set(value)
    try:
        yield
    finally:
        knob.undo()


@pytest.fixture
def app() -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).parent / "settings_app.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


def tried(
    tmp_path: Path, url: str, value: Any, plan: Plan = PLAN, *, knob: type[Settings] = Settings, **options: Any
) -> tuple[TrialResult, Settings, Recording]:
    recording = Recording.create(tmp_path / "trial.perfnb")
    settings = knob(url)
    workload = Workload(tuple(Request(f"{url}/ask", json={"question": n}, timeout_s=5) for n in range(200)), 20)
    return run_trial(recording, settings, value, workload, plan, changing=changing, **options), settings, recording


@pytest.mark.parametrize("knob", [Settings, SplitSettings])
def test_far_slower_is_found_and_undone(tmp_path: Path, app: str, knob: type[Settings]) -> None:
    prediction = SimpleNamespace(effects=(Estimate("request_duration_ms", 10, 20, 200),))
    result, settings, recording = tried(tmp_path, app, SLOW, knob=knob, prediction=prediction)
    assert result.outcome == "worse"
    assert result["request_duration_ms"].ratio > 2
    assert result["request_duration_ms"].agrees
    assert result["error_rate"].verdict == "no practical change"
    assert (result.pairs, result.void_pairs, result.requests, result.failed) == (5, 0, 100, 0)
    assert (result.was_undone, settings.current()) == (True, {"delay_ms": 10})
    assert result.mode == ("split" if knob is SplitSettings else "pairs")
    (event,) = recording.query("SELECT body FROM events WHERE kind = 'trial'")["body"]
    assert TrialResult.from_dict(json.loads(event)) == result


def test_both_arms_come_about_in_the_same_way_under_the_same_requests(tmp_path: Path, app: str) -> None:
    labels: list[Any] = []
    _, settings, recording = tried(tmp_path, app, QUICK, label=labels.append)
    a, b = {"delay_ms": 10}, QUICK
    first, first_of_all, *turns, last = settings.history
    assert first == first_of_all == last == a
    assert [len([value for value in turns[pair : pair + 2] if value == b]) for pair in range(0, 10, 2)] == [1] * 5
    assert labels[-1] is None
    assert [label["arm"] for label in labels[1:-1]] == ["B" if value == b else "A" for value in turns]
    blocks = recording.query("SELECT block, arm, body_digest FROM http_requests ORDER BY start_time").groupby("block")
    sent = {block: (set(rows.arm), list(rows.body_digest)) for block, rows in blocks}
    for pair in range(1, 11, 2):
        assert sent[pair][1] == sent[pair + 1][1], "the same requests in the same order"
        assert len(sent[pair][0] | sent[pair + 1][0]) == 2


def test_a_trial_is_stopped_at_once_and_undone(tmp_path: Path, app: str) -> None:
    stop = threading.Event()
    told: list[TrialProgress] = []

    def progress(each: TrialProgress) -> None:
        told.append(each)
        if each.pair == 2:
            threading.Timer(0.2, stop.set).start()

    result, settings, _ = tried(tmp_path, app, SLOW, LONG, stop=stop, progress=progress)
    assert (result.outcome, result.pairs, result.was_undone) == ("stopped", 1, True)
    assert settings.current() == {"delay_ms": 10}
    assert told[-1].pair == 2
    assert told[0].of == 40


def test_ctrl_c_stops_it_too(tmp_path: Path, app: str) -> None:
    def progress(each: TrialProgress) -> None:
        if each.pair == 2:
            raise KeyboardInterrupt

    result, settings, _ = tried(tmp_path, app, SLOW, LONG, progress=progress)
    assert result.outcome == "stopped"
    assert settings.current() == {"delay_ms": 10}


@pytest.mark.parametrize(
    ("value", "guard", "why"),
    [({"fails": True}, Guard(), "requests failed"), (SLOW, Guard(latency_ms=100), "half of the requests took")],
)
def test_the_guard_aborts_and_undoes(tmp_path: Path, app: str, value: Any, guard: Guard, why: str) -> None:
    result, settings, recording = tried(tmp_path, app, value, LONG, guard=guard)
    assert (result.outcome, result.was_undone) == ("aborted", True)
    assert why in result.why
    assert settings.current() == {"delay_ms": 10}
    assert recording.query("SELECT count(*) AS n FROM events WHERE kind = 'trial'")["n"][0] == 1


def test_an_app_that_dies_ends_the_trial_and_says_that_nothing_was_undone(tmp_path: Path, app: str) -> None:
    result, _, recording = tried(tmp_path, app, {"dies": True}, LONG)
    assert (result.outcome, result.was_undone) == ("aborted", False)
    assert "perfnb revert" in str(result)
    assert any("undoing failed" in note for note in result.notes)
    assert recording.query("SELECT count(*) AS n FROM events WHERE kind = 'trial'")["n"][0] == 1


def test_a_knob_that_cannot_be_read_begins_nothing(tmp_path: Path, app: str) -> None:
    class Unreadable(Settings):
        def __init__(self, url: str) -> None:
            self._url = "http://127.0.0.1:1/settings"

    with pytest.raises(NotReachable):
        tried(tmp_path, app, SLOW, knob=Unreadable)


def test_a_generator_that_is_late_withholds_the_verdict(tmp_path: Path, app: str) -> None:
    always_late = Plan(looks=(5,), alpha=0.05, seconds=0.3, warm_up_s=0, settle_s=0, most_void=1, limits=Limits(-1, -1))
    result, settings, _ = tried(tmp_path, app, SLOW, always_late)
    assert (result.outcome, result.pairs, result.void_pairs) == ("withheld", 0, 2)
    assert "load generator" in result.why
    assert settings.current() == {"delay_ms": 10}


def test_requests_sent_again_and_again_are_told(tmp_path: Path, app: str) -> None:
    recording = Recording.create(tmp_path / "again.perfnb")
    plan = Plan(looks=(3,), alpha=0.05, seconds=0.3, warm_up_s=0, settle_s=0, evidence_s=0, limits=ANY_LATENESS)
    workload = Workload((Request(f"{app}/ask", json={}),), 20)
    result = run_trial(recording, Settings(app), QUICK, workload, plan, changing=changing)
    assert any("sent 18.0 times" in note for note in result.notes)
    assert any("no dollars" in note for note in result.notes)


def test_what_may_not_be_shown_is_not_on_the_timeline(tmp_path: Path, app: str) -> None:
    class Discreet(Settings):
        def shown(self, value: Any) -> Any:
            return {"note": f"{len(value.get('note', ''))} characters"}

    plan = Plan(looks=(3,), alpha=0.05, seconds=0.2, warm_up_s=0, settle_s=0, evidence_s=0, limits=ANY_LATENESS)
    result, _, recording = tried(tmp_path, app, {"note": "planted words"}, plan, knob=Discreet)
    assert result.value == {"note": "13 characters"}
    kept = b"".join(path.read_bytes() for path in recording.path.rglob("*") if path.is_file())
    assert b"planted words" not in kept
