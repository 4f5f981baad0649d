"""The tuner on Qdrant: its real engine in this process, the server's protocol through the client, local mode refused."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from vector_stores import ASKED, DIMENSIONS, ROWS, STORED, TENANTS, shard

from perfnb.errors import NotReachable, WrongUse
from perfnb.tuner import QdrantCollection, QdrantShard, Setting, tune


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantShard]:
    with shard(tmp_path_factory.mktemp("edge")) as found:
        yield found


def test_the_pick_meets_the_target(built: QdrantShard) -> None:
    tuning = tune(built, ASKED, target=0.9)
    assert tuning.pick is not None
    assert tuning.pick.is_met
    assert tuning.share_of_grid <= 1 / 3
    assert tuning.described["index_rows"] == ROWS


def test_the_truth_is_what_numpy_finds(built: QdrantShard) -> None:
    unit = STORED / np.linalg.norm(STORED, axis=1, keepdims=True)
    for query in ASKED[:5]:
        assert set(built.exact(query, 10, None).ids) == set(np.argsort(-unit @ query)[:10].tolist())


def test_ef_rises_with_recall(built: QdrantShard) -> None:
    truth = [set(built.exact(query, 10, None).ids) for query in ASKED[:50]]
    found = {
        ef: [set(built.search(query, 10, Setting("hnsw", "hnsw_ef", ef), None).ids) for query in ASKED[:50]]
        for ef in (10, 200)
    }
    hits = {ef: sum(len(one & true) for one, true in zip(each, truth, strict=True)) for ef, each in found.items()}
    assert hits[10] < 0.8 * hits[200]


def test_filters_are_made_from_a_field_and_tried_with_acorn(built: QdrantShard) -> None:
    (made,) = built.filters("tenant", (0.01,))
    assert made.rows == ROWS // TENANTS
    assert built.filtered(made.condition).rows == made.rows
    assert [each.name for each in built.families(10, made)] == ["hnsw", "hnsw, acorn"]
    tuning = tune(built, ASKED, choosing=50, held_back=50, target=0.9, filter_column="tenant", selectivities=(0.1,))
    assert [each.filter for each in tuning.picks] == ["all rows", "tenant on 10 %"]
    assert all(each.is_met for each in tuning.picks)


def test_compressed_vectors_are_judged_by_rows_not_by_their_own_distances(tmp_path: Path) -> None:
    import qdrant_edge as edge

    with shard(tmp_path, quantization=edge.BinaryQuantizationConfig()) as found:
        assert not found.describe().by_distance
        tuning = tune(found, choosing=40, held_back=40, target=0.9)
        alone = tuning.frame.query("family == 'compressed alone'")
        assert alone["recall"].max() < 0.9
        assert "rescored, 4 times" in set(tuning.frame["family"])


def test_a_shard_that_was_not_optimised_has_nothing_to_tune(tmp_path: Path) -> None:
    with shard(tmp_path, is_built=False) as found:
        tuning = tune(found, ASKED[:20])
        assert tuning.pick is not None
        assert not tuning.pick.settings
        assert any("no vector is indexed" in note for note in tuning.described["notes"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_local_mode_is_refused_with_the_reason() -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    client.create_collection("docs", vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    with pytest.raises(WrongUse, match="hnsw_ef does nothing"):
        QdrantCollection(client, "docs")
    client.close()


class Server(BaseHTTPRequestHandler):
    """The part of Qdrant's HTTP interface that the tuner uses, answered by the embedded engine."""

    engine: QdrantShard
    asked: list[dict[str, Any]]

    def do_GET(self) -> None:
        if self.path == "/":
            return self.answer({"title": "qdrant", "version": "1.19.0"}, is_bare=True)
        if "docs" not in self.path:
            return self.refuse()
        params = {"vectors": {"size": DIMENSIONS, "distance": "Cosine"}}
        optimizers = {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        }
        config = {
            "params": params,
            "hnsw_config": {"m": 8, "ef_construct": 50, "full_scan_threshold": 1},
            "optimizer_config": optimizers,
        }
        counts = {"points_count": ROWS, "indexed_vectors_count": ROWS, "segments_count": 1}
        return self.answer(
            {"status": "green", "optimizer_status": "ok", "config": config, "payload_schema": {}, **counts}
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        if "/facet" in self.path:
            return self.answer({"hits": [{"value": at, "count": ROWS // TENANTS} for at in range(TENANTS)]})
        params = body.get("params") or {}
        if params.get("exact"):
            found = self.engine.exact(body["query"], body["limit"], None)
        else:
            found = self.engine.search(
                body["query"], body["limit"], Setting("hnsw", "hnsw_ef", params["hnsw_ef"]), None
            )
        points = [{"id": one, "version": 1, "score": -far} for one, far in zip(found.ids, found.distances, strict=True)]
        return self.answer({"points": points})

    def answer(self, result: Any, *, is_bare: bool = False) -> None:
        told = result if is_bare else {"result": result, "status": "ok", "time": 0.00025}
        self.send(200, told)

    def refuse(self) -> None:
        self.send(404, {"status": {"error": "Not found: Collection doesn't exist!"}, "time": 0.0})

    def send(self, status: int, told: Any) -> None:
        text = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def served(engine: QdrantShard) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    from qdrant_client import QdrantClient

    asked: list[dict[str, Any]] = []
    handler = type("Handler", (Server,), {"engine": engine, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    client = QdrantClient(url=f"http://127.0.0.1:{server.server_port}", check_compatibility=False)
    try:
        yield client, asked
    finally:
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_is_asked_with_each_setting_and_its_own_time_is_taken(built: QdrantShard) -> None:
    with served(built) as (client, asked):
        collection = QdrantCollection(client, "docs")
        assert collection.describe().build == {"m": 8, "ef_construction": 50}
        tuning = tune(collection, ASKED[:120], target=0.8)
        found = collection.filters("tenant", (0.01,))
        assert found[0].rows == ROWS // TENANTS
        collection.search(ASKED[0], 10, Setting("hnsw, acorn", "hnsw_ef", 40, (("acorn", True),)), found[0])
    assert tuning.described["engine"] == "Qdrant 1.19.0"
    assert tuning.pick is not None
    assert set(tuning.frame["p50_ms"].round(6)) == {0.25}
    assert asked[-1]["params"]["acorn"]["enable"] is True
    assert asked[-1]["filter"]["must"][0]["key"] == "tenant"


def test_a_collection_that_is_not_there_or_a_server_that_is_gone(built: QdrantShard) -> None:
    from qdrant_client import QdrantClient

    with served(built) as (client, _), pytest.raises(NotReachable, match="404"):
        QdrantCollection(client, "nowhere")
    gone = QdrantClient(url="http://127.0.0.1:1", check_compatibility=False)
    with pytest.raises(NotReachable):
        QdrantCollection(gone, "docs")
    gone.close()
