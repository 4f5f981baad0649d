"""What a fault does to the database, on a real server: its statements run, and others' work beside the app goes on."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import psycopg
import pytest
from psycopg import sql

from perfnb.demo import corpus, database
from perfnb.demo.faults import FAULTS, Fault
from perfnb.demo.faults.database import past
from perfnb.demo.postgres import Postgres

WITH_SQL = [fault for fault in FAULTS.values() if fault.database.get("sql")]
PASSAGES = [
    (
        corpus.Passage(f"module{n % 5}", f"title {n}", f"body {n}"),
        [float((n * k) % 7) for k in range(corpus.DIMENSIONS)],
    )
    for n in range(1, 40)
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Postgres(tmp_path_factory.mktemp("postgres") / "postgres.log") as running:
        corpus.fill(running.dsn, PASSAGES)
        yield running.dsn


@pytest.fixture
def desk(server: str, request: pytest.FixtureRequest) -> str:
    """Return a database of the desk's own, filled."""
    name = f"desk{abs(hash(request.node.name))}"
    with psycopg.connect(server.rpartition("/")[0] + "/postgres", autocommit=True) as connection:
        template = server.rpartition("/")[2]
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
    return f"{server.rpartition('/')[0]}/{name}"


def small(statement: str) -> str:
    """Return a statement that makes hundreds of rows where it makes hundreds of thousands."""
    return re.sub(r"\b\d{5,6}\b", "300", statement)


@pytest.mark.parametrize("fault", WITH_SQL, ids=lambda fault: fault.cause)
def test_what_a_fault_does_to_the_database_can_be_done(desk: str, fault: Fault) -> None:
    with psycopg.connect(desk) as connection:
        connection.execute("INSERT INTO sessions (id) SELECT 'customer-' || n FROM generate_series(1, 8) n")
    database.change(desk, [small(statement) for statement in fault.database["sql"]])
    with psycopg.connect(desk) as connection:
        assert connection.execute("SELECT count(*) FROM documents").fetchone() != (0,)


def test_the_past_has_as_many_messages_as_it_says(desk: str) -> None:
    database.change(desk, past(500))
    with psycopg.connect(desk) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT session_id) FROM messages").fetchone() == (500, 500)


def test_a_statement_that_fails_is_told(desk: str) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        database.change(desk, ["SELECT 1 FROM nowhere"])


def test_jobs_go_on_beside_the_app_and_hold_what_they_lock(desk: str, tmp_path: Path) -> None:
    job = {"name": "migration", "sql": "LOCK TABLE messages IN ACCESS EXCLUSIVE MODE", "every_s": 60, "hold_s": 60}
    environment = os.environ | {"DATABASE_URL": desk, "DESK_JOBS": orjson.dumps([job]).decode()}
    with subprocess.Popen([sys.executable, "-m", "perfnb.demo.database"], env=environment) as process:
        try:
            until = time.monotonic() + 30
            while not (held := _locks_of(desk, "migration")) and time.monotonic() < until:
                time.sleep(0.05)
        finally:
            process.kill()
    assert held == ["AccessExclusiveLock"]


def _locks_of(dsn: str, application: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT l.mode FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE a.application_name = %s AND l.relation = 'messages'::regclass AND l.granted",
            (application,),
        ).fetchall()
    return [mode for (mode,) in rows]
