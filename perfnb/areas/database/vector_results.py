"""Searches of vectors that return fewer rows than they ask for."""

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from perfnb.areas.database.row_estimates import plans
from perfnb.areas.database.store_spans import store_spans
from perfnb.areas.database.vector_filters import searches_or_none
from perfnb.areas.database.vector_searches import DEFAULTS, part_that_passes, setting
from perfnb.areas.database.vector_stores import pgvector_version, vector_indexes
from perfnb.areas.database.workload import brief
from perfnb.attribution import observed
from perfnb.attribution.shapes import shape_of
from perfnb.checklist import check
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.plans import Node, Plan
from perfnb.recording import Recording


@check("missing-results", area="database")
def missing_results(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.1, least: int = 5
) -> Finding | Clear:
    """Vector searches return fewer rows than they ask for, without an error (R94).

    An HNSW index hands over hnsw.ef_search rows at most (40 unless set), whatever the LIMIT, and a filter beside it is
    applied to those alone unless iterative scans are on (pgvector 0.8). Where the LIMIT is a parameter, a search is named
    where it returns exactly the 40 rows each time that nobody chose, or, filtered, fewer rows than any LIMIT would leave:
    not a whole number on average, and less than a third of the rows that meet the condition. Exactly 40 rows may be what
    was asked for, so that is never more than medium. Where the statement's text
    holds the LIMIT, a plan that was executed tells it (auto_explain, EXPLAIN ANALYZE) or traces do, that is gone by; an
    ef_search that was set may well be the LIMIT, so nothing else can tell there.

    Source: beyond the seeds; pgvector's README (FAQ: fewer results; iterative scans); pgvector issues 684, 560, 846
    """
    asked = searches_or_none(recording)
    counted = asked[asked["calls"] >= least] if len(asked) else asked
    limits = planned_limits(recording) | written_limits(recording, counted) if len(counted) else {}
    told = [shortage(recording, row, limits) for row in counted.to_dict("records")]
    short = pd.DataFrame([each for each in told if each is not None])
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


def planned_limits(recording: Recording) -> dict[str, tuple[float, float]]:
    """Return for each queryid the LIMIT that its executed plan was given above a vector index, and the rows that came."""
    indexes = {str(name).rpartition(".")[2] for name in vector_indexes(recording)["name"]}
    found: dict[str, tuple[float, float]] = {}
    for each in plans(recording).itertuples():
        limit = _limit(each.plan, indexes)
        if limit is not None and each.queryid:
            found[str(each.queryid)] = limit
    return found


def written_limits(recording: Recording, searches: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return for each queryid of ``searches`` the LIMIT that spans or sessions hold in its text, the largest of several,
    and the rows that came."""
    texts = observed(recording).query(
        "SELECT DISTINCT statement AS text FROM observed_spans WHERE statement ILIKE '%limit%' "
        "UNION SELECT DISTINCT query FROM observed_activity WHERE query ILIKE '%limit%'"
    )["text"]
    written: dict[str, float] = {}
    for text in texts:
        if found := _WRITTEN.search(text):
            shape = shape_of(text).key
            written[shape] = max(written.get(shape, 0), float(found[1]))
    return {
        str(queryid): (written[row["shape"]], float(row["rows_per_call"] or 0))
        for row in searches.to_dict("records")
        if row["shape"] in written
        for queryid in row["queryids"] or ()
    }


_WRITTEN = re.compile(r"\blimit\s+(\d+)\s*;?\s*$", re.I)
"""At the end of the text: one further in is a subquery's."""


def _limit(plan: Plan, indexes: set[str]) -> tuple[float, float] | None:
    for node in plan.nodes():
        rows = node.rows_each
        if node.type == "Limit" and rows is not None and node.rows_estimated and _reads(node, indexes):
            return node.rows_estimated, rows
    return None


def _reads(node: Node, indexes: set[str]) -> bool:
    return any(each.index in indexes for each in node.walk())


def shortage(
    recording: Recording, row: Mapping[str, Any], limits: Mapping[str, tuple[float, float]]
) -> dict[str, Any] | None:
    """Return how a search that an index serves loses rows: its row with why, expected and setting; None if it does not."""
    rows, method = row["rows_per_call"], row["method"]
    if row["why_not"] or not method or rows is None or pd.isna(rows):
        return None
    planned = next((limits[str(each)] for each in row["queryids"] or () if str(each) in limits), None)
    if planned is not None and rows >= planned[0] * 0.99:
        return None  # as many as it asks for, be it ef_search or not
    most = setting(recording, "hnsw.ef_search", role=row["role"])
    may_be_limit = planned is None and most.value != DEFAULTS["hnsw.ef_search"]
    is_capped = method == "hnsw" and most.is_known and rows == most.number and not may_be_limit
    if is_capped and not _is_iterative(recording, row):
        return {**row, "why": "ef_search", "expected": planned[0] if planned else None, "setting": most.number}
    filters = [each for each in row["filters"] if each.is_required and each.column != row["column"]]
    if not filters or row["has_joins"] or row["is_bounded"] or _is_iterative(recording, row):
        return None
    part = part_that_passes(recording, str(row["table"]), filters)
    if part == 1.0:
        return None  # all rows meet it, so it drops none
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
    is_known = (short["why"] != "ef_search") | short["expected"].notna()
    first = short.assign(is_known=is_known).sort_values(["is_known", "calls"], ascending=False).iloc[0]
    is_capped = first["why"] == "ef_search"
    version = pgvector_version(recording)
    return Finding(
        title=_title(first),
        severity=severity(3.0 if is_known.any() else 2.0, share),
        share=share,
        symptom="results",
        evidence=(
            f"{brief(str(first['statement']))}: {first['calls']:,.0f} times, each through {first['index']}",
            "hnsw.ef_search is the most rows an index scan returns, and at exactly that many the last of them are hardly the nearest" if is_capped
            else f"{first['method']}.iterative_scan is off, so {first['setting']:,.0f} candidates are all that the filter sees" if first["method"] == "hnsw"
            else "ivfflat.iterative_scan is off, so only the rows of the probed lists are filtered",
            *_planned(first),
            *(("pgvector before 0.8 has no iterative scans",) if version is not None and version < (0, 8) else ()),
        ),
        remedy=_more_rows(is_capped),
        effort="low",
        frame=short[["statement", "table", "index", "calls", "rows_per_call", "expected", "setting", "why"]].head(20),
        figure="top_statements",
    )  # fmt: skip


def _title(row: pd.Series) -> str:
    if row["why"] != "ef_search":
        return f"Filtered vector searches return {row['rows_per_call']:.1f} rows on average{_of(row)}: the index hands over its candidates, then the filter drops them"
    rows, expected = f"{row['rows_per_call']:,.0f}", row["expected"]
    if expected is None or pd.isna(expected):
        return f"Vector searches return exactly the {rows} rows that hnsw.ef_search allows; a LIMIT above it would be cut without a word"
    return f"Vector searches return exactly {rows} of the {float(expected):,.0f} rows they ask for: hnsw.ef_search is {row['setting']:,.0f}, and a LIMIT above it is cut without a word"


def _planned(row: pd.Series) -> tuple[str, ...]:
    if row["why"] != "ef_search":
        return ()
    if row["expected"] is None or pd.isna(row["expected"]):
        return (
            "whether they ask for more is not known: the LIMIT is a parameter, and neither plans nor traces tell it",
        )
    return (f"its LIMIT is {float(row['expected']):,.0f}, as its text or a plan that was executed shows",)


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
        exemplars=tuple(short["trace_id"].dropna().unique()[:3]),
    )
