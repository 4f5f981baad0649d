from collections.abc import Iterator

import psycopg
import pytest
import servers
from hypothesis import given
from hypothesis import strategies as st

from perfnb.sources.postgres.bloat import bloat_fraction, row_bytes

INT = {"average_bytes": 4, "null_fraction": 0, "fixed_bytes": 4, "alignment": "i"}
BIGINT = {"average_bytes": 8, "null_fraction": 0, "fixed_bytes": 8, "alignment": "d"}
TEXT = {"average_bytes": 21, "null_fraction": 0, "fixed_bytes": -1, "alignment": "i"}


@pytest.mark.parametrize(
    ("columns", "size"),
    [
        ([INT], 24 + 8),
        ([INT, BIGINT], 24 + 16),
        ([INT, INT, BIGINT], 24 + 16),
        ([INT, TEXT], 24 + 32),
        ([INT, TEXT | {"average_bytes": 200}], 24 + 208),
        ([INT, TEXT | {"null_fraction": 0.5}], 24 + 16),
        ([INT] * 9 + [TEXT | {"null_fraction": 1}], 32 + 40),
    ],
)
def test_a_row_is_as_long_as_the_server_makes_it(columns: list[dict[str, object]], size: float) -> None:
    assert row_bytes(columns) == size


def test_what_can_not_be_told_is_not_told() -> None:
    assert bloat_fraction(100, 10, []) is None
    assert bloat_fraction(-1, 10, [INT]) is None
    assert bloat_fraction(100, 0, [INT]) is None
    assert bloat_fraction(100, 10, [INT, TEXT | {"average_bytes": None}]) is None


@given(
    st.floats(1, 1e9),
    st.integers(1, 10**7),
    st.lists(st.sampled_from([INT, BIGINT, TEXT, TEXT | {"average_bytes": 9000}]), min_size=1),
    st.integers(10, 100),
)
def test_it_is_a_fraction(rows: float, pages: int, columns: list[dict[str, object]], fillfactor: int) -> None:
    told = bloat_fraction(rows, pages, columns, fillfactor=fillfactor)
    assert told is not None
    assert 0 <= told < 1


@pytest.fixture(scope="module")
def connection() -> Iterator[psycopg.Connection]:
    with servers.postgres_18() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ("id int, made timestamptz, body text", "n, now(), repeat('x', n % 60)"),
        ("id bigint, flag bool, price numeric(10, 2), note text", "n, n % 2 = 0, n / 7.0, nullif(n % 3, 0)::text"),
        ("id uuid, body text", "gen_random_uuid(), repeat(md5(n::text), 10)"),
    ],
)
@pytest.mark.parametrize("kept", [1, 2, 10])
def test_the_estimate_is_near_what_is_there(connection: psycopg.Connection, columns: str, rows: str, kept: int) -> None:
    connection.execute("DROP TABLE IF EXISTS t")
    connection.execute(f"CREATE TABLE t ({columns}) WITH (autovacuum_enabled = off)")
    connection.execute(f"INSERT INTO t SELECT {rows} FROM generate_series(1, 30000) AS n")
    before = connection.execute("SELECT pg_relation_size('t') / 8192").fetchone()[0]
    connection.execute(f"DELETE FROM t WHERE hashtext(t::text) % {kept} <> 0")
    connection.execute("VACUUM ANALYZE t")
    total, pages = connection.execute("SELECT reltuples, relpages FROM pg_class WHERE relname = 't'").fetchone()
    known = connection.execute(
        "SELECT avg_width, null_frac, attlen, attalign FROM pg_attribute JOIN pg_stats USING (attname) "
        "WHERE attrelid = 't'::regclass AND tablename = 't' AND attnum > 0 ORDER BY attnum"
    ).fetchall()
    names = ("average_bytes", "null_fraction", "fixed_bytes", "alignment")
    told = bloat_fraction(total, pages, [dict(zip(names, row, strict=True)) for row in known])
    connection.execute("VACUUM FULL t")
    after = connection.execute("SELECT pg_relation_size('t') / 8192").fetchone()[0]
    assert told == pytest.approx(1 - after / pages, abs=0.1)
    assert before >= pages
