from pathlib import Path
from typing import Any

import pytest
from builders import Row, answer, recording
from statement_rows import Counted, catalog, counted, requests, snapshots
from vector_rows import BY_JSON, FILTERED, SEARCH, collection, extension, index, settings, table

from perfnb.areas.database.vector_stores import advisories, index_memory, vector_columns
from perfnb.areas.database.vectors import waiting
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding

OTHER = counted("SELECT id FROM messages WHERE session_id = $1", calls=60, ms=1)


def judged(
    folder: Path, cause: str, one: Counted | None = None, objects: list[Row] | None = None, **more: Any
) -> Finding | Clear:
    statements = snapshots(*(each for each in (one, OTHER) if each))
    return answer(folder, cause, statements=statements, catalog=objects or [], requests=requests(60), **more)


SLOW = counted(SEARCH, calls=60, ms=40, rows=5)
JSON_INDEX = catalog("index", {"public.about": {"table": "public.documents", "method": "btree", "keys": ["(about ->> 'language'::text)"]}})  # fmt: skip


@pytest.mark.parametrize(
    ("one", "objects", "why"),
    [
        (SLOW, table(), "no HNSW or IVFFlat index"),
        (SLOW, table(9_000), None),  # exact is as fast
        (counted(SEARCH, calls=60, ms=2, rows=5), table(), None),  # fast for all that
        (counted(SEARCH, calls=1, ms=40, rows=5), table(), None),  # hardly ever
        (SLOW, table() + index(), None),
        (SLOW, table() + index("ivfflat"), None),
        (SLOW, table() + index(is_building=True), "still being built"),
        (SLOW, table() + index(is_valid=False), "not valid"),
        (SLOW, table() + index(opclass="vector_l2_ops"), "serves Euclidean distance"),
        (counted(SEARCH.replace("<=>", "<->"), calls=60, ms=40), table() + index(), "serves cosine distance"),
        (counted("SELECT id FROM documents ORDER BY embedding <=> $1 DESC LIMIT $2", calls=60, ms=40), table() + index(), "DESC"),
        (counted("SELECT id FROM documents ORDER BY embedding <=> $1", calls=60, ms=40), table() + index(), "no LIMIT"),
        (counted("SELECT id, 1 - (embedding <=> $1) AS s FROM documents ORDER BY s DESC LIMIT $2", calls=60, ms=40), table() + index(), "DESC"),
        (counted("SELECT id FROM documents ORDER BY 1 - (embedding <=> $1) LIMIT $2", calls=60, ms=40), table() + index(), "expression"),
        (SLOW, table() + index(key="((embedding)::halfvec(256))", opclass="halfvec_cosine_ops"), "its index is on"),
        (counted("SELECT id FROM documents ORDER BY embedding::halfvec(256) <=> $1 LIMIT $2", calls=60, ms=40),
         table() + index(key="((embedding)::halfvec(256))", opclass="halfvec_cosine_ops"), None),
        (SLOW, table(scanned=60) + index(grown=0), "passes its index over"),
        (SLOW, table(scanned=15, looked_up=83) + index(grown=0), "passes its index over"),  # a filter's index serves it
        (SLOW, table(looked_up=60) + index(grown=60), None),
        (SLOW, table() + index(grown=0), None),  # none of its scans was counted yet
        (counted(SEARCH, calls=12, ms=40), table(scanned=12) + index(grown=0), None),  # too few to tell
        (SLOW, table(scanned=60) + index(later={"scans": None}), None),
        (SLOW, table() + index("btree", key="id", opclass="int8_ops"), "no HNSW or IVFFlat index"),
        (counted(BY_JSON, calls=60, ms=40, rows=5), table(), None),  # its filter's index is missing
        (counted(FILTERED, calls=60, ms=40, rows=5), table(), None),
        (counted("SELECT id FROM documents WHERE is_deleted = $1 ORDER BY embedding <=> $2 LIMIT $3", calls=60, ms=40), table(), "no HNSW"),
        (counted("SELECT id FROM names ORDER BY name <-> $1 LIMIT 5", calls=60, ms=40), table(), None),  # trigrams, not vectors
    ],
)  # fmt: skip
def test_vector_index_missing(tmp_path: Path, one: Counted, objects: list[Row], why: str | None) -> None:
    said = judged(tmp_path, "vector-index-missing", one, objects)
    assert isinstance(said, Finding) is (why is not None)
    if isinstance(said, Finding):
        assert why in said.title
        assert said.symptom == "database time"
        assert said.share > 0.9
    else:
        assert any(letter.isdigit() for letter in said.examined)


def test_a_vector_too_wide_for_an_index_is_to_be_indexed_in_half_precision(tmp_path: Path) -> None:
    said = judged(tmp_path, "vector-index-missing", SLOW, table(kind="vector(3072)"))
    assert isinstance(said, Finding)
    assert "(embedding::halfvec(3072)) halfvec_cosine_ops" in said.remedy


def test_the_remedy_names_the_index_that_serves_the_search(tmp_path: Path) -> None:
    said = judged(tmp_path, "vector-index-missing", SLOW, table())
    assert isinstance(said, Finding)
    assert "CREATE INDEX CONCURRENTLY ON public.documents USING hnsw (embedding vector_cosine_ops)" in said.remedy


@pytest.mark.parametrize("kind", ["vector", "halfvec", "sparsevec"])
def test_a_column_without_dimensions_is_to_get_some_first(tmp_path: Path, kind: str) -> None:
    said = judged(tmp_path, "vector-index-missing", SLOW, table(kind=kind))
    assert isinstance(said, Finding)
    assert any(f"is {kind} without dimensions" in line for line in said.evidence)
    assert f"ALTER COLUMN embedding TYPE {kind}(N)" in said.remedy
    assert f"((embedding::{kind}(N)) {kind}_cosine_ops)" in said.remedy
    assert "(0)" not in f"{said.title} {said.evidence} {said.remedy}"


def test_an_index_on_a_cast_is_searched_in_the_same_words(tmp_path: Path) -> None:
    there = index(key="((embedding)::vector(256))")
    said = judged(tmp_path, "vector-index-missing", SLOW, table(kind="vector") + there)
    assert isinstance(said, Finding)
    assert "its index is on ((embedding)::vector(256)), the search on embedding" in said.remedy
    assert "USING hnsw ((embedding::vector(N)) vector_cosine_ops)" in said.remedy


def test_a_build_under_way_is_told(tmp_path: Path) -> None:
    building = catalog("progress", {"4711": {"command": "CREATE INDEX", "table": "public.documents", "phase": "building index: loading tuples", "done": 10, "total": 30}})  # fmt: skip
    said = judged(tmp_path, "vector-index-missing", SLOW, table() + index(is_building=True) + building)
    assert isinstance(said, Finding)
    assert any("10 of 30" in line for line in said.evidence)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({}, None),
        ({"indexed_points": 10_000, "status": "yellow"}, "being built"),
        ({"indexed_points": 0, "status": "grey"}, "waits for the next write"),
        ({"indexed_points": 0, "status": "red"}, "failed"),
        ({"indexed_points": 0, "indexing_threshold_kb": 0}, "switched off"),
        ({"points": 9_000, "indexed_points": 0}, None),
        ({"indexed_points": 29_000, "status": "yellow"}, None),  # the last few
        ({"points": 20_000, "indexed_points": 0, "segments": 8}, None),  # 8 segments below 10 MB of vectors
        ({"engine": "milvus", "index": None, "indexed_points": 0, "indexing_threshold_kb": None}, "no vector index"),
        (
            {"engine": "milvus", "index": "flat", "indexing_threshold_kb": None},
            None,
        ),  # exact by choice: wrong-vector-index
        ({"engine": "milvus", "indexed_points": 10_000, "indexing_threshold_kb": None}, "behind"),
        ({"points": None, "indexed_points": None}, None),
    ],
)
def test_collections_that_are_not_indexed(tmp_path: Path, facts: dict[str, Any], why: str | None) -> None:
    said = answer(tmp_path, "vector-index-missing", catalog=collection(**facts))
    assert isinstance(said, Finding) is (why is not None)
    if isinstance(said, Finding):
        assert why in said.title
        assert 0 < said.share <= 1


def test_a_small_collection_beside_a_large_one_weighs_little(tmp_path: Path) -> None:
    both = collection("small", indexed_points=0, status="grey") + collection("large", points=970_000, indexed_points=970_000)  # fmt: skip
    said = answer(tmp_path, "vector-index-missing", catalog=both)
    assert isinstance(said, Finding)
    assert said.share == pytest.approx(0.03)
    assert said.severity == "low"


def test_without_a_catalog_nothing_is_measured(tmp_path: Path) -> None:
    for cause in ("vector-index-missing", "wrong-vector-index", "unindexed-filter", "missing-results"):
        with pytest.raises(NotMeasured):
            answer(tmp_path / cause, cause, statements=snapshots(SLOW), requests=requests(60))


def test_the_backlog_of_each_collection(tmp_path: Path) -> None:
    frame = waiting(
        recording(tmp_path, catalog=collection("a", indexed_points=15_000, status="yellow") + collection("b"))
    )
    assert frame.set_index("name")["missing"].to_dict() == {"a": 0.5, "b": 0.0}


IVF = counted(SEARCH, calls=60, ms=150, rows=5)
LARGE = {"bytes": 9 * 2**30, "blocks_read": 0, "blocks_hit": 0}


@pytest.mark.parametrize(
    ("one", "objects", "title"),
    [
        (IVF, table() + index("ivfflat", options={"lists": "30"}), "IVFFlat"),
        (SLOW, table() + index("ivfflat", options={"lists": "30"}), None),  # quick enough
        (IVF, table() + index("ivfflat", options={"lists": "2"}), None),  # its lists are at fault
        (IVF, table() + index(), None),
        (SLOW, table() + settings(shared_buffers=2**31) + index(**LARGE, later={"blocks_read": 40_000, "blocks_hit": 10_000}), "times shared_buffers"),
        (SLOW, table() + settings(shared_buffers=2**31) + index(**LARGE, later={"blocks_read": 400, "blocks_hit": 100_000}), None),
        (SLOW, table() + settings(shared_buffers=2**34) + index(**LARGE, later={"blocks_read": 40_000, "blocks_hit": 10_000}), None),
        (None, collection(engine="milvus", index="flat"), "FLAT"),
        (None, collection(engine="milvus", index="flat", points=8_000), None),
        (None, collection(engine="milvus", index="ivf_sq8"), None),
        (None, collection(), None),
    ],
)  # fmt: skip
def test_wrong_vector_index(tmp_path: Path, one: Counted | None, objects: list[Row], title: str | None) -> None:
    said = judged(tmp_path, "wrong-vector-index", one, objects)
    assert isinstance(said, Finding) is (title is not None)
    if isinstance(said, Finding):
        assert title in said.title


@pytest.mark.parametrize(
    ("version", "notes"),
    [("0.7.4", 3), ("0.8.0", 2), ("0.8.2", 1), ("0.8.3", 0), ("0.8.5", 0), ("0.10.0", 0)],
)
def test_what_old_versions_suffer_from_is_a_note(tmp_path: Path, version: str, notes: int) -> None:
    assert len(advisories(recording(tmp_path, catalog=extension(version)))) == notes


def test_the_memory_of_an_index(tmp_path: Path) -> None:
    objects = table(20_000) + index() + settings(maintenance_work_mem=2**26, shared_buffers=2**27)
    (row,) = index_memory(recording(tmp_path, catalog=objects)).to_dict("records")
    assert row["build_bytes"] == pytest.approx(20_000 * (256 * 4 + 8) * 1.3)
    assert row["fits_build"]
    assert row["part_of_cache"] == pytest.approx(50_000_000 / 2**27)


def test_columns_of_vectors_and_what_indexes_them(tmp_path: Path) -> None:
    more = {"public.documents.half": {"type": "halfvec(3)", "position": 9}}
    frame = vector_columns(recording(tmp_path, catalog=table(columns=more) + index()))
    assert frame.set_index("column")[["type", "dimensions", "indexes"]].to_dict("index") == {
        "embedding": {"type": "vector", "dimensions": 256, "indexes": 1},
        "half": {"type": "halfvec", "dimensions": 3, "indexes": 0},
    }
