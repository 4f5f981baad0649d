"""One statement's plan is the same, whichever format the server was asked for; on every version that is here."""

import json

import psycopg
import pytest
from servers import VERSIONS, running

from perfnb.plans import Node, Plan, read_plan

TABLES = """
CREATE TABLE customers (id bigint PRIMARY KEY, name text, country text);
CREATE TABLE tickets (id bigint PRIMARY KEY, customer_id bigint, status text, opened int, price numeric);
INSERT INTO customers SELECT i, 'Customer ' || i, (ARRAY['de', 'fr', 'se'])[1 + i % 3] FROM generate_series(1, 500) i;
INSERT INTO tickets SELECT i, 1 + i % 500, CASE WHEN i % 50 = 0 THEN 'open' ELSE 'closed' END, i, i % 300
FROM generate_series(1, 20000) i;
CREATE INDEX tickets_by_customer ON tickets (customer_id);
CREATE INDEX tickets_by_opened ON tickets (opened);
VACUUM ANALYZE;
"""
STATEMENTS = {
    "join": "SELECT c.country, count(*) FROM tickets t LEFT JOIN customers c ON c.id = t.customer_id "
    "WHERE t.status = 'open' GROUP BY 1 ORDER BY 2 DESC LIMIT 2",
    "cte": "WITH r AS MATERIALIZED (SELECT * FROM tickets WHERE opened > (SELECT max(opened) / 2 FROM tickets)) "
    "SELECT a.status, (SELECT c.name FROM customers c WHERE c.id = max(a.customer_id)) FROM r a JOIN r b ON b.id = a.id "
    "WHERE EXISTS (SELECT FROM customers c WHERE c.id = a.customer_id AND c.country = 'de') GROUP BY 1",
    "union": "SELECT id FROM tickets WHERE customer_id IN (7, 8) OR opened < 100 UNION ALL "
    "SELECT id FROM customers WHERE false UNION ALL (SELECT DISTINCT customer_id FROM tickets ORDER BY 1 LIMIT 5)",
    "spill": "SELECT t.*, row_number() OVER (PARTITION BY price ORDER BY id DESC) FROM tickets t, generate_series(1, 2) g(n)",
    "except": "SELECT customer_id FROM tickets EXCEPT SELECT id FROM customers WHERE country = 'se'",
    "never": "SELECT * FROM customers c JOIN tickets t ON t.customer_id = c.id WHERE c.name = 'nobody'",
    "values": "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS \"odd \"\"name\" (n, x) JOIN customers c ON c.id = n ORDER BY x",
}
OPTIONS = "ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF"


@pytest.mark.parametrize("version", VERSIONS)
def test_formats_agree(version: int) -> None:
    with running(version, {"jit": "off"}) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        for statement in filter(str.strip, TABLES.split(";\n")):
            connection.execute(statement)  # type: ignore[call-overload]
        connection.execute("SET work_mem = '256kB'; SET max_parallel_workers_per_gather = 0")
        for name, statement in STATEMENTS.items():
            asked(connection, statement, "JSON")  # what is looked up in catalogs is counted with the first
            as_text, *others = (asked(connection, statement, each) for each in ("TEXT", "JSON", "YAML", "XML"))
            for other in others:
                assert list(map(compared, as_text.nodes())) == list(map(compared, other.nodes())), name


@pytest.mark.parametrize("version", [13, 18])
def test_plans_with_workers(version: int) -> None:
    settings = {"jit": "off", "min_parallel_table_scan_size": "0", "parallel_setup_cost": "0"}
    with running(version, settings) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        for statement in filter(str.strip, TABLES.split(";\n")):
            connection.execute(statement)  # type: ignore[call-overload]
        connection.execute("SET parallel_tuple_cost = 0")
        statement = "SELECT count(*) FROM tickets t JOIN customers c ON c.id = t.customer_id WHERE t.price > 3"
        plan = read_plan(told(connection, statement, "TEXT", "ANALYZE, VERBOSE, BUFFERS"))
        scan = next(node for node in plan.nodes() if node.relation == "tickets")
        assert scan.is_parallel
        assert scan.schema == "public"
        assert scan.rows_actual == pytest.approx(19736, rel=0.01)  # averages of processes are rounded before 18
        assert scan.factor == pytest.approx(1, rel=0.1)
        assert sum(node.exclusive_ms or 0.0 for node in plan.nodes()) <= (plan.root.total_ms or 0.0) * 1.5


def asked(connection: psycopg.Connection, statement: str, form: str) -> Plan:
    return read_plan(told(connection, statement, form, OPTIONS))


def told(connection: psycopg.Connection, statement: str, form: str, options: str) -> str:
    rows = connection.execute(f"EXPLAIN ({options}, FORMAT {form}) {statement}").fetchall()  # type: ignore[call-overload]
    return json.dumps(rows[0][0]) if form == "JSON" else "\n".join(row[0] for row in rows)


def compared(node: Node) -> dict[str, object]:
    """Return what must be the same; which blocks were in the cache, and which relation member it is called, may differ."""
    kept = {
        name: getattr(node, name)
        for name in ("name", "relation", "alias", "index", "subplan", "rows_estimated", "rows_actual", "loops", "cost",
                     "rows_removed", "is_parallel", "conditions")
    }  # fmt: skip
    space = node.workspace
    used = space and (space.kind, space.is_on_disk, space.batches)
    return {**kept, "touched": node.blocks.touched, "temp": node.blocks.temp_written, "workspace": used}
