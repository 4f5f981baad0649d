"""What is paid twice: texts embedded again, and prompts whose beginning keeps the provider's cache from reading them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

import pandas as pd

from perfnb.areas.dollars import spending
from perfnb.areas.messages import Entry, prompts_of
from perfnb.areas.unseen_embeddings import unless_unseen
from perfnb.attribution import HOW_TO_SEE_PROMPTS
from perfnb.attribution.money import prepare_money
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.prompts.digest import CHARACTERS_PER_TOKEN, LONGER_OPENINGS, OPENING_CHARACTERS
from perfnb.prompts.sketch import containment
from perfnb.recording import Recording

# Inputs given as token numbers leave no text to tell them apart (their sketch is empty): whole requests are compared.
_EMBEDDED = """
WITH calls AS (
    SELECT m.call_id, m.request_id, coalesce(m.response_model, m.request_model) AS model, m.start_time, m.end_time,
           m.request_digest, m.input_tokens, p.cost_usd, m.messages,
           coalesce(json_array_length(json_extract(m.messages, '$[0].sketch')), 0) > 0 AS is_text
    FROM model_calls m JOIN priced_calls p ON p.call_id = m.call_id
    WHERE m.operation = 'embeddings' AND m.error_type IS NULL AND m.messages IS NOT NULL
),
inputs AS (
    SELECT c.* EXCLUDE (messages), json_extract_string(i.entry, '$.digest') AS digest,
           CAST(json_extract(i.entry, '$.tokens') AS DOUBLE) AS tokens
    FROM calls c, (SELECT call_id, unnest(CAST(messages AS JSON[])) AS entry FROM calls WHERE is_text) i
    WHERE i.call_id = c.call_id
    UNION ALL
    SELECT * EXCLUDE (messages), request_digest AS digest, CAST(input_tokens AS DOUBLE) AS tokens
    FROM calls WHERE NOT is_text AND request_digest IS NOT NULL
)
SELECT call_id, request_id, model, digest, start_time, cost_usd,
       tokens / nullif(sum(tokens) OVER (PARTITION BY call_id), 0) AS part,
       start_time >= min(end_time) OVER (PARTITION BY model, digest) AS is_again
FROM inputs ORDER BY start_time
"""


def embedded_texts(recording: Recording) -> pd.DataFrame:
    """Return one row per embedded text: call_id, request_id, model, digest, start_time, part (of its call), is_again.

    ``is_again``: an earlier call had already embedded the same text with the same model when this one began.
    """
    return prepare_money(recording).query(_EMBEDDED)


@check("no-embedding-cache", area="costs")
def no_embedding_cache(
    recording: Recording,
    objectives: Objectives,
    *,
    min_repeats: float = 0.2,
    least: int = 10,
    min_share: float = 0.04,
) -> Finding | Clear:
    """The same texts are embedded again and again, though their vectors never change (R26).

    Source: A11, E49, E76
    """
    spent = spending(recording)
    if spent.embeddings.empty:
        return unless_unseen(recording, Clear("no text was embedded"))
    texts = embedded_texts(recording)
    if texts.empty:
        raise NotMeasured("no embedded text's digest", hint=HOW_TO_SEE_PROMPTS)
    texts = texts.merge(spent.calls[["call_id", "cost"]], on="call_id")
    again = texts[texts["is_again"].astype(bool)]
    cost = float((again["part"] * again["cost"]).sum())
    repeats = len(again) / len(texts)
    if len(again) < least or repeats < min_repeats or spent.share(cost) < min_share:
        return Clear(
            f"{len(again)} of {len(texts)} texts had been embedded before; they are {spent.share(cost):.1%} of the dollars"
        )
    return spent.finding(
        cost,
        miss=repeats / min_repeats,
        title=f"{len(again)} of {len(texts)} embedded texts had been embedded before",
        evidence=(
            f"{again['digest'].nunique()} texts come again, the most frequent {again['digest'].value_counts().iloc[0] + 1} times, with the same model",
            f"embeddings are {spent.share(float(spent.embeddings['cost'].sum())):.0%} of the dollars",
        ),
        remedy="Keep vectors by model and SHA-256 of the text, in the database or a cache, and embed only what is not there; skip documents that have not changed.",
        effort="low",
        figure="embedded_again",
        estimate=spent.estimate(cost, 0.8 * cost, ("four fifths to all repeats are found",)),
        frame=again.groupby("digest").agg(repeats=("call_id", "count"), cost=("cost", "sum")).nlargest(20, "repeats").reset_index(),
        exemplars=tuple(again["request_id"].dropna().unique()[:3]),
    )  # fmt: skip


def lost_prefixes(
    recording: Recording, *, least_tokens: int = 1024, within_s: float = 300, back: int = 8, most_calls: int = 600
) -> pd.DataFrame:
    """Return, for prompts a prefix cache could read from, the tokens it could not, because something before them changes.

    Columns of ``Spending.calls`` and lost_tokens (same text as in a prompt before, after an early difference),
    cacheable_tokens (all that could be read), stands_for (calls of its model each row is looked at for). Compared are prompts of one model with those up to ``back`` before, at
    most ``within_s`` apart, as providers keep prefixes for some minutes; of very many, an evenly spread sample.
    """
    calls = spending(recording).answers
    long = calls[(calls["input_tokens"] >= least_tokens) & calls["cache_read_tokens"].notna()]
    model = long["provider"].fillna("") + "|" + long["model"].fillna("")
    rows = []
    for _, group in long.groupby(model):
        step = max(1, len(group) // most_calls)
        wanted = [[*range(max(0, at - back), at), at] for at in range(1, len(group), step)]
        prompts = prompts_of(recording, group["call_id"].iloc[sorted({n for ns in wanted for n in ns})])
        rows += [(*row, step) for ns in wanted if (row := _lost(group.iloc[ns], prompts, within_s)) is not None]
    names = ["call_id", "lost_tokens", "cacheable_tokens", "stands_for"]
    found = pd.DataFrame(rows, columns=names)
    found = found[found["cacheable_tokens"] >= least_tokens]
    return long.merge(found, on="call_id")


def _lost(calls: pd.DataFrame, prompts: Mapping[str, list[Entry]], within_s: float) -> tuple[str, float, float] | None:
    this = calls.iloc[-1]
    own = prompts.get(this["call_id"])
    if not own:
        return None
    recent = calls.iloc[:-1]
    recent = recent[this["start_time"] - recent["start_time"] <= within_s * 1e9]
    pairs = [_shared(prompts[each], own) for each in recent["call_id"] if prompts.get(each)]
    if not pairs:
        return None
    schemas = float(this["tool_schema_tokens"]) if pd.notna(this["tool_schema_tokens"]) else 0.0
    early, late = max(pairs, key=sum)
    readable = max(early + schemas, float(this["cache_read_tokens"]))
    cacheable = early + schemas + late
    return this["call_id"], max(0.0, min(late, cacheable - readable)), cacheable


def _shared(before: Sequence[Entry], now: Sequence[Entry]) -> tuple[float, float]:
    """Return the tokens two prompts share up to the first difference, and those they share after it."""
    same = list(takewhile(lambda pair: pair[0]["digest"] == pair[1]["digest"], zip(before, now, strict=False)))
    early = float(sum(entry["tokens"] for _, entry in same))
    if len(same) == len(now):
        return early, 0.0
    known = {entry["digest"] for entry in before[len(same) :]}
    late = float(sum(entry["tokens"] for entry in now[len(same) + 1 :] if entry["digest"] in known))
    if not same and before:
        stable, shared = _shared_in_first(before[0], now[0])
        return early + stable, late + shared
    return early, late


def _shared_in_first(before: Entry, now: Entry) -> tuple[float, float]:
    """Return the tokens two first messages share at their beginning, and at least after their first difference.

    Only where the difference is known to come early; retrieved passages, which change with the question, don't count.
    """
    characters = 0
    for size, one, other in _openings(before, now):
        if one != other:
            break
        characters = size
    else:
        return 0.0, 0.0
    stable = characters / CHARACTERS_PER_TOKEN
    same = containment(now.get("sketch") or (), before.get("sketch") or ()) * now["tokens"]
    return stable, max(0.0, min(same, now["tokens"] - now.get("passage_tokens", 0)) - stable)


def _openings(before: Entry, now: Entry) -> Iterator[tuple[int, str | None, str | None]]:
    yield OPENING_CHARACTERS, before.get("opening"), now.get("opening")
    yield from zip(LONGER_OPENINGS, before.get("openings") or (), now.get("openings") or (), strict=False)


@check("unstable-prompt-prefix", area="costs")
def unstable_prompt_prefix(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.08, least_calls: int = 5
) -> Finding | Clear:
    """Text that changes stands before text that does not, so that the provider's prefix cache reads none of it (R95).

    Source: platform.openai.com/docs/guides/prompt-caching (1,024 tokens at least, exact prefix matches, static content
    first); docs.anthropic.com, prompt caching
    """
    spent = spending(recording)
    calls = spent.answers
    if calls["cache_read_tokens"].isna().all():
        raise NotMeasured(
            "no call tells what the provider's cache read",
            hint="usage: ask streams for it (stream_options.include_usage)",
        )
    if calls["opening"].isna().all():
        raise NotMeasured("no prompt tells its messages", hint=HOW_TO_SEE_PROMPTS)
    found = lost_prefixes(recording)
    found = found[found["lost_tokens"] > 0.3 * found["cacheable_tokens"]]
    examined = int((calls["input_tokens"] >= 1024).sum())
    saved_each = found["lost_tokens"] * (found["fresh_price"] - found["cached_price"]).clip(lower=0)
    saved = float((saved_each * found["stands_for"]).sum())
    if len(found) < least_calls or spent.share(saved) < min_share:
        return Clear(
            f"{len(found)} of {examined} prompts of 1,024 tokens or more share text after an early difference; reading it from the provider's cache would save {spent.share(saved):.0%} of the dollars"
        )
    return spent.finding(
        saved,
        miss=2 * float(found["lost_tokens"].sum() / found["input_tokens"].sum()) + 1,
        title=f"{len(found)} of {examined} long prompts repeat {found['lost_tokens'].median():,.0f} tokens that the provider's cache can't read",
        evidence=(
            f"of {found['input_tokens'].median():,.0f} input tokens, {found['cache_read_tokens'].median():,.0f} were read from the cache and {found['cacheable_tokens'].median():,.0f} are the same as shortly before (medians)",
            "they stand after text that changes from call to call; a prefix cache reads only up to the first difference",
            f"cached input costs {(found['cached_price'] / found['fresh_price']).median():.0%} of fresh input",
        ),
        remedy="Put what never changes first (instructions, examples, tools), then history, and last what changes: the time, ids, retrieved passages, the question. Anthropic's cache needs cache_control marks besides.",
        effort="low",
        figure="prompt_cache",
        estimate=spent.estimate(saved, 0.5 * saved, ("half to all of the shared text is read from the cache",), ("prefixes that expire between calls",)),
        frame=found[["call_id", "model", "input_tokens", "cache_read_tokens", "cacheable_tokens", "lost_tokens"]].head(50),
        exemplars=tuple(found.nlargest(3, "lost_tokens")["request_id"].dropna()),
    )  # fmt: skip
