"""Vectors that no index serves, and indexes of a kind that does not fit."""

import math
from typing import Any

import pandas as pd

from perfnb.areas.database.vector_filters import leaves_to_filter
from perfnb.areas.database.vector_parameters import lists_off
from perfnb.areas.database.vector_searches import kept, vector_searches
from perfnb.areas.database.vector_stores import (
    advisories,
    collections,
    how_to_see,
    option,
    sees_stores,
    setting_bytes,
    vector_indexes,
)
from perfnb.areas.database.workload import brief
from perfnb.attribution.objects import objects
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

EXACT = ("flat", "bin_flat", "ivf_flat_cc", "gpu_brute_force")
INDEXABLE = {"vector": 2000, "halfvec": 4000}
"""Most dimensions of a type that HNSW and IVFFlat take."""


@check("vector-index-missing", area="database")
def vector_index_missing(
    recording: Recording,
    objectives: Objectives,
    *,
    min_share: float = 0.05,
    min_ms: float = 5,
    least: int = 5,
    backlog: float = 0.2,
) -> Finding | Clear:
    """Vectors are searched one by one, because no index is there, is ready, or fits how they are searched (R68).

    Up to 10,000 vectors an exact search is as fast and finds all, so no index is missing there. A search of a few rows
    that a filter names is left to unindexed-filter. Of a vector store, rows that wait for its index count where they
    are more than a fifth and more than the store leaves unindexed on purpose (Qdrant's indexing threshold).

    Source: A20, E17, E19, E71; pgvector's README (exact search, index use)
    """
    from_rows = _bound(objectives, 0)
    asked, stored = _asked(recording), waiting(recording)
    stored = stored[(stored["points"] >= from_rows) & (stored["missing"] >= backlog)]
    is_often = (asked["calls"] >= least) & (asked["mean_exec_time_ms"] >= min_ms)
    slow = asked[(asked["why_not"] != "") & (asked["rows"] >= from_rows) & is_often]
    slow = kept(slow, lambda row: not leaves_to_filter(recording, row))
    share = float(min(1.0, slow["share"].sum()))
    if share >= min_share:
        return _unserved(recording, objectives, slow, share)
    if not stored.empty:
        return _unindexed(recording, objectives, stored)
    return Clear(_examined(recording, asked, from_rows, min_ms))


def _asked(recording: Recording) -> pd.DataFrame:
    """Return vector searches; none where only vector stores were seen."""
    try:
        return vector_searches(recording)
    except NotMeasured:
        if not sees_stores(recording) or collections(recording).empty:
            raise NotMeasured("no searches of vectors", hint=how_to_see(recording)) from None
        return pd.DataFrame(columns=["why_not", "rows", "mean_exec_time_ms", "share", "calls", "method"])


def _bound(objectives: Objectives, which: int) -> float:
    return float(objectives["vector_index_rows"].value[which])


def _examined(recording: Recording, asked: pd.DataFrame, from_rows: float, min_ms: float) -> str:
    small = int((asked["rows"] < from_rows).sum())
    quick = int(((asked["why_not"] != "") & (asked["rows"] >= from_rows) & (asked["mean_exec_time_ms"] < min_ms)).sum())
    stores = collections(recording)
    return (
        f"an index serves {int((asked['why_not'] == '').sum())} of {len(asked)} statements that search vectors; "
        f"{small} search fewer than {from_rows:,.0f}, which an exact search does as well, and {quick} take less than {min_ms:g} ms without one; "
        f"{len(stores)} collections of vector stores have their rows indexed or are small"
    )


def _unserved(recording: Recording, objectives: Objectives, slow: pd.DataFrame, share: float) -> Finding:
    first = slow.iloc[0]
    mean = float(slow["total_exec_time_ms"].sum() / slow["calls"].sum())
    return Finding(
        title=f"Searches compare {first['rows']:,.0f} vectors one by one, {mean:,.0f} ms each: {first['why_not']}",
        severity=severity(objectives["vector_search_ms"].miss(mean), share),
        share=share,
        symptom="database time",
        evidence=(
            f"{brief(str(first['statement']))}: {first['calls']:,.0f} times, {share:.0%} of the database's time",
            f"{first['table']}.{first['column']} is {_typed(first)} with {first['rows']:,.0f} rows; {first['why_not']}",
            *_building(recording, str(first["table"])),
        ),
        remedy=_remedy(first),
        effort="low" if not first["index"] else "medium",
        frame=slow[["statement", "table", "column", "rows", "calls", "mean_exec_time_ms", "share", "why_not", "index"]].head(20),
        figure="top_statements",
    )  # fmt: skip


def _building(recording: Recording, table: str) -> tuple[str, ...]:
    frame = objects(recording, "progress")
    own = frame[(frame["table"] == table) & frame["command"].fillna("").str.contains("INDEX")]
    return tuple(
        f"{row['command']} is under way: {row['phase']}, {row['done']} of {row['total']}" for row in own.to_dict("records")
    )  # fmt: skip


OPCLASS = {"<->": "l2", "<=>": "cosine", "<#>": "ip", "<+>": "l1"}


def _typed(row: pd.Series) -> str:
    size = int(row["dimensions"])
    return f"{row['type']}({size})" if size else f"{row['type']} without dimensions"


def _remedy(row: pd.Series) -> str:
    kind, column = str(row["type"]), str(row["column"])
    operators = f"{kind}_{OPCLASS.get(str(row['operator']), 'cosine')}_ops"
    if not row["dimensions"] and not row["index"]:
        return _sized(row, operators)
    if kind == "vector" and row["dimensions"] > INDEXABLE["vector"]:
        key = f"({column}::halfvec({row['dimensions']})) halfvec_{OPCLASS.get(str(row['operator']), 'cosine')}_ops"
        return f"A vector of {row['dimensions']} numbers takes no index (2,000 at most): CREATE INDEX CONCURRENTLY ON {row['table']} USING hnsw ({key}), and search ({column}::halfvec({row['dimensions']})) in the same words."
    key = column if row["dimensions"] else f"({column}::{kind}(N))"
    ddl = f"CREATE INDEX CONCURRENTLY ON {row['table']} USING hnsw ({key} {operators})"
    if not row["index"]:
        return f"{ddl}; after loading, with maintenance_work_mem enough for it. Recall is then below 1: measure it with the tuner."
    if "serves" in str(row["why_not"]):
        return f"Search with the operator that the index serves, or build one that serves this one: {ddl}."
    if "index is on" in str(row["why_not"]):
        return f"Search in the index's own words, as {row['why_not']}; or build one that serves the search as it is: {ddl}."
    if "built" in str(row["why_not"]):
        return "Wait until it is built; searches use it from then on."
    if "valid" in str(row["why_not"]):
        return f"DROP INDEX CONCURRENTLY {row['index']}, then {ddl}."
    if "passes" in str(row["why_not"]):
        return f"ANALYZE {row['table']} and look at the plan with EXPLAIN; a LIMIT of a large part of the rows, or random_page_cost of 4 on an SSD, makes a scan look cheaper."
    return (
        "Order by the bare distance, ascending, with a LIMIT: ORDER BY "
        + f"{column} {row['operator']} $1 LIMIT 10; compute a similarity from it in the SELECT list."
    )


def _sized(row: pd.Series, operators: str) -> str:
    """Return how to index a column that does not tell how long its vectors are: no index takes it as it is."""
    kind, column, table = str(row["type"]), str(row["column"]), row["table"]
    told = "" if kind == "sparsevec" else f" (SELECT DISTINCT vector_dims({column}) FROM {table})"
    half = "; above 2,000 halfvec(N) in its place, with its own operators" if kind == "vector" else ""
    return (
        f"{column} tells no dimensions, and no index takes it so. N being the length of its vectors{told}{half}: "
        f"first ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind}(N), which locks the table for as long as it is checked, then CREATE INDEX CONCURRENTLY ON {table} USING hnsw ({column} {operators}); "
        f"or CREATE INDEX CONCURRENTLY ON {table} USING hnsw (({column}::{kind}(N)) {operators}), and search in the same words: ORDER BY {column}::{kind}(N) {row['operator']} $1."
    )


def waiting(recording: Recording) -> pd.DataFrame:
    """Return for each collection of a vector store how much of it no index holds: missing (0 to 1) and why.

    Rows below the engine's own thresholds are no backlog: Qdrant indexes a segment from indexing_threshold_kb of
    vectors on (0 switches indexing off), so that each segment may rightly hold so much unindexed while its status is
    green.
    """
    frame = collections(recording)
    points = frame["points"].astype("float64")
    indexed = frame["indexed_points"].astype("float64").where(frame["index"].notna(), 0.0)
    kilobytes = (points - indexed).clip(lower=0) * frame["dimensions"].astype("float64") * 4 / 1024
    allowed = (frame["indexing_threshold_kb"].astype("float64") * frame["segments"].astype("float64")).fillna(0.0)
    allowed = allowed.mask(frame["status"].isin(("yellow", "grey", "red")), 0.0)  # the engine itself sees work to do
    missing = ((points - indexed) / points.where(points > 0)).clip(lower=0)
    missing = missing.where((kilobytes > allowed) & ~frame["index"].isin(EXACT), 0.0).fillna(0.0)
    why = [_why_waiting(row, float(part)) for row, part in zip(frame.to_dict("records"), missing, strict=True)]
    return frame.assign(points=points, missing=missing, why=pd.Series(why, frame.index, dtype="object"))


def _why_waiting(row: dict[str, Any], missing: float) -> str:
    if not missing:
        return ""
    if row["index"] is None or pd.isna(row["index"]):
        return "it has no vector index"
    if row["engine"] == "qdrant" and row["indexing_threshold_kb"] == 0:
        return "indexing is switched off (indexing_threshold 0)"
    said = {
        "yellow": "it is being built",
        "grey": "its build has not begun: it waits for the next write",
        "red": "its build failed",
    }
    return said.get(str(row["status"]), "it is behind the rows that were added")


def _unindexed(recording: Recording, objectives: Objectives, stored: pd.DataFrame) -> Finding:
    everything = collections(recording)["points"].astype("float64").sum()
    share = float((stored["points"] * stored["missing"]).sum() / everything) if everything else 0.0
    first = stored.sort_values("points", ascending=False).iloc[0]
    return Finding(
        title=f"{first['missing']:.0%} of the {first['points']:,.0f} vectors in {first['name']} are in no index: {first['why']}",
        severity=severity(first["points"] * first["missing"] / _bound(objectives, 0), share),
        share=share,
        symptom="vectors",
        evidence=(
            f"{first['engine']}: status {first['status']}, {_count(first['indexed_points'])} of {first['points']:,.0f} points indexed in {_count(first['segments'])} segments",
            f"rows without an index are searched one by one, from {_bound(objectives, 0):,.0f} on that is slower",
        ),
        remedy=_store_remedy(first),
        effort="low",
        frame=stored[["engine", "name", "status", "points", "indexed_points", "missing", "why"]].head(20),
    )


def _store_remedy(row: pd.Series) -> str:
    if "switched off" in row["why"]:
        return "Set indexing_threshold back (10,000 kB is Qdrant's default) once the data is loaded."
    if row["engine"] == "milvus":
        return "create_index on the vector field (AUTOINDEX or HNSW) and load the collection; send traffic once pending rows are 0."
    return "Send traffic once all points are indexed; where the status stays grey, any write starts the build, and where it is red its error says why."


def _count(value: Any) -> str:
    return "unknown" if value is None or pd.isna(value) else f"{int(value):,}"


@check("wrong-vector-index", area="database")
def wrong_vector_index(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.1, min_reads: float = 0.1, least: int = 100
) -> Finding | Clear:
    """The kind of a vector index fits neither the number of vectors nor the memory there is for them (R69).

    Exact kinds (FLAT) from 10,000 vectors on; IVFFlat where its searches miss their objective, as HNSW finds as much in
    less time at any size; an HNSW index larger than shared_buffers that searches read from outside them.

    Source: C36, C37, C38, C39, E17, E19; pgvector's README
    """
    if not sees_stores(recording):
        raise NotMeasured("no vector indexes", hint=how_to_see(recording))
    indexes, stored = vector_indexes(recording), collections(recording)
    flat = stored[stored["index"].isin(EXACT) & (stored["points"] >= _bound(objectives, 0)).fillna(False)]
    if not flat.empty:
        return _flat(recording, objectives, flat)
    large = _read_from_outside(recording, indexes, min_reads=min_reads, least=least)
    if not large.empty:
        return _too_large(recording, objectives, large)
    slow = _slow_lists(recording, objectives)
    share = float(slow["share"].sum())
    if share >= min_share:
        return _lists(recording, objectives, slow, min(1.0, share))
    return Clear(
        f"{len(indexes)} vector indexes of Postgres fit their memory or are read from it; {len(stored)} collections of vector stores have no exact index above {_bound(objectives, 0):,.0f} rows"
    )


def _flat(recording: Recording, objectives: Objectives, flat: pd.DataFrame) -> Finding:
    first = flat.sort_values("points", ascending=False).iloc[0]
    share = float(flat["points"].astype("float64").sum() / collections(recording)["points"].astype("float64").sum())
    return Finding(
        title=f"{first['name']} has {first['points']:,.0f} vectors in a {str(first['index']).upper()} index, which compares each search with all of them",
        severity=severity(float(first["points"]) / _bound(objectives, 0), share),
        share=share,
        symptom="vectors",
        evidence=(f"an exact search is right up to {_bound(objectives, 0):,.0f} vectors; {first['engine']} tells {first['points']:,.0f} of {_count(first['dimensions'])} dimensions",),
        remedy="Build HNSW (M 16, efConstruction 200); where memory is short IVF_SQ8, or IVF_FLAT with nlist 4·√n for n rows of a segment. Measure recall before and after.",
        effort="medium",
        frame=flat[["engine", "name", "index", "points", "dimensions"]].head(20),
    )  # fmt: skip


def _read_from_outside(recording: Recording, indexes: pd.DataFrame, *, min_reads: float, least: int) -> pd.DataFrame:
    cache = setting_bytes(recording, "shared_buffers")
    if math.isnan(cache):
        return indexes.iloc[:0].assign(part_read=[])
    read, hit = (indexes[name].astype("float64") for name in ("blocks_read_grown", "blocks_hit_grown"))
    part = read / (read + hit).where(read + hit > 0)
    size = indexes["bytes"].astype("float64")
    is_large = (indexes["method"] == "hnsw") & (size > cache) & (read >= least) & (part >= min_reads)
    return indexes.assign(part_read=part)[is_large.fillna(False)]


def _too_large(recording: Recording, objectives: Objectives, large: pd.DataFrame) -> Finding:
    first = large.sort_values("bytes", ascending=False).iloc[0]
    cache = setting_bytes(recording, "shared_buffers")
    read, everything = (
        float(frame["blocks_read_grown"].astype("float64").sum()) for frame in (large, vector_indexes(recording))
    )
    share = float(first["part_read"]) * (read / everything if everything else 1.0)
    return Finding(
        title=f"The HNSW index {first['name']} is {first['bytes'] / 2**20:,.0f} MB, {first['bytes'] / cache:.1f} times shared_buffers, and {first['part_read']:.0%} of its blocks are read from outside them",
        severity=severity(float(first["bytes"]) / cache, share),
        share=share,
        symptom="index reads",
        evidence=(
            f"{first['blocks_read_grown']:,.0f} of its blocks were read and {first['blocks_hit_grown']:,.0f} found in memory while observed",
            *advisories(recording),
        ),
        remedy="Store or index half precision (halfvec: half the size, recall hardly changes), or binary_quantize with a re-rank of the nearest 10 times as many; else give the server memory for it.",
        effort="medium",
        frame=large[["name", "table", "method", "bytes", "part_read", "rows"]].head(20),
        figure="top_statements",
    )  # fmt: skip


def _slow_lists(recording: Recording, objectives: Objectives) -> pd.DataFrame:
    try:
        asked = vector_searches(recording)
    except NotMeasured:
        return pd.DataFrame(columns=["share"])
    served = asked[(asked["why_not"] == "") & (asked["method"] == "ivfflat")]
    served = kept(served, lambda row: not lists_off(option(row["options"], "lists"), row["rows"]))
    return served[served["mean_exec_time_ms"] >= objectives.value("vector_search_ms")]


def _lists(recording: Recording, objectives: Objectives, slow: pd.DataFrame, share: float) -> Finding:
    first = slow.iloc[0]
    lists = option(first["options"], "lists")
    return Finding(
        title=f"Searches of an IVFFlat index take {first['mean_exec_time_ms']:,.0f} ms; HNSW finds as much in less",
        severity=severity(objectives["vector_search_ms"].miss(float(first["mean_exec_time_ms"])), share),
        share=share,
        symptom="database time",
        evidence=(
            f"{brief(str(first['statement']))}: {first['calls']:,.0f} times over {first['rows']:,.0f} rows in {_count(lists)} lists",
            *advisories(recording),
        ),
        remedy=f"Build an HNSW index beside it (CREATE INDEX CONCURRENTLY ON {first['table']} USING hnsw …), compare recall and time with the tuner, then drop {first['index']}.",
        effort="medium",
        frame=slow[["statement", "table", "index", "rows", "calls", "mean_exec_time_ms", "share"]].head(20),
        figure="top_statements",
    )  # fmt: skip
