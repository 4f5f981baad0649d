"""Which calls nobody waits for, and what they would cost at the price of the batch tier."""

import numpy as np
import pandas as pd

from perfnb.areas.dollars import spending
from perfnb.attribution import observed, prepare, sees_requests
from perfnb.attribution.money import prices_of
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording

CHEAP_TIERS = ("batch", "flex")
USUAL_DISCOUNT = 0.5
"""What OpenAI, Anthropic, Google, Azure, Bedrock, Mistral and Groq take off for batches (their price pages, 2026); used
where the price list knows no batch price for a model."""


def unattended(
    recording: Recording, *, min_unowned: float = 0.1, least_unowned: int = 5, least_calls: int = 15
) -> pd.DataFrame:
    """Return the calls of kinds that no user request waits for, with ``owned`` (whether one may have waited).

    Where requests and calls carry traces, a call in a trace without a request has nobody waiting. Else a call within a
    request's time may belong to it by chance, so whole kinds are judged: those of which a fair part ran while no
    request was open, or outlived it. Either way the kind must follow itself back to back, as a loop's calls do.
    """
    spent = spending(recording)
    calls = spent.calls
    calls = calls[calls["operation"].isin({*spent.answers["operation"], "embeddings"}) & calls["error_type"].isna()]
    calls = calls[~calls["service_tier"].fillna("").isin(CHEAP_TIERS) & calls["answered_by"].isna()]
    calls = calls[~calls["call_id"].isin(_warming_up(recording))]
    kept, lone = [], _lone_traces(recording)
    for _, group in calls.groupby("kind"):
        unowned = group["request_id"].isna() | group["trace_id"].isin(lone)
        is_seen_alone = unowned.sum() >= least_unowned and unowned.mean() >= min_unowned
        if len(group) >= least_calls and is_seen_alone and follows_itself(group):
            kept.append(group.assign(owned=~unowned))
    return pd.concat(kept) if kept else calls.head(0).assign(owned=False)


# Only where requests and calls are traced together at all does a trace without a request mean anything.
_LONE_TRACES = """
WITH traced AS (SELECT DISTINCT trace_id FROM user_requests WHERE trace_id IS NOT NULL AND source <> 'call')
SELECT DISTINCT trace_id FROM owned_calls
WHERE trace_id NOT IN (SELECT trace_id FROM traced)
  AND EXISTS (SELECT 1 FROM owned_calls WHERE trace_id IN (SELECT trace_id FROM traced))
  AND (SELECT count(trace_id) FROM user_requests) >= 0.9 * (SELECT count(*) FROM user_requests)
"""


def _lone_traces(recording: Recording) -> set[str]:
    """Return the traces that hold model calls and no user's request."""
    return set(prepare(recording).query(_LONE_TRACES)["trace_id"])


_WARMING_UP = """
SELECT c.call_id FROM owned_calls c JOIN observed_http_requests r
  ON c.start_time BETWEEN r.start_time AND r.start_time + CAST(r.duration_ms * 1e6 AS BIGINT)
WHERE r.phase = 'warm-up' AND c.request_id IS NULL
"""


def _warming_up(recording: Recording) -> set[str]:
    """Return the calls made for a probe's first requests, which count for nothing."""
    return set(observed(prepare(recording)).query(_WARMING_UP)["call_id"])


def follows_itself(calls: pd.DataFrame, *, most: float = 0.25) -> bool:
    """Tell whether calls start as soon as one of their own kind ends, as a loop's do and users' do not.

    The time from the last end to the next start is compared with the time between ends: chance gives about 0.7.
    """
    ends = np.sort(calls["end_time"].to_numpy(np.int64))
    starts = np.sort(calls["start_time"].to_numpy(np.int64))
    before = np.searchsorted(ends, starts, side="right") - 1
    after_one = before >= 0
    if after_one.sum() < len(calls) / 2 or len(ends) < 2 or ends[-1] == ends[0]:
        return False
    gaps = starts[after_one] - ends[before[after_one]]
    usual = (ends[-1] - ends[0]) / (len(ends) - 1)
    return bool(np.median(gaps) <= most * usual)


@check("bulk-at-full-price", area="costs")
def bulk_at_full_price(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.05, least_calls: int = 15
) -> Finding | Clear:
    """Many calls that nobody waits for are made at the price of calls that somebody does (R100).

    Source: platform.openai.com/docs/guides/batch; docs.anthropic.com, Message Batches; ai.google.dev, Batch API
    """
    if not sees_requests(recording):
        raise NotMeasured(
            "whether a user waits for a call can't be told without the users' requests",
            hint="requests: perfnb record --listen PORT --app URL, or --otlp",
        )
    spent = spending(recording)
    calls = unattended(recording, least_calls=least_calls)
    if calls.empty:
        return Clear(f"0 of {len(spent.calls)} calls are of a kind that runs back to back without users' requests")
    off = calls["kind"].map({kind: _discount(recording, group) for kind, group in calls.groupby("kind")})
    saved = float((calls["cost"] * off).sum())
    if spent.share(saved) < min_share:
        return Clear(
            f"{len(calls)} calls wait for nobody; the batch tier would save {spent.share(saved):.0%} of the dollars"
        )
    part = spent.share(float(calls["cost"].sum()))
    return spent.finding(
        saved,
        miss=1 + 2 * part,
        title=f"{len(calls)} calls that nobody waits for are paid at full price",
        evidence=(
            f"they follow one another back to back, {(~calls['owned']).sum()} of them outside every user's request (in time or by trace); they are {part:.0%} of the dollars",
            f"{calls['input_tokens'].median():,.0f} input and {calls['output_tokens'].median():,.0f} output tokens each (medians), model {', '.join(sorted(calls['model'].dropna().unique()))}",
            f"the batch tier takes {off.max():.0%} off and answers within a day",
        ),
        remedy="Collect such jobs and send them through the provider's batch API, or ask for the flex tier where minutes matter.",
        effort="medium",
        figure="spend_over_time",
        estimate=spent.estimate(saved, saved, ("all of these calls can wait for a batch",), ("waiting up to a day",)),
        frame=calls[["call_id", "model", "owned", "input_tokens", "output_tokens", "cost"]].head(50),
        exemplars=tuple(calls["trace_id"].dropna().head(3)),
    )  # fmt: skip


def _discount(recording: Recording, calls: pd.DataFrame) -> float:
    """Return the part of the price that the batch tier takes off for one kind of call."""
    last = calls.iloc[-1]
    prices, at_ns = prices_of(recording), int(last["start_time"])
    plain, batch = (prices.rates(last["provider"], last["model"], tier=tier, at_ns=at_ns) for tier in (None, "batch"))
    if plain and batch and 0 < batch[0].input_usd < plain[0].input_usd:
        return 1 - batch[0].input_usd / plain[0].input_usd
    return USUAL_DISCOUNT
