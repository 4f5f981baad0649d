"""Calls of one request that need nothing of each other, made at the same time."""

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from perfnb.attribution import GENERATING
from perfnb.estimates.change import Parameter, Prediction, change
from perfnb.estimates.effects import ON_PATH, Outcome, effects, priced_note
from perfnb.estimates.traffic import Entry, Traffic, traffic
from perfnb.recording import Recording

DEPENDS = 0.25
"""A later prompt that holds this part of an earlier answer's text was waiting for it (sketches of 32 hashes: ± 0.08)."""
LOOP_PAUSE_MS = 25.0
"""Longest pause between two turns of a plain loop; where more happens in between, something else may be needed."""
OPERATIONS = (*GENERATING, "embeddings")


@change(
    "parallel_calls",
    title="Make independent calls of a request at the same time",
    causes=("sequential-calls", "unbatched-requests"),
    parameters=(Parameter("limit", "At the same time", 10, "calls", 1, 1000, 1),),
)
def parallel_calls(recording: Recording, *, limit: int) -> Prediction:
    """Return what starting independent calls of a request together would have done, ``limit`` at a time.

    A call needs an earlier one if its prompt holds text of that one's answer, goes on from its messages, or answers a
    tool it asked for.

    Source: A4, C48, C59, E37; B21 (a bound)
    """
    seen = traffic(recording)
    runs = list(_runs(seen))
    sure = [run for run in runs if _is_loop(run)]
    outcomes = [Outcome(_saved(runs, limit, pauses=True)), Outcome(_saved(sure, limit))]
    assumptions = (
        f"low: all calls whose prompts hold nothing of the answers before; high: only those of one model that follow within {LOOP_PAUSE_MS:.0f} ms",
        "the provider answers as fast when asked at once",
        "what lies between the calls, such as making the next prompt: low: is done at the same time too; high: takes as long as before",
        ON_PATH,
        *priced_note(seen),
    )
    not_modelled = (
        "rate limits that calls at the same time run into",
        "needs that texts don't show, such as an early stop",
    )
    requests = seen.calls.loc[[run.index[0] for run in runs], "request_id"].nunique() if runs else 0
    frame = pd.DataFrame(
        [(run["request_id"].iloc[0], len(run), run["duration_ms"].sum(), _makespan(run["duration_ms"].tolist(), limit)) for run in runs],
        columns=["request_id", "calls", "one_by_one_ms", "together_ms"],
    )  # fmt: skip
    return Prediction(
        effects(seen, outcomes, assumptions=assumptions, not_modelled=not_modelled),
        f"{requests} of {len(seen.requests)} requests make calls one after another that need nothing of each other ({len(runs)} runs of {frame['calls'].median() if runs else 0:.0f} calls, median)",
        assumptions,
        not_modelled,
        frame.sort_values("one_by_one_ms", ascending=False, kind="stable").head(50),
    )


def _runs(seen: Traffic) -> Iterator[pd.DataFrame]:
    """Yield the runs of two or more independent calls, each begun after the one before had ended."""
    calls = seen.calls[seen.calls["operation"].isin(OPERATIONS) & seen.calls["error_type"].isna()]
    calls = calls[calls["request_id"].isin(seen.requests.index)]
    calls = calls[calls.groupby("request_id")["request_id"].transform("size") > 1]
    if calls.empty:
        return
    messages, answers = seen.messages(calls), _answers(seen, calls)
    for _, group in calls.groupby("request_id", sort=False):
        run: list[str] = []
        for call_id in group.index:
            if run and not _may_join(group, run, call_id, messages, answers):
                if len(run) > 1:
                    yield group.loc[run]
                run = []
            run.append(call_id)
        if len(run) > 1:
            yield group.loc[run]


def _may_join(
    group: pd.DataFrame,
    run: Sequence[str],
    call_id: str,
    messages: Mapping[str, Sequence[Entry]],
    answers: Mapping[str, set[int]],
) -> bool:
    """Tell whether a call came right after a run and needs nothing of any call in it."""
    now, last = group.loc[call_id], group.loc[run[-1]]
    if now["start_time"] < last["end_time"] or now["operation"] != last["operation"]:
        return False
    if call_id not in messages or any(each not in messages for each in run):
        return False
    return not any(_needs(group.loc[each], messages[each], messages[call_id], answers.get(each)) for each in run)


def _needs(before: Any, theirs: Sequence[Entry], ours: Sequence[Entry], answer: set[int] | None) -> bool:
    if before["operation"] == "embeddings":
        return False  # a vector stands in no prompt; another embeddings call can't need it
    if "tool" in (before["finish_reason"] or "") or answer is None:
        return True
    earlier, later = [entry["digest"] for entry in theirs], [entry["digest"] for entry in ours]
    if later[: len(earlier)] == earlier:
        return True
    known = {value for entry in theirs for value in entry.get("sketch") or ()}  # an answer quotes what it was given
    prompt = {value for entry in ours for value in entry.get("sketch") or ()}
    return bool(answer) and len((answer & prompt) - known) / len(answer) >= DEPENDS


def _answers(seen: Traffic, calls: pd.DataFrame) -> dict[str, set[int]]:
    """Return the sketch of each call's answer; calls whose answer is unknown are missing."""
    connection = seen.recording.refresh()
    connection.register("wanted_calls", pd.DataFrame({"call_id": calls.index.astype(str)}))
    rows = connection.execute(_SKETCHES).fetchall()
    connection.unregister("wanted_calls")
    return {call_id: set(json.loads(sketch)) for call_id, sketch in rows}


_SKETCHES = """
SELECT call_id, CAST(response_sketch AS VARCHAR) FROM model_calls
WHERE response_sketch IS NOT NULL AND call_id IN (SELECT call_id FROM wanted_calls)
"""


def _is_loop(run: pd.DataFrame) -> bool:
    return bool(run["model"].nunique() == 1 and (_pauses_ms(run) <= LOOP_PAUSE_MS).all())


def _pauses_ms(run: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return how long after each call's end the next one began."""
    pauses: np.ndarray[Any, np.dtype[np.float64]] = (
        run["start_time"].to_numpy()[1:] - run["end_time"].to_numpy()[:-1]
    ) / 1e6
    return pauses


def _saved(runs: Sequence[pd.DataFrame], limit: int, *, pauses: bool = False) -> pd.DataFrame:
    """Return what each run saves, spread by length over the calls that would start earlier: all but its first.

    With ``pauses`` what lies between its calls shrinks as they do together.
    """
    parts = []
    for run in runs:
        saved = float(run["duration_ms"].sum()) - _makespan(run["duration_ms"].tolist(), limit)
        later = run.iloc[1:]
        total = float(later["duration_ms"].sum())
        part = later["duration_ms"] * (saved / total if total > 0 else 0.0)
        first = (later["time_to_first_token_ms"] / later["duration_ms"].where(later["duration_ms"] > 0)).fillna(0.0)
        shrinks = saved / max(1.0, float(run["duration_ms"].sum())) if pauses else 0.0
        columns = {"wait_ms": part * first, "rest_ms": part * (1 - first), "pause_ms": _pauses_ms(run) * shrinks}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts) if parts else pd.DataFrame({"wait_ms": [], "rest_ms": []}, dtype=float)


def _makespan(durations: Sequence[float], limit: int) -> float:
    """Return how long calls take that start in order as soon as one of ``limit`` places is free."""
    places = [0.0] * min(limit, len(durations))
    for duration in durations:
        heapq.heapreplace(places, places[0] + duration)
    return max(places)
