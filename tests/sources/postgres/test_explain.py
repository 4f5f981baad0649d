"""Plans from real servers: generic ones of every version, executed ones only where nothing is written."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from servers import VERSIONS, postgres_18, running

from perfnb.errors import NotMeasured, NotPermitted, PerfnbError, WrongUse
from perfnb.plans import plan_of
from perfnb.sources.postgres.explain import Busiest, explain, top_plans

TABLES = """
CREATE TABLE tickets (id bigint PRIMARY KEY, customer_id bigint, status text, opened timestamptz);
INSERT INTO tickets SELECT i, i % 100, 'closed', now() FROM generate_series(1, 5000) i;
CREATE INDEX tickets_by_customer ON tickets (customer_id);
CREATE FUNCTION touched(bigint) RETURNS bigint LANGUAGE sql VOLATILE AS 'UPDATE tickets SET status = ''x''; SELECT $1';
CREATE FUNCTION sneaky() RETURNS bigint LANGUAGE plpgsql STABLE AS
    $$ BEGIN PERFORM nextval('numbers'); RETURN 1; END $$;
CREATE SEQUENCE numbers;
CREATE VIEW touching AS SELECT touched(id) AS id FROM tickets;
ANALYZE tickets;
"""


def made(dsn: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute(TABLES)  # type: ignore[call-overload]
    return connection


@pytest.fixture(scope="module")
def connection() -> Iterator[psycopg.Connection[Any]]:
    with postgres_18() as dsn, made(dsn) as connected:
        connected.execute("CREATE EXTENSION vector; CREATE TABLE notes (id int, e vector(3))")
        connected.execute("CREATE INDEX ON notes USING hnsw (e vector_cosine_ops)")
        yield connected


@pytest.mark.parametrize("version", VERSIONS)
def test_a_generic_plan_on_every_version(version: int) -> None:
    with running(version) as dsn, made(dsn) as connected:
        row = explain(connected, "SELECT * FROM tickets WHERE customer_id = $1 AND status <> $2 LIMIT $3", queryid="7")
        names = [node.name for node in plan_of(row["plan"]).nodes()]
        assert names[0] == "Limit"
        assert any("tickets_by_customer" in name for name in names)
        assert (row["origin"], row["queryid"], row["duration_ms"]) == ("generic", "7", None)
        prepared = connected.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
        assert prepared == (0,)
        with pytest.raises(PerfnbError):
            explain(connected, "SELECT * FROM tickets WHERE nothing = $1")
        assert connected.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_a_plan_of_what_pg_stat_statements_makes_of_a_statement(connection: psycopg.Connection[Any]) -> None:
    for text in (
        "SELECT * FROM tickets WHERE opened > now() - interval $1",
        "SELECT * FROM tickets WHERE id IN ($1 /*, ... */)",
        "/* app */ SELECT 1 FROM tickets WHERE opened < date $1 -- end",
        "(SELECT id FROM tickets LIMIT $1) UNION ALL VALUES ($2::bigint)",
        "UPDATE tickets SET status = $1 WHERE id = $2",
        "INSERT INTO tickets (id) VALUES ($1) ON CONFLICT DO NOTHING",
    ):
        assert explain(connection, text)["origin"] == "generic"
    assert explain(connection, "SELECT count(*) FROM tickets;")["origin"] == "explain"


def test_values_given_are_planned_for(connection: psycopg.Connection[Any]) -> None:
    row = explain(connection, "SELECT * FROM tickets WHERE customer_id < $1", parameters=[1_000_000])
    assert row["origin"] == "explain"
    assert plan_of(row["plan"]).root.rows_estimated == 5000


def test_a_vector_search(connection: psycopg.Connection[Any]) -> None:
    row = explain(connection, "SELECT id FROM notes ORDER BY e <=> $1 LIMIT $2")
    assert "hnsw" not in str(row["query"])
    assert any(node.index.startswith("notes_e_idx") for node in plan_of(row["plan"]).nodes())


def test_an_executed_plan(connection: psycopg.Connection[Any]) -> None:
    text = "SELECT count(*) FROM tickets WHERE status = 'closed' AND customer_id = $1"
    row = explain(connection, text, parameters=[7], analyze=True)
    plan = plan_of(row["plan"])
    assert (row["origin"], plan.is_executed, plan.root.rows_actual) == ("analyze", True, 1)
    assert row["duration_ms"] == plan.execution_ms
    assert plan.root.blocks.touched > 0
    assert "closed" not in str(row)
    assert "'?'" not in str(row["plan"])
    assert next(node for node in plan.nodes() if node.relation).schema == "public"


WRITES = [
    "UPDATE tickets SET status = 'x'",
    "INSERT INTO tickets VALUES (9999999) RETURNING id",
    "DELETE FROM tickets",
    "WITH gone AS (DELETE FROM tickets RETURNING id) SELECT * FROM gone",
    "SELECT * FROM tickets FOR UPDATE",
    "SELECT id INTO copied FROM tickets",
    "SELECT touched(id) FROM tickets",
    "SELECT id FROM touching",
    "SELECT nextval('numbers')",
    "SELECT pg_advisory_lock(1)",
    "SELECT set_config('work_mem', '1GB', false)",
    "SELECT * FROM tickets ORDER BY touched(1)",
    "SELECT sneaky()",
]


@pytest.mark.parametrize("text", WRITES)
def test_what_writes_is_not_executed(connection: psycopg.Connection[Any], text: str) -> None:
    before = state(connection)
    with pytest.raises(WrongUse, match=r"writes|locks rows|volatile"):
        explain(connection, text, analyze=True)
    assert state(connection) == before


def state(connection: psycopg.Connection[Any]) -> Any:
    return connection.execute(
        "SELECT (SELECT count(*) FROM tickets), (SELECT count(*) FROM tickets WHERE status = 'x'), "
        "(SELECT is_called FROM numbers), current_setting('work_mem'), "
        "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), to_regclass('copied')"
    ).fetchone()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("SELECT 1; DROP TABLE tickets", WrongUse, "more than one"),
        ("SELECT 1; SELECT 2", WrongUse, "more than one"),
        ("DROP TABLE tickets", WrongUse, "only SELECT"),
        ("", WrongUse, "only SELECT"),
        ("COMMIT", WrongUse, "only SELECT"),
        ("SELECT FROM WHERE", WrongUse, "can't be read"),
        ("SELECT * FROM nowhere WHERE a = $1", NotMeasured, "nowhere"),
        ("SELECT $1 + $2", NotMeasured, "type of a parameter"),
        ("SELECT 'secret'::int", WrongUse, "refused"),
    ],
)
def test_what_can_t_be_explained_is_told(
    connection: psycopg.Connection[Any], text: str, error: type[PerfnbError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        explain(connection, text)
    assert "secret" not in str(caught.value)
    assert caught.value.hint
    assert connection.execute("SELECT count(*) FROM tickets").fetchone() == (5000,)


def test_parameters_must_be_there_to_execute(connection: psycopg.Connection[Any]) -> None:
    text = "SELECT * FROM tickets WHERE id = $1"
    with pytest.raises(WrongUse, match="1 parameters, none were given"):
        explain(connection, text, analyze=True)
    with pytest.raises(WrongUse, match="1 parameters, 2 were given"):
        explain(connection, text, parameters=[1, 2])


def test_a_timeout_is_kept(connection: psycopg.Connection[Any]) -> None:
    text = "SELECT count(*) FROM generate_series(1, 200000000)"
    with pytest.raises(NotMeasured, match=r"within 0\.1 s"):
        explain(connection, text, analyze=True, timeout_s=0.1)
    assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_a_lock_is_not_waited_for(connection: psycopg.Connection[Any]) -> None:
    with psycopg.connect(connection.info.dsn, password=connection.info.password) as other:
        other.execute("LOCK TABLE tickets IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(NotMeasured, match="locked"):
            explain(connection, "SELECT * FROM tickets")


def test_within_a_transaction_of_the_caller(connection: psycopg.Connection[Any]) -> None:
    with connection.transaction(), pytest.raises(WrongUse, match="inside a transaction"):
        explain(connection, "SELECT 1")


def test_a_role_that_may_not_read(connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'x'")
    with psycopg.connect(connection.info.dsn, user="stranger", password="x", autocommit=True) as stranger:
        with pytest.raises(NotPermitted, match="permission denied"):
            explain(stranger, "SELECT * FROM tickets")
        found = top_plans(stranger, [{"query": "SELECT * FROM tickets", "total_exec_time_ms": 1.0}])
        assert sum(found.left_out.values()) == 1


def statement(query: str | None, ms: float, **columns: Any) -> dict[str, Any]:
    return {"queryid": str(hash(query)), "query": query, "total_exec_time_ms": ms, **columns}


def test_the_busiest_and_every_vector_search(connection: psycopg.Connection[Any]) -> None:
    given = [
        statement("SELECT * FROM tickets WHERE id = $1", 10),
        statement("SELECT * FROM tickets WHERE customer_id = $1", 900),
        statement("SELECT id FROM notes ORDER BY e <=> $1 LIMIT $2", 0.1),
        statement("SELECT * FROM gone WHERE id = $1", 500),
        statement("BEGIN", 5000),
        statement(None, 9000),
        statement("SELECT 1", 5000, is_top_level=False),
    ]
    found = top_plans(connection, given, n=2)
    assert [row["query"] for row in found.rows] == [
        "SELECT * FROM tickets WHERE customer_id = $1",
        "SELECT id FROM notes ORDER BY e <=> $1 LIMIT $2",
    ]
    assert sum(found.left_out.values()) == 1
    assert {row["origin"] for row in found.rows} == {"generic"}
    assert top_plans(connection, given, n=2, budget_s=-1).left_out == {"no time was left": 3}


def test_busiest_by_what_was_added() -> None:
    busiest = Busiest()
    busiest.see([statement("a", 1000), statement("b", 10), statement("c", 50)])
    assert busiest.statements() == []
    busiest.see([statement("a", 1001), statement("b", 300), statement("d", 7), statement("c", 20), statement(None, 9)])
    assert {row["query"]: row["total_exec_time_ms"] for row in busiest.statements()} == {
        "a": 1,
        "b": 290,
        "d": 7,
        "c": 20,
    }
