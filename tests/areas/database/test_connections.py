"""Connections opened for each request, too many of them, and dead ones: where each check fires and where it is quiet."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from builders import Row, every, failed_call, recording, request, span
from session_rows import counter, looks, moment, sample, server, session, setting

from perfnb.areas.database.connections import no_connection_pool, pool_too_large
from perfnb.areas.database.refusals import kind_of, refusals
from perfnb.areas.database.stale import stale_connections
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives

OBJECTIVES = Objectives.load(Path(__file__).parent)
LIMITS = [
    setting("max_connections", 100),
    setting("superuser_reserved_connections", 3),
    setting("reserved_connections", 0),
]


def asked(count: int = 60, every_ms: float = 333, **columns: Any) -> list[Row]:
    return every(every_ms, count, lambda at: request(at, 300, **columns))


def found(answer: Finding | Clear) -> Finding:
    assert isinstance(answer, Finding), answer
    return answer


def quiet(answer: Finding | Clear) -> str:
    assert isinstance(answer, Clear), answer
    return answer.examined


class TestNoConnectionPool:
    def answer(self, folder: Path, **tables: Any) -> Finding | Clear:
        return no_connection_pool(recording(folder, **tables), OBJECTIVES)

    def test_fires_on_a_session_for_each_request(self, tmp_path: Path) -> None:
        samples = counter("sessions", [1000, 1015, 1030, 1045, 1060]) + counter("connections", [3, 4, 3, 4, 3])
        answer = found(self.answer(tmp_path, requests=asked(), samples=samples))
        assert answer.symptom == "connections"
        assert answer.share == pytest.approx(60 / 63)
        assert answer.severity == "medium"
        assert "60 sessions began and 60 ended again during 60 requests" in answer.evidence[0]
        assert "not measured here" in answer.evidence[2]

    def test_three_a_request_are_worse(self, tmp_path: Path) -> None:
        samples = counter("sessions", [0, 45, 90, 135, 180]) + counter("connections", [3, 4, 3, 4, 3])
        assert found(self.answer(tmp_path, requests=asked(), samples=samples)).severity == "critical"

    def test_the_cost_is_measured_where_spans_show_it(self, tmp_path: Path) -> None:
        samples = counter("sessions", [0, 15, 30, 45, 60]) + counter("connections", [3, 4, 3, 4, 3])
        spans = [span("connect", at, 12, operation="database", trace=f"t{at}") for at in range(5)]
        answer = found(self.answer(tmp_path, requests=asked(), samples=samples, spans=spans))
        assert "opening one takes 12.0 ms" in answer.evidence[2]

    QUIET: ClassVar = {
        "a pool that opens": ([10, 50, 50, 50, 50], [2, 42, 42, 42, 42]),
        "an app that starts anew with a large pool": ([10, 10, 50, 50, 50], [40, 40, 40, 40, 40]),
        "monitoring that comes every five seconds": ([10, 12, 13, 14, 16], [5, 5, 5, 5, 5]),
        "nothing at all": ([10, 10, 10, 10, 10], [8, 8, 8, 8, 8]),
        "counters that were reset": ([5000, 1, 1, 2, 2], [8, 8, 8, 8, 8]),
    }

    @pytest.mark.parametrize("case", QUIET)
    def test_quiet(self, tmp_path: Path, case: str) -> None:
        begun, opened = self.QUIET[case]
        samples = counter("sessions", begun) + counter("connections", opened)
        quiet(self.answer(tmp_path, requests=asked(), samples=samples))

    def test_edge_one_session_in_two_requests(self, tmp_path: Path) -> None:
        def at(ended: int) -> Finding | Clear:
            steps = [0, ended // 4, ended // 2, 3 * ended // 4, ended]
            return self.answer(
                tmp_path / str(ended),
                requests=asked(),
                samples=counter("sessions", steps) + counter("connections", [3] * 5),
            )

        quiet(at(30))
        found(at(32))

    def test_sessions_the_server_ended_by_force_do_not_count(self, tmp_path: Path) -> None:
        samples = counter("sessions", [0, 15, 30, 45, 60]) + counter("connections", [3] * 5)
        killed = counter("sessions_killed", [0, 10, 20, 30, 40])
        quiet(self.answer(tmp_path, requests=asked(), samples=samples + killed))

    def test_other_databases_of_the_server_do_not_count(self, tmp_path: Path) -> None:
        samples = counter("sessions", [0, 90, 180, 270, 400], entity="database other") + counter("sessions", [5] * 5)
        assert "0 sessions" in quiet(self.answer(tmp_path, requests=asked(), samples=samples, catalog=[server()]))

    def test_before_version_14_looks_tell(self, tmp_path: Path) -> None:
        rows = [
            session(at * 1000, 100 + at + n, session_start=moment(at * 1000 - 300))
            for at in range(20)
            for n in (0, 1000)
        ]
        answer = found(self.answer(tmp_path, requests=asked(), activity=rows))
        assert "seen by looks" in answer.evidence[0]
        kept = looks(20, [1, 2, 3])
        assert "seen by looks" in quiet(self.answer(tmp_path / "kept", requests=asked(), activity=kept))

    def test_a_pooler_before_the_server_is_named(self, tmp_path: Path) -> None:
        samples = counter("sessions", [5] * 5) + counter("connections", [4] * 5)
        said = quiet(self.answer(tmp_path, requests=asked(), samples=samples, catalog=[server(pooler="pgbouncer")]))
        assert "pgbouncer stands before the server" in said

    def test_not_measured(self, tmp_path: Path) -> None:
        with pytest.raises(NotMeasured, match="--dsn"):
            self.answer(tmp_path, requests=asked())
        with pytest.raises(NotMeasured, match="requests"):
            self.answer(tmp_path / "two", samples=counter("sessions", [0, 20, 40, 60]))


def refused(count: int, text: str) -> dict[str, Any]:
    """Return requests of which ``count`` end with an exception whose message is ``text``."""
    spans = [
        span("GET /chat", turn * 400, 300, trace=f"bad{turn}", kind="SERVER", operation="server", status="ERROR",
             error_type="OperationalError",
             events=[{"name": "exception", "attributes": {"exception.type": "OperationalError", "exception.message": text}}])
        for turn in range(count)
    ]  # fmt: skip
    failed = [request(turn * 400, 300, trace_id=f"bad{turn}", status_code=500) for turn in range(count)]
    return {"spans": spans, "requests": asked() + failed}


class TestPoolTooLarge:
    def answer(self, folder: Path, **tables: Any) -> Finding | Clear:
        return pool_too_large(recording(folder, **tables), OBJECTIVES)

    def test_fires_on_refusals(self, tmp_path: Path) -> None:
        answer = found(self.answer(tmp_path, **refused(3, "FATAL: sorry, too many clients already")))
        assert answer.severity == "critical"
        assert "too many clients" in answer.title
        assert len(answer.exemplars) == 3

    def test_fires_when_nearly_all_are_taken_and_idle(self, tmp_path: Path) -> None:
        rows = looks(10, range(90)) + looks(10, [500], "active")
        answer = found(self.answer(tmp_path, activity=rows, catalog=LIMITS))
        assert answer.share == pytest.approx(91 / 97)
        assert "91 of 97" in answer.title
        assert any("8 in each" in said or "640" in said or "400" in said for said in answer.evidence)

    @pytest.mark.parametrize(("sessions", "fires"), [(77, False), (78, True)])
    def test_edge_of_four_fifths(self, tmp_path: Path, sessions: int, fires: bool) -> None:
        answer = self.answer(tmp_path, activity=looks(10, range(sessions)), catalog=LIMITS)
        assert isinstance(answer, Finding) is fires

    QUIET: ClassVar = {
        "a pool of idle sessions": looks(10, range(20)),
        "many, and all of them at work": looks(10, range(85), "active"),
        "those of a tool": looks(10, range(85), application="DBeaver") + looks(10, [500, 501]),
    }

    @pytest.mark.parametrize("case", QUIET)
    def test_quiet(self, tmp_path: Path, case: str) -> None:
        quiet(self.answer(tmp_path, activity=self.QUIET[case], catalog=LIMITS))

    def test_fires_when_pools_may_open_more_than_the_server_takes(self, tmp_path: Path) -> None:
        most = [
            sample(
                0,
                "db.client.connection.max",
                80,
                source="otlp",
                entity="app",
                attributes={"db.client.connection.pool.name": "main"},
            )
        ]
        rows = looks(10, range(10))
        quiet(self.answer(tmp_path, activity=rows, catalog=LIMITS, samples=most))
        two = [
            *most,
            sample(0, "db.client.connection.max", 80, source="otlp", entity="jobs", attributes={"pool.name": "main"}),
        ]
        assert "may open 160" in found(self.answer(tmp_path / "two", activity=rows, catalog=LIMITS, samples=two)).title

    def test_processes_multiply_a_pool_only_where_more_is_open_than_one_may(self, tmp_path: Path) -> None:
        samples = [
            sample(0, "db.client.connections.max", 30, source="otlp", entity="app", attributes={"pool.name": "main"}),
            sample(0, "processes", 5, source="process", entity="pid 1 (uvicorn) and children"),
        ]
        quiet(self.answer(tmp_path, activity=looks(10, range(25)), catalog=LIMITS, samples=samples))
        found(self.answer(tmp_path / "more", activity=looks(10, range(50)), catalog=LIMITS, samples=samples))

    def test_not_measured(self, tmp_path: Path) -> None:
        with pytest.raises(NotMeasured, match="--dsn"):
            self.answer(tmp_path, requests=asked())


WORDINGS = [
    ("QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00", "pool timeout"),
    ("psycopg_pool.PoolTimeout: couldn't get a connection after 10.00 sec", "pool timeout"),
    ("the pool 'pool-1' has already 100 requests waiting", "pool timeout"),
    ("HikariPool-1 - Connection is not available, request timed out after 30000ms.", "pool timeout"),
    ("connection pool exhausted", "pool timeout"),
    ('FATAL: query_wait_timeout', "pool timeout"),
    ("FATAL:  sorry, too many clients already", "too many connections"),
    ("asyncpg.exceptions.TooManyConnectionsError", "too many connections"),
    ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", "too many connections"),
    ("server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally", "connection closed"),
    ("SSL connection has been closed unexpectedly", "connection closed"),
    ("terminating connection due to administrator command", "connection closed"),
    ("terminating connection due to idle-session timeout", "connection closed"),
    ("psycopg.OperationalError: the connection is closed", "connection closed"),
    ("psycopg.OperationalError: the connection is lost", "connection closed"),
    ("psycopg2.InterfaceError: connection already closed", "connection closed"),
    ("asyncpg.exceptions.ConnectionDoesNotExistError: connection was closed in the middle of operation", "connection closed"),
    ("SQLSTATE 57P01", "connection closed"),
    ("deadlock detected", "deadlock"),
    ("canceling statement due to lock timeout", "lock timeout"),
    ("canceling statement due to statement timeout", None),
    ("duplicate key value violates unique constraint", None),
    ("Rate limit reached for requests: too many requests", None),
    ("invoice 157P011 was not found", None),
    ("", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), WORDINGS)
def test_wordings_of_drivers_and_pools(text: str, kind: str | None) -> None:
    assert kind_of(text) == kind


def test_an_error_told_by_many_spans_of_one_trace_counts_once(tmp_path: Path) -> None:
    event = {"name": "exception", "attributes": {"exception.message": "QueuePool limit of size 5"}}
    spans = [
        span("GET /chat", 0, 300, kind="SERVER", operation="server", status="ERROR", events=[event]),
        span("load", 10, 200, parent="GET /chat", status="ERROR", events=[event]),
        span("chat", 10, 200, parent="GET /chat", operation="chat", status="ERROR", events=[event], trace="other"),
    ]
    frame = refusals(recording(tmp_path, spans=spans, requests=[request(0, 300, trace_id="trace1")]))
    assert frame[["kind", "trace_id", "wording"]].to_numpy().tolist() == [["pool timeout", "trace1", "QueuePool limit"]]


class TestStaleConnections:
    def answer(self, folder: Path, **tables: Any) -> Finding | Clear:
        return stale_connections(recording(folder, **tables), OBJECTIVES)

    def closed(self, count: int, *, worked_before: bool = False) -> dict[str, Any]:
        tables = refused(count, "consuming input failed: server closed the connection unexpectedly")
        for turn in range(count):
            trace = f"bad{turn}"
            if worked_before:
                tables["spans"].append(
                    span("SELECT", turn * 400 + 5, 2, trace=trace, operation="database", statement="SELECT 1")
                )
            tables["spans"].append(
                span(
                    "UPDATE",
                    turn * 400 + 50,
                    2,
                    trace=trace,
                    operation="database",
                    status="ERROR",
                    error_type="OperationalError",
                )
            )
        return tables

    def test_fires_on_first_uses(self, tmp_path: Path) -> None:
        answer = found(self.answer(tmp_path, **self.closed(3)))
        assert "3 of 63 requests" in answer.title
        assert answer.share == 1
        assert "server closed the connection" in answer.evidence[0]

    def test_quiet_when_it_broke_in_the_middle(self, tmp_path: Path) -> None:
        assert "0 of 63" in quiet(self.answer(tmp_path, **self.closed(3, worked_before=True)))

    @pytest.mark.parametrize(("count", "fires"), [(1, False), (2, True)])
    def test_edge_of_two(self, tmp_path: Path, count: int, fires: bool) -> None:
        assert isinstance(self.answer(tmp_path, **self.closed(count)), Finding) is fires

    def test_what_closes_connections_is_named(self, tmp_path: Path) -> None:
        catalog = [
            server(started_at=moment(1000)),
            setting("idle_session_timeout", 60000, unit="ms"),
            setting("pgbouncer.server_idle_timeout", 600),
        ]
        samples = counter("sessions_fatal", [4, 4, 7])
        said = found(self.answer(tmp_path, **self.closed(3), catalog=catalog, samples=samples)).evidence
        assert any("3 fatal" in each for each in said)
        assert "the server was started anew in this window" in said
        assert "idle_session_timeout is 60000 ms" in said

    def test_silent_failures_beside_sessions_ended_by_force(self, tmp_path: Path) -> None:
        failed = [request(5000 + n, 20, status_code=500, stream=False) for n in range(3)]
        killed = counter("sessions_killed", [0, 0, 3, 3])
        answer = found(self.answer(tmp_path, requests=asked() + failed, samples=killed))
        assert "failed within a second" in answer.evidence[0]
        many = [request(5000 + n, 20, status_code=500, stream=False) for n in range(30)]
        quiet(self.answer(tmp_path / "many", requests=asked() + many, samples=killed))
        quiet(self.answer(tmp_path / "none", requests=asked() + failed, samples=counter("sessions_killed", [0, 0, 0])))

    def test_failures_of_the_model_are_not_the_databases(self, tmp_path: Path) -> None:
        failed = [request(5000 + n * 100, 50, status_code=502, stream=False) for n in range(3)]
        calls = [failed_call(5000 + n * 100 + 5, 20, status=500) for n in range(3)]
        killed = counter("sessions_killed", [0, 0, 3, 3])
        quiet(self.answer(tmp_path, requests=failed, calls=calls, samples=killed))

    def test_not_measured(self, tmp_path: Path) -> None:
        with pytest.raises(NotMeasured, match="requests"):
            self.answer(tmp_path, activity=looks(3, [1]))
