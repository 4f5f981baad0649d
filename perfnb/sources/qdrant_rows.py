"""What Qdrant's answers say, in the words of a recording; pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from perfnb.sources.polled import Rows, sample, thing

Answer = Mapping[str, Any]

SEARCHES = re.compile(r"/points/(search|query|recommend|discover)\b|points(/|\.Points/)(Search|Query|Recommend)", re.I)
_UNINDEXED = re.compile(
    r"^(?P<collection>.+?)/UNINDEXED_FIELD/(?P<field>.+)$|^UNINDEXED_FIELD[:/,](?P<named>[^:/,]+)[:/,](?P<what>[^:/,]+)"
)


def vectors_of(info: Answer) -> list[str]:
    """Return the names of a collection's dense vectors; one that has no name is ``""``."""
    vectors = info["config"]["params"].get("vectors") or {}
    return [""] if "size" in vectors else list(vectors)


def collection_rows(taken: int, server: str, name: str, info: Answer, about: Answer) -> Rows:
    """Return the rows of one collection: one of ``catalog`` for each vector, and its numbers as samples."""
    for vector in vectors_of(info):
        full = f"{name}/{vector}" if vector else name
        known = {**collection_properties(info, vector), **about}
        yield thing(taken, server, "collection", full, known)
        for metric in ("points", "indexed_points", "segments"):
            if known[metric] is not None:
                yield sample(taken, "qdrant", f"collection {full}", metric, known[metric])


def collection_properties(info: Answer, vector: str) -> dict[str, Any]:
    """Return the properties (kind ``collection``) of one vector of a collection from ``GET /collections/NAME``.

    Indexed vectors are counted over all vectors of a collection together; of several, each is given an even part.
    """
    config, names = info["config"], vectors_of(info)
    vectors = config["params"].get("vectors") or {}
    own = vectors if vector == "" and "size" in vectors else vectors.get(vector, {})
    build = {key: value for key, value in (config.get("hnsw_config") or {}).items() if value is not None}
    build |= {key: value for key, value in (own.get("hnsw_config") or {}).items() if value is not None}
    optimizer = config.get("optimizer_config") or {}
    indexed = info.get("indexed_vectors_count")
    queue = info.get("update_queue") or {}
    return {
        "status": info.get("status"),
        "optimizer": _optimizer(info.get("optimizer_status")),
        "distance": str(own.get("distance", "")).lower() or None,
        "index": "hnsw" if build.get("m") or build.get("payload_m") else None,
        "quantization": _quantization(own.get("quantization_config") or config.get("quantization_config")),
        "points": info.get("points_count"),
        "indexed_points": None if indexed is None else indexed // max(1, len(names)),
        "pending_points": queue.get("deferred_points"),
        "dimensions": own.get("size"),
        "segments": info.get("segments_count"),
        "full_scan_threshold_kb": build.get("full_scan_threshold"),
        "indexing_threshold_kb": optimizer.get("indexing_threshold"),
        "build": {key: build[key] for key in ("m", "ef_construct", "payload_m") if key in build},
        "fields": {name: told.get("data_type") for name, told in (info.get("payload_schema") or {}).items()},
    }


def slow_filters(issues: Answer) -> dict[str, list[str]]:
    """Return for each collection the fields without an index that slowed searches down, from ``GET /issues``.

    Qdrant notes there what filters searches that took 300 ms or more had no index for.
    """
    found: dict[str, list[str]] = {}
    for issue in (issues.get("result") or {}).get("issues") or []:
        match = _UNINDEXED.match(str(issue.get("id") or issue.get("code") or ""))
        if match:
            collection = match["collection"] or match["named"]
            found.setdefault(collection, []).append(match["field"] or match["what"])
    return {collection: sorted(set(fields)) for collection, fields in found.items()}


def metric_values(metrics: str, telemetry: Answer) -> dict[str, float]:
    """Return what of ``/metrics`` and ``/telemetry`` is kept: memory in bytes, searches and their time since the start."""
    values = dict(_totals(metrics))
    system = ((telemetry.get("result") or {}).get("app") or {}).get("system") or {}
    if system.get("ram_size"):
        values["memory_limit_bytes"] = float(system["ram_size"]) * 1024
    return values


def _totals(metrics: str) -> Iterator[tuple[str, float]]:
    searches = took = 0.0
    seen = False
    for family, labels, value in _read(metrics):
        if family in ("memory_resident_bytes", "memory_allocated_bytes"):
            yield family, value
        is_search = SEARCHES.search(labels.get("endpoint", ""))
        if is_search and family.endswith("_responses_duration_seconds_count"):
            searches, seen = searches + value, True
        if is_search and family.endswith("_responses_duration_seconds_sum"):
            took += value * 1000
    if seen:
        yield "searches", searches
        yield "search_time_ms", took


def _read(metrics: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        for family in text_string_to_metric_families(metrics):
            yield from ((each.name, each.labels, each.value) for each in family.samples)
    except ValueError:  # not the text of a metrics page
        return


def _optimizer(status: object) -> str | None:
    """Return ok, or the optimizer's error without what it quotes of the data."""
    if status is None or isinstance(status, str):
        return status
    return "error"


def _quantization(config: Answer | None) -> str | None:
    return next(iter(config), None) if config else None
