"""Input tokens beyond what the task needs: whom they belong to, and what they cost."""

from collections.abc import Collection

import pandas as pd

from perfnb.areas.dollars import Spending, spending
from perfnb.areas.exemplars import exemplars
from perfnb.areas.messages import fixed_instructions
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording


def surplus_tokens(frame: pd.DataFrame, objectives: Objectives) -> pd.DataFrame:
    """Return ``frame``, one row a call, with documents_excess, history_excess and context_excess (tokens).

    Each token over budget is blamed once, on too many passages, then on history, then on the context as a whole.
    Tokens the provider read from its cache are not counted.
    """
    cached = frame["cache_read_tokens"].fillna(0)
    fresh = 1 - (cached / frame["input_tokens"].clip(lower=1)).clip(0, 1)
    documents, history, _ = _over_budget(frame, objectives)
    over = (frame["input_tokens"] - cached - objectives.value("context_tokens")).clip(lower=0)
    return frame.assign(
        documents_excess=documents * fresh,
        history_excess=history * fresh,
        context_excess=(over - (documents + history) * fresh).clip(lower=0),
    )


def _over_budget(frame: pd.DataFrame, objectives: Objectives) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Return the tokens of surplus passages, of surplus history and of other surplus context, cached ones included."""
    keep = objectives.value("retrieved_documents")
    passages = frame["passages"].fillna(0)
    too_many = passages > (objectives["retrieved_documents"].acceptable or keep)
    documents = (frame["passage_tokens"].fillna(0) * (1 - keep / passages.clip(lower=1))).where(too_many, 0.0)
    limit = objectives.value("history_messages")
    messages = frame["history_messages"].fillna(0)
    history = (frame["history_tokens"].fillna(0) * (1 - limit / messages.clip(lower=1))).where(messages > limit, 0.0)
    over = frame["input_tokens"] - objectives.value("context_tokens")
    return documents, history, (over - documents - history).clip(lower=0)


def swings(tokens: pd.Series) -> bool:
    """Tell whether prompts of one kind differ widely in size: not a few outliers, but the bulk of them."""
    lowest, low, high, highest = tokens.quantile([0.1, 0.25, 0.75, 0.9])
    return bool(len(tokens) >= 8 and highest >= 4 * max(lowest, 1) and high >= 2 * max(low, 1))


def are_large(frame: pd.DataFrame, kind: str, objectives: Objectives) -> pd.Series:
    """Return which calls are large: of a kind that is over budget as a rule, or themselves over the acceptable bound."""
    limit = objectives["context_tokens"]
    usual = frame.groupby(kind)["input_tokens"].transform(lambda tokens: tokens.quantile(0.25))
    return (usual > limit.value) | (frame["input_tokens"] > (limit.acceptable or limit.value))


def _sized(spent: Spending, objectives: Objectives) -> pd.DataFrame:
    calls = spent.answers
    return surplus_tokens(calls.dropna(subset=["input_tokens"]), objectives)


def paid_for_context(recording: Recording, objectives: Objectives) -> pd.Series:
    """Return what each call with a prompt far over budget pays for the surplus, by call_id, in the unit of ``Spending``.

    Far is over the acceptable bound: dollars alone are no reason to send less than an answer needs. Each call is judged
    by itself, whether its kind is always so large or not. Tokens read from the provider's cache count at their own
    price. Left out is what other causes of costs answer for: tool schemas and fixed instructions, for which tokens read
    from the cache are taken where a call does not tell its messages.
    """
    limit = objectives["context_tokens"]
    frame = _sized(spending(recording), objectives)
    large = frame[frame["input_tokens"] > (limit.acceptable or limit.value)]
    told = large[large["opening"].notna()]
    fixed = fixed_instructions(recording, told).reindex(large.index) + large["tool_schema_tokens"].fillna(0)
    fixed = fixed.fillna(large["cache_read_tokens"]).fillna(0)
    *_, context = _over_budget(large, objectives)
    surplus = (context - fixed).clip(lower=0)
    # a cache reads what is fixed first; what it read beyond lies anywhere in the rest
    cached = (large["cache_read_tokens"].fillna(0) - fixed) / (large["input_tokens"] - fixed).clip(lower=1)
    read = surplus * cached.clip(0, 1)
    paid = (surplus - read) * large["fresh_price"] + read * large["cached_price"]
    return paid[paid > 0].set_axis(large.loc[paid > 0, "call_id"])


def paid_for_history(recording: Recording, objectives: Objectives) -> pd.Series:
    """Return what each call with too long a history pays for the surplus, in the unit of ``Spending``."""
    frame = _sized(spending(recording), objectives)
    long = frame[(frame["history_excess"] > 0) & (frame["history_tokens"] > 0.3 * frame["input_tokens"])]
    return long["history_excess"] * long["fresh_price"]


def large_context_cost(
    recording: Recording,
    objectives: Objectives,
    *,
    without: Collection[str] = (),
    min_share: float = 0.15,
    least: int = 3,
) -> Finding | Clear:
    """Return whether surplus context is a fair part of the dollars; calls named in ``without`` are left out."""
    limit, spent = objectives["context_tokens"], spending(recording)
    paid = paid_for_context(recording, objectives)
    paid = paid[~paid.index.isin(without)]
    calls = spent.calls[spent.calls["call_id"].isin(paid.index)]
    if len(paid) < least or spent.share(paid.sum()) < min_share:
        return Clear(
            f"{len(paid)} of {len(spent.answers)} prompts are over {limit.acceptable:,.0f} tokens by more than passages, history and instructions; the surplus is {spent.share(paid.sum()):.0%} of the dollars"
        )
    tokens = calls["input_tokens"].median()
    return spent.finding(
        float(paid.sum()),
        miss=limit.miss(tokens),
        title=f"{len(calls)} of {len(spent.answers)} prompts hold {tokens:,.0f} tokens (median)",
        evidence=(f"{tokens:,.0f} input tokens (median), budget {limit.value:,} (B24, D17; {limit.acceptable:,.0f} at most, D13)",),
        remedy="Cap the context by tokens, drop repeated text, send passages instead of whole documents.",
        frame=calls[["call_id", "model", "input_tokens", "cache_read_tokens", "cost"]].head(50),
        exemplars=exemplars(calls, "cost"),
    )  # fmt: skip


def long_history_cost(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.1, min_calls: float = 0.1
) -> Finding | Clear:
    """Return whether surplus history is a fair part of the dollars."""
    limit, spent = objectives["history_messages"], spending(recording)
    paid = paid_for_history(recording, objectives)
    calls = spent.calls.loc[paid.index]
    if len(paid) < max(3, min_calls * len(spent.answers)) or spent.share(paid.sum()) < min_share:
        return Clear(
            f"{len(paid)} of {len(spent.answers)} prompts carry over {limit.value} messages of history; the surplus is {spent.share(paid.sum()):.0%} of the dollars"
        )
    messages = calls["history_messages"].median()
    return spent.finding(
        float(paid.sum()),
        miss=limit.miss(messages),
        title=f"{len(calls)} of {len(spent.answers)} prompts carry {messages:.0f} messages of history",
        evidence=(f"{messages:.0f} messages with {calls['history_tokens'].median():,.0f} tokens before the question (medians), {(calls['history_tokens'] / calls['input_tokens']).median():.0%} of the prompt; limit {limit.value} (D13, E30)",),
        remedy="Keep the system message and the last few turns; summarise what is older. Never split a tool call from its result.",
        frame=calls[["call_id", "model", "history_messages", "history_tokens", "cost"]].head(50),
        exemplars=exemplars(calls, "cost"),
    )  # fmt: skip
