"""The answer itself: shorter, or shown while it is written."""

import numpy as np
import pandas as pd

from perfnb.errors import NotMeasured
from perfnb.estimates.change import Parameter, Prediction, change
from perfnb.estimates.dollars import usd_with
from perfnb.estimates.effects import ON_PATH, Outcome, effects, priced_note
from perfnb.estimates.speed import speeds
from perfnb.estimates.traffic import Traffic, traffic
from perfnb.recording import Recording

SEES_PIECES = ("front", "probe", "load")
"""Who sees whether the app sends its answer in pieces."""


@change(
    "output_cap",
    title="Let no answer be longer",
    causes=("no-output-limit", "verbose-reasoning", "deep-reasoning"),
    parameters=(Parameter("max_tokens", "Output tokens at most", 300, "tokens", 1, 1_000_000, 10),),
    policy=lambda setting: {"output_cap": {"max_tokens": setting["max_tokens"]}},
)
def output_cap(recording: Recording, *, max_tokens: int) -> Prediction:
    """Return what cutting every answer at ``max_tokens`` would have done; reasoning counts.

    Source: A13; OpenAI and Anthropic API references (max_completion_tokens, max_tokens)
    """
    seen = traffic(recording)
    calls = seen.sized()
    output = calls["output_tokens"]
    is_cut = output > max_tokens
    cut, gone = calls[is_cut], output[is_cut] - max_tokens
    left = np.minimum(cut["reasoning_tokens"].fillna(0), float(max_tokens))
    usd = usd_with(seen, cut, output_tokens=output[is_cut] - gone, reasoning_tokens=left)
    made = pd.DataFrame({"usd": usd, "output_tokens": output[is_cut] - gone})
    outcomes = [
        Outcome(made.assign(wait_ms=time.clip(lower=0) - rest, rest_ms=rest))
        for time, rest in _times(seen, cut, gone)
    ]  # fmt: skip
    assumptions = (
        "an answer that reaches the cap is cut there, and nobody asks again",
        "a stream's tokens take as long each as they did",
        *speeds(seen).told(cut[cut["time_to_first_token_ms"].isna()], "output"),
        ON_PATH,
        *priced_note(seen),
    )
    not_modelled = (
        "answers that are useless when cut, and asked for again",
        "prompts that grow less by shorter answers",
    )
    thinks = int((cut["reasoning_tokens"].fillna(0) >= max_tokens).sum())
    return Prediction(
        effects(seen, outcomes, assumptions=assumptions, not_modelled=not_modelled),
        f"{len(cut)} of {len(calls)} answers are longer than {max_tokens} tokens (longest {output.max():,.0f})"
        + (f"; {thinks} would end before they say anything, as reasoning takes it all" if thinks else ""),
        assumptions,
        not_modelled,
        cut[["request_id", "model", "output_tokens"]].assign(gone_tokens=gone).nlargest(50, "gone_tokens").reset_index(),
    )  # fmt: skip


def _times(seen: Traffic, cut: pd.DataFrame, gone: pd.Series) -> tuple[tuple[pd.Series, pd.Series], ...]:
    """Return, at most and at least, the time saved and how much of it after the first token."""
    least, most = speeds(seen).writing(cut, gone)
    after = (cut["duration_ms"] - cut["time_to_first_token_ms"]).fillna(cut["duration_ms"])
    return (most, np.minimum(most, after)), (least, np.minimum(least, after))


@change(
    "streaming",
    title="Show the answer while it is written",
    causes=("no-streaming", "late-first-content"),
)
def streaming(recording: Recording) -> Prediction:
    """Return how much earlier users would have seen the first words of answers that came in one piece.

    Source: A3, B11, E33
    """
    seen = traffic(recording)
    blind = _blind(seen)
    least, most = blind["least_ms"], blind["most_ms"]
    outcomes = [Outcome(pd.DataFrame({"early_ms": time})) for time in (most, least)]
    plain = blind[blind["why"] == "call"]
    told = speeds(seen).told(seen.calls.loc[plain.index], "output")
    assumptions = ("the app passes each piece on as it comes", *told, ON_PATH, *priced_note(seen))
    not_modelled = (
        "what the app does with the whole answer before it may be shown (checks, formatting)",
        "the app's own work for each piece, which makes others wait where its processor is busy",
    )
    return Prediction(
        effects(seen, outcomes, assumptions=assumptions, not_modelled=not_modelled),
        f"{len(blind)} of {len(_last_answers(seen))} answers to users came in one piece: {len(plain)} were not streamed by the model, {len(blind) - len(plain)} were held back by the app; total time stays the same",
        assumptions,
        not_modelled,
        blind.nlargest(50, "most_ms").reset_index(),
    )  # fmt: skip


def _last_answers(seen: Traffic) -> pd.DataFrame:
    """Return the call each request ended with, unless it asked for tools."""
    calls = seen.answers[seen.answers["request_id"].isin(seen.requests.index)]
    calls = calls[~calls["finish_reason"].fillna("").str.contains("tool")]
    return calls.sort_values("end_time").groupby("request_id").tail(1)


def _blind(seen: Traffic) -> pd.DataFrame:
    """Return the answers that came in one piece, and for how long at least and at most their words were there unseen."""
    last = _last_answers(seen)
    if last.empty or last["stream"].isna().all():
        raise NotMeasured("no call tells whether it streamed", hint="record through the proxy: --upstream URL")
    streamed = last["stream"].fillna(True).astype(bool)
    plain = last[~streamed].dropna(subset=["output_tokens"])
    least, most = _writing_time(seen, plain)
    made = plain[["request_id"]].assign(least_ms=least, most_ms=most, why="call")
    held = last[streamed & last["time_to_first_token_ms"].notna()]
    asked = seen.requests.reindex(held["request_id"])
    in_one_piece = asked["source"].isin(SEES_PIECES).to_numpy() & ~asked["stream"].fillna(True).astype(bool).to_numpy()
    held = held[in_one_piece]
    time = held["duration_ms"] - held["time_to_first_token_ms"]
    return pd.concat([made, held[["request_id"]].assign(least_ms=time, most_ms=time, why="app")])


def _writing_time(seen: Traffic, plain: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return how long each answer was written for, at least and at most: at streams' pace, else as fitted."""
    known = speeds(seen)
    least, most = known.writing(plain, (plain["output_tokens"] - 1).clip(lower=0))
    for model, calls in plain.groupby(plain["model"].fillna("")):
        slowest, fastest = known.first_token_ms(str(model), calls)
        least.update((calls["duration_ms"] - slowest).clip(lower=0).dropna())
        most.update((calls["duration_ms"] - fastest).clip(lower=0).dropna())
    return least, most
