"""Which requests the users made, and which request each model call belongs to.

A request may be seen from outside (front, probe, load) and by a server span; both become one row with the outside
timing, which is what the user felt, and the span's trace. Calls belong to a request by trace, else by containment in
time; where requests overlap, the text they share decides if it can, else which of them had just got so far, and
``certainty`` says how sure it is.
"""

import json

import pandas as pd

from perfnb.attribution.continuity import by_continuity
from perfnb.attribution.observed import observed
from perfnb.recording import Recording

# A server span may end a little after its last byte reached the client.
SLACK_NS = 50_000_000

# … and a call may outlive its request by what it takes to notice the end.
OUTLIVES_NS = 500_000_000

# Shared part of two sketches from which on a prompt is taken to hold the request's text, and the lead it needs.
SAME_TEXT = 0.3
LEAD = 0.15

_REQUESTS = f"""
CREATE OR REPLACE TEMP TABLE user_requests AS
WITH seen AS (
    SELECT *, start_time + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT) AS end_time
    FROM observed_http_requests WHERE coalesce(phase, 'measure') = 'measure'
),
outside AS (SELECT * FROM seen WHERE source <> 'span'),
served AS (SELECT * FROM seen WHERE request_id IN (  -- the outermost server span of each trace
    SELECT min_by(request_id, start_time) FROM seen WHERE source = 'span' GROUP BY coalesce(trace_id, request_id))),
pairs AS (
    SELECT o.request_id, s.request_id AS served_id, s.trace_id, s.span_id, s.route, 0 AS distance
    FROM outside o JOIN served s ON s.trace_id = o.trace_id
    UNION ALL
    SELECT o.request_id, s.request_id, s.trace_id, s.span_id, s.route, s.start_time - o.start_time
    FROM outside o JOIN served s
      ON s.start_time >= o.start_time AND s.end_time <= o.end_time + {SLACK_NS} AND s.method = o.method
    WHERE o.trace_id IS NULL
),
nearest_outside AS (SELECT * FROM (
    SELECT *, row_number() OVER (PARTITION BY served_id ORDER BY distance, request_id) AS place FROM pairs)
    WHERE place = 1),
matched AS (SELECT * FROM (
    SELECT *, row_number() OVER (PARTITION BY request_id ORDER BY distance, served_id) AS nearest FROM nearest_outside)
    WHERE nearest = 1)
SELECT o.* REPLACE (coalesce(m.trace_id, o.trace_id) AS trace_id, m.span_id AS span_id,
                    coalesce(m.route, o.route) AS route)
FROM outside o LEFT JOIN matched m ON m.request_id = o.request_id
UNION ALL BY NAME
SELECT * FROM served WHERE request_id NOT IN (SELECT served_id FROM matched)
"""

# Traces of programs that serve no HTTP: the root of a trace that holds a model call stands for the request.
_ROOTS = """
INSERT INTO user_requests BY NAME
SELECT trace_id AS request_id, trace_id, span_id, 'trace' AS source, name AS route, start_time,
       start_time + CAST(duration_ms * 1e6 AS BIGINT) AS end_time, duration_ms, error_type
FROM (SELECT *, row_number() OVER (PARTITION BY trace_id ORDER BY start_time, duration_ms DESC) AS place
      FROM spans WHERE trace_id IN (SELECT trace_id FROM joined_calls) AND parent_span_id IS NULL)
WHERE place = 1 AND (trace_id, span_id) NOT IN (SELECT trace_id, span_id FROM joined_calls
                                                 WHERE trace_id IS NOT NULL AND span_id IS NOT NULL)
"""

# Nothing but calls: each prompt, with its retries, stands for a request.
_LONE_CALLS = """
INSERT INTO user_requests BY NAME
SELECT first_call AS request_id, 'call' AS source, path AS route, start_time, end_time,
       (end_time - start_time) / 1e6 AS duration_ms, time_to_first_token_ms AS time_to_first_content_ms, stream,
       error_type
FROM (
    SELECT min_by(call_id, start_time) AS first_call, any_value(path) AS path, min(start_time) AS start_time,
           max(end_time) AS end_time, min(time_to_first_token_ms) AS time_to_first_token_ms,
           bool_or(stream) AS stream, nullif(max_by(coalesce(error_type, ''), start_time), '') AS error_type
    FROM (SELECT *, sum(CASE WHEN failed_before THEN 0 ELSE 1 END)
                      OVER (PARTITION BY prompt, request_model ORDER BY start_time, call_id) AS chain
          FROM (SELECT *, lag(error_type) OVER (PARTITION BY prompt, request_model ORDER BY start_time, call_id)
                          IS NOT NULL AS failed_before
                FROM joined_calls))
    GROUP BY prompt, request_model, chain)
"""

_BY_TRACE = """
CREATE OR REPLACE TEMP TABLE owners AS
SELECT c.call_id, min_by(r.request_id, abs(c.start_time - r.start_time)) AS request_id, 1.0 AS certainty
FROM joined_calls c JOIN user_requests r ON r.trace_id = c.trace_id GROUP BY c.call_id
"""

_KIND = "c.operation || ' ' || coalesce(c.request_model, '')"

# A table of its own: joined by range before the owned ones are left out, millions of calls would take long.
_OWNERLESS = f"""
CREATE OR REPLACE TEMP TABLE ownerless AS
SELECT call_id, trace_id, start_time, end_time, duration_ms, error_type, {_KIND} AS kind FROM joined_calls c
WHERE call_id NOT IN (SELECT call_id FROM owners)
"""

# A call ends before its request does, unless the request was broken off.
_CANDIDATES = f"""
CREATE OR REPLACE TEMP TABLE candidates AS
SELECT c.call_id, c.kind, r.request_id, c.start_time, c.end_time, r.start_time AS request_start,
       count(*) OVER (PARTITION BY c.call_id) AS rivals
FROM ownerless c JOIN user_requests r ON c.start_time >= r.start_time AND c.start_time < r.end_time
WHERE c.end_time <= r.end_time + {OUTLIVES_NS} OR r.error_type IS NOT NULL OR r.client_disconnected
"""

_BY_TIME = """
INSERT INTO owners SELECT call_id, request_id, 1.0 FROM candidates WHERE rivals = 1
"""

_KNOWN = f"""
SELECT o.request_id, c.start_time, c.end_time, {_KIND} AS kind FROM owners o JOIN joined_calls c USING (call_id)
WHERE o.request_id IN (SELECT request_id FROM candidates)
"""

_UNKNOWN = "SELECT * FROM candidates WHERE call_id NOT IN (SELECT call_id FROM owners)"

_USUAL = f"""
SELECT {_KIND} AS kind, count(*) / (SELECT count(*) FROM user_requests) AS per_request
FROM joined_calls c WHERE c.error_type IS NULL GROUP BY kind
"""

# Attempts at one call are of one request: they go where the surest of them belongs, if they may.
_ATTEMPTS_TOGETHER = """
UPDATE owners SET request_id = better.request_id, certainty = better.certainty FROM (
    SELECT u.call_id, arg_max(s.request_id, s.certainty) AS request_id, max(s.certainty) AS certainty
    FROM owners u JOIN joined_calls c ON c.call_id = u.call_id
    JOIN joined_calls d ON d.prompt = c.prompt AND d.request_model = c.request_model
    JOIN owners s ON s.call_id = d.call_id AND s.certainty > u.certainty
    JOIN candidates a ON a.call_id = u.call_id AND a.request_id = s.request_id
    WHERE u.certainty < 1 AND (c.error_type IS NOT NULL OR d.error_type IS NOT NULL)
    GROUP BY u.call_id) better
WHERE owners.call_id = better.call_id
"""

_AMBIGUOUS = """
SELECT a.call_id, a.request_id, r.body_sketch, c.messages
FROM candidates a JOIN user_requests r USING (request_id) JOIN llm_calls c USING (call_id)
WHERE a.rivals BETWEEN 2 AND 50 AND r.body_sketch IS NOT NULL AND c.messages IS NOT NULL
LIMIT 200000
"""

# A call that was still open when recording stopped, and whose request no one saw end, stands for that request.
_UNFINISHED = (
    """
    INSERT INTO user_requests BY NAME
    SELECT call_id AS request_id, trace_id, 'unfinished' AS source, 'unfinished' AS error_type, start_time, end_time,
           duration_ms
    FROM ownerless WHERE error_type = 'unfinished' AND call_id NOT IN (SELECT call_id FROM owners)
    """,
    """
    INSERT INTO owners SELECT call_id, call_id, 1.0 FROM ownerless
    WHERE error_type = 'unfinished' AND call_id NOT IN (SELECT call_id FROM owners)
    """,
)

# A chain is one prompt with its retries: attempts go on as long as the one before failed. Prompts sent once are most.
_CHAINS = """
CREATE OR REPLACE TEMP TABLE chains AS
WITH again AS (
    SELECT c.call_id, o.request_id, c.prompt, c.request_model, c.start_time, c.end_time, c.error_type
    FROM joined_calls c LEFT JOIN owners o USING (call_id)
    WHERE c.prompt IN (SELECT prompt FROM joined_calls GROUP BY prompt HAVING count(*) > 1)
),
before AS (
    SELECT *, lag(error_type) OVER prompts AS error_before, lag(end_time) OVER prompts AS end_before
    FROM again WINDOW prompts AS (PARTITION BY request_id, prompt, request_model ORDER BY start_time, call_id)
),
numbered AS (
    SELECT *, sum(CASE WHEN error_before IS NULL OR start_time < end_before THEN 1 ELSE 0 END)
                OVER (PARTITION BY request_id, prompt, request_model ORDER BY start_time, call_id) AS chain_number
    FROM before
)
SELECT call_id, first_value(call_id) OVER chain AS chain, row_number() OVER chain AS attempt,
       CASE WHEN row_number() OVER chain > 1 THEN (start_time - end_before) / 1e6 END AS waited_ms
FROM numbered
WINDOW chain AS (PARTITION BY request_id, prompt, request_model, chain_number ORDER BY start_time, call_id)
"""

_OWNED = """
CREATE OR REPLACE TEMP TABLE owned_calls AS
SELECT c.*, o.request_id, coalesce(o.certainty, 0) AS certainty, coalesce(k.chain, c.call_id) AS chain,
       coalesce(k.attempt, 1) AS attempt, k.waited_ms
FROM joined_calls c LEFT JOIN owners o USING (call_id) LEFT JOIN chains k USING (call_id)
"""

# The wide form: everything known of a call. Columns that were worked out stand before those recorded.
_WIDE = """
CREATE OR REPLACE TEMP VIEW model_calls AS
SELECT o.*, c.* EXCLUDE (
    call_id, trace_id, span_id, parent_span_id, source, operation, request_model, path, stream, start_time, duration_ms,
    time_to_first_token_ms, status_code, error_type, retry_count)
FROM owned_calls o LEFT JOIN llm_calls c ON c.call_id = o.call_id
"""


def build(recording: Recording) -> None:
    """Make ``user_requests``, ``owned_calls`` and, with all recorded columns, ``model_calls``."""
    connection = observed(recording).refresh()
    connection.execute(_REQUESTS)
    for fallback in (_ROOTS, _LONE_CALLS):
        if _is_empty(recording, "user_requests"):
            connection.execute(fallback)
    for step in (_BY_TRACE, _OWNERLESS, _CANDIDATES):
        connection.execute(step)
    told_apart = _by_text(connection.execute(_AMBIGUOUS).df())
    if not told_apart.empty:
        connection.register("told_apart", told_apart)
        connection.execute("INSERT INTO owners SELECT call_id, request_id, certainty FROM told_apart")
        connection.unregister("told_apart")
    connection.execute(_BY_TIME)
    if not (unknown := connection.execute(_UNKNOWN).df()).empty:
        usual = connection.execute(_USUAL).df().set_index("kind")["per_request"]
        connection.register("guessed", by_continuity(unknown, connection.execute(_KNOWN).df(), usual))
        connection.execute("INSERT INTO owners SELECT * FROM guessed")
        connection.unregister("guessed")
        connection.execute(_ATTEMPTS_TOGETHER)
    for step in (*_UNFINISHED, _CHAINS, _OWNED, _WIDE):
        connection.execute(step)


def _is_empty(recording: Recording, table: str) -> bool:
    return recording.refresh().execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None


def _by_text(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return call_id, request_id, certainty for calls whose prompt holds the text of just one rival request."""
    if pairs.empty:
        return pd.DataFrame({"call_id": [], "request_id": [], "certainty": []})
    shared = [
        _shared_text(body, prompt)
        for body, prompt in zip(pairs["body_sketch"], pairs["messages"].map(_prompt_sketch), strict=True)
    ]
    pairs = pairs.assign(shared=shared).sort_values(["call_id", "shared"], ascending=[True, False])
    best = pairs.groupby("call_id").nth(0).set_index("call_id")
    second = pairs.groupby("call_id").nth(1).set_index("call_id")["shared"].reindex(best.index, fill_value=0.0)
    sure = best[(best["shared"] >= SAME_TEXT) & (best["shared"] - second >= LEAD)]
    return sure.assign(certainty=0.9).reset_index()[["call_id", "request_id", "certainty"]]


def _shared_text(body_sketch: str, prompt: frozenset[int]) -> float:
    """Return the part of the request's sketch that the prompt's sketches hold; both are bottom-k samples."""
    body = frozenset(json.loads(body_sketch))
    return len(body & prompt) / len(body) if body else 0.0


def _prompt_sketch(messages: str) -> frozenset[int]:
    return frozenset(
        value for message in json.loads(messages) for part in ("sketch", "edges") for value in message.get(part) or ()
    )
