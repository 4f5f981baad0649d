"""Tables, indexes and collections of vectors in a line each."""

from typing import Any

from builders import START, Row, span
from statement_rows import SERVER, catalog

import perfnb.areas.database  # noqa: F401 - registers the checks

SEARCH = "SELECT id, body FROM documents ORDER BY embedding <=> $1::vector LIMIT $2"
FILTERED = "SELECT id, body FROM documents WHERE tenant = $1 ORDER BY embedding <=> $2 LIMIT $3"
WORKSPACE = "SELECT id, body FROM documents WHERE workspace = $1 ORDER BY embedding <=> $2 LIMIT $3"
NEAR = "SELECT id, body FROM documents WHERE tenant = $1 AND embedding <=> $4::vector < $2 ORDER BY embedding <=> $4::vector LIMIT $3"
BY_JSON = "SELECT id, body FROM documents WHERE about ->> $1 = $2 ORDER BY embedding <=> $3 LIMIT $4"


def table(
    rows: int = 30_000, kind: str = "vector(256)", *, scanned: int = 0, looked_up: int = 0,
    columns: dict[str, Row] | None = None,
) -> list[Row]:  # fmt: skip
    """Return the catalog's rows of ``documents``: so many rows, its columns, and what settings there are.

    While observed it was ``scanned`` in sequence so many times, and ``looked_up`` by any of its indexes.
    """
    facts = {"live_rows": rows, "rows_estimated": rows, "sequential_scans": 5, "index_scans": 7, "relation": "table"}
    after = {"sequential_scans": 5 + scanned, "index_scans": 7 + looked_up}
    own = {
        "public.documents.embedding": {"type": kind, "position": 3},
        "public.documents.id": {"type": "bigint", "position": 1, "distinct": -1.0},
        "public.documents.tenant": {"type": "bigint", "position": 4, "distinct": 200.0},
        "public.documents.about": {"type": "jsonb", "position": 5},
        "public.documents.is_deleted": {"type": "boolean", "position": 6, "distinct": 2.0},
        "public.documents.workspace": {"type": "text", "position": 7, "distinct": 1.0},
    }
    return (
        catalog("table", {"public.documents": facts}, later={"public.documents": after})
        + catalog("column", own | (columns or {}))
        + catalog("server", {SERVER: {"database": "desk", "version": "18.1"}})
    )


def index(
    method: str = "hnsw", *, key: str = "embedding", opclass: str = "vector_cosine_ops", scans: int = 0, grown: int = 60,
    later: Row | None = None, name: str = "public.documents_embedding", **facts: Any,
) -> list[Row]:  # fmt: skip
    """Return the catalog's rows of one index on ``documents``."""
    known = {
        "table": "public.documents", "method": method, "keys": [key], "opclasses": [opclass], "is_valid": True,
        "is_building": False, "scans": scans, "bytes": 50_000_000, "options": {}, "rows_at_build": 30_000,
    } | facts  # fmt: skip
    return catalog("index", {name: known}, later={name: {"scans": scans + grown} | (later or {})})


def settings(**values: Any) -> list[Row]:
    """Return settings of the server; two underscores stand for a dot."""
    told = {name.replace("__", "."): {"value": str(value), "unit": ""} for name, value in values.items()}
    return catalog("setting", told)


def extension(version: str) -> list[Row]:
    return catalog("extension", {"vector": {"version": version}})


def collection(name: str = "docs", **facts: Any) -> list[Row]:
    """Return the catalog's rows of a collection of Qdrant's with all its 30,000 points indexed."""
    known = {
        "engine": "qdrant", "mode": "server", "status": "green", "index": "hnsw", "points": 30_000,
        "indexed_points": 30_000, "dimensions": 384, "segments": 4, "indexing_threshold_kb": 10_000,
        "build": {"m": 16, "ef_construct": 100}, "fields": {}, "distance": "cosine",
    } | facts  # fmt: skip
    own = {key: value for key, value in known.items() if value is not None}
    return [{"time": START, "server": "localhost:6333", "kind": "collection", "name": name, "properties": own}]


def store_span(
    done: str, at_ms: float, ms: float, *, trace: str, system: str = "qdrant", name: str = "", **attributes: Any
) -> Row:
    """Return a span of a vector store's client; two underscores in an attribute's name stand for a dot."""
    told = {key.replace("__", "."): value for key, value in attributes.items()}
    operation = "retrieval" if "search" in done or "query" in done else "database"
    made = span(name or f"{system}.{done}-{at_ms}", at_ms, ms, trace=trace, parent="POST /chat", kind="CLIENT")
    return made | {
        "name": f"{system}.{done}", "operation": operation,
        "attributes": {"db.system": system, "db.operation.name": done} | told,
    }  # fmt: skip
