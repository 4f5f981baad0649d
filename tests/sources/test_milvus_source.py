"""Milvus, read from Milvus Lite; a server's metrics page and answers from what they look like."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vector_servers import Written, points

from perfnb.errors import NotReachable
from perfnb.sources.milvus import Milvus
from perfnb.sources.milvus_rows import collection_rows, metric_values

pytest.importorskip("milvus_lite")
pytest.importorskip("pymilvus")

pytestmark = pytest.mark.filterwarnings("ignore")  # of grpc and pymilvus, which are not ours to mend


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return a closed file of Milvus Lite: docs has an HNSW index and one on tenant, notes none that is built."""
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import DataType, MilvusClient

    path = str(tmp_path_factory.mktemp("milvus") / "app.db")
    client = MilvusClient(path)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("body", DataType.FLOAT_VECTOR, dim=16)
    schema.add_field("tenant", DataType.VARCHAR, max_length=20)
    schema.add_field("meta", DataType.JSON)
    wanted = client.prepare_index_params()
    wanted.add_index("body", index_type="HNSW", metric_type="COSINE", params={"M": 8, "efConstruction": 40})
    wanted.add_index("tenant", index_type="INVERTED")
    client.create_collection("docs", schema=schema, index_params=wanted)
    rows = [{"id": n, "body": v, "tenant": f"t{n % 5}", "meta": {"a": n}} for n, v in enumerate(points(300, 16))]
    client.insert("docs", rows)
    client.create_collection("empty", schema=schema)
    client.close()
    server_manager_instance.release_server(path)
    yield path
    server_manager_instance.release_server(path)


def test_a_real_file_tells_rows_index_fields_and_what_can_be_filtered(file: str) -> None:
    written = Written()
    with Milvus(written, file, interval_s=60):
        pass
    known = written.things("collection")["docs"]
    assert (known["points"], known["indexed_points"], known["pending_points"]) == (300, 300, 0)
    assert (known["index"], known["distance"], known["dimensions"]) == ("hnsw", "cosine", 16)
    assert (known["mode"], known["status"]) == ("embedded", "finished")
    assert "is_loaded" not in known, "its app loads it, not we"
    assert known["payload"] == {"tenant": "varchar", "meta": "json"}
    assert known["fields"] == {"tenant": "inverted"}
    empty = written.things("collection")["empty"]
    assert "index" not in empty
    assert (empty["points"], empty["indexed_points"]) == (0, 0)
    assert written.values("collection docs")["points"] == 300
    assert "milvus_lite" in written.things("store")["embedded app.db"]["version"]
    assert str(Path(file).parent) not in json.dumps(written.rows), "no path of the machine"


def test_the_file_is_let_go_of(file: str) -> None:
    for _ in range(2):
        assert Milvus(Written(), file).probe().works


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotReachable, match="no embedded"):
        Milvus(Written(), str(tmp_path / "other.db")).__enter__()
    assert not (tmp_path / "other.db").exists()


def test_nobody_there_is_told_without_the_token() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    source = Milvus(Written(), f"http://127.0.0.1:{port}", environment={"MILVUS_TOKEN": "root:milvus-secret"})
    ready = source.probe()
    assert not ready.works
    assert str(port) in ready.found
    assert "secret" not in ready.found + ready.needs


METRICS = """\
# TYPE milvus_proxy_sq_latency histogram
milvus_proxy_sq_latency_bucket{node_id="1",query_type="search",le="+Inf"} 40
milvus_proxy_sq_latency_sum{node_id="1",query_type="search"} 800
milvus_proxy_sq_latency_count{node_id="1",query_type="search"} 40
milvus_proxy_sq_latency_sum{node_id="1",query_type="query"} 5
milvus_proxy_sq_latency_count{node_id="1",query_type="query"} 9
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 5e+08
"""


def test_searches_and_their_time_come_from_the_metrics_page() -> None:
    assert metric_values(METRICS) == {"searches": 40, "search_time_ms": 800, "memory_resident_bytes": 5e8}
    assert metric_values("") == {}
    assert metric_values("<html>") == {}


def described(*indexes: dict[str, Any], fields: list[dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """Return the properties that answers of a server give, by collection."""
    vector = {"name": "body", "type": SimpleNamespace(name="FLOAT_VECTOR"), "params": {"dim": "768"}}
    told = {"collection_name": "docs", "fields": fields or [vector]}
    state = {"state": SimpleNamespace(name="NotLoad")}
    rows = collection_rows(1, "m:19530", told, {"row_count": 5000}, state, indexes, {"engine": "milvus"})
    return {row["name"]: row["properties"] for table, row in rows if table == "catalog"}


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ({"index_type": "IVF_FLAT", "nlist": "1024"}, {"index": "ivf_flat", "build": {"nlist": 1024}}),
        ({"index_type": "IVF_SQ8", "params": '{"nlist": 64}'}, {"quantization": "scalar", "build": {"nlist": 64}}),
        ({"index_type": "HNSW", "M": "16", "efConstruction": "200"}, {"build": {"M": 16, "efConstruction": 200}}),
        ({"index_type": "FLAT"}, {"index": "flat"}),
        ({"index_type": "HNSW", "indexed_rows": 3000, "pending_index_rows": 2000}, {"indexed_points": 3000, "pending_points": 2000}),
        ({"index_type": "HNSW", "params": "not json"}, {"index": "hnsw"}),
    ],
)  # fmt: skip
def test_an_index_is_read_as_servers_word_it(index: dict[str, Any], expected: dict[str, Any]) -> None:
    known = described({"field_name": "body", **index})["docs"]
    assert expected.items() <= known.items()
    assert (known["dimensions"], known["is_loaded"]) == (768, False)


def test_of_several_vector_fields_each_is_a_collection() -> None:
    two = [{"name": name, "type": SimpleNamespace(name="FLOAT_VECTOR"), "params": {"dim": 8}} for name in ("a", "b")]
    known = described({"field_name": "a", "index_type": "HNSW"}, fields=two)
    assert set(known) == {"docs/a", "docs/b"}
    assert known["docs/b"]["indexed_points"] == 0
