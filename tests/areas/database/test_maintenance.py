from pathlib import Path
from typing import Any

import pytest
from builders import START, Row, answer
from statement_rows import SERVER, catalog
from table_rows import DAY_NS, MB, NOW, columns, foreign_key, server, settings, table

from perfnb.areas.database import maintenance_statements as written
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding

MESSAGES = "public.messages"
DUE = 50 + 0.2 * 200_000


def said(folder: Path, cause: str, *rows: list[Row], **tables: Any) -> Finding | Clear:
    return answer(folder, cause, catalog=[row for part in rows for row in part], **tables)


def dead(rows: float, **facts: Any) -> list[Row]:
    return table(MESSAGES, dead_rows=round(rows), updated=500_000, **facts)


BLOAT = [
    ("none", [server(), dead(0)], False),
    ("due", [server(), dead(DUE)], False),
    ("under twice what is due", [server(), dead(2 * DUE - 1)], False),
    ("twice what is due", [server(), dead(2 * DUE)], True),
    ("few rows", [server(), table(MESSAGES, live_rows=4000, rows_estimated=4000.0, dead_rows=9_999)], False),
    ("a share of the space", [server(bytes=4000 * MB), dead(3 * DUE)], False),
    ("autovacuum set to come later", [server(), dead(3 * DUE, options={"autovacuum_vacuum_scale_factor": "0.9"})], False),
    ("autovacuum off: another check's", [server(), dead(5 * DUE, options={"autovacuum_enabled": "false"})], False),
    ("off altogether: another check's", [server(), dead(5 * DUE), settings(autovacuum="off")], False),
    ("being vacuumed", [server(), dead(5 * DUE), catalog("progress", {"7": {"command": "VACUUM", "table": MESSAGES}})], False),
    ("vacuumed meanwhile", [server(), dead(5 * DUE, last_autovacuum_at=START + 10**9)], False),
    ("vacuumed before", [server(), dead(5 * DUE, last_autovacuum_at=START - 10**9)], True),
    ("half free", [server(), table(MESSAGES, bloat_fraction=0.5)], True),
    ("under half free", [server(), table(MESSAGES, bloat_fraction=0.49)], False),
    ("half of little", [server(), table(MESSAGES, bloat_fraction=0.9, heap_bytes=11 * MB)], False),
    ("not estimated", [server(), table(MESSAGES, bloat_fraction=None)], False),
    ("temporary", [server(), dead(5 * DUE, persistence="temporary")], False),
    ("counts were lost in a crash", [server(), dead(2 * DUE, live_rows=0)], True),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "is_found"), [case[1:] for case in BLOAT], ids=[case[0] for case in BLOAT])
def test_bloat(tmp_path: Path, rows: list[list[Row]], is_found: bool) -> None:
    found = said(tmp_path, "table-bloat", *rows)
    assert isinstance(found, Finding) is is_found, found


def session(age: int, **columns: Any) -> Row:
    given = {"time": NOW, "server": SERVER, "pid": 9, "application": "reports", "state": "idle in transaction"}
    return given | {"transaction_start": NOW - 3600 * 10**9, "transaction_age": age} | columns


@pytest.mark.parametrize(("age", "words"), [(50_000, "reports (idle in transaction)"), (999, "no old transaction")])
def test_bloat_tells_what_holds_vacuum_back(tmp_path: Path, age: int, words: str) -> None:
    found = said(
        tmp_path, "table-bloat", server(), dead(5 * DUE), settings(autovacuum_naptime="3600"), activity=[session(age)]
    )
    assert isinstance(found, Finding)
    assert any(words in each for each in found.evidence)
    assert any("only every 60 minutes" in each for each in found.evidence)
    assert 'VACUUM (ANALYZE) "public"."messages";' in found.remedy


OFF = {"autovacuum_enabled": "false"}
DISABLED = [
    ("on", [server(), dead(0)], False),
    ("off", [server(), dead(0, options=OFF)], True),
    ("off, in another word", [server(), dead(0, options={"autovacuum_enabled": "off"})], True),
    ("true, which is the default", [server(), dead(0, options={"autovacuum_enabled": "true"})], False),
    ("off, small", [server(), dead(0, options=OFF, live_rows=999, rows_estimated=999.0)], False),
    ("off, thousand rows", [server(), dead(0, options=OFF, live_rows=1000, rows_estimated=1000.0)], True),
    ("off, never written", [server(), table(MESSAGES, options=OFF, inserted=999)], False),
    ("off, vacuumed by hand each night", [server(), dead(0, options=OFF, vacuums=9, last_vacuum_at=NOW - DAY_NS // 2)], False),
    ("off, vacuumed once", [server(), dead(0, options=OFF, vacuums=1, last_vacuum_at=NOW - DAY_NS // 2)], True),
    ("off, vacuumed by hand long ago", [server(), dead(0, options=OFF, vacuums=9, last_vacuum_at=NOW - 2 * DAY_NS)], True),
    ("off for all", [server(), dead(0), settings(autovacuum="off")], True),
    ("counts off", [server(), dead(0), settings(track_counts="off")], True),
    ("on for all", [server(), dead(0), settings(autovacuum="on", track_counts="on")], False),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "is_found"), [case[1:] for case in DISABLED], ids=[case[0] for case in DISABLED])
def test_autovacuum_disabled(tmp_path: Path, rows: list[list[Row]], is_found: bool) -> None:
    found = said(tmp_path, "autovacuum-disabled", *rows)
    assert isinstance(found, Finding) is is_found, found


def test_autovacuum_is_given_back(tmp_path: Path) -> None:
    found = said(tmp_path, "autovacuum-disabled", server(), dead(3 * DUE, options=OFF))
    assert isinstance(found, Finding)
    assert 'ALTER TABLE "public"."messages" RESET (autovacuum_enabled);' in found.remedy
    assert "ALTER SYSTEM" not in found.remedy


AGES = [
    ({"transaction_age": 50_000_000}, False),
    ({"transaction_age": 250_000_000}, False),  # autovacuum is at it
    ({"transaction_age": 399_999_999}, False),
    ({"transaction_age": 400_000_000}, True),
    ({"transaction_age": 10, "multixact_age": 799_000_000}, False),
    ({"transaction_age": 10, "multixact_age": 800_000_000}, True),
    ({"transaction_age": 2_000_000_000}, True),
]


@pytest.mark.parametrize(("ages", "is_found"), AGES)
def test_wraparound(tmp_path: Path, ages: dict[str, int], is_found: bool) -> None:
    found = said(
        tmp_path, "wraparound-risk", server(ages=ages), table(MESSAGES, transaction_age=ages["transaction_age"])
    )
    assert isinstance(found, Finding) is is_found


def test_wraparound_follows_the_servers_own_limit(tmp_path: Path) -> None:
    late = settings(autovacuum_freeze_max_age="1000000000")
    assert isinstance(said(tmp_path, "wraparound-risk", server(ages={"transaction_age": 800_000_000}), late), Clear)
    (tmp_path / "b").mkdir()
    found = said(tmp_path / "b", "wraparound-risk", server(ages={"transaction_age": 1_900_000_000}), late)
    assert isinstance(found, Finding)
    assert found.severity == "critical"
    assert found.share == pytest.approx(1.9e9 / 2**31)


def aged(table_name: str, **times: dict[str, float]) -> list[Row]:
    return columns(
        table_name, **{name: {"type": "timestamp with time zone", "older": parts} for name, parts in times.items()}
    )


OLD, NEW = {"60": 0.9, "90": 0.8, "180": 0.7}, {"60": 0.6, "90": 0.4, "180": 0.1}
STALE = [
    ("old messages", [table(MESSAGES), aged(MESSAGES, created_at=OLD)], True),
    ("half of them", [table(MESSAGES), aged(MESSAGES, created_at={"90": 0.5})], True),
    ("under half", [table(MESSAGES), aged(MESSAGES, created_at=NEW)], False),
    ("used since", [table(MESSAGES), aged(MESSAGES, created_at=OLD, last_active_at=NEW)], False),
    ("sessions by last use", [table("app.visits"), aged("app.visits", created_at=NEW, last_seen_at=OLD)], True),
    ("by its columns alone", [table("app.carts"), aged("app.carts", last_active_at=OLD)], True),
    ("what an app knows", [table("public.documents"), aged("public.documents", created_at=OLD)], False),
    ("hangs on sessions", [table("public.sessions"), table("public.lines"), aged("public.lines", created_at=OLD), aged("public.sessions", last_active_at=NEW), foreign_key("public.lines", "session_id", "public.sessions")], True),
    ("cleared up", [table(MESSAGES, deleted=20_000), aged(MESSAGES, created_at=OLD)], False),
    ("small", [table(MESSAGES, bytes=4 * MB), aged(MESSAGES, created_at=OLD)], False),
    ("few", [table(MESSAGES, live_rows=9_999, rows_estimated=9_999.0), aged(MESSAGES, created_at=OLD)], False),
    ("a small part of the space", [server(bytes=1000 * MB), table(MESSAGES), aged(MESSAGES, created_at=OLD)], False),
    ("no time at all", [table(MESSAGES), columns(MESSAGES, id={})], False),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "is_found"), [case[1:] for case in STALE], ids=[case[0] for case in STALE])
def test_stale_rows(tmp_path: Path, rows: list[list[Row]], is_found: bool) -> None:
    found = said(tmp_path, "stale-rows", *(rows if rows[0][0]["kind"] == "server" else [server(), *rows]))
    assert isinstance(found, Finding) is is_found, found


def test_stale_rows_without_statistics_are_not_measured(tmp_path: Path) -> None:
    bare = columns(MESSAGES, created_at={"type": "timestamp with time zone"})
    with pytest.raises(NotMeasured) as missing:
        said(tmp_path, "stale-rows", server(), table(MESSAGES), bare)
    assert "ANALYZE" in missing.value.hint


def test_cleanup_goes_children_first_and_counts_orphans(tmp_path: Path) -> None:
    rows = [
        table("public.sessions"), table(MESSAGES), aged("public.sessions", last_active_at=OLD),
        columns(MESSAGES, created_at={"type": "date", "older": OLD}, session_id={"type": "text"}, topic_id={}),
        table("public.topics"), foreign_key(MESSAGES, "session_id", "public.sessions"),
    ]  # fmt: skip
    found = said(tmp_path, "stale-rows", server(), *rows)
    assert isinstance(found, Finding)
    order = [found.remedy.index(f'DELETE FROM "public"."{name}" WHERE ctid = ANY(ARRAY(SELECT ctid') for name in ("messages", "sessions")]  # fmt: skip
    assert order == sorted(order)
    assert 'FROM "public"."topics" p WHERE p."id" = c."topic_id"' in found.remedy
    assert '"public"."sessions" p' not in found.remedy  # a foreign key guards it


@pytest.mark.parametrize("cause", ["table-bloat", "autovacuum-disabled", "stale-rows", "wraparound-risk"])
def test_without_a_catalog_nothing_is_measured(tmp_path: Path, cause: str) -> None:
    with pytest.raises(NotMeasured) as missing:
        answer(tmp_path, cause)
    assert "dsn" in missing.value.hint


@pytest.mark.parametrize("name", ['we"ird', "Upper", "select", "a; DROP TABLE x", "ünï"])
def test_names_are_quoted(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    assert written.quoted(f"public.{name}") == f'"public".{quoted}'
    assert quoted in written.delete_old("public.t", name, 90)
    assert quoted in written.drop_index(f"public.{name}")
