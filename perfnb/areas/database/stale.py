"""Connections that lay idle in a pool, were closed meanwhile, and fail the request that gets them."""

import pandas as pd

from perfnb.areas.database.counters import BY_FORCE, counted
from perfnb.areas.database.refusals import CLOSED, refusals
from perfnb.attribution import failed_requests, observed, prepare, request_count
from perfnb.attribution.objects import objects
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

_FORCED = (*BY_FORCE, "sessions_abandoned")


@check("stale-connections", area="database")
def stale_connections(recording: Recording, objectives: Objectives, *, least: int = 2) -> Finding | Clear:
    """A connection that lay idle in the pool was closed meanwhile, and the request that gets it fails (R51).

    Only errors on the first use by a request count: one that breaks in the middle of its work is another matter. The
    share is of requests that failed.

    Source: C34, C35, E8; PostgreSQL manual (idle_session_timeout, SQLSTATE 57P01 and 57P05); psycopg and SQLAlchemy manuals (check, pre_ping)
    """
    total = request_count(recording)
    if not total:
        raise NotMeasured(
            "no requests", hint="requests and their errors: perfnb record --otlp, or --listen PORT --app URL"
        )
    told = _first_uses(recording)
    forced = counted(recording, *_FORCED).groupby("metric")["step"].sum()
    failed = failed_requests(recording)
    silent = _silent_failures(recording, forced) if len(told) < least else pd.DataFrame(columns=failed.columns)
    count = max(len(told), len(silent))
    if count < least:
        return Clear(f"{len(told)} of {total} requests met a closed connection; {len(failed)} failed; {_ends(forced)}")
    share = min(1.0, count / max(1, len(failed)))
    return Finding(
        title=f"{count} of {total} requests failed on a connection that had been closed while it was idle",
        severity=severity(objectives["error_rate"].miss(count / total) / 10, share),
        share=share,
        symptom="errors",
        evidence=tuple(_staleness(recording, told, forced, count)),
        remedy="Let the pool check a connection before it lends it (pool_pre_ping, check_connection) and replace old ones "
        "(recycle after 1800 to 3600 s, sooner than the server, PgBouncer or a firewall closes them).",
        effort="low",
        frame=told.head(50) if len(told) else None,
        figure="connections_over_time",
        exemplars=tuple((told["request_id"] if len(told) else silent["request_id"]).dropna().head(3)),
    )  # fmt: skip


def _first_uses(recording: Recording) -> pd.DataFrame:
    """Return the requests whose first statement met a closed connection."""
    found = refusals(recording)
    closed = found[found["kind"] == CLOSED]
    worked = observed(recording).query(
        "SELECT trace_id FROM observed_spans WHERE operation IN ('database', 'retrieval') AND trace_id IS NOT NULL "
        "GROUP BY trace_id HAVING min(start_time) FILTER (WHERE status <> 'ERROR' AND error_type IS NULL) "
        "< min(start_time) FILTER (WHERE status = 'ERROR' OR error_type IS NOT NULL)"
    )
    return closed[~closed["trace_id"].isin(worked["trace_id"])].reset_index(drop=True)


def _silent_failures(recording: Recording, forced: "pd.Series[float]") -> pd.DataFrame:
    """Return requests that failed at once and without a word, where the server ended as many sessions by force."""
    ended = float(forced.get("sessions_fatal", 0) + forced.get("sessions_killed", 0))
    frame = prepare(recording).query(
        "SELECT * EXCLUDE (body_sketch) FROM user_requests WHERE status_code >= 500 AND duration_ms < 1000 "
        "AND request_id NOT IN (SELECT request_id FROM owned_calls WHERE error_type IS NOT NULL AND request_id IS NOT NULL)"
    )
    return frame if ended >= 2 and len(frame) <= 2 * ended else frame.head(0)


def _ends(forced: "pd.Series[float]") -> str:
    named = [f"{forced.get(name, 0):.0f} {name.removeprefix('sessions_')}" for name in _FORCED]
    return (
        f"sessions the server saw end by force: {', '.join(named)}"
        if len(forced)
        else "the server's ends of sessions were not counted"
    )


def _staleness(recording: Recording, told: pd.DataFrame, forced: "pd.Series[float]", count: int) -> list[str]:
    said = []
    if len(told):
        wordings = told["wording"].str.lower().value_counts()
        said.append(
            f"{count} first statements failed: "
            + ", ".join(f"“{text}” {number} times" for text, number in wordings.head(3).items())
        )
        if (idle := _idle_before_s(recording, told)) is not None:
            said.append(f"no request had been answered for {idle:.0f} s before (median)")
    else:
        said.append(f"{count} requests failed within a second, and no model call of theirs did")
    if len(forced):
        said.append(_ends(forced))
    return said + _closers(recording)


def _idle_before_s(recording: Recording, told: pd.DataFrame) -> float | None:
    """Return how long it had been quiet before the failures (median), where that was a second or more."""
    ends = prepare(recording).query(
        "SELECT end_time FROM user_requests WHERE coalesce(status_code, 200) < 500 AND error_type IS NULL ORDER BY end_time"
    )["end_time"]
    quiet = [(time - ends[ends < time].max()) / 1e9 for time in told["time"] if (ends < time).any()]
    middle = float(pd.Series(quiet).median()) if quiet else 0.0
    return middle if middle >= 1 else None


def _closers(recording: Recording) -> list[str]:
    """Return what is known to close connections here: a restart in the window, and timeouts that are set."""
    said, window = [], recording.window
    started = objects(recording, "server")["started_at"].dropna()
    if len(started) and window.start < int(started.iloc[-1]) <= window.end:
        said.append("the server was started anew in this window")
    found = objects(recording, "setting")
    names = (
        "idle_session_timeout",
        "pgbouncer.server_idle_timeout",
        "pgbouncer.client_idle_timeout",
        "pgbouncer.server_lifetime",
    )
    for name, value, unit in zip(found["name"], found["value"], found["unit"], strict=True):
        if name in names and str(value) not in ("0", "0.0", "None", ""):
            said.append(f"{name} is {value}{' ' + unit if isinstance(unit, str) else ''}")
    return said
