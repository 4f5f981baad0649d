from pathlib import Path
from typing import Any

import pytest
from builders import MS, START, Row, call, every, recording, request, span

from perfnb import attribution
from perfnb.areas.slow import stages
from perfnb.attribution import OfTrial, observed, observed_seconds
from perfnb.checklist import run
from perfnb.recording import Recording

TRACE = "a" * 31


def traffic() -> dict[str, list[Row]]:
    """Return an app that answers in one piece, asks the model twice in a row and fails now and then."""
    requests = every(2000, 40, lambda at: request(at, 1900, stream=False, trace_id=f"{TRACE}{int(at)}"))
    calls = every(
        2000, 40, lambda at: call(at + 100, 1700, stream=False, trace_id=f"{TRACE}{int(at)}", output_tokens=900)
    )
    spans = every(2000, 40, lambda at: span("retrieve", at, 90, trace=f"{TRACE}{int(at)}"))
    stacks = [stack(at, "main (app.py:1);work (app.py:9)") for at in range(0, 80_000, 1000)]
    return {"requests": requests, "calls": calls, "spans": spans, "stacks": stacks}


def stack(at_ms: float, text: str) -> Row:
    place = {"pid": 1, "thread": "main", "on_cpu": True, "mode": "profile", "period_ms": 10.0}
    return {"time": START + round(at_ms * MS), "stack": text, "samples": 20, **place}


def a_trial(at_ms: float) -> dict[str, list[Row]]:
    """Return what a trial leaves behind: its load, the same requests as a front saw them, their spans and calls."""
    found: dict[str, list[Row]] = {"requests": [], "calls": [], "spans": [], "stacks": []}
    for number in range(30):
        at, trace, arm = at_ms + number * 200, f"trial{number}", f"4711/{'AB'[number % 2]}"
        found["requests"] += [
            request(at, 9000, source="load", trace_id=trace, arm=arm, block=number // 10, status_code=500),
            request(at + 1, 8990, trace_id=trace, status_code=500),
        ]
        found["calls"] += [call(at + 5, 50, trace_id=trace, error_type="rate_limit", status_code=429)]
        found["calls"] += [call(at + 60, 8000, arm=arm, operation="embeddings")]
        found["spans"] += [span("extra", at, 8000, trace=trace), span("late", at + 60_000, 800, trace=trace)]
        found["stacks"] += [stack(at, "main (app.py:1);other (app.py:77)")]
    return found


def answers(recording: Recording) -> dict[str, Any]:
    found = run(recording).as_dict(recording)
    return {name: found[name] for name in ("findings", "clear", "not_measured")}


@pytest.mark.parametrize("at_ms", [100_000, -100_000, 500_000])
def test_findings_are_the_same_before_and_after_a_trial(tmp_path: Path, at_ms: float) -> None:
    before = recording(tmp_path, name="before", **traffic())
    expected = answers(before)
    assert len(expected["findings"]) >= 2
    figures = stages.overview(before), stages.percentiles(before)
    with before.writer() as writer:
        for table, rows in a_trial(at_ms).items():
            writer.write({"calls": "llm_calls", "requests": "http_requests"}.get(table, table), rows)
    assert answers(before) == expected
    for frame, again in zip(figures, (stages.overview(before), stages.percentiles(before)), strict=True):
        assert frame.equals(again)


def test_without_a_trial_everything_is_looked_at(tmp_path: Path) -> None:
    made = recording(tmp_path, **traffic())
    assert observed_seconds(made) == made.window.seconds
    for table in ("http_requests", "llm_calls", "spans", "stacks", "samples"):
        everything, seen = (
            observed(made).query(f"SELECT count(*) AS n FROM {name}")["n"][0] for name in (table, f"observed_{table}")
        )
        assert everything == seen


def test_the_time_of_a_trial_does_not_count_as_observed(tmp_path: Path) -> None:
    def around(at: float) -> Row:
        return request(at, 10)

    load = request(10_000, 5000, source="load", arm="x/A", trace_id="t")
    made = recording(tmp_path, requests=[around(0), load, around(19_990)])
    assert observed_seconds(made) == pytest.approx(15.0)


def test_a_recording_of_a_trial_alone_has_nothing_to_diagnose(tmp_path: Path) -> None:
    made = recording(tmp_path, **a_trial(0))
    assert attribution.request_count(made) == 0
    assert observed_seconds(made) == 0
    assert not run(made).findings


def test_a_trial_can_be_looked_at_alone(tmp_path: Path) -> None:
    both = traffic()
    for table, rows in a_trial(100_000).items():
        both[table] += rows
    path = recording(tmp_path, **both).path
    seen = attribution.requests(OfTrial.of(path, "4711"))
    assert set(seen["source"]) == {"load"}
    assert len(seen) == 30
    calls = attribution.calls(OfTrial.of(path, "4711"))
    by_request = calls[calls["error_type"].notna()].groupby("request_id").size()
    assert set(by_request.index) == set(seen["request_id"]), "calls belong to the load's requests by trace"
    assert attribution.request_count(OfTrial.of(path, "no'such")) == 0


def test_real_users_beside_a_trial_keep_their_calls(tmp_path: Path) -> None:
    load = [request(at, 500, source="load", arm="t/A", trace_id=f"l{at}") for at in (0, 1000)]
    users = [request(200, 500, trace_id="u1")]
    calls = [call(250, 100, trace_id="u1"), call(10, 100, trace_id="l0"), call(1010, 100, trace_id="l1000")]
    made = recording(tmp_path, requests=load + users, calls=calls)
    seen = attribution.requests(OfTrial.of(made.path, "t")).set_index("request_id")
    owners = attribution.calls(OfTrial.of(made.path, "t")).set_index("trace_id")["request_id"]
    assert {seen.loc[owner, "trace_id"] for owner in owners} == {"u1", "l0", "l1000"}
    assert all(seen.loc[owner, "trace_id"] == trace for trace, owner in owners.items())
