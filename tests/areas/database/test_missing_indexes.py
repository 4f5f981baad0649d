from pathlib import Path
from typing import Any

import orjson
import pytest
from builders import START, Row, answer, recording
from statement_rows import Counted, counted, snapshots, traced
from table_rows import MB, columns, foreign_key, index, primary, server, table

from perfnb.areas.database.index_advice import KnownColumn, KnownTable, advice
from perfnb.areas.database.missing_indexes import suggested_indexes
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.sql import parsed

MESSAGES = "public.messages"
PAGES = 40 * MB / 8192

COLUMNS = {
    "id": KnownColumn("id", "bigint", -1.0),
    "session_id": KnownColumn("session_id", "text", 2000.0, width=8),
    "tenant_id": KnownColumn("tenant_id", "bigint", 50.0),
    "role": KnownColumn("role", "text", 3.0, width=6),
    "email": KnownColumn("email", "text", -0.9, width=24),
    "created_at": KnownColumn("created_at", "timestamp with time zone", -1.0),
    "deleted_at": KnownColumn("deleted_at", "timestamp with time zone", -0.2, null_fraction=0.8),
    "picked_at": KnownColumn("picked_at", "timestamp with time zone", -0.1, null_fraction=0.9),
    "content": KnownColumn("content", "text", -1.0, width=300),
    "tags": KnownColumn("tags", "text[]"),
    "about": KnownColumn("about", "jsonb"),
    "body": KnownColumn("body", "tsvector"),
}


def known(*there: tuple[str, ...], predicate: str = "", method: str = "btree") -> KnownTable:
    kept = [(f"i{at}", method, keys, predicate) for at, keys in enumerate(there)]
    return KnownTable(MESSAGES, 200_000, 40 * MB, COLUMNS, [("pkey", "btree", ("id",), ""), *kept])


def ddl(sql: str, of: KnownTable | None = None, *, rows: float | None = None) -> str:
    """Return what would be made for the outermost part of ``sql``: the keys and what follows them."""
    statement = parsed(sql)
    assert statement is not None
    found = advice(statement.parts[0], of or known(), rows_per_call=rows)
    return found.ddl.partition('ON "public"."messages" ')[2].rstrip(";") if found else ""


# statement, rows a call gives where that is all that matches, the index
WANTED = [
    ("SELECT id FROM messages WHERE session_id = $1", 80, '("session_id")'),
    ("SELECT id FROM public.messages WHERE session_id = $1", None, '("session_id")'),
    ("SELECT m.id FROM messages m WHERE m.session_id = $1 ORDER BY m.id DESC LIMIT $2", None, '("session_id", "id")'),
    ("SELECT id FROM messages WHERE session_id = $1 ORDER BY created_at DESC NULLS LAST LIMIT 5", None, '("session_id", "created_at" DESC NULLS LAST)'),
    ("SELECT id FROM messages WHERE session_id = $1 ORDER BY created_at DESC, id LIMIT 5", None, '("session_id", "created_at" DESC, "id")'),
    ("SELECT id FROM messages WHERE session_id = $1 ORDER BY created_at DESC, id DESC LIMIT 5", None, '("session_id", "created_at", "id")'),
    ("SELECT id FROM messages WHERE session_id = $1 ORDER BY created_at", None, '("session_id")'),
    ("SELECT id FROM messages WHERE session_id = $1 AND created_at > $2", 10, '("session_id", "created_at")'),
    ("SELECT id FROM messages WHERE session_id = $1 AND created_at > $2 ORDER BY id LIMIT 5", None, '("session_id", "created_at")'),
    ("SELECT id FROM messages WHERE role = $1 AND session_id = $2", 30, '("session_id")'),
    ("SELECT id FROM messages WHERE role = $1 AND tenant_id = $2", 900, '("tenant_id", "role")'),
    ("SELECT count(*) FROM messages WHERE session_id = $1", None, '("session_id")'),
    ("SELECT id FROM messages WHERE session_id IN ($1, $2)", 100, '("session_id")'),
    ("SELECT id FROM messages WHERE session_id = ANY($1) ORDER BY id LIMIT 5", None, '("session_id")'),
    ("SELECT id FROM messages WHERE lower(email) = $1", 1, "((LOWER(email)))".lower()),
    ("SELECT id FROM messages WHERE tenant_id = $1 AND deleted_at IS NULL ORDER BY created_at DESC LIMIT $2", None, '("tenant_id", "created_at") WHERE "deleted_at" IS NULL'),
    ("SELECT id FROM messages WHERE session_id = $1 AND picked_at IS NOT NULL", 1, '("session_id") WHERE "picked_at" IS NOT NULL'),
    ("UPDATE messages SET role = $1 WHERE session_id = $2", 70, '("session_id")'),
    ("DELETE FROM messages WHERE created_at < now() - interval $1", 50, '("created_at")'),
    ("SELECT id FROM messages WHERE created_at > $1", 50, '("created_at")'),
    ("SELECT id FROM messages ORDER BY created_at DESC LIMIT 20", None, '("created_at")'),
    ("SELECT id FROM messages WHERE about @> $1", 5, 'USING gin ("about" jsonb_path_ops)'),
    ("SELECT id FROM messages WHERE tags && $1", 5, 'USING gin ("tags")'),
    ("SELECT id FROM messages WHERE body @@ to_tsquery($1)", 5, 'USING gin ("body")'),
    ("SELECT id FROM messages WHERE content ILIKE $1", 5, 'USING gin ("content" gin_trgm_ops)'),
    ('SELECT id FROM "messages" WHERE "messages"."session_id" = $1 AND NOT "messages"."role" = $2', 5, '("session_id")'),
]  # fmt: skip

# statement, rows, indexes there are: nothing is to be made
NOT_WANTED = [
    ("all rows", "SELECT count(*) FROM messages", None, known()),
    ("no condition", "SELECT id FROM messages", 200_000, known()),
    ("most rows", "SELECT id FROM messages WHERE session_id = $1", 30_000, known()),
    ("few values", "SELECT id FROM messages WHERE role = $1", 66_000, known()),
    ("few values, counted", "SELECT count(*) FROM messages WHERE role = $1", None, known()),
    ("a range of unknown width", "SELECT sum(id) FROM messages WHERE created_at > $1", None, known()),
    ("inside or", "SELECT id FROM messages WHERE session_id = $1 OR email = $2", 5, known()),
    ("by its key", "SELECT content FROM messages WHERE id = $1", 1, known()),
    ("there is one", "SELECT id FROM messages WHERE session_id = $1", 5, known(("session_id",))),
    ("a longer one", "SELECT id FROM messages WHERE session_id = $1", 5, known(("session_id", "id"))),
    ("one in another order", "SELECT id FROM messages WHERE tenant_id = $1 AND role = $2", 5, known(("role", "tenant_id"))),
    ("among others compared", "SELECT id FROM messages WHERE tenant_id = $1 AND role = $2 AND session_id = ANY($3)", 20, known(("role", "tenant_id", "session_id", "email"))),
    ("after another compared", "SELECT id FROM messages WHERE role = $1 AND session_id = $2 ORDER BY id DESC LIMIT 5", None, known(("role", "session_id", "id"))),
    ("after one that is null", "SELECT id FROM messages WHERE deleted_at IS NULL AND session_id = $1", 20, known(("deleted_at", "session_id"))),
    ("after another, for a range", "SELECT id FROM messages WHERE role = $1 AND session_id = $2 AND created_at > $3", 5, known(("role", "session_id", "created_at"))),
    ("one by hash", "SELECT id FROM messages WHERE session_id = $1", 5, known(("session_id",), method="hash")),
    ("a quoted key", 'SELECT id FROM messages WHERE session_id = $1', 5, known(('"session_id"',))),
    ("the order is there", "SELECT id FROM messages WHERE session_id = $1 ORDER BY id DESC LIMIT 5", None, known(("session_id", "id"))),
    ("a gin is there", "SELECT id FROM messages WHERE tags && $1", 5, known(("tags",), method="gin")),
    ("order by wide text", "SELECT id FROM messages ORDER BY content LIMIT 5", None, known()),
    ("a function we do not know", "SELECT id FROM messages WHERE my_key(email) = $1", 1, known()),
    ("of another table", "SELECT 1 FROM sessions WHERE session_id = $1", 1, known()),
    ("json", "SELECT id FROM messages WHERE about = $1", 1, known()),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "rows", "wanted"), WANTED)
def test_what_is_wanted(sql: str, rows: float | None, wanted: str) -> None:
    assert ddl(sql, rows=rows) == wanted


@pytest.mark.parametrize(("sql", "rows", "of"), [case[1:] for case in NOT_WANTED], ids=[case[0] for case in NOT_WANTED])
def test_what_is_not_wanted(sql: str, rows: float | None, of: KnownTable) -> None:
    assert ddl(sql, of, rows=rows) == ""


# why the index that is there does not serve, statement, its keys, what is wanted
NOT_SERVED = [
    ("one between is not compared", "SELECT id FROM messages WHERE role = $1 AND session_id = $2", ("role", "tenant_id", "session_id"), '("session_id")'),
    ("its first is not compared", "SELECT id FROM messages WHERE session_id = $1", ("tenant_id", "session_id"), '("session_id")'),
    ("its first is a range", "SELECT id FROM messages WHERE id > $1 AND session_id = $2", ("created_at", "session_id"), '("session_id", "id")'),
    ("its first is inside or", "SELECT id FROM messages WHERE (role = $1 OR id = $2) AND session_id = $3", ("role", "session_id"), '("session_id")'),
    ("several values mix the order", "SELECT id FROM messages WHERE session_id = $1 AND role = ANY($2) ORDER BY id LIMIT 5", ("role", "session_id", "id"), '("session_id", "id")'),
    ("it ends too early", "SELECT id FROM messages WHERE role = $1 AND session_id = $2", ("role",), '("session_id")'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "there", "wanted"), [case[1:] for case in NOT_SERVED], ids=[case[0] for case in NOT_SERVED]
)
def test_an_index_that_does_not_serve(sql: str, there: tuple[str, ...], wanted: str) -> None:
    assert ddl(sql, known(there), rows=None if "LIMIT" in sql else 5) == wanted


def test_a_partial_index_serves_only_what_it_holds() -> None:
    partial = known(("session_id",), predicate="(deleted_at IS NULL)")
    assert ddl("SELECT id FROM messages WHERE session_id = $1", partial, rows=5) == '("session_id")'
    assert not ddl("SELECT id FROM messages WHERE session_id = $1 AND deleted_at IS NULL", partial, rows=5)


def test_a_longer_index_tells_which_one_it_replaces() -> None:
    statement = parsed("SELECT id FROM messages WHERE session_id = $1 ORDER BY id LIMIT 5")
    assert statement is not None
    found = advice(statement.parts[0], known(("session_id",)), rows_per_call=None)
    assert found is not None
    assert "does the work of i0" in found.note


def test_size_and_blocks_are_ranges() -> None:
    statement = parsed("SELECT id FROM messages WHERE session_id = $1")
    assert statement is not None
    found = advice(statement.parts[0], known(), rows_per_call=None)
    assert found is not None
    assert 1 * MB < found.size_bytes[0] < found.size_bytes[1] < 6 * MB
    assert found.matched_rows == 100
    assert 2 < found.blocks[0] < found.blocks[1] < 110


HISTORY = "SELECT role, content FROM messages WHERE session_id = $1 ORDER BY id DESC LIMIT $2"
STATISTICS = columns(
    MESSAGES, id={"distinct": -1.0}, session_id={"type": "text", "distinct": 2000.0}, content={"type": "text", "average_bytes": 300}
)  # fmt: skip
SCANNED = {"sequential_scans": 60, "sequential_rows": 60 * 200_000}
BASE = [*server(), *STATISTICS, *primary(MESSAGES)]


def scanning(**more: Any) -> Counted:
    given: dict[str, Any] = {
        "calls": 60,
        "ms": 25,
        "rows": 20,
        "shared_blocks_hit": PAGES,
        "shared_blocks_read": 0,
    } | more
    return counted(more.pop("query", HISTORY), **{name: value for name, value in given.items() if name != "query"})


def said(
    folder: Path, statement: Counted, *others: Counted, catalog: list[Row] | None = None, **tables: Any
) -> Finding | Clear:
    grown = tables.pop("grown", SCANNED)
    facts = tables.pop("facts", {})
    there = [*BASE, *table(MESSAGES, grown=grown, **facts)] if catalog is None else catalog
    return answer(folder, "missing-index", statements=snapshots(statement, *others), catalog=there, **tables)


def test_a_missing_index_is_found_with_its_definition(tmp_path: Path) -> None:
    found = said(tmp_path, scanning(), counted("SELECT 1 FROM flags", calls=600, ms=0.1))
    assert isinstance(found, Finding)
    assert found.symptom == "database time"
    assert found.share == pytest.approx(1500 / 1560)
    assert found.severity in ("high", "critical")
    assert 'CREATE INDEX CONCURRENTLY ON "public"."messages" ("session_id", "id");' in found.remedy
    assert found.estimate is not None
    assert found.estimate.low < found.estimate.high < 1 < found.estimate.before


@pytest.mark.parametrize(
    ("case", "is_found"),
    [
        ({}, True),
        ({"grown": {"index_scans": 60, "index_rows": 60 * 150_000}}, True),  # backwards by the primary key
        ({"grown": {"index_scans": 60, "index_rows": 60 * 300}}, False),
        ({"statement": {"shared_blocks_hit": PAGES * 0.19}}, False),
        ({"statement": {"shared_blocks_hit": PAGES * 0.21}}, True),
        ({"statement": {"calls": 2}}, False),
        ({"statement": {"ms": 1.9}}, False),
        ({"statement": {"ms": 2}}, True),
        ({"facts": {"live_rows": 9_999, "rows_estimated": 9_999.0}, "grown": {"sequential_rows": 60 * 9_999}}, False),
        ({"facts": {"live_rows": 10_000, "rows_estimated": 10_000.0}, "grown": {"sequential_rows": 60 * 10_000}}, True),
        ({"facts": {"heap_bytes": MB - 1}}, False),
        ({"facts": {"index_scans": 0, "index_rows": 0}}, True),  # never read by an index
        ({"facts": {"index_scans": None, "index_rows": None}}, True),
    ],
)
def test_when_it_is_judged(tmp_path: Path, case: dict[str, Any], is_found: bool) -> None:
    found = said(
        tmp_path, scanning(**case.get("statement", {})), grown=case.get("grown", SCANNED), facts=case.get("facts", {})
    )
    assert isinstance(found, Finding) is is_found


@pytest.mark.parametrize(("ms", "is_found"), [(2.5, False), (2.8, True)])
def test_it_must_be_a_part_of_the_databases_time(tmp_path: Path, ms: float, is_found: bool) -> None:
    found = said(tmp_path, scanning(ms=ms), counted("SELECT id FROM flags", calls=300, ms=10))
    assert isinstance(found, Finding) is is_found


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM messages",
        "SELECT id FROM messages ORDER BY embedding <=> $1 LIMIT $2",
        "SELECT id FROM messages WHERE session_id = $1 ORDER BY embedding <=> $2 LIMIT $3",
        "COPY messages TO STDOUT",
        "VACUUM messages",
        "SELECT id FROM messages WHERE (",
    ],
)
def test_statements_that_are_not_its_matter(tmp_path: Path, query: str) -> None:
    assert isinstance(said(tmp_path, scanning(query=query)), Clear)


def test_where_blocks_are_not_counted_sequential_scans_stand_for_them(tmp_path: Path) -> None:
    sent = traced(30, ("SELECT role FROM messages WHERE session_id = %s", 1, 20.0))
    found = {
        name: answer(tmp_path / name, "missing-index", catalog=[*BASE, *table(MESSAGES, grown=grown)], **sent)
        for name, grown in (("scanned", SCANNED), ("not", {"index_rows": 60 * 200_000}))
        if (tmp_path / name).mkdir() is None
    }
    assert isinstance(found["scanned"], Finding)
    assert isinstance(found["not"], Clear)


def test_a_plan_shows_it_too(tmp_path: Path) -> None:
    plan = [{"Plan": {"Node Type": "Seq Scan", "Relation Name": "messages", "Schema": "public", "Alias": "messages", "Filter": "(session_id = $1)", "Plan Rows": 100, "Total Cost": 9000.0, "Startup Cost": 0.0, "Plan Width": 8}}]  # fmt: skip
    shown = {
        "time": START,
        "queryid": "1000",
        "query": HISTORY,
        "plan": orjson.loads(orjson.dumps(plan)),
        "origin": "generic",
    }
    found = said(tmp_path, scanning(), plans=[shown])
    assert isinstance(found, Finding)
    assert "seen in plan" in found.evidence[0]


def test_a_join_from_few_rows_wants_an_index_on_the_other_side(tmp_path: Path) -> None:
    sql = "SELECT m.id FROM messages m JOIN sessions s ON s.id = m.session_id WHERE s.user_name = $1"
    found = said(tmp_path, scanning(query=sql))
    assert isinstance(found, Finding)
    assert '("session_id");' in found.remedy
    all_of_them = "SELECT m.id FROM messages m JOIN sessions s ON s.id = m.session_id"
    (tmp_path / "b").mkdir()
    assert isinstance(said(tmp_path / "b", scanning(query=all_of_them)), Clear)


def test_a_foreign_key_is_searched_when_its_target_is_deleted(tmp_path: Path) -> None:
    gone = counted("DELETE FROM sessions WHERE id = $1", calls=30, ms=20, shared_blocks_hit=PAGES, shared_blocks_read=0)
    keys = foreign_key(MESSAGES, "session_id", "public.sessions")
    there = [*BASE, *table(MESSAGES, grown={"sequential_rows": 30 * 200_000}), *keys]
    found = said(tmp_path, gone, catalog=there)
    assert isinstance(found, Finding)
    assert "Each row deleted from public.sessions is looked for here" in found.remedy
    (tmp_path / "b").mkdir()
    served = [*there, *index("public.by_session", MESSAGES, "session_id", "id")]
    assert isinstance(said(tmp_path / "b", gone, catalog=served), Clear)


def test_suggestions_of_one_statement_stand_once(tmp_path: Path) -> None:
    made = recording(
        tmp_path, statements=snapshots(scanning(), steps=3), catalog=[*BASE, *table(MESSAGES, grown=SCANNED)]
    )
    frame = suggested_indexes(made)
    assert list(frame["table"]) == [MESSAGES]
    assert frame["size_least_bytes"].iloc[0] <= frame["size_most_bytes"].iloc[0]


def test_what_is_needed_to_tell(tmp_path: Path) -> None:
    for name, given in (("a", {"statements": snapshots(scanning())}), ("b", {"catalog": BASE})):
        (tmp_path / name).mkdir()
        with pytest.raises(NotMeasured) as missing:
            answer(tmp_path / name, "missing-index", **given)
        assert "dsn" in missing.value.hint
