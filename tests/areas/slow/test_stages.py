from pathlib import Path
from typing import Any

import pytest
from builders import Row, answer, call, every, recording, request, span
from session_rows import looks
from statement_rows import counted, snapshots

from perfnb.areas.slow import stages
from perfnb.errors import NotMeasured
from perfnb.finding import Finding


def split(rows: list[Row]) -> dict[str, list[Row]]:
    return {
        "calls": [row for row in rows if "call_id" in row],
        "requests": [row for row in rows if "request_id" in row],
        "spans": [row for row in rows if "name" in row],
    }


def own_work(before: float, after: float = 0) -> Any:
    return lambda at: [request(at, before + 800 + after), call(at + before, 800)]


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (own_work(900), True),
        (own_work(0, 900), True),
        (own_work(300), False),
        (own_work(350), True),
        (own_work(50), False),
    ],
)
def test_slow_processing(tmp_path: Path, make: Any, found: bool) -> None:
    assert isinstance(answer(tmp_path, "slow-processing", **split(every(4000, 8, make))), Finding) is found


@pytest.mark.parametrize(("sessions", "found"), [(2, False), (20, True)])
def test_waiting_for_a_connection_is_no_work(tmp_path: Path, sessions: int, found: bool) -> None:
    asked = every(300, 60, own_work(2000))  # nine requests under way, some of them before a pool of two
    rows = split(asked) | {"activity": looks(18, range(sessions), "active")}
    assert isinstance(answer(tmp_path, "slow-processing", **rows), Finding) is found


def test_slow_processing_tells_before_from_after(tmp_path: Path) -> None:
    finding = answer(tmp_path, "slow-processing", **split(every(4000, 8, own_work(700, 200))))
    assert isinstance(finding, Finding)
    assert "before the first model call 700 ms, between calls 0 ms, after the last 200 ms" in finding.evidence[1]


def searching(between_ms: float, before_ms: float = 0, first: str = "embeddings") -> Any:
    def make(at: float) -> list[Row]:
        start = at + before_ms
        whole = before_ms + 200 + between_ms + 800
        return [request(at, whole), call(start, 200, operation=first), call(start + 200 + between_ms, 800)]

    return make


@pytest.mark.parametrize(
    ("make", "slow_processing", "dominant_stage"),
    [
        (searching(2000), False, True),
        (searching(20), False, False),
        (searching(20, before_ms=2000), True, False),
        (searching(900), False, False),  # requests meet their objective
        (searching(2000, first="chat"), True, None),  # two calls of one kind bound no stage
        (own_work(2000), True, None),
    ],
)
def test_from_outside_a_stage_lies_between_calls_of_different_kinds(
    tmp_path: Path, make: Any, slow_processing: bool, dominant_stage: bool | None
) -> None:
    rows = split(every(5000, 8, make))
    assert isinstance(answer(tmp_path / "own", "slow-processing", **rows), Finding) is slow_processing
    if dominant_stage is None:
        with pytest.raises(NotMeasured):
            answer(tmp_path, "dominant-stage", **rows)
        return
    found = answer(tmp_path, "dominant-stage", **rows)
    assert isinstance(found, Finding) is dominant_stage
    if isinstance(found, Finding):
        assert "between embeddings and chat" in found.title


def test_slow_processing_needs_requests(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "slow-processing", calls=[call()])


def staged(stage_ms: float, name: str = "rerank", operation: str = "step") -> Any:
    def make(at: float) -> list[Row]:
        trace = f"trace{at}"
        whole = stage_ms + 900
        return [
            request(at, whole, source="span", trace_id=trace, span_id=f"{trace}-POST"),
            span("POST", at, whole, trace=trace, operation="server", kind="SERVER"),
            span(name, at + 10, stage_ms, trace=trace, parent="POST", operation=operation),
            span("chat", at + stage_ms + 20, 850, trace=trace, parent="POST", operation="chat"),
            call(
                at + stage_ms + 20,
                850,
                source="span",
                trace_id=trace,
                span_id=f"{trace}-chat",
                parent_span_id=f"{trace}-POST",
            ),
        ]

    return make


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (staged(2000), True),
        (staged(500), False),  # requests meet their objective
        (staged(1200), True),
        (staged(2000, name="embed", operation="embeddings"), False),  # slow-embedding's
    ],
)
def test_dominant_stage(tmp_path: Path, make: Any, found: bool) -> None:
    assert isinstance(answer(tmp_path, "dominant-stage", **split(every(5000, 8, make))), Finding) is found


def test_a_named_stage_is_not_the_apps_unnamed_work(tmp_path: Path) -> None:
    assert not isinstance(answer(tmp_path, "slow-processing", **split(every(5000, 8, staged(2000)))), Finding)


@pytest.mark.parametrize(("generation_ms", "found"), [(2346, True), (600, False)])
def test_stage_times_from_logs_alone(tmp_path: Path, generation_ms: float, found: bool) -> None:
    times = {"query_rewriting": 234, "retrieval": 700, "generation": generation_ms}
    spans = [
        span(name, n * 5000, ms, trace=None, source="logs", span_id=None)
        for n in range(10)
        for name, ms in times.items()
    ]
    finding = answer(tmp_path, "dominant-stage", spans=spans)
    assert isinstance(finding, Finding) is found
    if isinstance(finding, Finding):
        assert "generation" in finding.title


def starting(cold_ms: list[float], rest: int = 20, warm_ms: float = 800, at_ms: float = 0) -> list[Row]:
    rows = [request(at_ms + n * 100, ms) for n, ms in enumerate(cold_ms)]
    return rows + [request(at_ms + 6000 + n * 1500, warm_ms) for n in range(rest)]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (starting([4000]), True),
        (starting([4000, 3900, 3800]), True),
        (starting([1700]), False),  # a second slower, not three times
        (starting([4000], rest=3), False),
        (starting([], rest=20), False),
        (starting([800]) + starting([5000], at_ms=200_000), True),  # after a pause
        (starting([4000]) + [request(50_000 + n * 1000, 4000) for n in range(6)], False),  # slow at other times too
    ],
)
def test_cold_start(tmp_path: Path, rows: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "cold-start", requests=rows), Finding) is found


def test_where_time_goes_adds_up(tmp_path: Path) -> None:
    frame = stages.where_time_goes(recording(tmp_path, **split(every(5000, 3, staged(2000)))))
    assert frame["share"].sum() == pytest.approx(1)
    assert frame["exclusive_ms"].sum() == pytest.approx(3 * 2900)
    assert frame.iloc[0]["name"] == "rerank"


def test_percentiles_and_overview(tmp_path: Path) -> None:
    made = recording(tmp_path, **split(every(5000, 4, staged(1000))))
    assert set(stages.percentiles(made)["stage"]) == {"POST", "rerank", "chat"}
    row = stages.overview(made).iloc[0]
    assert (row["requests"], row["failed"], row["calls"]) == (4, 0, 4)
    assert row["p50_ms"] == pytest.approx(1900)


@pytest.mark.parametrize(("statement_ms", "found"), [(850, False), (100, True)])
def test_what_statements_take_is_not_the_apps_own_work(tmp_path: Path, statement_ms: float, found: bool) -> None:
    """Seen from outside, with no trace: the counters of the database tell where the time before the call went."""
    rows = split(every(4000, 8, own_work(900)))
    counters = snapshots(counted("SELECT a FROM t WHERE b = $1", calls=8, ms=statement_ms), seconds=32)
    said = answer(tmp_path, "slow-processing", **rows, statements=counters)
    assert isinstance(said, Finding) is found


@pytest.mark.parametrize(
    ("statement_ms", "told"),
    [(1800, "1800 ms on average: most of it may be theirs"), (20, "so most of it is not theirs")],
)
def test_a_long_stage_is_set_against_the_statements(tmp_path: Path, statement_ms: float, told: str) -> None:
    rows = split(every(5000, 8, searching(2000)))
    counters = snapshots(counted("SELECT a FROM t WHERE b = $1", calls=8, ms=statement_ms), seconds=40)
    said = answer(tmp_path, "dominant-stage", **rows, statements=counters)
    assert isinstance(said, Finding)
    assert told in said.evidence[2]
