from pathlib import Path
from typing import Any

import pytest
from builders import Row, answer, recording
from statement_rows import catalog
from table_rows import MB, foreign_key, index, primary, server, table

import perfnb.areas.database
from perfnb.areas.database.index_copies import redundant
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding

MESSAGES = "public.messages"
HOME = [*table(MESSAGES), *primary(MESSAGES), *index("public.messages_session", MESSAGES, "session_id", "id")]
BUSY = [
    *table(MESSAGES, grown={"inserted": 6000}), *primary(MESSAGES),
    *index("public.messages_session", MESSAGES, "session_id", "id", scanned=300),
]  # fmt: skip


def idle(name: str = "public.messages_role", *keys: str, **facts: Any) -> list[Row]:
    return index(name, MESSAGES, *(keys or ("role",)), **({"scans": 0} | facts))


def asked(folder: Path, cause: str, *rows: list[Row]) -> Finding | Clear | str:
    """Return the answer, or what is missing for one."""
    try:
        return answer(folder, cause, catalog=[row for part in rows for row in part])
    except NotMeasured as missing:
        return missing.hint


# what there is besides a used index, and whether an index is called unused: yes, no, or not to be told
UNUSED = [
    ("none", [server(), HOME], "no"),
    ("one", [server(), HOME, idle()], "yes"),
    ("a vector index", [server(), HOME, idle("public.m_hnsw", "embedding", method="hnsw")], "yes"),
    ("at the size", [server(), HOME, idle(bytes=MB, )], "no"),  # half a percent of the database, and not written
    ("at the size, written", [server(), BUSY, idle(bytes=MB)], "yes"),
    ("under the size", [server(), BUSY, idle(bytes=MB - 1)], "no"),
    ("scanned once", [server(), HOME, idle(scans=1)], "no"),
    ("unknown scans", [server(), HOME, idle(scans=None)], "no"),
    ("unique", [server(), HOME, idle(is_unique=True)], "no"),
    ("constraint", [server(), HOME, idle(constraint="messages_excluded")], "no"),
    ("replica identity", [server(), HOME, idle(is_replica_identity=True)], "no"),
    ("clustered", [server(), HOME, idle(is_clustered=True)], "no"),
    ("leant on", [server(), HOME, idle(references=["public.ratings.fk"])], "no"),
    ("of a foreign key", [server(), HOME, idle("public.by_topic", "topic_id"), foreign_key(MESSAGES, "topic_id", "public.topics")], "no"),
    ("invalid", [server(), HOME, idle(is_valid=False)], "no"),
    ("being built", [server(), HOME, idle(is_building=True, is_valid=False)], "no"),
    ("a copy", [server(), HOME, idle("public.messages_of", "session_id")], "no"),
    ("of a partition", [server(), table("public.m1", relation="partition"), index("public.m1_role", "public.m1", "role", scans=0)], "no"),
    ("of an extension", [server(), HOME, table("cron.job"), index("cron.job_x", "cron.job", "x", scans=0)], "no"),
    ("a week", [server(days=7), HOME, idle()], "yes"),
    ("six days", [server(days=6.9), HOME, idle()], "?"),
    ("an hour, busy", [server(days=0.04), BUSY, idle()], "yes"),
    ("an hour, written but not read", [server(days=0.04), table(MESSAGES, grown={"inserted": 6000}), idle(), index("public.o", MESSAGES, "o")], "?"),
    ("an hour, little written", [server(days=0.04), table(MESSAGES, grown={"inserted": 4999}), idle(), index("public.o", MESSAGES, "o", scanned=300)], "?"),
    ("an hour, updates in place", [server(days=0.04), table(MESSAGES, grown={"updated": 6000, "hot_updated": 6000}), idle(), index("public.o", MESSAGES, "o", scanned=300)], "?"),
    ("an hour, none idle", [server(days=0.04), BUSY], "no"),
    ("standby", [server(is_in_recovery=True), HOME, idle()], "?"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "wanted"), [case[1:] for case in UNUSED], ids=[case[0] for case in UNUSED])
def test_unused(tmp_path: Path, rows: list[list[Row]], wanted: str) -> None:
    said = asked(tmp_path, "unused-index", *rows)
    assert {"yes": Finding, "no": Clear, "?": str}[wanted] is type(said), said


def test_unused_tells_what_it_costs_and_how_to_be_rid_of_it(tmp_path: Path) -> None:
    said = asked(
        tmp_path, "unused-index", server(replicas=2), BUSY, idle(), idle("public.by_length", "length(content)")
    )
    assert isinstance(said, Finding)
    assert said.symptom == "bytes"
    assert said.share == pytest.approx(10 / 200)
    told = " ".join(said.evidence)
    assert "12,000 entries were written" in told
    assert "2 standbys" in told
    assert "by_length: on an expression" in told
    assert 'DROP INDEX CONCURRENTLY "public"."messages_role";' in said.remedy


def test_an_index_that_is_new_is_not_judged(tmp_path: Path) -> None:
    new = [row for row in idle() if row["time"] == max(row["time"] for row in idle())]
    assert isinstance(asked(tmp_path, "unused-index", server(), HOME, new), Clear)


def first(*keys: str, **facts: Any) -> list[Row]:
    return index("public.a", MESSAGES, *keys, **facts)


def second(*keys: str, **facts: Any) -> list[Row]:
    return index("public.bb", MESSAGES, *keys, **facts)


# two indexes, and which of them the other makes needless
PAIRS = [
    ("equal", first("x"), second("x"), "public.bb"),
    ("equal, the longer name is used", first("x", scans=0), second("x"), "public.a"),
    ("equal, one is unique", first("x"), second("x", is_unique=True, scans=0), "public.a"),
    ("equal, both unique", first("x", is_unique=True), second("x", is_unique=True), "public.bb"),
    ("equal, one a constraint", first("x", is_unique=True, constraint="c"), second("x", is_unique=True), "public.bb"),
    ("equal, both constraints", first("x", is_unique=True, constraint="c"), second("x", is_unique=True, constraint="d"), None),
    ("first column", first("x"), second("x", "y"), "public.a"),
    ("first column, unique", first("x", is_unique=True), second("x", "y"), None),
    ("second column", first("y"), second("x", "y"), None),
    ("other order", first("y", "x"), second("x", "y"), None),
    ("descending", first("x", descending=[True]), second("x", "y"), None),
    ("operator class", first("x", opclasses=["text_pattern_ops"]), second("x"), None),
    ("collation", first("x", collations=["C"]), second("x"), None),
    ("predicate", first("x", predicate="(y IS NULL)"), second("x"), None),
    ("same predicate", first("x", predicate="(y IS NULL)"), second("x", predicate="(y IS NULL)"), "public.bb"),
    ("expression", first("lower(x)"), second("x"), None),
    ("same expression", first("lower(x)"), second("lower(x)"), "public.bb"),
    ("method", first("x", method="hash"), second("x"), None),
    ("first column of gin", first("x", method="gin"), second("x", "y", method="gin"), None),
    ("hnsw built alike", first("e", method="hnsw", options={"m": "16"}), second("e", method="hnsw", options={"m": "16"}), "public.bb"),
    ("hnsw built otherwise", first("e", method="hnsw", options={"m": "16"}), second("e", method="hnsw", options={"m": "32"}), None),
    ("includes more", first("x"), second("x", included=["y"]), "public.a"),
    ("includes other columns", first("x", included=["z"]), second("x", included=["y"]), None),
    ("includes what follows", first("x", included=["y"]), second("x", "y"), "public.a"),
    ("longer one unused", first("x"), second("x", "y", scans=0), None),
    ("longer one unused but unique", first("x"), second("x", "y", scans=0, is_unique=True), "public.a"),
    ("one invalid", first("x", is_valid=False), second("x"), None),
    ("on another table", first("x"), index("public.bb", "public.other", "x"), None),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "gone"), [case[1:] for case in PAIRS], ids=[case[0] for case in PAIRS])
def test_copies(tmp_path: Path, one: list[Row], other: list[Row], gone: str | None) -> None:
    made = recording(tmp_path, catalog=[*server(), *table(MESSAGES), *one, *other])
    assert list(redundant(made)["name"]) == ([gone] if gone else [])


def test_of_three_equal_ones_one_stays(tmp_path: Path) -> None:
    rows = [
        *first("x", "y"),
        *second("x", "y"),
        *index("public.ccc", MESSAGES, "x", "y"),
        *index("public.d", MESSAGES, "x"),
    ]
    found = redundant(recording(tmp_path, catalog=[*server(), *table(MESSAGES), *rows]))
    assert dict(zip(found["name"], found["cover"], strict=True)) == {
        "public.bb": "public.a", "public.ccc": "public.a", "public.d": "public.a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "is_found"),
    [
        ([first("x"), second("x")], True),
        ([first("x"), second("x", bytes=MB - 1)], False),
        ([first("x"), second("x", bytes=MB)], True),
        ([first("x"), second("y")], False),
    ],
)
def test_duplicate_index_judges_by_size(tmp_path: Path, rows: list[list[Row]], is_found: bool) -> None:
    said = asked(tmp_path, "duplicate-index", server(bytes=200 * MB), table(MESSAGES), *rows)
    assert isinstance(said, Finding) is is_found


BROKEN: dict[str, Any] = {"is_valid": False, "bytes": 16_384, "scans": 0}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([idle(**BROKEN)], 'REINDEX INDEX CONCURRENTLY "public"."messages_role";'),
        ([idle(**BROKEN, is_unique=True)], "first remove the rows that are there twice"),
        ([idle("public.messages_session_ccnew", "session_id", "id", **BROKEN)], 'DROP INDEX CONCURRENTLY "public"."messages_session_ccnew";'),
        ([idle("public.twin", "session_id", "id", **BROKEN)], 'DROP INDEX CONCURRENTLY "public"."twin";'),
    ],
)  # fmt: skip
def test_an_invalid_index_is_mended_or_dropped(tmp_path: Path, rows: list[list[Row]], said: str) -> None:
    found = asked(tmp_path, "duplicate-index", server(), HOME, *rows)
    assert isinstance(found, Finding)
    assert said in found.remedy


@pytest.mark.parametrize(
    "rows",
    [
        [idle(**BROKEN, is_building=True)],
        [
            idle(**BROKEN),
            catalog("progress", {"77": {"command": "REINDEX CONCURRENTLY", "index": "public.messages_role"}}),
        ],
        [table("public.few", live_rows=999, rows_estimated=999.0), index("public.x", "public.few", "x", **BROKEN)],
        [table("public.parts", relation="partitioned table"), index("public.x", "public.parts", "x", **BROKEN)],
    ],
)
def test_an_invalid_index_that_is_no_matter(tmp_path: Path, rows: list[list[Row]]) -> None:
    assert isinstance(asked(tmp_path, "duplicate-index", server(), HOME, *rows), Clear)


@pytest.mark.parametrize("cause", ["unused-index", "duplicate-index"])
def test_without_a_catalog_nothing_is_measured(tmp_path: Path, cause: str) -> None:
    assert "dsn" in str(asked(tmp_path, cause))


def test_the_area_has_its_checks() -> None:
    assert {"indexes", "missing_indexes", "maintenance", "space"} <= set(perfnb.areas.database.__all__)
