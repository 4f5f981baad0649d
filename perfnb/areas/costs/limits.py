"""Whether anything bounds what is spent: a cap on answers, and usage that is counted at all."""

import pandas as pd

from perfnb.areas.dollars import spending
from perfnb.areas.exemplars import exemplars
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording

HOW_TO_PROXY = "record through the proxy: perfnb record --upstream URL"


def uncapped(calls: pd.DataFrame) -> pd.Series:
    """Return which of ``calls`` surely set no cap: the proxy saw none, or a span tells other settings but not this one."""
    settings_are_told = (calls["source"] == "proxy") | calls["temperature"].notna()
    return settings_are_told & calls["max_tokens"].isna()


@check("no-output-limit", area="costs")
def no_output_limit(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.08, least_calls: int = 3
) -> Finding | Clear:
    """Calls set no output cap, and long answers are what much of the money goes into (R28).

    Reasoning tokens are left out: a cap counts them, but cutting them off leaves no answer at all.

    Source: A13
    """
    limit = objectives["output_tokens"]
    spent = spending(recording)
    calls = spent.answers.dropna(subset=["output_tokens"])
    told = calls[(calls["source"] == "proxy") | calls["temperature"].notna() | calls["max_tokens"].notna()]
    if calls.empty or told.empty:
        raise NotMeasured("no call tells its settings", hint=HOW_TO_PROXY)
    open_ended = told[uncapped(told)]
    said = open_ended["output_tokens"] - open_ended["reasoning_tokens"].fillna(0)
    excess = (said - limit.value).clip(lower=0)
    cost = float((excess * open_ended["output_price"]).sum())
    long = open_ended[excess > 0]
    if len(long) < least_calls or spent.share(cost) < min_share:
        return Clear(
            f"{len(open_ended)} of {len(told)} calls set no cap; what {len(long)} of them said beyond {limit.value} tokens is {spent.share(cost):.0%} of the dollars"
        )
    middle, high = said.quantile([0.5, 0.95])
    return spent.finding(
        cost,
        miss=limit.miss(float(high)),
        title=f"{len(open_ended)} of {len(told)} calls set no output cap, and {len(long)} answers are over {limit.value} tokens",
        evidence=(
            f"answers without a cap: {middle:,.0f} tokens (median), {high:,.0f} (p95), {said.max():,.0f} at most; limit {limit.value} (A13)",
            f"what they say beyond {limit.value} tokens costs as follows",
        ),
        remedy=f"Ask for brevity in the prompt, and set max_completion_tokens (max_output_tokens, max_tokens) as a safety net, {limit.value} to start with; reasoning models need more, as the cap counts what they think.",
        effort="low",
        figure="spend_by_model",
        estimate=spent.estimate(
            cost,
            0.5 * cost,
            ("half to all of the surplus tokens are saved",),
            ("answers that are cut off and asked for again",),
        ),
        frame=open_ended.assign(said=said)[["call_id", "model", "said", "cost"]].nlargest(50, "said"),
        exemplars=exemplars(open_ended, "output_tokens"),
    )


@check("no-usage-tracking", area="costs")
def no_usage_tracking(
    recording: Recording, objectives: Objectives, *, min_part: float = 0.2, least_calls: int = 5
) -> Finding | Clear:
    """Answers come without usage, so that nobody can tell what a call cost before the bill comes (R30).

    Provable only where perfnb saw the answers themselves. Its share is 0: it explains no dollars, it hides them. An app
    that gets usage and throws it away can't be told from one that adds it up.

    Source: A7, A14, A30, B4, E54
    """
    spent = spending(recording)
    calls = spent.answers
    seen = calls[(calls["source"] == "proxy") & calls["answered_by"].isna()]
    if seen.empty:
        raise NotMeasured("no answer itself was seen, only spans about it", hint=HOW_TO_PROXY)
    silent = seen[seen["tokens_estimated"].fillna(False).astype(bool)]
    hidden = float(silent["cost"].sum())
    part = max(len(silent) / len(seen), spent.share(hidden))
    if len(silent) < least_calls or part < min_part:
        return Clear(
            f"{len(seen) - len(silent)} of {len(seen)} answers told their usage; whether the app adds it up can't be seen"
        )
    streams = int(silent["stream"].fillna(False).astype(bool).sum())
    return Finding(
        title=f"{len(silent)} of {len(seen)} answers came without usage: nobody knows what they cost",
        severity="medium" if part > 0.5 else "low",
        share=0.0,
        symptom="cost",
        evidence=(
            f"{streams} of them are streams, which tell their usage only when asked (stream_options.include_usage); no usage was in the answers",
            f"by perfnb's estimate (four characters a token) they took {spent.share(hidden):.0%} of all dollars: {spent.told(hidden)}",
            "some clients ask for no usage only because a base URL is set, as perfnb record sets one: then it is the recording, not the app, that goes without (langchain-openai while OPENAI_BASE_URL is in the environment)",
            "this saves nothing by itself; it shows what to save",
        ),
        remedy='Ask streams for usage (stream_options={"include_usage": True}; langchain-openai: stream_usage=True), add it up by model, route and user, and set a budget with an alert.',
        effort="low",
        frame=silent[["call_id", "model", "stream", "input_tokens", "output_tokens"]].head(50),
        exemplars=exemplars(silent, "cost"),
    )
