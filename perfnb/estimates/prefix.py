"""The provider's prefix cache, had what never changes stood first in every prompt."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from perfnb.errors import NotMeasured
from perfnb.estimates.change import Parameter, Prediction, change
from perfnb.estimates.dollars import CACHE_FROM_TOKENS, CACHE_STEP_TOKENS, cacheable, usd_with
from perfnb.estimates.effects import ON_PATH, Outcome, effects, priced_note
from perfnb.estimates.speed import speeds
from perfnb.estimates.traffic import Entry, Traffic, traffic
from perfnb.prompts.sketch import containment
from perfnb.recording import Recording

LONGEST_LIFE_S = 3600
"""OpenAI keeps prefixes 5 to 10 minutes after their last use, an hour at most."""
PAIRS = 200


@dataclass(frozen=True)
class Part:
    """A piece of a prompt: the same key means the same text."""

    key: str
    tokens: float


@change(
    "prefix_cache",
    title="Put what never changes first, so that the provider's cache reads it",
    causes=("unstable-prompt-prefix", "verbose-system-prompt", "heavy-tool-schemas", "large-context"),
    parameters=(Parameter("lifetime_s", "A prefix is kept at least", 300, "s", 10, 86_400, 10),),
)
def prefix_cache(recording: Recording, *, lifetime_s: float) -> Prediction:
    """Return what a stable order of each prompt's parts would have done: tools, what all calls share, what changes.

    Source: platform.openai.com/docs/guides/prompt-caching (exact prefixes, 1,024 tokens at least, steps of 128);
    docs.anthropic.com, prompt caching (what is written costs more)
    """
    seen = traffic(recording)
    calls = seen.sized()
    messages = seen.messages(calls)
    calls = calls[calls.index.isin(messages)]
    if calls.empty:
        raise NotMeasured("no answer tells its messages", hint="record through the proxy: perfnb record --upstream URL")
    outcomes, frames = [], []
    for quantile, life_s in ((0.75, max(LONGEST_LIFE_S, lifetime_s)), (0.25, lifetime_s)):
        readable = _readable(calls, messages, quantile, life_s)
        now = np.maximum(calls["cache_read_tokens"].fillna(0), np.minimum(cacheable(readable), calls["input_tokens"]))
        outcomes.append(_outcome(seen, calls, now, is_best=quantile > 0.5))
        frames.append(now)
    assumptions = (
        f"low: prefixes live {max(LONGEST_LIFE_S, lifetime_s):,.0f} s after their last use; high: {lifetime_s:,.0f} s",
        "first messages that differ share what their sketches say (upper quartile: low, lower: high), and that can be put first",
        f"the provider reads prefixes of {CACHE_FROM_TOKENS} tokens up, in steps of {CACHE_STEP_TOKENS}, and finds each it has seen",
        *speeds(seen).told(calls, "input"),
        ON_PATH,
        *priced_note(seen),
    )
    not_modelled = (
        "answers that change with the order of the prompt",
        "requests that the provider spreads over machines",
    )
    was = calls["cache_read_tokens"].fillna(0)
    total = calls["input_tokens"].sum()
    return Prediction(
        effects(seen, outcomes, assumptions=assumptions, not_modelled=not_modelled),
        f"{int((calls['input_tokens'] >= CACHE_FROM_TOKENS).sum())} of {len(calls)} prompts have {CACHE_FROM_TOKENS} tokens or more; of all input {was.sum() / total:.0%} was read from the cache, {frames[1].sum() / total:.0%} to {frames[0].sum() / total:.0%} could have been",
        assumptions,
        not_modelled,
        calls[["model", "input_tokens"]].assign(read_tokens=was, readable_tokens=frames[0]).nlargest(50, "readable_tokens").reset_index(),
    )  # fmt: skip


def _outcome(seen: Traffic, calls: pd.DataFrame, now: pd.Series, *, is_best: bool) -> Outcome:
    was = calls["cache_read_tokens"].fillna(0)
    written = np.minimum(calls["cache_write_tokens"].fillna(0), calls["input_tokens"] - now)
    is_more = now > was
    more = calls[is_more]
    usd = usd_with(seen, more, cache_read_tokens=now[is_more], cache_write_tokens=written[is_more])
    least, most = speeds(seen).reading(more, (now - was)[is_more])
    return Outcome(pd.DataFrame({"usd": usd, "wait_ms": most if is_best else least}))


def _readable(calls: pd.DataFrame, messages: dict[str, list[Entry]], quantile: float, life_s: float) -> pd.Series:
    """Return the tokens at each prompt's beginning that an earlier one shares, once parts are in a stable order."""
    found = pd.Series(0.0, calls.index)
    kind = calls["provider"].fillna("") + "|" + calls["model"].fillna("") + "|" + calls["tool_names"].fillna("")
    for _, group in calls.groupby(kind):
        prompts = [
            _parts(messages[call_id], schemas)
            for call_id, schemas in zip(group.index, group["tool_schema_tokens"].fillna(0), strict=True)
        ]
        shared = _shared_by_first([messages[call_id][0] for call_id in group.index], quantile)
        prompts = [_split(parts, share) for parts, share in zip(prompts, shared, strict=True)]
        often = Counter(part.key for parts in prompts for part in {each.key: each for each in parts}.values())
        ordered = [sorted(parts, key=lambda part: -often[part.key]) for parts in prompts]
        found[group.index] = _seen_before(ordered, group["start_time"].tolist(), life_s * 1e9)
    return found


def _parts(messages: Sequence[Entry], schema_tokens: float) -> list[Part]:
    tools = [Part("tools", float(schema_tokens))] if schema_tokens else []
    return [*tools, *(Part(entry["digest"], float(entry["tokens"])) for entry in messages)]


def _shared_by_first(firsts: Sequence[Entry], quantile: float) -> list[float]:
    """Return the tokens of each first message that it shares with others of its kind though they differ elsewhere.

    What sketches share is a part of the whole message, of which passages that change are the rest; passages that two
    prompts happen to have both are not counted.
    """
    pairs = [(one, other) for one, other in pairwise(firsts) if one["digest"] != other["digest"]]
    if not pairs:
        return [0.0] * len(firsts)
    step = max(1, len(pairs) // PAIRS)
    shares = [containment(other.get("sketch") or (), one.get("sketch") or ()) for one, other in pairs[::step]]
    part = float(np.quantile(shares, quantile))
    return [_shared_tokens(first, part) for first in firsts]


def _shared_tokens(first: Entry, part: float) -> float:
    tokens, passages = float(first["tokens"]), float(first.get("passage_tokens") or 0)
    return max(0.0, min(part * tokens, tokens - passages))


def _split(parts: list[Part], shared: float) -> list[Part]:
    """Return ``parts`` with the first message's shared tokens as a part of their own."""
    first = next((number for number, part in enumerate(parts) if part.key != "tools"), None)
    if first is None or shared <= 0:
        return parts
    whole = parts[first]
    shared = min(shared, whole.tokens)
    return [*parts[:first], Part("shared", shared), Part(whole.key, whole.tokens - shared), *parts[first + 1 :]]


def _seen_before(prompts: Sequence[Sequence[Part]], starts: Sequence[int], life_ns: float) -> list[float]:
    """Return how many tokens at each prompt's beginning one before it, within ``life_ns``, began with."""
    last_use: dict[int, int] = {}
    found = []
    for parts, start in zip(prompts, starts, strict=True):
        tokens, prefix, is_known = 0.0, 0, True
        for part in parts:
            prefix = hash((prefix, part.key))
            is_known = is_known and start - last_use.get(prefix, -(10**30)) <= life_ns
            tokens += part.tokens if is_known else 0.0
            last_use[prefix] = start
        found.append(tokens)
    return found
