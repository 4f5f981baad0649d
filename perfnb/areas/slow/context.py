"""What is in the prompt, and how much of the wait it costs: context, passages, history."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from perfnb.areas.dollars import in_dollars, unless_it_costs
from perfnb.areas.exemplars import exemplars
from perfnb.areas.slow.surplus import (
    are_large,
    large_context_cost,
    long_history_cost,
    paid_for_context,
    paid_for_history,
    surplus_tokens,
    swings,
)
from perfnb.attribution import answers, share_of_wait
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Estimate, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

# Reading speed of hosted models, for recordings whose prompts are too alike to measure it: 10,000 tokens a second.
# An assumption, and said to be one wherever it is used.
ASSUMED_MS_PER_TOKEN = 0.1
ASSUMED_OUTPUT_TOKENS_PER_S = 60.0


@dataclass(frozen=True)
class ReadingSpeed:
    """Time a model takes per uncached input token, and whether this recording shows it or it was assumed."""

    ms_per_token: float
    is_measured: bool

    def __str__(self) -> str:
        return f"{self.ms_per_token * 1000:.0f} ms per 1,000 input tokens ({'measured here' if self.is_measured else 'assumed'})"


def latency_by_tokens(recording: Recording) -> pd.DataFrame:
    """Return each answer's input tokens and latency: call_id, model, input_tokens, time_to_first_token_ms, duration_ms."""
    frame = answers(recording)
    columns = ["call_id", "request_model", "input_tokens", "time_to_first_token_ms", "duration_ms"]
    return frame[columns].rename(columns={"request_model": "model"}).dropna(subset=["input_tokens"])


def reading_speed(recording: Recording) -> ReadingSpeed:
    """Return how much a further input token delays an answer: least squares over answers of unlike size."""
    speed: ReadingSpeed = recording.derived("reading speed", lambda: _reading_speed(_sized(recording)))
    return speed


def _reading_speed(frame: pd.DataFrame, *, least: int = 8, spread: float = 2.0, least_fit: float = 0.2) -> ReadingSpeed:
    slopes, weights = [], []
    for _, calls in frame.groupby(["request_model", "stream"], dropna=False):
        fresh = (calls["input_tokens"] - calls["cache_read_tokens"].fillna(0)).to_numpy(float)
        first = calls["time_to_first_token_ms"]
        streamed = first.notna().all()
        time = first.to_numpy(float) if streamed else calls["duration_ms"].to_numpy(float)
        if len(calls) < least or np.quantile(fresh, 0.9) < spread * max(1.0, np.quantile(fresh, 0.1)):
            continue
        parts = (
            [np.ones_like(fresh), fresh]
            if streamed
            else [np.ones_like(fresh), fresh, calls["output_tokens"].to_numpy(float)]
        )
        design = np.column_stack(parts)
        solution, *_ = np.linalg.lstsq(design, time, rcond=None)
        left = ((time - design @ solution) ** 2).sum()
        total = ((time - time.mean()) ** 2).sum()
        if total > 0 and 1 - left / total >= least_fit and solution[1] > 0:
            slopes.append(float(solution[1]))
            weights.append(len(calls))
    if not slopes:
        return ReadingSpeed(ASSUMED_MS_PER_TOKEN, False)
    return ReadingSpeed(float(np.average(slopes, weights=weights)), True)


def writing_time(recording: Recording, calls: pd.DataFrame) -> pd.Series:
    """Return the part of each unstreamed call's duration that passed after its first token, in ms.

    From streamed calls of the same model where there are any; else from how duration grows with output tokens; else
    from an assumed speed. Never more than nine tenths of the call.
    """
    streamed = answers(recording).dropna(subset=["output_tokens_per_s"])
    known = streamed.groupby("request_model")["output_tokens_per_s"].median()
    speed = calls["request_model"].map(known).astype(float)
    for model in calls.loc[speed.isna(), "request_model"].dropna().unique():
        speed[speed.isna() & (calls["request_model"] == model)] = _writing_speed(calls[calls["request_model"] == model])
    writing = (calls["output_tokens"] - 1).clip(lower=0) / speed.fillna(ASSUMED_OUTPUT_TOKENS_PER_S) * 1000
    return writing.clip(upper=0.9 * calls["duration_ms"])


def _writing_speed(calls: pd.DataFrame, *, least: int = 8) -> float:
    """Return tokens per second from how duration grows with output tokens; NaN where it does not show."""
    output, duration = calls["output_tokens"].to_numpy(float), calls["duration_ms"].to_numpy(float)
    if len(calls) < least or np.ptp(output) < 20:
        return float("nan")
    slope = np.polyfit(output, duration, 1)[0]
    return 1000 / slope if 1 <= slope <= 500 else float("nan")


def _sized(recording: Recording) -> pd.DataFrame:
    frame = answers(recording).dropna(subset=["input_tokens", "output_tokens"])
    if frame.empty:
        raise NotMeasured(
            "no call tells its input tokens",
            hint="usage: record through the proxy (--upstream), or GenAI spans with usage",
        )
    return frame


def prompt_parts(recording: Recording, objectives: Objectives) -> pd.DataFrame:
    """Return, per answer, the input tokens beyond budget and whom they belong to.

    Columns of :func:`perfnb.attribution.answers` and documents_excess, history_excess, context_excess (tokens): each
    token over budget is blamed once, on too many passages, then on history, then on the context as a whole. Tokens
    the provider read from its cache are not slow and not counted.
    """
    return surplus_tokens(_sized(recording), objectives)


def _lost_ms(recording: Recording, frame: pd.DataFrame, excess: pd.Series) -> pd.Series:
    """Return the wait that ``excess`` tokens cost each call, bounded by what of it lay on the critical path."""
    bound = frame["on_path_ms"].where(frame["time_to_first_token_ms"].isna(), frame["waiting_ms"])
    return (excess * reading_speed(recording).ms_per_token).clip(upper=bound)


@check("large-context", area="slow", also={"costs": large_context_cost})
def large_context(recording: Recording, objectives: Objectives, *, min_share: float = 0.08) -> Finding | Clear:
    """Prompts are larger than the task needs, and the model reads all of it before its first word (R3).

    Judged are kinds of calls (model, tools, system prompt) that are large as a rule, and single calls over what is
    acceptable; tokens of surplus passages and long history are left to their own checks, kinds of calls whose latency
    swings with their size to varying-context. What hardly delays may still cost: cause enough where it is a fair part of
    the dollars.

    Source: A5, B24, D17, D23, D36, E31
    """
    limit = objectives["context_tokens"]
    frame = prompt_parts(recording, objectives)
    varying = _varying(recording, objectives, frame)
    without = frozenset(varying["call_id"])
    large = frame[
        are_large(frame, "shape", objectives) & (frame["context_excess"] > 0) & ~frame["call_id"].isin(without)
    ]
    lost = _lost_ms(recording, large, large["context_excess"])
    share = share_of_wait(recording, lost.sum())
    if len(large) < 3 or share < min_share:
        clear = f"{len(large)} of {len(frame)} prompts are over {limit.value} tokens as a rule, or over {limit.acceptable:.0f} themselves; reading the surplus takes {share:.0%} of the wait"
        return unless_it_costs(Clear(clear), lambda: large_context_cost(recording, objectives, without=without))
    tokens = large["input_tokens"].median()
    first = large["time_to_first_token_ms"].fillna(large["duration_ms"])
    return Finding(
        title=f"{len(large)} of {len(frame)} prompts hold {tokens:,.0f} tokens (median)",
        severity=severity(limit.miss(tokens), share),
        share=share,
        evidence=(
            f"{tokens:,.0f} input tokens (median), budget {limit.value:,} (B24, D17; {limit.acceptable:,.0f} at most, D13)",
            f"reading takes {reading_speed(recording)}; the surplus costs {lost.median():.0f} ms a call",
        ),
        remedy="Cap the context by tokens, drop repeated text, send passages instead of whole documents.",
        effort="low",
        estimate=Estimate("time_to_first_token_ms", float(first.median()), float((first - lost).clip(lower=0).quantile(0.25)),
                          float((first - 0.5 * lost).median()), (str(reading_speed(recording)),)),
        frame=large[["call_id", "request_model", "input_tokens", "time_to_first_token_ms", "duration_ms"]].head(50),
        figure="latency_by_tokens",
        exemplars=exemplars(large, "input_tokens"),
        **in_dollars(recording, lambda: _paid_by(recording, objectives, large)),
    )  # fmt: skip


@check("too-many-documents", area="slow")
def too_many_documents(recording: Recording, objectives: Objectives, *, min_share: float = 0.05) -> Finding | Clear:
    """More passages are retrieved and put into the prompt than an answer can use (R4).

    Source: A6, E21, E22, E72, E82
    """
    limit = objectives["retrieved_documents"]
    frame = prompt_parts(recording, objectives)
    if frame["passages"].isna().all():
        raise NotMeasured(
            "no prompt tells its passages",
            hint="see prompts: perfnb record --upstream URL, or GenAI spans with message contents",
        )
    many = frame[frame["documents_excess"] > 0]
    share = share_of_wait(recording, _lost_ms(recording, many, many["documents_excess"]).sum())
    if len(many) < 3 or share < min_share:
        return Clear(
            f"{len(many)} of {len(frame)} prompts hold more than {limit.acceptable:.0f} passages; reading them takes {share:.0%} of the wait"
        )
    passages = many["passages"].median()
    return Finding(
        title=f"{len(many)} of {len(frame)} prompts hold {passages:.0f} retrieved passages",
        severity=severity(limit.miss(passages), share),
        share=share,
        evidence=(
            f"{passages:.0f} passages with {many['passage_tokens'].median():,.0f} tokens (medians); {limit.value} are usual (A6, E21), {limit.acceptable:.0f} the most (E22)",
            f"reading takes {reading_speed(recording)}",
        ),
        remedy="Retrieve wide, keep those above a score, send the best 3 to 5.",
        effort="low",
        frame=many[["call_id", "passages", "passage_tokens", "input_tokens", "time_to_first_token_ms"]].head(50),
        figure="latency_by_tokens",
        exemplars=exemplars(many, "passages"),
    )


@check("long-history", area="slow", also={"costs": long_history_cost})
def long_history(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.05, min_calls: float = 0.1
) -> Finding | Clear:
    """Conversations are sent whole, so that each turn is slower and dearer than the last (R5).

    Source: A18, D13, D17, E30, E31, E82
    """
    limit = objectives["history_messages"]
    frame = prompt_parts(recording, objectives)
    if frame["history_messages"].isna().all():
        raise NotMeasured(
            "no prompt tells its messages",
            hint="see prompts: perfnb record --upstream URL, or GenAI spans with message contents",
        )
    long = frame[(frame["history_excess"] > 0) & (frame["history_tokens"] > 0.3 * frame["input_tokens"])]
    share = share_of_wait(recording, _lost_ms(recording, long, long["history_excess"]).sum())
    if len(long) < max(3, min_calls * len(frame)) or share < min_share:
        clear = f"{len(long)} of {len(frame)} prompts carry over {limit.value} messages of history; reading the surplus takes {share:.0%} of the wait"
        return unless_it_costs(Clear(clear), lambda: long_history_cost(recording, objectives))
    messages = long["history_messages"].median()
    return Finding(
        title=f"{len(long)} of {len(frame)} prompts carry {messages:.0f} messages of history",
        severity=severity(limit.miss(messages), share),
        share=share,
        evidence=(
            f"{messages:.0f} messages with {long['history_tokens'].median():,.0f} tokens before the question (medians), up to {long['history_messages'].max():.0f}; limit {limit.value} (D13, E30)",
            f"history is {(long['history_tokens'] / long['input_tokens']).median():.0%} of the prompt; reading takes {reading_speed(recording)}",
        ),
        remedy="Keep the system message and the last few turns; summarise what is older. Never split a tool call from its result.",
        effort="low",
        frame=long[["call_id", "history_messages", "history_tokens", "input_tokens", "time_to_first_token_ms"]].head(
            50
        ),
        figure="latency_by_tokens",
        exemplars=exemplars(long, "history_messages"),
        **in_dollars(recording, lambda: paid_for_history(recording, objectives).sum()),
    )


MIN_VARYING_SHARE = 0.05
MIN_CORRELATION = 0.7


def _swinging(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the calls of ``frame`` whose kind swings in size beyond the budget, and in latency with it; with first, fresh.

    Tokens the provider read from its cache do not delay and are left out of the comparison.
    """
    frame = frame.assign(
        first=frame["time_to_first_token_ms"].fillna(frame["duration_ms"]),
        fresh=frame["input_tokens"] - frame["cache_read_tokens"].fillna(0),
    )
    kinds = (
        calls
        for _, calls in frame.groupby("shape")
        if swings(calls["input_tokens"])
        and calls["context_excess"].max() > 0
        and calls["fresh"].corr(calls["first"]) >= MIN_CORRELATION
    )
    return pd.concat([frame.head(0), *kinds])


def _varying(recording: Recording, objectives: Objectives, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the calls that varying-context names: none where their surplus is too small a part of the wait."""
    calls = _swinging(frame)
    lost = _lost_ms(recording, calls, calls["context_excess"]).sum()
    return calls if share_of_wait(recording, lost) >= MIN_VARYING_SHARE else calls.head(0)


@check("varying-context", area="slow")
def varying_context(recording: Recording, objectives: Objectives) -> Finding | Clear:
    """The prompt's size swings from call to call, and the latency with it (R23).

    Source: D15, D38
    """
    frame = prompt_parts(recording, objectives)
    calls = _swinging(frame)
    share = share_of_wait(recording, _lost_ms(recording, calls, calls["context_excess"]).sum())
    if calls.empty or share < MIN_VARYING_SHARE:
        return Clear(
            f"{calls['shape'].nunique()} kinds of call swing in size with their latency ({len(frame)} calls examined; {share:.0%} of the wait)"
        )
    low, high = calls["input_tokens"].quantile([0.1, 0.9])
    fast, slow = calls["first"].quantile([0.1, 0.9])
    return Finding(
        title=f"Prompts swing from {low:,.0f} to {high:,.0f} tokens, and first tokens from {fast:.0f} to {slow:.0f} ms",
        severity=severity(objectives["context_tokens"].miss(high), share),
        share=share,
        evidence=(
            f"input tokens p10 {low:,.0f}, p90 {high:,.0f}; correlation of uncached tokens with latency {calls['fresh'].corr(calls['first']):.2f} over {len(calls)} calls",
            f"reading takes {reading_speed(recording)}",
        ),
        remedy="Give context and memories one token budget, so that every turn costs about the same.",
        effort="low",
        frame=calls[["call_id", "input_tokens", "time_to_first_token_ms", "duration_ms"]].head(50),
        figure="latency_by_tokens",
        exemplars=exemplars(calls, "input_tokens"),
        **in_dollars(recording, lambda: _paid_by(recording, objectives, calls)),
    )


def _paid_by(recording: Recording, objectives: Objectives, calls: pd.DataFrame) -> float:
    paid = paid_for_context(recording, objectives)
    return float(paid[paid.index.isin(calls["call_id"])].sum())
