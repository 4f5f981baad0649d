"""Less in the prompt: fewer passages, less history, a shorter system prompt, only the tools that are called."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from perfnb.attribution import HOW_TO_SEE_PROMPTS
from perfnb.errors import NotMeasured
from perfnb.estimates.change import Parameter, Prediction, Setting, change
from perfnb.estimates.dollars import CACHE_FROM_TOKENS, cacheable, usd_with
from perfnb.estimates.effects import ON_PATH, Outcome, effects, priced_note
from perfnb.estimates.speed import speeds
from perfnb.estimates.traffic import Entry, Traffic, fresh_tokens, traffic
from perfnb.prompts.digest import CHARACTERS_PER_TOKEN
from perfnb.prompts.passages import passages as passages_in
from perfnb.recording import Recording

QUALITY = "whether answers are as good with less to read"
LENGTH = "answers of another length"


def shorter_prompts(
    seen: Traffic,
    calls: pd.DataFrame,
    gone: pd.Series,
    kept_before: pd.Series,
    *,
    fewest_gone: pd.Series | None = None,
) -> tuple[tuple[Outcome, Outcome], tuple[str, ...]]:
    """Return the outcomes of taking ``gone`` tokens out of prompts, best first, and what they assume.

    ``kept_before`` are the tokens before the first cut: at worst the provider's cache reads no further than there.
    ``fewest_gone`` are the tokens gone at worst, where that is not sure.
    """
    worst_gone = gone if fewest_gone is None else fewest_gone
    is_cut = (gone > 0) | (worst_gone > 0)
    calls, gone, worst_gone, kept_before = calls[is_cut], gone[is_cut], worst_gone[is_cut], kept_before[is_cut]
    read = calls["cache_read_tokens"].fillna(0)
    best = _cut(seen, calls, gone, np.minimum(read, calls["input_tokens"] - gone), is_best=True)
    after = np.minimum(np.minimum(read, kept_before), calls["input_tokens"] - worst_gone)
    worst = _cut(seen, calls, worst_gone, after.where(after == read, cacheable(after)), is_best=False)
    assumptions = [*speeds(seen).told(calls, "input"), ON_PATH, *priced_note(seen)]
    if (read > 0).any():
        assumptions.insert(0, "low: the provider's cache reads as much as before; high: no further than the first cut")
    return (best, worst), tuple(assumptions)


def _cut(seen: Traffic, calls: pd.DataFrame, gone: pd.Series, read: pd.Series, *, is_best: bool) -> Outcome:
    given = calls["input_tokens"] - gone
    written = np.minimum(calls["cache_write_tokens"].fillna(0), given - read)
    made = pd.DataFrame({"input_tokens": given})
    made["usd"] = usd_with(seen, calls, input_tokens=given, cache_read_tokens=read, cache_write_tokens=written)
    less = fresh_tokens(calls) - (given - read)
    least, most = speeds(seen).reading(calls, less.clip(lower=0))
    made["wait_ms"] = most if is_best else least
    return Outcome(made)


def _predicted(
    seen: Traffic,
    outcomes: tuple[Outcome, ...],
    assumptions: tuple[str, ...],
    examined: str,
    frame: pd.DataFrame,
    setting: Setting | None = None,
) -> Prediction:
    not_modelled = (QUALITY, LENGTH)
    made = effects(seen, outcomes, assumptions=assumptions, not_modelled=not_modelled)
    return Prediction(made, examined, assumptions, not_modelled, frame, setting or {})


def _most_cut(calls: pd.DataFrame, gone: pd.Series) -> pd.DataFrame:
    frame = calls[["request_id", "model", "input_tokens"]].assign(gone_tokens=gone)
    return frame[frame["gone_tokens"] > 0].nlargest(50, "gone_tokens").reset_index()


def _context_policy(setting: Setting) -> Mapping[str, Any]:
    return {"context_trim": {name: setting[name] for name in ("passages", "max_tokens") if setting[name]}}


@change(
    "context_trim",
    title="Put fewer retrieved passages into the prompt",
    causes=("too-many-documents", "large-context", "varying-context", "redundant-prompt-text"),
    parameters=(
        Parameter("passages", "Passages at most", 5, "passages", 1, 100, 1),
        Parameter("max_tokens", "Tokens of them at most", None, "tokens", 1, 1_000_000, 50),
    ),
    policy=_context_policy,
)
def context_trim(recording: Recording, *, passages: int, max_tokens: int | None) -> Prediction:
    """Return what keeping only the first passages of each prompt would have done.

    Source: A5, A6, E21
    """
    seen = traffic(recording)
    calls = seen.sized()
    if calls["passages"].isna().all():
        raise NotMeasured("no call tells its passages", hint=HOW_TO_SEE_PROMPTS)
    kept = seen.messages(calls)
    cuts = [_passages_cut(kept.get(call_id, []), passages, max_tokens) for call_id in calls.index]
    gone = np.minimum(pd.Series([cut[0] for cut in cuts], calls.index, dtype=float), calls["input_tokens"])
    start = pd.Series([cut[1] for cut in cuts], calls.index) + calls["tool_schema_tokens"].fillna(0)
    count = calls["passages"].fillna(0)
    first = "the first passages stay" + ("" if _are_sized(kept) else "; those of one message are of one length")
    outcomes, assumptions = shorter_prompts(seen, calls, gone, start)
    return _predicted(
        seen,
        outcomes,
        (first, *assumptions),
        f"{int((count > 0).sum())} of {len(calls)} prompts hold passages ({count[count > 0].median() if (count > 0).any() else 0:.0f}, median); {int((gone > 0).sum())} are cut, by {gone[gone > 0].median() if (gone > 0).any() else 0:,.0f} tokens (median)",
        _most_cut(calls, gone),
    )


def _passages_cut(messages: Sequence[Entry], count: int, max_tokens: int | None) -> tuple[float, float]:
    """Return the tokens of passages that go, message by message, and the tokens before the first of them."""
    gone, before, at = 0.0, 0.0, 0.0
    for entry in messages:
        lengths = _passage_tokens(entry)
        kept = lengths[:count]
        if max_tokens is not None:
            kept = kept[: max(1, int(np.searchsorted(np.cumsum(kept), max_tokens, side="right")))]
        if len(kept) < len(lengths):
            before = before or at + sum(kept)
            gone += sum(lengths[len(kept) :])
        at += entry["tokens"]
    return gone, before


def _are_sized(messages: Mapping[str, Sequence[Entry]]) -> bool:
    """Tell whether the recording holds the size of each passage."""
    with_some = [each for entries in messages.values() for each in entries if each.get("passages")]
    return all(each.get("tokens_of_passages") or each.get("text") for each in with_some)


def _passage_tokens(entry: Entry) -> list[float]:
    """Return the tokens of each passage in a message, in proportion to their sizes where those were kept, else the mean."""
    count, tokens = int(entry.get("passages") or 0), float(entry.get("passage_tokens") or 0)
    lengths = list(entry.get("tokens_of_passages") or ())
    if not lengths and count and entry.get("text"):
        lengths = [len(passage) for passage in passages_in(entry["text"])]
    if len(lengths) != count or not sum(lengths):
        lengths = [1] * count
    return [tokens * length / sum(lengths) for length in lengths]


@change(
    "history_trim",
    title="Send only the last messages of the conversation",
    causes=("long-history", "large-context"),
    parameters=(Parameter("messages", "Messages of history at most", 10, "messages", 0, 1000, 1),),
    policy=lambda setting: {"history_trim": {"messages": setting["messages"]}},
)
def history_trim(recording: Recording, *, messages: int) -> Prediction:
    """Return what keeping the system prompt and the last messages before the question would have done.

    Source: A18, D13, D17, E30; X19 (no tool's result without its call)
    """
    seen = traffic(recording)
    calls = seen.sized()
    if calls["history_messages"].isna().all():
        raise NotMeasured("no call tells its history", hint=HOW_TO_SEE_PROMPTS)
    kept = seen.messages(calls)
    cuts = [_history_cut(kept.get(call_id, []), messages) for call_id in calls.index]
    gone = pd.Series([cut[0] for cut in cuts], calls.index, dtype=float)
    before = pd.Series([cut[1] for cut in cuts], calls.index) + calls["tool_schema_tokens"].fillna(0)
    gone = np.minimum(gone, calls["input_tokens"])
    outcomes, assumptions = shorter_prompts(seen, calls, gone, before)
    long = calls["history_messages"].fillna(0)
    return _predicted(
        seen,
        outcomes,
        ("a conversation that was cut goes on as it did", *assumptions),
        f"{int((gone > 0).sum())} of {len(calls)} prompts hold more than {messages} messages of history (longest {long.max():.0f})",
        _most_cut(calls, gone),
    )


def _history_cut(messages: Sequence[Entry], count: int) -> tuple[float, float]:
    """Return the tokens that go, and those before them; what stays begins with a user's message."""
    roles = [entry["role"] for entry in messages]
    if "user" not in roles:
        return 0.0, 0.0
    question = len(roles) - 1 - roles[::-1].index("user")
    history = [number for number in range(question) if roles[number] not in ("system", "developer")]
    if len(history) <= count:
        return 0.0, 0.0
    start = next((number for number in history[len(history) - count :] if roles[number] == "user"), question)
    gone = [number for number in history if number < start]
    tokens = [entry["tokens"] for entry in messages]
    return float(sum(tokens[number] for number in gone)), float(sum(tokens[: gone[0]]))


def _system_policy(setting: Setting) -> Mapping[str, Any] | None:
    return {"system_prompt": {"replace": setting["replace"]}} if setting["replace"] else None


@change(
    "system_prompt",
    title="Shorten the system prompt",
    causes=("verbose-system-prompt", "large-context"),
    parameters=(
        Parameter("tokens", "Tokens of the new one", 200, "tokens", 0, 100_000, 10),
        Parameter("replace", "Text of the new one", None),
    ),
    policy=_system_policy,
)
def system_prompt(recording: Recording, *, tokens: int, replace: str | None) -> Prediction:
    """Return what a system prompt of ``tokens``, or the text ``replace``, would have done; passages in it stay.

    A prompt that is shorter already stays as it is.

    Source: A12, B24
    """
    seen = traffic(recording)
    calls = seen.sized()
    if calls["system_tokens"].isna().all():
        raise NotMeasured("no call tells its system prompt", hint=HOW_TO_SEE_PROMPTS)
    wanted = -(-len(replace) // CHARACTERS_PER_TOKEN) if replace else tokens
    passages = _passages_in_system(seen, calls) if replace is None else 0.0
    own = (calls["system_tokens"].fillna(0) - passages).clip(lower=0)
    gone = (own - wanted).clip(lower=0)
    rest = calls["cache_read_tokens"].fillna(0) - gone
    outcomes, assumptions = shorter_prompts(seen, calls, gone, rest.where(rest >= CACHE_FROM_TOKENS, 0.0))
    return _predicted(
        seen,
        outcomes,
        (f"the new system prompt has {wanted} tokens" + ("" if replace is None else " (four characters each) and holds no passages"), *assumptions),
        f"{int((own > 0).sum())} of {len(calls)} prompts have a system prompt, of {own[own > 0].median() if (own > 0).any() else 0:,.0f} tokens (median, passages left out)",
        _most_cut(calls, gone),
        {"tokens": wanted},
    )  # fmt: skip


def _passages_in_system(seen: Traffic, calls: pd.DataFrame) -> pd.Series:
    """Return the tokens of passages that stand in system messages: no part of the instructions."""
    if not (calls["passages"].fillna(0) > 0).any():
        return pd.Series(0.0, calls.index)
    kept = seen.messages(calls)
    found = [
        sum(entry.get("passage_tokens", 0) for entry in kept.get(call_id, ()) if entry["role"] in ("system", "developer"))
        for call_id in calls.index
    ]  # fmt: skip
    return pd.Series(found, calls.index, dtype=float)


@change(
    "tool_subset",
    title="Offer only the tools that are ever called",
    causes=("heavy-tool-schemas", "too-many-tools"),
    parameters=(Parameter("names", "Tools that stay", None),),
    policy=lambda setting: {"tool_subset": {"names": list(setting["names"])}} if setting["names"] else None,
)
def tool_subset(recording: Recording, *, names: Sequence[str] | None) -> Prediction:
    """Return what offering only ``names`` would have done; by default the tools called anywhere in the recording.

    Source: A25; OpenAI and Anthropic API references (tool schemas are paid as input)
    """
    seen = traffic(recording)
    calls = seen.sized()
    calls = calls[calls["tools_offered"].fillna(0) > 0]
    if calls.empty:
        raise NotMeasured("no call offers tools", hint="record while the agent is used")
    if calls["tool_names"].isna().all() or calls["tool_schema_tokens"].isna().all():
        raise NotMeasured("no call tells which tools it offers", hint="record through the proxy: --upstream URL")
    kept = tuple(names) if names is not None else _called(seen.answers)
    offered = calls["tool_names"].map(lambda text: json.loads(text) if isinstance(text, str) else [])
    stay = offered.map(lambda tools: len(set(tools) & set(kept)))
    part = stay / offered.map(len).clip(lower=1)
    schemas = calls["tool_schema_tokens"].fillna(0).where(offered.map(len) > 0, 0.0)
    # a kept schema of half or twice the average size: part p of the tools, weighed against the rest
    small, large = (weight * part / (weight * part + 1 - part) for weight in (0.5, 2.0))
    outcomes, assumptions = shorter_prompts(
        seen,
        calls,
        schemas * (1 - small),
        calls["cache_read_tokens"].fillna(0) - schemas * (1 - large),
        fewest_gone=schemas * (1 - large),
    )
    gone = schemas * (1 - part)
    never = sorted({tool for tools in offered for tool in tools} - set(kept))
    return _predicted(
        seen,
        outcomes,
        ("schemas of tools that stay are half as large (low) to twice as large (high) as the others", *assumptions),
        f"{len(calls)} calls offer {offered.map(len).median():.0f} tools (median); {len(kept)} tools stay, {len(never)} are never called: {', '.join(never[:10])}",
        _most_cut(calls, gone),
        {"names": list(kept)},
    )


def _called(calls: pd.DataFrame) -> tuple[str, ...]:
    found = {
        str(tool.get("name"))
        for text in calls["tool_calls"].dropna()
        for tool in (json.loads(text) if isinstance(text, str) else text)
    }
    return tuple(sorted(found))
