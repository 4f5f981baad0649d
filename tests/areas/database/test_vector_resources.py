from pathlib import Path
from typing import Any

import pytest
from builders import START, Row, answer, recording
from vector_rows import collection

from perfnb.areas.database.vector_resources import store_memory
from perfnb.errors import NotMeasured
from perfnb.finding import Finding


def watched(
    engine: str = "redis", *, eviction: str | None = None, vectors: bool = False, **values: Any
) -> dict[str, list[Row]]:
    """Return the samples of a store; of two values the first is at the beginning, the second at the end."""
    samples = [
        {"time": START + turn * 10**10, "source": engine, "entity": "server", "metric": metric, "value": float(value)}
        for metric, both in values.items()
        for turn, value in enumerate(both if isinstance(both, tuple) else (both, both))
    ]
    store = {"engine": engine, "mode": "server"} | ({"eviction": eviction} if eviction else {})
    objects = [{"time": START, "server": "localhost:1", "kind": "store", "name": "localhost:1", "properties": store}]
    return {"samples": samples, "catalog": objects + (collection(engine=engine) if vectors else [])}


FULL = {"memory_used_bytes": 99, "memory_limit_bytes": 100}


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (watched(**FULL, evictions=(0, 500), hits=(0, 100), misses=(0, 900), eviction="allkeys-lru"), "90% of 1,000 reads"),
        (watched(**FULL, evictions=(0, 500), hits=(0, 900), misses=(0, 100), eviction="allkeys-lru"), None),  # a cache at work
        (watched(**FULL, evictions=(500, 505), hits=(0, 1), misses=(0, 900)), None),
        (watched(**FULL, evictions=(9000, 9000), hits=(0, 1), misses=(0, 900)), None),  # long ago
        (watched(**FULL, evictions=(0, 500), vectors=True), "it holds vectors"),
        (watched(**FULL, evictions=(0, 0), vectors=True), None),
        (watched(**FULL, failed_commands=(0, 40), eviction="noeviction"), "refused 40"),
        (watched(memory_used_bytes=50, memory_limit_bytes=100, failed_commands=(0, 40), eviction="noeviction"), None),
        (watched("qdrant", memory_resident_bytes=95, memory_limit_bytes=100), "95% of its limit"),
        (watched("qdrant", memory_resident_bytes=60, memory_limit_bytes=100), None),
        (watched("milvus", memory_resident_bytes=95), None),  # no limit told
    ],
)  # fmt: skip
def test_vector_db_under_resourced(tmp_path: Path, rows: dict[str, list[Row]], why: str | None) -> None:
    said = answer(tmp_path, "vector-db-under-resourced", **rows)
    assert isinstance(said, Finding) is (why is not None)
    if isinstance(said, Finding):
        assert why in said.title
        assert 0 < said.share <= 1
    else:
        assert "in use" in said.examined or "not told" in said.examined


def test_a_container_named_like_a_store_stands_in_for_it(tmp_path: Path) -> None:
    samples = [
        {"time": START, "source": "docker", "entity": "container milvus-standalone", "metric": metric, "value": value}
        for metric, value in (("memory_bytes", 97.0), ("memory_limit_bytes", 100.0))
    ]
    said = answer(tmp_path, "vector-db-under-resourced", samples=samples)
    assert isinstance(said, Finding)
    assert "97%" in said.title


def test_a_store_that_nobody_watched_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "vector-db-under-resourced", catalog=collection())


def test_counters_are_of_the_time_observed(tmp_path: Path) -> None:
    rows = watched(hits=(1000, 1060), misses=(7, 3), evictions=(5, 5), searches=(10, 20), search_time_ms=(100, 400))
    (row,) = store_memory(recording(tmp_path, **rows)).to_dict("records")
    assert (row["hits"], row["misses"], row["evictions"]) == (60, 3, 0), "a counter that fell began anew"
    assert row["search_ms"] == 30
