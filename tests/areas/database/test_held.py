"""Connections idle in a transaction while the model answers, and the sessions that only look like it."""

from pathlib import Path
from typing import Any

import pytest
from builders import Row, call, recording, request, span
from session_rows import moment, session

from perfnb.areas.database.held import (
    connection_held_during_model_call,
    held_by_trace,
    held_sessions,
    hold_split,
    match,
)
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives

OBJECTIVES = Objectives.load(Path(__file__).parent)

SECONDS = 24


def answer(folder: Path, **tables: Any) -> Finding | Clear:
    return connection_held_during_model_call(recording(folder, **tables), OBJECTIVES)


def traffic(
    every_ms: float = 800, call_ms: float = 2500, *, held: bool = True, before_ms: float = 60, part: float = 1.0
) -> dict[str, Any]:
    """Return requests with one model call each, and looks at a pool in which some hold a connection meanwhile."""
    starts = [turn * every_ms for turn in range(int((SECONDS - 3) * 1000 / every_ms))]
    requests = [request(at, call_ms + 150) for at in starts]
    calls = [call(at + 20 + before_ms, call_ms) for at in starts]
    activity = []
    holders = [
        (at, at + 20 + before_ms + call_ms) for turn, at in enumerate(starts) if (turn * part) % 1 + part > 0.999
    ]
    for turn in range(SECONDS):
        look = turn * 1000 + 137.0
        under_way = [(begin, end) for begin, end in holders if begin + 20 <= look < end] if held else []
        for pid, (begin, _) in enumerate(under_way):
            activity.append(
                session(look, pid, "idle in transaction", since_ms=begin + 20, transaction_start=moment(begin + 10))
            )
        activity += [session(look, pid) for pid in range(len(under_way), 8)]
    return {"requests": requests, "calls": calls, "activity": activity}


def found(given: Finding | Clear) -> Finding:
    assert isinstance(given, Finding), given
    return given


def quiet(given: Finding | Clear) -> str:
    assert isinstance(given, Clear), given
    return given.examined


CASES = {
    "now and then": {"every_ms": 4000},
    "a few at a time": {},
    "many at a time": {"every_ms": 150},
    "very many at a time": {"every_ms": 60, "call_ms": 6000},
    "half a second of other work before the call": {"before_ms": 500},
    "one route of two": {"part": 0.5, "every_ms": 2000},
}


@pytest.mark.parametrize("case", CASES)
def test_fires(tmp_path: Path, case: str) -> None:
    given = found(answer(tmp_path, **traffic(**CASES[case])))  # type: ignore[arg-type]
    assert 0.6 < given.share <= 1
    assert given.symptom == "connections"
    assert given.severity in ("high", "critical")
    assert given.exemplars


def test_the_pool_it_needs_now_and_released_is_told(tmp_path: Path) -> None:
    said = " ".join(found(answer(tmp_path, **traffic())).evidence)
    assert "given back before the call" in said
    assert "held = 2." in said or "held = 3" in said


@pytest.mark.parametrize("every_ms", [150, 800, 4000])
def test_quiet_when_connections_are_given_back(tmp_path: Path, every_ms: float) -> None:
    assert "0 of 0" in quiet(answer(tmp_path, **traffic(every_ms, held=False)))


def test_quiet_on_short_pauses_between_statements(tmp_path: Path) -> None:
    tables = traffic(held=False)
    tables["activity"] += [
        session(turn * 1000.0, 20, "idle in transaction", since_ms=turn * 1000 - 40) for turn in range(SECONDS)
    ]
    quiet(answer(tmp_path, **tables))


def test_quiet_on_someone_who_left_a_transaction_open(tmp_path: Path) -> None:
    tables = traffic(held=False)
    tables["activity"] += [
        session(turn * 1000.0, 20, "idle in transaction", since_ms=-300_000) for turn in range(SECONDS)
    ]
    assert quiet(answer(tmp_path, **tables)).startswith("0 of 24")


def test_quiet_on_a_job_that_waits_for_something_else(tmp_path: Path) -> None:
    """A job holds transactions for two seconds all the time, calls or not."""
    tables = traffic(every_ms=6000, call_ms=1500, held=False)
    tables["activity"] += [
        session(turn * 1000 + 137.0, 20, "idle in transaction", since_ms=turn // 2 * 2000 + 10)
        for turn in range(SECONDS)
    ]
    made = recording(tmp_path, **tables)
    assert match(made).without_calls > 0.4 or match(made).part < 0.6
    quiet(connection_held_during_model_call(made, OBJECTIVES))


def test_quiet_on_a_transaction_that_began_after_the_call(tmp_path: Path) -> None:
    calls = [call(n * 3000, 2900) for n in range(8)]
    rows = [session(n * 3000 + 2000.0, 1, "idle in transaction", since_ms=n * 3000 + 1000) for n in range(8)]
    quiet(answer(tmp_path, calls=calls, activity=rows, requests=[request(n * 3000, 2950) for n in range(8)]))


@pytest.mark.parametrize(("count", "fires"), [(4, False), (5, True)])
def test_edge_of_five_looks(tmp_path: Path, count: int, fires: bool) -> None:
    calls = [call(n * 3000, 900) for n in range(count)]
    rows = [session(n * 3000 + 600.0, 1, "idle in transaction", since_ms=n * 3000 - 30) for n in range(count)]
    rows += [session(n * 3000 + 1600.0, 1) for n in range(count)]
    given = answer(tmp_path, calls=calls, activity=rows, requests=[request(n * 3000 - 50, 1000) for n in range(count)])
    assert isinstance(given, Finding) is fires


def test_each_call_is_given_to_one_session(tmp_path: Path) -> None:
    rows = [session(1000.0, pid, "idle in transaction", since_ms=10 * pid) for pid in (1, 2, 3)]
    made = recording(tmp_path, activity=rows, calls=[call(50, 2000), call(35, 2000, operation="chat")])
    frame = held_sessions(made)
    assert len(frame) == 2
    assert sorted(frame["gap_ms"]) == [5, 30] or sorted(frame["gap_ms"]) == [5, 20]
    assert frame["call_id"].is_unique
    assert frame["pid"].is_unique


def test_where_session_time_goes(tmp_path: Path) -> None:
    tables = traffic()
    tables["activity"] += [session(turn * 1000 + 137.0, 30, "active") for turn in range(12)]
    tables["activity"] += [
        session(turn * 1000 + 137.0, 31, "idle in transaction", since_ms=turn * 1000.0 + 120) for turn in range(6)
    ]
    split = hold_split(recording(tmp_path, **tables))
    assert split["active"] == pytest.approx(12_000)
    assert 6000 <= split["other"] <= 12_000  # and what held sessions do before their call begins
    assert split["held"] > 50_000


def traced(count: int, *, begin: str = "BEGIN", end: str = "COMMIT", end_at: float = 2600) -> dict[str, Any]:
    rows: dict[str, Any] = {"spans": [], "calls": [], "requests": []}
    for n in range(count):
        at, trace = n * 3000, f"t{n}"
        rows["spans"] += [
            span("begin", at, 1, trace=trace, operation="database", statement=begin),
            span("select", at + 2, 5, trace=trace, operation="database", statement="SELECT title FROM documents"),
            span("end", at + end_at, 1, trace=trace, operation="database", statement=end),
        ]
        rows["calls"].append(call(at + 20, 2500, trace_id=trace))
        rows["requests"].append(request(at, 2700, trace_id=trace))
    return rows


def test_a_trace_shows_the_transaction_around_the_call(tmp_path: Path) -> None:
    given = found(answer(tmp_path, **traced(4)))
    assert given.share == pytest.approx(2500 / 2599, abs=0.01)
    assert "between BEGIN and COMMIT" in given.evidence[0]
    assert len(held_by_trace(recording(tmp_path / "again", **traced(4, begin="begin;", end="ROLLBACK")))) == 4


@pytest.mark.parametrize(
    "tables", [traced(2), traced(4, end_at=10), traced(4, begin="SELECT 1"), traced(4, begin="COMMIT", end="BEGIN")]
)
def test_other_traces_are_quiet(tmp_path: Path, tables: dict[str, list[Row]]) -> None:
    quiet(answer(tmp_path, **tables))


def test_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="model calls"):
        answer(tmp_path, activity=[session(0)])
    with pytest.raises(NotMeasured, match="--dsn"):
        answer(tmp_path / "calls", calls=[call()])
