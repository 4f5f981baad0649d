"""Are a call's attempts seen, or does its client try again where nothing shows it?

The proxy sees each attempt. A span of a client library covers all of a call's attempts and the waits between them,
and tells of none; only HTTP client spans below or beside it do.
"""

import pandas as pd

from perfnb.attribution import prepare
from perfnb.errors import NotMeasured
from perfnb.finding import Clear
from perfnb.recording import Recording

HOW_TO_SEE_ATTEMPTS = (
    "attempts at model calls: perfnb record --upstream URL, or traces of the HTTP client beside GenAI spans"
)

# Where so many of a provider's or a model's calls went through the proxy or have an HTTP span, a call without either made no request
# (a cache in front of the client answered). So many hidden calls of all keep "none" from being known.
INSTRUMENTED = 0.2
TOO_MANY = 0.2

SOONEST_RETRY_MS = 375
"""The shortest wait before another attempt that clients choose by themselves (openai, anthropic: 0.5 s less a quarter)."""

_RATE = r"rate.?limit|too.?many.?requests|throttl|resource.?exhausted|^429$"

# Spans below a call are attempts that are counted. One beside it, within its time, shows that there was one; where
# such a one failed there were more, which no row tells.
_HIDDEN = """
WITH calls AS (SELECT call_id, request_id, trace_id, span_id, provider, request_model, source, start_time, end_time, duration_ms,
                      time_to_first_token_ms FROM model_calls),
http AS (SELECT trace_id, parent_span_id, start_time, start_time + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT) AS end_time,
                coalesce(http_status_code >= 400, false) OR error_type IS NOT NULL AS is_failed
         FROM observed_spans WHERE operation = 'http' AND kind = 'CLIENT'),
seen AS (SELECT c.call_id, bool_or(h.parent_span_id = c.span_id) AS is_below,
                bool_or(h.is_failed AND h.parent_span_id IS DISTINCT FROM c.span_id) AS is_failed_beside
         FROM calls c JOIN http h ON c.source = 'span' AND h.trace_id = c.trace_id AND (h.parent_span_id = c.span_id OR
              (h.start_time >= c.start_time - 5000000 AND h.end_time <= c.end_time + 5000000))
         GROUP BY c.call_id),
told AS (SELECT c.*, c.source <> 'span' OR s.call_id IS NOT NULL AS is_shown,
                coalesce(s.is_failed_beside AND NOT coalesce(s.is_below, false), false) AS is_failed_beside
         FROM calls c LEFT JOIN seen s USING (call_id)),
providers AS (SELECT coalesce(provider, '') AS name, avg(CAST(is_shown AS INTEGER)) AS part FROM told GROUP BY name),
models AS (SELECT coalesce(request_model, '') AS name, avg(CAST(is_shown AS INTEGER)) AS part FROM told GROUP BY name)
SELECT t.call_id, t.request_id, t.trace_id, t.duration_ms, t.time_to_first_token_ms
FROM told t JOIN providers p ON p.name = coalesce(t.provider, '') JOIN models m ON m.name = coalesce(t.request_model, '')
WHERE t.is_failed_beside OR (NOT t.is_shown AND p.part < $instrumented AND m.part < $instrumented)
ORDER BY t.start_time, t.call_id
"""


def hidden_calls(recording: Recording) -> pd.DataFrame:
    """Return the model calls whose attempts nothing counts: call_id, request_id, trace_id, duration_ms, time_to_first_token_ms."""

    def build() -> pd.DataFrame:
        return prepare(recording).query(_HIDDEN, {"instrumented": INSTRUMENTED})

    frame: pd.DataFrame = recording.derived("hidden calls", build)
    return frame


def unless_hidden(recording: Recording, clear: Clear) -> Clear:
    """Return ``clear``, with what it could not see; raises NotMeasured where that is a fifth of the calls or more."""
    hidden = len(hidden_calls(recording))
    if not hidden:
        return clear
    calls = int(prepare(recording).query("SELECT count(*) AS n FROM model_calls")["n"].iloc[0])
    if hidden >= TOO_MANY * calls:
        raise NotMeasured(f"attempts within {hidden} of {calls} calls are not seen", hint=HOW_TO_SEE_ATTEMPTS)
    return Clear(f"{clear.examined}; attempts within {hidden} of {calls} calls are not seen")


def is_rate_limit(errors: pd.Series) -> pd.Series:
    """Return which error types name a rate limit, in whatever library's words."""
    return errors.fillna("").astype(str).str.contains(_RATE, case=False, regex=True)


# Of the spans that tell the error, the innermost says whose it is: not a tool's or a store's own limit. An HTTP request
# is the call's where it lies within a call's time.
_MET = """
WITH told AS (
    SELECT trace_id, span_id, parent_span_id, operation, start_time,
           start_time + CAST(coalesce(duration_ms, 0) * 1e6 AS BIGINT) AS end_time
    FROM observed_spans WHERE trace_id IS NOT NULL
     AND (http_status_code = 429 OR regexp_matches(coalesce(error_type, ''), $rate, 'i'))
),
innermost AS (
    SELECT * FROM told t WHERE NOT EXISTS (
        SELECT 1 FROM told i WHERE i.trace_id = t.trace_id AND i.parent_span_id = t.span_id)
)
SELECT DISTINCT m.request_id FROM model_calls m JOIN innermost i ON i.trace_id = m.trace_id
WHERE m.request_id IS NOT NULL AND m.call_id IN (SELECT call_id FROM hidden_now)
  AND (i.operation IN ('agent', 'step', 'server', 'chat', 'text_completion', 'embeddings')
       OR (i.operation = 'http' AND i.start_time >= m.start_time - 5000000 AND i.end_time <= m.end_time + 5000000))
"""


def rate_limited_requests(recording: Recording) -> list[str]:
    """Return the requests with hidden attempts that spans above or beside their calls say met a rate limit."""
    hidden = hidden_calls(recording)
    if hidden.empty:
        return []
    connection = prepare(recording).refresh()
    connection.register("hidden_now", hidden[["call_id"]])
    frame = connection.execute(_MET, {"rate": _RATE}).df()
    connection.unregister("hidden_now")
    return sorted(frame["request_id"])
