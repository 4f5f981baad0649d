"""Statistics that are old, estimates that are off, and sorts that go to disk."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from builders import MS, START, Row, answer
from servers import postgres_18
from statement_rows import Counted, counted, snapshots
from table_rows import columns, server, settings, table

from perfnb.checklist import checks
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.sources.postgres.explain import explain
from perfnb.sources.postgres.source import Intervals, Postgres

SEARCH = "SELECT id, subject FROM tickets WHERE status = $1 AND opened > $2"
LOOKUP = "SELECT name FROM customers WHERE id = $1"
OTHER = counted(LOOKUP, calls=60, ms=2)
SLOW = counted(SEARCH, calls=40, ms=50)


def said(folder: Path, *catalog: list[Row], statements: tuple[Counted, ...] = (SLOW, OTHER), **tables: Any) -> Any:
    rows = [row for part in (server(), *catalog) for row in part]
    return answer(folder, "stale-statistics", catalog=rows, statements=snapshots(*statements), **tables)


def tickets(**facts: Any) -> list[Row]:
    """Return a table that was analyzed when it was made and changed wholly since, autovacuum off for it."""
    old = {"analyzes": 1, "last_analyze_at": START - 10**15, "modified_since_analyze": 200_000}
    return table("public.tickets", **({"options": {"autovacuum_enabled": "false"}} | old | facts))


NEVER = {"analyzes": 0, "autoanalyzes": 0, "last_analyze_at": None}
ON = {"options": {}}


@pytest.mark.parametrize(
    ("facts", "is_found"),
    [
        ({}, True),
        ({"modified_since_analyze": 100_000}, True),  # half of it
        ({"modified_since_analyze": 99_999}, False),
        ({"live_rows": 900, "rows_estimated": 900.0, "modified_since_analyze": 900}, False),  # too small to matter
        (NEVER, True),
        (ON, False),  # autovacuum will come within its naptime
        ({**NEVER, **ON}, False),
        ({**ON, "options": {"autovacuum_analyze_scale_factor": "2"}}, True),  # and this one it never comes to
        ({"persistence": "temporary"}, False),
        ({"relation": "partitioned table"}, False),
        ({"modified_since_analyze": 0}, False),  # ANALYZE was just run
    ],
)
def test_a_table_that_changed(tmp_path: Path, facts: Row, is_found: bool) -> None:
    assert isinstance(said(tmp_path, tickets(**facts)), Finding) is is_found


def test_what_is_told_of_it(tmp_path: Path) -> None:
    found = said(tmp_path, tickets())
    assert found.title == "Statistics are old: public.tickets (200,000 rows) changed by 100% since its last ANALYZE"
    assert found.share == pytest.approx(40 * 50 / (40 * 50 + 60 * 2))
    assert "autovacuum does not analyze it" in found.evidence[0]
    assert "up to 94% of the database's time" in found.evidence[1]
    assert found.remedy.startswith('ANALYZE "public"."tickets";')
    assert found.symptom == "database time"


def test_what_was_loaded_just_before_analyze_is_no_change(tmp_path: Path) -> None:
    """The server counts it after the ANALYZE; the table's file shows that it did not grow since."""
    loaded = {"modified_since_analyze": 200_000, "heap_bytes": 1000 * 8192, "rows_estimated": 200_000.0}
    assert isinstance(said(tmp_path, tickets(**loaded, pages=1000)), Clear)
    assert isinstance(said(tmp_path / "b", tickets(**loaded, pages=400)), Finding)
    assert isinstance(said(tmp_path / "c", tickets(**loaded, pages=1000, updated=150_000)), Finding)


def test_autovacuum_off_altogether(tmp_path: Path) -> None:
    assert isinstance(said(tmp_path, tickets(**ON), settings(autovacuum="off")), Finding)


def test_a_table_that_autovacuum_passed_over(tmp_path: Path) -> None:
    """Two looks 20 s apart; with a naptime of 10 s it has had its two rounds."""
    found = said(tmp_path, tickets(**ON), settings(autovacuum_naptime="10"))
    assert "autovacuum analyzes it at 20,050 changes" in found.evidence[0]
    assert isinstance(said(tmp_path / "b", tickets(**ON), settings(autovacuum_naptime="11")), Clear)


def test_statistics_that_are_there_though_no_analyze_was_counted(tmp_path: Path) -> None:
    """Counters are lost in a crash, statistics of columns are not."""
    known = columns("public.tickets", status={"distinct": 2.0})
    facts = {**NEVER, "modified_since_analyze": 10}
    assert isinstance(said(tmp_path, tickets(**facts), known), Clear)
    assert isinstance(said(tmp_path / "b", tickets(**facts)), Finding)


@pytest.mark.parametrize(
    "statements",
    [
        (OTHER,),  # nothing reads it
        (counted(SEARCH, calls=2, ms=5), OTHER),  # hardly
        (counted(SEARCH, calls=4000, ms=0.4), OTHER),  # no bad plan takes so little
        (counted("INSERT INTO tickets (id) VALUES ($1)", calls=100, ms=50), OTHER),
        (),
    ],
)
def test_a_table_whose_statistics_hurt_nobody(tmp_path: Path, statements: tuple[Counted, ...]) -> None:
    assert isinstance(said(tmp_path, tickets(), statements=statements), Clear)


def scan(expected: float, came: float, **fields: Any) -> Row:
    node = {"Node Type": "Seq Scan", "Relation Name": "tickets", "Alias": "tickets", "Plan Rows": expected}
    return node | {"Actual Rows": came, "Actual Loops": 1, "Actual Total Time": 49.0, "Filter": "(status = ?)"} | fields


def planned(node: Row, *, origin: str = "log", query: str = SEARCH, ms: float | None = 50) -> Row:
    plan = {"Plan": node}
    return {"time": START + 5 * MS, "query": query, "origin": origin, "plan": plan, "duration_ms": ms}


FRESH = {"modified_since_analyze": 5000}


@pytest.mark.parametrize(
    ("plan", "is_found"),
    [
        (planned(scan(10, 50_000)), True),
        (planned(scan(50_000, 10)), True),
        (planned(scan(5_000, 50_000)), True),  # ten times
        (planned(scan(5_001, 50_000)), False),
        (planned(scan(10, 900)), False),
        (planned(scan(10, 50_000), query=LOOKUP), False),  # takes 6 % of the time
        (planned({"Node Type": "Hash Join", "Plan Rows": 1, "Actual Rows": 50_000, "Actual Loops": 1}), False),
        (planned({"Node Type": "Limit", "Plan Rows": 9, "Actual Rows": 9, "Actual Loops": 1, "Plans": [scan(50_000, 9)]}), False),
    ],
)  # fmt: skip
def test_an_executed_plan(tmp_path: Path, plan: Row, is_found: bool) -> None:
    assert isinstance(said(tmp_path, tickets(**FRESH), plans=[plan]), Finding) is is_found


def test_analyze_is_not_advised_where_it_was_just_run(tmp_path: Path) -> None:
    plan = planned(scan(10, 50_000))
    fresh = said(tmp_path, tickets(**FRESH), plans=[plan])
    assert "CREATE STATISTICS" in fresh.remedy
    assert not fresh.remedy.startswith("ANALYZE")
    assert "5,000 changes in 200,000 rows" in " ".join(fresh.evidence)
    assert said(tmp_path / "b", tickets(), plans=[plan]).remedy.startswith('ANALYZE "tickets";')


def test_plans_alone(tmp_path: Path) -> None:
    found = answer(tmp_path, "stale-statistics", plans=[planned(scan(10, 50_000), origin="pasted")])
    assert isinstance(found, Finding)
    assert (found.share, found.severity) == (1.0, "critical")
    assert "5,000 times more" in found.evidence[0]
    quiet = answer(tmp_path / "b", "stale-statistics", plans=[planned(scan(50_000, 50_000))])
    assert isinstance(quiet, Clear)
    assert "0 of 1 executed plans" in quiet.examined


def test_a_generic_plan_that_expects_other_rows_is_evidence(tmp_path: Path) -> None:
    generic = {"Node Type": "Seq Scan", "Relation Name": "tickets", "Plan Rows": 10}
    plan = planned(generic, origin="generic", ms=None) | {"queryid": "1000"}
    found = said(tmp_path, tickets(), statements=(counted(SEARCH, calls=40, ms=50, rows=8000), OTHER), plans=[plan])
    assert "its plan for any value expects 10 rows, a call gives 8,000" in found.evidence
    assert found.severity == "high"


def test_nothing_to_judge_by(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="executed plans"):
        answer(tmp_path, "stale-statistics", statements=snapshots(SLOW))


REPORT = "SELECT * FROM tickets ORDER BY subject"


def spilling(mib: float, **more: Any) -> Counted:
    return counted(REPORT, **({"calls": 40, "ms": 80, "temp_blocks_written": mib * 128} | more))


def of_spill(folder: Path, *statements: Counted, **tables: Any) -> Finding | Clear:
    return answer(folder, "sort-spill", statements=snapshots(*statements, OTHER), **tables)


@pytest.mark.parametrize(
    ("statement", "is_found"),
    [
        (spilling(25), True),
        (spilling(1), True),
        (spilling(0.9), False),
        (spilling(25, calls=1), False),  # someone's report
        (spilling(25, calls=2, ms=2), False),  # 3 % of the time
        (counted("CREATE INDEX ON tickets (subject)", calls=5, ms=900, temp_blocks_written=9999.0), False),
        (spilling(0), False),
    ],
)
def test_sort_spill(tmp_path: Path, statement: Counted, is_found: bool) -> None:
    assert isinstance(of_spill(tmp_path, statement), Finding) is is_found


def work_mem(kilobytes: int) -> list[Row]:
    rows = settings(work_mem=str(kilobytes))
    return [row | {"properties": row["properties"] | {"unit": "kB"}} for row in rows]


def test_what_is_told_of_a_spill(tmp_path: Path) -> None:
    found = of_spill(tmp_path, spilling(25), catalog=work_mem(4096))
    assert isinstance(found, Finding)
    assert "25 MiB to temporary files a call" in found.title
    assert found.share == pytest.approx(3200 / 3320)
    assert "work_mem is 4.0 MiB; about 25 MiB to 100 MiB would keep it in memory" in found.evidence
    assert "ALTER ROLE \"app\" SET work_mem = '128MB'" in found.remedy
    assert found.severity == "high"


def test_a_plan_tells_better_what_it_takes(tmp_path: Path) -> None:
    sort = {"Node Type": "Sort", "Sort Method": "external merge", "Sort Space Type": "Disk", "Sort Space Used": 10240}
    found = of_spill(tmp_path, spilling(25), plans=[planned(sort, query=REPORT)], catalog=work_mem(4096))
    assert isinstance(found, Finding)
    assert "about 21 MiB to 42 MiB" in found.evidence[1]


def test_what_no_memory_holds(tmp_path: Path) -> None:
    found = of_spill(tmp_path, spilling(3000))
    assert isinstance(found, Finding)
    assert found.remedy.startswith("No work_mem")
    assert "not known" in found.evidence[1]


def test_clear_tells_what_was_looked_at(tmp_path: Path) -> None:
    clear = of_spill(tmp_path, spilling(0))
    assert isinstance(clear, Clear)
    assert clear.examined.startswith("0 of 1 statements")


def test_a_log_tells_of_temporary_files_too(tmp_path: Path) -> None:
    ran = {"operation": "database", "statement": REPORT, "source": "logs", "kind": "INTERNAL", "name": "SELECT"}
    spans = [ran | {"start_time": START + n * 10**9, "duration_ms": 80.0, "status": "OK"} for n in range(10)]
    file = {"source": "postgres_logs", "entity": "database desk", "metric": "temp_file_bytes", "value": 25.0 * 2**20}
    files = [file | {"time": START + n * 10**9, "attributes": {"statement": REPORT}} for n in range(10)]
    found = answer(tmp_path, "sort-spill", spans=spans, samples=files)
    assert isinstance(found, Finding)
    assert "25 MiB" in found.title
    with pytest.raises(NotMeasured, match="not counted"):
        answer(tmp_path / "b", "sort-spill", spans=spans)


TABLES = """
CREATE EXTENSION pg_stat_statements;
CREATE TABLE tickets (id bigint, status text, subject text) WITH (autovacuum_enabled = false);
CREATE TABLE customers (id bigint PRIMARY KEY, name text);
INSERT INTO tickets SELECT i, 'open', md5(i::text) FROM generate_series(1, 20) i;
ANALYZE tickets;
INSERT INTO tickets SELECT i, CASE WHEN i % 3 = 0 THEN 'open' ELSE 'closed' END, md5(i::text) FROM generate_series(21, 60000) i;
INSERT INTO customers SELECT i, 'c' || i FROM generate_series(1, 20000) i;
VACUUM ANALYZE customers;
"""
PRELOADED = {"shared_preload_libraries": "pg_stat_statements"}


def judged(recording: Recording, folder: Path, cause: str) -> Finding | Clear:
    one = next(each for each in checks("database") if each.cause == cause)
    return one.function(recording, Objectives.load(folder))


@pytest.mark.parametrize("is_healthy", [True, False])
def test_staged_on_a_server(tmp_path: Path, is_healthy: bool) -> None:
    made = Recording.create(tmp_path / "staged.perfnb")
    with postgres_18(PRELOADED) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        for text in filter(str.strip, TABLES.split(";\n")):
            connection.execute(text)  # type: ignore[call-overload]
        connection.execute("ANALYZE tickets" if is_healthy else "SELECT pg_stat_force_next_flush()")
        connection.execute("SET work_mem = '64MB'" if is_healthy else "SET work_mem = '256kB'")
        often = Intervals(activity_s=60, samples_s=60, statements_s=0.5, catalog_s=0.5)
        with made.writer() as writer, Postgres(writer.write, dsn, intervals=often):
            for number in range(12):
                connection.execute("SELECT * FROM tickets WHERE status = 'open' ORDER BY subject").fetchall()
                connection.execute("SELECT name FROM customers WHERE id = %s", [number]).fetchall()
            if not is_healthy:
                row = explain(connection, "SELECT id FROM tickets WHERE status = 'closed'", analyze=True)
                assert row["origin"] == "analyze"
    stale, spill = judged(made, tmp_path, "stale-statistics"), judged(made, tmp_path, "sort-spill")
    assert isinstance(stale, Clear) is is_healthy
    assert isinstance(spill, Clear) is is_healthy
    if isinstance(stale, Finding):
        assert "public.tickets" in stale.title
        assert stale.share > 0.8
