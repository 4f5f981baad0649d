"""Qdrant: its real engine in a folder, answers of the server's REST page, and the local mode that is refused."""

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from vector_servers import Written, shard, web_server

from perfnb.errors import NotPermitted, NotReachable, WrongUse
from perfnb.sources.qdrant import Qdrant, refuse_local
from perfnb.sources.qdrant_rows import collection_properties, metric_values, slow_filters

pytest.importorskip("qdrant_client")
pytest.importorskip("qdrant_edge")


@pytest.mark.parametrize("indexed", [False, True])
def test_a_real_shard_tells_points_backlog_settings_and_indexed_fields(tmp_path: Path, indexed: bool) -> None:
    shard(tmp_path / "docs", indexed=indexed).close()
    written = Written()
    with Qdrant(written, str(tmp_path / "docs"), interval_s=60):
        pass
    known = written.things("collection")["docs"]
    assert (known["points"], known["indexed_points"]) == (1200, 1200 if indexed else 0)
    assert known["build"] == {"m": 8, "ef_construct": 32}
    assert (known["index"], known["distance"], known["dimensions"], known["mode"]) == ("hnsw", "cosine", 16, "embedded")
    assert known["indexing_threshold_kb"] == 10
    assert known["fields"] == {"tenant": "integer"}
    assert written.values("collection docs")["points"] == 1200


def test_a_shard_that_an_app_has_open_is_left_alone(tmp_path: Path) -> None:
    opened = shard(tmp_path / "docs")
    with pytest.raises(NotPermitted, match="another process"):
        Qdrant(Written(), str(tmp_path / "docs")).__enter__()
    opened.close()
    assert Qdrant(Written(), str(tmp_path / "docs")).probe().works


def test_a_folder_without_a_shard_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotReachable, match="no shard"):
        Qdrant(Written(), str(tmp_path)).__enter__()


def test_local_mode_is_refused_with_the_reason(tmp_path: Path) -> None:
    from qdrant_client import QdrantClient

    with closing(QdrantClient(path=str(tmp_path / "local"))) as client:
        client.create_collection("docs", {})
        for where in (client, QdrantClient(":memory:"), ":memory:", tmp_path / "local"):
            with pytest.raises(WrongUse, match="exact search") as raised:
                refuse_local(where)
            assert "server" in raised.value.hint
    assert not Qdrant(Written(), ":memory:").probe().works
    refuse_local("http://127.0.0.1:6333")
    refuse_local(tmp_path)


INFO: dict[str, Any] = {
    "status": "yellow",
    "optimizer_status": "ok",
    "indexed_vectors_count": 12_000,
    "points_count": 30_000,
    "segments_count": 4,
    "config": {
        "params": {"vectors": {"size": 384, "distance": "Cosine"}},
        "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 0},
        "optimizer_config": {"indexing_threshold": 10_000, "flush_interval_sec": 5},
        "quantization_config": {"scalar": {"type": "int8"}},
    },
    "payload_schema": {"tenant": {"data_type": "keyword", "points": 30_000}},
    "a member that a later version adds": {},
}
METRICS = """\
# TYPE memory_resident_bytes gauge
memory_resident_bytes 900
# TYPE rest_responses_duration_seconds histogram
rest_responses_duration_seconds_sum{method="POST",endpoint="/collections/{name}/points/query",status="200"} 2.5
rest_responses_duration_seconds_count{method="POST",endpoint="/collections/{name}/points/query",status="200"} 100
rest_responses_duration_seconds_sum{method="PUT",endpoint="/collections/{name}/points",status="200"} 9
rest_responses_duration_seconds_count{method="PUT",endpoint="/collections/{name}/points",status="200"} 7
"""
PAGES: dict[str, Any] = {
    "/": {"title": "qdrant - vector search engine", "version": "1.19.0"},
    "/collections": {"result": {"collections": [{"name": "docs"}]}, "status": "ok"},
    "/collections/docs": {"result": INFO, "status": "ok"},
    "/issues": {"result": {"issues": [{"id": "docs/UNINDEXED_FIELD/lang", "description": "slow", "solution": {}}]}},
    "/metrics": METRICS,
    "/telemetry": {"result": {"app": {"system": {"ram_size": 1000}}}},
}


def test_a_server_tells_collections_slow_filters_memory_and_searches() -> None:
    written = Written()
    with web_server(PAGES, key="qdrant-secret") as url:
        with Qdrant(written, url, interval_s=60, environment={"QDRANT_API_KEY": "qdrant-secret"}):
            pass
        port = url.rpartition(":")[2]
    known = written.things("collection")["docs"]
    assert (known["status"], known["points"], known["indexed_points"], known["segments"]) == (
        "yellow",
        30_000,
        12_000,
        4,
    )
    assert (known["version"], known["mode"], known["quantization"]) == ("1.19.0", "server", "scalar")
    assert known["fields"] == {"tenant": "keyword"}
    assert known["slow_filters"] == ["lang"]
    assert written.things("store")[f"127.0.0.1:{port}"]["memory_limit_bytes"] == 1000 * 1024
    assert written.values("server") == {
        "memory_resident_bytes": 900, "memory_limit_bytes": 1000 * 1024, "searches": 100, "search_time_ms": 2500,
    }  # fmt: skip
    assert "qdrant-secret" not in json.dumps(written.rows)


def test_a_server_without_metrics_and_issues_still_tells_its_collections() -> None:
    written = Written()
    bare = {path: page for path, page in PAGES.items() if path in ("/", "/collections", "/collections/docs")}
    with web_server(bare) as url, Qdrant(written, url, interval_s=60, environment={}):
        pass
    assert written.things("collection")["docs"]["points"] == 30_000
    assert "slow_filters" not in written.things("collection")["docs"]


def test_a_key_that_is_missing_or_wrong_is_told() -> None:
    with web_server(PAGES, key="qdrant-secret") as url:
        for environment in ({}, {"QDRANT_API_KEY": "wrong-one"}):
            with pytest.raises(NotPermitted) as raised:
                Qdrant(Written(), url, environment=environment).__enter__()
            assert "QDRANT_API_KEY" in raised.value.hint
            assert "wrong-one" not in str(raised.value)


def test_what_is_no_qdrant_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        silent = server.getsockname()[1]
    with web_server({"/": "<html>"}) as url:
        for address in (f"http://127.0.0.1:{silent}", url):
            with pytest.raises(NotReachable):
                Qdrant(Written(), address, environment={}).__enter__()


def test_of_several_vectors_each_is_a_collection_with_its_own_settings() -> None:
    info = json.loads(json.dumps(INFO))
    info["config"]["params"]["vectors"] = {
        "title": {"size": 8, "distance": "Dot"},
        "body": {"size": 16, "distance": "Cosine", "hnsw_config": {"m": 32}},
    }
    body = collection_properties(info, "body")
    assert (body["dimensions"], body["build"]["m"], body["build"]["ef_construct"]) == (16, 32, 100)
    assert body["indexed_points"] == 6000, "vectors of both are counted together"
    assert collection_properties(info, "title")["distance"] == "dot"


def test_a_graph_that_is_switched_off_is_no_index_unless_tenants_have_theirs() -> None:
    info = json.loads(json.dumps(INFO))
    info["config"]["hnsw_config"]["m"] = 0
    assert collection_properties(info, "")["index"] is None
    info["config"]["hnsw_config"]["payload_m"] = 16
    assert collection_properties(info, "")["index"] == "hnsw"


def test_an_optimizers_error_is_told_without_its_words() -> None:
    known = collection_properties({**INFO, "optimizer_status": {"error": "value 'anna' of point 7"}}, "")
    assert known["optimizer"] == "error"


@pytest.mark.parametrize(
    ("issues", "found"),
    [
        ({}, {}),
        ({"result": {"issues": []}}, {}),
        ({"result": {"issues": [{"id": "docs/UNINDEXED_FIELD/meta.lang"}]}}, {"docs": ["meta.lang"]}),
        ({"result": {"issues": [{"id": "UNINDEXED_FIELD:docs:lang"}, {"code": "OTHER"}]}}, {"docs": ["lang"]}),
        ({"result": {"issues": [{}]}}, {}),
    ],
)
def test_issues_name_fields_that_slow_searches_down(issues: dict[str, Any], found: dict[str, list[str]]) -> None:
    assert slow_filters(issues) == found


@pytest.mark.parametrize("page", ["", "<html>not metrics</html>", 'x{a="b'])
def test_a_page_that_is_no_metrics_tells_nothing(page: str) -> None:
    assert metric_values(page, {}) == {}
