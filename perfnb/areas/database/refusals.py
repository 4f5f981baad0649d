"""What drivers, pools and the server say when a connection can't be had or is gone, found in traces and requests."""

import re

import pandas as pd

from perfnb.attribution import prepare
from perfnb.recording import Recording

POOL_TIMEOUT, TOO_MANY, CLOSED, DEADLOCK, LOCK_TIMEOUT = (
    "pool timeout", "too many connections", "connection closed", "deadlock", "lock timeout",
)  # fmt: skip

# Wordings of SQLAlchemy, psycopg and its pool, asyncpg, psycopg2, Django, HikariCP, Prisma, node-postgres and PgBouncer for
# the first; of the server itself (with its SQLSTATE) and libpq for the others. The first that fits counts.
KINDS: tuple[tuple[str, str], ...] = (
    (
        POOL_TIMEOUT,
        r"QueuePool limit|PoolTimeout|couldn't get a connection|has already \d+ requests waiting|connection pool exhausted"
        r"|pool is exhausted|Timed out fetching a new connection|Connection is not available, request timed out"
        r"|timeout exceeded when trying to connect|query_wait_timeout|no more connections allowed",
    ),
    (
        TOO_MANY,
        r"too many clients already|remaining connection slots|too many connections for|TooManyConnections|\b53300\b",
    ),
    (DEADLOCK, r"deadlock detected|DeadlockDetected|\b40P01\b"),
    (LOCK_TIMEOUT, r"due to lock timeout|LockNotAvailable|\b55P03\b"),
    (
        CLOSED,
        r"terminating connection|server closed the connection|SSL connection has been closed|SSL SYSCALL error"
        r"|connection (?:is |was )?(?:already )?(?:closed|lost)|connection not open|ConnectionDoesNotExist|AdminShutdown"
        r"|IdleSessionTimeout|server conn crashed|client_idle_timeout|\b57P0[1-5]\b",
    ),
)
_KINDS = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in KINDS]

_SAID = """
SELECT s.start_time AS time, s.trace_id, r.request_id, s.operation,
       concat_ws(' ', s.error_type, json_extract_string(s.attributes, '$."otel.status_description"'),
                 CAST(s.events AS VARCHAR)) AS said
FROM observed_spans s LEFT JOIN (SELECT trace_id, min(request_id) AS request_id FROM user_requests GROUP BY trace_id) r
  ON r.trace_id = s.trace_id
WHERE (s.status = 'ERROR' OR s.error_type IS NOT NULL OR CAST(s.events AS VARCHAR) LIKE '%exception%')
  AND s.operation NOT IN ('chat', 'embeddings', 'responses', 'text_completion')
UNION ALL
SELECT start_time, trace_id, request_id, 'request', error_type FROM user_requests WHERE error_type IS NOT NULL
ORDER BY time
"""


def kind_of(said: str) -> str | None:
    """Return what kind of refusal a text tells of; None where it is about something else."""
    return next((kind for kind, pattern in _KINDS if pattern.search(said)), None)


def refusals(recording: Recording) -> pd.DataFrame:
    """Return each time a request was refused a connection or lost one: time (ns), kind, trace_id, request_id, wording.

    An error that was told by several spans of one trace counts once, at its first. The wording is what was recognised.
    """
    return recording.derived("refusals", lambda: _refusals(recording))


def _refusals(recording: Recording) -> pd.DataFrame:
    frame = prepare(recording).query(_SAID)
    texts = {said: _recognised(said) for said in frame["said"].dropna().unique()}
    frame["kind"] = [texts.get(said, (None, ""))[0] for said in frame["said"]]
    frame["wording"] = [texts.get(said, (None, ""))[1] for said in frame["said"]]
    frame = frame.dropna(subset=["kind"])
    about = frame["request_id"].fillna(frame["trace_id"])
    own = about.where(about.notna(), pd.Series(frame.index.astype(str), index=frame.index))
    frame = frame.assign(about=own).drop_duplicates(["kind", "about"])
    return frame[["time", "kind", "trace_id", "request_id", "wording"]].reset_index(drop=True)


def _recognised(said: str) -> tuple[str | None, str]:
    for kind, pattern in _KINDS:
        if match := pattern.search(said):
            return kind, match[0]
    return None, ""
