"""What goes wrong around the source: it is told in one line, the rest goes on, and the recording is intact."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Thread

import psycopg
import pytest
import servers
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from watching import OFTEN, PASSWORD, SELDOM, Kept, as_role, run, until, watched

from perfnb.demo.postgres import free_port
from perfnb.errors import NotPermitted, NotReachable, NotWritable, PerfnbError, WrongUse
from perfnb.recorder import Recorder
from perfnb.recording import Recording
from perfnb.recording.journal import Row
from perfnb.sources.postgres.capabilities import preload
from perfnb.sources.postgres.connecting import connected, explained, one_line
from perfnb.sources.postgres.server import Server
from perfnb.sources.postgres.source import Postgres
from perfnb.target import Target

FEW = {"pg_stat_statements.max": "100"}


@pytest.fixture(scope="module")
def server() -> Iterator[servers.Restartable]:
    with servers.restartable(18) as server:
        run(server.dsn, "CREATE EXTENSION pg_stat_statements", "CREATE TABLE orders (id int PRIMARY KEY, kind text)")
        run(server.dsn, "INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 100) AS n", "ANALYZE")
        yield server


@pytest.fixture
def dsn(server: servers.Restartable) -> str:
    return server.dsn


def looked(source: Postgres, more: int = 8) -> None:
    wanted = source.counters["looks"] + more
    until(lambda: source.counters["looks"] >= wanted)


def test_a_bad_dsn_is_told_in_one_line_without_its_password(dsn: str) -> None:
    given = conninfo_to_dict(dsn)
    secret = str(given["password"])
    closed = free_port()
    cases: list[tuple[str, type[PerfnbError], str, str]] = [
        (make_conninfo(dsn, password="guess-4711"), NotPermitted, "password authentication failed", "check user and password"),
        (make_conninfo(dsn, user="nobody-here"), NotPermitted, "nobody-here", "check user and password"),
        (make_conninfo(dsn, dbname="no_such"), WrongUse, 'database "no_such" does not exist', "database's name"),
        (make_conninfo(dsn, port=closed), NotReachable, "Connection refused", "start Postgres"),
        (make_conninfo(dsn, host="no-such-host.invalid"), NotReachable, "no-such-host", "check the host"),
        (make_conninfo(dsn, sslmode="require"), NotReachable, "does not support SSL", "sslmode=prefer"),
        (f"postgresql//u:{secret}@h/x", WrongUse, "can't be read", "postgresql://USER"),
        (f"postgresql://u:{secret} x@h/x", WrongUse, "can't be read", "percent-encoded"),
        (f"postgresql://u:{secret}@h/x?colour=red", WrongUse, "can't be read", "postgresql://USER"),
        (f"mysql://u:{secret}@h/x", WrongUse, "can't be read", "postgresql://USER"),
        (f"{secret}", WrongUse, "can't be read", "postgresql://USER"),
    ]  # fmt: skip
    for bad, kind, message, hint in cases:
        with pytest.raises(kind) as caught:
            connected(bad)
        assert message in caught.value.message, bad
        assert hint in caught.value.hint
        assert len(str(caught.value).splitlines()) == 1
        assert secret not in str(caught.value)
        assert "guess-4711" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        found = Postgres(Kept().emit, bad).probe()
        assert not found.works
        assert secret not in f"{found} {Target(dsn=bad)}"


SERVER_SAYS = [
    ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "a", database "b", no encryption', NotPermitted, "sslmode=require"),
    ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "a", database "b", SSL off', NotPermitted, "sslmode=require"),
    ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "a", database "b", SSL encryption', NotPermitted, "pg_hba.conf"),
    ("FATAL:  sorry, too many clients already", NotReachable, "no connection left"),
    ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", NotReachable, "no connection left"),
    ("connection timeout expired", NotReachable, "firewall"),
    ("FATAL:  the database system is starting up", NotReachable, "wait"),
    ("FATAL:  the database system is in recovery mode", NotReachable, "wait"),
    ('FATAL:  permission denied for database "b"', NotPermitted, "GRANT CONNECT"),
    ("SSL error: certificate verify failed", NotReachable, "sslrootcert"),
    ("FATAL:  no such user: a", NotPermitted, "user"),
    ("FATAL:  Passwort-Authentifizierung fehlgeschlagen", NotReachable, "server's log"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "kind", "hint"), SERVER_SAYS)
def test_what_a_server_says_becomes_what_to_do(said: str, kind: type[PerfnbError], hint: str) -> None:
    error = psycopg.OperationalError(f'connection failed: connection to server at "10.0.0.2", port 5432 failed: {said}')
    made = explained(error, "postgresql://a:secret@10.0.0.2/b")
    assert isinstance(made, kind)
    assert hint in made.hint
    assert said.removeprefix("FATAL:  ") in made.message


def test_a_password_in_an_error_is_cut_out() -> None:
    error = psycopg.OperationalError("something about hunter22 failed\nDETAIL: more")
    assert one_line(error, "postgresql://a:hunter22@h/b") == "something about … failed"


def test_a_killed_session_is_told_once_and_made_anew(dsn: str) -> None:
    with watched(dsn) as (source, kept):
        looked(source)
        for _ in range(2):
            run(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'perfnb'")
            back = source.counters["reconnects"] + 1
            until(lambda back=back: source.counters["reconnects"] >= back)
            looked(source)
    lost, back = kept.events[::2], kept.events[1::2]
    assert len(lost) == 2
    assert all(title.startswith("postgres: the connection was lost: ") for title in lost)
    assert back == ["postgres: connected again; the server ran on"] * 2
    assert source.counters["reconnects"] == 2


def test_a_server_that_is_started_anew_is_watched_on_and_the_recording_is_intact(
    server: servers.Restartable, tmp_path: Path
) -> None:
    said: list[str] = []
    with Recorder(Target(dsn=server.dsn), tmp_path / "made.perfnb", tell=said.append) as recorder:
        source = recorder.running["postgres"]
        run(server.dsn, "SELECT kind FROM orders WHERE id = 1")
        until(lambda: source.counters["looks"] >= 6)
        server.stop()
        until(lambda: source.counters["errors"] > 1)
        server.start_again()
        until(lambda: source.counters["reconnects"] == 1)
        run(server.dsn, "SELECT kind FROM orders WHERE id = 1")
        until(lambda: source.counters["looks"] >= 12)
        assert recorder.lost_sources() == []
    with Recording.open(tmp_path / "made.perfnb") as recording:
        titles = recording.query("SELECT title FROM events WHERE title LIKE 'postgres:%' ORDER BY time")[
            "title"
        ].tolist()
        assert len(titles) == 2
        assert titles[1] == "postgres: connected again; the server was started anew"
        counted = recording.query(
            "SELECT max(calls) AS calls, count(DISTINCT time) AS times FROM statements WHERE query LIKE 'SELECT kind FROM orders%'"
        )
        assert counted["calls"][0] >= 2
        assert recording.query("SELECT count(*) AS n FROM catalog WHERE kind = 'table'")["n"][0] >= 2
    everything = b"".join(path.read_bytes() for path in (tmp_path / "made.perfnb").rglob("*") if path.is_file())
    assert str(conninfo_to_dict(server.dsn)["password"]).encode() not in everything
    assert said == []


def test_rights_taken_away_in_the_middle_are_told_and_the_rest_goes_on(dsn: str) -> None:
    role = as_role(dsn, "auditor", "GRANT pg_monitor TO auditor")
    with watched(role) as (source, kept):
        looked(source)
        run(dsn, "REVOKE EXECUTE ON FUNCTION pg_stat_statements(boolean) FROM PUBLIC")
        until(lambda: any("not permitted" in title for title in kept.events))
        before = len(kept["activity"]), len(kept["samples"])
        run(dsn, "CREATE TABLE IF NOT EXISTS other ()")
        looked(source, 12)
        run(dsn, "GRANT EXECUTE ON FUNCTION pg_stat_statements(boolean) TO PUBLIC")
        until(lambda: any("again" in title for title in kept.events))
    assert len(kept["samples"]) > before[1]
    grants = 'GRANT USAGE ON SCHEMA public TO "auditor"; GRANT EXECUTE ON FUNCTION public.pg_stat_statements(boolean)'
    assert kept.events == [
        f'postgres: statements can\'t be read: not permitted: {grants} TO "auditor"',
        "postgres: statements can be read again",
    ]


def test_a_session_that_sits_on_a_table_stops_no_look_at_the_others(dsn: str) -> None:
    run(
        dsn,
        "CREATE TABLE IF NOT EXISTS held (id int PRIMARY KEY)",
        "CREATE TABLE IF NOT EXISTS late (id int PRIMARY KEY)",
    )
    with psycopg.connect(dsn) as holder:
        holder.execute("LOCK TABLE late IN ACCESS EXCLUSIVE MODE")
        with watched(dsn) as (source, kept):
            until(lambda: kept.objects("table"))
            holder.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
            looked(source, 30)
    assert source.counters["errors"] == 0
    tables, indexes = kept.objects("table"), kept.objects("index")
    assert tables["public.orders"]["bytes"] > 0
    assert tables["public.held"]["bytes"] == 8192, "as last seen"
    assert "bytes" not in tables["public.late"], "never seen"
    assert "live_rows" in tables["public.late"]
    assert {"public.orders_pkey", "public.held_pkey"} <= set(indexes)
    assert "public.late_pkey" not in indexes


def test_of_very_many_tables_the_largest_are_read_and_it_is_said(dsn: str) -> None:
    run(dsn, *(f"CREATE TABLE IF NOT EXISTS small_{number} ()" for number in range(12)))
    with watched(dsn, most_tables=4, intervals=SELDOM) as (_, kept):
        until(lambda: kept.objects("table"))
    assert len(kept.objects("table")) == 4
    assert "public.orders" in kept.objects("table")
    assert {name.rpartition(".")[0] for name in kept.objects("column")} <= set(kept.objects("table"))
    (said,) = [title for title in kept.events if "tables are read" in title]
    assert said.startswith("postgres: 4 of ")
    assert said.endswith("tables are read: the largest and the most used")


def test_statements_thrown_out_are_told_once() -> None:
    with servers.running(18, FEW) as dsn:
        run(dsn, "CREATE EXTENSION pg_stat_statements")
        with watched(dsn) as (source, kept):
            for _ in range(2):
                looked(source)
                run(dsn, *(f"SELECT {', '.join(['1'] * count)}" for count in range(1, 200)))
    assert kept.events == [
        "postgres: there are more statements than pg_stat_statements.max (100) keeps: totals are lower bounds"
    ]
    assert next(iter(kept.objects("server").values()))["statements_evicted"] > 0


def test_an_old_version_of_the_extension_on_a_new_server(dsn: str) -> None:
    run(dsn, "CREATE DATABASE old")
    old = make_conninfo(dsn, dbname="old")
    run(old, "CREATE SCHEMA extensions", "CREATE EXTENSION pg_stat_statements SCHEMA extensions VERSION '1.8'")
    with watched(old) as (source, kept):
        run(old, "SELECT 'a' AS of_old")
        looked(source)
    row = kept.statement("of_old")
    assert row["calls"] == 1
    assert not {"since", "is_top_level", "temp_block_time_ms"} & set(row)
    assert row["block_read_time_ms"] == 0
    assert kept.objects("server")[row["server"]]["statements_version"] == "1.8"
    assert source.counters["errors"] == 0
    assert kept.events == []


def test_a_build_under_way_is_seen(dsn: str) -> None:
    run(dsn, "CREATE TABLE IF NOT EXISTS built AS SELECT n FROM generate_series(1, 10) AS n")
    with psycopg.connect(dsn) as older, watched(dsn) as (_, kept):
        older.execute("SELECT txid_current(), count(*) FROM built")
        older.execute("LOCK TABLE built IN ROW EXCLUSIVE MODE")
        building = Thread(target=lambda: run(dsn, "CREATE INDEX CONCURRENTLY slow ON built (n)"))
        building.start()
        until(lambda: kept.objects("progress"))
        until(lambda: kept.objects("index").get("public.slow", {}).get("is_building"))
        older.rollback()
        building.join(20)
    (progress,) = kept.objects("progress").values()
    assert (progress["command"], progress["table"]) == ("CREATE INDEX CONCURRENTLY", "public.built")
    assert progress["phase"]
    assert kept.objects("index")["public.slow"]["is_valid"]
    assert not kept.objects("index")["public.slow"]["is_building"]


def test_a_disk_that_is_full_for_a_while_ends_nothing(dsn: str) -> None:
    kept, is_full = Kept(), [True]

    def emit(table: str, rows: Iterable[Row]) -> int:
        if is_full[0]:
            raise NotWritable("no space left")
        return kept.emit(table, rows)

    with Postgres(emit, dsn, intervals=OFTEN) as source:
        until(lambda: source.counters["errors"] > 6)
        is_full[0] = False
        looked(source)
        assert source.is_alive
    assert kept["statements"]
    assert kept["catalog"]


def test_a_clock_that_is_off_is_corrected(dsn: str) -> None:
    hour = 3600 * 10**9
    server = Server(dsn, now=lambda: time.time_ns() + hour)
    seen = server.open()
    server.close()
    assert server.ahead_ns == pytest.approx(-hour, abs=10**9)
    assert server.here(seen.now_us) == pytest.approx(time.time_ns() + hour, abs=10**9)
    same = Server(dsn)
    same.open()
    same.close()
    assert same.ahead_ns == 0, "on one host the round trip tells no difference"


def test_a_standby_is_watched(dsn: str) -> None:
    with servers.standby_of(dsn) as standby, watched(standby) as (source, kept):
        run(standby, "SELECT 'x' AS on_standby")
        looked(source)
        until(lambda: run(dsn, "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn IS NOT NULL")[0][0] == 1)
        with watched(dsn, intervals=SELDOM) as (_, primary):
            until(lambda: primary.objects("server"))
    assert source.counters["errors"] == 0
    assert next(iter(kept.objects("server").values()))["is_in_recovery"]
    assert kept.statement("on_standby")["calls"] == 1
    about = next(iter(primary.objects("server").values()))
    assert about["replicas"] == 1
    assert about["replica_lag_bytes"] >= 0


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_through_pgbouncer(dsn: str, mode: str) -> None:
    with servers.through_pgbouncer(dsn, mode) as pooled, watched(pooled) as (source, kept):
        run(pooled, "SELECT 'x' AS through_pool")
        looked(source, 30)
    assert (source.counters["errors"], kept.events) == (0, [])
    assert kept.statement("through_pool")["calls"] >= 1
    assert next(iter(kept.objects("server").values()))["pooler"] == "pgbouncer"


def test_a_pooler_that_goes_away_is_told(dsn: str) -> None:
    kept = Kept()
    with servers.through_pgbouncer(dsn) as pooled:
        source = Postgres(kept.emit, pooled, intervals=OFTEN)
        source.__enter__()
        looked(source)
    until(lambda: source.counters["errors"] > 1)
    source.__exit__(None, None, None)
    assert not source.is_alive
    assert len([title for title in kept.events if "lost" in title]) == 1


@pytest.mark.parametrize("version", [13, 18])
def test_a_library_that_is_not_loaded_is_told_with_what_keeps_the_server_startable(version: int) -> None:
    with servers.restartable(version, {"shared_preload_libraries": "auto_explain"}) as server:
        server._kept = _without_preload(server)
        run(server.dsn, "CREATE EXTENSION pg_stat_statements")
        with watched(server.dsn) as (source, kept):
            looked(source)
        assert source.counters["errors"] == 0
        assert kept["samples"]
        (told,) = kept.events
        statement = told[told.index("ALTER SYSTEM") :].partition(", restart")[0]
        assert statement == "ALTER SYSTEM SET shared_preload_libraries = 'auto_explain', 'pg_stat_statements'"
        assert "not preloaded" in Postgres(kept.emit, server.dsn).probe().needs
        run(server.dsn, statement)
        server.stop()
        server.start_again()
        with watched(server.dsn) as (source, kept):
            looked(source)
        assert kept["statements"]
        assert kept.events == []


def _without_preload(server: servers.Restartable) -> servers.Child:
    """Return the server's command without the libraries, so that ALTER SYSTEM's word counts at its next start."""
    from dataclasses import replace

    command = list(server._kept.command)
    at = next(number for number, word in enumerate(command) if word.startswith("shared_preload_libraries"))
    return replace(server._kept, command=command[: at - 1] + command[at + 1 :])


@pytest.mark.parametrize(
    ("preloaded", "expected"),
    [
        ("", "'pg_stat_statements'"),
        ("a", "'a', 'pg_stat_statements'"),
        ('a, "b-c"', "'a', 'b-c', 'pg_stat_statements'"),
        ("pg_stat_statements,a", "'pg_stat_statements', 'a'"),
    ],
)
def test_each_library_is_a_literal_of_its_own(preloaded: str, expected: str) -> None:
    assert preload(preloaded) == f"ALTER SYSTEM SET shared_preload_libraries = {expected}"
    assert "SHOW shared_preload_libraries" in preload(None)


def test_a_role_with_a_password_of_its_own_leaves_it_nowhere(
    dsn: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    role = as_role(dsn, "careful")
    said: list[str] = []
    with Recorder(Target(dsn=role), tmp_path / "made.perfnb", tell=said.append) as recorder:
        until(lambda: recorder.running["postgres"].counters["looks"] >= 4)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "made.perfnb").rglob("*") if path.is_file())
    assert PASSWORD.encode() not in everything
    assert PASSWORD not in f"{said} {caplog.text} {Target(dsn=role)}"
    refused: list[str] = []
    with Recorder(Target(dsn=role.replace(PASSWORD, "wrong-9462")), tmp_path / "none.perfnb", tell=refused.append):
        pass
    assert len(refused) == 1
    assert "check user and password" in refused[0]
    assert "wrong-9462" not in refused[0]


def test_the_command_line_says_what_to_do_and_no_password(tmp_path: Path) -> None:
    dsn = f"postgresql://app:{PASSWORD}@127.0.0.1:{free_port()}/shop"
    for given, environment in (["--dsn", dsn], {}), ([], {"PERFNB_DSN": dsn}):
        done = subprocess.run(
            [sys.executable, "-m", "perfnb.cli", "record", *given, "--seconds", "1"],
            cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        said = " ".join(done.stderr.split())  # a narrow terminal breaks lines anywhere
        assert done.returncode == 2, said
        assert "without postgres: postgres: connection to server at" in said
        assert "start Postgres, or check host and port in the DSN" in said
        assert PASSWORD not in done.stdout + done.stderr
