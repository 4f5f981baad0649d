"""Small apps on a real server, watched by the real source: what is said of them by its counters alone."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from builders import request
from psycopg_pool import ConnectionPool
from servers import postgres_18

from perfnb.areas.database.workload import workload
from perfnb.attribution.shapes import shape_of
from perfnb.checklist import checks
from perfnb.finding import Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.sources.postgres.source import Intervals, Postgres

MADE = """
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE authors (id bigint PRIMARY KEY, name text);
CREATE TABLE posts (id bigint PRIMARY KEY, author_id bigint REFERENCES authors, title text, body text, e vector(3));
CREATE TABLE flags (name text PRIMARY KEY, is_on bool);
INSERT INTO authors SELECT n, 'author ' || n FROM generate_series(1, 500) n;
INSERT INTO posts SELECT n, n % 500 + 1, 'title ' || n, repeat('x', 1500), ARRAY[n, 1, 2]::vector FROM generate_series(1, 3000) n;
INSERT INTO flags SELECT 'flag ' || n, true FROM generate_series(1, 5) n;
CREATE INDEX ON posts (author_id);
CREATE INDEX ON posts USING hnsw (e vector_cosine_ops);
ANALYZE;
"""
LATEST = "SELECT id, author_id FROM posts ORDER BY id DESC LIMIT %s"
AUTHOR = "SELECT id, name FROM authors WHERE id = %s"
NEAREST = "SELECT id FROM posts ORDER BY e <=> %s::vector LIMIT %s"
POST = "SELECT id, title FROM posts WHERE id = %s"
FLAG = "SELECT is_on FROM flags WHERE name = %s"
ALL = "SELECT * FROM posts"
SLOW = "SELECT pg_sleep(0.15), count(*) FROM posts WHERE title <> %s"
BATCH = "SELECT id, name FROM authors WHERE id = ANY(%s)"

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with postgres_18() as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(MADE)
        yield dsn


def n_plus_one(connection: Connection) -> None:
    for _, author in connection.execute(LATEST, (12,)).fetchall():
        connection.execute(AUTHOR, (author,)).fetchone()


def one_by_one(connection: Connection) -> None:
    for (post,) in connection.execute(NEAREST, ("[1,2,3]", 12)).fetchall():
        connection.execute(POST, (post,)).fetchone()


def flags(connection: Connection) -> None:
    connection.execute(LATEST, (40,)).fetchall()
    for number in range(40):
        connection.execute(FLAG, (f"flag {number % 5}",)).fetchone()


def everything(connection: Connection) -> None:
    connection.execute(ALL).fetchall()


def slow(connection: Connection) -> None:
    connection.execute(SLOW, ("x",)).fetchone()
    connection.execute(LATEST, (5,)).fetchall()


def healthy(connection: Connection) -> None:
    rows = connection.execute(LATEST, (12,)).fetchall()
    connection.execute(BATCH, ([author for _, author in rows],)).fetchall()


def recorded(folder: Path, dsn: str, app: Callable[[Connection], None], requests: int = 12) -> Recording:
    """Return what the source and a front saw of so many requests to ``app``, one at a time."""
    made = Recording.create(folder / "served.perfnb")
    with (
        made.writer() as writer,
        Postgres(writer.write, dsn, intervals=Intervals(activity_s=0.2, samples_s=0.2, statements_s=0.3, catalog_s=60)),
        ConnectionPool(dsn, min_size=1, max_size=2, check=ConnectionPool.check_connection) as pool,
    ):
        for _ in range(requests):
            began = time.time_ns()
            with pool.connection() as connection:
                app(connection)
            took_ms = (time.time_ns() - began) / 1e6
            writer.write("http_requests", [request(ms=took_ms) | {"start_time": began}])
    return made


WANTED = ("n-plus-one", "per-id-queries", "frequent-statement", "over-fetching", "slow-statement", "unstable-statement")


def named(made: Recording, folder: Path) -> set[str]:
    said = [one.function(made, Objectives.load(folder)) for one in checks("database") if one.cause in WANTED]
    return {one.title.split(":")[0] for one in said if isinstance(one, Finding)}


@pytest.mark.parametrize(
    ("app", "title"),
    [
        (n_plus_one, "A request reads authors by id 12 times, one row after another"),
        (one_by_one, "A request reads posts by id 12 times, one row after another"),
        (everything, "A statement fetches 3000 rows"),
        (flags, "A statement of 0"),
        (slow, "A statement takes 15"),
        (healthy, None),
    ],
)
def test_what_an_app_does_is_named(
    tmp_path: Path, dsn: str, app: Callable[[Connection], None], title: str | None
) -> None:
    found = named(recorded(tmp_path, dsn, app), tmp_path)
    assert len(found) == (0 if title is None else 1)
    assert all(one.startswith(title or "") for one in found)


def test_work_is_told_from_housekeeping_and_counted_for_each_request(tmp_path: Path, dsn: str) -> None:
    frame = workload(recorded(tmp_path, dsn, n_plus_one))
    per_request = dict(zip(frame["shape"], frame["calls_per_request"], strict=True))
    assert per_request == pytest.approx({shape_of(LATEST).key: 1, shape_of(AUTHOR).key: 12}, rel=0.05)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (LATEST, (3,)), (AUTHOR, (1,)), (NEAREST, ("[1,2,3]", 3)), (BATCH, ([1, 2, 3],)), (ALL, ()),
        ("SELECT id FROM posts WHERE id IN (%s, %s, %s) AND title <> 'x'", (1, 2, 3)),
        ("SELECT p.title FROM posts p JOIN authors a ON a.id = p.author_id WHERE a.name = %(name)s", {"name": "x"}),
        ("/* desk */ SELECT count(*) FROM posts WHERE title ILIKE %s -- search", ("%x%",)),
        ("INSERT INTO authors (id, name) VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET name = excluded.name", (1, "x")),
        ("UPDATE authors SET name = %s WHERE id = %s", ("x", 1)),
        ("WITH latest AS (SELECT id FROM posts ORDER BY id DESC LIMIT 5) SELECT * FROM latest WHERE id > %s", (1,)),
        ("SELECT a.name, (SELECT count(*) FROM posts WHERE author_id = a.id) FROM authors a WHERE a.id < %s", (9,)),
    ],
)  # fmt: skip
def test_a_statement_as_the_app_sends_it_is_the_one_the_server_counts(dsn: str, text: str, values: Any) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_statements_reset()")
        connection.execute(text, values)
        counted = connection.execute("SELECT query FROM pg_stat_statements").fetchall()
    shapes = [shape_of(query) for (query,) in counted]
    work = {shape.key for shape in shapes if shape.is_work}
    assert work == {shape_of(text).key}
