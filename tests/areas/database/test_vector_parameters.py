from pathlib import Path
from typing import Any

import pytest
from builders import Row, answer
from statement_rows import Counted, counted, requests, snapshots
from vector_rows import SEARCH, collection, index, settings, table

from perfnb.areas.database.vector_parameters import graph_off, lists_for, lists_off, nlist_off
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding

OTHER = counted("SELECT id FROM messages WHERE session_id = $1", calls=60, ms=1)
SLOW = counted(SEARCH, calls=60, ms=30, rows=5)
QUICK = counted(SEARCH, calls=60, ms=1, rows=5)


def judged(folder: Path, cause: str, one: Counted, objects: list[Row]) -> Finding | Clear:
    return answer(folder, cause, statements=snapshots(one, OTHER), catalog=objects, requests=requests(60))


@pytest.mark.parametrize(
    ("rows", "lists"), [(20_000, 20), (1_000_000, 1000), (4_000_000, 2000), (10_000_000, 3162), (100, 1)]
)
def test_the_rule_for_lists(rows: float, lists: int) -> None:
    assert round(lists_for(rows)) == lists


@pytest.mark.parametrize(
    ("lists", "rows", "is_off"),
    [
        (None, 100_000, False),  # the default of 100
        (100, 20_000, False),  # what the guides say; five times the rule
        (200, 22_000, False),
        (1000, 20_000, True),  # 20 rows a list
        (2, 40_000, True),
        (100, 1_000_000, True),
        (200, 1_000_000, False),
        (1000, 1_000_000, False),
        (100, 10_000_000, True),
    ],
)
def test_lists_far_off(lists: int | None, rows: float, is_off: bool) -> None:
    assert bool(lists_off(lists, rows)) is is_off


@pytest.mark.parametrize(
    ("m", "ef", "dimensions", "is_off"),
    [
        (None, None, 768, False),
        (16, 64, 768, False),
        (16, 100, 768, False),
        (64, 500, 768, False),
        (4, 64, 768, True),
        (4, 64, 16, False),
        (100, 64, 768, True),
        (16, 8, 768, True),
        (16, 1000, 768, True),
        (0, 100, 768, False),  # Qdrant: links for tenants only
    ],
)
def test_graphs_far_off(m: int | None, ef: int | None, dimensions: float, is_off: bool) -> None:
    assert bool(graph_off(m, ef, dimensions)) is is_off


@pytest.mark.parametrize(
    ("nlist", "rows", "is_off"),
    [(None, 1e5, False), (1024, 1e6, False), (1024, 1e5, False), (128, 1e6, False), (16, 1e6, True), (4096, 2e4, True), (1024, 5e7, False)],
)  # fmt: skip
def test_nlist_far_off(nlist: int | None, rows: float, is_off: bool) -> None:
    assert bool(nlist_off(nlist, rows)) is is_off


@pytest.mark.parametrize(
    ("one", "objects", "named"),
    [
        (SLOW, table(40_000) + index("ivfflat", options={"lists": "2"}), True),
        (SLOW, table(40_000) + index("ivfflat", options={"lists": "40"}), False),
        (SLOW, table(40_000) + index("ivfflat", options={"lists": "40"}, rows_at_build=1_000), True),  # before the data
        (SLOW, table(40_000) + index("ivfflat", options={"lists": "40"}, rows_at_build=-1), False),  # not known
        (SLOW, table(9_000) + index("ivfflat", options={"lists": "900"}), False),
        (SLOW, table() + index(options={"m": "4"}), True),
        (SLOW, table() + index(options={"m": "16", "ef_construction": "200"}), False),
        (SLOW, table() + index(), False),
        (QUICK, table(40_000) + index("ivfflat", options={"lists": "2"}), True),  # half of the database's time
        (counted(SEARCH, calls=5, ms=1), table(40_000) + index("ivfflat", options={"lists": "2"}), False),
        (SLOW, table(), False),
    ],
)
def test_vector_build_parameters(tmp_path: Path, one: Counted, objects: list[Row], named: bool) -> None:
    said = judged(tmp_path, "vector-build-parameters", one, objects)
    assert isinstance(said, Finding) is named
    if isinstance(said, Clear):
        assert any(letter.isdigit() for letter in said.examined)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({}, False),
        ({"build": {"m": 4, "ef_construct": 100}}, True),
        ({"build": {"m": 4, "ef_construct": 100}, "points": 5_000}, False),
        ({"engine": "milvus", "index": "ivf_flat", "build": {"nlist": 8}}, True),
        ({"engine": "milvus", "index": "ivf_flat", "build": {"nlist": 512}}, False),
        ({"engine": "milvus", "index": "autoindex", "build": None}, False),
        ({"engine": "redis", "build": {"m": 16, "ef_construction": 4}}, True),
    ],
)
def test_build_parameters_of_collections(tmp_path: Path, facts: dict[str, Any], named: bool) -> None:
    said = answer(tmp_path, "vector-build-parameters", catalog=collection(**facts))
    assert isinstance(said, Finding) is named


def test_without_a_catalog_build_parameters_are_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "vector-build-parameters", statements=snapshots(SLOW), requests=requests(60))


IVF = index("ivfflat", options={"lists": "200"})
GREEDY = settings(hnsw__ef_search=800)


@pytest.mark.parametrize(
    ("one", "objects", "why"),
    [
        (QUICK, table() + IVF, "1 of 200 lists"),
        (QUICK, table() + index("ivfflat"), "1 of 100 lists"),  # the default of 100
        (SLOW, table() + index() + GREEDY, "800 for 5 rows"),
        (
            counted(SEARCH, calls=60, ms=9, rows=50),
            table() + index() + settings(hnsw__ef_search=1000),
            "1,000 for 50 rows",
        ),
    ],
)
def test_vector_search_parameters(tmp_path: Path, one: Counted, objects: list[Row], why: str) -> None:
    said = judged(tmp_path, "vector-search-parameters", one, objects)
    assert isinstance(said, Finding)
    assert why in said.title


@pytest.mark.parametrize(
    ("one", "objects"),
    [
        (QUICK, table() + IVF + settings(ivfflat__probes=14)),
        (QUICK, table() + index("ivfflat", options={"lists": "20"})),
        (QUICK, table() + index()),
        (SLOW, table() + index() + settings(hnsw__ef_search=200)),
        (counted(SEARCH, calls=60, ms=9, rows=100), table() + index() + settings(hnsw__ef_search=800)),
        (counted(SEARCH, calls=60, ms=0.05, rows=5), table() + index() + GREEDY),  # costs nothing
        (counted(SEARCH, calls=60, ms=3, rows=40), table() + index()),  # missing-results
    ],
)
def test_what_is_not_provably_off_is_to_be_measured(tmp_path: Path, one: Counted, objects: list[Row]) -> None:
    with pytest.raises(NotMeasured) as raised:
        judged(tmp_path, "vector-search-parameters", one, objects)
    assert "tuner" in raised.value.hint


@pytest.mark.parametrize("objects", [table(), table() + index(opclass="vector_l2_ops")])
def test_without_an_index_there_is_nothing_to_set(tmp_path: Path, objects: list[Row]) -> None:
    assert isinstance(judged(tmp_path, "vector-search-parameters", SLOW, objects), Clear)


def test_probes_that_an_app_sets_are_not_known(tmp_path: Path) -> None:
    own = counted("SET LOCAL ivfflat.probes = $1", calls=60, ms=0.01, rows=0)
    with pytest.raises(NotMeasured):
        answer(
            tmp_path, "vector-search-parameters", statements=snapshots(QUICK, own), catalog=table() + IVF,
            requests=requests(60),
        )  # fmt: skip
