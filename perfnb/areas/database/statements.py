"""Single statements: one that is slow, one that is cheap but runs too often, one that varies."""

import math

import pandas as pd

from perfnb.areas.database.buffers import low_cache_hit_ratio
from perfnb.areas.database.loops import repeated
from perfnb.areas.database.plans import sort_spill, stale_statistics
from perfnb.areas.database.workload import (
    brief,
    felt_severity,
    of_requests,
    running,
    shown,
    top_statements,
    waits_for_locks,
    workload,
)
from perfnb.attribution.shapes import CHANGES
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding, Severity
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

__all__ = [
    "frequent_statement",
    "slow_statement",
    "top_statements",
    "unstable_statement",
    "workload",
]

# What may be slow for good reason, or is no statement of an app: maintenance, definitions, COPY.
_JUDGED = ("select", *CHANGES, "hidden")


def unfinished(recording: Recording, *, longer_than_ms: float) -> pd.DataFrame:
    """Return statements that sessions were seen to run for longer than that, and that are no one's lock to wait for.

    Columns: shape, statement, calls (executions seen), total_exec_time_ms (up to the last look), mean_exec_time_ms,
    longest_ms. pg_stat_statements does not count them while they run, nor when they are cancelled.
    """
    looks = running(recording)
    looks = looks[looks["waits_for"].ne("Lock") & (looks["age_ms"] > longer_than_ms)]
    each = looks.groupby(["shape", "pid", "query_start"]).agg(
        statement=("statement", "first"), age_ms=("age_ms", "max")
    )
    return (
        each.groupby("shape")
        .agg(
            statement=("statement", "first"),
            calls=("age_ms", "size"),
            total_exec_time_ms=("age_ms", "sum"),
            mean_exec_time_ms=("age_ms", "mean"),
            longest_ms=("age_ms", "max"),
        )
        .reset_index()
    )


LEFT_TO_EXPLAIN = 0.1
"""A part of the database's time below this, beside what another cause explains, is not worth a finding of its own."""


@check("slow-statement", area="database")
def slow_statement(
    recording: Recording,
    objectives: Objectives,
    *,
    min_ms: float = 100,
    times_typical: float = 5,
    min_share: float = 0.3,
    min_share_of_wait: float = 0.05,
    busy_ms_per_s: float = 50,
    least: int = 3,
) -> Finding | Clear:
    """A statement takes long: above the objective, or far above the others and most of what the database does (R54).

    Judged on what ran in the window, never on totals since a reset, and not by time spent waiting for locks.
    Statements that were cancelled are not counted by the server; those that sessions were seen to run are. Where spans
    alone timed a statement its median counts, and an insert, of who knows how many rows, is held to the objective only.
    What old statistics, spills and reads from outside shared buffers explain counts there.

    Source: C23, C24, E52, E57, E58; PostgreSQL manual, pg_stat_statements
    """
    limit = objectives["slow_statement_ms"]
    frame, total_ms = _with_unfinished(recording, float(limit.value), least)
    judged = frame[frame["kind"].isin(_JUDGED) & (frame["calls"] >= least)]
    judged = judged[~judged["shape"].isin(waits_for_locks(recording))]
    others = pd.Series([_typical_ms(judged, shape) for shape in judged["shape"]], judged.index, dtype=float)
    mean, by_spans = judged["mean_exec_time_ms"], judged["seen_by"] == "traces"
    mean = mean.mask(by_spans, judged[["mean_exec_time_ms", "p50_ms"]].min(axis=1))
    busy = judged["calls_per_s"] * mean >= busy_ms_per_s
    felt = (judged["share_of_wait"] >= min_share_of_wait) | (judged["share_of_wait"].isna() & busy)
    stands_out = (mean >= min_ms) & (mean >= times_typical * others) & (judged["share"] >= min_share) & felt
    stands_out &= ~(by_spans & (judged["kind"] == "insert"))
    slow = judged[(mean > limit.value) | stands_out]
    if slow.empty:
        slowest = "" if judged.empty else f"; the slowest takes {mean.max():.1f} ms (mean), objective {limit.value} ms"
        return Clear(f"{len(judged)} statements ran {least} times or more{slowest}")
    worst = slow.iloc[0]
    why = _explained(recording, objectives)
    part = min(1.0, float(slow["total_exec_time_ms"].sum()) / total_ms)
    share = part - sum(why.values())
    if share < LEFT_TO_EXPLAIN:
        return Clear(f"{len(slow)} slow statements, which {' and '.join(why)} explain: {brief(worst['statement'], 60)}")
    return Finding(
        title=f"{_counted(slow)} {worst['mean_exec_time_ms']:.0f} ms a call: {brief(worst['statement'], 60)}",
        severity=severity(
            max(limit.miss(worst["mean_exec_time_ms"]), min(2.0, worst["mean_exec_time_ms"] / min_ms / 2)), share
        ),
        share=share,
        symptom="database time",
        evidence=(
            f"{worst['calls']:.0f} calls, mean {worst['mean_exec_time_ms']:.0f} ms, longest {worst['longest_ms']:.0f} ms, {part:.0%} of the database's time; objective {limit.value} ms (C23)",
            *of_requests(worst),
            *_read(worst),
        ),
        remedy="Look at its plan (EXPLAIN (ANALYZE, BUFFERS) in a read-only transaction): an index it lacks, rows it reads and throws away, a sort that spills; then give it the index, or ask for less.",
        effort="medium",
        frame=shown(slow),
        figure="top_statements",
    )


def _explained(recording: Recording, objectives: Objectives) -> dict[str, float]:
    """Return the causes that tell why statements are slow, not only that they are, with their share of the time."""
    found = {}
    for cause, function in (
        ("stale-statistics", stale_statistics), ("sort-spill", sort_spill), ("low-cache-hit-ratio", low_cache_hit_ratio),
    ):  # fmt: skip
        try:
            answer = function(recording, objectives)
        except NotMeasured:
            continue
        if isinstance(answer, Finding):
            found[cause] = answer.share
    return found


def _with_unfinished(recording: Recording, limit_ms: float, least: int) -> tuple[pd.DataFrame, float]:
    """Return the workload and, of what sessions ran for too long, what it has not; and the time of all."""
    frame = workload(recording)
    total_ms = float((frame["total_exec_time_ms"] / frame["share"].where(frame["share"] > 0)).max())
    more = unfinished(recording, longer_than_ms=limit_ms)
    more = more[~more["shape"].isin(frame["shape"]) & (more["calls"] >= least)]
    if more.empty:
        return frame, total_ms
    total_ms = (total_ms if total_ms == total_ms else 0.0) + float(more["total_exec_time_ms"].sum())
    more = more.assign(kind="hidden", seen_by="sessions").reindex(columns=frame.columns)
    frame = pd.concat([frame.astype(object), more.astype(object)], ignore_index=True).infer_objects()
    frame["share"] = (frame["total_exec_time_ms"] / total_ms).astype(float)
    return frame.sort_values("total_exec_time_ms", ascending=False, ignore_index=True), total_ms


def _typical_ms(frame: pd.DataFrame, shape: str) -> float:
    """Return the mean time of a call of every other statement."""
    others = frame[frame["shape"] != shape]
    calls = float(others["calls"].sum())
    return float(others["total_exec_time_ms"].sum()) / calls if calls else 0.0


@check("frequent-statement", area="database")
def frequent_statement(
    recording: Recording,
    objectives: Objectives,
    *,
    cheap_ms: float = 5,
    per_request: float = 10,
    min_share: float = 0.2,
    min_share_of_wait: float = 0.05,
    per_second: float = 100,
    least: int = 100,
) -> Finding | Clear:
    """A cheap statement runs far more often than there were requests (R55).

    Rows read one by one by their ids are n-plus-one's and per-id-queries' matter. Where no requests were seen, calls
    a second stand for them, and the statement must keep a tenth of a session busy.

    Source: C25; PostgreSQL manual, pg_stat_statements (calls, mean_exec_time)
    """
    frame = workload(recording)
    by_id = set(repeated(recording)["shape"])
    judged = frame[(frame["kind"] == "select") & ~frame["shape"].isin(by_id)].copy()
    judged["part"] = judged[["share", "share_of_queries"]].max(axis=1)
    often = judged["calls_per_request"] >= per_request
    felt = (judged["part"] >= min_share) | (judged["share_of_wait"] >= min_share_of_wait)
    if judged["calls_per_request"].isna().all():
        often = judged["calls_per_s"] >= per_second
        felt = (judged["share"] >= min_share) & (judged["calls_per_s"] * judged["mean_exec_time_ms"] >= 100)
    found = judged[often & felt & (judged["mean_exec_time_ms"] <= cheap_ms) & (judged["calls"] >= least)]
    if found.empty:
        most = judged["calls_per_request"].max()
        told = "" if pd.isna(most) else f"; the most frequent {most:.1f} times a request"
        return Clear(f"{len(judged)} selects ran{told}; from {per_request:.0f} on it is often")
    first = found.iloc[0]
    share = float(min(1.0, found["part"].sum()))
    times = first["calls_per_request"]
    rate = f"{first['calls_per_s']:.0f} times a second" if pd.isna(times) else f"{times:.0f} times a request"
    return Finding(
        title=f"A statement of {first['mean_exec_time_ms']:.2f} ms runs {rate}: {brief(first['statement'], 60)}",
        severity=_severity(first, 1.5 if pd.isna(times) else times / per_request * 1.5, share),
        share=share,
        symptom="database time",
        evidence=(
            f"{first['calls']:.0f} calls, mean {first['mean_exec_time_ms']:.2f} ms, together {first['total_exec_time_ms']:.0f} ms: {first['share']:.0%} of the server's time; and a round trip each",
            *of_requests(first),
        ),
        remedy="Ask once and pass the answer on: read it before the loop, keep it for the request (functools.cache, a dict) or for minutes where it seldom changes, or fetch many in one statement (= ANY($1)).",
        effort="low",
        frame=shown(found),
        figure="top_statements",
    )


def _severity(row: pd.Series, miss: float, share: float) -> Severity:
    """Counters hold no round trips, so how much users feel of cheap statements is known by traces alone."""
    return felt_severity(miss, share, row["share_of_wait"]) if row["certainty"] == 1 else severity(min(miss, 5), share)


@check("unstable-statement", area="database")
def unstable_statement(
    recording: Recording,
    objectives: Objectives,
    *,
    min_variation: float = 1.25,
    min_deviation_ms: float = 50,
    least: int = 20,
    slow_calls: float = 3,
    min_share: float = 0.1,
    min_share_of_wait: float = 0.05,
    times_others: float = 3,
) -> Finding | Clear:
    """A statement is fast in most calls and very slow in some (R56).

    One outlier is not enough: from the deviation follows a least number of calls far from the mean (each is at most as
    far as the longest). Counters hold no percentile, and mean plus deviations is none; a bound is given (Cantelli's
    inequality), and real percentiles where spans timed the statement. What mostly waits for locks is lock-waits' matter.
    Spans hold the app's own delays, which all statements share: where they alone timed it, it must vary far more than
    the others.

    Source: C24
    """
    frame = workload(recording)
    judged = frame[frame["kind"].isin(_JUDGED) & (frame["calls"] >= least)]
    judged = judged[~judged["shape"].isin(waits_for_locks(recording))]
    mean, deviation = judged["mean_exec_time_ms"], judged["stddev_exec_time_ms"]
    farthest = (judged["longest_ms"].astype(float) - mean).clip(lower=1e-6)
    far = judged["calls"].astype(float) * deviation**2 / farthest**2
    felt = (judged["share"] >= min_share) | (judged["share_of_wait"] >= min_share_of_wait)
    varies = (deviation >= min_variation * mean) & (deviation >= min_deviation_ms) & (far >= slow_calls)
    others = pd.Series([_deviation_of_others(judged, shape) for shape in judged["shape"]], judged.index, dtype=float)
    own = (judged["seen_by"] != "traces") | (deviation >= times_others * others)
    found = judged.assign(slow_calls_at_least=far)[varies & felt & own]
    if found.empty:
        return Clear(
            f"{len(judged)} statements ran {least} times or more; none deviates by {min_variation:g} times its mean and {min_deviation_ms:.0f} ms in {slow_calls:.0f} calls or more"
        )
    first = found.iloc[0]
    variation = first["stddev_exec_time_ms"] / first["mean_exec_time_ms"]
    share = float(min(1.0, found["share"].sum()))
    return Finding(
        title=f"A statement of {first['mean_exec_time_ms']:.0f} ms on average takes up to {first['longest_ms']:.0f} ms: {brief(first['statement'], 60)}",
        severity=felt_severity(variation / min_variation * 1.2, share, first["share_of_wait"]),
        share=share,
        symptom="database time",
        evidence=(
            f"{first['calls']:.0f} calls, mean {first['mean_exec_time_ms']:.1f} ms, deviation {first['stddev_exec_time_ms']:.1f} ms ({variation:.1f} times the mean); at least {first['slow_calls_at_least']:.0f} calls far off",
            _percentile(first),
            *of_requests(first),
        ),
        remedy="Compare the plans of a fast and a slow call (auto_explain with log_min_duration): a plan that fits few values and is used for all (plan_cache_mode = force_custom_plan, extended statistics), values that match many rows, a cold cache; and see what else ran then.",
        effort="medium",
        frame=shown(found, "slow_calls_at_least"),
        figure="top_statements",
    )


def _deviation_of_others(frame: pd.DataFrame, shape: str) -> float:
    """Return by how many ms the calls of all other statements deviate from their means, NaN without such."""
    others = frame[frame["shape"] != shape]
    calls = float(others["calls"].sum())
    return math.sqrt(float((others["calls"] * others["stddev_exec_time_ms"] ** 2).sum()) / calls) if calls else math.nan


def _percentile(row: pd.Series) -> str:
    if row["timed"] >= 20:
        return f"timed by {row['timed']:.0f} spans: median {row['p50_ms']:.1f} ms, p95 {row['p95_ms']:.1f} ms"
    return f"its p95 is at most {row['p95_at_most_ms']:.0f} ms (a bound; the server keeps no percentile)"


def _counted(found: pd.DataFrame) -> str:
    return "A statement takes" if len(found) == 1 else f"{len(found)} statements are slow, the first takes"


def _read(row: pd.Series) -> tuple[str, ...]:
    if pd.isna(row["blocks_per_call"]):
        return ()
    return (f"{row['blocks_per_call']:.0f} blocks of 8 kB and {row['rows_per_call']:.1f} rows a call",)
