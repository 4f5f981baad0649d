"""What each model call cost: every call once, at the price of its own model, time and tier.

Rates are looked up once for each provider, pair of models, tier, operation and quarter of an hour (prices change at
midnight UTC or, off-peak, at a quarter hour), and multiplied in SQL. A call without a known price or without token
counts has no cost (NULL) and stands in :func:`unpriced`; it is never taken for free. Free are calls that failed
before the provider counted a token, those answered by a cache in front of the provider, those of models whose price is
zero, and OpenAI's moderation (https://platform.openai.com/docs/guides/moderation).
"""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from perfnb.attribution import HOW_TO_SEE_CALLS, observed_seconds, prepare, request_count
from perfnb.errors import NotMeasured
from perfnb.prices import Prices, Rates
from perfnb.recording import Recording

QUARTER_HOUR_NS = 900_000_000_000
DAY_S = 86_400
DAYS_OF_MONTH = 30

PARTS = ("input_usd", "cache_read_usd", "cache_write_usd", "output_usd", "request_usd")

_FREE = """(b.operation = 'models' OR b.answered_by = 'cache' OR (b.counts_nothing AND b.is_failed)
            OR (b.operation = 'moderation' AND b.provider = 'openai')
            OR (r.input_rate = 0 AND r.output_rate = 0 AND r.request_rate = 0))"""

# The provider's own word on one-hour cache entries, which cost more; only Anthropic tells.
_ONE_HOUR = "TRY_CAST(json_extract_string(c.attributes, '$.usage.cache_creation.ephemeral_1h_input_tokens') AS BIGINT)"

_BILLED = f"""
CREATE OR REPLACE TEMP TABLE billed_calls AS
SELECT o.*, c.provider, c.response_model, c.service_tier, c.arm, c.answered_by, c.input_tokens, c.cache_read_tokens,
       c.cache_write_tokens, CASE WHEN c.cache_write_tokens > 0 THEN {_ONE_HOUR} END AS cache_write_1h_tokens,
       c.output_tokens, c.reasoning_tokens, c.tokens_estimated,
       c.input_tokens IS NULL AND c.output_tokens IS NULL AS counts_nothing,
       o.error_type IS NOT NULL OR coalesce(o.status_code, 0) >= 400 AS is_failed,
       CAST(floor(o.start_time / {QUARTER_HOUR_NS}) AS BIGINT) AS quarter_hour
FROM owned_calls o LEFT JOIN llm_calls c ON c.call_id = o.call_id
"""

_KEYS = ("provider", "response_model", "request_model", "service_tier", "operation", "quarter_hour")
_TO_PRICE = f"SELECT DISTINCT {', '.join(_KEYS)} FROM billed_calls ORDER BY ALL"
_SAME = " AND ".join(f"b.{key} IS NOT DISTINCT FROM r.{key}" for key in _KEYS)

_PRICED = f"""
CREATE OR REPLACE TEMP TABLE priced_calls AS
WITH counted AS (
    SELECT b.* EXCLUDE (counts_nothing, is_failed, quarter_hour, cache_write_1h_tokens),
           {_FREE} AS is_free, b.counts_nothing, r.source AS found_at,
           greatest(coalesce(input_tokens, 0) - coalesce(cache_read_tokens, 0) - coalesce(cache_write_tokens, 0), 0)
               * r.input_rate AS input_part,
           coalesce(cache_read_tokens, 0) * r.cache_read_rate AS cache_read_part,
           (coalesce(cache_write_tokens, 0) - least(coalesce(cache_write_1h_tokens, 0), cache_write_tokens))
               * r.cache_write_rate
               + least(coalesce(cache_write_1h_tokens, 0), cache_write_tokens) * r.cache_write_1h_rate
               AS cache_write_part,
           greatest(coalesce(output_tokens, 0) - coalesce(reasoning_tokens, 0), 0) * r.output_rate
               + least(coalesce(reasoning_tokens, 0), coalesce(output_tokens, 0)) * r.reasoning_rate AS output_part,
           r.request_rate AS request_part,
           coalesce(cache_read_tokens, 0) * (r.input_rate - r.cache_read_rate) AS read_saved,
           coalesce(cache_write_tokens, 0) * r.input_rate AS written_plain
    FROM billed_calls b LEFT JOIN rate_bands r
      ON {_SAME} AND coalesce(b.input_tokens, 0) > r.above_tokens AND coalesce(b.input_tokens, 0) <= r.up_to_tokens
)
SELECT * EXCLUDE (is_free, counts_nothing, found_at, input_part, cache_read_part, cache_write_part, output_part,
                  request_part, read_saved, written_plain),
       CASE WHEN is_free THEN 0 WHEN NOT counts_nothing
            THEN input_part + cache_read_part + coalesce(cache_write_part, 0) + output_part + request_part
            END AS cost_usd,
       CASE WHEN is_free THEN 0 WHEN NOT counts_nothing THEN input_part END AS input_usd,
       CASE WHEN is_free THEN 0 WHEN NOT counts_nothing THEN cache_read_part END AS cache_read_usd,
       CASE WHEN is_free THEN 0 WHEN NOT counts_nothing AND input_part IS NOT NULL
            THEN coalesce(cache_write_part, 0) END AS cache_write_usd,
       CASE WHEN is_free THEN 0 WHEN NOT counts_nothing THEN output_part END AS output_usd,
       CASE WHEN is_free THEN 0 WHEN NOT counts_nothing THEN request_part END AS request_usd,
       CASE WHEN is_free THEN 0 WHEN NOT counts_nothing
            THEN read_saved + written_plain - coalesce(cache_write_part, 0) END AS cache_saved_usd,
       CASE WHEN answered_by = 'cache' THEN 'answered by a cache' WHEN is_free THEN 'not billed'
            WHEN counts_nothing THEN 'no token counts' ELSE coalesce(found_at, 'no price known') END AS price_source
FROM counted
"""


def prepare_money(recording: Recording, prices: Prices | None = None) -> Recording:
    """Make the temporary table ``priced_calls`` and return ``recording``.

    Its columns are those of ``owned_calls``, then provider, response_model, service_tier, arm, answered_by, the token
    counts, and cost_usd, input_usd, cache_read_usd, cache_write_usd, output_usd, request_usd (the parts of cost_usd;
    all NULL for a call without a price), cache_saved_usd (what reading the provider's cache saved over plain input, less
    what writing it cost more) and price_source. ``prices`` are perfnb.toml's and the recording's unless given.
    """
    prices = prices or prices_of(recording)
    with recording.held():
        made: dict[str, Prices] = prepare(recording).derived("priced calls", dict)
        if made.get("prices") != prices:
            _build(recording, prices)
            made["prices"] = prices
    return recording


def prices_of(recording: Recording) -> Prices:
    """Return the prices that hold for ``recording``: perfnb.toml's, its own, then the list's."""
    return Prices.load(recorded=recording.manifest.get("prices") or ())


def priced_calls(recording: Recording, prices: Prices | None = None) -> pd.DataFrame:
    """Return one row per attempt at a model call with its dollars, by start; see :func:`prepare_money`."""
    return prepare_money(recording, prices).query("SELECT * FROM priced_calls ORDER BY start_time, call_id")


def unpriced(recording: Recording, prices: Prices | None = None) -> pd.DataFrame:
    """Return the calls nobody can price, by model: provider, model, calls, tokens, reason; most tokens first.

    Such calls are in no sum of dollars. ``model`` is the path where a call named no model.
    """
    return prepare_money(recording, prices).query(
        """
        SELECT provider, coalesce(response_model, request_model, path) AS model, count(*) AS calls,
               CAST(coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), 0) AS BIGINT) AS tokens,
               price_source AS reason
        FROM priced_calls WHERE cost_usd IS NULL
        GROUP BY provider, coalesce(response_model, request_model, path), price_source
        ORDER BY tokens DESC, calls DESC, model, provider
        """
    )


def spent_usd(recording: Recording, prices: Prices | None = None) -> float:
    """Return the dollars of all calls that have a price."""
    total = prepare_money(recording, prices).query("SELECT coalesce(sum(cost_usd), 0) AS usd FROM priced_calls")
    return float(total["usd"].iloc[0])


@dataclass(frozen=True)
class Projection:
    """What goes on being spent if nothing changes; ``assumption`` says in words what that rests on."""

    usd_per_day: float
    usd_per_month: float
    assumption: str


def projection(recording: Recording, usd: float | None = None) -> Projection:
    """Return what ``usd``, or all that was spent, comes to a day and a month at the recorded rate.

    Raises NotMeasured where nothing was observed over time.
    """
    seconds = observed_seconds(prepare(recording))
    if seconds <= 0:
        raise NotMeasured("nothing was observed over time", hint=HOW_TO_SEE_CALLS)
    spent = spent_usd(recording) if usd is None else usd
    a_day = spent / seconds * DAY_S
    return Projection(a_day, a_day * DAYS_OF_MONTH, _assumption(recording, seconds))


def per_request_usd(recording: Recording, usd: float) -> float | None:
    """Return ``usd`` for each user request; None without requests."""
    count = request_count(recording)
    return usd / count if count else None


def per_day_usd(recording: Recording, usd: float) -> float | None:
    """Return what ``usd``, spent in this recording, comes to a day at the recorded rate; None without a duration."""
    try:
        return projection(recording, usd).usd_per_day
    except NotMeasured:
        return None


def share_of_spend(recording: Recording, usd: float) -> float:
    """Return ``usd`` as a part (0 to 1) of all that was spent."""
    spent = spent_usd(recording)
    return min(1.0, max(0.0, usd) / spent) if spent > 0 else 0.0


def _assumption(recording: Recording, seconds: float) -> str:
    requests = prepare(recording).query(
        "SELECT count(*) AS n, count(*) FILTER (WHERE source = 'probe') AS own FROM user_requests"
    )
    count, own = int(requests["n"].iloc[0]), int(requests["own"].iloc[0])
    told = f"as in the {_length(seconds)} recorded ({count:,} requests), day and night, {DAYS_OF_MONTH} days a month"
    return told + (f"; {own:,} of the requests were sent by perfnb's probe, not by users" if own else "")


def _length(seconds: float) -> str:
    for unit, size in (("days", DAY_S), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def _build(recording: Recording, prices: Prices) -> None:
    connection = recording.refresh()
    connection.execute(_BILLED)
    to_price = connection.execute(_TO_PRICE).fetchall()
    connection.register("rate_rows", _rate_rows(to_price, prices))
    connection.execute("CREATE OR REPLACE TEMP TABLE rate_bands AS SELECT * FROM rate_rows")
    connection.unregister("rate_rows")
    connection.execute(_PRICED)
    connection.execute("DROP TABLE billed_calls")


def _rate_rows(to_price: list[tuple[Any, ...]], prices: Prices) -> pd.DataFrame:
    rows = []
    for key in to_price:
        provider, response, request, tier, operation, quarter = key
        bands = prices.rates(
            provider, response, at_ns=quarter * QUARTER_HOUR_NS, tier=tier, operation=operation, asked_for=request
        )
        ends = [*(each.from_tokens for each in bands[1:]), math.inf]
        rows += [(*key, *_rate_row(each, end)) for each, end in zip(bands, ends, strict=bool(bands))]
    text, number = dict.fromkeys(_KEYS[:-1], "string"), dict.fromkeys((*_RATES, "above_tokens", "up_to_tokens"), float)
    frame = pd.DataFrame(rows, columns=[*_KEYS, *_RATES, "above_tokens", "up_to_tokens", "source"])
    return frame.astype(text | number | {"quarter_hour": "int64", "source": "string"})


_RATES = (
    "input_rate",
    "cache_read_rate",
    "cache_write_rate",
    "cache_write_1h_rate",
    "output_rate",
    "reasoning_rate",
    "request_rate",
)


def _rate_row(rates: Rates, end: float) -> tuple[Any, ...]:
    hour, reasoning = rates.cache_write_1h_usd, rates.reasoning_usd
    return (
        rates.input_usd,
        rates.cache_read_usd,
        rates.cache_write_usd,
        rates.cache_write_usd if hour is None else hour,
        rates.output_usd,
        rates.output_usd if reasoning is None else reasoning,
        rates.request_usd,
        rates.from_tokens or -1,  # the first band holds calls without any input too
        end,
        rates.source,
    )
