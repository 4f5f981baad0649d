"""What Redis' answers say, in the words of a recording; pure."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COPIED = {
    "used_memory": "memory_used_bytes",
    "used_memory_rss": "memory_resident_bytes",
    "used_memory_peak": "memory_peak_bytes",
    "maxmemory": "memory_limit_bytes",
    "total_system_memory": "memory_of_host_bytes",
    "mem_fragmentation_ratio": "memory_fragmentation",
    "keyspace_hits": "hits",
    "keyspace_misses": "misses",
    "evicted_keys": "evictions",
    "expired_keys": "expirations",
    "connected_clients": "connections",
    "blocked_clients": "connections_blocked",
    "rejected_connections": "connections_rejected",
    "total_commands_processed": "commands",
    "total_error_replies": "errors",
    "current_eviction_exceeded_time": "over_limit_ms",
}
"""Fields of INFO that are kept, and what they are called."""

PREFIXES_MOST = 20
PREFIX_FROM = 5  # fewer keys than these may begin with a person's name
_WORD = re.compile(r"[A-Za-z_-]{1,40}[:/|]")


def info_values(info: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of INFO that are kept, and keys, keys_with_expiry, command_time_ms and failed_commands."""
    values = {ours: float(info[theirs]) for theirs, ours in COPIED.items() if isinstance(info.get(theirs), int | float)}
    spaces = [space for name, space in info.items() if re.fullmatch(r"db\d+", name) and isinstance(space, Mapping)]
    values["keys"] = float(sum(space.get("keys", 0) for space in spaces))
    values["keys_with_expiry"] = float(sum(space.get("expires", 0) for space in spaces))
    told = [one for name, one in info.items() if name.startswith("cmdstat_") and isinstance(one, Mapping)]
    values["command_time_ms"] = sum(float(one.get("usec", 0)) for one in told) / 1000
    values["failed_commands"] = float(sum(one.get("failed_calls", 0) + one.get("rejected_calls", 0) for one in told))
    return values


def unit_of(metric: str) -> str:
    """Return the unit of one of :func:`info_values`."""
    return {"bytes": "bytes", "ms": "ms", "fragmentation": "ratio"}.get(metric.rpartition("_")[2], "count")


def key_facts(keys: Sequence[str]) -> dict[str, Any]:
    """Return what the names of sampled keys tell: how many there are, and how many begin with the same word."""
    counted = Counter(prefix_of(key) for key in keys)
    shared = {prefix: count for prefix, count in counted.most_common(PREFIXES_MOST) if count >= PREFIX_FROM}
    others = len(keys) - sum(count for prefix, count in shared.items() if prefix != "*")
    return {"keys_sampled": len(keys), "prefixes": {**shared, "*": others} if others else shared}


def prefix_of(key: str) -> str:
    """Return the word that a key begins with, where its parts are told apart; ``*`` where it is in one piece.

    ``session:4f2a:history`` is ``session:*``.
    """
    found = _WORD.match(key)
    return f"{found.group()}*" if found else "*"


def index_properties(told: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each vector field of a search index with its properties (kind ``collection``), from FT.INFO."""
    index = _pairs(told)
    fields = [_pairs(each) for each in index.get("attributes") or index.get("fields") or ()]
    indexed, points = _number(index.get("percent_indexed")), _number(index.get("num_docs"))
    filters = {_name(each): str(each.get("type", "")).lower() for each in fields if not _is_vector(each)}
    memory = _number(index.get("vector_index_sz_mb"))
    for field in fields:
        if not _is_vector(field):
            continue
        build = {"m": field.get("m"), "ef_construction": field.get("ef_construction")}
        yield (
            _name(field),
            {
                "status": "indexing" if _number(index.get("indexing")) else "ready",
                "index": str(field.get("algorithm", "")).lower() or None,
                "distance": str(field.get("distance_metric", "")).lower() or None,
                "points": None if points is None else int(points),
                "indexed_points": None if points is None or indexed is None else int(points * indexed),
                "dimensions": _whole(field.get("dim")),
                "bytes": None if memory is None else int(memory * 2**20),
                "build": {key: _whole(value) for key, value in build.items() if value is not None} or None,
                "search": {"ef": _whole(field["ef_runtime"])} if field.get("ef_runtime") is not None else None,
                "fields": filters,
            },
        )


def _is_vector(field: Mapping[str, Any]) -> bool:
    return str(field.get("type", "")).upper() == "VECTOR"


def _name(field: Mapping[str, Any]) -> str:
    return str(field.get("attribute") or field.get("identifier") or "")


def _pairs(told: Any) -> dict[str, Any]:
    """Return what an answer says by name, however the protocol wrote it: a map, or names and values in turn."""
    items = list(told.items()) if isinstance(told, Mapping) else list(zip(told[::2], told[1::2], strict=False))
    return {str(_text(key)).lower(): _text(value) for key, value in items}


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _number(value: Any) -> float | None:
    try:
        return float(_text(value))
    except (TypeError, ValueError):
        return None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
