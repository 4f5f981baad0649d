"""What the messages of recorded prompts hold: their parts, and the instructions that go along with every call."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from perfnb.attribution.money import prepare_money
from perfnb.prompts.sketch import containment
from perfnb.recording import Recording

SAMPLED = 400
"""Prompts of one kind that are looked into, spread evenly; what they show is taken for all of their kind."""

Entry = Mapping[str, Any]

_PROMPTS = """
SELECT call_id, messages FROM model_calls WHERE messages IS NOT NULL AND call_id IN (SELECT unnest($call_ids))
"""


def prompts_of(recording: Recording, call_ids: pd.Series) -> dict[str, list[Entry]]:
    """Return what was kept of the messages of these calls, by call_id."""
    frame = prepare_money(recording).query(_PROMPTS, {"call_ids": call_ids.tolist()})
    return {call_id: json.loads(messages) for call_id, messages in frame.itertuples(index=False)}


def sampled(calls: pd.DataFrame) -> pd.DataFrame:
    """Return a few hundred of ``calls``, spread evenly."""
    return calls.iloc[:: max(1, len(calls) // SAMPLED)]


def fixed_instructions(recording: Recording, calls: pd.DataFrame) -> pd.Series:
    """Return the system tokens of each call that its kind sends every time: no passages, nothing made for one call."""
    shares, own = {}, {}
    for kind, group in calls.groupby("kind"):
        sample = sampled(group)
        seen = prompts_of(recording, sample["call_id"])
        prompts = [seen[call_id] for call_id in sample["call_id"] if seen.get(call_id)]
        shares[kind] = _common_part(prompts)
        own[kind] = _unretrieved_part(prompts)
    system = calls["system_tokens"].fillna(0).astype(float)
    common = calls["kind"].map(shares).astype(float)
    return pd.concat([system * common, system * calls["kind"].map(own).astype(float)], axis=1).min(axis=1)


def _system(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry["role"] in ("system", "developer")]


def _common_part(prompts: Sequence[Sequence[Entry]]) -> float:
    """Return the part of the system text that one prompt shares with the next, as the median of pairs."""
    shared = []
    for one, other in pairwise(prompts):
        before, now = _system(one), _system(other)
        if before and now:
            whole = max(1, sum(entry["tokens"] for entry in now))
            shared.append(sum(found_again(entry, before) * entry["tokens"] for entry in now) / whole)
    return float(pd.Series(shared).median()) if shared else 0.0


def _unretrieved_part(prompts: Sequence[Sequence[Entry]]) -> float:
    parts = []
    for entries in map(_system, prompts):
        tokens = sum(entry["tokens"] for entry in entries)
        if tokens:
            parts.append(1 - sum(entry.get("passage_tokens", 0) for entry in entries) / tokens)
    return float(pd.Series(parts).median()) if parts else 0.0


def found_again(entry: Entry, others: Sequence[Entry]) -> float:
    """Return the part of a message that is found in one of the others."""
    if any(entry["digest"] == other["digest"] for other in others):
        return 1.0
    return max((containment(entry.get("sketch") or (), other.get("sketch") or ()) for other in others), default=0.0)
