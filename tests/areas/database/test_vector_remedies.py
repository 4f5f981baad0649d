"""Statements that findings on vectors advise, run on a real server."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from builders import answer
from servers import postgres_18
from statement_rows import counted, requests, snapshots
from vector_rows import BY_JSON, SEARCH, table

from perfnb.finding import Finding

# A statement ends before the words that explain it.
_STATEMENT = re.compile(r"(?:ALTER TABLE|CREATE INDEX) .+?(?=, which |, and |, with |; |\.(?: |$))")


@pytest.fixture(scope="module")
def connection() -> Iterator[psycopg.Connection]:
    with postgres_18() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        yield connection


def advised(folder: Path, cause: str, search: str, kind: str, length: int) -> list[str]:
    """Return the statements of the remedy for a column of ``kind``, with ``length`` for N."""
    statements = snapshots(counted(search, calls=60, ms=40, rows=5))
    said = answer(folder, cause, statements=statements, catalog=table(kind=kind), requests=requests(60))
    assert isinstance(said, Finding)
    return [each.replace("(N)", f"({length})") for each in _STATEMENT.findall(said.remedy)]


def documents(connection: psycopg.Connection, kind: str, length: int) -> None:
    made = f"(SELECT array_agg(random()) FROM generate_series(1, {length}) WHERE n > 0)::vector::{kind}"
    connection.execute("DROP TABLE IF EXISTS documents")
    connection.execute(f"CREATE TABLE documents (id bigint, body text, about jsonb, embedding {kind})")
    connection.execute(
        f"INSERT INTO documents SELECT n, NULL, jsonb_build_object('a', n), {made} FROM generate_series(1, 9) n"
    )


@pytest.mark.parametrize(
    ("kind", "length", "count"),
    [
        ("vector", 8, 3),
        ("halfvec", 8, 3),
        ("sparsevec", 8, 3),
        ("vector(8)", 8, 1),
        ("halfvec(8)", 8, 1),
        ("vector(2048)", 2048, 1),
    ],
)
def test_the_advised_index_can_be_built(
    tmp_path: Path, connection: psycopg.Connection, kind: str, length: int, count: int
) -> None:
    documents(connection, kind, length)
    statements = advised(tmp_path, "vector-index-missing", SEARCH, kind, length)
    assert len(statements) == count
    for each in statements:
        connection.execute(each)
    built = connection.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'documents'").fetchone()
    assert built == (sum(each.startswith("CREATE") for each in statements),)


@pytest.mark.parametrize("search", [BY_JSON, BY_JSON.replace("about ->> $1", "(about->>$1)::int")])
def test_the_index_for_a_member_of_a_document_serves_its_filter(
    tmp_path: Path, connection: psycopg.Connection, search: str
) -> None:
    documents(connection, "vector(8)", 8)
    (statement,) = advised(tmp_path, "unindexed-filter", search, "vector(8)", 8)
    connection.execute(statement.replace("…", "a"))
    connection.execute("SET enable_seqscan = off")
    asked = re.sub(r"ORDER BY.*", "", search).replace("$1", "'a'").replace("$2", "'7'")
    plan = connection.execute(f"EXPLAIN {asked}").fetchall()
    connection.execute("RESET enable_seqscan")
    assert any("Index Cond" in line for (line,) in plan)
