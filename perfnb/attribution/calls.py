"""Which rows are one model call: proxy and span rows of the same call are joined, framework spans above are dropped.

The proxy sees every attempt and its bytes; a span knows its place in the trace. Where both saw a call, the proxy's row
stays and takes trace and span from the span. Sources: research on dialects (usage repeated on parents, retries hidden
in one span), OpenTelemetry GenAI conventions (leaf inference spans). A span that hid retries is split into its attempts
by the HTTP client spans below it.
"""

from perfnb.recording import Recording

# A proxied attempt lies inside the span of its call; clocks are the same host's, so a little slack is enough.
SLACK_NS = 5_000_000

_CALLS = f"""
CREATE OR REPLACE TEMP TABLE joined_calls AS
WITH proxied AS (SELECT *, start_time + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT) AS end_time
                 FROM llm_calls WHERE source = 'proxy'),
spanned AS (SELECT *, start_time + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT) AS end_time
            FROM llm_calls WHERE source = 'span'),
parents AS (SELECT trace_id, span_id, parent_span_id FROM spans
            WHERE span_id IN (SELECT parent_span_id FROM llm_calls)),
grandparents AS (SELECT trace_id, span_id, parent_span_id FROM spans
                 WHERE span_id IN (SELECT parent_span_id FROM parents)),
ancestors AS (
    SELECT call_id, trace_id, parent_span_id AS ancestor FROM llm_calls WHERE parent_span_id IS NOT NULL
    UNION SELECT c.call_id, c.trace_id, p.parent_span_id FROM llm_calls c
          JOIN parents p ON p.trace_id = c.trace_id AND p.span_id = c.parent_span_id
    UNION SELECT c.call_id, c.trace_id, g.parent_span_id FROM llm_calls c
          JOIN parents p ON p.trace_id = c.trace_id AND p.span_id = c.parent_span_id
          JOIN grandparents g ON g.trace_id = p.trace_id AND g.span_id = p.parent_span_id
),
leaves AS (
    SELECT * FROM spanned WHERE (trace_id, span_id) NOT IN (
        SELECT a.trace_id, a.ancestor FROM ancestors a JOIN spanned s ON s.call_id = a.call_id
        WHERE a.trace_id IS NOT NULL AND a.ancestor IS NOT NULL)
),
by_trace AS (
    SELECT a.call_id, l.call_id AS span_call_id, l.trace_id, l.span_id, l.parent_span_id, 0 AS distance
    FROM proxied p JOIN ancestors a ON a.call_id = p.call_id
    JOIN leaves l ON l.trace_id = a.trace_id AND l.span_id = a.ancestor
),
by_time AS (
    SELECT p.call_id, l.call_id AS span_call_id, l.trace_id, l.span_id, l.parent_span_id,
           p.start_time - l.start_time AS distance
    FROM proxied p JOIN leaves l
      ON p.start_time >= l.start_time - {SLACK_NS} AND p.end_time <= l.end_time + {SLACK_NS}
     AND (p.request_model = l.request_model OR l.request_model IS NULL)
    WHERE p.trace_id IS NULL
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY call_id ORDER BY distance, span_call_id) AS place
    FROM (SELECT * FROM by_trace UNION ALL SELECT * FROM by_time)
),
matched AS (SELECT * FROM ranked WHERE place = 1),
unmatched AS (SELECT * FROM leaves WHERE call_id NOT IN (SELECT span_call_id FROM matched)),
http_attempts AS (
    SELECT l.call_id, s.span_id, s.start_time, s.duration_ms, s.error_type,
           coalesce(s.http_status_code,
                    CAST(json_extract_string(s.attributes, '$."http.response.status_code"') AS BIGINT)) AS status_code,
           row_number() OVER (PARTITION BY l.call_id ORDER BY s.start_time) AS attempt,
           count(*) OVER (PARTITION BY l.call_id) AS attempts
    FROM spans s JOIN unmatched l ON s.trace_id = l.trace_id AND s.parent_span_id = l.span_id
    WHERE s.operation = 'http' AND s.kind = 'CLIENT'
),
last_attempts AS (
    SELECT call_id, status_code, start_time AS last_start FROM http_attempts WHERE attempts > 1 AND attempt = attempts
)
SELECT p.* REPLACE (coalesce(m.trace_id, p.trace_id) AS trace_id, m.span_id AS span_id,
                    coalesce(m.parent_span_id, p.parent_span_id) AS parent_span_id)
FROM proxied p LEFT JOIN matched m ON m.call_id = p.call_id
UNION ALL BY NAME
SELECT u.* REPLACE (
    coalesce(h.last_start, u.start_time) AS start_time,
    CASE WHEN h.last_start IS NULL THEN u.duration_ms ELSE (u.end_time - h.last_start) / 1e6 END AS duration_ms,
    CASE WHEN h.last_start IS NULL THEN u.time_to_first_token_ms
         ELSE greatest(u.time_to_first_token_ms - (h.last_start - u.start_time) / 1e6, 0)
         END AS time_to_first_token_ms,
    coalesce(h.status_code, u.status_code) AS status_code,
    coalesce(u.prompt_digest, u.call_id) AS prompt_digest)
FROM unmatched u LEFT JOIN last_attempts h ON h.call_id = u.call_id
UNION ALL BY NAME
SELECT h.span_id AS call_id, u.trace_id, u.span_id, u.parent_span_id, 'span' AS source, u.provider, u.operation,
       u.request_model, u.stream, coalesce(u.prompt_digest, u.call_id) AS prompt_digest, h.start_time, h.duration_ms,
       h.start_time + CAST(h.duration_ms * 1e6 AS BIGINT) AS end_time, h.status_code, h.attempt - 1 AS retry_count,
       CASE WHEN h.status_code = 429 THEN 'rate_limit' WHEN h.status_code >= 500 THEN 'server_error'
            ELSE coalesce(h.error_type, 'connection') END AS error_type
FROM http_attempts h JOIN unmatched u ON u.call_id = h.call_id
WHERE h.attempt < h.attempts
"""


def build(recording: Recording) -> None:
    """Make the temporary table ``joined_calls``: one row per attempt, all ``llm_calls`` columns and ``end_time``."""
    recording.refresh().execute(_CALLS)
