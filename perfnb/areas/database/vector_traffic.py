"""Searches and inserts of vectors that go one by one where they could go together."""

import math
import re

import pandas as pd

from perfnb.areas.database import counters
from perfnb.areas.database.store_spans import store_spans
from perfnb.areas.database.vector_searches import vector_searches
from perfnb.areas.database.vector_stores import how_to_see, vector_columns
from perfnb.areas.database.workload import brief, workload
from perfnb.attribution import prepare, sees_requests, share_of_all_waits
from perfnb.attribution.objects import grown
from perfnb.attribution.queries import prepare_queries
from perfnb.attribution.statements import prepare_statements
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Estimate, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording
from perfnb.sql import parsed

BATCH = 100
HOW_TO_SEE_WRITES = "inserts by request: traces with database spans (--otlp), or perfnb record --dsn DSN"

RUNS = ["trace_id", "request_id", "what", "calls", "sum_ms", "longest_ms", "begun_together"]


def writes_of_one(recording: Recording) -> pd.DataFrame:
    """Return one row per trace and table or collection into which vectors were written in statements of their own.

    Columns: trace_id, what (table or collection), calls, sum_ms. A statement that writes many rows, or a driver's span
    for many statements sent together, is one call.
    """
    names = set(vector_columns(recording)["table"]) if recording.has("catalog") else set()
    seen = prepare_queries(recording).query(
        "SELECT trace_id, span_id, statement, shape, name, duration_ms FROM query_spans WHERE kind = 'insert'"
    )
    seen["what"] = [_written(str(each), names) for each in seen["statement"]]
    rows = seen[(seen["what"] != "") & ~seen["name"].str.contains("executemany|batch|copy", case=False, na=False)]
    stored = store_spans(recording)
    stored = stored[stored["is_write"] & (stored["items"] <= 1)].assign(what=stored["collection"].fillna(stored["system"]))  # fmt: skip
    both = pd.concat([rows[["trace_id", "what", "duration_ms"]], stored[["trace_id", "what", "duration_ms"]]])
    groups = both.groupby(["trace_id", "what"])["duration_ms"]
    return groups.agg(calls="count", sum_ms="sum").reset_index()


def _written(statement: str, names: set[str]) -> str:
    """Return the table of vectors that a statement with one row of values writes into; empty where it does not."""
    found = parsed(statement)
    if found is None or not found.written or "unnest" in statement.lower():
        return ""
    written = found.written[0]
    return next((name for name in names if name == written or name.rpartition(".")[2] == written), "")


@check("single-inserts", area="database")
def single_inserts(
    recording: Recording,
    objectives: Objectives,
    *,
    per_request: int = 8,
    least: int = 50,
    min_share: float = 0.05,
    min_wait: float = 0.02,
) -> Finding | Clear:
    """Vectors are stored one at a time, each with a round trip and a commit of its own (R73).

    By traces: 8 or more inserts of one row into a table or collection of vectors for one request. By counters: 50 or
    more inserts of one row, a twentieth of the database's time, that were committed one by one: other statements are
    too few to be what the other commits were for. Where requests are seen, that is 8 or more a request, and a fiftieth
    of their wait (round trips and the flush of each commit come on top). One insert a request, as for a turn of a chat,
    is what it should be, and what is sent together in one transaction is.

    Source: A23
    """
    traced = writes_of_one(recording)
    many = traced[traced["calls"] >= per_request]
    if not many.empty:
        saved = many["sum_ms"] * (1 - [math.ceil(n / BATCH) for n in many["calls"]] / many["calls"])
        share = share_of_all_waits(recording, float(saved.sum()))
        if share >= min_share:
            return _by_trace(recording, objectives, many, share)
    counted = _felt(recording, _counted(recording, least), per_request, min_wait)
    share = float(counted["share"].sum())
    if many.empty and len(counted) and share >= min_share:
        return _by_counts(objectives, counted, min(1.0, share))
    return Clear(
        f"{len(many)} of {len(traced)} traces that write vectors do so with {per_request} or more inserts of one row; by counters, inserts of one row that were committed one by one, {per_request} or more a request where requests are seen, take {share:.0%} of the database's time"
    )  # fmt: skip


def _by_trace(recording: Recording, objectives: Objectives, many: pd.DataFrame, share: float) -> Finding:
    first = many.sort_values("calls", ascending=False).iloc[0]
    took = prepare(recording).query("SELECT trace_id, duration_ms FROM user_requests WHERE trace_id IS NOT NULL")
    waits = took[took["trace_id"].isin(many["trace_id"])]["duration_ms"]
    waited = float(waits.median()) if len(waits) else float(many["sum_ms"].median())
    lost = float(many["sum_ms"].median())
    return Finding(
        title=f"{len(many)} requests store {many['calls'].median():.0f} vectors each, one insert after another",
        severity=severity(max(objectives["ingest_document_ms"].miss(waited), 1.5), share),
        share=share,
        symptom="latency",
        evidence=(
            f"{many['calls'].sum():,.0f} inserts of one row into {first['what']}, {many['sum_ms'].sum() / many['calls'].sum():.1f} ms each",
            f"a request waits {lost:,.0f} ms for them (median), of {waited:,.0f} ms",
        ),
        remedy=f"Store a document's vectors in one statement and one transaction: INSERT … SELECT FROM unnest($1, $2), COPY, or upsert with {BATCH} points at a time.",
        effort="low",
        estimate=Estimate(
            "request_duration_ms", waited, waited - lost * 0.95, waited - lost * 0.6,
            ("of such requests; two fifths to a twentieth of the time is work that a batch needs too",),
        ),
        frame=many.head(50),
        exemplars=tuple(many.nlargest(3, "calls")["trace_id"]),
    )  # fmt: skip


def _counted(recording: Recording, least: int) -> pd.DataFrame:
    """Return inserts of one row into tables of vectors that were committed one by one.

    Columns of :func:`workload`, what (table), commits (while they ran) and alone (how many of them, at least, held
    such an insert and can have held nothing else).
    """
    empty = pd.DataFrame(columns=["statement", "calls", "mean_exec_time_ms", "share", "what"])
    try:
        names, frame = set(vector_columns(recording)["table"]), workload(recording)
    except NotMeasured:
        if store_spans(recording).empty:
            raise NotMeasured("no inserts of vectors", hint=f"{HOW_TO_SEE_WRITES}; {how_to_see(recording)}") from None
        return empty
    is_one = (frame["kind"] == "insert") & (frame["rows_per_call"] <= 1.5) & (frame["calls"] >= least)
    frame = frame[is_one & (frame["seen_by"] == "counters")]
    frame = frame.assign(what=pd.Series([_written(str(each), names) for each in frame["statement"]], frame.index, dtype="object"))  # fmt: skip
    frame = frame[frame["what"] != ""]
    commits = _commits(recording) if len(frame) else None
    if commits is None:
        return empty
    calls = float(frame["calls"].sum())
    alone = min(calls, commits - (_committing(recording) - calls))
    return frame.assign(commits=commits, alone=alone) if alone >= ONE_BY_ONE * calls else empty


ONE_BY_ONE = 0.8
"""Part of the inserts for which a commit of their own must be shown."""


def _commits(recording: Recording) -> float | None:
    """Return how many transactions were committed while statements were counted; None where nobody counted them."""
    steps = counters.counted(recording, "commits")
    if steps.empty:
        database = grown(recording, "database")
        return float(database["commits_grown"].max()) if "commits_grown" in database else None
    known = prepare_statements(recording).query(
        "SELECT DISTINCT before_time, time FROM statement_snapshots WHERE is_outside_trials"
    )
    since = steps.groupby("entity")["time"].shift().fillna(steps["time"])
    middle = ((steps["time"] + since) / 2).to_numpy()[:, None]  # as the two are not read at the very same moment
    is_within = ((middle > known["before_time"].to_numpy()) & (middle <= known["time"].to_numpy())).any(axis=1)
    return float(steps[is_within].groupby("entity")["step"].sum().max()) if is_within.any() else None


_TRANSACTION = re.compile(r"(?:begin|start|commit|end|rollback|abort|savepoint|release)\b", re.I)
_ONE_RESET = re.compile(r"select pg_advisory_unlock_all\(\)|close all|unlisten \*|reset all", re.I)
"""What asyncpg sends together, as one text, whenever a connection goes back to its pool: it commits once."""


def _committing(recording: Recording) -> float:
    """Return how many runs of statements commits may have been for: each holds one or more."""
    frame = prepare_statements(recording).query(
        "SELECT coalesce(query, '') AS query, sum(calls) AS calls FROM statement_windows "
        "WHERE coalesce(is_top_level, true) GROUP BY ALL"
    )
    texts = frame["query"].str.strip().str.rstrip(";")
    resets = frame.loc[texts.str.fullmatch(_ONE_RESET), "calls"]
    others = frame.loc[~texts.str.match(_TRANSACTION) & ~texts.index.isin(resets.index), "calls"]
    return float(others.sum()) + (float(resets.max()) if len(resets) else 0.0)


def _felt(recording: Recording, frame: pd.DataFrame, per_request: int, min_wait: float) -> pd.DataFrame:
    """Return ``frame`` where requests wait for such inserts, many each; and where no requests are seen."""
    if frame.empty or not sees_requests(recording):
        return frame
    seen = prepare(recording).query("SELECT count(*) AS n, sum(duration_ms) AS ms FROM user_requests").iloc[0]
    each = frame["calls_per_request"].astype("float64").fillna(frame["calls"] / seen["n"])
    wait = frame["share_of_wait"].astype("float64").fillna(frame["total_exec_time_ms"] / max(1.0, seen["ms"]))
    return frame[(each >= per_request) & (wait >= min_wait)]


def _by_counts(objectives: Objectives, counted: pd.DataFrame, share: float) -> Finding:
    first = counted.iloc[0]
    return Finding(
        title=f"{counted['calls'].sum():,.0f} vectors were stored in {first['what']}, one insert and one commit each",
        severity=severity(1.5, share),
        share=share,
        symptom="database time",
        evidence=(
            f"{brief(str(first['statement']))}: {first['calls']:,.0f} times, {first['mean_exec_time_ms']:.1f} ms each",
            f"{first['commits']:,.0f} transactions were committed meanwhile, {first['alone']:,.0f} or more of them for such inserts: other statements were too few",
        ),
        remedy=f"Store vectors {BATCH} or more at a time: INSERT … SELECT FROM unnest($1, $2), or COPY, in one transaction.",
        effort="low",
        frame=counted[["statement", "what", "calls", "rows_per_call", "mean_exec_time_ms", "share"]].head(20),
    )  # fmt: skip


_BETWEEN_MS = 25.0


def search_runs(recording: Recording) -> pd.DataFrame:
    """Return runs of searches of vectors that follow each other in one trace with nothing to wait for in between.

    Columns: trace_id, what (table or collection), calls, sum_ms, longest_ms. A run ends where a pause is longer than
    25 ms and than half a search, or where searches overlap, as then they already run together.
    """
    found = pd.concat([_of_postgres(recording), _of_stores(recording)]).sort_values(["trace_id", "start_time"])
    rows = []
    for (trace, what), group in found.groupby(["trace_id", "what"]):
        group = group.reset_index(drop=True)
        ends = group["start_time"] + (group["duration_ms"] * 1e6).astype("int64")
        pause_ms = (group["start_time"] - ends.shift()) / 1e6
        longest = (group["duration_ms"].shift() / 2).clip(lower=_BETWEEN_MS)
        is_new = pause_ms.isna() | (pause_ms < -1) | (pause_ms > longest)
        for _, run in group.groupby(is_new.cumsum()):
            rows.append((trace, what, len(run), run["duration_ms"].sum(), run["duration_ms"].max()))
    return pd.DataFrame(rows, columns=["trace_id", "what", "calls", "sum_ms", "longest_ms"])


def _of_postgres(recording: Recording) -> pd.DataFrame:
    try:
        shapes = vector_searches(recording)[["shape", "table"]].drop_duplicates("shape")
    except NotMeasured:
        shapes = pd.DataFrame({"shape": pd.Series(dtype="object"), "table": pd.Series(dtype="object")})
    seen = prepare_queries(recording).query("SELECT trace_id, shape, start_time, duration_ms FROM query_spans")
    return seen.merge(shapes, on="shape").rename(columns={"table": "what"})[
        ["trace_id", "what", "start_time", "duration_ms"]
    ]


def _of_stores(recording: Recording) -> pd.DataFrame:
    frame = store_spans(recording)
    frame = frame[frame["is_search"] & (frame["requests"] <= 1)]
    return frame.assign(what=frame["collection"].fillna(frame["system"]))[
        ["trace_id", "what", "start_time", "duration_ms"]
    ]


@check("single-vector-searches", area="database")
def single_vector_searches(
    recording: Recording, objectives: Objectives, *, per_request: int = 3, min_share: float = 0.05, requests: int = 3
) -> Finding | Clear:
    """One request searches vectors several times in a row, though nothing happens in between (R74).

    Searches that wait for each other (a model is asked in between) or already run together are left alone. The time is
    what all but the longest of a run take.

    Source: C44
    """
    runs = search_runs(recording)
    if runs.empty:
        raise NotMeasured("no searches in traces", hint="searches by request: traces with database spans (--otlp)")
    many = runs[runs["calls"] >= per_request]
    saved = float((many["sum_ms"] - many["longest_ms"]).sum())
    share = share_of_all_waits(recording, saved)
    if many["trace_id"].nunique() < requests or share < min_share:
        return Clear(
            f"{many['trace_id'].nunique()} of {runs['trace_id'].nunique()} requests search vectors {per_request} or more times in a row ({share:.0%} of the wait)"
        )
    each = float(many["sum_ms"].median())
    return Finding(
        title=f"{many['trace_id'].nunique()} requests search vectors {many['calls'].median():.0f} times in a row",
        severity=severity(objectives["vector_search_ms"].miss(each), share),
        share=share,
        symptom="latency",
        evidence=(
            f"the searches of a request take {each:,.0f} ms together, the longest alone {many['longest_ms'].median():,.0f} ms (medians)",
            "nothing happens between them, so none waits for what another found",
        ),
        remedy="Send them together: several query vectors in one search (Milvus), query_batch_points (Qdrant), a LATERAL join over unnest($1::vector[]) (pgvector); or start them with asyncio.gather.",
        effort="low",
        frame=many.head(50),
        exemplars=tuple(many.nlargest(3, "sum_ms")["trace_id"]),
    )
