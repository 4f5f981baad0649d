"""Which part of a request takes the time: percentiles, the app's own work, a stage that dominates, a cold start."""

import pandas as pd

from perfnb.areas.slow.hotspots import explained_by_stacks
from perfnb.attribution import (
    FAILED,
    critical_path,
    observed,
    observed_seconds,
    prepare,
    sees_requests,
    share_of_all_waits,
    share_of_wait,
)
from perfnb.attribution.queries import database_ms_per_request
from perfnb.attribution.sessions import waited_for_connections_ms
from perfnb.attribution.trees import PIECE_OF_A_BODY
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

HOW_TO_SEE_REQUESTS = "requests: perfnb record --listen PORT --app URL, or --url URL, or server spans (--otlp)"

# What a model, a cache or a wait between attempts takes is not a stage of the app.
NOT_THE_APP = ("model", "embedding", "backoff")


def overview(recording: Recording) -> pd.DataFrame:
    """Return one row: requests, failed, p50_ms, p95_ms, p99_ms, first_content_p50_ms, first_content_p95_ms, calls,
    attempts_failed, input_tokens, output_tokens, seconds (of the window).
    """
    frame = prepare(recording).query(f"""
        SELECT * FROM (
            SELECT count(*) AS requests, count(*) FILTER ({FAILED} OR status_code >= 400) AS failed,
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS p50_ms,
                   percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms,
                   percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ms) AS p99_ms,
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY time_to_first_content_ms) AS first_content_p50_ms,
                   percentile_cont(0.95) WITHIN GROUP (ORDER BY time_to_first_content_ms) AS first_content_p95_ms
            FROM user_requests),
            (SELECT count(*) AS calls, count(error_type) AS attempts_failed,
                    coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens
             FROM model_calls)
        """)
    return frame.assign(seconds=observed_seconds(recording))


def where_time_goes(recording: Recording) -> pd.DataFrame:
    """Return the critical path by what it was spent on: kind, name, requests, exclusive_ms (sum), share, longest first.

    Model calls are split into waiting for the first token and writing.
    """
    path = critical_path(recording)
    waiting = path["before_first_token_ms"]
    split = pd.concat(
        [
            path.assign(exclusive_ms=path["exclusive_ms"] - waiting),
            path[waiting > 0].assign(exclusive_ms=waiting, name=path["name"] + ", first token"),
        ]
    )
    groups = split.groupby(["kind", "name"]).agg(
        requests=("request_id", "nunique"), exclusive_ms=("exclusive_ms", "sum")
    )
    groups = groups[groups["exclusive_ms"] > 0].sort_values("exclusive_ms", ascending=False).reset_index()
    return groups.assign(share=groups["exclusive_ms"] / groups["exclusive_ms"].sum())


def percentiles(recording: Recording) -> pd.DataFrame:
    """Return how long each stage takes: stage, kind, count, mean_ms, p50_ms, p95_ms, p99_ms, max_ms, by total time.

    Stages are the spans by name and the model calls no span shows; durations are whole, so nested stages overlap. The
    spans that OpenTelemetry's ASGI instrumentation makes for every piece of a body are left out.
    """
    return prepare(recording).query(
        f"""
        SELECT stage, kind, count(*) AS count, avg(duration_ms) AS mean_ms,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS p50_ms,
               percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95_ms,
               percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ms) AS p99_ms,
               max(duration_ms) AS max_ms
        FROM (SELECT name AS stage, operation AS kind, duration_ms FROM observed_spans
              WHERE NOT ({PIECE_OF_A_BODY})
              UNION ALL
              SELECT operation || ' ' || coalesce(request_model, ''), operation, duration_ms FROM owned_calls
              WHERE span_id IS NULL)
        WHERE duration_ms IS NOT NULL
        GROUP BY stage, kind ORDER BY sum(duration_ms) DESC LIMIT 100
        """
    )


@check("slow-processing", area="slow")
def slow_processing(
    recording: Recording, objectives: Objectives, *, min_ms: float = 300, min_share: float = 0.3
) -> Finding | Clear:
    """The app's own work before, between or after the model calls takes much of the wait (R10).

    Time inside a stage is that stage's (dominant-stage); what sampled stacks explain as a blocked event loop or a hot
    spot is theirs, what the database's statements take is theirs, told by spans or else by its counters, and waiting for
    one of the app's connections is the pool's (pool-exhausted).

    Source: B8, B9
    """
    path = critical_path(recording)
    if not sees_requests(recording):
        raise NotMeasured("requests were not seen, only model calls", hint=HOW_TO_SEE_REQUESTS)
    own = path[(path["id"] == path["request_id"])].set_index("request_id")["exclusive_ms"]
    with_calls = set(path.loc[path["call_id"].notna(), "request_id"])
    own = own[own.index.isin(with_calls)]
    if not recording.has("spans"):
        between = stages_between_calls(recording).groupby("request_id")["exclusive_ms"].sum()
        own = own.sub(between.reindex(own.index, fill_value=0.0)).sub(_unseen_statements_ms(recording)).clip(lower=0.0)
    if own.empty:
        return Clear("no request with a model call spends time of its own")
    elsewhere = explained_by_stacks(recording) + waited_for_connections_ms(recording)
    share = share_of_wait(recording, own.sum() - elsewhere)
    if own.median() < min_ms or share < min_share:
        return Clear(
            f"the app's own work takes {own.median():.0f} ms a request (median), {share:.0%} of the wait beyond what stacks and queues for connections explain"
        )
    before, between, after = _when(recording, own)
    return Finding(
        title=f"The app itself takes {own.median():.0f} ms of a request",
        severity=severity(own.median() / min_ms, share),
        share=share,
        evidence=(
            f"outside model calls and named stages: {own.median():.0f} ms (median), {own.quantile(0.95):.0f} ms (p95) in {len(own)} requests",
            f"before the first model call {before:.0f} ms, between calls {between:.0f} ms, after the last {after:.0f} ms (medians)",
        ),
        remedy="Time the steps (perfnb.step), profile them (--pid), then cache what repeats or move it out of the request.",
        effort="medium",
        frame=own.rename("own_ms").reset_index().nlargest(20, "own_ms"),
        figure="where_time_goes",
        exemplars=tuple(own.nlargest(3).index),
    )


def _unseen_statements_ms(recording: Recording) -> float:
    """Return the time a request's statements take where no stage between calls holds it: no trace tells where it lies."""
    return (database_ms_per_request(recording) or 0.0) if stages_between_calls(recording).empty else 0.0


def stages_between_calls(recording: Recording) -> pd.DataFrame:
    """Return what requests did between two model calls of different kinds: request_id, stage, exclusive_ms.

    From an embeddings call to the chat call that follows, say, an app searches, ranks and puts its prompt together.
    Only requests whose critical path is known.
    """
    frame = prepare(recording).query(_BETWEEN_CALLS)
    return frame[frame["request_id"].isin(critical_path(recording)["request_id"])]


_BETWEEN_CALLS = """
SELECT request_id, 'between ' || earlier || ' and ' || operation AS stage, (start_time - done) / 1e6 AS exclusive_ms
FROM (SELECT request_id, operation, start_time, lag(operation) OVER (PARTITION BY request_id ORDER BY start_time) AS earlier,
             max(end_time) OVER (PARTITION BY request_id ORDER BY start_time
                                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS done
      FROM owned_calls WHERE request_id IS NOT NULL)
WHERE earlier <> operation AND start_time > done
"""


def _when(recording: Recording, own: pd.Series) -> tuple[float, float, float]:
    """Return the medians of a request's time before its first call, between calls, and after the last."""
    frame = (
        prepare(recording)
        .query(
            "SELECT r.request_id, (min(c.start_time) - any_value(r.start_time)) / 1e6 AS before, "
            "(any_value(r.end_time) - max(c.end_time)) / 1e6 AS after "
            "FROM user_requests r JOIN owned_calls c USING (request_id) GROUP BY r.request_id"
        )
        .set_index("request_id")
    )
    frame = frame[frame.index.isin(own.index)].clip(lower=0)
    between = (own - frame["before"] - frame["after"]).clip(lower=0)
    return float(frame["before"].median()), float(between.median()), float(frame["after"].median())


@check("dominant-stage", area="slow")
def dominant_stage(
    recording: Recording, objectives: Objectives, *, min_share: float = 0.4, min_ms: float = 300
) -> Finding | Clear:
    """One stage other than the model takes most of each request (R11).

    Stages are named spans. Where there are none, they are what lies between two model calls of different kinds, seen
    from outside. With stage times from logs alone, where nothing tells what a stage consists of, any may be named.

    Source: C8, C9, D15
    """
    if not recording.has("http_requests") and not recording.has("llm_calls") and recording.has("spans"):
        return _dominant_in_logs(recording, objectives, min_share)
    path = critical_path(recording)
    if recording.has("spans"):
        own = path[~path["kind"].isin(NOT_THE_APP) & (path["stage"] != "")]
    elif (own := stages_between_calls(recording)).empty:
        raise NotMeasured(
            "no stages", hint="stages: traces (--otlp), perfnb.step in the app, or stage times in logs (--log)"
        )
    stages = own.groupby("stage").agg(total_ms=("exclusive_ms", "sum"), requests=("request_id", "nunique"))
    usual = own.groupby(["stage", "request_id"])["exclusive_ms"].sum().groupby("stage").median()
    if stages.empty:
        return Clear("no stage of the app lies on the critical path")
    stage = stages["total_ms"].idxmax()
    share = share_of_wait(recording, stages.loc[stage, "total_ms"])
    target = objectives["simple_answer_ms"]
    late = float(
        recording.query("SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS late FROM user_requests")[
            "late"
        ].iloc[0]
    )
    if share < min_share or usual[stage] < min_ms or not target.is_missed(late):
        return Clear(
            f"{len(stages)} stages; the longest, {stage}, takes {share:.0%} of the wait, {usual[stage]:.0f} ms a request"
        )
    return Finding(
        title=f"The stage {stage} takes {share:.0%} of the wait",
        severity=severity(target.miss(late), share),
        share=share,
        evidence=(
            f"{usual[stage]:.0f} ms a request (median) outside model calls, in {stages.loc[stage, 'requests']} requests",
            f"requests take {late:.0f} ms (p95), objective {target.value} ms",
            *_statements(recording, usual[stage]),
        ),
        remedy="Mend this stage first: see what it waits for (its child spans, stacks, statements), then cache, batch or replace it.",
        effort="medium",
        frame=stages.sort_values("total_ms", ascending=False).head(20).reset_index(),
        figure="where_time_goes",
        exemplars=tuple(own[own["stage"] == stage].nlargest(3, "exclusive_ms")["request_id"]),
    )


def _statements(recording: Recording, stage_ms: float) -> tuple[str, ...]:
    """Return what the database tells of a long stage: how much of a request's time its statements take."""
    took = database_ms_per_request(recording)
    if took is None:
        return ()
    part = "most of it may be theirs" if took >= 0.5 * stage_ms else "so most of it is not theirs"
    return (f"the statements of a request take {took:.0f} ms on average: {part}",)


def _dominant_in_logs(recording: Recording, objectives: Objectives, min_share: float) -> Finding | Clear:
    stages = percentiles(recording)
    total = (stages["mean_ms"] * stages["count"]).sum()
    first = stages.iloc[0]
    share = float(first["mean_ms"] * first["count"] / total)
    target = objectives["simple_answer_ms"]
    if len(stages) < 2 or share < min_share or not target.is_missed(first["p95_ms"]):
        return Clear(f"{len(stages)} stages in logs; the longest, {first['stage']}, takes {share:.0%} of their time")
    return Finding(
        title=f"The stage {first['stage']} takes {share:.0%} of the logged time",
        severity=severity(target.miss(first["p95_ms"]), share),
        share=share,
        evidence=(
            f"mean {first['mean_ms']:.0f} ms, p95 {first['p95_ms']:.0f} ms, max {first['max_ms']:.0f} ms over {first['count']} lines",
        ),
        remedy="Mend this stage first; record through the proxy (--upstream) to see what in it takes the time.",
        effort="medium",
        frame=stages.head(20),
        figure="percentiles",
    )


@check("cold-start", area="slow")
def cold_start(
    recording: Recording,
    objectives: Objectives,
    *,
    times: float = 3,
    min_excess_ms: float = 1000,
    idle_s: float = 60,
    least: int = 5,
) -> Finding | Clear:
    """The first requests after a start or a pause are far slower than those that follow (R20).

    Source: E85, E86, E8
    """
    seen = observed(recording).query(
        "SELECT request_id, route, start_time, duration_ms, start_time + CAST(duration_ms * 1e6 AS BIGINT) AS end_time "
        "FROM observed_http_requests WHERE coalesce(phase, 'measure') <> 'lag' AND error_type IS NULL AND status_code < 400 "
        "AND source = (SELECT source FROM observed_http_requests GROUP BY source ORDER BY source = 'span', source LIMIT 1) ORDER BY start_time"
    )
    if seen.empty:
        raise NotMeasured("no requests were seen", hint=HOW_TO_SEE_REQUESTS)
    cold = pd.concat(
        [_cold_ones(group, times, min_excess_ms, idle_s, least) for _, group in seen.groupby("route", dropna=False)]
    )
    share = share_of_all_waits(recording, cold["excess_ms"].sum())
    if cold.empty:
        return Clear(
            f"{len(seen)} requests: the first after a start or a pause of {idle_s:.0f} s are as fast as the rest"
        )
    return Finding(
        title=f"{len(cold)} first requests took {cold['duration_ms'].max() / 1000:.1f} s, later ones {cold['usual_ms'].median() / 1000:.1f} s",
        severity=severity(objectives["request_p95_ms"].miss(cold["duration_ms"].max()) + 1, max(share, 0.1)),
        share=share,
        evidence=(
            f"{len(cold)} requests right after a start or a pause took {cold['duration_ms'].median():.0f} ms (median)",
            f"the same routes take {cold['usual_ms'].median():.0f} ms afterwards (median of {len(seen) - len(cold)} requests)",
        ),
        remedy="Load and connect when the app starts (models, pools, caches), send one request before taking traffic, keep a minimum of connections open.",
        effort="low",
        frame=cold.head(20),
        figure="requests_over_time",
        exemplars=tuple(cold["request_id"].head(3)),
    )


def _cold_ones(group: pd.DataFrame, times: float, min_excess_ms: float, idle_s: float, least: int) -> pd.DataFrame:
    """Return the slow requests that begin a stretch of work, up to the first that is not slow."""
    usual = group["duration_ms"].median()
    slow = (group["duration_ms"] >= times * usual) & (group["duration_ms"] - usual >= min_excess_ms)
    idle = (group["start_time"] - group["end_time"].cummax().shift()) / 1e9 > idle_s
    stretch = idle.cumsum()
    leading = slow.groupby(stretch).cummin().astype(bool)
    cold = group[leading]
    warm = group[~leading]
    if len(warm) < least or (slow & ~leading).sum() > 0.5 * len(cold):
        cold = cold.head(0)  # slow ones come at other times too: it is no cold start
    return cold.assign(usual_ms=usual, excess_ms=cold["duration_ms"] - usual)
