"""Does the model think longer than the question deserves?"""

import pandas as pd

from perfnb.attribution import answers, share_of_wait
from perfnb.checklist import check
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording


def reasoning(recording: Recording) -> pd.DataFrame:
    """Return answers with hidden reasoning: columns of answers, reasoning_part (of output tokens) and reasoning_ms.

    Reasoning runs at the speed of writing, so it takes its part of the output's time; where the visible text was
    streamed, what passed before the first token is the bound.
    """
    frame = answers(recording)
    frame = frame[frame["reasoning_tokens"].fillna(0) > 0].copy()
    frame["reasoning_part"] = frame["reasoning_tokens"] / frame["output_tokens"].clip(lower=1)
    whole = frame["reasoning_part"] * frame["on_path_ms"]
    first = frame["time_to_first_token_ms"]
    frame["reasoning_ms"] = whole.where(first.isna(), whole.clip(upper=frame["waiting_ms"]))
    return frame


@check("deep-reasoning", area="slow")
def deep_reasoning(
    recording: Recording, objectives: Objectives, *, part: float = 0.4, min_share: float = 0.15
) -> Finding | Clear:
    """Most of what the model writes is hidden reasoning, and the user waits for it (R13).

    Source: C53, C54, C55, C56, C5; OpenAI usage (reasoning tokens are part of output tokens)
    """
    frame = reasoning(recording)
    heavy = frame[frame["reasoning_part"] >= part]
    share = share_of_wait(recording, heavy["reasoning_ms"].sum())
    if len(heavy) < 3 or share < min_share:
        return Clear(
            f"{len(heavy)} of {len(answers(recording))} answers are mostly reasoning ({share:.0%} of the wait)"
        )
    per_request = heavy.groupby("request_id")["call_id"].count()
    duration = _request_times(heavy)
    return Finding(
        title=f"{heavy['reasoning_part'].median():.0%} of output tokens are hidden reasoning in {len(heavy)} answers",
        severity=severity(objectives["complex_answer_ms"].miss(duration) * 2, share),
        share=share,
        evidence=(
            f"{heavy['reasoning_tokens'].median():.0f} reasoning tokens of {heavy['output_tokens'].median():.0f} (medians), about {heavy['reasoning_ms'].median():.0f} ms a call",
            f"{per_request.median():.0f} such calls a request (median), {per_request.max()} at most",
        ),
        remedy="Lower the reasoning effort, cut self-check rounds to one or two, or use a model without reasoning for simple questions.",
        effort="low",
        frame=heavy[["call_id", "request_model", "reasoning_tokens", "output_tokens", "duration_ms"]].head(50),
        figure="speed_by_model",
        exemplars=tuple(heavy.nlargest(3, "reasoning_tokens")["request_id"].dropna()),
    )


def _request_times(heavy: pd.DataFrame) -> float:
    return float(heavy.groupby("request_id")["on_path_ms"].sum().median())
