"""Read a folder as a shard of qdrant-edge: Qdrant's own engine inside a process, without a server."""

import json
from pathlib import Path
from typing import Any

from perfnb.errors import NotInstalled, NotPermitted, NotReachable
from perfnb.sources.polled import Rows, sample, thing

SETTINGS = "edge_config.json"


def edge_rows(folder: Path, taken: int) -> Rows:
    """Return the rows of the shard in ``folder``; opens it, asks and closes it.

    Raises NotPermitted while another process has it open: one at a time may.
    """
    if not (folder / SETTINGS).is_file():
        raise NotReachable(f"{folder} holds no shard of Qdrant", hint="name the folder that holds edge_config.json")
    shard = _opened(folder)
    try:
        info = shard.info()
        told = json.loads((folder / SETTINGS).read_text())
        return list(_rows(folder.name, told, info, taken))
    finally:
        shard.close()


def shard_properties(told: dict[str, Any], vector: str, info: Any) -> dict[str, Any]:
    """Return the properties (kind ``collection``) of one vector of a shard: its settings and what ``info()`` says."""
    own = told["vectors"][vector]
    build = (own.get("hnsw_config") or told.get("hnsw_config")) or {}
    quantization = own.get("quantization_config") or told.get("quantization_config") or {}
    optimizers = told.get("optimizers") or {}
    return {
        "engine": "qdrant",
        "mode": "embedded",
        "distance": str(own["distance"]).lower(),
        "index": "hnsw" if build.get("m", 16) or build.get("payload_m") else None,
        "quantization": next(iter(quantization), None),
        "points": info.points_count,
        "indexed_points": info.indexed_vectors_count // max(1, len(told["vectors"])),
        "dimensions": own["size"],
        "segments": info.segments_count,
        "full_scan_threshold_kb": build.get("full_scan_threshold"),
        "indexing_threshold_kb": optimizers.get("indexing_threshold"),
        "build": {key: build[key] for key in ("m", "ef_construct", "payload_m") if build.get(key) is not None},
        "fields": {name: str(each.data_type).rpartition(".")[2].lower() for name, each in info.payload_schema.items()},
    }


def _rows(name: str, told: dict[str, Any], info: Any, taken: int) -> Rows:
    server = f"embedded {name}"
    for vector in told["vectors"]:
        full = f"{name}/{vector}" if vector else name
        known = shard_properties(told, vector, info)
        yield thing(taken, server, "collection", full, known)
        for metric in ("points", "indexed_points", "segments"):
            yield sample(taken, "qdrant", f"collection {full}", metric, known[metric])


def _opened(folder: Path) -> Any:
    try:
        from qdrant_edge import EdgeShard
    except ImportError:
        raise NotInstalled("qdrant-edge-py is not installed", hint="pip install qdrant-edge-py") from None
    try:
        return EdgeShard.load(str(folder))
    except Exception as error:  # the engine raises nothing more particular
        if "WouldBlock" in str(error):
            raise NotPermitted(
                f"the shard {folder.name} is open in another process", hint="look while the app is stopped"
            ) from None
        raise NotReachable(
            f"the shard {folder.name} can't be opened", hint="check the folder's rights and files"
        ) from None
