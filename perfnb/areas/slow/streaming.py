"""Does the user see the first words while the rest is written?"""

import pandas as pd

from perfnb.areas.slow.context import writing_time
from perfnb.attribution import (
    GENERATING,
    answers,
    calls_on_path,
    is_false,
    is_true,
    prepare,
    share_of_all_waits,
    share_of_wait,
)
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Estimate, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

FEW = 3  # fewer cases than this prove nothing


def first_token_and_total(recording: Recording) -> pd.DataFrame:
    """Return when each answer's first token and its end came.

    Columns: call_id, model, stream, time_to_first_token_ms (null where the answer came in one piece), duration_ms,
    output_tokens.
    """
    frame = answers(recording)
    columns = ["call_id", "request_model", "stream", "time_to_first_token_ms", "duration_ms", "output_tokens"]
    return frame[columns].rename(columns={"request_model": "model"})


def last_answers(recording: Recording) -> pd.DataFrame:
    """Return the call each request ended with, unless it asked for tools: the one whose text the user is given."""
    frame = answers(recording)
    frame = frame[~frame["finish_reason"].fillna("").str.contains("tool")]
    return frame.sort_values("end_time").groupby("request_id").tail(1)


@check("no-streaming", area="slow")
def no_streaming(
    recording: Recording, objectives: Objectives, *, min_output_tokens: int = 40, min_share: float = 0.15
) -> Finding | Clear:
    """Answers come in one piece, so the user waits for all of it (R1).

    Either the model is asked without streaming, or it streams and the app holds the text back until it is whole.
    Total time does not change, only the time to the first words.

    Source: A3, A36, B11, E33, E80
    """
    limit = objectives["time_to_first_token_ms"]
    last = last_answers(recording)
    if len(last) and last["stream"].isna().all():
        raise NotMeasured(
            "no call tells whether it streamed", hint="record through the proxy: perfnb record --upstream URL"
        )
    blind = pd.concat([_unstreamed(recording, last, min_output_tokens), _held_back(recording, last)])
    blind = blind[blind["blind_ms"] > 2 * limit.value]
    share = share_of_wait(recording, blind["blind_ms"].sum())
    if len(blind) < FEW or share < min_share:
        return Clear(
            f"{len(blind)} of {len(last)} answers kept the user waiting over {2 * limit.value:.0f} ms for text that was there"
        )
    wait, first = blind["first_ms"] + blind["blind_ms"], blind["first_ms"]
    return Finding(
        title=f"{len(blind)} of {len(last)} answers come in one piece after {wait.median():.0f} ms",
        severity=severity(limit.miss(wait.median()), share),
        share=share,
        evidence=(
            f"the user sees nothing for {wait.median():.0f} ms (median), although the first words are ready after about {first.median():.0f} ms",
            f"{(blind['why'] == 'call').sum()} calls asked for no stream; {(blind['why'] == 'app').sum()} were streamed by the model and held back by the app",
            f"objective: first token within {limit.value} ms (A36)",
        ),
        remedy="Call the model with stream=True and pass each piece on as it comes; total time stays the same.",
        effort="low",
        estimate=Estimate(
            "time_to_first_token_ms", float(wait.median()), float(first.quantile(0.25)), float(first.quantile(0.75)),
            ("first tokens come as in streamed calls, or at the measured writing speed",),
        ),
        frame=blind.head(50),
        figure="first_token_and_total",
        exemplars=tuple(blind.nlargest(3, "blind_ms")["request_id"]),
    )  # fmt: skip


def _unstreamed(recording: Recording, last: pd.DataFrame, min_output_tokens: int) -> pd.DataFrame:
    """Return calls without a stream: first_ms until the first words were ready, blind_ms from then to the end."""
    plain = last[(is_false(last["stream"])) & (last["output_tokens"] >= min_output_tokens)]
    writing = writing_time(recording, plain).clip(upper=plain["on_path_ms"])
    frame = plain[["request_id", "call_id"]].assign(blind_ms=writing, first_ms=plain["duration_ms"] - writing)
    return frame.assign(why="call")


def _held_back(recording: Recording, last: pd.DataFrame) -> pd.DataFrame:
    """Return requests answered in one piece although their last model call streamed."""
    seen = prepare(recording).query(
        "SELECT request_id, start_time, duration_ms FROM user_requests "
        "WHERE source IN ('front', 'probe', 'load') AND NOT stream"
    )
    streamed = last[(is_true(last["stream"])) & last["time_to_first_token_ms"].notna()]
    both = seen.merge(streamed, on="request_id", suffixes=("", "_call"))
    ready = (both["start_time_call"] - both["start_time"]) / 1e6 + both["time_to_first_token_ms"]
    frame = both[["request_id", "call_id"]].assign(first_ms=ready, blind_ms=both["duration_ms"] - ready)
    return frame.assign(why="app")


@check("late-first-content", area="slow")
def late_first_content(recording: Recording, objectives: Objectives, *, min_share: float = 0.15) -> Finding | Clear:
    """A stream opens at once but its first content comes late, so dashboards show a fast first byte (R91).

    Hidden reasoning is left to its own check.

    Source: users of streamed APIs (role-only chunks counted as first token), research on load tools 1.3; A36
    """
    limit = objectives["time_to_first_token_ms"]
    late = _late_streams(recording)
    examined = len(late)
    late = late[late["silent_ms"] > 2 * limit.value]
    share = share_of_all_waits(recording, late["silent_ms"].sum())
    if len(late) < max(FEW, 0.2 * examined) or share < min_share:
        return Clear(f"{len(late)} of {examined} streams stayed empty over {2 * limit.value:.0f} ms after opening")
    silent = late["silent_ms"].median()
    return Finding(
        title=f"{len(late)} of {examined} streams open at once and stay empty for {silent:.0f} ms",
        severity=severity(limit.miss(late["content_ms"].median()), share),
        share=share,
        evidence=(
            f"first byte after {late['byte_ms'].median():.0f} ms, first content after {late['content_ms'].median():.0f} ms (medians)",
            f"seen at {', '.join(sorted(late['seen_at'].unique()))}",
        ),
        remedy="Do the slow work before the answer (retrieval, checks, tools) faster or in parallel; measure first content, not first byte.",
        effort="medium",
        frame=late.head(50),
        figure="first_token_and_total",
        exemplars=tuple(late.nlargest(3, "silent_ms")["request_id"].dropna()),
    )


def _late_streams(recording: Recording) -> pd.DataFrame:
    """Return streams with byte_ms, content_ms and the silence between: requests from outside, else model calls."""
    seen = prepare(recording).query(
        "SELECT request_id, 'the app' AS seen_at, time_to_first_byte_ms AS byte_ms, time_to_first_content_ms AS content_ms "
        "FROM user_requests WHERE stream AND source <> 'call' AND time_to_first_byte_ms IS NOT NULL "
        "AND time_to_first_content_ms IS NOT NULL"
    )
    if seen.empty:
        frame = calls_on_path(recording)
        frame = frame[
            frame["operation"].isin(GENERATING)
            & (is_true(frame["stream"]))
            & (frame["reasoning_tokens"].fillna(0) == 0)
        ]
        frame = frame.dropna(subset=["time_to_first_byte_ms", "time_to_first_token_ms"])
        seen = pd.DataFrame(
            {
                "request_id": frame["request_id"],
                "seen_at": "the model",
                "byte_ms": frame["time_to_first_byte_ms"],
                "content_ms": frame["time_to_first_token_ms"],
            }
        )
    if seen.empty:
        raise NotMeasured(
            "no stream's first byte was seen",
            hint="see streams from outside: perfnb record --listen PORT --app URL, or --upstream URL",
        )
    return seen.assign(silent_ms=seen["content_ms"] - seen["byte_ms"])
