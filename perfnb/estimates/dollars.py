"""What calls would have cost with other tokens, another model or another tier: at the rates of their own time."""

from typing import Any

import numpy as np
import pandas as pd

from perfnb.attribution.money import QUARTER_HOUR_NS
from perfnb.estimates.traffic import Traffic
from perfnb.prices import Rates

CACHE_FROM_TOKENS = 1024
CACHE_STEP_TOKENS = 128
"""OpenAI's prompt caching: prompts of 1,024 tokens up, in steps of 128. Source: platform.openai.com/docs/guides/prompt-caching"""

_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")


def usd_with(traffic: Traffic, calls: pd.DataFrame, **tokens: pd.Series) -> pd.Series:
    """Return what ``calls`` would have cost with other ``tokens``; NaN where a call has no price.

    The difference at list rates is applied to what each call did cost, so that equal tokens cost exactly the same.
    """
    before, after = _listed(traffic, calls), _listed(traffic, calls.assign(**tokens))
    return (calls["cost_usd"] + after - before).clip(lower=0.0).where(calls["cost_usd"] != 0, 0.0)


def usd_as(
    traffic: Traffic,
    calls: pd.DataFrame,
    *,
    model: str | None = None,
    tier: str | None = None,
    reads_cache: bool = True,
) -> pd.Series:
    """Return what ``calls`` would have cost with ``model`` or in ``tier``; NaN where that has no price."""
    changed: dict[str, Any] = {"response_model": model, "request_model": model} if model else {}
    changed |= {"service_tier": tier} if tier else {}
    changed |= {} if reads_cache else {"cache_read_tokens": 0.0, "cache_write_tokens": 0.0}
    found = _listed(traffic, calls.assign(**changed))
    return found.where(calls["cost_usd"] != 0, 0.0)


def cacheable(tokens: pd.Series) -> pd.Series:
    """Return how many of a prompt's first ``tokens`` a provider's prefix cache can read."""
    return (tokens // CACHE_STEP_TOKENS * CACHE_STEP_TOKENS).where(tokens >= CACHE_FROM_TOKENS, 0.0)


def _listed(traffic: Traffic, calls: pd.DataFrame) -> pd.Series:
    keys = ["provider", "response_model", "request_model", "service_tier", "operation"]
    quarter = calls["start_time"] // QUARTER_HOUR_NS
    usd = pd.Series(np.nan, calls.index)
    for key, group in calls.groupby([*(calls[name].astype(object) for name in keys), quarter], dropna=False):
        provider, response, request, tier, operation = (None if pd.isna(each) else each for each in key[:-1])
        bands = traffic.prices.rates(
            provider,
            response,
            at_ns=int(key[-1]) * QUARTER_HOUR_NS,
            tier=tier,
            operation=operation,
            asked_for=request,
        )
        if bands:
            usd[group.index] = _cost(bands, group[list(_COUNTS)].fillna(0.0).to_numpy(float))
    return usd


def _cost(bands: tuple[Rates, ...], counts: np.ndarray) -> np.ndarray:
    given, output, read, written, reasoning = counts.T
    place = np.searchsorted([each.from_tokens for each in bands[1:]], given, side="left")
    rates = np.array([_row(each) for each in bands])[place]
    plain, per_read, per_write, per_output, per_thought, per_request = rates.T
    thought = np.minimum(reasoning, output)
    return np.asarray(
        np.maximum(given - read - written, 0) * plain
        + read * per_read
        + written * per_write
        + (output - thought) * per_output
        + thought * per_thought
        + per_request
    )


def _row(rates: Rates) -> tuple[float, ...]:
    thought = rates.output_usd if rates.reasoning_usd is None else rates.reasoning_usd
    return rates.input_usd, rates.cache_read_usd, rates.cache_write_usd, rates.output_usd, thought, rates.request_usd
