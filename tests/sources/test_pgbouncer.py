"""PgBouncer's counts, read from a real PgBouncer before a real Postgres."""

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from servers import postgres_18, through_pgbouncer

from perfnb.areas.database.exhaustion import pool_exhausted
from perfnb.areas.database.pool_metrics import pools
from perfnb.errors import NotPermitted, NotReachable, WrongUse
from perfnb.finding import Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.recording.kinds import KINDS
from perfnb.sources.pgbouncer import PgBouncer


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_18() as dsn:
        yield dsn


@pytest.fixture(scope="module")
def pooled(server: str) -> Iterator[str]:
    with through_pgbouncer(server, default_pool_size=2) as dsn:
        yield dsn


@pytest.fixture
def source(pooled: str) -> Iterator[PgBouncer]:
    with closing(PgBouncer(Collected().emit, pooled)) as made:
        yield made


class Collected(list[tuple[str, dict[str, Any]]]):
    def emit(self, table: str, rows: Iterable[Any]) -> int:
        made = [(table, row) for row in rows]
        self.extend(made)
        return len(made)


@contextmanager
def clients(dsn: str, count: int) -> Iterator[None]:
    """Keep ``count`` transactions open through the pooler; those that find no connection wait."""
    release = threading.Event()

    def hold() -> None:
        with psycopg.connect(dsn, prepare_threshold=None) as connection:
            connection.execute("SELECT 1")
            release.wait(30)

    threads = [threading.Thread(target=hold) for _ in range(count)]
    with ExitStack() as stack:
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(release.set)
        yield


def metrics(source: PgBouncer, entity: str) -> dict[str, float]:
    return {
        row["metric"]: row["value"] for table, row in source.look() if table == "samples" and row["entity"] == entity
    }


def until(source: PgBouncer, entity: str, metric: str, value: float) -> dict[str, float]:
    """Return the first look at which ``metric`` is ``value``."""
    deadline = time.monotonic() + 10
    while (seen := metrics(source, entity)).get(metric) != value and time.monotonic() < deadline:
        time.sleep(0.05)
    return seen


def test_clients_that_wait_and_servers_that_work(pooled: str, source: PgBouncer) -> None:
    with clients(pooled, 5):
        seen = until(source, "pool supportdesk/postgres", "clients_waiting", 3)
        assert seen["clients_waiting"] == 3
        assert (seen["clients_active"], seen["servers_active"], seen["pool_size"]) == (2, 2, 2)
        assert seen["max_wait_ms"] > 0
    seen = until(source, "pool supportdesk/postgres", "servers_active", 0)
    assert seen["servers_idle"] + seen["servers_used"] == 2
    assert (seen["clients_waiting"], seen["max_wait_ms"]) == (0, 0)


def test_totals_are_in_milliseconds(pooled: str, source: PgBouncer) -> None:
    before = metrics(source, "database supportdesk") or {"queries": 0, "query_time_ms": 0}
    with psycopg.connect(pooled, prepare_threshold=None, autocommit=True) as connection:
        connection.execute("SELECT pg_sleep(0.3)")
    after = metrics(source, "database supportdesk")
    assert after["queries"] - before["queries"] >= 1
    assert 290 <= after["query_time_ms"] - before["query_time_ms"] < 5000
    assert {"transactions", "transaction_time_ms", "wait_time_ms"} <= set(after)


def test_pools_and_settings_are_in_the_catalog_as_their_kinds_say(pooled: str, source: PgBouncer) -> None:
    with psycopg.connect(pooled, prepare_threshold=None) as connection:
        connection.execute("SELECT 1")
    rows = [row for table, row in source.look() if table == "catalog"]
    (pool,) = [row for row in rows if row["kind"] == "pool"]
    assert pool["name"] == "supportdesk/postgres"
    assert pool["properties"] == {"pooler": "pgbouncer", "mode": "transaction", "size": 2, "reserve": 0}
    settings = {row["name"]: row["properties"]["value"] for row in rows if row["kind"] == "setting"}
    assert settings["pgbouncer.default_pool_size"] == "2"
    assert "pgbouncer.server_idle_timeout" in settings
    for row in rows:
        assert set(row["properties"]) <= {each.name for each in KINDS[row["kind"]].properties}
    assert not [row for table, row in source.look() if table == "catalog"]  # settings are read now and then only


def test_what_is_recorded_holds_no_password_and_names_the_cause(server: str, tmp_path: Path) -> None:
    made = Recording.create(tmp_path / "made.perfnb")
    with through_pgbouncer(server, default_pool_size=1) as pooled, made.writer() as writer:
        with clients(pooled, 4), PgBouncer(writer.write, pooled, interval_s=0.1) as source:
            deadline = time.monotonic() + 10
            while source.counters["looks"] < 8 and time.monotonic() < deadline:
                time.sleep(0.05)
        assert source.counters["errors"] == 0
    (row,) = pools(made).to_dict("records")
    assert (row["pool"], row["most"]) == ("PgBouncer supportdesk/postgres", 1)
    assert row["waiting_peak"] == 3
    found = pool_exhausted(made, Objectives.load(tmp_path))
    assert isinstance(found, Finding)
    assert "PgBouncer supportdesk/postgres: someone waited" in found.evidence[0]
    password = psycopg.conninfo.conninfo_to_dict(server)["password"]
    assert all(str(password).encode() not in path.read_bytes() for path in made.path.rglob("*") if path.is_file())


def test_a_user_who_may_not_look(server: str) -> None:
    with through_pgbouncer(server, admin_users="somebody") as pooled:
        readiness = PgBouncer(Collected().emit, pooled).probe()
        assert not readiness.works
        assert "stats_users" in readiness.needs
        with pytest.raises(NotPermitted):
            PgBouncer(Collected().emit, pooled).look()


def test_the_servers_own_port_is_told_apart(server: str) -> None:
    readiness = PgBouncer(Collected().emit, server).probe()
    assert not readiness.works
    assert "no PgBouncer answers there" in readiness.found


def test_nothing_there_and_nonsense() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NotReachable) as caught:
        PgBouncer(Collected().emit, f"postgresql://app:swordfish@127.0.0.1:{port}/shop").look()
    assert caught.value.message.startswith("PgBouncer: ")
    assert "swordfish" not in str(caught.value)
    with pytest.raises(WrongUse) as nonsense:
        PgBouncer(Collected().emit, "host=a password=swordfish nonsense").look()
    assert "swordfish" not in str(nonsense.value)


def test_one_that_goes_away_is_told_once_and_asked_again(server: str) -> None:
    rows = Collected()
    source = PgBouncer(rows.emit, "", interval_s=0.05)
    with through_pgbouncer(server) as pooled:
        source = PgBouncer(rows.emit, pooled, interval_s=0.05)
        source.__enter__()
    deadline = time.monotonic() + 10
    while source.counters["errors"] < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert source.is_alive
    source.__exit__()
    told = [row["title"] for table, row in rows if table == "events"]
    assert told == ["pgbouncer could not be read"]


class Console:
    """Stands for a connection to a newer PgBouncer's console, whose columns have other names."""

    def __init__(self, **shown: list[dict[str, Any]]) -> None:
        self.shown = shown
        self.info = type("Info", (), {"host": "db", "hostaddr": "", "port": 6432})()

    def execute(self, query: bytes) -> "Console":
        self.asked = query.decode().removeprefix("SHOW ")
        return self

    def fetchall(self) -> list[dict[str, Any]]:
        return self.shown[self.asked]

    def close(self) -> None: ...


def test_columns_of_newer_versions_are_taken_by_name() -> None:
    """Columns as version 1.24's manual lists them; strings where a console gives numbers as text."""
    console = Console(
        POOLS=[
            {"database": "shop", "user": "app", "cl_active": 3, "cl_waiting": 1, "cl_active_cancel_req": 0, "sv_active": 3,
             "sv_idle": 1, "sv_used": 1, "sv_tested": 1, "sv_login": 0, "maxwait": 2, "maxwait_us": 500_000,
             "pool_mode": "session", "load_balance_hosts": None},
            {"database": "pgbouncer", "user": "pgbouncer", "cl_active": 1, "cl_waiting": 0, "pool_mode": "statement"},
        ],
        STATS=[{"database": "shop", "total_server_assignment_count": 9, "total_xact_count": 5, "total_query_count": "7",
                "total_xact_time": 3000, "total_query_time": 2000, "total_wait_time": 1000, "total_client_parse_count": 0}],
        DATABASES=[{"name": "shop", "pool_size": 10, "min_pool_size": None, "reserve_pool_size": 2, "server_lifetime": 0}],
        CONFIG=[{"key": "default_pool_size", "value": "10", "default": "20", "changeable": "yes"},
                {"key": "auth_file", "value": "/secret", "default": "", "changeable": "yes"}],
    )  # fmt: skip
    source = PgBouncer(Collected().emit, "host=db dbname=shop", connect=lambda *_, **__: console)  # type: ignore[arg-type]
    rows = list(source.look())
    values = {row["metric"]: row["value"] for table, row in rows if table == "samples"}
    assert values == {
        "clients_active": 3, "clients_waiting": 1, "servers_active": 3, "servers_idle": 1, "servers_used": 2,
        "max_wait_ms": 2500, "pool_size": 10, "queries": 7, "transactions": 5, "query_time_ms": 2,
        "transaction_time_ms": 3, "wait_time_ms": 1,
    }  # fmt: skip
    things = {row["name"]: row["properties"] for table, row in rows if table == "catalog"}
    assert things["shop/app"] == {"pooler": "pgbouncer", "mode": "session", "size": 10, "reserve": 2}
    assert list(things) == ["shop/app", "pgbouncer.default_pool_size"]


def test_the_database_in_the_dsn_is_not_used(pooled: str) -> None:
    source = PgBouncer(Collected().emit, make_conninfo(pooled, dbname="there_is_none"))
    assert source.probe().works
