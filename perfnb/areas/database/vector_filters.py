"""Searches of vectors with conditions beside them: slow where no index helps the condition, short where rows are lost."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.areas.database.store_spans import filtered_fields, store_spans
from perfnb.areas.database.vector_searches import is_indexed, part_that_passes, vector_searches
from perfnb.areas.database.vector_stores import collections, how_to_see, sees_stores
from perfnb.areas.database.workload import brief
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording
from perfnb.sql import Filter

EQUAL = ("=", "in", "@>", "?")
COMMON = 0.2
"""A condition that more than this part of the rows meet is not worth an index of its own."""


def bare_filters(recording: Recording, row: Mapping[str, Any]) -> list[Filter]:
    """Return the conditions of a search that no index helps and few rows meet, as far as statistics tell."""
    found = []
    calls = row["calls"] if row["why_not"] else None  # what a vector index serves may pass a filter's index over
    for each in row["filters"]:
        if each.operator not in EQUAL or not each.is_required or each.column == row["column"]:
            continue
        part = part_that_passes(recording, str(row["table"]), (each,))
        if (part is None or part <= COMMON) and not is_indexed(recording, str(row["table"]), each, calls=calls):
            found.append(each)
    return found


def leaves_to_filter(recording: Recording, row: Mapping[str, Any]) -> bool:
    """Tell whether a search without a vector index lacks an index on its condition instead, or has it and scans little."""
    equal = [each for each in row["filters"] if each.operator in EQUAL and each.is_required]
    if bare_filters(recording, row):
        return True
    for each in equal:
        part = part_that_passes(recording, str(row["table"]), (each,))
        if part is not None and part <= COMMON and is_indexed(recording, str(row["table"]), each):
            return True
    return False


@check("unindexed-filter", area="database")
def unindexed_filter(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.1, min_ms: float = 2
) -> Finding | Clear:
    """A vector search is filtered by a column, a member of a JSON document or a payload field that has no index (R72).

    Postgres: equality and containment beside the order by distance, on a table of 10,000 rows or more, where statistics
    do not say that a fifth of the rows or more meet it. Qdrant: fields its own list of issues names (searches of 300 ms
    and more), or that traces show filters on. Milvus: fields of the filters that traces show. Stores without vectors
    enough for an index are left alone.

    Source: A22, C45, C46; pgvector's README (filtering); Qdrant's documentation (payload index)
    """
    from_rows = float(objectives["vector_index_rows"].value[0])
    asked = searches_or_none(recording)
    bare_ones = [tuple(bare_filters(recording, row)) for row in asked.to_dict("records")]
    asked["bare"] = pd.Series(bare_ones, asked.index, dtype="object")
    bare = asked[(asked["bare"].str.len() > 0) & (asked["rows"] >= from_rows) & (asked["mean_exec_time_ms"] >= min_ms)]
    share = float(min(1.0, bare["share"].sum()))
    if share >= min_share:
        return _bare(objectives, bare, share)
    stored = bare_fields(recording)
    stored = stored[stored["points"].astype("float64") >= from_rows]
    if not stored.empty:
        return _payload(recording, objectives, stored)
    filtered = int((asked["filters"].str.len() > 0).sum())
    return Clear(
        f"{filtered} of {len(asked)} statements that search vectors have conditions beside them; {len(bare)} lack an index on theirs and take {share:.0%} of the database's time; {len(collections(recording))} collections show no filter without an index"
    )


def searches_or_none(recording: Recording) -> pd.DataFrame:
    """Return vector searches of Postgres; none where only vector stores were seen; raises NotMeasured without both."""
    try:
        return vector_searches(recording)
    except NotMeasured:
        if not sees_stores(recording) or collections(recording).empty:
            raise NotMeasured("no searches of vectors", hint=how_to_see(recording)) from None
    return pd.DataFrame({name: pd.Series(dtype="object") for name in ("filters", "rows", "mean_exec_time_ms", "share")})


def _bare(objectives: Objectives, bare: pd.DataFrame, share: float) -> Finding:
    first = bare.iloc[0]
    lacking = first["bare"][0]
    mean = float(bare["total_exec_time_ms"].sum() / bare["calls"].sum())
    return Finding(
        title=f"Vector searches are filtered by {_worded(lacking)} of {first['table']}, which has no index: {mean:,.0f} ms each",
        severity=severity(objectives["vector_search_ms"].miss(mean), share),
        share=share,
        symptom="database time",
        evidence=(
            f"{brief(str(first['statement']))}: {first['calls']:,.0f} times, {share:.0%} of the database's time",
            f"{first['table']} has {first['rows']:,.0f} rows; all of them, or what the vector index hands over, are read to find those that meet the condition",
        ),
        remedy=_ddl(first, lacking),
        effort="low",
        frame=bare.assign(field=[_worded(each[0]) for each in bare["bare"]])[
            ["statement", "table", "field", "rows", "calls", "mean_exec_time_ms", "rows_per_call", "share"]
        ].head(20),
        figure="top_statements",
    )


def _worded(one: Filter) -> str:
    return f"a member of {one.column}" if one.expression else one.column


def _ddl(row: pd.Series, one: Filter) -> str:
    table = row["table"]
    if one.operator in ("@>", "?"):
        return f"CREATE INDEX CONCURRENTLY ON {table} USING gin ({one.column}). Where few rows meet it, Postgres then finds them first and compares those alone, which is exact."
    key = "((" + one.expression.replace("?", "'…'") + "))" if one.expression else f"({one.column})"
    return (
        f"CREATE INDEX CONCURRENTLY ON {table} {key}{_for_member(one)}, and ANALYZE {table}: where few rows meet it, they are found first and compared exactly. "
        f"For a few fixed values a partial HNSW index (WHERE …), for many tenants partitions."
    )


def _for_member(one: Filter) -> str:
    return ", with the member that the parameter names in place of …" if "?" in one.expression else ""


def bare_fields(recording: Recording) -> pd.DataFrame:
    """Return the collections of vector stores that are filtered by fields without an index: engine, name, points, bare."""
    stored = collections(recording)
    seen = filtered_fields(recording)
    rows = []
    for each in stored.to_dict("records"):
        name = str(each["name"]).partition("/")[0]
        indexed = {*(each["fields"] or {})}
        bare = {*(each["slow_filters"] or ())} | (seen.get((str(each["engine"]), name), set()) - indexed)
        if bare - indexed:
            rows.append((each["engine"], each["name"], each["points"], tuple(sorted(bare - indexed)), bool(each["slow_filters"])))  # fmt: skip
    return pd.DataFrame(rows, columns=["engine", "name", "points", "bare", "is_told"])


def _payload(recording: Recording, objectives: Objectives, stored: pd.DataFrame) -> Finding:
    first = stored.sort_values("points", ascending=False).iloc[0]
    share = float(stored["points"].astype("float64").sum() / collections(recording)["points"].astype("float64").sum())
    spans = store_spans(recording)
    took = spans.loc[spans["is_search"] & (spans["system"] == first["engine"]), "duration_ms"]
    mean = float(took.mean()) if len(took) else float("nan")
    told = (
        "the server itself names it as slowing searches down (300 ms and more)"
        if first["is_told"]
        else "traces show the filter"
    )
    return Finding(
        title=f"{first['name']} is filtered by {', '.join(first['bare'])}, which has no index in it",
        severity=severity(objectives["vector_search_ms"].miss(mean) if mean == mean else 1.5, share),
        share=share,
        symptom="vectors",
        evidence=(
            f"{first['engine']}: {float(first['points']):,.0f} points; {told}",
            *((f"its searches take {mean:,.0f} ms (mean of {len(took)})",) if len(took) else ()),
        ),
        remedy=_store_remedy(first),
        effort="low",
        frame=stored.head(20),
    )


def _store_remedy(row: pd.Series) -> str:
    field = row["bare"][0]
    if row["engine"] == "qdrant":
        return f"create_payload_index('{row['name']}', '{field}') with its type. Of an index that is there before the HNSW graph is built the graph makes use; after, have it rebuilt (set another m, or load anew)."
    return f"Give {field} a scalar index (INVERTED); of a JSON field, an index on its path, or a field of its own."
