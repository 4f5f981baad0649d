"""Caches put before the recorded calls: of whole answers, and of embeddings.

Each is replayed in the order and at the times of the recording, by the rules of the proxy's own caches. The range goes
from a cache that is empty when the recording starts to one that already knows what comes again in it.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from perfnb.attribution import GENERATING, HOW_TO_SEE_PROMPTS
from perfnb.errors import NotMeasured
from perfnb.estimates.change import Parameter, Prediction, change
from perfnb.estimates.dollars import usd_with
from perfnb.estimates.effects import ON_PATH, Outcome, effects, priced_note
from perfnb.estimates.replay import replay
from perfnb.estimates.traffic import Traffic, traffic
from perfnb.finding import Estimate
from perfnb.recording import Recording

FAST_HIT_MS, SLOW_HIT_MS = 1.0, 10.0
"""What an answer from memory, and one from a shared cache over the network, takes: assumptions, named with each use."""
FAST_PIECE_MS, SLOW_PIECE_MS = 0.0, 0.5
"""What an app's client takes for each piece of a stream that comes all at once, and no longer while it is written.

Source: bench/calibration.py, where the client of openai's package takes 0.3 to 0.5 ms a piece on a busy machine.
"""

WARMTH = (
    f"low: what comes again in the recording was known before it began, and a hit takes {FAST_HIT_MS:.0f} ms",
    f"high: the cache is empty when the recording begins, and a hit takes {SLOW_HIT_MS:.0f} ms",
)
READING = f"the app takes {FAST_PIECE_MS:.0f} (low) to {SLOW_PIECE_MS:g} ms (high) a token to read a stream that comes at once"
TTL = Parameter("ttl_s", "Kept for", 300, "s", 1, 2_592_000, 1)
ENTRIES = Parameter("entries", "Entries at most", 1000, "answers", 1, 10_000_000, 1)


@change(
    "response_cache",
    title="Keep answers and give them again to the same prompt",
    causes=("no-response-cache", "cache-misses"),
    parameters=(TTL, ENTRIES),
    policy=lambda setting: {
        "response_cache": {"mode": "exact", "ttl_s": setting["ttl_s"], "entries": setting["entries"]}
    },
)
def response_cache(recording: Recording, *, ttl_s: float, entries: int) -> Prediction:
    """Return what an exact response cache would have done: same model, settings, tools and messages.

    Source: A9, A10, C49, E48; X15 (what belongs to the key)
    """
    seen = traffic(recording)
    calls, keys = asked(seen)
    cold, warm = warm_and_cold(calls, keys, ttl_s=ttl_s, entries=entries)
    outcomes = (
        without_calls(calls, warm, FAST_HIT_MS, FAST_PIECE_MS),
        without_calls(calls, cold, SLOW_HIT_MS, SLOW_PIECE_MS),
    )
    assumptions = (
        *WARMTH,
        READING,
        "all calls come from one caller, and arrive when they were recorded",
        ON_PATH,
        *priced_note(seen),
    )
    not_modelled = (
        "whether an answer may be given again: the same user's rights, data that has not changed",
        "agents that go on alike after the same answer, and so ask the same again",
    )
    made = effects(seen, outcomes, assumptions=assumptions, not_modelled=not_modelled)
    good = calls["error_type"].isna()
    unlike = calls["prompt_digest"].fillna(calls["request_digest"])[good].nunique()
    return Prediction(
        (*made, hit_rate(calls, cold, warm)),
        f"{int(good.sum())} answers to {unlike} different prompts; {int((cold & good).sum())} of them would have come from an empty cache, {int((warm & good).sum())} from a warm one",
        assumptions,
        not_modelled,
        _repeated(calls, keys, cold),
    )


def asked(seen: Traffic) -> tuple[pd.DataFrame, list[Any]]:
    """Return the calls a response cache is asked for, failed ones included, and the key of each.

    Left out are calls that want variety (several answers, a temperature above 1). Raises NotMeasured where no prompt's
    digest is known.
    """
    calls = seen.calls[seen.calls["operation"].isin(GENERATING)]
    digest = calls["request_digest"].fillna(calls["prompt_digest"])
    if digest.isna().all():
        raise NotMeasured("no prompt's digest", hint=HOW_TO_SEE_PROMPTS)
    calls = calls[digest.notna() & (calls["choices"] == 1) & ~(calls["temperature"] > 1)]
    digest = digest[calls.index]
    names = ("provider", "path", "request_model", "stream", "temperature", "max_tokens")
    columns = [digest, *(calls[name] for name in names)]
    rows = zip(*(column.astype(object).where(column.notna(), None) for column in columns), strict=True)
    return calls, list(rows)


def warm_and_cold(
    calls: pd.DataFrame, keys: Sequence[Any], *, ttl_s: float, entries: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which calls a cache would have answered that is empty at the start, and one that knows what comes again."""
    starts, ends = calls["start_time"].tolist(), calls["end_time"].tolist()
    keeps = is_kept(calls)
    times = Counter(keys)
    known = [key for key, count in reversed(times.most_common()) if count > 1]
    run = partial(replay, keys, starts, ends, ttl_s=ttl_s, entries=entries, keeps=keeps)
    cold = run() != -1
    return cold, run(known=known) != -1


def is_kept(calls: pd.DataFrame) -> list[bool]:
    """Return which answers a cache keeps: whole and good ones."""
    odd = calls["finish_reason"].fillna("stop").isin(("content_filter", "error"))
    gone = calls["client_disconnected"].fillna(False).astype(bool)
    kept: list[bool] = (calls["error_type"].isna() & ~odd & ~gone).tolist()
    return kept


def without_calls(calls: pd.DataFrame, is_hit: np.ndarray, hit_ms: float, piece_ms: float) -> Outcome:
    """Return the outcome in which the calls marked were answered by a cache within ``hit_ms``.

    A stream then comes all at once, and the app takes ``piece_ms`` for each of its tokens.
    """
    hits = calls[is_hit]
    first = hits["time_to_first_token_ms"].fillna(0.0)
    made = pd.DataFrame({"usd": 0.0, "input_tokens": 0.0, "output_tokens": 0.0}, hits.index)
    made["usd"] = made["usd"].where(hits["cost_usd"].notna())
    made["wait_ms"] = (first - hit_ms).where(first > 0, 0.0)
    read = piece_ms * hits["output_tokens"].fillna(0.0)
    made["rest_ms"] = hits["duration_ms"] - first - np.where(first > 0, read, hit_ms)
    return Outcome(made)


def hit_rate(calls: pd.DataFrame, cold: np.ndarray, warm: np.ndarray) -> Estimate:
    """Return the part of good answers that a cache gave, and would have given."""
    good = calls["error_type"].isna().to_numpy()
    before = (calls["answered_by"] == "cache").fillna(False).to_numpy(bool)
    rates = [float(each[good].mean()) if good.any() else 0.0 for each in (before, cold, warm)]
    return Estimate("hit_rate", rates[0], min(rates[1:]), max(rates[1:]), WARMTH)


def _repeated(calls: pd.DataFrame, keys: Sequence[Any], is_hit: np.ndarray) -> pd.DataFrame:
    frame = calls.assign(prompt=[key[0] for key in keys], hit=is_hit, saved_usd=calls["cost_usd"].where(is_hit, 0.0))
    by_prompt = frame.groupby("prompt").agg(
        model=("model", "first"), calls=("hit", "size"), hits=("hit", "sum"), saved_usd=("saved_usd", "sum")
    )
    return by_prompt.sort_values(["hits", "saved_usd"], ascending=False, kind="stable").head(50).reset_index()


@change(
    "embedding_cache",
    title="Embed each text once",
    causes=("no-embedding-cache", "slow-embedding"),
    parameters=(
        Parameter("ttl_s", "Kept for", 3600, "s", 1, 31_536_000, 1),
        Parameter("entries", "Entries at most", 10_000, "texts", 1, 100_000_000, 1),
    ),
    policy=lambda setting: {"embedding_cache": {"ttl_s": setting["ttl_s"], "entries": setting["entries"]}},
)
def embedding_cache(recording: Recording, *, ttl_s: float, entries: int) -> Prediction:
    """Return what a cache of embeddings by model and text would have done; a call is asked only for what it lacks.

    Source: A11, E49; X17, X73 (what belongs to the key)
    """
    seen = traffic(recording)
    calls = seen.calls[seen.calls["operation"] == "embeddings"]
    if calls.empty:
        raise NotMeasured("no text was embedded", hint="record while texts are embedded, through perfnb's proxy")
    texts = _texts(seen, calls)
    keys = list(zip(texts["model"], texts["digest"], strict=True))
    cold, warm = warm_and_cold(calls.loc[texts["call_id"]], keys, ttl_s=ttl_s, entries=entries)
    outcomes = (
        _without_texts(seen, texts, warm, FAST_HIT_MS, all_of_it=True),
        _without_texts(seen, texts, cold, SLOW_HIT_MS, all_of_it=False),
    )
    assumptions = (
        *WARMTH,
        "a call that lacks some texts takes as long as before (high) or its part of that (low)",
        ON_PATH,
        *priced_note(seen),
    )
    made = effects(seen, outcomes, assumptions=assumptions, not_modelled=())
    rate = Estimate("hit_rate", 0.0, float(min(cold.mean(), warm.mean())), float(max(cold.mean(), warm.mean())), WARMTH)
    return Prediction(
        (*made, rate),
        f"{len(texts)} texts in {texts['call_id'].nunique()} calls, {texts['digest'].nunique()} different; {int(cold.sum())} would have come from an empty cache, {int(warm.sum())} from a warm one",
        assumptions,
        frame=texts.assign(hit=cold).groupby(["model", "digest"]).agg(calls=("hit", "size"), hits=("hit", "sum"), tokens=("tokens", "first"))
        .sort_values(["hits", "tokens"], ascending=False, kind="stable").head(50).reset_index(),
    )  # fmt: skip


def _texts(seen: Traffic, calls: pd.DataFrame) -> pd.DataFrame:
    """Return one row per embedded text, by start of its call: call_id, model, digest, tokens, and part (of its call)."""
    messages = seen.messages(calls)
    rows = [
        (call_id, model, entry["digest"], float(entry["tokens"]))
        for call_id, model in zip(calls.index, calls["model"].fillna(""), strict=True)
        for entry in messages.get(call_id, ())
    ]
    texts = pd.DataFrame(rows, columns=["call_id", "model", "digest", "tokens"])
    total = texts.groupby("call_id")["tokens"].transform("sum")
    count = texts.groupby("call_id")["tokens"].transform("size")
    return texts.assign(part=(texts["tokens"] / total).where(total > 0, 1 / count))


def _without_texts(
    seen: Traffic, texts: pd.DataFrame, is_hit: np.ndarray, hit_ms: float, *, all_of_it: bool
) -> Outcome:
    known = texts.assign(gone=texts["part"].where(is_hit, 0.0), hit=is_hit).groupby("call_id", sort=False)
    part, whole = known["gone"].sum().clip(upper=1.0), known["hit"].all()
    part = part.where(~whole, 1.0)
    part = part[part > 0]
    calls, whole = seen.calls.loc[part.index], whole[part.index]
    kept = calls["input_tokens"] * (1 - part)
    made = pd.DataFrame({"usd": usd_with(seen, calls, input_tokens=kept), "input_tokens": kept})
    made["usd"] = made["usd"].where(~whole | calls["cost_usd"].isna(), 0.0)
    some = calls["duration_ms"] * part if all_of_it else 0.0
    made["rest_ms"] = (calls["duration_ms"] - hit_ms).where(whole, some)
    return Outcome(made)
