"""The app's sessions look by look: whose they are, what is under way beside them, and who stands before them."""

from pathlib import Path
from typing import Any

import pytest
from builders import call, failed_call, recording, request
from session_rows import looks, sample, session, setting

from perfnb.attribution.sessions import (
    ceiling,
    connection_queue,
    limits,
    prepare_sessions,
    session_looks,
    sessions_by_owner,
    waited_for_connections_ms,
)
from perfnb.errors import NotMeasured

LIMITS = [
    setting("max_connections", 100),
    setting("superuser_reserved_connections", 3),
    setting("reserved_connections", 0),
]


def queueing(sessions: int, in_flight: int, *, count: int = 20, **columns: Any) -> dict[str, Any]:
    """Return ``sessions`` at work at each of ``count`` looks, while ``in_flight`` requests are under way."""
    requests = [request(-500 + n, (count + 1) * 1000) for n in range(in_flight)]
    return {"activity": looks(count, range(1, sessions + 1), "active", **columns), "requests": requests}


def test_tools_monitoring_and_background_work_are_not_the_apps(tmp_path: Path) -> None:
    rows = looks(2, [1, 2])
    for number, application in enumerate(
        ("psql", "pg_dump", "DBeaver 24.1", "postgres_exporter", "pg_cron", "perfnb-knob")
    ):
        rows += looks(2, [10 + number], application=application)
    for number, backend in enumerate(("autovacuum worker", "walsender", "parallel worker", "background worker")):
        rows += looks(2, [30 + number], "active", backend=backend)
    frame = session_looks(recording(tmp_path, activity=rows))
    assert frame[["sessions", "busy", "idle"]].to_numpy().tolist() == [[2, 0, 2], [2, 0, 2]]


def test_what_is_under_way_at_a_look_is_counted_with_it(tmp_path: Path) -> None:
    rows = [session(1000, 1, "active"), session(1000, 2, "idle in transaction (aborted)"), session(2000, 1)]
    made = recording(
        tmp_path, activity=rows, requests=[request(500, 1000), request(900, 200)], calls=[failed_call(950, 100)]
    )
    first, second = session_looks(made).to_dict("records")
    assert (first["active"], first["in_open_transaction"], first["busy"], first["idle"]) == (1, 1, 2, 0)
    assert (first["requests_in_flight"], first["calls_in_flight"]) == (2, 1)
    assert (second["idle"], second["requests_in_flight"], second["calls_in_flight"]) == (1, 0, 0)


def test_who_holds_connections(tmp_path: Path) -> None:
    rows = looks(4, [1, 2, 3]) + looks(4, [9], "active", role="jobs", application="nightly")
    frame = sessions_by_owner(recording(tmp_path, activity=rows)).set_index("owner")
    assert frame.loc["app@shop ", "sessions"] == 3
    assert frame.loc["app@shop ", "idle_part"] == 1
    assert frame.loc["jobs@shop nightly", "busy_peak"] == 1


def test_hidden_states_are_not_taken_for_idle_ones(tmp_path: Path) -> None:
    hidden = looks(5, [1, 2], backend=None, wait_event=None, wait_event_type=None)
    made = recording(tmp_path, activity=[row | {"state": None} for row in hidden])
    with pytest.raises(NotMeasured, match="pg_monitor"):
        prepare_sessions(made)


def test_limits(tmp_path: Path) -> None:
    known = limits(recording(tmp_path, catalog=LIMITS))
    assert known is not None
    assert (known.most, known.usable) == (100, 97)
    assert limits(recording(tmp_path, name="none")) is None
    sampled = limits(recording(tmp_path, name="sampled", samples=[sample(0, "connections_max", 50, entity="server")]))
    assert sampled is not None
    assert sampled.usable == 47


def test_who_stands_before_a_full_pool(tmp_path: Path) -> None:
    made = recording(tmp_path, **queueing(4, 10))
    frame = ceiling(made)
    assert frame[["busy", "ceiling", "requests_in_flight", "waiting"]].iloc[0].tolist() == [4, 4, 10, 6]
    queue = connection_queue(made)
    assert queue is not None
    assert (queue.looks, queue.sessions, queue.part, queue.waiting_then, queue.waiting) == (20, 4, 1.0, 6.0, 6.0)
    assert waited_for_connections_ms(made) == pytest.approx(6 * 20_500, rel=0.05)


@pytest.mark.parametrize(("in_flight", "count"), [(4, 20), (5, 20), (10, 7)])
def test_no_queue(tmp_path: Path, in_flight: int, count: int) -> None:
    made = recording(tmp_path, **queueing(4, in_flight, count=count))
    assert connection_queue(made) is None
    assert waited_for_connections_ms(made) == 0


@pytest.mark.parametrize(
    "tables",
    [
        {"requests": [request(0, 900)]},
        {"activity": looks(20, [1], "active"), "calls": [call(0, 900)]},
        queueing(2, 9, backend=None) | {"activity": [row | {"state": None} for row in looks(20, [1, 2], backend=None)]},
    ],
    ids=["no sessions", "no requests", "hidden sessions"],
)
def test_where_nothing_shows_a_queue_nobody_waited(tmp_path: Path, tables: dict[str, Any]) -> None:
    assert waited_for_connections_ms(recording(tmp_path, **tables)) == 0
