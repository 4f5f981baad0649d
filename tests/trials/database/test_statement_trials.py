"""Settings and indexes tried on one statement of a real server: what they find, what they leave, what they refuse."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from servers import postgres_18, running, standby_of, through_pgbouncer, with_hypopg

from perfnb.attribution.observed import trial_windows
from perfnb.errors import NotInstalled, NotMeasured, NotPermitted, PerfnbError, WrongUse
from perfnb.knobs import changing
from perfnb.knobs.postgres import ConcurrentIndex, RoleSetting, connect
from perfnb.recording import Recording
from perfnb.trials.database import (
    Limits,
    NotConfirmed,
    Statement,
    try_hypothetical_index,
    try_index,
    try_settings,
    with_values,
)
from perfnb.trials.shown import plans_of, result_piece, trials_of

BY_CUSTOMER = "SELECT id FROM orders WHERE customer = $1"
INDEX = "CREATE INDEX ON orders (customer)"
SEARCH = "SELECT id FROM documents WHERE tenant = $1 ORDER BY embedding <-> $2 LIMIT $3"
SORT = "SELECT note, count(*) FROM orders GROUP BY note ORDER BY note"
ROWS = 60_000

TABLES = f"""
CREATE TABLE orders AS SELECT i AS id, i % 1000 AS customer, 'planted ' || md5(i::text) AS note, i AS amount
FROM generate_series(1, {ROWS}) i;
ANALYZE orders;
"""
VECTORS = """
CREATE EXTENSION vector;
CREATE TABLE documents AS SELECT i AS id, i % 200 AS tenant, ARRAY[sin(i), cos(i * 7), sin(i * 13)]::vector(3) AS embedding
FROM generate_series(1, 6000) i;
CREATE INDEX ON documents USING hnsw (embedding vector_l2_ops);
ANALYZE documents;
"""


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with postgres_18() as made:
        ask(made, TABLES)
        ask(made, VECTORS)
        ask(made, "CREATE ROLE reader LOGIN PASSWORD 'x'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        yield made


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    with Recording.create(tmp_path / "r.perfnb") as made:
        yield made


def ask(dsn: str, query: str, *parameters: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query, parameters or None)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def catalog(dsn: str) -> list[Any]:
    return ask(dsn, "SELECT relname, relfilenode FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1")


def sampled(dsn: str, text: str) -> Statement:
    with connect(dsn) as connection:
        return with_values(connection, text)


def given(dsn: str, text: str, *values: Any) -> Statement:
    with connect(dsn) as connection:
        return with_values(connection, text, values)


def yes(cost: Any) -> bool:
    return True


def written(recording: Recording) -> str:
    return "".join(path.read_text(errors="replace") for path in recording.path.rglob("*.jsonl"))


def test_an_index_is_measured_and_nothing_of_it_remains(dsn: str, recording: Recording) -> None:
    before, costs = catalog(dsn), []
    made = try_index(recording, dsn, sampled(dsn, BY_CUSTOMER), INDEX, confirm=lambda cost: not costs.append(cost))
    result = made.result
    assert (made.verdict, result.mode, result.was_undone) == ("better", "rolled back", True)
    assert result["statement_ms"].ratio < 0.5
    assert result["statement_blocks"].b < result["statement_blocks"].a / 4
    assert any("instead of Seq Scan" in note for note in result.notes)
    assert any("nothing of it remains" in note for note in result.notes)
    assert costs[0].index_bytes > 8192
    assert catalog(dsn) == before
    assert list(made.frame["arm"]) == ["A"] * 6 + ["B"] * 6 + ["A"] * 6
    assert trials_of(recording) == [result]
    assert set(trial_windows(recording)) == {result.trial}
    shown = result_piece(result)
    assert "orders is read by" in shown.html
    assert "pnb-compared" in shown.html
    assert plans_of(result) is not None


def test_no_value_of_the_tables_gets_onto_the_timeline(dsn: str, recording: Recording) -> None:
    statement = sampled(dsn, "SELECT id FROM orders WHERE note = $1 AND note <> 'planted literal'")
    assert statement.values[0][0].startswith("planted ")
    try_index(recording, dsn, statement, "CREATE INDEX ON orders (note) WHERE note <> 'planted literal'", confirm=yes)
    try_settings(recording, dsn, statement, {"random_page_cost": 1.1})
    assert "Index Scan" in written(recording)
    assert "planted" not in written(recording)


def test_an_index_the_planner_does_not_take_is_no_change(dsn: str, recording: Recording) -> None:
    made = try_index(
        recording, dsn, Statement("SELECT sum(amount) FROM orders"), "CREATE INDEX ON orders (note)", confirm=yes
    )
    assert made.verdict in ("no practical change", "undecided")
    assert "the planner does not take the index for this statement" in made.result.notes


def test_without_a_yes_nothing_is_done(dsn: str, recording: Recording) -> None:
    before = catalog(dsn)
    with pytest.raises(NotConfirmed, match="nothing was done"):
        try_index(recording, dsn, sampled(dsn, BY_CUSTOMER), INDEX, confirm=lambda cost: False)
    assert (catalog(dsn), trials_of(recording)) == (before, [])


def test_writers_that_hold_the_table_end_the_trial(dsn: str, recording: Recording) -> None:
    statement, before = sampled(dsn, BY_CUSTOMER), catalog(dsn)
    with psycopg.connect(dsn) as writer:
        writer.execute("UPDATE orders SET amount = 0 WHERE id = 1")
        made = try_index(recording, dsn, statement, INDEX, confirm=yes, limits=Limits(lock_timeout_s=0.3))
        assert made.verdict == "aborted"
        assert "held the lock" in made.result.why
        writer.rollback()
    assert catalog(dsn) == before


def test_what_older_transactions_still_see_keeps_the_index_from_being_judged(dsn: str, recording: Recording) -> None:
    ask(
        dsn,
        "CREATE TABLE hot (id int, at int) WITH (fillfactor = 50); INSERT INTO hot SELECT i, i FROM generate_series(1, 3000) i",
    )
    with psycopg.connect(dsn) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM hot")
        ask(dsn, "UPDATE hot SET at = at + 1 WHERE id < 100")
        statement = given(dsn, "SELECT * FROM hot WHERE at = $1", 50)
        made = try_index(recording, dsn, statement, "CREATE INDEX ON hot (at)", confirm=yes)
    assert made.verdict == "undecided"
    assert "older transactions still see them" in made.result.why


@pytest.mark.parametrize(
    ("definition", "limits", "why"),
    [
        (INDEX, Limits(table_bytes=1000), "more than the 1000 B"),
        (INDEX, Limits(locked_s=0), "hold up writes for longer"),
        ("CREATE INDEX ON pieces (id)", Limits(), "partitioned table"),
        ("CREATE INDEX ON far (id)", Limits(), "foreign table"),
        ("CREATE INDEX ON orders (id); DROP TABLE orders", Limits(), "multiple commands"),
    ],
)
def test_an_index_that_can_not_be_tried_is_refused(
    dsn: str, recording: Recording, definition: str, limits: Limits, why: str
) -> None:
    ask(
        dsn,
        "CREATE TABLE IF NOT EXISTS pieces (id int) PARTITION BY RANGE (id); CREATE EXTENSION IF NOT EXISTS file_fdw; "
        "CREATE SERVER IF NOT EXISTS files FOREIGN DATA WRAPPER file_fdw; "
        "CREATE FOREIGN TABLE IF NOT EXISTS far (id int) SERVER files OPTIONS (filename '/dev/null')",
    )
    before = catalog(dsn)
    with pytest.raises(WrongUse, match=why):
        try_index(recording, dsn, sampled(dsn, BY_CUSTOMER), definition, confirm=yes, limits=limits)
    assert (catalog(dsn), trials_of(recording)) == (before, [])


def test_only_the_owner_tries_an_index_and_a_reader_tries_settings(dsn: str, recording: Recording) -> None:
    mine = make_conninfo(dsn, user="reader", password="x")
    with pytest.raises(NotPermitted, match="only postgres may index"):
        try_index(recording, mine, sampled(mine, BY_CUSTOMER), INDEX, confirm=yes)
    assert try_settings(recording, mine, sampled(mine, SORT), {"work_mem": "32MB"}, pairs=3).result.pairs == 3


def test_a_standby_is_refused_for_indexes_and_fine_for_settings(dsn: str, recording: Recording) -> None:
    with standby_of(dsn) as standby:
        with pytest.raises(WrongUse, match="standby"):
            try_index(recording, standby, Statement(SORT), INDEX, confirm=yes)
        assert try_settings(recording, standby, Statement(SORT), {"work_mem": "32MB"}, pairs=3).result.pairs == 3


def test_a_trial_is_stopped_on_request(dsn: str, recording: Recording) -> None:
    before, stop = catalog(dsn), threading.Event()
    slow = Statement("SELECT pg_sleep(0.2), count(*) FROM orders")
    made = try_index(recording, dsn, slow, INDEX, confirm=yes, stop=stop, progress=lambda told: stop.set())
    assert (made.verdict, catalog(dsn)) == ("stopped", before)
    stop = threading.Event()
    made = try_settings(recording, dsn, slow, {"jit": False}, stop=stop, progress=lambda told: stop.set())
    assert made.verdict == "stopped"


def test_an_interrupt_rolls_back(dsn: str, recording: Recording) -> None:
    before = catalog(dsn)

    def interrupt(told: Any) -> None:
        if "with the index" in told.text:
            raise KeyboardInterrupt

    made = try_index(recording, dsn, sampled(dsn, BY_CUSTOMER), INDEX, confirm=yes, progress=interrupt)
    assert (made.verdict, catalog(dsn)) == ("stopped", before)
    assert "stopped" in made.words


def test_a_statement_that_takes_too_long_ends_the_trial(dsn: str, recording: Recording) -> None:
    made = try_settings(recording, dsn, Statement("SELECT pg_sleep(5)"), {"jit": False}, statement_timeout_s=0.2)
    assert made.verdict == "aborted"
    assert "statement timeout" in made.result.why


TRIER = """
import sys
from pathlib import Path
from perfnb.recording import Recording
from perfnb.trials.database import Statement, try_index
def tell(told):
    if "with the index" in told.text:
        print("built", flush=True)
slow = Statement("SELECT pg_sleep(0.5), count(*) FROM orders")
try_index(Recording.open(Path(sys.argv[1])), sys.argv[2], slow, sys.argv[3], confirm=lambda cost: True, runs=3, progress=tell)
"""


def test_a_trial_whose_process_is_killed_leaves_nothing_and_lets_writers_go_on(dsn: str, recording: Recording) -> None:
    before = catalog(dsn)
    command = [sys.executable, "-c", TRIER, str(recording.path), dsn, INDEX]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "built\n"
        process.kill()
    with psycopg.connect(dsn, autocommit=True) as writer:
        writer.execute("SET lock_timeout = '20s'")
        writer.execute("UPDATE orders SET amount = amount WHERE id = 2")
    end = time.monotonic() + 20
    while ask(dsn, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'perfnb'") and time.monotonic() < end:
        time.sleep(0.1)
    assert catalog(dsn) == before


def test_memory_that_keeps_a_sort_from_spilling(dsn: str, recording: Recording) -> None:
    settings = {"work_mem": "64MB", "enable_hashagg": False}
    made = try_settings(recording, dsn, Statement(SORT), settings, pairs=4)
    assert (made.result.before["work_mem"], made.result.value) == ("4MB", {"work_mem": "64MB", "enable_hashagg": "off"})
    spilled = made.frame.groupby("arm")["temp_blocks"].sum()
    assert spilled["B"] == 0
    assert made.result.mode == "session"
    assert list(made.frame["arm"][:4]) in (["A", "B", "B", "A"], ["B", "A", "A", "B"])
    assert ask(dsn, "SHOW work_mem") == [("4MB",)]


def test_a_search_that_goes_on_returns_the_rows_that_were_missing(dsn: str, recording: Recording) -> None:
    statement = given(dsn, SEARCH, 7, [0.1, 0.2, 0.3], 20)
    ask(dsn, "DROP TABLE IF EXISTS noted")
    made = try_settings(
        recording, dsn, statement, {"hnsw.iterative_scan": "relaxed_order", "enable_seqscan": False}, pairs=4
    )
    assert made.result.primary in ("statement_rows", "statement_ms")
    alike = try_settings(recording, dsn, statement, {"hnsw.ef_search": 1000}, pairs=3)
    assert alike.result.value == {"hnsw.ef_search": "1000"}
    narrow = given(dsn, "SELECT id FROM documents ORDER BY embedding <-> $1 LIMIT $2", [0.1, 0.2, 0.3], 100)
    wide = try_settings(recording, dsn, narrow, {"hnsw.ef_search": 200}, pairs=4)
    assert (wide.verdict, wide.result.primary) == ("better", "statement_rows")
    assert (wide.result["statement_rows"].a, wide.result["statement_rows"].b) == (40, 100)
    assert wide.result.why.startswith("it returns 100.0 rows instead of 40.0")
    back = try_settings(recording, dsn, narrow, {"hnsw.ef_search": 10}, pairs=3)
    assert back.verdict == "worse"


@pytest.mark.parametrize(
    ("text", "settings", "why"),
    [
        ("DELETE FROM orders", {"jit": False}, "only a statement that reads"),
        ("WITH gone AS (DELETE FROM orders RETURNING 1) SELECT * FROM gone", {"jit": False}, "read-only"),
        ("SELECT * FROM orders FOR UPDATE", {"jit": False}, "read-only"),
        ("SELECT 1; DROP TABLE orders", {"jit": False}, "multiple commands"),
        ("SELECT nothing FROM orders", {"jit": False}, "does not exist"),
        (SORT, {"work_mem": "4MB"}, "are what they are already"),
        (SORT, {"fsync": "off"}, "perfnb does not change"),
        (SORT, {}, "no setting is given"),
    ],
)
def test_what_can_not_be_tried_is_refused(
    dsn: str, recording: Recording, text: str, settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(WrongUse, match=why):
        try_settings(recording, dsn, Statement(text), settings)
    assert trials_of(recording) == []
    assert ask(dsn, "SELECT count(*) FROM orders") == [(ROWS,)]


def test_a_function_that_sets_it_itself_is_no_result(dsn: str, recording: Recording) -> None:
    ask(
        dsn,
        "CREATE OR REPLACE FUNCTION meddles() RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM set_config('work_mem', '1MB', true); RETURN 1; END $$",
    )
    with pytest.raises(WrongUse, match="work_mem is 1MB in the transaction, not 9MB"):
        try_settings(recording, dsn, Statement("SELECT meddles()"), {"work_mem": "9MB"})


def test_values_are_taken_from_the_tables_or_given(dsn: str) -> None:
    found = sampled(dsn, SEARCH)
    assert found.are_sampled
    for tenant, vector, limit in found.values:
        assert 0 <= int(tenant or "-1") < 200
        assert (vector or "").startswith("[")
        assert limit == "10"
    listed = sampled(
        dsn, "SELECT o.id FROM orders o JOIN documents d ON d.id = o.id WHERE o.customer = ANY($1) OFFSET $2"
    )
    assert listed.values[0][0].startswith('{"')
    assert listed.values[0][1] == "0"
    assert given(dsn, "SELECT $1::vector, $2::int[], $3::bool", [1, 2], [3], True).values == (
        ("[1,2]", '{"3"}', "true"),
    )
    with pytest.raises(WrongUse, match="1 values for 3 parameters"):
        given(dsn, SEARCH, 1)
    with pytest.raises(NotMeasured, match=r"\$1 \(text\)"):
        sampled(dsn, "SELECT upper($1)")


def test_a_pretended_index_is_the_planners_estimate_alone(tmp_path: Path) -> None:
    with with_hypopg() as dsn, Recording.create(tmp_path / "h.perfnb") as recording:
        ask(dsn, TABLES)
        with pytest.raises(NotInstalled) as missing:
            try_hypothetical_index(recording, dsn, Statement(BY_CUSTOMER), INDEX)
        assert missing.value.hint == "CREATE EXTENSION hypopg"
        ask(dsn, "CREATE EXTENSION hypopg")
        before = catalog(dsn)
        for statement in (
            Statement(BY_CUSTOMER),
            sampled(dsn, BY_CUSTOMER),
            Statement("SELECT id FROM orders WHERE customer = 5"),
        ):
            result = try_hypothetical_index(recording, dsn, statement, INDEX).result
            assert (result.outcome, result.mode, result.metrics) == ("estimated", "hypothetical", ())
            assert "the planner would take the index" in result.why
            assert "the planner's estimate, not measured" in result.headline
            assert "not measured" in result_piece(result).html
        unused = try_hypothetical_index(recording, dsn, Statement("SELECT sum(amount) FROM orders"), INDEX).result
        assert "would not take the index" in unused.why
        with pytest.raises(WrongUse, match="nothing can pretend"):
            try_hypothetical_index(recording, dsn, Statement(BY_CUSTOMER), "CREATE INDEX ON orders USING gin (note)")
        assert catalog(dsn) == before
        assert len(trials_of(recording)) == 4
        assert trial_windows(recording) == {}
        made = try_index(recording, dsn, sampled(dsn, BY_CUSTOMER), INDEX, confirm=yes, runs=3)
        assert (made.verdict, catalog(dsn)) == ("better", before)


def test_without_hypopg_it_is_said_how_to_get_it(dsn: str, recording: Recording) -> None:
    with pytest.raises(PerfnbError, match="hypopg"):
        try_hypothetical_index(recording, dsn, Statement(BY_CUSTOMER), INDEX)


@pytest.mark.parametrize("version", [13, 14, 16, 17])
def test_on_other_versions_too(version: int, tmp_path: Path) -> None:
    with running(version) as dsn, Recording.create(tmp_path / "v.perfnb") as recording:
        ask(dsn, TABLES)
        before = catalog(dsn)
        statement = sampled(dsn, BY_CUSTOMER)
        assert try_index(recording, dsn, statement, INDEX, confirm=yes, runs=3).verdict == "better"
        assert try_settings(recording, dsn, Statement(SORT), {"work_mem": "64MB"}, pairs=3).result.pairs == 3
        with changing(recording, RoleSetting(dsn, "work_mem"), "5MB"):
            assert ask(dsn, "SHOW work_mem") == [("5MB",)]
        with changing(recording, ConcurrentIndex(dsn, INDEX), True):
            assert catalog(dsn) != before
        assert catalog(dsn) == before


def test_through_a_pooler_nothing_stays_in_its_sessions(dsn: str, recording: Recording) -> None:
    with through_pgbouncer(dsn, default_pool_size=1) as pooled:
        settings = {"work_mem": "64MB", "hnsw.ef_search": 99}
        assert try_settings(recording, pooled, sampled(pooled, SORT), settings, pairs=3).result.pairs == 3
        assert (
            try_index(recording, pooled, sampled(pooled, BY_CUSTOMER), INDEX, confirm=yes, runs=3).verdict == "better"
        )
        held = ask(pooled, "SELECT name FROM pg_settings WHERE source = 'session' AND name IN ('work_mem', 'statement_timeout', "
                   "'lock_timeout', 'transaction_read_only', 'hnsw.ef_search', 'idle_in_transaction_session_timeout')")  # fmt: skip
        assert held == []


def test_what_a_trial_asks_bears_perfnbs_mark(tmp_path: Path) -> None:
    with postgres_18() as dsn, Recording.create(tmp_path / "m.perfnb") as recording:
        ask(dsn, TABLES)
        ask(dsn, "CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()")
        statement = sampled(dsn, BY_CUSTOMER)
        try_index(recording, dsn, statement, INDEX, confirm=yes, runs=3)
        try_settings(recording, dsn, statement, {"work_mem": "64MB"}, pairs=3)
        with (
            changing(recording, ConcurrentIndex(dsn, INDEX), True),
            changing(recording, RoleSetting(dsn, "jit"), "off"),
        ):
            pass
        found = ask(dsn, "SELECT query FROM pg_stat_statements WHERE toplevel AND query NOT LIKE '%/* perfnb */%'")
        left = {query.split()[0] for (query,) in found} - {"BEGIN", "ROLLBACK", "COMMIT", "SAVEPOINT", "RELEASE"}
        assert [query for (query,) in found if query.split()[0] in left and "pg_stat_statements" not in query] == []
