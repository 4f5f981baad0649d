from pathlib import Path
from typing import Any

import pytest
from builders import START, Row, answer, recording
from statement_rows import SERVER, Counted, catalog, counted, key, looks, requests, snapshots, traced

from perfnb.areas.database.buffers import cache_over_time
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding

SESSION = "SELECT id, preferences FROM sessions WHERE id = $1"
SEARCH = "SELECT id, title FROM documents ORDER BY embedding <=> $1::vector LIMIT $2"
OTHERS = (counted(SEARCH, calls=60, ms=6, rows=12),)


def sessions(rows: int = 8, changed: int = 0) -> list[Row]:
    before = {"live_rows": rows, "updated": 1000, "inserted": 8, "deleted": 0}
    tables = {
        "public.sessions": before,
        "public.documents": {"live_rows": 3000, "updated": 0, "inserted": 3000, "deleted": 0},
    }
    later = {"public.sessions": {"updated": 1000 + changed}}
    return catalog("table", tables, later=later) + catalog(
        "index", key("public.sessions", "id") | key("public.documents", "id")
    )


@pytest.mark.parametrize(
    ("one", "facts", "named"),
    [
        (counted(SESSION, calls=180, ms=4), {}, True),  # three times a request
        (counted(SESSION, calls=60, ms=6), {}, True),
        (counted(SESSION, calls=60, ms=0.1), {}, False),  # as every app does
        (counted(SESSION, calls=60, ms=1.5), {}, False),  # a fifth of the database's time, and 1.5 ms
        (counted(SESSION, calls=20, ms=20), {}, False),  # a third of the requests
        (counted(SESSION, calls=60, ms=6), {"rows": 100}, False),  # each row read less than twice
        (counted(SESSION, calls=60, ms=6), {"changed": 15}, True),
        (counted(SESSION, calls=60, ms=6), {"changed": 60}, False),  # changes as often as it is read
        (counted(SESSION, calls=60, ms=6, rows=3), {}, False),
        (counted("SELECT id FROM sessions WHERE name = $1", calls=60, ms=6), {}, False),  # not by a key
        (counted("SELECT id FROM sessions WHERE id = ANY($1)", calls=60, ms=6), {}, False),
        (counted("SELECT s.id FROM sessions s JOIN documents d ON d.id = s.doc WHERE s.id = $1", calls=60, ms=6), {}, False),
    ],
)  # fmt: skip
def test_uncached_session_reads(tmp_path: Path, one: Counted, facts: dict[str, int], named: bool) -> None:
    said = answer(
        tmp_path, "uncached-session-reads", statements=snapshots(one, *OTHERS), requests=requests(60),
        catalog=sessions(**facts),
    )  # fmt: skip
    assert isinstance(said, Finding) is named
    if isinstance(said, Clear):
        assert any(letter.isdigit() for letter in said.examined)


def test_a_row_read_since_long_before(tmp_path: Path) -> None:
    """A thousand rows are not read often in 20 s; the server counted since last week."""
    rows = snapshots(counted(SESSION, calls=60, ms=6), *OTHERS, before=90_000)
    said = answer(
        tmp_path, "uncached-session-reads", statements=rows, requests=requests(60), catalog=sessions(rows=1000)
    )
    assert isinstance(said, Finding)
    assert "1000 rows, each read about 90 times since the counters began; 0 changes" in said.evidence[1]
    assert "more than 60 reads" in said.title


def test_by_traces_with_the_catalog(tmp_path: Path) -> None:
    rows = traced(40, (SESSION.replace("$1", "%s"), 3, 5), ("SELECT id FROM documents LIMIT %s", 1, 5))
    said = answer(tmp_path, "uncached-session-reads", catalog=sessions(rows=4), **rows)
    assert isinstance(said, Finding)
    assert "3.0 calls and 15.0 ms a request" in said.evidence[0]


@pytest.mark.parametrize("missing", ["requests", "catalog", "statements"])
def test_session_reads_need_all_three(tmp_path: Path, missing: str) -> None:
    tables: dict[str, Any] = {
        "statements": snapshots(counted(SESSION, calls=60, ms=6)),
        "requests": requests(60),
        "catalog": sessions(),
    }
    with pytest.raises(NotMeasured):
        answer(tmp_path, "uncached-session-reads", **tables | {missing: []})


def counters(hit: float, read: float, *, wait_ms: float | None = None, seconds: int = 20) -> list[Row]:
    """Return samples each second of blocks found and read a second."""
    metrics = {"blocks_hit": hit, "blocks_read": read} | ({} if wait_ms is None else {"block_read_time_ms": wait_ms})
    return [
        {"time": START + second * 10**9, "source": "postgres", "entity": "database desk", "metric": name, "value": 5000.0 + each * second}
        for second in range(seconds + 1) for name, each in metrics.items()
    ]  # fmt: skip


def of_database(name: str, rows: list[Row]) -> list[Row]:
    return [row | {"entity": f"database {name}"} for row in rows]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (counters(0, 0) + of_database("shop", counters(50, 0)), "1000 blocks asked for, 100.0% found"),
        (of_database("a", counters(50, 0)) + counters(0, 0), "1000 blocks asked for, 100.0% found"),
        (counters(50, 0) + of_database("shop", counters(40, 10)), "1000 blocks asked for, 80.0% found"),
    ],
)
def test_databases_that_nobody_asked_have_no_ratio(tmp_path: Path, rows: list[Row], said: str) -> None:
    clear = answer(tmp_path, "low-cache-hit-ratio", samples=rows, catalog=BUFFERS)
    assert isinstance(clear, Clear)
    assert clear.examined.startswith(said)


def test_a_server_that_nobody_asked(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="nothing was read"):
        answer(tmp_path, "low-cache-hit-ratio", samples=counters(0, 0), catalog=BUFFERS)


BUFFERS = catalog("setting", {"shared_buffers": {"value": "256", "unit": "8kB"}}) + catalog(
    "database", {"desk": {"bytes": 50_000_000}}
)


@pytest.mark.parametrize(
    ("hit", "read", "timed_ms", "named"),
    [
        (500, 500, 2.0, True),
        (890, 215, 2.0, True),
        (9500, 500, 2.0, False),  # 95 %
        (100, 100, 2.0, False),  # few reads
        (500, 500, 0.05, False),  # nobody waits for them
    ],
)
def test_low_cache_hit_ratio(tmp_path: Path, hit: float, read: float, timed_ms: float, named: bool) -> None:
    statements = snapshots(
        counted(SEARCH, calls=60, ms=6, shared_blocks_read=100.0, shared_blocks_hit=20.0, block_read_time_ms=timed_ms)
    )
    said = answer(tmp_path, "low-cache-hit-ratio", samples=counters(hit, read), catalog=BUFFERS, statements=statements)
    assert isinstance(said, Finding) is named
    if isinstance(said, Finding):
        assert "100% of them are read by: SELECT id, title FROM documents" in said.evidence[2]
        assert said.share == pytest.approx(read / (hit + read))
        assert "statements spend 33% of their time reading blocks" in said.evidence[1]


def test_warming_up_is_not_it(tmp_path: Path) -> None:
    """Four thousand blocks in 20 s fit into shared buffers of five thousand: each may have been read once."""
    large = catalog("setting", {"shared_buffers": {"value": "5000", "unit": "8kB"}})
    statements = snapshots(counted(SEARCH, calls=60, ms=6, block_read_time_ms=3.0))
    for number, (settings, named) in enumerate([(large, False), (BUFFERS, True)]):
        said = answer(
            tmp_path / str(number),
            "low-cache-hit-ratio",
            samples=counters(100, 200),
            catalog=settings,
            statements=statements,
        )
        assert isinstance(said, Finding) is named


@pytest.mark.parametrize(("waits_for", "named"), [("IO", True), (None, False)])
def test_where_reads_are_not_timed_sessions_tell(tmp_path: Path, waits_for: str | None, named: bool) -> None:
    seen = looks(SEARCH, range(1, 19), wait_event_type=waits_for)
    said = answer(tmp_path, "low-cache-hit-ratio", samples=counters(500, 500), catalog=BUFFERS, activity=seen)
    assert isinstance(said, Finding) is named


def test_nothing_tells_whether_reads_are_waited_for(tmp_path: Path) -> None:
    said = answer(tmp_path, "low-cache-hit-ratio", samples=counters(500, 500), catalog=BUFFERS)
    assert isinstance(said, Clear)
    assert "track_io_timing is off" in said.examined


def test_a_reset_is_left_out(tmp_path: Path) -> None:
    rows = counters(900, 100)
    after = [row | {"value": row["value"] - 5000} for row in rows if row["time"] > START + 10 * 10**9]
    made = recording(tmp_path, samples=[row for row in rows if row["time"] <= START + 10 * 10**9] + after)
    frame = cache_over_time(made)
    assert len(frame) in (19, 20)
    assert (frame["blocks_read"] >= 0).all()
    assert frame["hit_ratio"].median() == pytest.approx(0.9)


def test_without_counters_the_cache_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "low-cache-hit-ratio", statements=snapshots(*OTHERS))


def primary(**facts: Any) -> list[Row]:
    return catalog("server", {SERVER: {"is_in_recovery": False, "replicas": 0} | facts})


def idle(seconds: int = 20) -> list[Row]:
    return looks("COMMIT", range(seconds), state="idle")


READS = tuple(counted(f"SELECT a{n} FROM t{n} WHERE b = $1", calls=600, ms=20, rows=30) for n in range(4))
WRITES = (counted("INSERT INTO t1 (a) VALUES ($1)", calls=600, ms=2),)
HOST = [
    {"time": START + n * 10**9, "source": "process", "entity": "pid 1", "metric": metric, "value": value}
    for n in range(10) for metric, value in (("cpu_percent", 50.0), ("cpu_of_host", 0.25))
]  # fmt: skip


@pytest.mark.parametrize(
    ("statements", "sessions_at_work", "facts", "named"),
    [
        (READS + WRITES, 3, {}, True),
        (READS + WRITES, 1, {}, False),
        (READS + WRITES, 3, {"is_in_recovery": True}, False),
        (READS[:1] + WRITES, 3, {}, False),  # mend that statement
        ((*READS, counted("UPDATE t SET a = $1", calls=600, ms=60)), 3, {}, False),
        ((*READS, counted("SELECT a FROM t FOR UPDATE", calls=600, ms=60)), 3, {}, False),
    ],
)
def test_read_load_on_primary(
    tmp_path: Path, statements: tuple[Counted, ...], sessions_at_work: int, facts: dict[str, Any], named: bool
) -> None:
    activity = looks(READS[0].query, range(1, 20), sessions=sessions_at_work) + idle()
    said = answer(
        tmp_path,
        "read-load-on-primary",
        statements=snapshots(*statements),
        activity=activity,
        catalog=primary(**facts),
        samples=HOST,
    )
    assert isinstance(said, Finding) is named


@pytest.mark.parametrize(("sessions_at_work", "named"), [(3, False), (9, True)])
def test_where_cores_are_not_known_eight_sessions_are_many(tmp_path: Path, sessions_at_work: int, named: bool) -> None:
    activity = looks(READS[0].query, range(1, 20), sessions=sessions_at_work) + idle()
    said = answer(tmp_path, "read-load-on-primary", statements=snapshots(*READS), activity=activity, catalog=primary())
    assert isinstance(said, Finding) is named


def test_waiting_for_locks_is_no_load(tmp_path: Path) -> None:
    activity = looks(READS[0].query, range(1, 20), sessions=9, wait_event_type="Lock") + idle()
    said = answer(tmp_path, "read-load-on-primary", statements=snapshots(*READS), activity=activity, catalog=primary())
    assert isinstance(said, Clear)
    assert said.examined.startswith("0.0 sessions at work on average of 20 looks")


def test_load_needs_sessions(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "read-load-on-primary", statements=snapshots(*READS), catalog=primary())
