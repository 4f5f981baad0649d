"""A cache that answers questions that mean the same as one before: its hits, and the pairs for a person to judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from cachetools import TTLCache

from perfnb.errors import NotMeasured
from perfnb.estimates.caching import (
    ENTRIES,
    FAST_HIT_MS,
    FAST_PIECE_MS,
    READING,
    SLOW_HIT_MS,
    SLOW_PIECE_MS,
    TTL,
    asked,
    hit_rate,
    is_kept,
    warm_and_cold,
    without_calls,
)
from perfnb.estimates.change import Parameter, Prediction, Setting, change
from perfnb.estimates.effects import ON_PATH, Outcome, effects, priced_note
from perfnb.estimates.replay import replay
from perfnb.estimates.similarity import lexical_vector
from perfnb.estimates.traffic import Entry, Traffic, traffic
from perfnb.recording import Recording

Similarity = Callable[[str, str], float]

FAST_EMBEDDING_MS, SLOW_EMBEDDING_MS = 20.0, 200.0
"""What embedding a question takes where the recording holds no embeddings call: an assumption, named where used."""

NEEDS_TEXT = "texts of the prompts: perfnb record --content full (they stay on this machine), then estimate again"


def _policy(setting: Setting) -> Mapping[str, Any]:
    kept = {name: setting[name] for name in ("ttl_s", "entries", "threshold", "embedding_model") if setting[name]}
    return {"response_cache": {"mode": "semantic", **kept}}


@change(
    "semantic_cache",
    title="Keep answers and give them again to questions that mean the same",
    causes=("no-response-cache",),
    parameters=(
        Parameter("threshold", "Similarity from which on", 0.9, "cosine", 0.5, 1.0, 0.01),
        TTL,
        ENTRIES,
        Parameter("embedding_model", "Embedding model", None),
        Parameter("similarity", "Similarity of two texts", None),
    ),
    policy=_policy,
)
def semantic_cache(
    recording: Recording,
    *,
    threshold: float,
    ttl_s: float,
    entries: int,
    embedding_model: str | None,
    similarity: Similarity | None,
) -> Prediction:
    """Return what a semantic response cache would have done, and the pairs of questions it would have taken for one.

    All but the last user message must be the same. ``similarity`` takes two texts and returns 0 to 1; by default the
    words the texts share, which is not what an embedding sees. Raises NotMeasured where texts were not recorded.

    Source: B26; X28 (false hits: a wrong answer for a number, a negation, another tenant)
    """
    if recording.content != "full":
        raise NotMeasured("the recording holds no texts", hint=NEEDS_TEXT)
    seen = traffic(recording)
    calls, exact_keys = asked(seen)
    questions = _Questions.of(seen, calls, exact_keys, ttl_s, threshold, similarity)
    times = {"starts": calls["start_time"].tolist(), "ends": calls["end_time"].tolist(), "keeps": is_kept(calls)}
    numbers = range(len(calls))
    cold = replay(numbers, find=questions.find, ttl_s=ttl_s, entries=entries, **times)
    pairs = _pairs(calls, questions, cold)
    is_cold = cold != -1
    exact, warm = warm_and_cold(calls, exact_keys, ttl_s=ttl_s, entries=entries)
    least, most = (exact, is_cold | warm) if similarity is None else (is_cold, is_cold | warm)
    fast, slow = _embedding_ms(seen, embedding_model)
    outcomes = (
        _outcome(calls, most, exact, fast, (FAST_HIT_MS, FAST_PIECE_MS)),
        _outcome(calls, least, exact, slow, (SLOW_HIT_MS, SLOW_PIECE_MS)),
    )
    assumptions = (*_assumptions(similarity, threshold, fast, slow), READING, ON_PATH, *priced_note(seen))
    not_modelled = (
        "whether the answer given fits the question: judge the pairs, most doubtful first",
        "the dollars of embedding each question",
        *(("paraphrases in other words, which an embedding would see: give similarity=your function",) if similarity is None else ()),
    )  # fmt: skip
    made = effects(seen, outcomes, assumptions=assumptions, not_modelled=not_modelled)
    return Prediction(
        (*made, hit_rate(calls, least, most)),
        f"{len(calls)} questions in {questions.scopes} surroundings (same model, settings and other messages); {len(pairs)} would have been given the answer to another one",
        assumptions,
        not_modelled,
        pairs,
        {"similarity": similarity or "lexical"},
    )


@dataclass
class _Questions:
    """The last user message of each call, and what must be the same around it."""

    texts: Sequence[str | None]
    around: Sequence[Any]
    exact: Sequence[Any]
    ends: Sequence[int]
    starts: Sequence[int]
    ttl_s: float
    threshold: float
    similarity: Similarity | None
    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    before: dict[Any, list[int]] = field(default_factory=dict)
    alike: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        seen: Traffic,
        calls: pd.DataFrame,
        exact: Sequence[Any],
        ttl_s: float,
        threshold: float,
        similarity: Similarity | None,
    ) -> "_Questions":
        messages = seen.messages(calls)
        found = [_question(messages.get(call_id, [])) for call_id in calls.index]
        if all(text is None for text, _ in found):
            raise NotMeasured("no prompt ends with a user's text", hint=NEEDS_TEXT)
        tools = calls["tool_names"].astype(object).where(calls["tool_names"].notna(), None)
        around = [(*key[1:], each, tool) for key, (_, each), tool in zip(exact, found, tools, strict=True)]
        times = {"ends": calls["end_time"].tolist(), "starts": calls["start_time"].tolist()}
        texts = [text for text, _ in found]
        return cls(texts, around, exact, ttl_s=ttl_s, threshold=threshold, similarity=similarity, **times)

    @property
    def scopes(self) -> int:
        """Return in how many different surroundings questions were asked."""
        return len(set(self.around))

    def find(self, number: int, cache: "TTLCache[Any, int]") -> int | None:
        """Return the earlier call whose kept answer a semantic cache would give to this one."""
        text, scope = self.texts[number], self.around[number]
        earlier = self.before.setdefault(scope, [])
        oldest = self.starts[number] - self.ttl_s * 1e9
        while earlier and self.ends[earlier[0]] < oldest:
            self.vectors.pop(earlier.pop(0), None)
        kept = [each for each in earlier if each in cache]
        earlier.append(number)
        for each in reversed(kept):
            if self.exact[each] == self.exact[number]:
                self.alike[number] = 1.0
                return each
        if text is None or not kept:
            return None
        alike = self._alike(number, kept)
        best = len(kept) - 1 - int(np.argmax(alike[::-1]))
        if alike[best] < self.threshold:
            return None
        self.alike[number] = float(alike[best])
        return kept[best]

    def _alike(self, number: int, kept: list[int]) -> np.ndarray:
        text = self.texts[number]
        if self.similarity is not None:
            return np.array([self.similarity(text or "", self.texts[each] or "") for each in kept])
        for each in (*kept, number):
            if each not in self.vectors:
                self.vectors[each] = lexical_vector(self.texts[each] or "")
        return np.asarray(np.array([self.vectors[each] for each in kept]) @ self.vectors[number])


def _question(messages: Sequence[Entry]) -> tuple[str | None, tuple[str, ...]]:
    """Return the text of the last message, if it is a user's and all text, and the digests of those before."""
    last = messages[-1] if messages else {}
    is_text = last.get("role") in ("user", "prompt") and not last.get("other_parts")
    return (last.get("text") if is_text else None), tuple(entry["digest"] for entry in messages[:-1])


def _pairs(calls: pd.DataFrame, questions: _Questions, given: np.ndarray) -> pd.DataFrame:
    """Return what would have been answered by the answer to another question, the least alike first."""
    rows = [
        (calls.index[number], questions.alike[number], questions.texts[number], questions.texts[giver],
         calls.index[giver], (calls["start_time"].iloc[number] - calls["end_time"].iloc[giver]) / 1e9)
        for number, giver in enumerate(given.tolist())
        if giver >= 0 and questions.exact[number] != questions.exact[giver]
    ]  # fmt: skip
    columns = ["call_id", "similarity", "question", "answered_as", "answer_of", "age_s"]
    return pd.DataFrame(rows, columns=columns).sort_values("similarity", kind="stable", ignore_index=True)


def _embedding_ms(seen: Traffic, model: str | None) -> tuple[float, float]:
    calls = seen.calls[(seen.calls["operation"] == "embeddings") & seen.calls["error_type"].isna()]
    calls = calls[calls["model"] == model] if model else calls
    if calls.empty:
        return FAST_EMBEDDING_MS, SLOW_EMBEDDING_MS
    return float(calls["duration_ms"].quantile(0.25)), float(calls["duration_ms"].quantile(0.75))


def _outcome(
    calls: pd.DataFrame, is_hit: np.ndarray, is_exact: np.ndarray, embedding_ms: float, hit: tuple[float, float]
) -> Outcome:
    """Return what calls would have been: every question that is not word for word a known one is embedded first."""
    hits = without_calls(calls, is_hit, *hit).calls
    misses = pd.DataFrame({"wait_ms": 0.0}, calls.index[~is_hit])
    made = pd.concat([hits, misses])
    embedded = pd.Series(np.where(is_exact, 0.0, embedding_ms), calls.index)
    made["wait_ms"] = made["wait_ms"] - embedded[made.index]
    return Outcome(made)


def _assumptions(similarity: Similarity | None, threshold: float, fast: float, slow: float) -> tuple[str, ...]:
    lexical = (
        "similarity is lexical (shared words), a stand-in for an embedding's",
        f"low: every pair at {threshold:g} or more would be a hit, and what comes again word for word was known before; high: only prompts that come again word for word, from an empty cache",
    )
    given = (
        "low: what comes again word for word was known before the recording began",
        "high: an empty cache at the start",
    )
    return (
        *(lexical if similarity is None else given),
        f"embedding a question takes {fast:.0f} to {slow:.0f} ms, a hit {FAST_HIT_MS:.0f} to {SLOW_HIT_MS:.0f} ms more",
        "all calls come from one caller, and arrive when they were recorded",
    )
