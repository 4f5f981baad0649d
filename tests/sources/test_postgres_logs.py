"""Logs of a server in its three formats: what is read of them, what is left out, and that no value is kept."""

import csv
import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from builders import START
from hypothesis import given
from hypothesis import strategies as st
from servers import running

from perfnb.errors import WrongUse
from perfnb.importing import Imported, import_files
from perfnb.plans import plan_of
from perfnb.recording import Recording
from perfnb.sources.postgres_logs import Entry, Messages, NotRead, format_of
from perfnb.sources.postgres_logs.entries import moment
from perfnb.sources.postgres_logs.prefix import prefix_of

AT = "2026-11-21 10:00:03.250"
NOON = round(datetime(2026, 11, 21, 10, 0, 3, 250_000, tzinfo=UTC).timestamp() * 1000) * 1_000_000
ROWS: Any = {"time": NOON, "level": "LOG"}


def entry(message: str, **more: Any) -> Entry:
    return Entry(**{"time": START, "level": "LOG", "message": message, "pid": 7, "database": "desk", **more})


def rows(*entries: Entry) -> dict[str, list[dict[str, Any]]]:
    messages, made = Messages(), {}  # type: ignore[var-annotated]
    for each in entries:
        for table, row in messages.rows(each):
            made.setdefault(table, []).append(row)
    for table, row in messages.left():
        made.setdefault(table, []).append(row)
    return made


@pytest.mark.parametrize(
    ("message", "statement", "name", "operation"),
    [
        ("duration: 12.5 ms  statement: SELECT *\nFROM t WHERE a = 'secret'", "SELECT * FROM t WHERE a = ?", "SELECT", "database"),
        ("duration: 12.5 ms  execute <unnamed>: UPDATE t SET a = $1", "UPDATE t SET a = $1", "UPDATE", "database"),
        ("duration: 12.5 ms  execute fetch from S_1/C_2: SELECT 1", "SELECT ?", "SELECT", "database"),
        ("duration: 12.5 ms  parse <unnamed>: SELECT 1", "SELECT ?", "parse SELECT", "step"),
        ("duration: 12.5 ms  bind S_1: SELECT 1", "SELECT ?", "bind SELECT", "step"),
    ],
)  # fmt: skip
def test_durations(message: str, statement: str, name: str, operation: str) -> None:
    (span,) = rows(entry(message, user="app"))["spans"]
    assert (span["statement"], span["name"], span["operation"]) == (statement, name, operation)
    assert (span["duration_ms"], span["start_time"]) == (12.5, START - 12_500_000)
    assert (span["source"], span["service"], span["attributes"]) == ("logs", "desk", {"pid": 7, "user": "app"})


def test_a_duration_of_a_statement_that_was_told_before() -> None:
    told = rows(
        entry("statement: SELECT 1", pid=1), entry("execute <unnamed>: SELECT a FROM b", pid=2),
        entry("duration: 3.000 ms", pid=1), entry("duration: 4.000 ms", pid=2), entry("duration: 5.000 ms", pid=1),
    )  # fmt: skip
    assert [(row["statement"], row["duration_ms"]) for row in told["spans"]] == [
        ("SELECT ?", 3),
        ("SELECT a FROM b", 4),
    ]


PLAN = "Query Text: SELECT * FROM t WHERE a = 'secret'\nSeq Scan on t  (cost=0.00..9.00 rows=1 width=4) (actual time=0.1..4.0 rows=9 loops=1)\n  Filter: (a = 'secret'::text)"
DOCUMENT = json.dumps({"Query Text": "SELECT * FROM t WHERE a = 'secret'", "Plan": {"Node Type": "Seq Scan", "Relation Name": "t", "Filter": "(a = 'secret'::text)", "Plan Rows": 1}})  # fmt: skip


@pytest.mark.parametrize("plan", [PLAN, DOCUMENT], ids=["text", "json"])
def test_plans_of_auto_explain(plan: str) -> None:
    made = rows(entry(f"duration: 4.2 ms  plan:\n{plan}", queryid="17"))
    (row,) = made["plans"]
    assert (row["origin"], row["duration_ms"], row["queryid"]) == ("log", 4.2, "17")
    assert row["query"] == "SELECT * FROM t WHERE a = ?"
    assert plan_of(row["plan"]).root.filter == "(a = ?::text)"
    assert "secret" not in str(made)


def test_a_statement_with_plan_and_duration_is_one_span() -> None:
    plan = entry(f"duration: 4.2 ms  plan:\n{PLAN}")
    alone = rows(plan)["spans"]
    both = rows(plan, entry("duration: 4.3 ms  statement: SELECT * FROM t WHERE a = 'other'"))["spans"]
    apart = rows(plan, entry("duration: 9.0 ms  statement: SELECT 1"))["spans"]
    assert [row["duration_ms"] for row in alone] == [4.2]
    assert [row["duration_ms"] for row in both] == [4.3]
    assert [row["duration_ms"] for row in apart] == [4.2, 9.0]


def test_a_plan_that_can_t_be_read_is_told() -> None:
    with pytest.raises(WrongUse, match="no plan"):
        rows(entry("duration: 4.2 ms  plan:\n???"))


WAITING = "process 9 still waiting for ShareLock on transaction 777 after 1000.123 ms"


def test_waits_for_locks() -> None:
    (row,) = rows(entry(WAITING, detail="Process holding the lock: 8. Wait queue: 9, 10.", statement="UPDATE t SET a = 'secret'"))["samples"]  # fmt: skip
    assert (row["metric"], row["value"], row["unit"], row["entity"]) == (
        "lock_wait_ms",
        1000.123,
        "ms",
        "database desk",
    )
    assert row["attributes"] == {
        "pid": 7, "outcome": "waiting", "mode": "ShareLock", "on": "transaction 777", "waiting_pid": 9, "holders": [8],
        "statement": "UPDATE t SET a = ?",
    }  # fmt: skip
    (row,) = rows(entry("process 9 acquired AccessExclusiveLock on relation 5 of database 6 after 5000.5 ms"))[
        "samples"
    ]
    assert (row["attributes"]["outcome"], row["attributes"]["on"]) == ("acquired", "relation 5 of database 6")


@pytest.mark.parametrize(
    ("message", "metric", "value", "entity"),
    [
        ('temporary file: path "base/pgsql_tmp/pgsql_tmp7.0", size 1234567', "temp_file_bytes", 1234567, "database desk"),
        ('automatic vacuum of table "desk.public.t": index scans: 0\nsystem usage: CPU: user: 0.00 s, system: 0.00 s, elapsed: 0.25 s', "autovacuum_ms", 250, "table public.t"),
        ('automatic analyze of table "desk.public.t" system usage: CPU: user: 0.01 s, system: 0.00 s, elapsed: 1.50 s', "autoanalyze_ms", 1500, "table public.t"),
        ("checkpoint complete: wrote 44 buffers (0.3%); write=4.2 s, sync=0.01 s, total=4.3 s; sync files=11", "checkpoint_ms", 4300, "server"),
    ],
)  # fmt: skip
def test_numbers(message: str, metric: str, value: float, entity: str) -> None:
    samples = rows(entry(message))["samples"]
    assert {"metric": metric, "value": value, "entity": entity}.items() <= samples[-1].items()


def test_what_is_alarming_is_on_the_timeline() -> None:
    (event,) = rows(entry("deadlock detected", level="ERROR", statement="UPDATE t SET a = 'secret'"))["events"]
    assert event["kind"] == "alert"
    assert event["body"]["statement"] == "UPDATE t SET a = ?"
    assert rows(entry('relation "nowhere" does not exist', level="ERROR")) == {}


PREFIXES = {
    "%m [%p] ": f"{AT} UTC [7] ",
    "%m [%p] %q%u@%d ": f"{AT} UTC [7] app@desk ",
    "%t [%p]: [%l-1] user=%u,db=%d,app=%a,client=%h ": "2026-11-21 10:00:03 UTC [7]: [5-1] user=app,db=desk,app=my app,client=10.0.0.1 ",
    "%t:%r:%u@%d:[%p]:": "2026-11-21 10:00:03 UTC:10.0.0.1(5432):app@desk:[7]:",
    "%m [%p]: [%l-1] db=%d,user=%u ": f"{AT} UTC [7]: [5-1] db=desk,user=app ",
    "< %m %u@%d pid=%p > ": f"< {AT} UTC app@desk pid=7 > ",
    "%n [%p] ": "1795255203.250 [7] ",
}


@pytest.mark.parametrize("setting", PREFIXES)
@pytest.mark.parametrize("is_known", [True, False])
def test_prefixes(setting: str, is_known: bool) -> None:
    line = PREFIXES[setting] + "LOG:  duration: 1.5 ms  statement: SELECT 1"
    found = format_of([line], setting if is_known else "")
    assert found is not None
    ((_, each),) = found.entries([line], None)
    assert isinstance(each, Entry)
    assert (each.pid, each.message) == (7, "duration: 1.5 ms  statement: SELECT 1")
    assert each.time // 10**9 == NOON // 10**9
    assert not each.user or (each.user, each.database) == ("app", "desk")


def test_a_setting_tells_what_no_look_can() -> None:
    prefix = prefix_of("%Q|%e|%-8p|%c|%a|%% %m ")
    line = prefix.line(f"-12|00000|7       |65f0.1b|my: app|% {AT} CET LOG:  hello")
    assert line is not None
    assert {"queryid": "-12", "pid": "7", "application": "my: app", "time": f"{AT} CET"} == line.told


def test_processes_that_write_in_turn() -> None:
    lines = [
        f"{AT} UTC [1] LOG:  duration: 1 ms  statement: SELECT 1", "\tFROM a",
        f"{AT} UTC [2] LOG:  {WAITING}",
        f"{AT} UTC [1] DETAIL:  of one",
        f"{AT} UTC [2] DETAIL:  Process holding the lock: 8.", f"{AT} UTC [2] STATEMENT:  UPDATE t", "\tSET a = 1",
    ]  # fmt: skip
    found = format_of(lines)
    assert found is not None
    first, second = (each for _, each in found.entries(lines, None))
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    assert (first.message.splitlines()[-1], first.detail) == ("FROM a", "of one")
    assert (second.detail, second.statement) == ("Process holding the lock: 8.", "UPDATE t\nSET a = 1")


def test_docker_compose_writes_a_name_before_each_line() -> None:
    lines = [f"db-1  | {AT} UTC [1] LOG:  duration: 1 ms  statement: SELECT 1", "db-1  | \tFROM a"]
    found = format_of(lines)
    assert found is not None
    ((_, each),) = found.entries(lines, None)
    assert isinstance(each, Entry)
    assert each.message.endswith("SELECT 1\nFROM a")


@pytest.mark.parametrize(
    ("text", "zone", "hours"),
    [
        (f"{AT} UTC", None, 0), (f"{AT} CET", None, 1), (f"{AT} EST", None, -5), (f"{AT} +03", None, 3),
        (f"{AT} -03:30", None, -3.5), (AT, None, 0), (f"{AT} XYZ", None, 0),
        (f"{AT} IST", ZoneInfo("Asia/Kolkata"), 5.5),
    ],
)  # fmt: skip
def test_times(text: str, zone: Any, hours: float) -> None:
    assert moment(text, zone) == NOON - round(hours * 3600 * 10**9)


@pytest.mark.parametrize("text", ["", "yesterday", "0000-00-00 00:00:00", "1960-01-01 00:00:00 UTC"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(NotRead):
        moment(text)


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-21 10:00:00,123 ERROR: it failed", "INFO:     Application startup complete.", '{"level": "info"}',
        "a,b,c", "main;work 12", "",
    ],
)  # fmt: skip
def test_logs_of_others(line: str) -> None:
    assert format_of([line] if line else []) is None


@given(st.lists(st.text(max_size=60), max_size=8))
def test_any_lines(lines: list[str]) -> None:
    given_ = [f"{AT} UTC [1] LOG:  start", *(line.replace("\n", " ") for line in lines)]
    found = format_of(given_)
    for _, each in found.entries(given_, None) if found else ():
        assert isinstance(each, Entry | NotRead)


def csv_line(message: str, columns: int = 26, **more: str) -> str:
    row = [""] * columns
    values = {0: f"{AT} UTC", 1: "app", 2: "desk", 3: "7", 11: "LOG", 13: message} | {
        int(at[1:]): v for at, v in more.items()
    }
    for at, value in values.items():
        row[at] = value
    written = io.StringIO()
    csv.writer(written).writerow(row)
    return written.getvalue().rstrip("\r\n")


@pytest.mark.parametrize("columns", [23, 24, 26])
def test_csvlog(columns: int) -> None:
    first_lines = csv_line('duration: 1.5 ms  statement: SELECT "a",\n 2', columns).split("\n")
    lines = [*first_lines, "rubbish", csv_line("x", columns)]
    found = format_of(lines)
    assert found is not None
    assert found.title == "csvlog"
    (_, first), (number, bad), (_, last) = found.entries(lines, None)
    assert isinstance(first, Entry)
    assert (first.time, first.pid, first.user, first.message[-3:]) == (NOON, 7, "app", "\n 2")
    assert (number, isinstance(bad, NotRead)) == (3, True)
    assert isinstance(last, Entry)


def test_jsonlog() -> None:
    given_ = {"timestamp": f"{AT} UTC", "user": "app", "dbname": "desk", "pid": 7, "error_severity": "LOG", "message": "m", "query_id": 12, "statement": "SELECT 1"}  # fmt: skip
    lines = [json.dumps(given_), "{", json.dumps({"a": 1})]
    found = format_of(lines[:1])
    assert found is not None
    assert found.title == "jsonlog"
    (_, first), *bad = found.entries(lines, None)
    assert first == Entry(NOON, "LOG", "m", 7, "app", "desk", queryid="12", statement="SELECT 1")
    assert [number for number, _ in bad] == [2, 3]


LOGGED = {
    "log_min_duration_statement": "0", "log_temp_files": "0", "log_lock_waits": "on", "deadlock_timeout": "50ms",
    "shared_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0", "auto_explain.log_analyze": "on",
    "logging_collector": "on", "log_directory": "log", "log_timezone": "Europe/Berlin",
}  # fmt: skip


@pytest.mark.parametrize(("version", "destination", "format_"), [(13, "csvlog", "text"), (18, "jsonlog", "json"), (18, "stderr", "text"), (15, "stderr", "yaml")])  # fmt: skip
def test_the_logs_of_real_servers(tmp_path: Path, version: int, destination: str, format_: str) -> None:
    settings = {**LOGGED, "log_destination": destination, "auto_explain.log_format": format_}
    with running(version, settings) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        began = time.time_ns()
        connection.execute("CREATE TABLE t AS SELECT i, 'planted secret' AS a FROM generate_series(1, 50000) i")
        connection.execute("SET work_mem = '64kB'")
        connection.execute("SELECT *\nFROM t\nWHERE a = 'planted secret' ORDER BY i DESC").fetchall()
        with psycopg.connect(dsn) as other:
            other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
            connection.execute("SET statement_timeout = '400ms'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("SELECT count(*) FROM t")
        folder = Path(connection.execute("SHOW data_directory").fetchone()[0]) / "log"  # type: ignore[index]
        ending = {"csvlog": ".csv", "jsonlog": ".json", "stderr": ".log"}[destination]
        (log,) = folder.glob(f"*{ending}")
        made = Recording.create(tmp_path / "x.perfnb")
        told = import_files(made, [log])
    assert f"log of Postgres ({destination})" in told.lines()[0]
    assert told.bad_lines == 0, told.lines()
    sort = made.query("SELECT * FROM spans WHERE statement LIKE 'SELECT * FROM t%' AND operation = 'database'")
    assert list(sort["statement"]) == ["SELECT * FROM t WHERE a = ? ORDER BY i DESC"]
    assert began - 2e9 < sort["start_time"].iloc[0] < time.time_ns()
    plan = made.query("SELECT * FROM plans WHERE query LIKE 'SELECT * FROM t%'").iloc[0]
    read = plan_of(json.loads(plan["plan"]))
    assert (read.root.type, read.root.rows_actual) == ("Sort", 50_000)
    metrics = set(made.query("SELECT DISTINCT metric FROM samples")["metric"])
    assert {"temp_file_bytes", "lock_wait_ms"} <= metrics
    assert "statement_timeout" in made.query("SELECT title FROM events")["title"].str.cat()
    for table in ("spans", "plans", "samples", "events"):
        assert "planted" not in made.query(f"SELECT * FROM {table}").to_string()


def imported(folder: Path, **files: str) -> tuple[Recording, Imported]:
    made = Recording.create(folder / "x.perfnb")
    paths = [folder / name.replace("__", ".") for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(text)
    return made, import_files(made, paths)


def test_bad_lines_are_counted_and_shown(tmp_path: Path) -> None:
    log = f"{AT} UTC [1] LOG:  duration: 1 ms  statement: SELECT 1\ncp: cannot stat 'x'\n{AT} UTC [1] LOG:  duration: 2 ms  plan:\n\t???\n"
    _, told = imported(tmp_path, pg__log=log)
    assert (told.bad_lines, told.rows["spans"]) == (2, 1)
    assert "pg.log:2: no line of a server's log" in "\n".join(told.lines())


def test_pasted_plans_are_recognised(tmp_path: Path) -> None:
    real = Path(__file__).parent.parent / "plans" / "real"
    made = Recording.create(tmp_path / "x.perfnb")
    files = sorted(real.iterdir())
    told = import_files(made, files)
    assert set(told.files.values()) == {"plans of statements"}
    assert told.rows["plans"] == len(files)
    kept = made.query("SELECT plan, origin FROM plans")
    assert set(kept["origin"]) == {"pasted"}
    assert all(plan_of(json.loads(text)).root.type for text in kept["plan"])
    assert "'open'" not in kept.to_string()


def test_the_server_s_own_settings_are_used(tmp_path: Path) -> None:
    made = Recording.create(tmp_path / "x.perfnb")
    settings = {"log_line_prefix": "%Q %m [%p] ", "log_timezone": "Asia/Kolkata"}
    with made.writer() as writer:
        writer.write("catalog", [{"time": START, "server": "s", "kind": "setting", "name": name, "properties": {"value": value}} for name, value in settings.items()])  # fmt: skip
    (tmp_path / "pg.log").write_text(f"42 {AT} IST [7] LOG:  duration: 0.0 ms  statement: SELECT 1\n")
    import_files(made, [tmp_path / "pg.log"])
    span = made.query("SELECT start_time, attributes FROM spans").iloc[0]
    assert span["start_time"] == NOON - round(5.5 * 3600 * 10**9)
    assert json.loads(span["attributes"])["queryid"] == "42"
