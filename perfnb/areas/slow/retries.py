"""What happens when a call fails or hangs: timeouts, retries, and errors dressed as success."""

from itertools import pairwise

import pandas as pd

from perfnb.areas.slow.attempts import HOW_TO_SEE_ATTEMPTS, SOONEST_RETRY_MS, hidden_calls, unless_hidden
from perfnb.attribution import (
    calls_on_path,
    failed_requests,
    is_true,
    prepare,
    request_count,
    sees_requests,
    share_of_wait,
)
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.recording import Recording

TRANSIENT = ("rate_limit", "server_error", "connection", "timeout", "disconnected", "overloaded")


def chains(recording: Recording) -> pd.DataFrame:
    """Return one row per prompt with its retries.

    Columns: chain, request_id, attempts, errors (comma-separated), succeeded, transient (its first failure was one a
    retry may mend), start_time, end_time, lost_ms (failed attempts and pauses), retry_counts (as clients sent them).
    """
    return recording.derived("chains", lambda: _chains(calls_on_path(recording)))


def _chains(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.sort_values(["chain", "attempt"])
    failed = frame["error_type"].notna()
    frame = frame.assign(
        failed_ms=frame["duration_ms"].where(failed, 0.0) + frame["waited_ms"].fillna(0),
        is_transient=failed & (frame["error_type"].isin(TRANSIENT) | (frame["status_code"] >= 500)),
        error=frame["error_type"].fillna(""),
    )
    return frame.groupby("chain").agg(
        request_id=("request_id", "first"),
        operation=("operation", "first"),
        attempts=("attempt", "max"),
        errors=("error", lambda each: ", ".join(sorted({error for error in each if error}))),
        succeeded=("error", lambda each: each.iloc[-1] == ""),
        transient=("is_transient", "first"),
        start_time=("start_time", "min"),
        end_time=("end_time", "max"),
        lost_ms=("failed_ms", "sum"),
        retry_counts=("retry_count", lambda counts: tuple(int(count) for count in counts.dropna())),
    ).reset_index()  # fmt: skip


@check("timeout-too-long", area="slow")
def timeout_too_long(
    recording: Recording, objectives: Objectives, *, times: float = 8, min_share: float = 0.1
) -> Finding | Clear:
    """Calls hang far beyond any answer, because the client would wait for minutes (R14).

    Source: C50, C51, E29, E40; X68 (the SDK's own default is 600 s)
    """
    limit, slow = objectives["client_timeout_ms"], objectives.value("llm_call_ms")
    frame = calls_on_path(recording)
    usual = frame.loc[frame["error_type"].isna()].groupby("operation")["duration_ms"].median()
    floor = (times * frame["operation"].map(usual)).clip(lower=slow).fillna(slow)
    gave_up = frame["error_type"].isin(("timeout", "disconnected", "unfinished")) | frame["client_disconnected"].eq(
        True
    )
    stuck = frame[gave_up & frame["time_to_first_token_ms"].isna() & (frame["duration_ms"] >= floor)]
    patience = stuck["timeout_ms"].fillna(stuck["duration_ms"])
    stuck = stuck[patience > limit.value]
    share = share_of_wait(recording, stuck["on_path_ms"].sum())
    if len(stuck) < 2 or share < min_share:
        _unless_hung_within(recording, float(limit.value))
        return Clear(
            f"{len(stuck)} of {len(frame)} calls hung with a client ready to wait over {limit.value / 1000:.0f} s"
        )
    announced = stuck["timeout_ms"].dropna()
    patience_s = (announced.median() if len(announced) else stuck["duration_ms"].median()) / 1000
    return Finding(
        title=f"{len(stuck)} calls hung; their client would wait {patience_s:.0f} s",
        severity=severity(patience_s * 1000 / limit.value, share),
        share=share,
        evidence=(
            f"the hung calls lasted {stuck['duration_ms'].median() / 1000:.1f} s (median) without a token; answers take {usual.max() / 1000:.1f} s",
            f"client timeout {patience_s:.0f} s; advised read timeout {limit.value / 1000:.0f} s or less (C51, E29)",
        ),
        remedy="Set connect 5 s, read 30 to 60 s and an overall deadline a little above your p99; then retry once.",
        effort="low",
        frame=stuck[["call_id", "duration_ms", "timeout_ms", "error_type"]].head(50),
        figure="attempts_over_time",
        exemplars=tuple(stuck.nlargest(3, "duration_ms")["request_id"].dropna()),
    )


def _unless_hung_within(recording: Recording, limit_ms: float, *, least: int = 2) -> None:
    hidden = hidden_calls(recording)
    long = hidden[(hidden["duration_ms"] > limit_ms) & hidden["time_to_first_token_ms"].isna()]
    if len(long) >= least:
        raise NotMeasured(f"whether {len(long)} long calls hung and were tried again", hint=HOW_TO_SEE_ATTEMPTS)


@check("timeout-too-short", area="slow")
def timeout_too_short(
    recording: Recording,
    objectives: Objectives,
    *,
    least: int = 3,
    min_part: float = 0.03,
    spread: float = 0.15,
    near: float = 0.5,
) -> Finding | Clear:
    """Calls are cut off at one and the same age, while good answers come almost as late (R15).

    Source: E40, E84
    """
    frame = calls_on_path(recording)
    cut = frame[frame["error_type"].isin(("timeout", "disconnected")) | is_true(frame["client_disconnected"])]
    cut = _cluster(cut, spread)
    good = frame[frame["error_type"].isna() & frame["operation"].isin(set(cut["operation"]))]["duration_ms"]
    age = cut["duration_ms"].median()
    late = good.quantile(0.9) if len(good) else age
    if len(cut) < max(least, min_part * len(frame)) or late < near * age:
        clear = Clear(f"{len(cut)} of {len(frame)} calls were cut off at one age near that of good answers")
        return unless_hidden(recording, clear)
    failed = failed_requests(recording)
    hurt = int(failed["request_id"].isin(cut["request_id"]).sum())
    share = share_of_wait(recording, cut["on_path_ms"].sum())
    announced = cut["timeout_ms"].dropna()
    return Finding(
        title=f"{len(cut)} of {len(frame)} calls were cut off after {age:.0f} ms",
        severity=severity(
            len(cut) / len(frame) / objectives.value("error_rate") / 10, max(share, len(cut) / len(frame))
        ),
        share=share,
        evidence=(
            f"all within {spread:.0%} of {age:.0f} ms"
            + (f"; the client announces a timeout of {announced.median():.0f} ms" if len(announced) else ""),
            f"good answers take up to {late:.0f} ms (p90); {hurt} requests failed for it",
        ),
        remedy="Raise the timeout above the p99 of good answers (60 to 120 s for complex ones), and stream so that a read timeout counts gaps, not the whole.",
        effort="low",
        frame=cut[["call_id", "duration_ms", "timeout_ms", "error_type"]].head(50),
        figure="attempts_over_time",
        exemplars=tuple(cut["request_id"].dropna().unique()[:3]),
    )


def _cluster(cut: pd.DataFrame, spread: float) -> pd.DataFrame:
    """Return the largest group of rows whose durations lie within ``spread`` of their median."""
    if cut.empty:
        return cut
    ages = cut["duration_ms"].to_numpy()
    near = [(abs(ages - age) <= spread * age / 2).sum() for age in ages]
    middle = ages[int(max(range(len(ages)), key=near.__getitem__))]
    return cut[abs(cut["duration_ms"] - middle) <= spread * middle / 2]


@check("no-retry", area="slow")
def no_retry(recording: Recording, objectives: Objectives, *, least: int = 3, part: float = 0.7) -> Finding | Clear:
    """Failures that a second try would mend are passed on to the user (R16).

    The share is of requests: those that failed although nothing but a passing error was wrong. A call whose attempts
    are not seen counts only where it failed sooner than a client would have tried again.

    Source: C52, E28, E84
    """
    frame = chains(recording)
    passing = frame[frame["transient"] & ~frame["errors"].isin(("disconnected",))]
    passing = passing[~_may_hide_attempts(recording, passing)]
    single = passing[(passing["attempts"] == 1) & ~passing["succeeded"]]
    if len(single) < least or len(single) < part * len(passing):
        clear = Clear(f"{len(passing)} calls failed in passing, {len(single)} of them were not tried again")
        return unless_hidden(recording, clear)
    failed = failed_requests(recording)
    hurt = single["request_id"].isin(failed["request_id"]).sum()
    if hurt < least and sees_requests(recording):
        return Clear(f"{len(single)} calls failed in passing and were not tried again; {hurt} requests failed for it")
    rate = single["request_id"].nunique() / max(1, request_count(recording))
    return Finding(
        title=f"{len(single)} of {len(passing)} passing failures were not tried again",
        severity=severity(objectives["error_rate"].miss(rate) / 10, max(rate, 0.1)),
        share=float(rate),
        symptom="errors",
        evidence=(
            f"{rate:.1%} of requests fail for it; objective {objectives.value('error_rate'):.1%} (E67)",
            f"errors: {', '.join(sorted(set(single['errors'])))}; one attempt each",
        ),
        remedy="Try again up to 3 times in all, waiting 2 to 10 s with jitter, and only on 429, 5xx, connection errors and timeouts.",
        effort="low",
        frame=single.head(50),
        figure="attempts_over_time",
        exemplars=tuple(single["request_id"].dropna().unique()[:3]),
    )


def _may_hide_attempts(recording: Recording, frame: pd.DataFrame) -> pd.Series:
    is_hidden = frame["chain"].isin(hidden_calls(recording)["call_id"])
    return is_hidden & (frame["attempts"] == 1) & (frame["lost_ms"] >= SOONEST_RETRY_MS)


@check("retry-amplification", area="slow")
def retry_amplification(
    recording: Recording, objectives: Objectives, *, least: int = 3, min_share: float = 0.05
) -> Finding | Clear:
    """One prompt is sent again and again, because retries of several layers multiply (R17).

    One layer that waits for a rate limit to pass is rate-limited's.

    Source: C53, E29; X47 (three outer tries by three of the SDK make nine)
    """
    limit = objectives["attempts_per_call"]
    frame = chains(recording)
    nested = frame["retry_counts"].map(_starts_anew).astype(bool)
    many = frame[(frame["attempts"] > limit.value) & (nested | (frame["errors"] != "rate_limit"))]
    share = share_of_wait(recording, (many["lost_ms"] * (1 - limit.value / many["attempts"])).sum())
    if len(many) < least or share < min_share:
        clear = Clear(
            f"{len(many)} of {len(frame)} prompts were sent more than {limit.value} times ({share:.0%} of the wait)"
        )
        return unless_hidden(recording, clear)
    nested = nested[many.index]
    return Finding(
        title=f"{len(many)} prompts were sent {many['attempts'].median():.0f} times each",
        severity=severity(limit.miss(many["attempts"].median()), share),
        share=share,
        evidence=(
            f"up to {many['attempts'].max():.0f} attempts for one prompt; {limit.value} are enough (C52); errors: {', '.join(sorted(set(many['errors'])))}",
            f"{nested.sum()} of them start counting retries anew: one layer retries inside another",
        ),
        remedy="Retry in one layer only: set the client's max_retries=0 where the app retries, or drop the app's own loop.",
        effort="low",
        frame=many.head(50),
        figure="attempts_over_time",
        exemplars=tuple(many.nlargest(3, "attempts")["request_id"].dropna()),
    )


def _starts_anew(counts: tuple[int, ...]) -> bool:
    """Tell whether a client counted its retries from the start again: another layer had called it anew."""
    return any(later <= sooner for sooner, later in pairwise(counts))


@check("errors-as-success", area="slow")
def errors_as_success(recording: Recording, objectives: Objectives, *, least: int = 3) -> Finding | Clear:
    """Failures come back with status 200, so that error rates look fine (R90).

    The share is of requests.

    Source: users of LLM APIs whose gateways and apps wrap errors in a 200; E67
    """
    good = int(
        prepare(recording)
        .query("SELECT count(*) AS n FROM user_requests WHERE status_code BETWEEN 200 AND 299")["n"]
        .iloc[0]
    )
    if not good:
        raise NotMeasured(
            "no request's status was seen", hint="see requests: perfnb record --listen PORT --app URL, or server spans"
        )
    found = recording.query(_DRESSED_UP)
    hidden = found[is_true(found["error_in_body"])]
    if len(found) < least or len(found) < objectives.value("error_rate") * good:
        return Clear(f"{len(found)} of {good} requests with a good status hold an error or end on a failed model call")
    rate = len(found) / good
    return Finding(
        title=f"{len(found)} of {good} requests with a good status are failures",
        severity=severity(objectives["error_rate"].miss(rate) / 10, max(rate, 0.1)),
        share=float(rate),
        symptom="errors",
        evidence=(
            f"{rate:.1%} of good statuses are failures; objective {objectives.value('error_rate'):.1%} (E67)",
            f"{len(hidden)} bodies report an error; {len(found) - len(hidden)} requests end on a model call that failed",
        ),
        remedy="Answer with the status the failure deserves (502, 503, 504, 429); in a stream, send an error event and count it.",
        effort="low",
        frame=found.head(50),
        figure="requests_over_time",
        exemplars=tuple(found["request_id"].head(3)),
    )


# A body that reports an error, or a request whose model calls all failed for good, under a status that says success;
# calls that may as well be another request's prove nothing.
_DRESSED_UP = """
SELECT request_id, route, status_code, error_type, duration_ms, error_in_body FROM user_requests
WHERE status_code BETWEEN 200 AND 299 AND (
    (source IN ('front', 'probe', 'load') AND error_in_body)
    OR (NOT coalesce(client_disconnected, false) AND request_id IN (
        SELECT request_id FROM owned_calls WHERE operation <> 'embeddings' AND request_id IS NOT NULL
        GROUP BY request_id
        HAVING count(error_type) = count(*) AND NOT bool_or(error_type IN ('disconnected', 'unfinished'))
           AND min(certainty) >= 0.9)))
ORDER BY start_time
"""
