"""The provider's cheaper tiers, for calls that nobody waits for."""

import pandas as pd

from perfnb.attribution import GENERATING, sees_requests
from perfnb.errors import NotMeasured
from perfnb.estimates.change import Parameter, Prediction, change
from perfnb.estimates.dollars import usd_as
from perfnb.estimates.effects import Outcome, effects, priced_note
from perfnb.estimates.traffic import traffic
from perfnb.recording import Recording

USUAL_PART = 0.5
"""Part of the price that OpenAI, Anthropic, Google, Azure, Bedrock and Mistral take for batches (their price pages,
2026); used where the price list knows no such price for a model."""
MIN_UNOWNED = 0.25
"""Part of a kind of call that must run outside requests for the rest of its kind to count as background too."""


@change(
    "batch_tier",
    title="Send calls that nobody waits for as batches",
    causes=("bulk-at-full-price",),
    parameters=(Parameter("tier", "Tier", "batch", choices=("batch", "flex")),),
)
def batch_tier(recording: Recording, *, tier: str) -> Prediction:
    """Return what a cheaper tier would have done to the bill; users' requests are left alone.

    Source: platform.openai.com/docs/guides/batch; docs.anthropic.com, Message Batches; ai.google.dev, Batch API
    """
    if not sees_requests(recording):
        raise NotMeasured(
            "whether a user waits for a call can't be told without the users' requests",
            hint="requests: perfnb record --listen PORT --app URL, or --otlp",
        )
    seen = traffic(recording)
    if not seen.is_priced:
        raise NotMeasured("none of the calls has a known price", hint="[[price]] in perfnb.toml")
    calls = seen.calls[seen.calls["operation"].isin((*GENERATING, "embeddings")) & seen.calls["error_type"].isna()]
    calls = calls[~calls["service_tier"].fillna("").isin(("batch", "flex")) & calls["answered_by"].isna()]
    unowned = calls["request_id"].isna()
    kind = calls["operation"] + "|" + calls["model"].fillna("") + "|" + calls["tools_offered"].fillna(0).astype(str)
    likely = unowned | (unowned.groupby(kind).transform("mean") >= MIN_UNOWNED)
    usd = usd_as(seen, calls, tier=tier)
    usd = usd.where(usd < calls["cost_usd"], calls["cost_usd"] * USUAL_PART)
    outcomes = [Outcome(pd.DataFrame({"usd": usd[chosen]})) for chosen in (likely, unowned)]
    assumptions = (
        f"high: only calls made while no request was open; low: also the rest of their kind, where at least {MIN_UNOWNED:.0%} of it is such",
        f"{USUAL_PART:.0%} of the price where the list has no price for the tier",
        *priced_note(seen),
    )
    not_modelled = (
        "waiting up to a day for a batch, or minutes in the flex tier",
        "requests that get faster as the provider's limits are left to them",
    )
    return Prediction(
        effects(seen, outcomes, assumptions=assumptions, not_modelled=not_modelled, tells_latency=False),
        f"{int(unowned.sum())} of {len(calls)} calls ran while no user's request was open, {int(likely.sum())} are of such a kind",
        assumptions,
        not_modelled,
        calls[likely][["model", "operation", "input_tokens", "output_tokens", "cost_usd"]].head(50).reset_index(),
    )
