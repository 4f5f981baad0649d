"""Where the money goes: by model, route, user, stage and time, what the provider's cache saves, and what it comes to.

Every frame's dollars are of calls that have a price; ``unpriced_calls`` stands beside them wherever calls are added up,
and :func:`unpriced` lists them. A call counts once, however many sources saw it.
"""

import pandas as pd

from perfnb.attribution import FAILED, HOW_TO_SEE_CALLS, observed_seconds
from perfnb.attribution.money import (
    PARTS,
    Projection,
    prepare_money,
    priced_calls,
    prices_of,
    projection,
    spent_usd,
    unpriced,
)
from perfnb.errors import NotMeasured, WrongUse
from perfnb.recording import Recording

__all__ = [
    "ATTRIBUTES",
    "Projection",
    "attributes_seen",
    "overview",
    "price_sources",
    "price_version",
    "priced_calls",
    "projection",
    "prompt_cache",
    "request_costs",
    "spend_by_attribute",
    "spend_by_model",
    "spend_by_route",
    "spend_by_stage",
    "spend_over_time",
    "spend_per_request",
    "spent_usd",
    "unpriced",
]

ATTRIBUTES = (
    "user.id",
    "enduser.id",
    "session.id",
    "gen_ai.conversation.id",
    "tenant.id",
    "customer.id",
    "langfuse.user.id",
    "langfuse.session.id",
    "traceloop.association.properties.user_id",
    "traceloop.association.properties.session_id",
)
"""Span attributes that tell for whom a call was made; the first that is present is the default."""

CONVERSATION = "conversation"
"""Stands for the conversation id that came with the calls themselves, hashed."""

POINTS = 60
BUCKETS_S = (1, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 86_400)

_SUMS = """
count(*) AS calls, count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced_calls, coalesce(sum(cost_usd), 0) AS cost_usd
"""


def overview(recording: Recording) -> pd.DataFrame:
    """Return one row: the recording's money at a glance.

    Columns: those of :func:`spend_per_request`, and seconds (observed), usd_per_day, usd_per_month (null where nothing
    was observed over time), assumption (what these rest on, in words), input_tokens, cache_read_tokens, saved_usd (by
    the provider's cache). Raises NotMeasured without model calls.
    """
    frame = spend_per_request(recording)
    if not frame["calls"].iloc[0]:
        raise NotMeasured("no model calls", hint=HOW_TO_SEE_CALLS)
    cache = prompt_cache(recording)[["input_tokens", "cache_read_tokens", "saved_usd"]].sum()
    frame = frame.assign(seconds=observed_seconds(recording), **cache)
    try:
        ahead = projection(recording)
    except NotMeasured:
        return frame.assign(usd_per_day=None, usd_per_month=None, assumption="")
    return frame.assign(usd_per_day=ahead.usd_per_day, usd_per_month=ahead.usd_per_month, assumption=ahead.assumption)


def spend_by_model(recording: Recording) -> pd.DataFrame:
    """Return what each model costs, dearest first.

    Columns: provider, model, calls, unpriced_calls, cost_usd, failed_calls, input_tokens, cache_read_tokens,
    output_tokens, reasoning_tokens (as the provider counted them), input_usd, cache_read_usd, cache_write_usd,
    output_usd, request_usd (the parts of cost_usd), usd_per_call, share (of all dollars, 0 to 1).
    """
    return _shared(
        recording,
        f"""
        SELECT provider, coalesce(response_model, request_model, path) AS model, {_SUMS},
               count(*) FILTER (WHERE error_type IS NOT NULL) AS failed_calls,
               {_tokens("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens")},
               {", ".join(f"coalesce(sum({part}), 0) AS {part}" for part in PARTS)}, avg(cost_usd) AS usd_per_call
        FROM priced_calls GROUP BY provider, coalesce(response_model, request_model, path)
        """,
        "model",
    )


def spend_by_route(recording: Recording) -> pd.DataFrame:
    """Return what requests of each route cost, dearest first.

    Columns: route (null: calls that belong to no request), requests, calls, unpriced_calls, cost_usd, usd_per_request,
    share.
    """
    frame = _shared(
        recording,
        f"""
        SELECT r.route, count(DISTINCT r.request_id) AS requests, count(c.call_id) AS calls,
               count(c.call_id) FILTER (WHERE c.cost_usd IS NULL) AS unpriced_calls,
               coalesce(sum(c.cost_usd), 0) AS cost_usd
        FROM user_requests r LEFT JOIN priced_calls c ON c.request_id = r.request_id GROUP BY r.route
        UNION ALL
        SELECT NULL AS route, 0 AS requests, {_SUMS} FROM priced_calls WHERE request_id IS NULL HAVING count(*) > 0
        """,
        "route",
    )
    return _per_request(frame)


def attributes_seen(recording: Recording) -> tuple[str, ...]:
    """Return which of :data:`ATTRIBUTES` spans carry, and ``conversation`` where calls carry an id of one."""
    prepare_money(recording)
    seen = recording.query(" UNION ALL ".join(_is_seen(name) for name in ATTRIBUTES))["name"]
    told = recording.query("SELECT 1 FROM model_calls WHERE conversation_id IS NOT NULL LIMIT 1")
    return (*(name for name in ATTRIBUTES if name in set(seen)), *(() if told.empty else (CONVERSATION,)))


def spend_by_attribute(recording: Recording, attribute: str | None = None) -> pd.DataFrame:
    """Return what each user, session, tenant … costs, dearest first.

    ``attribute`` is any span attribute, or ``conversation``; without one, the first of :func:`attributes_seen`. A trace
    belongs to the value on any of its spans. Columns: value (null: not told), requests, calls, unpriced_calls,
    cost_usd, usd_per_request, share. Raises NotMeasured where nothing tells for whom calls were made.
    """
    name = attribute or next(iter(attributes_seen(recording)), None)
    if name is None:
        raise NotMeasured(
            "no span tells for whom calls were made", hint="set user.id or session.id on a span: perfnb record --otlp"
        )
    if '"' in name or "'" in name:
        raise WrongUse(f"{name} is no attribute's name", hint=f"one like {ATTRIBUTES[0]}")
    frame = _shared(recording, _BY_CONVERSATION if name == CONVERSATION else _by_attribute(name), "value")
    return _per_request(frame)


def spend_by_stage(recording: Recording) -> pd.DataFrame:
    """Return what each step of the app spends: the nearest span above a call that is no call or HTTP itself.

    Columns: stage (the kind of call where no span tells), calls, unpriced_calls, cost_usd, share; dearest first.
    """
    return _shared(recording, _BY_STAGE, "stage")


def prompt_cache(recording: Recording) -> pd.DataFrame:
    """Return what the provider's prompt cache does for each model, most input first.

    Columns: model, calls, calls_with_reads, input_tokens, cache_read_tokens, cache_write_tokens, read_share (of input
    tokens), input_usd (of plain input), cache_read_usd, cache_write_usd, saved_usd (what reads saved less what writes
    cost more; negative where the cache costs more than it gives).
    """
    return prepare_money(recording).query(
        f"""
        SELECT coalesce(response_model, request_model, path) AS model, count(*) AS calls,
               count(*) FILTER (WHERE cache_read_tokens > 0) AS calls_with_reads,
               {_tokens("input_tokens", "cache_read_tokens", "cache_write_tokens")},
               coalesce(sum(cache_read_tokens), 0) / sum(input_tokens) AS read_share,
               sum(input_usd) AS input_usd, sum(cache_read_usd) AS cache_read_usd,
               sum(cache_write_usd) AS cache_write_usd, sum(cache_saved_usd) AS saved_usd
        FROM priced_calls WHERE input_tokens > 0 AND answered_by IS NULL
        GROUP BY coalesce(response_model, request_model, path) ORDER BY input_tokens DESC, model
        """
    )


def spend_per_request(recording: Recording) -> pd.DataFrame:
    """Return one row: what a request costs, and what an answered one does.

    Columns: requests, successful_requests, calls, unpriced_calls, cost_usd, usd_per_request,
    usd_per_successful_request (all dollars over the requests that succeeded), failed_usd (spent on requests that
    failed), requestless_usd (spent by calls of no request).
    """
    frame = prepare_money(recording).query(
        f"""
        WITH asked AS (SELECT request_id, coalesce({FAILED}, false) AS is_failed FROM user_requests)
        SELECT (SELECT count(*) FROM asked) AS requests, (SELECT count(*) FROM asked WHERE NOT is_failed)
                   AS successful_requests, {_SUMS},
               coalesce(sum(cost_usd) FILTER (WHERE a.is_failed), 0) AS failed_usd,
               coalesce(sum(cost_usd) FILTER (WHERE a.request_id IS NULL), 0) AS requestless_usd
        FROM priced_calls c LEFT JOIN asked a ON a.request_id = c.request_id
        """
    )
    for column, count in (("usd_per_request", "requests"), ("usd_per_successful_request", "successful_requests")):
        frame[column] = frame["cost_usd"] / frame[count].where(frame[count] > 0)
    return frame


def request_costs(recording: Recording) -> pd.DataFrame:
    """Return what each request cost, dearest first.

    Columns: request_id, route, start_time, duration_ms, is_failed, calls, unpriced_calls, cost_usd, input_tokens,
    output_tokens.
    """
    return prepare_money(recording).query(
        f"""
        WITH asked AS (SELECT request_id, route, start_time, duration_ms, coalesce({FAILED}, false) AS is_failed
                       FROM user_requests)
        SELECT a.request_id, a.route, a.start_time, a.duration_ms, a.is_failed, count(c.call_id) AS calls,
               count(c.call_id) FILTER (WHERE c.cost_usd IS NULL) AS unpriced_calls,
               coalesce(sum(c.cost_usd), 0) AS cost_usd, {_tokens("input_tokens", "output_tokens")}
        FROM asked a LEFT JOIN priced_calls c ON c.request_id = a.request_id
        GROUP BY ALL ORDER BY cost_usd DESC, a.start_time, a.request_id
        """
    )


def spend_over_time(recording: Recording, bucket_s: int | None = None) -> pd.DataFrame:
    """Return dollars and calls in equal steps of time, about 60 unless ``bucket_s`` tells their length in seconds.

    Columns: time (start of the step, ns since 1970), seconds, calls, unpriced_calls, cost_usd, usd_per_hour (what the
    step comes to), total_usd (running). Steps without calls are left out.
    """
    window = prepare_money(recording).query(
        "SELECT min(start_time) AS first, max(start_time) AS last FROM priced_calls"
    )
    if window["first"].isna().iloc[0]:
        raise NotMeasured("no model calls", hint=HOW_TO_SEE_CALLS)
    seconds = float(window["last"].iloc[0] - window["first"].iloc[0]) / 1e9
    step = bucket_s or next((each for each in BUCKETS_S if seconds / each <= POINTS), BUCKETS_S[-1])
    if step <= 0:
        raise WrongUse(f"a step of {step} s is no step", hint="give a number of seconds above 0")
    frame = recording.query(
        f"""
        SELECT CAST(floor(start_time / {step * 10**9}) AS BIGINT) * {step * 10**9} AS time, {_SUMS}
        FROM priced_calls GROUP BY CAST(floor(start_time / {step * 10**9}) AS BIGINT) ORDER BY time
        """
    )
    return frame.assign(
        seconds=step, usd_per_hour=frame["cost_usd"] * 3600 / step, total_usd=frame["cost_usd"].cumsum()
    )


def price_sources(recording: Recording) -> pd.DataFrame:
    """Return where prices came from and what was assumed: source, calls, cost_usd; most dollars first."""
    return prepare_money(recording).query(
        """
        SELECT price_source AS source, count(*) AS calls, coalesce(sum(cost_usd), 0) AS cost_usd
        FROM priced_calls GROUP BY price_source ORDER BY cost_usd DESC, calls DESC, source
        """
    )


def price_version(recording: Recording) -> str:
    """Return which price list was used and how old it is, for reports."""
    return prices_of(recording).version


def _shared(recording: Recording, sql: str, name: str) -> pd.DataFrame:
    """Return ``sql``'s rows with their share of all dollars, dearest first."""
    frame = prepare_money(recording).query(f"SELECT * FROM ({sql}) ORDER BY cost_usd DESC, calls DESC, {name}")
    total = frame["cost_usd"].sum()
    return frame.assign(share=frame["cost_usd"] / total if total else 0.0)


def _per_request(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(usd_per_request=frame["cost_usd"] / frame["requests"].where(frame["requests"] > 0))


def _tokens(*names: str) -> str:
    billed = "FILTER (WHERE answered_by IS NULL)"  # what our cache answers reaches no provider
    return ", ".join(f"CAST(coalesce(sum({name}) {billed}, 0) AS BIGINT) AS {name}" for name in names)


def _value(name: str) -> str:
    return f"json_extract_string(attributes, '$.\"{name}\"')"


def _is_seen(name: str) -> str:
    found = f"SELECT 1 FROM observed_spans WHERE {_value(name)} IS NOT NULL"
    return f"SELECT '{name}' AS name WHERE EXISTS ({found})"


def _by_attribute(name: str) -> str:
    return f"""
    SELECT w.value, count(DISTINCT c.request_id) AS requests, {_SUMS}
    FROM priced_calls c LEFT JOIN (
        SELECT trace_id, min({_value(name)}) AS value FROM observed_spans WHERE {_value(name)} IS NOT NULL
        GROUP BY trace_id) w ON w.trace_id = c.trace_id
    GROUP BY w.value
    """


_BY_CONVERSATION = f"""
SELECT l.conversation_id AS value, count(DISTINCT c.request_id) AS requests, {_SUMS}
FROM priced_calls c LEFT JOIN llm_calls l ON l.call_id = c.call_id GROUP BY l.conversation_id
"""

# Clients' own spans stand between a call and the step that made it; three of them are as deep as instrumentations go.
_NO_STAGE = "('chat', 'text_completion', 'responses', 'generate_content', 'embeddings', 'http')"
_BY_STAGE = f"""
WITH above AS (SELECT trace_id, span_id, parent_span_id, name, operation IN {_NO_STAGE} AS is_passed
               FROM observed_spans),
named AS (
    SELECT c.call_id, CASE WHEN NOT a.is_passed THEN a.name WHEN NOT b.is_passed THEN b.name
                           WHEN NOT d.is_passed THEN d.name END AS stage
    FROM priced_calls c LEFT JOIN above a ON a.trace_id = c.trace_id AND a.span_id = c.parent_span_id
    LEFT JOIN above b ON b.trace_id = a.trace_id AND b.span_id = a.parent_span_id
    LEFT JOIN above d ON d.trace_id = b.trace_id AND d.span_id = b.parent_span_id
)
SELECT coalesce(n.stage, c.operation) AS stage, {_SUMS}
FROM priced_calls c JOIN named n ON n.call_id = c.call_id GROUP BY coalesce(n.stage, c.operation)
"""
