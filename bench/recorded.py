"""Incidents that the demo can't stage: recordings that contain them, made of a healthy one or of another real server."""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from perfnb.recording import Recording
from perfnb.sources.redis import Redis

TWO_BILLION = 1_900_000_000


def wraparound(healthy: Path, path: Path) -> None:
    """Copy the healthy recording and let its databases and tables be as old as 1.9 billion transactions."""
    shutil.copytree(healthy, path, dirs_exist_ok=True)
    with Recording.open(path) as made, made.writer() as writer:
        rows = made.query(
            "SELECT * FROM catalog WHERE kind IN ('database', 'table')"
            " QUALIFY time = max(time) OVER (PARTITION BY kind, server)"
        )
        writer.write("catalog", [_aged(row) for row in rows.to_dict("records")])
        writer.close()
        made.seal()


def _aged(row: dict[str, object]) -> dict[str, object]:
    properties = json.loads(str(row["properties"]))
    return row | {"time": row["time"] + 1, "properties": properties | {"transaction_age": TWO_BILLION}}  # type: ignore[operator]


def full_cache(_: Path, path: Path) -> None:
    """Record a real Redis of three megabytes that is asked for ten times as much as it holds."""
    import redis

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--maxmemory", "3mb"]
    command += ["--maxmemory-policy", "allkeys-lru"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server,
    ):
        try:
            client = redis.Redis(port=port)
            while not _answers(client):
                time.sleep(0.05)
            with Recording.create(path) as made, made.writer() as writer:
                with Redis(writer.write, f"redis://127.0.0.1:{port}", interval_s=0.5):
                    for number in range(3000):
                        client.set(f"answer:{number % 1000}", "x" * 20_000)
                        client.get(f"answer:{(number * 7) % 1000}")
                writer.close()
                made.seal()
        finally:
            server.terminate()


def _answers(client: object) -> bool:
    try:
        return bool(client.ping())  # type: ignore[attr-defined]
    except Exception:  # not up yet
        return False


RECORDED: Mapping[str, Callable[[Path, Path], None]] = {
    "wraparound-risk": wraparound,
    "vector-db-under-resourced": full_cache,
}
"""Each cause with what makes its recording at a path, given the healthy one."""
