"""Parameters that a vector index was built with, and those it is searched with."""

import math
from typing import Any

import pandas as pd

from perfnb.areas.database.vector_searches import setting, vector_searches
from perfnb.areas.database.vector_stores import (
    collections,
    how_to_see,
    option,
    sees_stores,
    vector_columns,
    vector_indexes,
)
from perfnb.areas.database.workload import brief
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

HOW_TO_MEASURE_RECALL = "recall at each setting: the tuner of notebook 04_database, on your own vectors"

# Fewer rows for a list than these leave its centre to chance (faiss warns from 39 on); ten times as many as the rule
# gives make each probe read ten times as much.
LEAST_PER_LIST = 39
TOO_FEW_LISTS = 8
MILLION = 1_000_000
SEGMENT_ROWS = 1_000_000
HNSW_M = (8, 64)
HNSW_EF = (32, 500)
WIDE = 256
"""From so many dimensions on, an m below the band is too low; vectors of few dimensions need no more links."""

LISTS_FROM = 50


def lists_for(rows: float) -> float:
    """Return pgvector's rule for IVFFlat lists: rows / 1000 up to a million rows, the square root above."""
    return max(1.0, rows / 1000 if rows <= MILLION else math.sqrt(rows))


def lists_off(lists: int | None, rows: float) -> str:
    """Return what is wrong with so many lists for so many rows; empty where nothing is, by a wide margin."""
    lists = lists or 100
    rule = lists_for(rows)
    if lists < rule / TOO_FEW_LISTS:
        return f"{lists:,} lists for {rows:,.0f} rows: the rule is {rule:,.0f}, and each probe reads {rows / lists:,.0f} rows"
    if rows / lists < LEAST_PER_LIST:
        return f"{lists:,} lists for {rows:,.0f} rows leave {rows / lists:,.0f} for each: the rule is {rule:,.0f}"
    return ""


def graph_off(m: int | None, ef_construction: int | None, dimensions: float) -> str:
    """Return what is wrong with an HNSW graph's parameters; empty where they lie in any seed's or engine's band."""
    if m is not None and m and m < HNSW_M[0] and dimensions >= WIDE:
        return f"m is {m}: too few links for {dimensions:,.0f} dimensions (16 by default)"
    if m is not None and m > HNSW_M[1]:
        return f"m is {m}: the links of a row take {m * 2 * 8:,} bytes and more (16 by default)"
    if ef_construction is not None and ef_construction < HNSW_EF[0]:
        return f"ef_construction is {ef_construction}: links are chosen among too few candidates (64 by default)"
    if ef_construction is not None and ef_construction > HNSW_EF[1]:
        return f"ef_construction is {ef_construction}: the build takes many times as long and hardly finds better links"
    return ""


def nlist_off(nlist: int | None, rows: float) -> str:
    """Return what is wrong with Milvus' nlist, which counts per segment (a million rows at most are taken for one)."""
    if not nlist:
        return ""
    segment = min(rows, SEGMENT_ROWS)
    rule = 4 * math.sqrt(segment)
    if segment / nlist < LEAST_PER_LIST:
        return f"nlist is {nlist:,}: {segment / nlist:,.0f} rows for each of a segment's lists (4·√n gives {rule:,.0f})"
    if nlist < rule / (4 * TOO_FEW_LISTS):
        return f"nlist is {nlist:,}: each list holds {segment / nlist:,.0f} rows (4·√n gives {rule:,.0f})"
    return ""


def build_parameters(recording: Recording) -> pd.DataFrame:
    """Return one row per vector index of Postgres and vector stores: engine, name, table, method, rows, build, wrong.

    ``wrong`` says what of its build parameters is off; empty where nothing is, by a wide margin. Raises NotMeasured
    where neither was seen.
    """
    if not sees_stores(recording):
        raise NotMeasured("no vector indexes", hint=how_to_see(recording))
    sizes = vector_columns(recording).set_index(["table", "column"])["dimensions"].to_dict()
    rows = [
        _of_postgres(each, float(sizes.get((each["table"], each["column"]), 0)))
        for each in vector_indexes(recording).to_dict("records")
    ]
    rows += [_of_store(each) for each in collections(recording).to_dict("records")]
    return pd.DataFrame(rows, columns=["engine", "name", "table", "method", "rows", "build", "wrong"])


def _of_postgres(row: dict[Any, Any], dimensions: float) -> tuple[Any, ...]:
    options, rows = row["options"] or {}, float(row["rows"])
    if row["method"] == "ivfflat":
        wrong = lists_off(option(options, "lists"), rows)
        counted = row["rows_at_build"]
        if not wrong and counted is not None and not pd.isna(counted) and 0 <= float(counted) < rows / 10:
            wrong = f"it was built when there were {float(counted):,.0f} rows; its lists do not suit the {rows:,.0f} there are"
    else:
        wrong = graph_off(option(options, "m"), option(options, "ef_construction"), dimensions)
    return ("pgvector", row["name"], row["table"], row["method"], rows, options, wrong)


def _of_store(row: dict[Any, Any]) -> tuple[Any, ...]:
    build = {str(key).lower(): value for key, value in (row["build"] or {}).items()}
    rows = 0.0 if pd.isna(row["points"]) else float(row["points"])
    method = str(row["index"] or "").lower()
    if method.startswith("ivf"):
        wrong = nlist_off(option(build, "nlist"), rows)
    else:
        ef = option(build, "ef_construct") or option(build, "efconstruction") or option(build, "ef_construction")
        dimensions = 0.0 if pd.isna(row["dimensions"]) else float(row["dimensions"])
        wrong = graph_off(option(build, "m"), ef, dimensions) if "hnsw" in method else ""
    return (row["engine"], row["name"], row["name"], method, rows, row["build"] or {}, wrong)


@check("vector-build-parameters", area="database")
def vector_build_parameters(recording: Recording, objectives: Objectives, *, min_share: float = 0.1) -> Finding | Clear:
    """A vector index was built with parameters far from what fits its rows (R70).

    IVFFlat lists: rows / 1000 up to a million rows, the square root above; Milvus' nlist: 4·√n of each segment. Named
    below an eighth of the rule and above what leaves 39 rows for a list, or where the index was built before the data.
    HNSW: m outside 8 to 64, ef_construction outside 32 to 500. Below 10,000 rows nothing is named.

    Source: A21, C37, C39, E18, E20; pgvector's README; Milvus' performance FAQ
    """
    frame = build_parameters(recording)
    off = frame[(frame["wrong"] != "") & (frame["rows"] >= float(objectives["vector_index_rows"].value[0]))]
    share, symptom, mean = _touched(recording, off, frame)
    if off.empty or share < min_share:
        return Clear(
            f"{len(off)} of {len(frame)} vector indexes have build parameters far off; {share:.0%} of the vectors' searches or rows are theirs"
        )
    first = off.sort_values("rows", ascending=False).iloc[0]
    is_slow = mean is not None and symptom == "database time"
    return Finding(
        title=f"{first['name']} was built with parameters that do not fit: {first['wrong']}",
        severity=severity(objectives["vector_search_ms"].miss(mean) if mean is not None and is_slow else 1.5, share),
        share=share,
        symptom=symptom,
        evidence=(
            f"{first['engine']}, {first['method']} on {first['table']} with {first['rows']:,.0f} rows: {_worded(first['build'])}",
            *((f"its searches take {mean:,.1f} ms (mean)",) if mean is not None else ()),
        ),
        remedy=_rebuild(first),
        effort="medium",
        frame=off.head(20),
        figure="top_statements",
    )


def _worded(build: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in build.items()) or "engine's defaults"


def _touched(recording: Recording, off: pd.DataFrame, frame: pd.DataFrame) -> tuple[float, str, float | None]:
    """Return the share of time or rows that the indexes in ``off`` have, its symptom, and their searches' mean time."""
    names = set(off.loc[off["engine"] == "pgvector", "name"])
    try:
        asked = vector_searches(recording)
    except NotMeasured:
        asked = pd.DataFrame(columns=["index", "share", "calls", "total_exec_time_ms"])
    own = asked[asked["index"].isin(names)]
    if not own.empty:
        return min(1.0, float(own["share"].sum())), "database time", float(own["total_exec_time_ms"].sum() / own["calls"].sum())  # fmt: skip
    stored, rows = off[off["engine"] != "pgvector"], frame.loc[frame["engine"] != "pgvector", "rows"].sum()
    return (float(stored["rows"].sum() / rows) if rows else 0.0), "vectors", None


def _rebuild(row: pd.Series) -> str:
    if row["method"] == "ivfflat":
        lists = round(lists_for(float(row["rows"])))
        return f"Build it anew now that the data is there, CREATE INDEX CONCURRENTLY … USING ivfflat … WITH (lists = {lists:,}), with ivfflat.probes about {math.sqrt(lists):,.0f}, and drop the old one; or HNSW, which need not know the rows beforehand."
    if row["method"].startswith("ivf"):
        return f"Build it anew with nlist {4 * math.sqrt(min(float(row['rows']), SEGMENT_ROWS)):,.0f} (4·√n of a segment), or HNSW."
    return "Build it anew with m 16 to 32 and ef_construction 64 to 200, and compare recall and time with the tuner."


@check("vector-search-parameters", area="database")
def vector_search_parameters(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.1, least: int = 5, far: float = 20
) -> Finding | Clear:
    """An index is searched with parameters that are provably off: one list of many, or far more candidates than rows (R71).

    No constant is right: the same ef_search found all neighbours of clustered vectors and two fifths of independent ones.
    So only this is named: ivfflat.probes = 1 with 50 lists or more (one part in so many is read), and hnsw.ef_search of
    400 or more that is 20 times the rows returned and takes a tenth of the database's time. A LIMIT above ef_search is
    left to missing-results. All else is not measured until recall is.

    Source: C40, C41, C42, E23, A21; pgvector's README
    """
    asked = vector_searches(recording)
    served = asked[(asked["why_not"] == "") & (asked["index"] != "") & (asked["calls"] >= least)]
    if served.empty:
        return Clear(f"none of {len(asked)} statements that search vectors goes through a vector index")
    judged = served.assign(why=[_off(recording, row, far) for row in served.to_dict("records")])
    off = judged[judged["why"] != ""]
    share = float(off["calls"].sum() / asked["calls"].sum())
    of_time = min(1.0, float(off["share"].sum()))
    is_slow = bool(off["why"].str.startswith("hnsw").any())
    if off.empty or share < min_share or (is_slow and of_time < min_share):
        raise NotMeasured("recall was not measured", hint=HOW_TO_MEASURE_RECALL)
    first = off.iloc[0]
    mean = float(off["total_exec_time_ms"].sum() / off["calls"].sum())
    return Finding(
        title=f"Searches of {first['index']} are set wrong: {first['why']}",
        severity=severity(objectives["vector_search_ms"].miss(mean) if is_slow else 2.5, of_time if is_slow else share),
        share=of_time if is_slow else share,
        symptom="database time" if is_slow else "results",
        evidence=(
            f"{brief(str(first['statement']))}: {first['calls']:,.0f} times, {first['mean_exec_time_ms']:,.1f} ms each, {_rows(first)}",
            f"{first['share']:.0%} of the database's time",
        ),
        remedy=_set(first),
        effort="low",
        frame=off[["statement", "index", "method", "calls", "rows_per_call", "mean_exec_time_ms", "share", "why"]].head(20),
        figure="top_statements",
    )  # fmt: skip


def _rows(row: pd.Series) -> str:
    return "rows not known" if pd.isna(row["rows_per_call"]) else f"{row['rows_per_call']:,.1f} rows"


def _off(recording: Recording, row: dict[Any, Any], far: float) -> str:
    if row["method"] == "ivfflat":
        lists, probes = option(row["options"], "lists") or 100, setting(recording, "ivfflat.probes", role=row["role"])
        if probes.is_known and probes.number == 1 and lists >= LISTS_FROM:
            return f"ivfflat.probes is 1 of {lists:,} lists, so that neighbours in the other lists are never found"
        return ""
    most, rows = setting(recording, "hnsw.ef_search", role=row["role"]), row["rows_per_call"]
    if most.is_known and most.number >= 400 and not pd.isna(rows) and most.number >= far * max(rows, 1):
        return f"hnsw.ef_search is {most.number:,.0f} for {rows:,.0f} rows"
    return ""


def _set(row: pd.Series) -> str:
    if row["method"] == "ivfflat":
        lists = option(row["options"], "lists") or 100
        return f"Begin with ivfflat.probes = {math.sqrt(lists):,.0f} (√lists) for the role or with SET LOCAL in the search's transaction, and measure recall against an exact search with the tuner."
    return "Find the least hnsw.ef_search that meets your recall with the tuner, on your own vectors and questions."
