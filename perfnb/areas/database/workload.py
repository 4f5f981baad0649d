"""What the database was asked while it was observed: one row per statement, from its counters or from the app's spans."""

import math

import numpy as np
import pandas as pd

from perfnb.attribution import observed, prepare, sees_requests
from perfnb.attribution.queries import calls_per_request, prepare_queries
from perfnb.attribution.shapes import shape_of
from perfnb.attribution.statements import (
    HOW_TO_SEE_STATEMENTS,
    database_time_ms,
    prepare_statements,
    statement_seconds,
)
from perfnb.errors import NotMeasured
from perfnb.finding import Severity
from perfnb.objectives import severity
from perfnb.recording import Recording

BLOCK_BYTES = 8192

# One-sided Chebyshev (Cantelli): at most 5 % of all values lie further than this many deviations above the mean.
CANTELLI = math.sqrt(0.95 / 0.05)

HOW_TO_SEE_WORKLOAD = f"{HOW_TO_SEE_STATEMENTS}; or traces with database spans (--otlp)"

_SUMS = (
    "calls", "total_exec_time_ms", "squares", "rows", "shared_blocks_hit", "shared_blocks_read", "temp_blocks_written",
    "block_read_time_ms",
)  # fmt: skip

_COUNTED = """
SELECT coalesce(query, '') AS statement, queryid, role, calls, total_exec_time_ms, rows, shared_blocks_hit,
       shared_blocks_read, temp_blocks_written, block_read_time_ms, max_exec_time_ms,
       calls * (stddev_exec_time_ms * stddev_exec_time_ms + mean_exec_time_ms * mean_exec_time_ms) AS squares
FROM statement_windows WHERE coalesce(is_top_level, true)
"""

_LONGEST = """
SELECT queryid, max(max_exec_time_ms) AS longest_ms FROM statements WHERE queryid IS NOT NULL GROUP BY queryid
"""

_TRACED = """
SELECT shape, any_value(kind) AS kind, min(statement) AS statement, count(*) AS calls,
       sum(duration_ms) AS total_exec_time_ms, sum(duration_ms * duration_ms) AS squares,
       max(duration_ms) AS max_exec_time_ms, max(duration_ms) AS longest_ms
FROM query_spans GROUP BY shape
"""

_PERCENTILES = """
SELECT shape, count(*) AS timed, percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms FROM query_spans GROUP BY shape
"""


def workload(recording: Recording) -> pd.DataFrame:
    """Return one row per statement that clients sent while observed, most time first; pool housekeeping left out.

    Columns: statement (its text, empty where the role may not see it), shape, kind, role, queryids, calls, calls_per_s,
    total_exec_time_ms, share (of the execution time of all statements), mean_exec_time_ms, stddev_exec_time_ms,
    max_exec_time_ms (NA where the longest was before the window), longest_ms (ever), p95_at_most_ms (a bound: counters
    hold no percentile), p50_ms and p95_ms (from the app's own spans, NA without), rows_per_call, blocks_per_call,
    blocks_read, block_read_time_ms, temp_bytes_per_call, calls_per_request, ms_per_request, share_of_wait (part of
    the requests' time), share_of_queries (part of what requests spend on the database; where traces show it, round
    trips are in it), certainty (of what is said of requests) and seen_by (counters, or traces: then times are the
    client's and blocks are NA). Raises NotMeasured where statements were neither counted twice nor traced.
    """
    return recording.derived("workload", lambda: _workload(recording)).copy()


def _workload(recording: Recording) -> pd.DataFrame:
    prepare_queries(recording)
    try:
        frame, total_ms, seconds = _counted(recording), database_time_ms(recording), statement_seconds(recording)
    except NotMeasured:
        frame, seconds = (
            recording.query(_TRACED).assign(role=None, queryids=None, seen_by="traces"),
            _seconds(recording),
        )
        total_ms = float(frame["total_exec_time_ms"].sum())
        if frame.empty:
            raise NotMeasured("no statements", hint=HOW_TO_SEE_WORKLOAD) from None
    frame = _judged(frame.reindex(columns=_COLUMNS), total_ms, seconds)
    frame = frame.merge(recording.query(_PERCENTILES), on="shape", how="left")
    frame = frame.merge(_of_requests(recording), on="shape", how="left")
    return frame.sort_values("total_exec_time_ms", ascending=False, ignore_index=True)


_COLUMNS = ["shape", "kind", "statement", "role", "queryids", *_SUMS, "max_exec_time_ms", "longest_ms", "seen_by"]


def _seconds(recording: Recording) -> float:
    frame = recording.query("SELECT (max(end_time) - min(start_time)) / 1e9 AS seconds FROM query_spans")
    return float(frame["seconds"].fillna(0).iloc[0])


def _counted(recording: Recording) -> pd.DataFrame:
    """Return statements as the server counted them; roles and ids of one shape together."""
    rows = prepare_statements(recording).query(_COUNTED).merge(recording.query(_LONGEST), on="queryid", how="left")
    shapes = [shape_of(text) for text in rows["statement"]]
    hidden = rows["statement"] == ""
    rows["shape"] = pd.Series([shape.key for shape in shapes], rows.index, dtype="object").mask(hidden, rows["queryid"])
    rows["kind"] = pd.Series([shape.kind for shape in shapes], rows.index, dtype="object").mask(hidden, "hidden")
    rows = rows[hidden | np.array([shape.is_work for shape in shapes], dtype=bool)]
    groups = rows.sort_values("total_exec_time_ms", ascending=False).groupby("shape", sort=False)
    told = groups.agg(
        kind=("kind", "first"), statement=("statement", "first"), role=("role", "first"),
        queryids=("queryid", tuple), max_exec_time_ms=("max_exec_time_ms", "max"), longest_ms=("longest_ms", "max"),
    )  # fmt: skip
    return told.join(groups[list(_SUMS)].sum(min_count=1)).reset_index().assign(seen_by="counters")


def _judged(frame: pd.DataFrame, total_ms: float, seconds: float) -> pd.DataFrame:
    calls = frame["calls"].astype(float)
    mean = frame["total_exec_time_ms"] / calls
    deviation = np.sqrt((frame.pop("squares") / calls - mean**2).clip(lower=0))
    blocks = frame["shared_blocks_hit"] + frame["shared_blocks_read"]
    bound = mean + CANTELLI * deviation
    return frame.assign(
        calls_per_s=calls / seconds if seconds > 0 else math.nan,
        share=(frame["total_exec_time_ms"] / total_ms).clip(0, 1) if total_ms > 0 else 0.0,
        mean_exec_time_ms=mean,
        stddev_exec_time_ms=deviation,
        p95_at_most_ms=np.fmin(bound, frame["longest_ms"].astype(float)),
        rows_per_call=frame["rows"] / calls,
        blocks_per_call=blocks / calls,
        blocks_read=frame["shared_blocks_read"],
        temp_bytes_per_call=frame["temp_blocks_written"] * BLOCK_BYTES / calls,
    ).drop(columns=["shared_blocks_hit", "shared_blocks_read", "temp_blocks_written"])


_REQUESTS = "SELECT route, count(*) AS total, sum(duration_ms) AS duration_ms FROM user_requests GROUP BY route"


def _of_requests(recording: Recording) -> pd.DataFrame:
    """Return shape, calls_per_request, ms_per_request, share_of_wait …; empty where requests are not seen."""
    columns = ["shape", "calls_per_request", "ms_per_request", "share_of_wait", "share_of_queries", "certainty"]
    nothing = pd.DataFrame(columns=columns).astype({"shape": object} | dict.fromkeys(columns[1:], float))
    try:
        if not sees_requests(recording):
            return nothing
        known = calls_per_request(recording)
    except NotMeasured:
        return nothing
    totals = prepare(recording).query(_REQUESTS)
    everyone, of_route = float(totals["total"].sum()), dict(zip(totals["route"], totals["total"], strict=True))
    known["total"] = [everyone if pd.isna(route) else of_route.get(route, everyone) for route in known["route"]]
    known["waited_ms"] = known["ms_per_request"] * known["total"]
    known["ran"] = known["calls_per_request"] * known["total"]
    groups = known.groupby("shape").agg(
        ran=("ran", "sum"), total=("total", "sum"), waited_ms=("waited_ms", "sum"), certainty=("certainty", "min")
    )
    wait = float(totals["duration_ms"].sum())
    return groups.assign(
        calls_per_request=groups["ran"] / groups["total"],
        ms_per_request=groups["waited_ms"] / groups["total"],
        share_of_queries=groups["waited_ms"] / groups["waited_ms"].sum(),
        share_of_wait=(groups["waited_ms"] / wait).clip(0, 1) if wait > 0 else 0.0,
    ).reset_index()[columns]


_ORDERS = {
    "total": "total_exec_time_ms", "mean": "mean_exec_time_ms", "requests": "calls_per_request", "rows": "rows_per_call",
    "spill": "temp_bytes_per_call", "io": "blocks_read",
}  # fmt: skip


def top_statements(recording: Recording, by: str = "total", *, limit: int = 20) -> pd.DataFrame:
    """Return the ``limit`` statements that lead by total, mean, requests (calls per request), rows (per call), spill or io.

    Columns as in :func:`workload`, without ids; those of which it is not known, or to which it does not apply, are left
    out. All figures are of the time that was observed, none since the server's last reset but longest_ms.
    """
    frame = workload(recording).drop(columns=["shape", "queryids"])
    frame["order"] = pd.to_numeric(frame[_ORDERS[by]], errors="coerce")
    return frame[frame["order"] > 0].nlargest(limit, "order").drop(columns="order").reset_index(drop=True)


_LOOKS = """
SELECT a.query, a.queryid, a.pid, a.query_start, a.time, a.wait_event_type FROM observed_activity a
WHERE a.state = 'active' AND a.query IS NOT NULL AND coalesce(a.backend, 'client backend') = 'client backend'
"""


def running(recording: Recording) -> pd.DataFrame:
    """Return what statements were doing when sessions were looked at, one row per look at one that ran.

    Columns: shape, statement, pid, query_start, time, waits_for (Lock, IO …; None on the processor), age_ms.
    Empty where sessions were not looked at; pool housekeeping left out.
    """
    looks = observed(recording).query(_LOOKS)
    shapes = [shape_of(text) for text in looks["query"]]
    shape_of_id: dict[str, str] = {}
    try:
        for row in workload(recording).dropna(subset=["queryids"]).itertuples():
            shape_of_id |= dict.fromkeys(row.queryids, str(row.shape))
    except NotMeasured:
        pass  # then their texts alone tell what they are
    keys = [shape_of_id.get(one, shape.key) for one, shape in zip(looks["queryid"], shapes, strict=True)]
    frame = pd.DataFrame(
        {
            "shape": pd.Series(keys, looks.index, dtype="object"),
            "statement": looks["query"],
            "pid": looks["pid"],
            "query_start": looks["query_start"],
            "time": looks["time"],
            "waits_for": looks["wait_event_type"],
            "age_ms": (looks["time"] - looks["query_start"]) / 1e6,
        }
    )
    return frame[np.array([shape.is_work for shape in shapes], dtype=bool)]


def waits_for_locks(recording: Recording) -> set[str]:
    """Return the shapes of statements that mostly waited for a lock when they were looked at: that is lock-waits' matter."""
    looks = running(recording)
    part = looks["waits_for"].eq("Lock").groupby(looks["shape"]).mean()
    return set(part[part >= 0.5].index)


def felt_severity(miss: float, share: float, share_of_wait: float) -> Severity:
    """Return how severe a finding on statements is: a large part of a small wait is no grave matter.

    It is critical only where users wait a quarter of their time for it; NA is a wait that is not known.
    """
    if math.isnan(share_of_wait):
        return severity(miss, share)
    return severity(miss if share_of_wait >= 0.25 else min(miss, 5), min(share, 5 * share_of_wait))


def brief(statement: str, length: int = 90) -> str:
    """Return a statement on one line, cut to ``length``."""
    line = " ".join(statement.split()) or "(text not visible to this role)"
    return line if len(line) <= length else f"{line[: length - 1]}…"


def of_requests(row: pd.Series) -> tuple[str, ...]:
    """Return what the statement costs a request, and how sure that is."""
    if pd.isna(row["calls_per_request"]):
        return ()
    sure = "" if row["certainty"] == 1 else " (from counters set against requests, so an average)"
    return (
        f"{row['calls_per_request']:.1f} calls and {row['ms_per_request']:.1f} ms a request, {row['share_of_wait']:.0%} of the users' wait{sure}, {row['share_of_queries']:.0%} of what requests spend on the database",
    )


_SHOWN = [
    "statement", "role", "calls", "calls_per_request", "share", "share_of_wait", "total_exec_time_ms", "mean_exec_time_ms",
    "stddev_exec_time_ms", "longest_ms", "p95_at_most_ms", "p95_ms", "rows_per_call", "blocks_per_call", "seen_by",
]  # fmt: skip


def shown(found: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Return the rows a finding shows: statements cut to 200 characters, and the columns ``more``."""
    shown = found[[*_SHOWN, *more]].head(20).reset_index(drop=True)
    return shown.assign(statement=[brief(text, 200) for text in shown["statement"]])
