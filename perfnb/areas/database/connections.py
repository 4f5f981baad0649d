"""Connections as the server sees them: opened anew for each request, or too many for it."""

import pandas as pd

from perfnb.areas.database import pool_metrics
from perfnb.areas.database.churn import Churn, churn
from perfnb.areas.database.pools import GUIDES
from perfnb.areas.database.refusals import TOO_MANY, refusals
from perfnb.attribution import observed, request_count, sees_requests
from perfnb.attribution.objects import objects
from perfnb.attribution.sessions import HOW_TO_SEE_SESSIONS, Limits, limits, session_looks
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

# What opening a connection costs where no span tells: on the same host with a password, and over a network with TLS.
CONNECT_MS = (2.0, 20.0)


def connect_ms(recording: Recording) -> float | None:
    """Return the median time of spans that open a connection to the database; None where none were traced."""
    found = (
        observed(recording)
        .query(
            "SELECT median(duration_ms) AS ms FROM observed_spans WHERE operation = 'database' AND statement IS NULL "
            "AND lower(name) IN ('connect', 'pool.connect', 'pg.connect', 'postgresql connect', 'psycopg.connect', 'asyncpg.connect')"
        )["ms"]
        .iloc[0]
    )
    return None if pd.isna(found) else float(found)


@check("no-connection-pool", area="database")
def no_connection_pool(
    recording: Recording, objectives: Objectives, *, least: int = 10, most_at_once: float = 0.8
) -> Finding | Clear:
    """Requests open a database connection each and throw it away (R48).

    Sessions must have been begun and ended again, all the time: a pool that opens, or an app that starts anew, is none.
    The share is of sessions: those that were thrown away.

    Source: B20, E45; PostgreSQL manual, pg_stat_database (sessions); a new session is a new process of the server
    """
    found = churn(recording)
    if not sees_requests(recording):
        raise NotMeasured(
            "no requests to compare with", hint="see requests: perfnb record --dsn DSN --listen PORT --app URL"
        )
    objective = objectives["sessions_per_request"]
    examined = (
        f"{found.begun:.0f} sessions began and {found.ended:.0f} ended again during {found.requests} requests "
        f"(seen by {found.seen_by}){_strangers(found)}"
    )
    is_few = found.ended_for_requests < least or not objective.is_missed(found.per_request)
    if is_few or found.largest_part > most_at_once:
        return Clear(examined + _pooled_by(recording))
    if found.doubtful:
        named = ", ".join(program.owner for program in found.doubtful)
        raise NotMeasured(
            f"nothing tells whether the short sessions of {named} serve requests",
            hint=f"which program serves requests, {named} or another: the app's traces show it (perfnb record --dsn DSN --otlp)",
        )
    share = found.ended_for_requests / (found.ended_for_requests + found.open)
    rate = found.ended_for_requests / found.seconds
    return Finding(
        title=f"{found.per_request:.1f} database connections are opened and thrown away for each request",
        severity=severity(objective.miss(found.per_request), share),
        share=share,
        symptom="connections",
        evidence=(examined, f"{rate:.1f} new sessions a second", _cost(recording, found.per_request)),
        remedy="Open a pool when the app starts and lend connections from it (5 to 20 a process, B20); with many processes "
        "put PgBouncer between.",
        effort="low",
        figure="connections_over_time",
    )  # fmt: skip


def _strangers(found: Churn) -> str:
    if not found.strangers:
        return ""
    named = ", ".join(f"{program.owner} (up to {program.most:.0f})" for program in found.strangers[:3])
    return f"; left out as no request's: {named}"


def _pooled_by(recording: Recording) -> str:
    pooler = objects(recording, "server")["pooler"].dropna()
    return (
        f"; {pooler.iloc[0]} stands before the server, so its clients' own connections are not seen"
        if len(pooler)
        else ""
    )


def _cost(recording: Recording, per_request: float) -> str:
    traced = connect_ms(recording)
    if traced is not None:
        return f"opening one takes {traced:.1f} ms (median of spans), so {per_request * traced:.0f} ms a request"
    low, high = (bound * per_request for bound in CONNECT_MS)
    return f"opening one usually takes 2 to 20 ms (not measured here), so {low:.0f} to {high:.0f} ms a request, and a process of the server"


@check("pool-too-large", area="database")
def pool_too_large(
    recording: Recording, objectives: Objectives, *, idle_part: float = 0.5, least_errors: int = 2
) -> Finding | Clear:
    """The pools of all processes together take more connections than the server has, or nearly all, mostly idle (R50).

    The share is of the connections an ordinary role may have: those the app holds at the peak.

    Source: E35, E42, E45; X40 (pools are per process: 8 × 80 = 640 connections for a server that takes 100)
    """
    refused = refusals(recording)
    refused = refused[refused["kind"] == TOO_MANY]
    known = limits(recording)
    if known is None and refused.empty:
        raise NotMeasured("the server's limit and sessions were not seen", hint=HOW_TO_SEE_SESSIONS)
    looks = (
        session_looks(recording) if recording.has("activity") else pd.DataFrame(columns=["sessions", "busy", "idle"])
    )
    taken, of_app = _taken(recording, looks), float(looks["sessions"].max()) if len(looks) else 0.0
    idle = float(looks["idle"].sum() / looks["sessions"].sum()) if looks["sessions"].sum() else 0.0
    used = taken / known.usable if known else 1.0
    may_open = _may_open(recording, of_app)
    objective = objectives["connections_fraction"]
    is_full = used > objective.value and idle >= idle_part and of_app >= taken / 2
    may_fill = known is not None and may_open > known.usable
    if len(refused) < least_errors and not is_full and not may_fill:
        return Clear(_examined(taken, known, idle, len(refused)))
    share = min(1.0, max(of_app, min(may_open, known.usable) if known else 0.0) / known.usable) if known else 1.0
    miss = max(objective.miss(used), objectives["error_rate"].miss(len(refused) / max(1, request_count(recording))))
    return Finding(
        title=_too_large(len(refused), taken, known, may_open),
        severity=severity(miss if len(refused) >= least_errors or is_full else objective.miss(may_open / known.usable) if known else miss, share),
        share=share,
        symptom="connections",
        evidence=tuple(_room(refused, taken, known, of_app, idle, looks, may_open)),
        remedy="Give each process its part: (max_connections - reserved - others) / (processes × instances) at most; a larger "
        "max_connections only moves the queue into the server. With many processes put PgBouncer (transaction mode) between.",
        effort="low",
        figure="connections_over_time",
        exemplars=tuple(refused["request_id"].dropna().head(3)),
    )  # fmt: skip


def _taken(recording: Recording, looks: pd.DataFrame) -> float:
    """Return the most connections the server had, those of tools included where it counted them."""
    found = (
        observed(recording)
        .query(
            "SELECT max(value) AS most FROM observed_samples WHERE source = 'postgres' AND entity = 'server' AND metric = 'connections'"
        )["most"]
        .iloc[0]
    )
    return max(0.0 if pd.isna(found) else float(found), float(looks["sessions"].max()) if len(looks) else 0.0)


def _may_open(recording: Recording, of_app: float) -> float:
    """Return what the app's pools may open by their own metrics; several processes only where more was seen than one takes."""
    frame = pool_metrics.pools(recording)
    frame = frame[~frame["pool"].astype(str).str.startswith("PgBouncer")]
    most = float(frame["most"].sum()) if frame["most"].notna().any() else 0.0
    if not most or of_app <= most:
        return most
    found = (
        observed(recording)
        .query("SELECT max(value) AS most FROM observed_samples WHERE source = 'process' AND metric = 'processes'")[
            "most"
        ]
        .iloc[0]
    )
    return most * (1.0 if pd.isna(found) else max(1.0, float(found) - 1))


def _examined(taken: float, known: Limits | None, idle: float, errors: int) -> str:
    if known is None:
        return f"{errors} requests were refused by the server; its limit was not seen"
    return (
        f"{taken:.0f} of {known.usable} connections in use or idle at the peak ({idle:.0%} of the app's are idle); "
        f"{errors} requests were refused by the server"
    )


def _too_large(errors: int, taken: float, known: Limits | None, may_open: float) -> str:
    if errors:
        return f"The server refused {errors} connections: too many clients"
    assert known is not None
    if may_open > known.usable:
        return f"The app's pools may open {may_open:.0f} connections; the server takes {known.usable}"
    return f"{taken:.0f} of {known.usable} connections of the server are taken, most of them idle"


def _room(
    refused: pd.DataFrame,
    taken: float,
    known: Limits | None,
    of_app: float,
    idle: float,
    looks: pd.DataFrame,
    may_open: float,
) -> list[str]:
    said = []
    if len(refused):
        said.append(f"{len(refused)} requests were told “{refused['wording'].iloc[0]}”")
    if known:
        said.append(
            f"the server takes {known.most} connections, {known.reserved} of them reserved; {taken:.0f} were open at the peak"
        )
    if len(looks):
        said.append(
            f"the app held {of_app:.0f}, of which {looks['busy'].max():.0f} were busy at most and {idle:.0%} idle on average"
        )
    if may_open:
        said.append(f"its pools may open {may_open:.0f}")
    largest = max(size for _, _, size in GUIDES)
    said.append(
        f"a pool belongs to one process: the guides' {largest} in each of 8 processes would be {largest * 8} (X40)"
    )
    return said
