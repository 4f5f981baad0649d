"""Requests that wait for a connection, told by pools, by PgBouncer, by errors and by the server alone."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import Row, call, every, recording, request, span
from session_rows import counter, looks, sample, session

from perfnb.areas.database.exhaustion import pauses, pool_exhausted
from perfnb.areas.database.pool_metrics import over_time, pools
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives

OBJECTIVES = Objectives.load(Path(__file__).parent)
NAME = {"db.client.connection.pool.name": "main"}


def answer(folder: Path, **tables: Any) -> Finding | Clear:
    return pool_exhausted(recording(folder, **tables), OBJECTIVES)


def otel(used: float, waiting: float, *, count: int = 10, most: float = 5, idle: float = 0, **more: Any) -> list[Row]:
    """Return a pool's metrics as OpenTelemetry names them, read ``count`` times."""
    rows = []
    for turn in range(count):
        for metric, value, labels in (
            ("db.client.connection.count", used, {"db.client.connection.state": "used"}),
            ("db.client.connection.count", idle, {"db.client.connection.state": "idle"}),
            ("db.client.connection.max", most, {}),
            ("db.client.connection.pending_requests", waiting, {}),
        ):
            rows.append(
                sample(turn * 2000, metric, value, source="otlp", entity="shop", attributes=NAME | labels, **more)
            )
    return rows


def busy(count: int = 20) -> list[Row]:
    return every(1000, count, lambda at: request(at, 5000))


class TestPoolMetrics:
    def test_opentelemetry(self, tmp_path: Path) -> None:
        (row,) = pools(recording(tmp_path, samples=otel(5, 2) + otel(2, 0, idle=3, count=0))).to_dict("records")
        assert (row["pool"], row["used"], row["most"], row["waiting_part"], row["full_part"]) == (
            "shop main",
            5,
            5,
            1,
            1,
        )

    def test_older_names_and_their_milliseconds(self, tmp_path: Path) -> None:
        rows = [
            sample(
                0,
                "db.client.connections.usage",
                4,
                source="otlp",
                entity="shop",
                attributes={"pool.name": "main", "state": "used"},
            ),
            sample(
                0,
                "db.client.connections.usage",
                1,
                source="otlp",
                entity="shop",
                attributes={"pool.name": "main", "state": "idle"},
            ),
        ]
        for at, count, total in ((0, 10, 100), (9000, 30, 4100)):
            for metric, value in (("_count", count), ("_sum", total)):
                rows.append(
                    sample(at, f"db.client.connections.wait_time{metric}", value, source="otlp", entity="shop", unit="ms",
                           attributes={"pool.name": "main", "otel.temporality": "cumulative"})
                )  # fmt: skip
        (row,) = pools(recording(tmp_path, samples=rows)).to_dict("records")
        assert (row["used"], row["idle"], row["waits"], row["wait_ms"]) == (4, 1, 20, 200)

    def test_deltas_are_added_up(self, tmp_path: Path) -> None:
        attributes = NAME | {"otel.temporality": "delta"}
        rows = [
            sample(at, "db.client.connection.timeouts", 2, source="otlp", entity="shop", attributes=attributes)
            for at in (0, 9, 99)
        ]
        assert pools(recording(tmp_path, samples=rows))["timeouts"].tolist() == [6]

    @pytest.mark.parametrize(
        ("metric", "role"),
        [
            ("hikaricp_connections_active", "used"),
            ("hikaricp_connections_pending", "waiting"),
            ("hikaricp_connections_max", "most"),
            ("hikaricp_pending_threads", "waiting"),
            ("db_client_connection_pending_requests", "waiting"),
            ("go_sql_stats_connections_in_use", "used"),
            ("go_sql_stats_connections_max_open", "most"),
            ("sqlalchemy_pool_checked_out", "used"),
            ("sqlalchemy_pool_checkedin_connections", "idle"),
            ("psycopg_pool_requests_waiting", "waiting"),
            ("app_db_pool_max_size", "most"),
            ("pgxpool_acquired_conns", "used"),
        ],
    )
    def test_names_of_exporters(self, tmp_path: Path, metric: str, role: str) -> None:
        frame = pools(
            recording(tmp_path, samples=[sample(0, metric, 7, source="prometheus", entity="app:8000/metrics")])
        )
        assert frame[role].tolist() == [7]

    @pytest.mark.parametrize(
        "metric",
        ["thread_pool_waiting", "http_pool_available", "pool_max", "db_client_operation_duration_count", "connections"],
    )
    def test_other_pools_are_left_alone(self, tmp_path: Path, metric: str) -> None:
        assert pools(recording(tmp_path, samples=[sample(0, metric, 7, source="prometheus", entity="app")])).empty

    def test_pgbouncer(self, tmp_path: Path) -> None:
        rows = [
            sample(at, metric, value, source="pgbouncer", entity="pool shop/app")
            for at in (0, 1000, 2000)
            for metric, value in (
                ("servers_active", 20),
                ("servers_idle", 0),
                ("clients_waiting", 6),
                ("pool_size", 20),
            )
        ]
        (row,) = pools(recording(tmp_path, samples=rows)).to_dict("records")
        assert (row["pool"], row["used"], row["most"], row["waiting"], row["full_part"]) == (
            "PgBouncer shop/app",
            20,
            20,
            6,
            1,
        )

    def test_over_time(self, tmp_path: Path) -> None:
        frame = over_time(recording(tmp_path, samples=otel(3, 1, count=2, idle=2)))
        assert frame[["used", "idle", "most", "waiting"]].to_numpy().tolist() == [[3, 2, 5, 1]] * 2

    def test_none(self, tmp_path: Path) -> None:
        made = recording(tmp_path)
        assert pools(made).empty
        assert over_time(made).empty


class TestByMetrics:
    def test_fires_when_someone_waits(self, tmp_path: Path) -> None:
        found = answer(tmp_path, samples=otel(5, 2), requests=busy())
        assert isinstance(found, Finding)
        assert found.symptom == "latency"
        assert found.share == pytest.approx(0.48, abs=0.02)  # 2 of the 4.2 requests under way
        assert "someone waited in 100% of 10 readings" in found.evidence[0]

    @pytest.mark.parametrize(("waited", "fires"), [(1, False), (2, True)])
    def test_edge_of_one_reading_in_five(self, tmp_path: Path, waited: int, fires: bool) -> None:
        rows = otel(5, 0, count=10 - waited) + [
            row | {"time": row["time"] + 60_000_000_000} for row in otel(5, 3, count=waited)
        ]
        assert isinstance(answer(tmp_path, samples=rows, requests=busy()), Finding) is fires

    def test_timeouts_fire(self, tmp_path: Path) -> None:
        rows = [sample(at, "db.client.connection.timeouts", value, source="otlp", entity="shop", attributes=NAME)
                for at, value in ((0, 3), (9000, 7))]  # fmt: skip
        found = answer(tmp_path, samples=otel(5, 0) + rows, requests=busy())
        assert isinstance(found, Finding)
        assert "4 waits ended in a timeout" in found.evidence[0]

    def test_a_full_pool_nobody_waits_for_is_quiet(self, tmp_path: Path) -> None:
        found = answer(tmp_path, samples=otel(5, 0), requests=busy())
        assert isinstance(found, Clear)
        assert "5 used at most, 0% of readings with someone waiting" in found.examined

    def test_a_wait_for_a_pool_that_grows_is_quiet(self, tmp_path: Path) -> None:
        rows = [
            sample(
                at,
                f"db.client.connection.wait_time_{part}",
                value,
                source="otlp",
                entity="shop",
                unit="s",
                attributes=NAME,
            )
            for at, values in ((0, (0, 0)), (9000, (20, 4)))
            for part, value in zip(("count", "sum"), values, strict=True)
        ]
        assert isinstance(answer(tmp_path, samples=otel(2, 0, idle=3) + rows, requests=busy()), Clear)
        found = answer(tmp_path / "full", samples=otel(5, 0) + rows, requests=busy())
        assert isinstance(found, Finding)
        assert "took 200 ms (mean of 20)" in found.evidence[0]


class TestByErrors:
    def refused(self, count: int) -> dict[str, Any]:
        event = {"name": "exception", "attributes": {"exception.message": "couldn't get a connection after 10.00 sec"}}
        spans = [
            span(
                "GET /chat",
                n * 100,
                10_000,
                trace=f"t{n}",
                kind="SERVER",
                operation="server",
                status="ERROR",
                events=[event],
            )
            for n in range(count)
        ]
        failed = [request(n * 100, 10_000, trace_id=f"t{n}", status_code=500) for n in range(count)]
        return {"spans": spans, "requests": every(500, 40, lambda at: request(at, 500)) + failed}

    def test_fires(self, tmp_path: Path) -> None:
        found = answer(tmp_path, **self.refused(4))
        assert isinstance(found, Finding)
        assert found.title == "4 requests got no database connection in time"
        assert found.severity == "critical"
        assert found.share == pytest.approx(40 / 60, abs=0.01)

    def test_one_alone_is_quiet(self, tmp_path: Path) -> None:
        tables = self.refused(1)
        tables["spans"].append(span("SELECT", 5, 5, operation="database", statement="SELECT $1"))
        found = answer(tmp_path, **tables)
        assert isinstance(found, Clear)
        assert "1 of 41 requests found no connection" in found.examined


class TestByTheServerAlone:
    def staged(self, sessions: int, in_flight: int, *, state: str = "active", count: int = 20) -> dict[str, Any]:
        """Return looks at ``sessions`` in ``state`` while ``in_flight`` requests are under way."""
        requests = [request(-500 + n, (count + 1) * 1000) for n in range(in_flight)]
        return {"activity": looks(count, range(1, sessions + 1), state), "requests": requests}

    def test_fires_when_all_are_in_use_and_more_requests_wait(self, tmp_path: Path) -> None:
        found = answer(tmp_path, **self.staged(4, 10))
        assert isinstance(found, Finding)
        assert "all 4 sessions the app ever had were in use" in found.evidence[0]
        assert found.share == pytest.approx(0.6, abs=0.02)

    @pytest.mark.parametrize(("in_flight", "fires"), [(4, False), (5, False), (6, True)])
    def test_edge_of_two_that_wait(self, tmp_path: Path, in_flight: int, fires: bool) -> None:
        assert isinstance(answer(tmp_path, **self.staged(4, in_flight)), Finding) is fires

    def test_requests_that_wait_for_the_model_do_not_wait_for_the_pool(self, tmp_path: Path) -> None:
        tables = self.staged(4, 10)
        tables["calls"] = [call(-200, 30_000, trace_id=None) for _ in range(6)]
        requests = tables["requests"]
        for row, made in zip(requests, tables["calls"], strict=False):
            row["trace_id"] = made["trace_id"] = f"trace{row['request_id']}"
        assert isinstance(answer(tmp_path, **tables), Clear)

    def test_requests_that_hold_one_while_they_wait_for_the_model_do(self, tmp_path: Path) -> None:
        tables = self.staged(4, 10, state="idle in transaction")
        tables["calls"] = [call(-200, 30_000, trace_id=f"t{n}") for n in range(4)]
        for number, row in enumerate(tables["requests"]):
            row["trace_id"] = f"t{number}"
        found = answer(tmp_path, **tables)
        assert isinstance(found, Finding)

    def test_requests_that_failed_after_a_wait_make_it_worse(self, tmp_path: Path) -> None:
        tables = self.staged(4, 10)
        tables["requests"] += [request(n * 1000, 5000, status_code=500) for n in range(5)]
        found = answer(tmp_path, **tables)
        assert isinstance(found, Finding)
        assert found.severity == "critical"
        assert "5 requests failed after 5.0 s (median), no model call of theirs did" in found.evidence

    def test_idle_sessions_are_quiet(self, tmp_path: Path) -> None:
        assert isinstance(answer(tmp_path, **self.staged(4, 10, state="idle")), Clear)

    def test_sessions_that_come_and_go_with_the_requests_are_quiet(self, tmp_path: Path) -> None:
        rows = [session(turn * 1000, pid, "active") for turn in range(20) for pid in range(1 + turn)]
        requests = [request(turn * 1000 - 500, 30_000) for turn in range(20)]
        assert isinstance(answer(tmp_path, activity=rows, requests=requests), Clear)

    def test_a_few_looks_are_not_enough(self, tmp_path: Path) -> None:
        assert isinstance(answer(tmp_path, **self.staged(4, 10, count=7)), Clear)


def test_pauses_before_the_first_statement(tmp_path: Path) -> None:
    spans = [
        span("GET /chat", 0, 1000, kind="SERVER", operation="server"),
        span("rewrite", 10, 90, parent="GET /chat"),
        span("retrieve", 100, 800, parent="GET /chat"),
        span("SELECT", 500, 20, parent="retrieve", operation="database", statement="SELECT $1"),
        span("SELECT again", 700, 20, parent="retrieve", operation="database", statement="SELECT $1"),
    ]
    frame = pauses(recording(tmp_path, spans=spans, requests=[request(0, 1000, trace_id="trace1")]))
    assert frame["pause_ms"].tolist() == [400]


def test_pauses_are_told_beside_other_signs(tmp_path: Path) -> None:
    spans, requests = [], []
    for n in range(8):
        trace = f"t{n}"
        spans += [span("GET /chat", n * 500, 900, trace=trace, kind="SERVER", operation="server"),
                  span("SELECT", n * 500 + 600, 20, trace=trace, parent="GET /chat", operation="database", statement="SELECT $1")]  # fmt: skip
        requests.append(request(n * 500, 900, trace_id=trace))
    assert isinstance(answer(tmp_path, spans=spans, requests=requests), Clear)
    found = answer(tmp_path / "too", spans=spans, requests=requests, samples=otel(5, 2))
    assert isinstance(found, Finding)
    assert any("paused 600 ms" in said for said in found.evidence)


def test_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="--pgbouncer"):
        answer(tmp_path, requests=busy())


def test_counters_of_the_server_alone_are_no_pool(tmp_path: Path) -> None:
    frame: pd.DataFrame = pools(recording(tmp_path, samples=counter("connections", [3, 4, 5])))
    assert frame.empty
