"""Requests that wait for a connection: as pools count it, as PgBouncer does, as errors say, and as the server alone shows."""

from dataclasses import dataclass

import pandas as pd

from perfnb.areas.database import pool_metrics
from perfnb.areas.database.pools import pool_advice, pool_demand
from perfnb.areas.database.refusals import POOL_TIMEOUT, refusals
from perfnb.attribution import (
    failed_requests,
    observed,
    observed_seconds,
    prepare,
    request_count,
    sees_requests,
    share_of_all_waits,
)
from perfnb.attribution.sessions import HOW_TO_SEE_SESSIONS, connection_queue, session_looks
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording


@dataclass(frozen=True)
class Queue:
    """One sign that requests wait for connections: what it says, and how many wait on average as far as it tells."""

    said: str
    waiting: float = 0.0


def pauses(recording: Recording) -> pd.DataFrame:
    """Return how long requests paused right before their first database span: request_id, pause_ms, duration_ms.

    A pause is time in which no other span of the trace but those around it was open; waiting for a pool looks so, but
    so does work that is not traced.
    """
    return prepare(recording).query(
        """
        WITH first AS (
            SELECT trace_id, min(start_time) AS start_time FROM observed_spans
            WHERE operation IN ('database', 'retrieval') AND statement IS NOT NULL AND trace_id IS NOT NULL GROUP BY trace_id
        ),
        before AS (
            SELECT f.trace_id, f.start_time,
                   max(greatest(s.start_time, CASE WHEN s.start_time + CAST(s.duration_ms * 1e6 AS BIGINT) <= f.start_time
                       THEN s.start_time + CAST(s.duration_ms * 1e6 AS BIGINT) ELSE s.start_time END)) AS last
            FROM first f JOIN observed_spans s ON s.trace_id = f.trace_id AND s.start_time < f.start_time
            GROUP BY f.trace_id, f.start_time
        )
        SELECT r.request_id, (b.start_time - b.last) / 1e6 AS pause_ms, r.duration_ms
        FROM before b JOIN user_requests r ON r.trace_id = b.trace_id ORDER BY pause_ms DESC
        """
    )


@check("pool-exhausted", area="database")
def pool_exhausted(recording: Recording, objectives: Objectives, *, least_errors: int = 2) -> Finding | Clear:
    """Requests wait for a connection because all of the pool's are taken (R49).

    Told by the pool's own metrics, by PgBouncer's, by errors of requests that waited too long, or by the server alone:
    the app never has more sessions, all of them are in use, and more requests are under way than hold one or wait for a
    model. The share is of the users' wait. Enlarging is advised only after the time a connection is held was looked at.

    Source: C35, E5, E6, E7, E8, E52, E83, E84, E85, E86; Little's law; PgBouncer manual (cl_waiting, maxwait)
    """
    refused = refusals(recording)
    refused = refused[refused["kind"] == POOL_TIMEOUT]
    metrics = pool_metrics.pools(recording)
    by_sessions = _by_sessions(recording)
    queues = [*_by_metrics(metrics), *by_sessions]
    if len(refused) >= least_errors:
        wordings = ", ".join(f"“{text}”" for text in refused["wording"].unique()[:2])
        queues.insert(0, Queue(f"{len(refused)} requests gave up waiting for a connection: {wordings}"))
    if not queues:
        return _clear(recording, metrics, refused)
    waiting = max(queue.waiting for queue in queues)
    silent = _gave_up_silently(recording) if by_sessions else []
    share = _share(recording, waiting, refused)
    total = max(1, request_count(recording))
    slowest = (
        prepare(recording).query("SELECT quantile_disc(duration_ms, 0.95) AS p95 FROM user_requests")["p95"].iloc[0]
    )
    miss = max(
        objectives["error_rate"].miss(max(len(refused), len(silent)) / total),
        objectives["request_p95_ms"].miss(float(slowest or 0)),
    )
    return Finding(
        title=_title(queues, len(refused), waiting),
        severity=severity(miss, share),
        share=share,
        evidence=(*(queue.said for queue in queues), *_failures(silent), *_traced(recording), *_needed(recording)),
        remedy="First shorten the time a request keeps a connection: give it back before a model or another service is waited "
        "for. Then size the pool by arrivals × hold, within what the server takes, and let requests that find it empty fail "
        "after 10 s at most (C35).",
        effort="medium",
        figure="connections_over_time",
        exemplars=tuple(refused["request_id"].dropna().head(3)),
    )  # fmt: skip


def _by_metrics(frame: pd.DataFrame) -> list[Queue]:
    queues = []
    for pool in frame.itertuples(index=False):
        size = (
            f"{pool.used_peak:.0f} of {pool.most:.0f} used at most"
            if pd.notna(pool.most) and pd.notna(pool.used_peak)
            else "size not told"
        )
        if pool.readings >= 3 and pool.waiting_part >= 0.2 and pool.waiting_peak >= 1:
            queues.append(
                Queue(
                    f"{pool.pool}: someone waited in {pool.waiting_part:.0%} of {pool.readings} readings, {pool.waiting_peak:.0f} at most; {size}",
                    pool.waiting,
                )
            )
        if pool.timeouts >= 1:
            queues.append(Queue(f"{pool.pool}: {pool.timeouts:.0f} waits ended in a timeout; {size}"))
        if pd.notna(pool.wait_ms) and pool.wait_ms >= 100 and pool.waits >= 10 and pool.full_part >= 0.2:
            queues.append(
                Queue(
                    f"{pool.pool}: getting a connection took {pool.wait_ms:.0f} ms (mean of {pool.waits:.0f}); {size}"
                )
            )
    return queues


def _by_sessions(recording: Recording) -> list[Queue]:
    if not recording.has("activity") or not sees_requests(recording):
        return []
    seen = connection_queue(recording)
    if seen is None:
        return []
    return [
        Queue(
            f"in {seen.part:.0%} of {seen.looks} looks all {seen.sessions} sessions the app ever had were in use, and on average "
            f"{seen.waiting_then:.1f} more requests neither held one nor waited for a model",
            seen.waiting,
        )
    ]


def _gave_up_silently(recording: Recording) -> list[float]:
    """Return how long requests took that failed after a second or more, no model call of theirs having failed."""
    frame = prepare(recording).query(
        "SELECT duration_ms FROM user_requests WHERE status_code >= 500 AND duration_ms >= 1000 AND request_id NOT IN "
        "(SELECT request_id FROM owned_calls WHERE error_type IS NOT NULL AND request_id IS NOT NULL)"
    )
    return [float(ms) for ms in frame["duration_ms"]]


def _failures(silent: list[float]) -> list[str]:
    middle = float(pd.Series(silent, dtype=float).median()) / 1000 if silent else 0.0
    return (
        [f"{len(silent)} requests failed after {middle:.1f} s (median), no model call of theirs did"] if silent else []
    )


def _share(recording: Recording, waiting: float, refused: pd.DataFrame) -> float:
    waited_ms = waiting * observed_seconds(recording) * 1000
    failed = failed_requests(recording)
    gave_up = failed[failed["request_id"].isin(refused["request_id"])]["duration_ms"].sum()
    by_time = share_of_all_waits(recording, max(waited_ms, float(gave_up)))
    return max(by_time, len(refused) / max(1, request_count(recording)))


def _title(queues: list[Queue], errors: int, waiting: float) -> str:
    if errors >= 2:
        return f"{errors} requests got no database connection in time"
    if waiting:
        return f"{max(waiting, 0.1):.1f} requests on average wait for a database connection"
    return f"Requests wait for a database connection ({len(queues)} signs)"


def _traced(recording: Recording) -> list[str]:
    frame = pauses(recording) if recording.has("spans") else pd.DataFrame()
    if len(frame) < 5 or frame["pause_ms"].median() < 100:
        return []
    return [
        f"{len(frame)} traced requests paused {frame['pause_ms'].median():.0f} ms (median) right before their first statement, with no "
        "other span open"
    ]


def _needed(recording: Recording) -> list[str]:
    """Return what Little's law asks for, where sessions were seen."""
    try:
        demand = pool_demand(recording)
    except NotMeasured:
        return []
    advice = pool_advice(demand.arrival_per_s, demand.hold_ms, outside_ms=demand.outside_ms)
    said = [
        f"{demand.arrival_per_s:.2g} requests/s × {demand.hold_ms:.3g} ms held = {advice.needed_now:.2g} connections in use"
    ]
    if demand.outside_ms > demand.sql_ms:
        said.append(
            f"only {demand.sql_ms:.2g} ms of the hold are statements: given back in between, {advice.needed_released:.2g} would be in use"
        )
    return said


def _clear(recording: Recording, metrics: pd.DataFrame, refused: pd.DataFrame) -> Clear:
    spans = (
        observed(recording).query("SELECT count(*) AS n FROM observed_spans WHERE operation = 'database'")["n"].iloc[0]
    )
    if metrics.empty and not recording.has("activity") and not spans:
        raise NotMeasured(
            "neither sessions nor pools were seen",
            hint=f"{HOW_TO_SEE_SESSIONS}; or the pool's metrics: perfnb record --otlp, --metrics URL, --pgbouncer DSN",
        )
    said = [f"{len(refused)} of {request_count(recording)} requests found no connection in time"]
    said += [f"{pool.pool}: {pool.used_peak:.0f} used at most, {pool.waiting_part:.0%} of readings with someone waiting"
             for pool in metrics.itertuples(index=False) if pd.notna(pool.used_peak)]  # fmt: skip
    if recording.has("activity"):
        looks = session_looks(recording)
        said.append(
            f"{looks['busy'].max():.0f} of {looks['sessions'].max():.0f} sessions busy at most in {len(looks)} looks"
        )
    return Clear("; ".join(said))
