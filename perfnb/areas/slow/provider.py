"""The provider and the way to it: slow stretches, the network, rate limits, embeddings."""

import numpy as np
import pandas as pd

from perfnb.areas.slow.attempts import hidden_calls, is_rate_limit, rate_limited_requests, unless_hidden
from perfnb.areas.unseen_embeddings import unless_unseen
from perfnb.attribution import answers, calls_on_path, failed_requests, requests, share_of_wait
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Estimate, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

HOW_TO_PROXY = "record through the proxy: perfnb record --upstream URL"


def slowness(recording: Recording) -> pd.DataFrame:
    """Return how slow each successful call was beside the quick ones of its kind.

    Columns: start_time, end_time, shape, input_tokens, on_path_ms, ratio. The ratio compares time per unit of work
    (one unit for the first token, one per output token) with the quickest quarter of calls of the same shape.
    """
    frame = answers(recording)
    frame = frame[frame["output_tokens"].fillna(0) > 0]
    work = frame["duration_ms"] / (10 + frame["output_tokens"])
    quick = work.groupby(frame["shape"]).transform(lambda values: values.quantile(0.25))
    columns = ["call_id", "request_id", "start_time", "end_time", "shape", "input_tokens", "on_path_ms"]
    return frame[columns].assign(ratio=work / quick).sort_values("start_time")


def slow_episode(recording: Recording, *, times: float = 2.5, least: int = 5) -> tuple[int, int] | None:
    """Return start and end of the stretch in which calls of every kind are ``times`` slower than outside it."""
    episode: tuple[int, int] | None = recording.derived(
        "slow episode", lambda: _find_episode(slowness(recording), times, least)
    )
    return episode


def _find_episode(frame: pd.DataFrame, times: float, least: int) -> tuple[int, int] | None:
    if len(frame) < 4 * least:
        return None
    slow = (frame["ratio"] >= times).to_numpy()
    # the stretch with most slow calls over quick ones: largest sum of +1 and -1 (Kadane)
    best, start, run_start, run = (0, 0, 0), 0, 0, 0
    for position, is_slow in enumerate(slow):
        run += 1 if is_slow else -1
        if run <= 0:
            run, run_start = 0, position + 1
        elif run > best[0]:
            best, start = (run, run_start, position), run_start
    _, start, end = best
    inside, outside = slow[start : end + 1], np.delete(slow, slice(start, end + 1))
    if inside.sum() < least or len(outside) < least or inside.mean() < 0.8 or outside.mean() > 0.2:
        return None
    stretch, rest = frame.iloc[start : end + 1], frame.drop(frame.index[start : end + 1])
    sizes = stretch["input_tokens"].median() / max(1.0, rest["input_tokens"].median())
    if not 0.5 <= sizes <= 2 and frame["input_tokens"].notna().any():
        return None
    return int(stretch["start_time"].min()), int(stretch["end_time"].max())


@check("provider-slow", area="slow")
def provider_slow(recording: Recording, objectives: Objectives, *, min_share: float = 0.1) -> Finding | Clear:
    """The provider turns slow or fails for a while, on all prompts and with unchanged token counts (R7).

    Source: D36, E81, E83
    """
    frame = slowness(recording)
    episode = slow_episode(recording)
    if episode is None:
        return Clear(f"{len(frame)} answers: no stretch in which all prompts were 2.5 times slower than outside it")
    inside = frame[frame["start_time"].between(*episode)]
    outside = frame.drop(inside.index)
    lost = (inside["on_path_ms"] * (1 - 1 / inside["ratio"].clip(lower=1))).sum()
    share = share_of_wait(recording, lost)
    if share < min_share:
        return Clear(f"a slow stretch of {len(inside)} answers took {share:.0%} of the wait")
    start, end = (pd.Timestamp(moment, unit="ns", tz="UTC") for moment in episode)
    ratio = inside["ratio"].median() / outside["ratio"].median()
    return Finding(
        title=f"The provider was {ratio:.1f} times slower from {start:%H:%M:%S} to {end:%H:%M:%S}",
        severity=severity(float(ratio), share),
        share=share,
        evidence=(
            f"{len(inside)} answers in the stretch, {len(outside)} outside it; {inside['shape'].nunique()} kinds of call are slow together",
            f"input tokens {inside['input_tokens'].median():.0f} inside, {outside['input_tokens'].median():.0f} outside (medians): the prompts did not change",
        ),
        remedy="Check the provider's status page; fail over to another region or model; retry transient errors only.",
        effort="medium",
        frame=frame,
        figure="slowness_over_time",
        exemplars=tuple(inside.nlargest(3, "on_path_ms")["request_id"].dropna()),
    )


@check("slow-network", area="slow")
def slow_network(
    recording: Recording, objectives: Objectives, *, min_overhead_ms: float = 100, min_share: float = 0.1
) -> Finding | Clear:
    """The way to the provider takes long, not the provider (R8).

    Told by the difference between the first byte and the provider's own processing time, and by the time new
    connections take. Only what the proxy saw itself counts; a fast provider behind a slow link is the pattern.

    Source: D36, C2, B31, C47
    """
    frame = calls_on_path(recording)
    frame = frame[frame["source"] == "proxy"]
    told = frame.dropna(subset=["processing_ms", "time_to_first_byte_ms"])
    connected = frame["connect_ms"].dropna()
    if told.empty and connected.empty:
        raise NotMeasured("no call tells the provider's own time or a connection's", hint=HOW_TO_PROXY)
    overhead = (told["time_to_first_byte_ms"] - told["processing_ms"]).clip(lower=0)
    overhead = overhead.clip(upper=told["on_path_ms"])
    if told.empty:
        overhead = connected
    share = share_of_wait(recording, overhead.sum())
    usual = float(overhead.median()) if len(overhead) else 0.0
    if len(overhead) < 3 or usual < min_overhead_ms or share < min_share:
        return Clear(
            f"{len(overhead)} calls: the way to the provider takes {usual:.0f} ms (median), {share:.0%} of the wait"
        )
    connect = f"; a new connection takes {connected.median():.0f} ms" if len(connected) else ""
    return Finding(
        title=f"The way to the provider takes {usual:.0f} ms a call",
        severity=severity(usual / min_overhead_ms, share),
        share=share,
        evidence=(
            f"first byte {told['time_to_first_byte_ms'].median():.0f} ms, of which the provider worked {told['processing_ms'].median():.0f} ms (medians of {len(told)} calls){connect}",
        ),
        remedy="Use a region near the app, keep connections open, check proxies, DNS and TLS on the way.",
        effort="medium",
        frame=told[["call_id", "connect_ms", "time_to_first_byte_ms", "processing_ms", "duration_ms"]].head(50),
        figure="speed_by_model",
        exemplars=tuple(told.loc[overhead.nlargest(3).index.intersection(told.index), "request_id"].dropna()),
    )


@check("slow-embedding", area="slow")
def slow_embedding(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.1, query_inputs: int = 4
) -> Finding | Clear:
    """Embedding the query takes long before the search can start (R24).

    Where the provider tells its own time, the way to it is left to slow-network.

    Source: A28, A39, E24
    """
    limit = objectives["query_embedding_ms"]
    frame = calls_on_path(recording)
    embedded = frame[frame["operation"] == "embeddings"]
    frame = embedded[embedded["error_type"].isna() & (embedded["inputs"].fillna(1) <= query_inputs)]
    if frame.empty:
        clear = Clear("no query was embedded by a model call")
        return unless_unseen(recording, clear) if embedded.empty else clear
    frame = frame.assign(way_ms=(frame["time_to_first_byte_ms"] - frame["processing_ms"]).clip(lower=0).fillna(0))
    usual = (frame["duration_ms"] - frame["way_ms"]).median()
    share = share_of_wait(recording, (frame["on_path_ms"] - frame["way_ms"]).clip(lower=0).sum())
    if len(frame) < 3 or usual <= limit.value or share < min_share:
        return Clear(f"{len(frame)} query embeddings take {usual:.0f} ms (median), {share:.0%} of the wait")
    return Finding(
        title=f"Embedding a query takes {usual:.0f} ms",
        severity=severity(limit.miss(usual), share),
        share=share,
        evidence=(
            f"{len(frame)} calls, median {usual:.0f} ms, p95 {frame['duration_ms'].quantile(0.95):.0f} ms; objective {limit.value} ms (A39)",
        ),
        remedy="Use a smaller or nearer embedding model, cache embeddings of repeated queries, batch where there are several.",
        effort="low",
        estimate=Estimate(
            "query_embedding_ms", float(usual), 0.0, float(limit.value), ("a model within the objective, or a cache",)
        ),
        frame=frame[["call_id", "request_model", "inputs", "duration_ms", "on_path_ms"]].head(50),
        figure="where_time_goes",
        exemplars=tuple(frame.nlargest(3, "duration_ms")["request_id"].dropna()),
    )


@check("rate-limited", area="slow")
def rate_limited(
    recording: Recording, objectives: Objectives, *, least: int = 3, min_part: float = 0.02
) -> Finding | Clear:
    """The provider refuses calls because too many come, and the app waits to try again (R9).

    Where a client tries again within one span, a refusal shows only once it gave up, as an error of a span above; each
    such request stands for several refusals.

    Source: D36, E54, E85, E86, B17
    """
    frame = calls_on_path(recording)
    refused = frame[(frame["status_code"] == 429) | is_rate_limit(frame["error_type"])]
    if len(refused) < max(least, min_part * len(frame)):
        clear = Clear(f"{len(refused)} of {len(frame)} attempts were refused for rate")
        return _gave_up(recording, objectives, min_part) or unless_hidden(recording, clear)
    after = frame.merge(refused[["chain", "attempt"]].assign(attempt=refused["attempt"] + 1), on=["chain", "attempt"])
    lost = refused["on_path_ms"].sum() + after["waited_ms"].fillna(0).sum()
    share = share_of_wait(recording, lost)
    failed = _failed(recording, refused)
    asked = refused["retry_after_ms"].dropna()
    waits = after["waited_ms"].dropna()
    evidence = [
        f"{len(refused)} of {len(frame)} attempts got 429; {refused['request_id'].nunique()} requests are touched, {failed} failed"
    ]
    if len(waits):
        evidence.append(
            f"waiting to try again took {waits.median():.0f} ms a time and {waits.sum() / 1000:.1f} s in all"
        )
    if len(asked):
        evidence.append(f"the provider asked for {asked.median():.0f} ms")
    return Finding(
        title=f"{len(refused)} of {len(frame)} attempts were refused for rate",
        severity=severity(
            len(refused) / len(frame) / objectives.value("error_rate") / 20,
            max(share, failed / max(1, frame["request_id"].nunique())),
        ),
        share=share,
        evidence=tuple(evidence),
        remedy="Limit calls on your side (rate and concurrency), queue with backpressure, honour retry-after, ask for a higher tier.",
        effort="medium",
        frame=refused[["call_id", "chain", "attempt", "status_code", "retry_after_ms"]].head(50),
        figure="attempts_over_time",
        exemplars=tuple(refused["request_id"].dropna().unique()[:3]),
    )


def _gave_up(recording: Recording, objectives: Objectives, min_part: float, *, least: int = 2) -> Finding | None:
    """Return what spans above calls tell of a rate limit, where the attempts themselves are not seen."""
    met = rate_limited_requests(recording)
    of = set(hidden_calls(recording)["request_id"].dropna())
    if len(met) < max(least, min_part * len(of)):
        return None
    asked = requests(recording)
    asked = asked[asked["request_id"].isin(of)]
    is_met = asked["request_id"].isin(met)
    failed = int(failed_requests(recording)["request_id"].isin(met).sum())
    rate, others = len(met) / len(of), asked.loc[~is_met, "duration_ms"]
    usual = f"; the others {others.median() / 1000:.1f} s" if len(others) else ""
    return Finding(
        title=f"{len(met)} of {len(of)} requests ran into the provider's rate limit",
        severity=severity(objectives["error_rate"].miss(rate) / 10, max(rate, 0.1)),
        share=float(rate),
        symptom="errors",
        evidence=(
            f"spans above or beside their model calls tell the error; {failed} of them failed",
            f"they took {asked.loc[is_met, 'duration_ms'].median() / 1000:.1f} s (median){usual}",
            "how often the client was refused and tried again before, and in the other requests, is not seen: record through the proxy, or instrument the HTTP client",
        ),
        remedy="Limit calls on your side (rate and concurrency), queue with backpressure, honour retry-after, ask for a higher tier.",
        effort="medium",
        frame=asked.loc[is_met, ["request_id", "route", "status_code", "error_type", "duration_ms"]].head(50),
        figure="requests_over_time",
        exemplars=tuple(met[:3]),
    )


def _failed(recording: Recording, refused: pd.DataFrame) -> int:
    return int(failed_requests(recording)["request_id"].isin(refused["request_id"]).sum())
