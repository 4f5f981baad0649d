"""The shop in the demo app's place: the same simulated provider and users, a database of its own, no tracing."""

import random
import sys
from collections.abc import Mapping
from pathlib import Path

import psycopg
from planted.shop_app import DIMENSIONS, HABITS

from perfnb.demo import database
from perfnb.demo.stack import Stack

USERS = {"path": "/ask", "question_field": "text", "session_field": "visitor", "agent_share": 0, "ingest_share": 0}
"""Habits for :meth:`Stack.run_workload`, so that the demo's users ask this app."""

BOOKS, CUSTOMERS, ORDERS = 12_000, 400, 8_000

SCHEMA = f"""
CREATE EXTENSION IF NOT EXISTS vector;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE TABLE books (id serial PRIMARY KEY, title text, blurb text, vector vector({DIMENSIONS}));
CREATE TABLE customers (id serial PRIMARY KEY, name text);
CREATE TABLE orders (
    id serial PRIMARY KEY, customer_id int REFERENCES customers, placed_at timestamptz, state text
);
CREATE TABLE items (id serial PRIMARY KEY, order_id int REFERENCES orders, book_id int REFERENCES books, quantity int);
CREATE TABLE visits (id serial PRIMARY KEY, customer_id int, asked text, words int, at timestamptz);
CREATE TABLE pricing (region text PRIMARY KEY, factor numeric);
"""
ROWS = f"""
INSERT INTO customers (name) SELECT 'Customer ' || n FROM generate_series(1, {CUSTOMERS}) n;
INSERT INTO orders (customer_id, placed_at, state)
    SELECT n % {CUSTOMERS} + 1, now() - n * interval '1 hour', 'sent' FROM generate_series(1, {ORDERS}) n;
INSERT INTO items (order_id, book_id, quantity)
    SELECT n % {ORDERS} + 1, n % {BOOKS} + 1, 1 FROM generate_series(1, {ORDERS * 2}) n;
INSERT INTO visits (customer_id, asked, words, at)
    SELECT n % {CUSTOMERS} + 1, 'a book about ' || md5(n::text), 40, now() - n * interval '1 minute'
    FROM generate_series(1, 2000) n;
INSERT INTO pricing SELECT 'region ' || n, 1 FROM generate_series(1, 30) n;
"""
INDEXES = """
CREATE INDEX books_vector ON books USING hnsw (vector vector_l2_ops);
CREATE INDEX orders_customer ON orders (customer_id);
CREATE INDEX items_order ON items (order_id);
CREATE INDEX items_book ON items (book_id);
"""

MANY_VISITS = (
    "INSERT INTO visits (customer_id, asked, words, at) SELECT n % 400 + 1, repeat('a book about ' || md5(n::text), 4),"
    " 40, now() - n * interval '1 second' FROM generate_series(1, 250000) n",
    "VACUUM ANALYZE visits",
)
MANY_ORDERS = (
    "INSERT INTO orders (customer_id, placed_at, state) SELECT n % 400 + 1, now(), repeat('sent ', 20)"
    " FROM generate_series(1, 200000) n",
    "VACUUM ANALYZE orders",
)

STATES: dict[str, tuple[str, ...]] = {
    "slow-statement": MANY_VISITS,
    "pool-exhausted": MANY_VISITS,
    "sort-spill": MANY_VISITS,
    "over-fetching": MANY_ORDERS[:1],
    "missing-index": (
        "INSERT INTO items (order_id, book_id, quantity) SELECT n % 8000 + 1, n % 12000 + 1, 1"
        " FROM generate_series(1, 300000) n WHERE n % 8000 > 400",
        "DROP INDEX items_order",
        "VACUUM ANALYZE",
    ),
    "duplicate-index": (*MANY_VISITS, "CREATE INDEX v1 ON visits (customer_id)", "CREATE INDEX v2 ON visits (customer_id)"),
    "table-bloat": (
        "ALTER SYSTEM SET autovacuum_naptime = '1h'",
        "SELECT pg_reload_conf()",
        *MANY_VISITS,
        "UPDATE visits SET words = words + 1",
        "UPDATE visits SET words = words + 1",
    ),
    "vector-index-missing": ("DROP INDEX books_vector",),
    "n-plus-one": (),
}  # fmt: skip

CAUSES = tuple(sorted(HABITS | set(STATES) | {"stale-connections"}))
"""What can be staged with it."""


def fill(stack: Stack, dsn: str) -> None:
    """Make the shop's tables and rows, then what belongs to the stack's faults."""
    rng, told = random.Random(7), random.Random(8)
    words = [
        "garden",
        "sea",
        "night",
        "letters",
        "glass",
        "winter",
        "maps",
        "bread",
        "salt",
        "clockwork",
        "moth",
        "rain",
    ]
    with psycopg.connect(dsn) as connection:
        connection.execute(SCHEMA)
        with connection.cursor().copy("COPY books (title, blurb, vector) FROM STDIN") as copy:
            for number in range(BOOKS):
                title = " ".join(rng.sample(words, 3))
                vector = [round(rng.gauss(0, 1), 4) for _ in range(DIMENSIONS)]
                blurb = " ".join(f"{told.choice(words)} {told.randrange(1000)}" for _ in range(10))
                copy.write_row((f"{title} {number}", f"A story of {blurb}.", str(vector)))
        connection.execute(ROWS)
        connection.execute(INDEXES)
    states = [statement for fault in stack.faults for statement in STATES.get(fault.cause, ())]
    database.change(dsn, ["VACUUM ANALYZE", *states])


def start_shop(stack: Stack, environment: Mapping[str, str]) -> str:
    """Start the shop with the stack's faults and return its URL; health is at ``/up``, questions go to ``/ask``."""
    given = {
        "OPENAI_BASE_URL": environment["OPENAI_BASE_URL"],
        "OPENAI_API_KEY": "simulated",
        "DATABASE_URL": stack.dsn,
        "HABIT": ",".join(fault.cause for fault in stack.faults),
    }
    return stack.start_command([sys.executable, str(Path(__file__).with_name("shop_app.py"))], given)
