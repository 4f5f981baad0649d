"""What an app's own traces tell of its vector stores: searches and inserts, with how many each was for."""

import re

import pandas as pd

from perfnb.attribution import observed
from perfnb.recording import Recording

SYSTEMS = ("qdrant", "milvus", "redis", "pinecone", "weaviate", "chroma", "chromadb", "lancedb")

# Attributes of OpenLLMetry, OpenLIT and others, each tried in turn; {} is the system, {op} the operation.
_LIMIT = ("db.vector.query.top_k", "gen_ai.retrieval.top_k", "db.qdrant.search.limit", "db.milvus.search.limit", "db.milvus.query.limit")  # fmt: skip
_FOUND = ("db.milvus.search.result_count", "db.vector.results.count", "gen_ai.retrieval.document_count")
_ITEMS = (
    "qdrant.upsert.points_count", "db.qdrant.upsert.points_count", "qdrant.upload_points.points_count",
    "qdrant.upload_collection.points_count", "db.qdrant.upload.points_count", "db.milvus.insert.data_count",
    "db.milvus.upsert.data_count", "db.vector.count", "db.operation.batch.size",
)  # fmt: skip
_REQUESTS = (
    "qdrant.search_batch.requests_count", "qdrant.query_batch.requests_count", "qdrant.query_batch_points.requests_count",
    "db.qdrant.search_batch.requests_count", "db.qdrant.query_batch.requests_count", "db.milvus.search.data_count",
)  # fmt: skip
_NAMES = (
    "db.collection.name", "db.qdrant.collection_name", "qdrant.search.collection_name", "qdrant.query_points.collection_name",
    "qdrant.upsert.collection_name", "db.milvus.search.collection_name", "db.milvus.insert.collection_name",
    "db.milvus.upsert.collection_name", "db.milvus.collection_name",
)  # fmt: skip
_FILTERS = ("db.milvus.search.filter", "db.milvus.query.filter", "db.vector.query.filter", "db.qdrant.search.filter")

WRITES = re.compile(r"(?:^|[._\s])(upsert|insert|upload|add|upload_points|upload_collection|add_documents)$", re.I)
SEARCHES = re.compile(r"(?:^|[._\s])(search|query|query_points|hybrid_search|query_batch|query_batch_points|search_batch|recommend|similarity_search|vector_search)$", re.I)  # fmt: skip


def _told(names: tuple[str, ...], kind: str = "DOUBLE") -> str:
    reads = ", ".join(f"json_extract_string(attributes, '$.\"{name}\"')" for name in names)
    return f"TRY_CAST(coalesce({reads}) AS {kind})" if kind != "VARCHAR" else f"coalesce({reads})"


_SPANS = f"""
SELECT * FROM (
    SELECT trace_id, span_id, parent_span_id, name, start_time, duration_ms, documents AS told_documents, statement,
           lower({_told(("db.system.name", "db.system"), "VARCHAR")}) AS system,
           coalesce({_told(("db.operation.name", "db.operation"), "VARCHAR")}, name) AS done,
           {_told(_NAMES, "VARCHAR")} AS collection, {_told(_LIMIT)} AS "limit", {_told(_FOUND)} AS found,
           {_told(_ITEMS)} AS items, {_told(_REQUESTS)} AS requests, {_told(_FILTERS, "VARCHAR")} AS filter
    FROM observed_spans WHERE operation IN ('database', 'retrieval') AND attributes LIKE '%db.system%'
) WHERE system IN ({", ".join(f"'{each}'" for each in SYSTEMS)}) ORDER BY start_time
"""


def store_spans(recording: Recording) -> pd.DataFrame:
    """Return one row per span of a vector store's client; no rows where no traces were seen.

    Columns: trace_id, span_id, parent_span_id, name, start_time, duration_ms, system, collection, is_search, is_write,
    limit (results asked for), documents (that came), items (points written), requests (searches in one), filter; NA
    where the span does not tell.
    """

    def build() -> pd.DataFrame:
        frame = observed(recording).query(_SPANS)
        done = frame.pop("done").fillna("").astype("object")
        frame["is_search"] = [bool(SEARCHES.search(each)) for each in done]
        frame["is_write"] = [bool(WRITES.search(each)) for each in done]
        told, found = frame.pop("told_documents").astype("float64"), frame.pop("found").astype("float64")
        frame["documents"] = told.fillna(found)
        frame["filter"] = frame["filter"].fillna(frame.pop("statement"))
        frame["requests"] = frame["requests"].fillna(1.0)
        return frame

    found: pd.DataFrame = recording.derived("store spans", build)
    return found.copy()


_STRING = r"""(?:"[^"]*"|'[^']*')"""
_PATH = re.compile(rf"(?<=\w)(?:\s*\[\s*(?:{_STRING}|\d+|\?)\s*\])+")
_FIELD = re.compile(r"\b([A-Za-z_]\w*)\s*(?:==|!=|>=|<=|<|>|\blike\b|\bin\b|\bnot\s+in\b)", re.IGNORECASE)
_NOT_FIELDS = {"not", "and", "or", "in", "like"}


def fields_of(expression: str) -> set[str]:
    """Return the fields that a filter of Milvus names: ``tenant``, and ``meta`` of ``meta["lang"] == "en"``."""
    plain = re.sub(_STRING, "?", _PATH.sub("", expression))
    return {name for name in _FIELD.findall(plain) if name.lower() not in _NOT_FIELDS}


def filtered_fields(recording: Recording) -> dict[tuple[str, str], set[str]]:
    """Return the fields that traced searches filter by, for each (system, collection)."""
    spans = store_spans(recording)
    told = spans[spans["is_search"] & spans["filter"].notna() & spans["collection"].notna()]
    found: dict[tuple[str, str], set[str]] = {}
    for system, collection, expression in (
        told[["system", "collection", "filter"]].drop_duplicates().itertuples(index=False)
    ):
        found.setdefault((system, collection), set()).update(fields_of(str(expression)))
    return found
