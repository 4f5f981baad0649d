"""Advice beyond a setting: LIMIT, operators, builds, memory, filters; each fires, stays quiet, and sits on the edge."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.tuner import Candidate, Description, Pick, Point
from perfnb.tuner.advice import advice
from perfnb.tuner.build import build_bytes, judged, lists_for, nlist_for, probes_for
from perfnb.tuner.engines.base import as_percent, values_for
from perfnb.tuner.statement import statement_advice

DESCRIBED = Description(
    "pgvector 0.8.5 on PostgreSQL 18.4", "public.docs.embedding", 50_000, 768, "cosine", "hnsw docs_idx",
    build={"m": 16, "ef_construction": 64}, index_rows=50_000, now={"hnsw.ef_search": "40", "hnsw.iterative_scan": "off"},
)  # fmt: skip
POINT = Point(
    filter="all rows", selectivity=1.0, candidate="", setting="hnsw.ef_search = 80", parameter="hnsw.ef_search", value=80,
    family="hnsw", part="choosing", queries=200, recall=0.96, recall_low=0.95, recall_high=0.97, recall_worst5=0.7,
    recall_worst5_low=0.6, recall_worst5_high=0.8, p50_ms=1.0, p95_ms=2.0, rows=10.0, missing=0.0, used="docs_idx",
)  # fmt: skip


def picked(point: Point, settings: "dict[str, object]") -> Pick:
    return Pick(point.filter, point.candidate, point.setting, settings, True, True, point, "why")


def told(
    described: Description = DESCRIBED,
    points: "tuple[Point, ...]" = (),
    picks: "tuple[Pick, ...]" = (),
    k: int = 10,
    candidates: "tuple[Candidate, ...]" = (),
) -> str:
    return "\n".join(advice(described, points, picks, k, candidates))


@pytest.mark.parametrize(
    ("ef", "mode", "k", "fires"),
    [
        ("40", "off", 41, True),
        ("40", "off", 40, False),
        ("40", "relaxed_order", 100, False),
        ("100", "off", 100, False),
    ],
)
def test_a_limit_above_ef_search_loses_rows(ef: str, mode: str, k: int, fires: bool) -> None:
    described = replace(DESCRIBED, now={"hnsw.ef_search": ef, "hnsw.iterative_scan": mode})
    assert (f"returns {ef} rows at most" in told(described, k=k)) is fires


@pytest.mark.parametrize(("index_rows", "fires"), [(24_999, True), (25_000, False), (50_000, False), (None, False)])
def test_an_index_built_before_the_data(index_rows: int | None, fires: bool) -> None:
    assert ("built before the data" in told(replace(DESCRIBED, index_rows=index_rows))) is fires


@pytest.mark.parametrize(("missing", "fires"), [(0.5, True), (0.011, True), (0.01, False), (0.0, False)])
def test_rows_that_a_filter_loses(missing: float, fires: bool) -> None:
    point = replace(POINT, filter="tenant on 1 %", missing=missing, rows=2.5)
    assert ("fewer rows than there are" in told(points=(point,))) is fires


def test_a_selective_filter_wants_an_index_of_its_own_and_an_order_that_is_nearly_right_a_sort() -> None:
    selective = replace(POINT, filter="tenant on 1 %", selectivity=0.01)
    wide = replace(POINT, filter="tenant on 50 %", selectivity=0.5)
    assert "btree" in told(picks=(picked(selective, {}),))
    assert "btree" not in told(picks=(picked(wide, {}),))
    assert "btree" not in told(replace(DESCRIBED, engine="Qdrant 1.19"), picks=(picked(selective, {}),))
    relaxed = picked(wide, {"hnsw.ef_search": 40, "hnsw.iterative_scan": "relaxed_order"})
    assert "sort them again" in told(picks=(relaxed,))


def test_small_tables_large_tables_and_rows_that_no_index_holds() -> None:
    assert "an exact scan is fast" in told(replace(DESCRIBED, rows=9_999))
    assert "an exact scan is fast" not in told(replace(DESCRIBED, rows=10_000))
    assert "no vector index: every search reads them all" in told(replace(DESCRIBED, index=None))
    assert "3 rows are in no vector index: their vector is null" in told(replace(DESCRIBED, unindexed={"null": 3}))


def test_the_fastest_candidate_is_named_only_among_several() -> None:
    slow, fast = (replace(POINT, candidate=name, p50_ms=ms) for name, ms in (("rebuilt", 2.0), ("halfvec", 1.0)))
    assert "halfvec is fastest" in told(picks=(picked(slow, {}), picked(fast, {})))
    assert "fastest" not in told(picks=(picked(slow, {}),))


@pytest.mark.parametrize(
    ("copied", "low", "fires"),
    [(50_000, 0.95, True), (20_000, 0.95, False), (50_000, 0.85, False), (50_000, 0.82, False)],
)
def test_an_index_that_is_worse_than_one_built_anew(copied: int, low: float, fires: bool) -> None:
    """Only where the copy holds all rows: recall is higher on fewer."""
    old = replace(POINT, recall=0.8, recall_low=0.75, recall_high=0.85)
    anew = replace(POINT, candidate="rebuilt", recall=0.97, recall_low=low, recall_high=0.98)
    made = Candidate("rebuilt", "anew", "", copied, 1.0, 1)
    assert ("built anew" in told(points=(old, anew), candidates=(made,))) is fires


@pytest.mark.parametrize(
    ("method", "build", "rows", "says"),
    [
        ("ivfflat", {"lists": 100}, 20_000, "about 20 are advised"),  # as is often advised for up to 100,000 rows
        ("ivfflat", {"lists": 20}, 20_000, ""),
        ("ivfflat", {"lists": 40}, 20_000, ""),
        ("ivfflat", {"lists": 41}, 20_000, "about 20"),
        ("ivfflat", {"lists": 10_000}, 10_000_000, "about 3162"),
        ("hnsw", {"m": 16, "ef_construction": 64}, 20_000, ""),
        ("hnsw", {"m": 40, "ef_construction": 64}, 20_000, "below twice m"),
        ("ivf", {"nlist": 1024}, 65_536, ""),
        ("ivf", {"nlist": 16}, 1_000_000, "√n to 4·√n"),
        ("flat", {}, 20_000, ""),
    ],
)
def test_build_parameters_are_judged_by_rows(method: str, build: dict[str, int], rows: int, says: str) -> None:
    found = "; ".join(str(each) for each in judged(method, build, rows))
    assert (says in found) if says else not found


@given(st.integers(1, 100_000_000))
def test_lists_grow_with_rows(rows: int) -> None:
    assert lists_for(rows) >= 1
    assert lists_for(rows) <= lists_for(rows * 2)
    assert 1 <= probes_for(lists_for(rows)) <= lists_for(rows)
    assert 1 <= nlist_for(rows) <= 65_536


def test_memory_of_a_build_is_rows_times_vectors() -> None:
    assert build_bytes(1_000_000, 1536) == round(1_000_000 * (4 * 1536 + 8) * 1.3)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SELECT id FROM docs ORDER BY embedding <=> $1 LIMIT 10", ""),
        ("SELECT id FROM docs ORDER BY embedding <=> $1 LIMIT $2", ""),
        ("SELECT id FROM docs ORDER BY embedding <-> $1 LIMIT 10", "the index is for <=> (cosine)"),
        ("SELECT id FROM docs ORDER BY embedding <=> $1 DESC LIMIT 10", "descending"),
        ("SELECT id, 1 - (embedding <=> $1) AS s FROM docs ORDER BY s DESC LIMIT 10", "an expression around <=>"),
        ("SELECT id FROM docs ORDER BY embedding <=> $1", "no LIMIT"),
        ("SELECT id FROM docs ORDER BY embedding <=> $1 LIMIT 100", "it gets 40 at most"),
        ("SELECT id FROM docs ORDER BY embedding <=> $1 LIMIT 20", "give k=20"),
        ("SELECT id FROM docs ORDER BY id LIMIT 10", "no distance operator"),
        ("SELECT id FROM docs ORDER BY", "could not be read"),
    ],
)
def test_what_keeps_a_statement_from_the_index(statement: str, says: str) -> None:
    found = "; ".join(statement_advice(statement, DESCRIBED, 10))
    assert (says in found) if says else not found


@pytest.mark.parametrize(
    ("counts", "part", "expected"),
    [
        ({"a": 100, "b": 10, "c": 1}, 0.1, ("a",)),
        ({"a": 100, "b": 10, "c": 1}, 0.01, ("b",)),
        ({"a": 140, "b": 10}, 0.1, ("a",)),  # within a factor of 1.5
        ({"a": 400, "b": 40, "c": 40}, 0.08, ("b", "c")),
        ({"a": 900}, 0.1, ()),
        ({}, 0.1, ()),
        ({"a": 1000}, 0.0001, ()),  # less than a row
    ],
)
def test_values_of_a_column_that_a_part_of_the_rows_hold(
    counts: dict[str, int], part: float, expected: tuple[str, ...]
) -> None:
    assert values_for(counts, 1000, part) == expected


@given(st.dictionaries(st.integers(0, 50), st.integers(1, 400), max_size=30), st.sampled_from([0.1, 0.01, 0.001]))
def test_values_make_about_the_part_or_nothing(counts: dict[int, int], part: float) -> None:
    total = max(1, sum(counts.values()))
    if chosen := values_for(counts, total, part):
        rows = sum(counts[each] for each in chosen)
        assert part * total / 1.5 <= rows <= part * total * 1.5


def test_parts_are_written_as_people_do() -> None:
    assert [as_percent(part) for part in (1.0, 0.334, 0.1, 0.01, 0.001)] == ["100 %", "33 %", "10 %", "1 %", "0.1 %"]
