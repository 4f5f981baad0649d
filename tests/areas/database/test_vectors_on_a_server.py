"""pgvector on a real server: each cause staged, recorded and named; and nothing named where all is well."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
import vector_rows  # noqa: F401 - registers the checks
from desk import recorded
from servers import postgres_18

from perfnb.areas.database.vector_filters import unindexed_filter
from perfnb.areas.database.vector_searches import setting, vector_searches
from perfnb.areas.database.vector_stores import index_memory, pgvector_version
from perfnb.areas.database.vector_traffic import single_inserts
from perfnb.areas.database.vectors import vector_index_missing
from perfnb.checklist import Checklist, run
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording

DIMENSIONS, ROWS = 384, 12_000
TABLE = f"""
CREATE EXTENSION vector; CREATE EXTENSION pg_stat_statements;
CREATE TABLE documents (id bigint PRIMARY KEY, tenant int NOT NULL, about jsonb NOT NULL, embedding vector({DIMENSIONS}));
INSERT INTO documents SELECT n, n % 150, jsonb_build_object('language', 'l' || n % 150),
    (SELECT array_agg(random()) FROM generate_series(1, {DIMENSIONS}) WHERE n > 0)::vector FROM generate_series(1, {ROWS}) n;
"""
COSINE = (
    "CREATE INDEX documents_embedding ON documents USING hnsw (embedding vector_cosine_ops) WITH (ef_construction = 32)"
)
IVF = "CREATE INDEX documents_lists ON documents USING ivfflat (embedding vector_cosine_ops) WITH (lists = 60)"
NEAREST = "SELECT id FROM documents ORDER BY embedding <=> %s::vector LIMIT 10"
MANY = "SELECT id FROM documents ORDER BY embedding <=> %s::vector LIMIT 90"
EUCLIDEAN = "SELECT id FROM documents ORDER BY embedding <-> %s::vector LIMIT 10"
TENANT = "SELECT id FROM documents WHERE tenant = 7 ORDER BY embedding <=> %s::vector LIMIT 10"
LANGUAGE = "SELECT id FROM documents WHERE about ->> 'language' = 'l7' ORDER BY embedding <=> %s::vector LIMIT 10"

VECTOR_CAUSES = {
    "vector-index-missing", "wrong-vector-index", "vector-build-parameters", "vector-search-parameters",
    "missing-results", "unindexed-filter", "single-inserts",
}  # fmt: skip


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with postgres_18({"max_parallel_workers_per_gather": "0"}) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for statement in TABLE.split(";\n"):
                connection.execute(statement)
        with psycopg.connect(dsn, autocommit=True) as connection:  # the loader has told its rows when it left
            connection.execute("VACUUM ANALYZE documents")
        yield dsn


@pytest.fixture(scope="module")
def with_index(dsn: str) -> Iterator[str]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(COSINE)
        yield dsn
        connection.execute("DROP INDEX documents_embedding")


def search(dsn: str, statement: str, times: int = 40, before: Sequence[str] = ()) -> None:
    draw = random.Random(1)
    with psycopg.connect(dsn, autocommit=True, application_name="desk") as connection:
        for each in before:
            connection.execute(each)
        for _ in range(times):
            connection.execute(statement, [str([draw.random() for _ in range(DIMENSIONS)])])


def searched(folder: Path, dsn: str, statement: str, before: Sequence[str] = ()) -> Recording:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_statements_reset()")
    return recorded(folder, dsn, lambda: search(dsn, statement, before=before))


def named(folder: Path, dsn: str, statement: str, before: Sequence[str] = ()) -> Checklist:
    return run(searched(folder, dsn, statement, before), area="database")


def missing(folder: Path, dsn: str, statement: str) -> Finding:
    """Return vector-index-missing, however quick the machine searches; no other cause of vectors is named."""
    made = searched(folder, dsn, statement)
    assert set(of_vectors(run(made, area="database"))) <= {"vector-index-missing"}
    found = vector_index_missing(made, Objectives.load(folder), min_ms=0)
    assert isinstance(found, Finding)
    return found


def of_vectors(found: Checklist) -> list[str]:
    return [each.cause for each in found.findings if each.cause in VECTOR_CAUSES]


def test_no_index(tmp_path: Path, dsn: str) -> None:
    first = missing(tmp_path, dsn, NEAREST)
    assert "12,000 vectors" in first.title
    assert first.share > 0.5


def test_a_filter_by_a_member_of_json_without_any_index(tmp_path: Path, dsn: str) -> None:
    made = recorded(tmp_path, dsn, lambda: search(dsn, LANGUAGE))
    said = unindexed_filter(made, Objectives.load(tmp_path), min_ms=0)  # how long it takes is the machine's affair
    assert isinstance(said, Finding)
    assert "a member of about of public.documents" in said.title


def test_one_list_of_many(tmp_path: Path, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(IVF)
    try:
        assert of_vectors(named(tmp_path, dsn, NEAREST)) == ["vector-search-parameters"]
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP INDEX documents_lists")


def test_nothing_where_all_is_well(tmp_path: Path, with_index: str) -> None:
    found = named(tmp_path, with_index, NEAREST)
    assert of_vectors(found) == []
    assert "vector-search-parameters" in {each.cause for each in found.not_measured}, "recall is for the tuner"


def test_a_limit_above_ef_search(tmp_path: Path, with_index: str) -> None:
    found = named(tmp_path, with_index, MANY)
    assert of_vectors(found) == ["missing-results"]
    assert "exactly the 40 rows" in next(each.title for each in found.findings if each.cause == "missing-results")


def test_a_limit_above_ef_search_with_an_iterative_scan(tmp_path: Path, with_index: str) -> None:
    found = named(tmp_path, with_index, MANY, before=["SET hnsw.iterative_scan = relaxed_order"])
    assert of_vectors(found) == []


def test_a_filter_without_an_iterative_scan(tmp_path: Path, with_index: str) -> None:
    with psycopg.connect(with_index, autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")  # as on tables of more rows
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET enable_seqscan = off")
    try:
        found = named(tmp_path, with_index, TENANT)
    finally:
        with psycopg.connect(with_index, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {connection.info.dbname} RESET enable_seqscan")
    assert "missing-results" in of_vectors(found)
    first = next(each for each in found.findings if each.cause == "missing-results")
    assert "of about 80 that meet the condition" in first.title


def test_another_operator_than_the_index_serves(tmp_path: Path, with_index: str) -> None:
    assert "serves cosine distance" in missing(tmp_path, with_index, EUCLIDEAN).title


STORE = "INSERT INTO notes VALUES (%s, 1, '{}', %s::vector)"


def store(dsn: str, *, together: bool, count: int = 120) -> None:
    """Look up a row, committed each, as often as vectors are stored: in one transaction or each in its own."""
    rows = [(1_000_000 + number, str([0.5] * DIMENSIONS)) for number in range(count)]
    with psycopg.connect(dsn, autocommit=True, application_name="desk") as connection:
        for number, _ in rows:
            connection.execute("SELECT tenant FROM documents WHERE id = %s", [number])
        if together:
            with connection.transaction():
                connection.cursor().executemany(STORE, rows)
        else:
            for row in rows:
                connection.execute(STORE, row)


@pytest.mark.parametrize("together", [True, False])
def test_inserts_in_one_transaction_are_told_from_those_committed_one_by_one(
    tmp_path: Path, dsn: str, together: bool
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_statements_reset()")
        connection.execute("CREATE TABLE notes (LIKE documents)")
        made = recorded(tmp_path, dsn, lambda: store(dsn, together=together))
        connection.execute("DROP TABLE notes")
    said = single_inserts(made, Objectives.load(tmp_path), min_share=0)
    assert isinstance(said, Clear) or not together
    assert isinstance(said, Finding) or together


def test_what_the_catalog_tells_of_vectors(tmp_path: Path, with_index: str) -> None:
    made = recorded(tmp_path, with_index, lambda: search(with_index, NEAREST))
    (row,) = vector_searches(made).to_dict("records")
    assert (row["table"], row["column"], row["dimensions"], row["operator"]) == ("public.documents", "embedding", DIMENSIONS, "<=>")  # fmt: skip
    assert (row["method"], row["why_not"], row["rows_per_call"]) == ("hnsw", "", 10)
    assert row["options"] == {"ef_construction": "32"}
    assert pgvector_version(made) >= (0, 7)
    assert setting(made, "hnsw.ef_search").value == "40"
    (memory,) = index_memory(made).to_dict("records")
    assert memory["build_bytes"] == pytest.approx(ROWS * (4 * DIMENSIONS + 8) * 1.3, rel=0.02)
    assert memory["index_bytes"] > 0
    assert memory["fits_build"]
