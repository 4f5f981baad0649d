import pytest

from perfnb.sources.postgres.server import BEGIN, LIMITS
from perfnb.sources.postgres.sql import MARK, QUERIES, query
from perfnb.sources.postgres.statements import _began_anew, columns

OLDEST = {
    "userid", "dbid", "queryid", "query", "plans", "total_plan_time", "calls", "total_exec_time", "min_exec_time",
    "max_exec_time", "mean_exec_time", "stddev_exec_time", "rows", "shared_blks_hit", "shared_blks_read",
    "shared_blks_dirtied", "shared_blks_written", "temp_blks_read", "temp_blks_written", "blk_read_time",
    "blk_write_time", "wal_records", "wal_bytes",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("activity", 130023, "activity.sql"),
        ("activity", 140000, "activity.pg14.sql"),
        ("activity", 190001, "activity.pg14.sql"),
        ("sample_server", 160014, "sample_server.pg14.sql"),
        ("sample_server", 170000, "sample_server.pg17.sql"),
        ("index_last_scans", 150018, None),
        ("index_last_scans", 160000, "index_last_scans.pg16.sql"),
        ("no_such", 180000, None),
        ("statement", 180000, None),
    ],
)
def test_each_version_gets_its_text(name: str, version: int, expected: str | None) -> None:
    assert query(name, version) == ((QUERIES / expected).read_text() if expected else "")


def test_what_is_sent_beside_the_files_is_marked_too() -> None:
    assert MARK in BEGIN
    assert MARK in LIMITS
    assert "READ ONLY" in BEGIN


@pytest.mark.parametrize(
    ("installed", "name", "expression"),
    [
        (OLDEST, "block_read_time_ms", "blk_read_time"),
        (OLDEST, "is_top_level", None),
        (OLDEST, "temp_block_time_ms", None),
        (OLDEST, "since_us", None),
        (OLDEST | {"toplevel"}, "is_top_level", "toplevel"),
        (OLDEST | {"shared_blk_read_time"}, "block_read_time_ms", "shared_blk_read_time"),
        (OLDEST | {"temp_blk_read_time", "temp_blk_write_time"}, "temp_block_time_ms", "temp_blk_read_time + temp_blk_write_time"),
        ((OLDEST - {"total_exec_time"}) | {"total_time"}, "total_exec_time_ms", "total_time"),
        (OLDEST, "wal_bytes", "wal_bytes::bigint"),
        (OLDEST - {"wal_bytes"}, "wal_bytes", None),
    ],
)  # fmt: skip
def test_columns_go_by_what_is_installed(installed: set[str], name: str, expression: str | None) -> None:
    assert columns(installed).get(name) == expression


def counted(*calls: int) -> dict[tuple[int, str, bool | None], int]:
    return {(10, str(number), None): count for number, count in enumerate(calls) if count}


@pytest.mark.parametrize(
    ("before", "now", "is_reset"),
    [
        (counted(*[5] * 20), counted(*[1] * 3), True),
        (counted(*[5] * 20), counted(), True),
        (counted(*[5] * 20), counted(*[6] * 20), False),
        (counted(*[5] * 20), counted(*[5] * 8), False),
        (counted(*[5] * 20), counted(*[0] * 20, *[1] * 20), False),
        (counted(5, 5), counted(), False),
        (counted(), counted(*[1] * 20), False),
    ],
)
def test_a_reset_is_told_from_eviction(before: dict, now: dict, is_reset: bool) -> None:
    assert _began_anew(before, now) is is_reset
