"""What runs one after another although it need not, and what is sent piece by piece."""

import json
from typing import Any

import numpy as np
import pandas as pd

from perfnb.attribution import GENERATING, answers, critical_path, prepare, share_of_wait
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Estimate, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

# A later prompt that holds this part of an earlier answer's text was waiting for it.
DEPENDS = 0.25

# An answer this short could stand in a list with others, and this many of them make a batch worth its while.
TINY_TOKENS = 40
BATCH_FROM = 5

# Longest pause between calls made in a plain loop, at least this and up to this part of a call: an app short of processor
# time may need as long as the call itself to send the next one. Without texts to compare, only a short pause speaks for
# independence.
LOOP_PAUSE_MS = 25.0
PART_WITH_TEXTS, PART_WITHOUT = 1.0, 0.05


def over_time(recording: Recording, points: int = 200) -> pd.DataFrame:
    """Return how much was under way: time (UTC), requests_in_flight, calls_in_flight, at ``points`` even moments."""
    frame = prepare(recording).query(
        "SELECT start_time, end_time, true AS is_request FROM user_requests WHERE source <> 'call' "
        "UNION ALL SELECT start_time, end_time, false FROM owned_calls"
    )
    if frame.empty:
        raise NotMeasured("no requests and no calls", hint="perfnb record --upstream URL --listen PORT --app URL")
    moments = np.linspace(frame["start_time"].min(), frame["end_time"].max(), points).astype("int64")
    columns = {"requests_in_flight": frame[frame["is_request"]], "calls_in_flight": frame[~frame["is_request"]]}
    counts = {name: _in_flight(rows, moments) for name, rows in columns.items()}
    return pd.DataFrame({"time": pd.to_datetime(moments, unit="ns", utc=True), **counts})


def _in_flight(frame: pd.DataFrame, moments: np.ndarray) -> np.ndarray:
    started = np.searchsorted(np.sort(frame["start_time"].to_numpy()), moments, side="right")
    ended = np.searchsorted(np.sort(frame["end_time"].to_numpy()), moments, side="left")
    return np.asarray(started - ended)


def sequences(recording: Recording) -> pd.DataFrame:
    """Return model calls that ran in a row though none needed the one before.

    One row per run: request_id, calls, shape, sum_ms, longest_ms, saving_ms (what running them together would save),
    output_tokens (median), first_ms (from the request's start). Independent means: the later prompt holds no text of
    the earlier answer, does not go on from its messages, the earlier answer asked for no tool, both are of one kind,
    and nothing but a short pause lies between.
    """
    return recording.derived("sequences", lambda: _sequences(recording))


def _sequences(recording: Recording) -> pd.DataFrame:
    frame = answers(recording)
    connection = recording.refresh()
    connection.register("wanted_calls", frame[["call_id"]])
    contents = connection.execute(
        "SELECT call_id, messages FROM llm_calls WHERE messages IS NOT NULL AND call_id IN (SELECT call_id FROM wanted_calls)"
    ).df()
    connection.unregister("wanted_calls")
    messages = dict(zip(contents["call_id"], contents["messages"], strict=True))
    rows = []
    for request_id, calls in frame.groupby("request_id"):
        if len(calls) < 3:
            continue
        run: list[Any] = []
        for call in calls.sort_values("start_time").itertuples(index=False):
            if run and not _follows_independently(run[-1], call, messages):
                rows.append((request_id, run))
                run = []
            run.append(call)
        rows.append((request_id, run))
    return pd.DataFrame(
        [_run_row(request_id, run) for request_id, run in rows if len(run) >= 3],
        columns=["request_id", "calls", "shape", "sum_ms", "longest_ms", "saving_ms", "output_tokens", "input_tokens"],
    )


def _run_row(request_id: object, run: list[Any]) -> tuple[object, ...]:
    durations = np.array([call.duration_ms for call in run])
    on_path = np.array([call.on_path_ms for call in run])
    return (
        request_id,
        len(run),
        run[0].shape,
        durations.sum(),
        durations.max(),
        max(0.0, min(durations.sum(), on_path.sum()) - durations.max()),
        float(np.median([call.output_tokens or 0 for call in run])),
        float(np.median([call.input_tokens or 0 for call in run])),
    )


def _follows_independently(before: Any, call: Any, messages: dict[str, str]) -> bool:
    ours, theirs = messages.get(call.call_id), messages.get(before.call_id)
    knows_texts = ours is not None and theirs is not None and isinstance(before.response_sketch, str)
    pause = (call.start_time - before.end_time) / 1e6
    longest = max(LOOP_PAUSE_MS, (PART_WITH_TEXTS if knows_texts else PART_WITHOUT) * before.duration_ms)
    if not -2 <= pause <= longest or call.shape != before.shape:
        return False
    if "tool" in (before.finish_reason or "") or call.prompt == before.prompt:
        return False
    if ours is None or theirs is None or not knows_texts:
        # a prompt that did not grow by the earlier answer did not wait for it
        grew = (call.input_tokens or 0) - (before.input_tokens or 0)
        return bool(call.parent_span_id == before.parent_span_id and grew < 0.5 * (before.output_tokens or 0))
    return not _goes_on(json.loads(theirs), json.loads(ours)) and _shared(before.response_sketch, ours) < DEPENDS


def _goes_on(before: list[dict[str, object]], now: list[dict[str, object]]) -> bool:
    digests, later = [message["digest"] for message in before], [message["digest"] for message in now]
    return len(later) > len(digests) and later[: len(digests)] == digests


def _shared(answer_sketch: str, messages: str) -> float:
    answer = set(json.loads(answer_sketch))
    prompt = {value for message in json.loads(messages) for value in message.get("sketch") or ()}
    return len(answer & prompt) / len(answer) if answer else 0.0


@check("sequential-calls", area="slow")
def sequential_calls(
    recording: Recording, objectives: Objectives, *, min_saving_ms: float = 300, min_share: float = 0.1
) -> Finding | Clear:
    """Model calls that need nothing of each other are made one after another (R2).

    Runs of tiny answers are left to unbatched-requests.

    Source: A4, C48, C59, E37, B21
    """
    runs = sequences(recording)
    examined = answers(recording)["request_id"].nunique()
    is_batch = (runs["output_tokens"] <= TINY_TOKENS) & (runs["calls"] >= BATCH_FROM)
    runs = runs[(runs["saving_ms"] >= min_saving_ms) & ~is_batch]
    share = share_of_wait(recording, runs["saving_ms"].sum())
    if runs["request_id"].nunique() < 3 or share < min_share:
        return Clear(
            f"{runs['request_id'].nunique()} of {examined} requests make 3 or more independent calls in a row ({share:.0%} of the wait)"
        )
    path = critical_path(recording)
    before = path[path["request_id"].isin(runs["request_id"])].groupby("request_id")["exclusive_ms"].sum().median()
    after = before - runs.groupby("request_id")["saving_ms"].sum().median()
    return Finding(
        title=f"{runs['request_id'].nunique()} of {examined} requests make {runs['calls'].median():.0f} independent model calls in a row",
        severity=severity(objectives["request_p95_ms"].miss(before), share),
        share=share,
        evidence=(
            f"together {runs['sum_ms'].median():.0f} ms, the longest alone {runs['longest_ms'].median():.0f} ms (medians)",
            "no prompt holds text of the answer before it, and nothing else happens between",
        ),
        remedy="Start them together with asyncio.gather under a semaphore (about 10), and handle each error by itself.",
        effort="low",
        estimate=Estimate("request_duration_ms", float(before), float(after), float(after * 1.2),
                          ("the provider answers as fast when asked at once",)),
        frame=runs.head(50),
        figure="sequences",
        exemplars=tuple(runs.nlargest(3, "saving_ms")["request_id"]),
    )  # fmt: skip


@check("unbatched-requests", area="slow")
def unbatched_requests(
    recording: Recording,
    objectives: Objectives,
    *,
    tiny_tokens: float = TINY_TOKENS,
    least: int = BATCH_FROM,
    batch: int = 10,
    min_share: float = 0.2,
) -> Finding | Clear:
    """A question is asked in many tiny calls of one kind where one call could ask for all (R12).

    The share is of model calls: those that a batch of 10 would save.

    Source: B10, B30
    """
    frame = answers(recording)
    tiny = frame[
        (frame["output_tokens"].fillna(1e9) <= tiny_tokens) & ~frame["finish_reason"].fillna("").str.contains("tool")
    ]
    groups = tiny.groupby(["request_id", "shape"]).agg(
        calls=("call_id", "count"), input_tokens=("input_tokens", "median"), on_path_ms=("on_path_ms", "sum")
    )
    groups = groups[groups["calls"] >= least].reset_index()
    saved = (groups["calls"] - np.ceil(groups["calls"] / batch)).sum()
    total = int(frame["operation"].isin(GENERATING).sum())
    share = float(saved / total) if total else 0.0
    if groups["request_id"].nunique() < 3 or share < min_share:
        return Clear(
            f"{groups['request_id'].nunique()} requests ask {least} or more tiny questions of one kind; a batch would save {share:.0%} of {total} calls"
        )
    calls = groups["calls"].median()
    wait = share_of_wait(recording, groups["on_path_ms"].sum())
    return Finding(
        title=f"{groups['request_id'].nunique()} requests make {calls:.0f} tiny model calls of one kind each",
        severity=severity(calls / least, share),
        share=share,
        symptom="calls",
        evidence=(
            f"{groups['calls'].sum()} of {total} calls answer with {tiny_tokens:.0f} tokens or fewer to {groups['input_tokens'].median():.0f} input tokens (median)",
            f"they take {wait:.0%} of the users' wait, and their fixed text is paid {calls:.0f} times",
        ),
        remedy=f"Ask for all of them in one call (a list in, a list out), {batch} at a time.",
        effort="medium",
        frame=groups.head(50),
        figure="sequences",
        exemplars=tuple(groups.nlargest(3, "calls")["request_id"]),
    )
