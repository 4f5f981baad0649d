"""Which request runs which statement, and how many times.

An app's own spans tell it exactly: each span of the database is of the request whose trace it lies in. Where there
are none, what the server counted between two snapshots is set against the requests that ran meanwhile; ``certainty``
says how sure that is. Pool housekeeping is no work of a request and left out.

Source: OpenTelemetry semantic conventions for database spans; PostgreSQL manual, pg_stat_statements (calls).
"""

import pandas as pd

from perfnb.attribution import prepare
from perfnb.attribution.shapes import Shape, shape_of
from perfnb.attribution.statements import prepare_statements
from perfnb.errors import NotMeasured
from perfnb.recording import Recording

HOW_TO_SEE_QUERIES = (
    "statements of requests: traces with database spans (--otlp), or perfnb record --dsn DSN beside requests"
)

# So many runs of one statement with no model call and no longer pause between them are a loop.
LOOP_FROM = 5
LOOP_PAUSE_MS = 250

# Spans are exact. Counters are, but for other clients, where requests came one at a time; else an average.
BY_TRACE, ONE_AT_A_TIME, BY_COUNTS = 1.0, 0.8, 0.5

# A statement that ran in so many intervals without requests runs by itself.
STEADY_FROM = 3

# Requests and calls of an interval between snapshots go together, as far as whole seconds of snapshots can show.
ALONE = 0.95

_SEEN = """
CREATE OR REPLACE TEMP TABLE query_spans AS
SELECT s.trace_id, s.span_id, s.parent_span_id, s.name, s.statement, t.shape, t.shape_number, t.kind, s.start_time, s.duration_ms,
       s.start_time + CAST(coalesce(s.duration_ms, 0) * 1e6 AS BIGINT) AS end_time
FROM observed_spans s JOIN span_statements t USING (statement)
WHERE t.is_work AND s.operation IN ('database', 'retrieval')
"""

# A library and the driver below it may both make a span of the same statement; the driver's is kept.
_SEEN_TWICE = (
    """
    DELETE FROM query_spans WHERE (trace_id, span_id) IN (
        SELECT trace_id, parent_span_id FROM query_spans WHERE parent_span_id IS NOT NULL)
    """,
    """
    CREATE OR REPLACE TEMP TABLE named_twice AS
    SELECT trace_id, shape FROM query_spans GROUP BY trace_id, shape HAVING count(DISTINCT name) > 1
    """,
    """
    DELETE FROM query_spans WHERE (trace_id, span_id) IN (
        SELECT o.trace_id, o.span_id FROM query_spans o JOIN named_twice USING (trace_id, shape)
        JOIN query_spans i ON i.trace_id = o.trace_id AND i.shape = o.shape AND i.name <> o.name
         AND i.start_time > o.start_time AND i.end_time <= o.end_time)
    """,
)

# Of several requests in one trace, a statement is of the one that began last before it.
_OWNED = """
CREATE OR REPLACE TEMP TABLE owned_queries AS
WITH asked AS (
    SELECT request_id, route, trace_id, start_time, row_number() OVER (ORDER BY start_time, request_id) AS request_number,
           count(*) OVER (PARTITION BY trace_id) AS rivals FROM user_requests WHERE trace_id IS NOT NULL
),
pairs AS (
    SELECT q.*, r.request_id, r.request_number, r.route, r.rivals, r.start_time AS began,
           (q.start_time - r.start_time) / 1e6 AS start_ms FROM query_spans q JOIN asked r USING (trace_id)
)
SELECT * EXCLUDE (rivals, began) FROM pairs WHERE rivals = 1
UNION ALL BY NAME
SELECT * EXCLUDE (rivals, began, place) FROM (
    SELECT *, row_number() OVER (PARTITION BY trace_id, span_id
                                 ORDER BY start_time < began, abs(start_time - began)) AS place
    FROM pairs WHERE rivals > 1)
WHERE place = 1
"""

# A turn ends with a model call: what an agent reads once a turn is no loop. Numbers sort faster than texts.
_LOOPS = f"""
CREATE OR REPLACE TEMP TABLE request_queries AS
WITH numbered AS (
    SELECT trace_id, span_id, request_number AS request, shape_number AS kept, start_time, end_time FROM owned_queries
),
turns AS (
    SELECT * FROM (
        SELECT *, count(*) FILTER (is_call) OVER (PARTITION BY request ORDER BY start_time, is_call DESC) AS turn
        FROM (SELECT *, false AS is_call FROM numbered
              UNION ALL BY NAME SELECT n.request, c.start_time, true AS is_call FROM owned_calls c
              JOIN (SELECT DISTINCT request_number AS request, request_id FROM owned_queries) n USING (request_id)))
    WHERE NOT is_call
),
paused AS (
    SELECT *, (start_time - max(end_time) OVER (PARTITION BY request, kept, turn ORDER BY start_time
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) / 1e6 AS pause_ms FROM turns
),
runs AS (
    SELECT *, count(*) FILTER (pause_ms IS NULL OR pause_ms > {LOOP_PAUSE_MS})
                  OVER (PARTITION BY request, kept ORDER BY start_time, turn) AS run FROM paused
),
lengths AS (SELECT request, kept, run, count(*) AS repeats FROM runs GROUP BY request, kept, run)
SELECT q.request_id, q.route, q.trace_id, q.span_id, q.shape, q.kind, q.statement, q.start_time, q.start_ms, q.duration_ms,
       r.pause_ms, r.turn, r.run, l.repeats, l.repeats >= {LOOP_FROM} AS is_in_loop
FROM owned_queries q JOIN runs r USING (trace_id, span_id) JOIN lengths l USING (request, kept, run)
"""


def prepare_queries(recording: Recording) -> Recording:
    """Make ``request_queries`` and return ``recording``; the table is empty where no trace shows statements.

    One row is one statement run for a user request: request_id, route, trace_id, span_id, shape, kind, statement (as
    the app sent it), start_time, start_ms (from the request's start), duration_ms, pause_ms (since the same statement
    ended before), turn (model calls of the request before it), run (which uninterrupted run of the statement), repeats
    (how long that run is) and is_in_loop.
    """

    def build() -> bool:
        connection = prepare(recording).refresh()
        texts = recording.query(
            "SELECT DISTINCT statement FROM observed_spans WHERE statement IS NOT NULL "
            "AND operation IN ('database', 'retrieval')"
        )["statement"]
        connection.register("span_statements", _shapes(texts))
        connection.execute(_SEEN)
        connection.unregister("span_statements")
        for step in (*_SEEN_TWICE, _OWNED, _LOOPS):
            connection.execute(step)
        return True

    recording.derived("queries", build)
    return recording


def _shapes(texts: pd.Series) -> pd.DataFrame:
    shapes: list[Shape] = [shape_of(text) for text in texts]
    return pd.DataFrame(
        {
            "statement": pd.Series(list(texts), dtype="object"),
            "shape": pd.Series([shape.key for shape in shapes], dtype="object"),
            "shape_number": pd.factorize(pd.Series([shape.key for shape in shapes], dtype="object"))[0],
            "kind": pd.Series([shape.kind for shape in shapes], dtype="object"),
            "is_work": pd.Series([shape.is_work for shape in shapes], dtype="bool"),
        }
    )


def sees_queries(recording: Recording) -> bool:
    """Tell whether traces show the statements of requests."""
    return not prepare_queries(recording).query("SELECT 1 FROM request_queries LIMIT 1").empty


def calls_per_request(recording: Recording) -> pd.DataFrame:
    """Return how often a user request runs each statement: one row per statement and route.

    Columns: shape, kind, statement, route (null: of all routes together), requests (examined), calls (for them),
    calls_per_request, ms_per_request, in_loop (calls that ran in a loop; null where only counters are known),
    certainty (1 by trace; 0.8 by counters, requests having come one at a time; 0.5 by counters alone), seen_by
    (traces or counters). Raises NotMeasured where there are no requests, or neither traces nor two snapshots.
    """

    def build() -> pd.DataFrame:
        return _by_trace(recording) if sees_queries(recording) else _by_counts(recording)

    frame: pd.DataFrame = recording.derived("calls per request", build)
    return frame.copy()


def database_ms_per_request(recording: Recording) -> float | None:
    """Return how long the statements of a request take on average, in ms; None where that is not known."""
    try:
        known = calls_per_request(recording)
    except NotMeasured:
        return None
    examined = known.groupby("route", dropna=False)["requests"].first().sum()
    return float((known["ms_per_request"] * known["requests"]).sum() / examined) if examined else 0.0


_TRACED = f"""
WITH traced AS (
    SELECT route, count(*) AS requests FROM user_requests
    WHERE trace_id IN (SELECT trace_id FROM observed_spans) GROUP BY route
)
SELECT q.shape, any_value(q.kind) AS kind, min(q.statement) AS statement, q.route,
       any_value(t.requests) AS requests, count(*) AS calls, count(*) / any_value(t.requests) AS calls_per_request,
       sum(q.duration_ms) / any_value(t.requests) AS ms_per_request, count(*) FILTER (is_in_loop) AS in_loop,
       {BY_TRACE} AS certainty, 'traces' AS seen_by
FROM request_queries q JOIN traced t ON t.route IS NOT DISTINCT FROM q.route
GROUP BY q.shape, q.route ORDER BY sum(q.duration_ms) DESC, q.shape, q.route
"""


def _by_trace(recording: Recording) -> pd.DataFrame:
    return recording.query(_TRACED)


# How much of each request lies in which interval between snapshots, and how much of it ran beside another.
_REQUESTS_IN_INTERVALS = """
WITH intervals AS (SELECT DISTINCT before_time, time FROM statement_snapshots WHERE is_outside_trials),
seen AS (
    SELECT request_id, route, start_time, greatest(end_time, start_time + 1) AS end_time,
           start_time < max(end_time) OVER (ORDER BY start_time, request_id
                                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS is_beside
    FROM user_requests WHERE source <> 'call'
)
SELECT i.time, i.before_time, s.route, coalesce(s.is_beside, false) AS is_beside,
       sum((least(s.end_time, i.time) - greatest(s.start_time, i.before_time)) / (s.end_time - s.start_time)) AS requests
FROM intervals i JOIN seen s ON s.start_time < i.time AND s.end_time > i.before_time
GROUP BY ALL
"""

_IDLE = """
SELECT DISTINCT before_time, time FROM statement_snapshots i WHERE is_outside_trials AND NOT EXISTS (
    SELECT 1 FROM user_requests r WHERE r.start_time < i.time AND r.end_time > i.before_time)
"""

_DELTAS = """
SELECT time, before_time, query, sum(calls) AS calls, sum(total_exec_time_ms) AS ms FROM statement_deltas
WHERE coalesce(is_top_level, true) AND query IS NOT NULL GROUP BY ALL
"""


def _by_counts(recording: Recording) -> pd.DataFrame:
    prepare_statements(prepare(recording))
    requests = recording.query(_REQUESTS_IN_INTERVALS)
    if requests.empty or requests["requests"].sum() < 1:
        raise NotMeasured("no requests were seen while statements were counted", hint=HOW_TO_SEE_QUERIES)
    beside = float(requests.loc[requests["is_beside"], "requests"].sum() / requests["requests"].sum())
    deltas = _worked(recording.query(_DELTAS), recording.query(_IDLE))
    parts = [_shared_out(deltas, times, route, count) for route, times, count in _groups(requests)]
    frame = pd.concat(parts, ignore_index=True)
    frame["in_loop"] = pd.Series(pd.NA, frame.index, dtype="Int64")
    frame["certainty"] = BY_COUNTS if beside > 1 - ALONE else ONE_AT_A_TIME
    frame["seen_by"] = "counters"
    return frame.sort_values("ms_per_request", ascending=False, ignore_index=True)


def _worked(deltas: pd.DataFrame, idle: pd.DataFrame) -> pd.DataFrame:
    """Return deltas of work, less what the same statement does each second while there are no requests.

    Only what ran in most of several such intervals: a single run may be the app's start, or the end of a request.
    """
    shapes = [shape_of(query) for query in deltas["query"]]
    deltas = deltas.assign(shape=[s.key for s in shapes], kind=[s.kind for s in shapes])
    deltas = deltas[pd.Series([shape.is_work for shape in shapes], deltas.index, dtype=bool)]
    quiet, busy = deltas[deltas["time"].isin(idle["time"])], deltas[~deltas["time"].isin(idle["time"])]
    groups = quiet.groupby("shape")
    steady = groups["time"].nunique() >= max(STEADY_FROM, len(idle) / 2)
    rates = groups[["calls", "ms"]].sum()[steady] / (float((idle["time"] - idle["before_time"]).sum()) / 1e9 or 1.0)
    ground = rates.reindex(busy["shape"]).fillna(0.0).set_index(busy.index)
    seconds = (busy["time"] - busy["before_time"]) / 1e9
    return busy.assign(
        calls=(busy["calls"] - ground["calls"] * seconds).clip(lower=0),
        ms=(busy["ms"] - ground["ms"] * seconds).clip(lower=0),
    )


def _groups(requests: pd.DataFrame) -> list[tuple[str | None, set[int], float]]:
    """Return (route, times of intervals, requests): routes that had intervals to themselves, else all together."""
    by_time = requests.groupby("time")["requests"].transform("sum")
    own = requests[requests["requests"] >= ALONE * by_time]
    told = own.groupby("route")["requests"].sum()
    if set(told[told >= 1].index) == set(requests["route"]):
        return [
            (str(route), set(own.loc[own["route"] == route, "time"]), float(count)) for route, count in told.items()
        ]
    return [(None, set(requests["time"]), float(requests["requests"].sum()))]


def _shared_out(deltas: pd.DataFrame, times: set[int], route: str | None, requests: float) -> pd.DataFrame:
    groups = deltas[deltas["time"].isin(times)].groupby("shape")
    frame = groups.agg(kind=("kind", "first"), statement=("query", "first"), calls=("calls", "sum"), ms=("ms", "sum"))
    frame = frame[frame["calls"] > 0].reset_index()
    return pd.DataFrame(
        {
            "shape": frame["shape"],
            "kind": frame["kind"],
            "statement": frame["statement"],
            "route": pd.Series(route, frame.index, dtype="object"),
            "requests": requests,
            "calls": frame["calls"],
            "calls_per_request": frame["calls"] / requests,
            "ms_per_request": frame["ms"] / requests,
        }
    )
