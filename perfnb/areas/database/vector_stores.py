"""What vectors there are and what indexes them: columns of Postgres, and collections of vector stores."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from perfnb.areas.database.relations import relations
from perfnb.attribution.objects import grown, objects, require_objects
from perfnb.recording import Recording
from perfnb.recording.recording import HOW_TO_MEASURE

TYPE = re.compile(r"^(?:\w+\.)?(vector|halfvec|sparsevec)(?:\((\d+)\))?$")
METHODS = ("hnsw", "ivfflat")
BYTES_OF_NUMBER = {"vector": 4, "halfvec": 2, "sparsevec": 4}

# Operators that each ending of an operator class serves.
SERVES = {"_l2_ops": "<->", "_ip_ops": "<#>", "_cosine_ops": "<=>", "_l1_ops": "<+>", "_hamming_ops": "<~>", "_jaccard_ops": "<%>"}  # fmt: skip
MEANS = {"<->": "Euclidean distance", "<=>": "cosine distance", "<#>": "inner product", "<+>": "taxicab distance", "<~>": "Hamming distance", "<%>": "Jaccard distance"}  # fmt: skip

HOW_TO_SEE_STORES = "vectors: perfnb record --dsn DSN (pgvector), --qdrant URL, --milvus URI or --redis URL"

# Memory a build takes for each row beside the vector, and what is lost to allocation (pgvector's issue 745).
ROW_BYTES, OVERHEAD = 8, 1.3

ADVISORIES = (
    ((0, 8, 0), "has no iterative scans: a filter beside a vector index loses rows, whatever is set"),
    ((0, 8, 2), "may overrun a buffer while it builds an HNSW index in parallel"),
    ((0, 8, 3), "may corrupt an HNSW index while it is vacuumed"),
)
"""What versions of pgvector before each suffer from, as its CHANGELOG.md has it."""


def vector_columns(recording: Recording) -> pd.DataFrame:
    """Return one row per column of vectors in Postgres.

    Columns: server, table, column, type, dimensions (0 where the column does not tell), rows, indexes (how many there
    are on it that serve nearness). Raises NotMeasured where the catalog was not read.
    """
    columns, known = require_objects(recording, "column"), relations(recording)
    indexes = vector_indexes(recording)
    rows = []
    for each in columns.to_dict("records"):
        found = TYPE.match(str(each["type"]))
        if found is None:
            continue
        table, _, column = str(each["name"]).rpartition(".")
        count = int(((indexes["table"] == table) & (indexes["column"] == column)).sum())
        size = known.rows(table) or _rows_of_partitions(recording, table)
        rows.append((each["server"], table, column, found[1], int(found[2] or 0), size, count))
    return pd.DataFrame(rows, columns=["server", "table", "column", "type", "dimensions", "rows", "indexes"])


def _rows_of_partitions(recording: Recording, table: str) -> float:
    tables, known = objects(recording, "table"), relations(recording)
    return sum((known.rows(name) or 0.0 for name in tables.loc[tables["parent"] == table, "name"]), 0.0)


def vector_indexes(recording: Recording) -> pd.DataFrame:
    """Return one row per HNSW or IVFFlat index, with all properties of kind index and their growth.

    And column (the first that its key names), key, operator (what nearness it serves), is_usable, rows (of the table).
    """
    frame = grown(recording, "index")
    frame = frame[frame["method"].isin(METHODS)].reset_index(drop=True)
    known = relations(recording)
    keys = [str((each or [""])[0]) for each in frame["keys"]]
    frame["key"] = pd.Series(keys, frame.index, dtype="object")
    columns = [_column_of(recording, table, key) for table, key in zip(frame["table"], keys, strict=True)]
    frame["column"] = pd.Series(columns, frame.index, dtype="object")
    operators = [operator_of(each) for each in frame["opclasses"]]
    frame["operator"] = pd.Series(operators, frame.index, dtype="object")
    frame["is_usable"] = frame["is_valid"].fillna(True).astype(bool) & ~frame["is_building"].fillna(False).astype(bool)
    frame["rows"] = pd.Series([known.rows(table) or 0.0 for table in frame["table"]], frame.index, dtype="float64")
    return frame


def operator_of(opclasses: Sequence[str] | None) -> str:
    """Return the distance operator that an index of these operator classes serves; empty where that is not known."""
    name = str((opclasses or [""])[0]).rpartition(".")[2]
    return next((operator for ending, operator in SERVES.items() if name.endswith(ending)), "")


def option(options: Mapping[str, Any] | None, name: str) -> int | None:
    """Return an index's option as a number, or None where it is not set."""
    try:
        return int((options or {})[name])
    except (KeyError, TypeError, ValueError):
        return None


def collections(recording: Recording) -> pd.DataFrame:
    """Return one row per collection of vectors in a vector store, at the last look; no rows where there was none."""
    return objects(recording, "collection")


def sees_stores(recording: Recording) -> bool:
    """Tell whether the catalog was read: of Postgres or of a vector store."""
    return recording.has("catalog")


def pgvector_version(recording: Recording) -> tuple[int, ...] | None:
    """Return pgvector's version as installed in the database, or None where it is not."""
    frame = objects(recording, "extension")
    versions = frame.loc[frame["name"] == "vector", "version"]
    found = re.findall(r"\d+", str(versions.iloc[0])) if len(versions) else []
    return tuple(int(part) for part in found) or None


def advisories(recording: Recording) -> tuple[str, ...]:
    """Return what the installed version of pgvector is known to suffer from, in sentences; nothing where all is well.

    A note for whoever looks: an old version is no cause of what was observed, so no check fires on it alone.
    """
    version = pgvector_version(recording)
    if version is None:
        return ()
    shown = ".".join(str(part) for part in version)
    return tuple(f"pgvector {shown} {what}; {'.'.join(map(str, fixed))} mends that" for fixed, what in ADVISORIES if version < fixed)  # fmt: skip


def index_memory(recording: Recording) -> pd.DataFrame:
    """Return what each HNSW and IVFFlat index weighs against the memory there is for it.

    Columns: server, index, table, method, rows, index_bytes, build_bytes (what an HNSW build needs in memory, estimated:
    rows x (bytes of a vector + 8) x 1.3; NA for IVFFlat), build_limit_bytes (maintenance_work_mem), fits_build,
    cache_bytes (shared_buffers), part_of_cache. Raises NotMeasured where the catalog was not read.
    """
    columns = vector_columns(recording).set_index(["table", "column"])
    indexes = vector_indexes(recording)
    build_limit, cache = (setting_bytes(recording, name) for name in ("maintenance_work_mem", "shared_buffers"))
    rows = []
    for each in indexes.to_dict("records"):
        place = (each["table"], each["column"])
        own = columns.loc[place] if place in columns.index else None
        needed = float("nan")
        if each["method"] == "hnsw" and own is not None:
            kind = "halfvec" if "halfvec" in each["key"] else str(own["type"])
            size = float(own["dimensions"]) * BYTES_OF_NUMBER[kind] + ROW_BYTES
            needed = each["rows"] * size * OVERHEAD
        rows.append((each["server"], each["name"], each["table"], each["method"], each["rows"], each["bytes"], needed, build_limit, cache))  # fmt: skip
    named = ["server", "index", "table", "method", "rows", "index_bytes", "build_bytes", "build_limit_bytes", "cache_bytes"]  # fmt: skip
    frame = pd.DataFrame(rows, columns=named)
    size = pd.to_numeric(frame["index_bytes"], errors="coerce").astype("float64")
    fits = frame["build_bytes"] <= frame["build_limit_bytes"]
    known = frame["build_bytes"].notna() & frame["build_limit_bytes"].notna()
    return frame.assign(fits_build=fits.astype("boolean").where(known), part_of_cache=size / frame["cache_bytes"])


UNITS = {"": 1, "B": 1, "kB": 1024, "8kB": 8192, "MB": 2**20, "GB": 2**30}


def setting_bytes(recording: Recording, name: str) -> float:
    """Return a setting of Postgres in bytes; NaN where it is not known."""
    frame = objects(recording, "setting")
    found = frame[frame["name"] == name]
    if found.empty:
        return float("nan")
    try:
        return float(found["value"].iloc[0]) * UNITS[str(found["unit"].iloc[0] or "")]
    except (KeyError, TypeError, ValueError):
        return float("nan")


def how_to_see(recording: Recording) -> str:
    """Return how to get what is missing: the catalog, or vectors in it."""
    return HOW_TO_SEE_STORES if recording.has("catalog") else HOW_TO_MEASURE["catalog"] + ", or " + HOW_TO_SEE_STORES


def _column_of(recording: Recording, table: str, key: str) -> str:
    """Return the column that an index's key is or names: ``embedding`` of ``(embedding::halfvec(3072))``."""
    known = relations(recording).widths.get(table, {})
    words = re.findall(r'"([^"]+)"|([A-Za-z_]\w*)', key)
    names = [quoted or plain for quoted, plain in words]
    return next((name for name in names if name in known), names[0] if names else "")
