"""What the prompt holds that nobody needs: wordy instructions, text said twice, tools that are never called."""

import json
from collections.abc import Sequence

import pandas as pd

from perfnb.areas.dollars import Spending, spending
from perfnb.areas.exemplars import exemplars
from perfnb.areas.messages import Entry, fixed_instructions, found_again, prompts_of, sampled
from perfnb.attribution import HOW_TO_SEE_PROMPTS
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording

SAME_TEXT = 0.8
"""Share of a message found again in another one of the prompt from which on it is taken for the same text."""
SHORT_TOKENS = 40
UNSEEN = ("whether answers stay as good", "how long they get")


def paid(calls: pd.DataFrame, tokens: pd.Series, before: pd.Series | float = 0.0) -> pd.Series:
    """Return what ``tokens`` of each prompt cost, that stand after ``before`` others: cached ones are the first."""
    cached = (calls["cache_read_tokens"].fillna(0) - before).clip(lower=0)
    read = cached.clip(upper=tokens)
    return (tokens - read) * calls["fresh_price"] + read * calls["cached_price"]


def paid_anywhere(calls: pd.DataFrame, tokens: pd.Series) -> pd.Series:
    """Return what ``tokens`` of each prompt cost, that stand anywhere in it: cached ones among them in proportion."""
    read = tokens * (calls["cache_read_tokens"].fillna(0) / calls["input_tokens"].clip(lower=1)).clip(0, 1)
    return (tokens - read) * calls["fresh_price"] + read * calls["cached_price"]


def _told(spent: Spending) -> pd.DataFrame:
    """Return the answers that tell their messages; raises NotMeasured where none does."""
    calls = spent.answers
    told = calls[calls["opening"].notna() & calls["input_tokens"].notna()]
    if told.empty:
        raise NotMeasured("no prompt tells its messages", hint=HOW_TO_SEE_PROMPTS)
    return told


@check("verbose-system-prompt", area="costs")
def verbose_system_prompt(
    recording: Recording, objectives: Objectives, *, enough_tokens: int = 500, min_share: float = 0.1, least: int = 5
) -> Finding | Clear:
    """Long instructions go along with every call, whatever it asks (R27).

    Only what a kind of call sends every time counts: passages retrieved into the system message are left out. Tokens
    the provider read from its cache count at their own price.

    Source: A12
    """
    limit = objectives["system_prompt_tokens"]
    spent = spending(recording)
    calls = _told(spent)
    fixed = fixed_instructions(recording, calls)
    long = calls.assign(fixed=fixed)[fixed > limit.value]
    schemas = long["tool_schema_tokens"].fillna(0)
    cost = float((paid(long, long["fixed"], schemas) * (1 - enough_tokens / long["fixed"].clip(lower=1))).sum())
    if len(long) < least or spent.share(cost) < min_share:
        return Clear(
            f"{len(long)} of {len(calls)} prompts carry over {limit.value:,} tokens of fixed instructions (at most {fixed.max():,.0f}); a short form would save {spent.share(cost):.0%} of the dollars"
        )
    return spent.finding(
        cost,
        miss=limit.miss(float(long["fixed"].median())) * 1.5,
        title=f"{len(long)} of {len(calls)} prompts carry {long['fixed'].median():,.0f} tokens of the same instructions",
        evidence=(
            f"{(long['fixed'] / long['input_tokens']).median():.0%} of their input (median); limit {limit.value:,} tokens, {enough_tokens} are taken to be enough (A12)",
            f"{(long['cache_read_tokens'].fillna(0) / long['input_tokens']).median():.0%} of the input was read from the provider's cache (median), at {(long['cached_price'] / long['fresh_price'].where(long['fresh_price'] > 0)).median():.0%} of the price",
        ),
        remedy="Rewrite the system prompt as short bullets; move rules that few requests need into passages that are retrieved; keep what stays first in the prompt, so that the provider caches it.",
        effort="medium",
        figure="prompt_parts",
        estimate=spent.estimate(
            cost, 0.5 * cost, (f"instructions are cut to {enough_tokens} tokens, or half as far",), UNSEEN
        ),
        frame=long[["call_id", "model", "fixed", "input_tokens", "cache_read_tokens", "cost"]].head(50),
        exemplars=exemplars(long, "fixed"),
    )


def repeated_text(recording: Recording, calls: pd.DataFrame) -> pd.DataFrame:
    """Return the sampled calls with ``repeated`` (tokens said before in the same prompt) and ``stands_for`` (calls)."""
    rows = []
    for _, group in calls.groupby("kind"):
        sample = sampled(group)
        prompts = prompts_of(recording, sample["call_id"])
        repeated = [_repeated(prompts.get(call_id) or ()) for call_id in sample["call_id"]]
        rows.append(sample.assign(repeated=repeated, stands_for=len(group) / len(sample)))
    return pd.concat(rows) if rows else calls.assign(repeated=0.0, stands_for=1.0)


def _repeated(entries: Sequence[Entry]) -> float:
    """Return the tokens of a prompt that it had said before: within one message, or in an earlier one.

    How a model repeats itself within its own answer is no fault of the prompt that quotes it.
    """
    tokens, before = 0.0, list[Entry]()
    for entry in entries:
        if entry["tokens"] >= SHORT_TOKENS and before and found_again(entry, before) >= SAME_TEXT:
            tokens += entry["tokens"]
        elif entry["role"] != "assistant":
            tokens += entry.get("repeated_tokens", 0)
        if entry["tokens"] >= SHORT_TOKENS:
            before.append(entry)
    return tokens


@check("redundant-prompt-text", area="costs")
def redundant_prompt_text(
    recording: Recording, objectives: Objectives, *, min_part: float = 0.2, min_share: float = 0.08, least: int = 5
) -> Finding | Clear:
    """Prompts say the same text twice: passages found more than once, context put into every message (R29).

    Told by runs of eight words that come again within a message, and by messages whose text stands in an earlier one.
    Wordiness without repetition can't be seen from digests.

    Source: B24
    """
    spent = spending(recording)
    calls = repeated_text(recording, _told(spent))
    wordy = calls[calls["repeated"] >= min_part * calls["input_tokens"]]
    cost = float((paid_anywhere(wordy, wordy["repeated"]) * wordy["stands_for"]).sum())
    if len(wordy) < least or spent.share(cost) < min_share:
        return Clear(
            f"{len(wordy)} of {len(calls)} prompts say a fifth of their text or more twice; it is {spent.share(cost):.0%} of the dollars"
        )
    part = float((wordy["repeated"] / wordy["input_tokens"]).median())
    return spent.finding(
        cost,
        miss=part / min_part,
        title=f"{len(wordy)} of {len(calls)} prompts say {part:.0%} of their text more than once",
        evidence=(
            f"{wordy['repeated'].median():,.0f} of {wordy['input_tokens'].median():,.0f} input tokens stood in the same prompt before (medians)",
            f"{wordy['passages'].median():.0f} retrieved passages (median) were recognised in them",
        ),
        remedy="Remove passages found twice before they go into the prompt (by id, then by text), and send context once, not with every message of the history.",
        effort="low",
        figure="prompt_parts",
        estimate=spent.estimate(cost, 0.7 * cost, ("seven tenths to all of the repeated text is left out",), UNSEEN),
        frame=wordy[["call_id", "model", "repeated", "input_tokens", "passages", "cost"]].head(50),
        exemplars=exemplars(wordy, "repeated"),
    )


def _called(calls: pd.DataFrame) -> set[str]:
    """Return the names of tools that the answers call."""
    texts = calls["tool_calls"].dropna().astype(str)
    return {call.get("name") or "" for text in texts for call in json.loads(text) or ()}


def tool_use(recording: Recording) -> pd.DataFrame:
    """Return, for each kind of call that offers tools: kind, calls, offered (median), called (different tools), schema_tokens
    (median), part (of the input), cost (of the schemas of tools never called), in the unit of ``Spending``.
    """
    spent = spending(recording)
    calls = spent.answers
    offering = calls[(calls["tools_offered"].fillna(0) > 0) & (calls["tool_schema_tokens"].fillna(0) > 0)]
    rows = []
    for kind, group in offering.groupby("kind"):
        schemas = group["tool_schema_tokens"].astype(float)
        offered, called = float(group["tools_offered"].median()), _called(group)
        unused = max(0.0, 1 - len(called) / offered)
        part = float((schemas / group["input_tokens"].clip(lower=1)).median())
        rows.append(
            (kind, len(group), offered, len(called), float(schemas.median()), part, unused * paid(group, schemas).sum())
        )
    columns = ["kind", "calls", "offered", "called", "schema_tokens", "part", "cost"]
    return pd.DataFrame(rows, columns=columns)


@check("heavy-tool-schemas", area="costs")
def heavy_tool_schemas(
    recording: Recording,
    objectives: Objectives,
    *,
    min_part: float = 0.4,
    min_tokens: int = 1000,
    max_called: float = 0.5,
    min_share: float = 0.08,
    least: int = 8,
) -> Finding | Clear:
    """Descriptions of tools are most of the prompt, and most of these tools are never called (R93).

    Source: platform.openai.com/docs/guides/function-calling (functions count as input tokens; fewer than 20 at a time)
    """
    spent = spending(recording)
    kinds = tool_use(recording)
    if kinds.empty:
        if spent.answers["tools_offered"].isna().all():
            raise NotMeasured("no call tells which tools it offers", hint=HOW_TO_SEE_PROMPTS)
        return Clear(f"0 of {len(spent.answers)} calls offer tools")
    heavy = kinds[
        (kinds["part"] >= min_part)
        & (kinds["schema_tokens"] >= min_tokens)
        & (kinds["called"] <= max_called * kinds["offered"])
        & (kinds["calls"] >= least)
    ]
    cost = float(heavy["cost"].sum())
    if heavy.empty or spent.share(cost) < min_share:
        top = kinds.nlargest(1, "schema_tokens").iloc[0]
        return Clear(
            f"{kinds['calls'].sum()} calls offer tools; their schemas take up to {top['schema_tokens']:,.0f} tokens, and those of tools never called {spent.share(cost):.0%} of the dollars"
        )
    worst = heavy.nlargest(1, "cost").iloc[0]
    return spent.finding(
        cost,
        miss=1 + worst["part"] * 2,
        title=f"{worst['part']:.0%} of {heavy['calls'].sum():.0f} prompts are tool schemas, for {worst['offered']:.0f} tools of which {worst['called']:.0f} were called",
        evidence=(
            f"{worst['schema_tokens']:,.0f} tokens of schemas with each call (median)",
            f"counted are the tools never called in this recording, {1 - worst['called'] / worst['offered']:.0%} of those offered",
        ),
        remedy="Offer the tools a task needs: by route, by a first cheap choice, or by searching for tools; shorten descriptions; keep their order fixed, so that the provider caches them.",
        effort="medium",
        figure="prompt_parts",
        estimate=spent.estimate(
            cost, 0.6 * cost, ("six tenths to all of the tools never called are left out",), UNSEEN
        ),
        frame=heavy,
        exemplars=exemplars(spent.answers[spent.answers["kind"] == worst["kind"]], "tool_schema_tokens"),
    )
