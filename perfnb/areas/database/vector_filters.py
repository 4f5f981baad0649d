"""Searches of vectors with conditions beside them: slow where no index helps the condition, short where rows are lost."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.areas.database.store_spans import filtered_fields, store_spans
from perfnb.areas.database.vector_searches import is_indexed, part_that_passes, setting, vector_searches
from perfnb.areas.database.vector_stores import collections, how_to_see, pgvector_version, sees_stores
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
    for each in row["filters"]:
        if each.operator not in EQUAL or not each.is_required or each.column == row["column"]:
            continue
        part = part_that_passes(recording, str(row["table"]), (each,))
        if (part is None or part <= COMMON) and not is_indexed(recording, str(row["table"]), each):
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
    asked = _asked(recording)
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


def _asked(recording: Recording) -> pd.DataFrame:
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
        figure="vector_searches",
    )


def _worded(one: Filter) -> str:
    return f"a member of {one.column}" if one.expression else one.column


def _ddl(row: pd.Series, one: Filter) -> str:
    table = row["table"]
    if one.operator in ("@>", "?"):
        return f"CREATE INDEX CONCURRENTLY ON {table} USING gin ({one.column}). Where few rows meet it, Postgres then finds them first and compares those alone, which is exact."
    key = f"(({one.column}->>'…'))" if one.expression else f"({one.column})"
    return (
        f"CREATE INDEX CONCURRENTLY ON {table} {key}, with the statement's own expression, and ANALYZE {table}: where few rows meet it, they are found first and compared exactly. "
        f"For a few fixed values a partial HNSW index (WHERE …), for many tenants partitions."
    )


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
        figure="vector_searches",
    )


def _store_remedy(row: pd.Series) -> str:
    field = row["bare"][0]
    if row["engine"] == "qdrant":
        return f"create_payload_index('{row['name']}', '{field}') with its type. Of an index that is there before the HNSW graph is built the graph makes use; after, have it rebuilt (set another m, or load anew)."
    return f"Give {field} a scalar index (INVERTED); of a JSON field, an index on its path, or a field of its own."


@check("missing-results", area="database")
def missing_results(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.1, least: int = 5
) -> Finding | Clear:
    """Vector searches return fewer rows than they ask for, without an error (R94).

    An HNSW index hands over hnsw.ef_search rows at most (40 unless set), whatever the LIMIT, and a filter beside it is
    applied to those alone unless iterative scans are on (pgvector 0.8). Recordings hold no LIMIT, so a search is named
    where it returns exactly ef_search rows each time, or, filtered, fewer rows than any LIMIT would leave: not a whole
    number on average, and less than a third of the rows that meet the condition. Or where traces tell what was asked for.

    Source: beyond the seeds; pgvector's README (FAQ: fewer results; iterative scans); pgvector issues 684, 560, 846
    """
    asked = _asked(recording)
    counted = asked[asked["calls"] >= least] if len(asked) else asked
    short = pd.DataFrame([told for row in counted.to_dict("records") if (told := shortage(recording, row))])
    calls = float(counted["calls"].sum()) if len(counted) else 0.0
    share = float(short["calls"].sum() / calls) if len(short) and calls else 0.0
    if share >= min_share:
        return _short(recording, objectives, short, share)
    traced = _short_of_limit(recording)
    part = float(traced["is_short"].mean()) if len(traced) else 0.0
    if len(traced) >= least and part >= min_share:
        return _short_by_trace(objectives, traced, part)
    return Clear(
        f"{len(short)} of {len(counted)} statements that search vectors return fewer rows than they ask for, as far as counters tell; {int(traced['is_short'].sum()) if len(traced) else 0} of {len(traced)} traced searches that tell their limit"
    )


def shortage(recording: Recording, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how a search that an index serves loses rows: its row with why, expected and returned; None if it does not."""
    rows, method = row["rows_per_call"], row["method"]
    if row["why_not"] or not method or rows is None or pd.isna(rows):
        return None
    most = setting(recording, "hnsw.ef_search", role=row["role"])
    if method == "hnsw" and most.is_known and rows == most.number and not _is_iterative(recording, row):
        return {**row, "why": "ef_search", "expected": None, "setting": most.number}
    filters = [each for each in row["filters"] if each.is_required and each.column != row["column"]]
    if not filters or row["has_joins"] or _is_iterative(recording, row):
        return None
    part = part_that_passes(recording, str(row["table"]), filters)
    matching = None if part is None else part * row["rows"]
    few = rows < 1 or not float(rows).is_integer()
    if few and matching is not None and rows < matching / 3 and matching >= 1:
        return {**row, "why": "filter", "expected": matching, "setting": most.number}
    if few and matching is None and rows < 1:
        return {**row, "why": "filter", "expected": None, "setting": most.number}
    return None


def _is_iterative(recording: Recording, row: Mapping[str, Any]) -> bool:
    """Tell whether the index scan goes on until enough rows are found, or may do so for all that is known."""
    version = pgvector_version(recording)
    if version is not None and version < (0, 8):
        return False
    told = setting(recording, f"{row['method']}.iterative_scan", role=row["role"])
    return not told.is_known or told.value != "off"


def _short(recording: Recording, objectives: Objectives, short: pd.DataFrame, share: float) -> Finding:
    first = short.sort_values("calls", ascending=False).iloc[0]
    is_capped = first["why"] == "ef_search"
    returned = f"{first['rows_per_call']:,.0f}" if is_capped else f"{first['rows_per_call']:.1f}"
    title = (
        f"Vector searches return exactly {returned} rows: hnsw.ef_search is {first['setting']:,.0f}, and a LIMIT above it is cut without a word"
        if is_capped
        else f"Filtered vector searches return {returned} rows on average{_of(first)}: the index hands over its candidates, then the filter drops them"
    )
    version = pgvector_version(recording)
    return Finding(
        title=title,
        severity=severity(3.0, share),
        share=share,
        symptom="results",
        evidence=(
            f"{brief(str(first['statement']))}: {first['calls']:,.0f} times, each through {first['index']}",
            "hnsw.ef_search is the most rows an index scan returns, and at exactly that many the last of them are hardly the nearest" if is_capped
            else f"{first['method']}.iterative_scan is off, so {first['setting']:,.0f} candidates are all that the filter sees" if first["method"] == "hnsw"
            else "ivfflat.iterative_scan is off, so only the rows of the probed lists are filtered",
            *(("pgvector before 0.8 has no iterative scans",) if version is not None and version < (0, 8) else ()),
        ),
        remedy=_more_rows(is_capped),
        effort="low",
        frame=short[["statement", "table", "index", "calls", "rows_per_call", "expected", "setting", "why"]].head(20),
        figure="vector_searches",
    )  # fmt: skip


def _of(row: pd.Series) -> str:
    expected = row["expected"]
    return "" if expected is None or pd.isna(expected) else f" of about {float(expected):,.0f} that meet the condition"


def _more_rows(is_capped: bool) -> str:
    if is_capped:
        return "SET LOCAL hnsw.ef_search to at least the LIMIT, better twice it (1,000 at most), in the search's transaction or for the role; or hnsw.iterative_scan = relaxed_order. Ask for fewer rows where fewer are used."
    return "Few rows meet it: index the filter's column, so that they are found first and compared exactly. Else SET hnsw.iterative_scan = relaxed_order (pgvector 0.8) and sort again outside, or a partial index for the few values there are."


def _short_of_limit(recording: Recording) -> pd.DataFrame:
    """Return traced searches of stores that tell both how many results were asked for and how many came."""
    spans = store_spans(recording)
    told = spans[spans["is_search"] & spans["limit"].notna() & spans["documents"].notna() & (spans["requests"] <= 1)]
    return told.assign(is_short=told["documents"].astype("float64") < told["limit"].astype("float64"))


def _short_by_trace(objectives: Objectives, traced: pd.DataFrame, part: float) -> Finding:
    short = traced[traced["is_short"]]
    return Finding(
        title=f"{len(short)} of {len(traced)} searches return {short['documents'].median():,.0f} results where {short['limit'].median():,.0f} were asked for",
        severity=severity(2.5, part),
        share=part,
        symptom="results",
        evidence=(f"{', '.join(sorted(set(short['system'])))}: as its client's spans tell limit and results",),
        remedy="See whether a filter or a score threshold means it so. Else the search gives up early: a larger ef, and an index on the filtered field that is there before the graph is built.",
        effort="medium",
        frame=short[["system", "collection", "limit", "documents", "duration_ms"]].head(20),
        figure="vector_searches",
        exemplars=tuple(short["trace_id"].dropna().unique()[:3]),
    )
