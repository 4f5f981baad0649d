"""The models: how fast they write, and how soon they begin."""

import pandas as pd

from perfnb.areas.slow.provider import slow_episode
from perfnb.attribution import answers, share_of_wait
from perfnb.checklist import check
from perfnb.finding import Clear, Estimate, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

# What models of the fast class write, an assumption that estimates name: the floor and a usual figure, tokens/s.
QUICK_TOKENS_PER_S = (50, 100)

# A model that spends so much of its output on reasoning is deep-reasoning's.
REASONS = 0.3

# Times the objective from which on a model is late: our own figures, wide of it so that ordinary waits are none.
LATE = 3
LATE_EVEN_IF_EARLY = 2


def speed_by_model(recording: Recording) -> pd.DataFrame:
    """Return one row per model: model, calls, input_tokens, output_tokens, time_to_first_token_ms, duration_ms (medians),
    output_tokens_per_s (median), waiting_ms and generating_ms (sums on the critical path).
    """
    return _with_speed(answers(recording)).groupby("request_model").agg(
        calls=("call_id", "count"),
        input_tokens=("input_tokens", "median"),
        output_tokens=("output_tokens", "median"),
        reasoning_tokens=("reasoning_tokens", "median"),
        time_to_first_token_ms=("time_to_first_token_ms", "median"),
        duration_ms=("duration_ms", "median"),
        output_tokens_per_s=("speed", "median"),
        waiting_ms=("waiting_ms", "sum"),
        generating_ms=("generating_ms", "sum"),
    ).reset_index().rename(columns={"request_model": "model"})  # fmt: skip


def _with_speed(frame: pd.DataFrame) -> pd.DataFrame:
    """Add ``speed``: measured in streams, else the least speed that the whole call allows."""
    whole = frame["output_tokens"] / frame["duration_ms"].clip(lower=1) * 1000
    return frame.assign(speed=frame["output_tokens_per_s"].fillna(whole))


@check("slow-model", area="slow")
def slow_model(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.3, least_output_tokens: int = 20
) -> Finding | Clear:
    """The model writes more slowly than a reader waits for, or is late to begin, at ordinary prompt sizes and all the time (R6).

    A model that was quick earlier in the recording is the provider's trouble and left to provider-slow; the way to the
    provider is slow-network's.

    Source: D22, D23, B25, E26, E27, D36
    """
    models = speed_by_model(recording)
    slow = _slow_writers(recording, models, objectives, least_output_tokens)
    lost = (slow["generating_ms"] * (1 - slow["output_tokens_per_s"] / QUICK_TOKENS_PER_S[0]).clip(lower=0)).sum()
    share = share_of_wait(recording, lost)
    late = late_starts(recording, objectives)
    late_share = share_of_wait(recording, late["lost_ms"].sum())
    if max(share, late_share) < min_share:
        return Clear(
            f"{len(models)} models write {models['output_tokens_per_s'].min():.0f} tokens/s or faster; slow ones take {share:.0%} of the wait, those late to begin {late_share:.0%}"
        )
    if late_share > share:
        return _late_to_begin(late, objectives, late_share)
    worst, limit = slow.nlargest(1, "generating_ms").iloc[0], objectives["output_tokens_per_s"]
    return Finding(
        title=f"{worst['model']} writes {worst['output_tokens_per_s']:.0f} tokens/s",
        severity=severity(limit.miss(worst["output_tokens_per_s"]), share),
        share=share,
        evidence=(
            f"{worst['calls']:.0f} calls, {worst['input_tokens']:.0f} input and {worst['output_tokens']:.0f} output tokens, {worst['duration_ms']:.0f} ms (medians)",
            f"objective: at least {limit.value:.0f} tokens/s; models of the fast class write {QUICK_TOKENS_PER_S[0]} and more",
            "its speed is the same throughout the recording",
        ),
        remedy="Use a faster model where the task allows it, or route simple questions to one; check quality on your own prompts.",
        effort="medium",
        estimate=Estimate("call_duration_ms", float(worst["duration_ms"]), float(worst["output_tokens"] / QUICK_TOKENS_PER_S[1] * 1000),
                          float(worst["output_tokens"] / QUICK_TOKENS_PER_S[0] * 1000), ("a model that writes {} to {} tokens/s".format(*QUICK_TOKENS_PER_S),)),
        frame=models,
        figure="speed_by_model",
    )  # fmt: skip


def _slow_writers(
    recording: Recording, models: pd.DataFrame, objectives: Objectives, least_output_tokens: int
) -> pd.DataFrame:
    limit = objectives["output_tokens_per_s"]
    slow = models[
        (models["output_tokens_per_s"] < limit.value)
        & (models["output_tokens"] >= least_output_tokens)
        & (models["reasoning_tokens"].fillna(0) < REASONS * models["output_tokens"])
        & (models["calls"] >= 3)
    ]
    episode = slow_episode(recording)
    if episode is None:
        return slow
    return slow[slow["model"].map(lambda model: _usual_speed(recording, model, episode)) < limit.value]


def _usual_speed(recording: Recording, model: str, episode: tuple[int, int]) -> float:
    frame = answers(recording)
    outside = frame[(frame["request_model"] == model) & ~frame["start_time"].between(*episode)]
    return float(_with_speed(outside)["speed"].median()) if len(outside) else 0.0


def late_starts(recording: Recording, objectives: Objectives, *, least: int = 5) -> pd.DataFrame:
    """Return the models that are late to begin, whatever they are asked, as the proxy saw their streams.

    Columns: model, calls, start_ms (to the first token, without the way there), early_ms (first quartile of it),
    input_tokens (medians), lost_ms (waited on critical paths beyond the objective). Prompts over the context budget,
    models that reason, and recordings with a slow stretch are left to other causes.
    """
    frame, limit = answers(recording), objectives.value("time_to_first_token_ms")
    most = objectives["context_tokens"].acceptable or objectives.value("context_tokens")
    frame = frame[
        (frame["source"] == "proxy")
        & frame["time_to_first_token_ms"].notna()
        & (frame["input_tokens"].fillna(0) <= most)
        & (frame["reasoning_tokens"].fillna(0) < REASONS * frame["output_tokens"].fillna(0))
    ]
    way = (frame["time_to_first_byte_ms"] - frame["processing_ms"]).fillna(frame["connect_ms"]).fillna(0)
    start = frame["time_to_first_token_ms"] - way.clip(lower=0)
    frame = frame.assign(start_ms=start, lost_ms=frame["waiting_ms"] * (1 - limit / start.clip(lower=limit)))
    models = frame.groupby("request_model").agg(
        calls=("call_id", "count"),
        start_ms=("start_ms", "median"),
        early_ms=("start_ms", lambda values: values.quantile(0.25)),
        input_tokens=("input_tokens", "median"),
        lost_ms=("lost_ms", "sum"),
    )
    is_late = (models["start_ms"] >= LATE * limit) & (models["early_ms"] >= LATE_EVEN_IF_EARLY * limit)
    late = models[is_late & (models["calls"] >= least)]
    return (late if slow_episode(recording) is None else late.head(0)).rename_axis("model").reset_index()


def _late_to_begin(late: pd.DataFrame, objectives: Objectives, share: float) -> Finding:
    worst, limit = late.nlargest(1, "lost_ms").iloc[0], objectives["time_to_first_token_ms"]
    return Finding(
        title=f"{worst['model']} begins to answer after {worst['start_ms'] / 1000:.1f} s",
        severity=severity(limit.miss(worst["start_ms"]), share),
        share=share,
        evidence=(
            f"first token after {worst['start_ms']:.0f} ms (median of {worst['calls']:.0f} streams), a quarter of them after {worst['early_ms']:.0f} ms or sooner; objective {limit.value} ms",
            f"{worst['input_tokens']:.0f} input tokens (median): these are no long prompts; the way to the provider is left out where it is known",
            "it is so throughout the recording",
        ),
        remedy="Ask for the provider's faster tier or another region, or use a model that begins sooner; keep what stays first in the prompt, so that it is read from cache; show the user that something happens.",
        effort="medium",
        frame=late,
        figure="speed_by_model",
    )
