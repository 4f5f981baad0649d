"""Which rows are one model call: proxy and span rows of the same call are joined, framework spans above are dropped.

The proxy sees every attempt and its bytes; a span knows its place in the trace. Where both saw a call, the proxy's row
stays and takes trace and span from the span. Sources: research on dialects (usage repeated on parents, retries hidden
in one span), OpenTelemetry GenAI conventions (leaf inference spans). A span that hid retries is split into its attempts
by the HTTP client spans below it.
"""

import pandas as pd

from perfnb.attribution.observed import observed
from perfnb.recording import Recording

# A proxied attempt lies inside the span of its call; clocks are the same host's, so a little slack is enough.
SLACK_NS = 5_000_000

# … but a client may call its span ended before the proxy has passed on the last bytes.
LATE_NS = 100_000_000

# Calls with the same prompt that begin so near each other are one, however long each is said to have taken.
NEAR_NS = 2_000_000_000

# What is worked out about a call; its other columns stay in llm_calls.
_NARROW = """
call_id, trace_id, span_id, parent_span_id, source, operation, request_model, path, stream, start_time,
start_time + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT) AS end_time, duration_ms, time_to_first_token_ms,
status_code, error_type, retry_count, coalesce(prompt_digest, call_id) AS prompt,
CASE WHEN NOT coalesce(tokens_estimated, false) THEN input_tokens || '/' || coalesce(output_tokens, 0) END AS usage
"""

_STEPS = (
    f"CREATE OR REPLACE TEMP TABLE proxied AS SELECT {_NARROW} FROM observed_llm_calls WHERE source = 'proxy'",
    f"CREATE OR REPLACE TEMP TABLE spanned AS SELECT {_NARROW} FROM observed_llm_calls WHERE source = 'span'",
    # Only a call that lies within another's time can be its inner half, so that few ancestors need looking up.
    """
    CREATE OR REPLACE TEMP TABLE wanting_ancestors AS
    SELECT call_id, trace_id, parent_span_id FROM proxied WHERE trace_id IS NOT NULL AND parent_span_id IS NOT NULL
    UNION ALL
    SELECT DISTINCT i.call_id, i.trace_id, i.parent_span_id FROM spanned i JOIN spanned o
      ON o.trace_id = i.trace_id AND o.operation = i.operation AND o.call_id <> i.call_id
     AND o.start_time <= i.start_time AND o.end_time >= i.end_time
    WHERE i.parent_span_id IS NOT NULL
    """,
    """
    CREATE OR REPLACE TEMP TABLE ancestors AS
    WITH parents AS (SELECT trace_id, span_id, parent_span_id FROM spans
                     WHERE span_id IN (SELECT parent_span_id FROM wanting_ancestors)),
    grandparents AS (SELECT trace_id, span_id, parent_span_id FROM spans
                     WHERE span_id IN (SELECT parent_span_id FROM parents))
    SELECT call_id, trace_id, parent_span_id AS ancestor FROM wanting_ancestors
    UNION ALL SELECT c.call_id, c.trace_id, p.parent_span_id FROM wanting_ancestors c
              JOIN parents p ON p.trace_id = c.trace_id AND p.span_id = c.parent_span_id
    UNION ALL SELECT c.call_id, c.trace_id, g.parent_span_id FROM wanting_ancestors c
              JOIN parents p ON p.trace_id = c.trace_id AND p.span_id = c.parent_span_id
              JOIN grandparents g ON g.trace_id = p.trace_id AND g.span_id = p.parent_span_id
    """,
    """
    DELETE FROM spanned WHERE call_id IN (
        SELECT o.call_id FROM spanned o JOIN ancestors a ON a.trace_id = o.trace_id AND a.ancestor = o.span_id
        WHERE a.call_id IN (SELECT call_id FROM spanned))
    """,
    """
    CREATE OR REPLACE TEMP TABLE seen_twice AS
    SELECT call_id, span_call_id, prompt, trace_id, span_id, parent_span_id FROM (
        SELECT p.call_id, s.call_id AS span_call_id, p.prompt, s.trace_id, s.span_id, s.parent_span_id,
               row_number() OVER (PARTITION BY p.call_id ORDER BY s.call_id) AS place
        FROM proxied p JOIN ancestors a ON a.call_id = p.call_id
        JOIN spanned s ON s.trace_id = a.trace_id AND s.span_id = a.ancestor)
    WHERE place = 1
    """,
)

# A trace does not always lead from a proxied call to its span: clients may send none, and callbacks that make spans
# need not make them current. Both end about together, unless a stream's span ends when its stream begins.
_PAIRS = f"""
WITH open_ended AS (SELECT * FROM proxied WHERE call_id NOT IN (SELECT call_id FROM seen_twice)),
pairs AS (
    SELECT p.call_id, p.prompt, p.error_type IS NOT NULL AS has_failed, p.usage, p.start_time, p.end_time,
           s.call_id AS span_call_id, s
    FROM open_ended p JOIN spanned s
      ON p.start_time >= s.start_time - {SLACK_NS} AND p.end_time <= s.end_time + {LATE_NS}
     AND (p.request_model = s.request_model OR s.request_model IS NULL)
    WHERE (p.operation = 'embeddings') = (s.operation = 'embeddings')
      AND (p.trace_id IS NULL OR p.trace_id = s.trace_id)
    UNION
    SELECT p.call_id, p.prompt, p.error_type IS NOT NULL, p.usage, p.start_time, p.end_time, s.call_id, s
    FROM open_ended p JOIN spanned s ON p.prompt = s.prompt AND p.request_model = s.request_model
    WHERE abs(p.start_time - s.start_time) < {NEAR_NS} AND (p.trace_id IS NULL OR p.trace_id = s.trace_id)
)
SELECT call_id, span_call_id, prompt, has_failed, s.trace_id, s.span_id, s.parent_span_id
FROM pairs
ORDER BY has_failed, CASE WHEN usage = s.usage THEN 0 WHEN usage IS NULL OR s.usage IS NULL THEN 1 ELSE 2 END,
         abs(start_time - s.start_time) + abs(end_time - s.end_time), call_id, span_call_id
"""

_JOIN = (
    "DELETE FROM spanned WHERE call_id IN (SELECT span_call_id FROM seen_twice)",
    """
    CREATE OR REPLACE TEMP TABLE hidden_attempts AS
    SELECT * FROM (
        SELECT c.call_id, s.span_id, s.start_time, s.duration_ms, s.error_type, s.http_status_code AS status_code,
               row_number() OVER (PARTITION BY c.call_id ORDER BY s.start_time) AS attempt,
               count(*) OVER (PARTITION BY c.call_id) AS attempts
        FROM spans s JOIN spanned c ON s.trace_id = c.trace_id AND s.parent_span_id = c.span_id
        WHERE s.operation = 'http' AND s.kind = 'CLIENT')
    WHERE attempts > 1
    """,
    """
    CREATE OR REPLACE TEMP TABLE joined_calls AS
    SELECT p.* EXCLUDE (usage) REPLACE (coalesce(m.trace_id, p.trace_id) AS trace_id, coalesce(m.span_id, p.span_id) AS span_id,
                        coalesce(m.parent_span_id, p.parent_span_id) AS parent_span_id)
    FROM proxied p LEFT JOIN seen_twice m ON m.call_id = p.call_id
    UNION ALL BY NAME
    SELECT c.* EXCLUDE (usage) REPLACE (
        coalesce(h.start_time, c.start_time) AS start_time,
        CASE WHEN h.call_id IS NULL THEN c.duration_ms ELSE (c.end_time - h.start_time) / 1e6 END AS duration_ms,
        CASE WHEN h.call_id IS NULL THEN c.time_to_first_token_ms
             ELSE greatest(c.time_to_first_token_ms - (h.start_time - c.start_time) / 1e6, 0)
             END AS time_to_first_token_ms,
        coalesce(h.status_code, c.status_code) AS status_code)
    FROM spanned c LEFT JOIN hidden_attempts h ON h.call_id = c.call_id AND h.attempt = h.attempts
    UNION ALL BY NAME
    SELECT h.span_id AS call_id, c.trace_id, c.span_id, c.parent_span_id, 'span' AS source, c.operation,
           c.request_model, c.stream, h.start_time, h.start_time + CAST(h.duration_ms * 1e6 AS BIGINT) AS end_time,
           h.duration_ms, h.status_code, h.attempt - 1 AS retry_count, c.prompt,
           CASE WHEN h.status_code = 429 THEN 'rate_limit' WHEN h.status_code >= 500 THEN 'server_error'
                ELSE coalesce(h.error_type, 'connection') END AS error_type
    FROM hidden_attempts h JOIN spanned c ON c.call_id = h.call_id
    WHERE h.attempt < h.attempts
    """,
)


def build(recording: Recording) -> None:
    """Make the temporary table ``joined_calls``: one row per attempt, with what is worked out about it."""
    connection = observed(recording).refresh()
    for step in _STEPS:
        connection.execute(step)
    pairs = _one_to_one(connection.execute(_PAIRS).df(), connection.execute("SELECT * FROM seen_twice").df())
    connection.register("pairs_by_time", pairs)
    connection.execute("INSERT INTO seen_twice BY NAME SELECT * FROM pairs_by_time")
    connection.unregister("pairs_by_time")
    for step in _JOIN:
        connection.execute(step)


def _one_to_one(pairs: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Return the first pair of each call whose span no other call has, ``pairs`` being in order of likelihood.

    Attempts that failed share the span of the one that was tried again.
    """
    prompt_of = dict(zip(known["span_call_id"], known["prompt"], strict=True))
    done: set[str] = set()
    kept = []
    for place, (call_id, span, prompt, has_failed) in enumerate(
        pairs[["call_id", "span_call_id", "prompt", "has_failed"]].itertuples(index=False)
    ):
        is_free = span not in prompt_of or (has_failed and prompt_of[span] == prompt)
        if is_free and call_id not in done:
            done.add(call_id)
            prompt_of[span] = prompt
            kept.append(place)
    return pairs.iloc[kept].drop(columns="has_failed")
