"""What Milvus' answers say, in the words of a recording; pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perfnb.sources.polled import Rows, sample, thing

Answer = Mapping[str, Any]

BUILD = ("M", "efConstruction", "nlist", "m", "nbits", "max_degree", "intermediate_graph_degree")
QUANTIZED = {"SQ8": "scalar", "SQ": "scalar", "PQ": "product", "PRQ": "product", "RABITQ": "binary"}
VECTORS = ("FLOAT_VECTOR", "BINARY_VECTOR", "FLOAT16_VECTOR", "BFLOAT16_VECTOR", "INT8_VECTOR")


def collection_rows(
    taken: int, server: str, told: Answer, stats: Answer, state: Answer, indexes: Sequence[Answer], about: Answer
) -> Rows:
    """Return the rows of one collection: one of ``catalog`` for each vector field, and its numbers as samples."""
    fields = {str(each["name"]): each for each in told.get("fields") or ()}
    vectors = [name for name, each in fields.items() if type_of(each) in VECTORS]
    by_field = {str(each.get("field_name")): each for each in indexes}
    name = str(told["collection_name"])
    shared = {
        "is_loaded": _word(state["state"]).lower() == "loaded" if "state" in state else None,
        "payload": {name: type_of(each).lower() for name, each in fields.items() if name not in vectors and not each.get("is_primary")},
        "fields": {name: str(each.get("index_type", "")).lower() for name, each in by_field.items() if name not in vectors},
    }  # fmt: skip
    for vector in vectors:
        full = name if len(vectors) == 1 else f"{name}/{vector}"
        own = vector_properties(fields[vector], by_field.get(vector), int(stats.get("row_count") or 0))
        yield thing(taken, server, "collection", full, {**own, **shared, **about})
        for metric in ("points", "indexed_points", "pending_points"):
            if own[metric] is not None:
                yield sample(taken, "milvus", f"collection {full}", metric, own[metric])


def vector_properties(field: Answer, index: Answer | None, rows: int) -> dict[str, Any]:
    """Return the properties (kind ``collection``) of one vector field and its index, where it has one."""
    index = index or {}
    kind = str(index.get("index_type") or "").lower()
    build = {key: _number(value) for key, value in _flat(index).items() if key in BUILD}
    return {
        "status": str(index.get("state") or "").lower() or None,
        "distance": str(index.get("metric_type") or "").lower() or None,
        "index": kind or None,
        "quantization": next((name for part, name in QUANTIZED.items() if kind.upper().endswith(part)), None),
        "points": rows,
        "indexed_points": _number(index["indexed_rows"]) if "indexed_rows" in index else None if index else 0,
        "pending_points": _number(index["pending_index_rows"]) if "pending_index_rows" in index else None,
        "dimensions": _number((field.get("params") or {}).get("dim")),
        "build": build or None,
    }


def type_of(field: Answer) -> str:
    """Return a field's type as Milvus words it: ``FLOAT_VECTOR``, ``VARCHAR``, ``JSON`` …"""
    return _word(field.get("type"))


def metric_values(metrics: str) -> dict[str, float]:
    """Return what of the metrics page is kept: searches and their time (both since the start), resident memory.

    The latency is ``milvus_proxy_sq_latency``, in ms; Milvus has no metric called milvus_search_latency.
    """
    values: dict[str, float] = {}
    for name, labels, value in _read(metrics):
        if name == "process_resident_memory_bytes":
            values["memory_resident_bytes"] = value
        if labels.get("query_type", "search") not in ("search", "hybrid_search"):
            continue
        if name == "milvus_proxy_sq_latency_count":
            values["searches"] = values.get("searches", 0.0) + value
        if name == "milvus_proxy_sq_latency_sum":
            values["search_time_ms"] = values.get("search_time_ms", 0.0) + value
    return values


def _read(metrics: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        for family in text_string_to_metric_families(metrics):
            yield from ((each.name, each.labels, each.value) for each in family.samples)
    except ValueError:  # not the text of a metrics page
        return


def _flat(index: Answer) -> Answer:
    """Return an index's parameters; some servers put them beside the rest, some into ``params``, as text."""
    import json

    params = index.get("params")
    if isinstance(params, str):
        try:
            params = json.loads(params)
        except ValueError:
            params = None
    return {**index, **params} if isinstance(params, Mapping) else index


def _word(value: object) -> str:
    """Return the name of one of the client's enumerations, or what stands for it as text."""
    return str(getattr(value, "name", None) or value or "")


def _number(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None
