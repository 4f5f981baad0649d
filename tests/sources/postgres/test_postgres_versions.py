"""The source on servers of every version: one schema, nothing written, nothing hidden without a word."""

from collections.abc import Iterator
from threading import Thread

import psycopg
import pytest
import servers
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from watching import Kept, as_role, run, until, watched

from perfnb.recording import kinds
from perfnb.recording.schema import TABLES
from perfnb.sources.postgres.server import Server
from perfnb.sources.postgres.source import Postgres
from perfnb.sources.postgres.sql import MARK, QUERIES, query
from perfnb.sources.postgres.statements import columns

SCHEMA = """
CREATE EXTENSION pg_stat_statements;
CREATE TABLE parent (id int PRIMARY KEY, name text UNIQUE, made timestamptz DEFAULT now()) WITH (fillfactor = 80, autovacuum_enabled = off);
CREATE TABLE child (id serial, parent_id int REFERENCES parent ON DELETE CASCADE, body text);
CREATE INDEX lower_name ON parent (lower(name) DESC, id) INCLUDE (made) WHERE id > 5;
INSERT INTO parent SELECT n, 'name ' || n FROM generate_series(1, 5000) AS n;
CREATE MATERIALIZED VIEW names AS SELECT name FROM parent;
CREATE TABLE parts (day date, n int) PARTITION BY RANGE (day);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE UNLOGGED TABLE fast (id int);
ALTER DATABASE supportdesk SET work_mem = '8MB';
ALTER DATABASE supportdesk SET app.secret_key = 'never told';
ANALYZE
"""


@pytest.fixture(scope="module", params=servers.VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def dsn(version: int) -> Iterator[str]:
    with servers.running(version) as dsn:
        run(dsn, *SCHEMA.split(";"))
        if version >= 14:  # counters reach the server's statistics a while after what they count
            until(lambda: bool(run(dsn, "SELECT 1 FROM pg_stat_wal WHERE wal_bytes > 0")))
        yield dsn


@pytest.fixture(scope="module")
def seen(dsn: str) -> Kept:
    """What was written while seven calls of one statement ran and a transaction stood open."""
    with psycopg.connect(dsn) as idle, watched(dsn) as (_, kept):
        idle.execute("SELECT name FROM parent WHERE name = 'name 5'")
        for number in range(7):
            run(dsn, f"SELECT body FROM child WHERE parent_id = {number} AND body <> 'private'")
        until(lambda: len({row["time"] for row in kept["statements"]}) > 3)
    return kept


def test_statements_have_one_schema(seen: Kept, version: int) -> None:
    row = seen.statement("FROM child WHERE")
    assert row["calls"] == 7
    assert row["query"].startswith("SELECT body FROM child WHERE parent_id = $1 AND body <> $2")
    assert (
        0 < row["min_exec_time_ms"] <= row["mean_exec_time_ms"] <= row["max_exec_time_ms"] <= row["total_exec_time_ms"]
    )
    assert (row["database"], row["role"], row["rows"], row["plans"]) == ("supportdesk", "postgres", 0, 0)
    assert row["block_read_time_ms"] >= 0
    assert ("is_top_level" in row) is (version >= 14)
    assert ("since" in row) is ("temp_block_time_ms" in row and version >= 17)
    assert ("temp_block_time_ms" in row) is (version >= 15)
    assert {name for row in seen["statements"] for name in row} <= set(TABLES["statements"].types)


def test_every_snapshot_has_rows_and_the_first_and_last_have_all(seen: Kept) -> None:
    times = sorted({row["time"] for row in seen["statements"]})
    counts = [sum(row["time"] == each for row in seen["statements"]) for each in times]
    assert len(times) > 2
    assert min(counts) >= 1
    assert counts[-1] > 20
    assert min(counts[1:-1]) < counts[0], "between them only what ran"


def test_no_literal_is_written(seen: Kept) -> None:
    texts = [str(row.get("query")) for table in ("statements", "activity") for row in seen[table]]
    assert not [text for text in texts if "private" in text or "name 5" in text]
    assert "never told" not in str(seen.tables)


def test_what_perfnb_asks_is_left_out(seen: Kept, dsn: str) -> None:
    own = {text for (text,) in run(dsn, f"SELECT query FROM pg_stat_statements WHERE strpos(query, '{MARK}') > 0")}
    assert len(own) > 10, "the server counted them"
    listed = [row["query"] for row in seen["statements"] if row.get("query")]
    assert not [text for text in listed if "pg_stat_activity" in text or "set_config" in text]
    assert not [row for row in seen["activity"] if row.get("application") == "perfnb"]


def test_sessions_are_told_with_their_times(seen: Kept, version: int) -> None:
    row = [row for row in seen["activity"] if row.get("state") == "idle in transaction"][-1]
    assert row["query"] == "SELECT name FROM parent WHERE name = ?"
    assert (row["backend"], row["client"], row["wait_event"]) == ("client backend", "local", "ClientRead")
    assert row["session_start"] <= row["transaction_start"] <= row["query_start"] <= row["state_change"]
    assert abs(row["time"] - row["state_change"]) < 60e9
    assert ("queryid" in row) is (version >= 14)
    assert {name for row in seen["activity"] for name in row} <= set(TABLES["activity"].types)


_TYPES = {"BIGINT": int, "DOUBLE": (int, float), "BOOLEAN": bool, "VARCHAR": str, "JSON": (dict, list)}


def test_objects_are_as_their_kinds_say(seen: Kept) -> None:
    assert {row["kind"] for row in seen["catalog"]} >= {
        "server", "database", "setting", "role_setting", "extension", "table", "column", "index", "foreign_key",
    }  # fmt: skip
    for row in seen["catalog"]:
        declared = {each.name: each.type for each in kinds.KINDS[row["kind"]].properties}
        for name, value in row["properties"].items():
            assert name in declared, f"{row['kind']} has no {name}"
            assert isinstance(value, _TYPES[declared[name]]), f"{row['kind']} {name} = {value!r}"


def test_tables_are_told_as_they_are(seen: Kept) -> None:
    tables = seen.objects("table")
    parent = tables["public.parent"]
    assert parent["rows_estimated"] == 5000
    assert parent["options"] == {"fillfactor": "80", "autovacuum_enabled": "off"}
    assert parent["inserted"] == 5000
    assert parent["bytes"] > parent["heap_bytes"] > 0
    assert 0 <= parent["bloat_fraction"] < 0.35
    assert tables["public.child"]["rows_estimated"] == -1 or tables["public.child"]["live_rows"] == 0
    assert tables["public.names"]["relation"] == "materialised view"
    assert tables["public.parts"]["relation"] == "partitioned table"
    assert (tables["public.part_1"]["relation"], tables["public.part_1"]["parent"]) == ("partition", "public.parts")
    assert tables["public.fast"]["persistence"] == "unlogged"
    assert not [name for name in tables if name.startswith("pg_")]


def test_indexes_are_told_as_they_are(seen: Kept) -> None:
    indexes = seen.objects("index")
    some = indexes["public.lower_name"]
    assert some["keys"] == ["lower(name)", "id"]
    assert some["descending"] == [True, False]
    assert (some["included"], some["predicate"], some["method"]) == (["made"], "id > 5", "btree")
    assert some["collations"] == [None, None]
    assert some["opclasses"] == ["text_ops", "int4_ops"]
    assert some["is_valid"] is True
    primary = indexes["public.parent_pkey"]
    assert primary["is_primary"]
    assert primary["constraint"] == "parent_pkey"
    assert primary["references"] == ["public.child.child_parent_id_fkey"]
    key = seen.objects("foreign_key")["public.child.child_parent_id_fkey"]
    assert (key["columns"], key["target_columns"], key["on_delete"]) == (["parent_id"], ["id"], "cascade")


def test_columns_settings_and_extensions_are_told(seen: Kept, version: int) -> None:
    name = seen.objects("column")["public.parent.name"]
    assert (name["type"], name["distinct"], name["position"]) == ("text", -1, 2)
    assert set(seen.objects("column")["public.parent.made"]["older"].values()) == {0}
    assert seen.objects("role_setting")["supportdesk"]["settings"] == {"work_mem": "8MB"}
    settings = seen.objects("setting")
    assert settings["work_mem"] | {"source": ""} == {
        "value": "8192", "unit": "kB", "default": "4096", "source": "", "context": "user",
    }  # fmt: skip
    assert settings["statement_timeout"]["value"] == "0", "as in a new session, not in ours"
    assert not [each for each in settings if "conninfo" in each or "command" in each]
    assert "pg_stat_statements" in seen.objects("extension")
    server = next(iter(seen.objects("server").values()))
    assert server["version_num"] // 10000 == version
    assert (server["sees_all"], server["is_superuser"], server["is_in_recovery"]) == (True, True, False)
    assert ("statements_evicted" in server) is (version >= 14)


DATABASE_METRICS = {
    "connections", "commits", "rollbacks", "blocks_read", "blocks_hit", "rows_returned", "rows_fetched", "temp_files",
    "temp_bytes", "deadlocks", "block_read_time_ms", "block_write_time_ms",
}  # fmt: skip
SESSION_METRICS = {
    "sessions", "session_time_ms", "active_time_ms", "idle_in_transaction_time_ms", "sessions_abandoned",
    "sessions_fatal", "sessions_killed",
}  # fmt: skip
SERVER_METRICS = {"connections", "connections_max", "checkpoints_timed", "checkpoints_requested", "wal_bytes"}


def test_counters_are_sampled(seen: Kept, version: int) -> None:
    metrics = {
        entity: {row["metric"] for row in seen["samples"] if row["entity"] == entity}
        for entity in ("database supportdesk", "server")
    }
    assert metrics["database supportdesk"] == DATABASE_METRICS | (SESSION_METRICS if version >= 14 else set())
    assert metrics["server"] == SERVER_METRICS | {"statements_elsewhere"}
    last = {row["metric"]: row["value"] for row in seen["samples"] if row["entity"] == "database supportdesk"}
    assert last["commits"] > 7
    wal = [row["value"] for row in seen["samples"] if row["metric"] == "wal_bytes"]
    assert wal[0] > 0
    assert wal == sorted(wal)


def test_every_query_runs_read_only_for_a_role_without_rights(dsn: str, version: int) -> None:
    powerless = as_role(
        dsn,
        "powerless",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "REVOKE TEMP ON DATABASE supportdesk FROM PUBLIC",
    )
    server = Server(powerless)
    seen = server.open()
    schema = sql.Identifier(seen.statements_schema)
    expressions = [sql.SQL(f"{text} AS {name}") for name, text in columns(seen.statement_columns).items()]
    parts = {
        "statements": {"schema": schema, "columns": sql.SQL(", ").join(expressions)},
        **{name: {"schema": schema} for name in ("statement_texts", "statements_info", "statements_elsewhere")},
    }
    values = {"oids": [1259], "most": 5, "sizes": True, "locked": [], "queryids": [1]}
    ran = set()
    for name in sorted({path.name.split(".")[0] for path in QUERIES.glob("*.sql")}):
        text = query(name, version * 10000)
        if not text or (name == "statements_info" and version < 14):
            continue
        with server.reading() as read:
            needed = {each: value for each, value in values.items() if f"%({each})s" in text}
            read(name, needed or None, **parts.get(name, {}))
            ran.add(name)
    server.close()
    assert len(ran) > 20


def test_a_write_is_refused_even_to_a_superuser(dsn: str) -> None:
    server = Server(dsn)
    server.open()
    assert server._connection is not None
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), server.reading():
        server._connection.execute("CREATE TABLE written ()")
    with server.reading(), server._connection.cursor() as cursor:
        assert cursor.execute("SELECT current_setting('lock_timeout') AS lock").fetchone() == {"lock": "200ms"}
    server.close()


def test_every_query_begins_with_its_purpose_and_is_marked() -> None:
    for path in QUERIES.glob("*.sql"):
        purpose, first, *_ = path.read_text().splitlines()
        assert purpose.startswith("-- "), path.name
        assert purpose.endswith("."), path.name
        assert MARK in first, path.name


def test_a_role_without_rights_is_told_what_is_hidden(dsn: str, version: int) -> None:
    lowly = as_role(dsn, "lowly", "GRANT SELECT ON child TO lowly")
    run(lowly, "SELECT count(*) FROM child")
    with watched(lowly) as (source, kept):
        until(lambda: source.counters["looks"] > 8)
    assert source.counters["errors"] == 0
    assert any('GRANT pg_monitor TO "lowly"' in title for title in kept.events)
    assert kept.statement("count(*) FROM child")["calls"] == 1
    hidden = [row for row in kept["statements"] if "queryid" not in row]
    assert hidden[-1]["calls"] > 20
    assert not [row for row in kept["statements"] if "queryid" in row and row["role"] != "lowly"]
    server = next(iter(kept.objects("server").values()))
    assert (server["sees_all"], server["is_superuser"]) == (False, False)
    assert kept.objects("table")["public.parent"]["inserted"] == 5000
    found = Postgres(kept.emit, lowly).probe()
    assert found.works
    assert "hidden" in found.found
    assert "pg_monitor" in found.needs


def test_pg_monitor_is_enough(dsn: str) -> None:
    monitor = as_role(dsn, "watcher", "GRANT pg_monitor TO watcher")
    with psycopg.connect(dsn) as other, watched(monitor) as (source, kept):
        other.execute("SELECT 'theirs', 1")
        until(lambda: any(row.get("query") == "SELECT ?, ?" for row in kept["activity"]))
    assert source.counters["errors"] == 0
    assert kept.events == []
    assert kept.statement("FROM child WHERE")["role"] == "postgres"
    assert sum(row["calls"] for row in kept["statements"] if "queryid" not in row) == 0


def test_who_waits_for_whom_is_seen(dsn: str) -> None:
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn) as waiter, watched(dsn) as (_, kept):
        holder.execute("LOCK TABLE fast IN ACCESS EXCLUSIVE MODE")
        waiter.execute("SET lock_timeout = '20s'")
        pids = waiter.info.backend_pid, [holder.info.backend_pid]
        asking = Thread(target=lambda: waiter.execute("SELECT * FROM fast"))
        asking.start()
        until(lambda: any(row.get("blocked_by") for row in kept["activity"]))
        until(lambda: "public.fast" in kept.objects("table"))
        holder.rollback()
        asking.join(20)
    row = next(row for row in kept["activity"] if row.get("blocked_by"))
    assert (row["pid"], row["blocked_by"]) == pids
    assert (row["lock_mode"], row["lock_on"]) == ("AccessShareLock", "public.fast")


def test_a_database_without_the_extension_is_watched_all_the_same(dsn: str) -> None:
    run(dsn, "CREATE DATABASE plain")
    plain = make_conninfo(dsn, dbname="plain")
    with watched(plain) as (source, kept):
        until(lambda: source.counters["looks"] > 6)
    assert not kept["statements"]
    assert kept["samples"]
    assert any("CREATE EXTENSION pg_stat_statements" in title for title in kept.events)
    told = next(iter(kept.objects("server").values()))["statements_missing"]
    assert told == "not created: CREATE EXTENSION pg_stat_statements in database plain"
    assert source.counters["errors"] == 0


def test_counters_that_are_reset_are_told(dsn: str) -> None:
    with watched(dsn) as (source, kept):
        until(lambda: source.counters["looks"] > 4)
        run(dsn, "SELECT pg_stat_statements_reset()")
        until(lambda: any("reset" in title for title in kept.events))
        run(dsn, "SELECT body FROM child WHERE parent_id = 1 AND body <> 'x'")
    assert kept.events.count("postgres: the counters of statements were reset") == 1
    assert kept.statement("FROM child WHERE")["calls"] == 1
    assert conninfo_to_dict(dsn)["password"] not in str(kept.tables)
