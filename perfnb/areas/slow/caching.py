"""Are the same questions paid for twice, and does a cache that is there answer them?"""

import pandas as pd

from perfnb.areas.dollars import in_dollars, spending, unless_it_costs
from perfnb.attribution import (
    GENERATING,
    HOW_TO_SEE_PROMPTS,
    calls_on_path,
    observed,
    prepare,
    share_of_all_waits,
    share_of_wait,
)
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Estimate, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

KEEP_ANSWERS = "Cache answers by model, parameters, system prompt, tools, tenant and messages, with a TTL and a bound (start with 300 s, 1000 entries)."


def repeats(recording: Recording) -> pd.DataFrame:
    """Return answers to prompts that had been answered before: call_id, request_id, prompt_digest, age_s, on_path_ms.

    Identical in messages, tools and model; retries and calls still under way do not count.
    """
    frame = calls_on_path(recording)
    frame = frame[frame["operation"].isin(GENERATING) & frame["error_type"].isna() & frame["prompt_digest"].notna()]
    frame = frame.sort_values("start_time")
    first_end = frame.groupby(["prompt_digest", "request_model"])["end_time"].transform("first")
    again = frame[frame["start_time"] >= first_end]
    return again.assign(age_s=(again["start_time"] - first_end.loc[again.index]) / 1e9)[
        ["call_id", "request_id", "prompt_digest", "request_model", "age_s", "duration_ms", "on_path_ms"]
    ]


def cache_answers(recording: Recording) -> pd.DataFrame:
    """Return what caches said: source (header, span, metric), hits, misses; empty where no cache is seen."""
    observed(recording)
    frames = [
        recording.query(
            "SELECT 'header' AS source, count(*) FILTER (cache_status = 'hit') AS hits, "
            "count(*) FILTER (cache_status = 'miss') AS misses FROM observed_http_requests WHERE cache_status IS NOT NULL"
        ),
        recording.query(
            "SELECT 'span' AS source, count(*) FILTER (cache_hit) AS hits, count(*) FILTER (NOT cache_hit) AS misses "
            "FROM observed_spans WHERE cache_hit IS NOT NULL"
        ),
        recording.query(_COUNTERS),
    ]
    frame = pd.concat(frames)
    return frame[(frame["hits"].fillna(0) + frame["misses"].fillna(0)) > 0]


# Counters of the app's own cache, by the names Prometheus users give them; read twice and subtracted.
_COUNTERS = """
SELECT 'metric' AS source, sum(grown) FILTER (metric LIKE '%hit%') AS hits, sum(grown) FILTER (metric LIKE '%miss%') AS misses
FROM (SELECT metric, max(value) - min(value) AS grown FROM observed_samples
      WHERE metric LIKE '%cache%' AND (metric LIKE '%hit%' OR metric LIKE '%miss%') AND metric NOT LIKE '%rate%'
        AND metric NOT LIKE '%ratio%' GROUP BY entity, metric, CAST(attributes AS VARCHAR))
"""


def paid_again(recording: Recording) -> pd.DataFrame:
    """Return calls whose very prompt the same model had answered before, with their cost; see ``Spending``."""
    frame = spending(recording).answers
    return frame[frame["call_id"].isin(recording.query(_ANSWERED_BEFORE)["call_id"])]


# Looked for among all calls, whatever part of them stands for the rest.
_ANSWERED_BEFORE = f"""
SELECT call_id FROM (
    SELECT call_id, start_time,
           first_value(end_time) OVER (PARTITION BY prompt_digest, request_model ORDER BY start_time, call_id) AS answered
    FROM model_calls
    WHERE prompt_digest IS NOT NULL AND answered_by IS NULL AND error_type IS NULL AND operation IN {GENERATING})
WHERE start_time >= answered
"""


def no_response_cache_cost(
    recording: Recording, objectives: Objectives, *, min_repeats: float = 0.2, least: int = 5, min_share: float = 0.1
) -> Finding | Clear:
    """Return whether answers that had been given before are a fair part of the dollars, and no cache is there."""
    spent = spending(recording)
    if spent.answers["prompt_digest"].isna().all():
        raise NotMeasured("no prompt's digest", hint=HOW_TO_SEE_PROMPTS)
    again = paid_again(recording)
    cost, part = float(again["cost"].sum()), len(again) / max(1, len(spent.answers))
    said = f"{len(again)} of {len(spent.answers)} prompts had been answered before"
    if len(again) < least or part < min_repeats or spent.share(cost) < min_share:
        return Clear(f"{said} ({spent.share(cost):.0%} of the dollars)")
    if not cache_answers(recording).empty:
        return Clear(f"a cache is there; it is judged by cache-misses ({said})")
    return spent.finding(
        cost,
        miss=part / min_repeats * 1.5,
        title=said,
        evidence=(f"{again['prompt_digest'].nunique()} prompts come again, the most frequent {again['prompt_digest'].value_counts().iloc[0] + 1} times; no cache was seen",),
        remedy=KEEP_ANSWERS,
        effort="medium",
        frame=again["prompt_digest"].value_counts().head(20).rename("repeats").reset_index(),
        figure="repeats",
        exemplars=tuple(again.nlargest(3, "cost")["request_id"].dropna()),
    )  # fmt: skip


@check("no-response-cache", area="slow", also={"costs": no_response_cache_cost})
def no_response_cache(
    recording: Recording, objectives: Objectives, *, min_repeats: float = 0.2, least: int = 5, min_share: float = 0.1
) -> Finding | Clear:
    """The same prompts are answered by the model again and again (R18).

    Source: A9, A10, B26, C49, C60, E47, E48, E75
    """
    frame = calls_on_path(recording)
    frame = frame[frame["operation"].isin(GENERATING) & frame["error_type"].isna()]
    if frame["prompt_digest"].isna().all():
        raise NotMeasured("no prompt's digest", hint=HOW_TO_SEE_PROMPTS)
    again = repeats(recording)
    part = len(again) / max(1, len(frame))
    share = share_of_wait(recording, again["on_path_ms"].sum())
    seen = cache_answers(recording)
    if len(again) < least or part < min_repeats or share < min_share:
        clear = Clear(f"{len(again)} of {len(frame)} prompts had been answered before ({share:.0%} of the wait)")
        return unless_it_costs(clear, lambda: no_response_cache_cost(recording, objectives))
    if not seen.empty:
        return Clear(
            f"a cache is there; it is judged by cache-misses ({len(again)} of {len(frame)} prompts had been answered before)"
        )
    prompts = again["prompt_digest"].nunique()
    return Finding(
        title=f"{len(again)} of {len(frame)} prompts had been answered before",
        severity=severity(part / min_repeats * 1.5, share),
        share=share,
        evidence=(
            f"{prompts} prompts come again, the most frequent {again['prompt_digest'].value_counts().iloc[0] + 1} times, after {again['age_s'].median():.0f} s (median)",
            f"the repeats take {again['duration_ms'].median():.0f} ms each; no cache was seen",
        ),
        remedy=KEEP_ANSWERS,
        effort="medium",
        estimate=Estimate("request_duration_ms", float(again["duration_ms"].median()), 1.0, 20.0,
                          ("for repeated prompts only", "the answer may be reused: same user rights, same data")),
        frame=again["prompt_digest"].value_counts().head(20).rename("repeats").reset_index(),
        figure="repeats",
        exemplars=tuple(again.nlargest(3, "on_path_ms")["request_id"].dropna()),
        **in_dollars(recording, lambda: paid_again(recording)["cost"].sum()),
    )  # fmt: skip


@check("cache-misses", area="slow")
def cache_misses(
    recording: Recording, objectives: Objectives, *, least: int = 10, min_share: float = 0.05
) -> Finding | Clear:
    """A cache is there and seldom answers, although the same questions come again (R19).

    Source: B6, D18, D38
    """
    limit = objectives["cache_hit_rate"]
    seen = cache_answers(recording)
    if seen.empty:
        raise NotMeasured(
            "no cache was seen",
            hint="an X-Cache header seen by the front, a span attribute cache.hit, or hit and miss counters",
        )
    told = seen.iloc[0]
    lookups = float(told["hits"] or 0) + float(told["misses"] or 0)
    rate = float(told["hits"] or 0) / lookups
    possible, asked = _repeated_questions(recording)
    again = repeats(recording) if recording.has("llm_calls") else pd.DataFrame({"on_path_ms": [0.0]})
    share = share_of_wait(recording, again["on_path_ms"].sum())
    share = max(share, share_of_all_waits(recording, _wait_of_repeated_requests(recording)))
    if lookups < least or not limit.is_missed(rate) or possible < max(2 * rate, 0.2) or share < min_share:
        return Clear(
            f"{lookups:.0f} look-ups, {rate:.0%} hits; {possible:.0%} of {asked} questions had come before ({share:.0%} of the wait)"
        )
    return Finding(
        title=f"The cache answers {rate:.0%} of {lookups:.0f} look-ups, though {possible:.0%} of questions come again",
        severity=severity(limit.miss(max(rate, 0.05)), share),
        share=share,
        evidence=(
            f"{told['hits']:.0f} hits, {told['misses']:.0f} misses, told by a {told['source']}; objective {limit.value:.0%} (B6)",
            f"{possible:.0%} of {asked} questions had been asked before",
        ),
        remedy="Look at the key (a timestamp, a request id or unsorted fields in it never match), at the TTL and at the size.",
        effort="low",
        figure="repeats",
    )


# Where answers tell of a cache, requests of other routes (uploads, say) are none that it could have answered.
_CACHED = """
(route IN (SELECT route FROM observed_http_requests WHERE cache_status IS NOT NULL)
 OR NOT EXISTS (SELECT 1 FROM observed_http_requests WHERE cache_status IS NOT NULL))
"""


def _repeated_questions(recording: Recording) -> tuple[float, int]:
    """Return the part of questions that had come before, by request body, else by prompt, and how many there were."""
    bodies = (
        observed(recording)
        .query(
            "SELECT count(*) AS asked, count(DISTINCT body_digest) AS unlike FROM observed_http_requests "
            f"WHERE body_digest IS NOT NULL AND method <> 'GET' AND coalesce(phase, 'measure') = 'measure' AND {_CACHED}"
        )
        .iloc[0]
    )
    if bodies["asked"]:
        return float(1 - bodies["unlike"] / bodies["asked"]), int(bodies["asked"])
    if not recording.has("llm_calls"):
        return 0.0, 0
    asked = int(calls_on_path(recording)["operation"].isin(GENERATING).sum())
    return len(repeats(recording)) / max(1, asked), asked


def _wait_of_repeated_requests(recording: Recording) -> float:
    frame = prepare(recording).query(
        "SELECT coalesce(sum(duration_ms), 0) AS lost FROM (SELECT duration_ms, row_number() OVER (PARTITION BY body_digest "
        f"ORDER BY start_time) AS time FROM user_requests WHERE body_digest IS NOT NULL AND {_CACHED}) WHERE time > 1"
    )
    return float(frame["lost"].iloc[0])
