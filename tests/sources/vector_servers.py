"""Vector stores for tests: a real Redis, a real shard of Qdrant's engine, and answers of Qdrant's REST page."""

import contextlib
import json
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[int]:
    """Run a Redis of the machine on a free port of the loopback address, and yield the port."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
    with (folder / "redis.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int) -> None:
    """Wait until something answers at ``port``."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nothing answers at {port}")


@contextlib.contextmanager
def web_server(pages: Mapping[str, Any], *, key: str = "") -> Iterator[str]:
    """Answer GET with ``pages`` by path: text as it is, all else as JSON; 404 for others, 401 without ``key``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            if key and self.headers.get("api-key") != key:
                return self._send(401, b"Must provide an API key")
            if page is None:
                return self._send(404, b"{}")
            return self._send(200, page.encode() if isinstance(page, str) else json.dumps(page).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def points(count: int, dimensions: int) -> list[list[float]]:
    """Return ``count`` vectors, the same every time."""
    draw = random.Random(1)
    return [[draw.gauss(0, 1) for _ in range(dimensions)] for _ in range(count)]


def shard(
    folder: Path, *, count: int = 1200, dimensions: int = 16, indexed: bool = True, threshold_kb: int = 10
) -> Any:
    """Return an open shard of Qdrant's engine in ``folder`` with ``count`` points, each of one of five tenants."""
    import qdrant_edge as edge

    folder.mkdir()
    settings = edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine),
        hnsw_config=edge.HnswIndexConfig(m=8, ef_construct=32, full_scan_threshold=10),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=threshold_kb),
    )
    made = edge.EdgeShard.create(str(folder), settings)
    rows = [edge.Point(n, vector, {"tenant": n % 5}) for n, vector in enumerate(points(count, dimensions))]
    made.update(edge.UpdateOperation.upsert_points(rows))
    made.update(edge.UpdateOperation.create_field_index("tenant", edge.PayloadSchemaType.Integer))
    if indexed:
        made.optimize()
    made.flush()
    return made


class Written:
    """Collects what a source writes."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def __call__(self, table: str, rows: Any) -> int:
        made = [dict(row) for row in rows]
        self.rows.setdefault(table, []).extend(made)
        return len(made)

    def things(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the properties of the objects of ``kind``, by name."""
        return {row["name"]: row["properties"] for row in self.rows.get("catalog", []) if row["kind"] == kind}

    def values(self, entity: str) -> dict[str, float]:
        """Return the latest value of each metric of ``entity``."""
        return {row["metric"]: row["value"] for row in self.rows.get("samples", []) if row["entity"] == entity}
