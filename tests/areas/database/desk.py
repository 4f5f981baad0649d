"""A support desk's database on a real server, put into a state and recorded while an app works on it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from perfnb.recording import Recording
from perfnb.sources.postgres.source import Intervals, Postgres

TABLES = """
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE TABLE sessions (id text PRIMARY KEY, created_at timestamptz NOT NULL DEFAULT now(),
                       last_active_at timestamptz NOT NULL DEFAULT now(), user_name text);
CREATE TABLE messages (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, session_id text NOT NULL REFERENCES sessions,
                       role text NOT NULL, content text NOT NULL, created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE documents (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, created_at timestamptz DEFAULT now() - interval '900 days');
CREATE INDEX messages_session ON messages (session_id, id);
"""
ROWS = """
INSERT INTO sessions (id, user_name) SELECT 's' || n, 's' || n % 400 FROM generate_series(1, 2000) n;
INSERT INTO messages (session_id, role, content) SELECT 's' || (n % 2000 + 1), CASE n % 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
    md5(n::text) || md5((n + 1)::text) FROM generate_series(1, 150000) n;
INSERT INTO documents (title) SELECT 'document ' || n FROM generate_series(1, 20000) n;
"""

HISTORY = "SELECT id, role, content FROM messages WHERE session_id = %s ORDER BY id DESC LIMIT 20"


def made(dsn: str) -> None:
    """Make the desk's tables and rows, and count them."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(ROWS)
        connection.execute("VACUUM ANALYZE")


@contextmanager
def desk(dsn: str, name: str, state: Sequence[str] = ()) -> Iterator[str]:
    """Copy the desk into a database of its own, put it into a state, and yield its DSN; dropped at the end."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE desk_template")
    own = dsn.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(own, autocommit=True) as connection:
        for statement in state:
            try:
                connection.execute(statement)
            except psycopg.errors.UniqueViolation:
                continue  # leaves an invalid index behind
    yield own
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def work(dsn: str, statements: Sequence[str] = (HISTORY,), *, times: int = 30) -> None:
    """Do what the app does, one connection for all; a statement with %s gets a session's name."""
    with psycopg.connect(dsn, autocommit=True, application_name="desk") as connection:
        for turn in range(times):
            for statement in statements:
                given = [f"s{turn + 1}"] * statement.count("%s")
                connection.execute(statement, given or None)
    time.sleep(0.5)  # a server process adds its counters up as it ends


def recorded(folder: Path, dsn: str, act: Callable[[], object]) -> Recording:
    """Record ``dsn`` while ``act`` runs."""
    made = Recording.create(folder / "desk.perfnb")
    with made.writer() as writer:
        source = Postgres(writer.write, dsn, intervals=Intervals(1, 30, 30, 30))
        with source:
            until = time.monotonic() + 30
            while source.counters["looks"] < 4 and time.monotonic() < until:
                time.sleep(0.02)
            act()
    return made
