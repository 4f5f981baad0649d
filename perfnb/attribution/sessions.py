"""Sessions of the app, look by look: what they do, beside the requests and model calls under way at the same moment."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from perfnb.attribution import observed_seconds, prepare, sees_requests
from perfnb.attribution.objects import objects
from perfnb.errors import NotMeasured
from perfnb.recording import Recording

HOW_TO_SEE_SESSIONS = "sessions of Postgres: perfnb record --dsn DSN (with the role pg_monitor they show what they do)"

# Programs that people, backups and monitoring use: their sessions are not the app's. An application's name begins so.
TOOLS = (
    "perfnb", "psql", "pg_dump", "pg_restore", "pg_basebackup", "pg_receivewal", "pgadmin", "dbeaver", "datagrip",
    "tableplus", "navicat", "metabase", "pg_cron", "pg_activity", "pgwatch", "pghero", "pganalyze", "datadog",
    "postgres_exporter", "telegraf", "zabbix", "newrelic", "powa", "pg_timetable", "patroni", "barman", "repmgr",
)  # fmt: skip

_IS_TOOL = " OR ".join(f"lower(coalesce(application, '')) LIKE '{name}%'" for name in TOOLS)

APP_SESSIONS = f"""
CREATE OR REPLACE TEMP TABLE app_sessions AS
SELECT *, coalesce(state, '') <> 'idle' AND state IS NOT NULL AS is_busy,
       state LIKE 'idle in transaction%' AS is_in_open_transaction,
       greatest(0, (time - state_change) / 1e6) AS state_ms,
       greatest(0, (time - transaction_start) / 1e6) AS transaction_ms,
       coalesce(role, '') || '@' || coalesce(database, '') || ' ' || coalesce(application, '') AS owner
FROM observed_activity
WHERE coalesce(backend, 'client backend') = 'client backend' AND NOT ({_IS_TOOL})
"""

_LOOKS = """
CREATE OR REPLACE TEMP TABLE session_looks AS
WITH looks AS (SELECT DISTINCT time FROM observed_activity),
counted AS (
    SELECT time, count(*) AS sessions, count(*) FILTER (WHERE is_busy) AS busy,
           count(*) FILTER (WHERE state = 'active') AS active,
           count(*) FILTER (WHERE is_in_open_transaction) AS in_open_transaction,
           count(*) FILTER (WHERE state = 'idle') AS idle,
           count(*) FILTER (WHERE state = 'active' AND wait_event_type = 'Lock') AS waiting_for_locks
    FROM app_sessions GROUP BY time
),
calls AS (
    SELECT l.time, count(*) AS calls_in_flight, count(DISTINCT c.request_id) AS requests_in_calls
    FROM looks l JOIN owned_calls c ON c.start_time <= l.time AND c.end_time > l.time GROUP BY l.time
),
requests AS (
    SELECT l.time, count(*) AS requests_in_flight FROM looks l
    JOIN user_requests r ON r.start_time <= l.time AND r.end_time > l.time
    WHERE r.source <> 'call' GROUP BY l.time
)
SELECT l.time, coalesce(s.sessions, 0) AS sessions, coalesce(s.busy, 0) AS busy, coalesce(s.active, 0) AS active,
       coalesce(s.in_open_transaction, 0) AS in_open_transaction, coalesce(s.idle, 0) AS idle,
       coalesce(s.waiting_for_locks, 0) AS waiting_for_locks, coalesce(c.calls_in_flight, 0) AS calls_in_flight,
       coalesce(c.requests_in_calls, 0) AS requests_in_calls, coalesce(r.requests_in_flight, 0) AS requests_in_flight
FROM looks l LEFT JOIN counted s ON s.time = l.time LEFT JOIN calls c ON c.time = l.time
LEFT JOIN requests r ON r.time = l.time
"""


# Looks in which the pool is empty and requests stand before it, as part of all looks.
OFTEN = 0.3
LEAST_LOOKS = 8


@dataclass(frozen=True)
class ConnectionQueue:
    """How often all of an app's sessions were in use while requests stood before them.

    ``part`` of all ``looks`` were so, with ``waiting_then`` requests on average; over all looks it is ``waiting``.
    """

    looks: int
    sessions: int
    part: float
    waiting_then: float
    waiting: float


@dataclass(frozen=True)
class Limits:
    """How many sessions the server takes: ``most`` in all, ``reserved`` of them for superusers and the like."""

    most: int
    reserved: int

    @property
    def usable(self) -> int:
        """Return how many ordinary roles may hold."""
        return max(1, self.most - self.reserved)


def prepare_sessions(recording: Recording) -> Recording:
    """Make ``app_sessions`` and ``session_looks``, and return ``recording``; raises NotMeasured without sessions.

    ``app_sessions`` has the columns of ``activity`` for clients other than tools, and is_busy (active or in an open
    transaction), is_in_open_transaction, state_ms, transaction_ms, owner. ``session_looks`` has one row per look.
    """
    recording.require("activity")

    def build() -> Any:
        connection = prepare(recording).refresh()
        connection.execute(APP_SESSIONS)
        connection.execute(_LOOKS)
        return connection.execute("SELECT count(state) = 0 AND count(*) > 0 FROM app_sessions").fetchall()[0][0]

    if recording.derived("sessions", build):
        raise NotMeasured(
            "what sessions of other roles do is hidden",
            hint="GRANT pg_monitor TO the role in the DSN, then record again",
        )
    return recording


def session_looks(recording: Recording) -> pd.DataFrame:
    """Return one row per look at the sessions, by time.

    Columns: time (ns), sessions, busy (active or in an open transaction), active, in_open_transaction, idle,
    waiting_for_locks, calls_in_flight, requests_in_calls (requests with a model call under way), requests_in_flight.
    """
    return prepare_sessions(recording).query("SELECT * FROM session_looks ORDER BY time")


def connections_over_time(recording: Recording) -> pd.DataFrame:
    """Return the app's connections by state beside what was under way: the columns of :func:`session_looks`, time as UTC."""
    frame = session_looks(recording)
    return frame.assign(time=pd.to_datetime(frame["time"], unit="ns", utc=True))


def sessions_by_owner(recording: Recording) -> pd.DataFrame:
    """Return who holds connections: owner (role@database application), sessions (mean and peak), busy, idle part, oldest_ms."""
    return prepare_sessions(recording).query(
        """
        SELECT owner, avg(sessions) AS sessions, max(sessions) AS sessions_peak, avg(busy) AS busy,
               max(busy) AS busy_peak, 1 - sum(busy) / sum(sessions) AS idle_part, max(oldest_ms) AS oldest_ms
        FROM (SELECT owner, time, count(*) AS sessions, count(*) FILTER (WHERE is_busy) AS busy,
                     max((time - session_start) / 1e6) AS oldest_ms
              FROM app_sessions GROUP BY owner, time)
        GROUP BY owner ORDER BY sessions DESC, owner
        """
    )


def ceiling(recording: Recording) -> pd.DataFrame:
    """Return for each look how full the app's connections were: time, sessions, busy, ceiling, requests_in_flight, waiting.

    ``ceiling`` is the most sessions the app ever had. ``waiting`` is the least number of requests that neither hold a
    connection nor wait for a model: sessions idle in a transaction are taken for those of requests in a call.
    """
    frame = session_looks(recording)
    in_calls = frame["requests_in_calls"] - frame[["in_open_transaction", "requests_in_calls"]].min(axis=1)
    waiting = (frame["requests_in_flight"] - frame["busy"] - in_calls).clip(lower=0)
    kept = frame[["time", "sessions", "busy", "requests_in_flight"]]
    return kept.assign(ceiling=frame["sessions"].max(), waiting=waiting)


def connection_queue(recording: Recording) -> ConnectionQueue | None:
    """Return the queue of requests before the app's connections, as the server's sessions show it; None without one."""
    frame = ceiling(recording)
    most = int(frame["ceiling"].max()) if len(frame) else 0
    is_full = (frame["busy"] >= most) & (frame["waiting"] >= max(2, most / 4))
    if len(frame) < LEAST_LOOKS or most < 1 or is_full.mean() < OFTEN:
        return None
    return ConnectionQueue(
        looks=len(frame),
        sessions=most,
        part=float(is_full.mean()),
        waiting_then=float(frame.loc[is_full, "waiting"].mean()),
        waiting=float(frame["waiting"].where(is_full, 0).mean()),
    )


def waited_for_connections_ms(recording: Recording) -> float:
    """Return for how long all requests together stood before the app's connections; 0 where nothing shows it."""
    if not recording.has("activity") or not sees_requests(recording):
        return 0.0
    try:
        queue = connection_queue(recording)
    except NotMeasured:  # what sessions do is hidden
        return 0.0
    return queue.waiting * observed_seconds(recording) * 1000 if queue else 0.0


def looks_apart_ms(frame: pd.DataFrame) -> float:
    """Return the usual time between two looks."""
    return float(frame["time"].diff().median() / 1e6) if len(frame) > 1 else 0.0


def limits(recording: Recording) -> Limits | None:
    """Return how many sessions the server takes, from its settings or else its counters; None where neither is known."""
    settings = _settings(recording)
    most = settings.get("max_connections") or _most_sampled(recording)
    if not most:
        return None
    reserved = settings.get("superuser_reserved_connections", 3) + settings.get("reserved_connections", 0)
    return Limits(int(most), int(reserved))


def _settings(recording: Recording) -> dict[str, float]:
    found = objects(recording, "setting")
    values = pd.to_numeric(found["value"], errors="coerce")
    return {name: value for name, value in zip(found["name"], values, strict=True) if pd.notna(value)}


def _most_sampled(recording: Recording) -> float | None:
    most = recording.query("SELECT max(value) AS most FROM samples WHERE metric = 'connections_max'")["most"].iloc[0]
    return None if pd.isna(most) else float(most)
