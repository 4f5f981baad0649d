"""What the app's own code does while requests wait: a blocked event loop, a Python hot spot."""

import re
from dataclasses import dataclass

import pandas as pd

from perfnb.attribution import (
    critical_path,
    observed,
    observed_seconds,
    prepare,
    share_of_all_waits,
    share_of_wait,
    total_wait_ms,
)
from perfnb.checklist import check
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives, severity
from perfnb.profiles.stacks import origin
from perfnb.recording import Recording

HOW_TO_SAMPLE = "stacks: perfnb record --pid PID (py-spy), or a --app URL on this host"

_FRAME = re.compile(r"^(?P<function>.*?) \((?P<file>[^()]*?)(?::(?P<line>\d+))?\)$")

# Frames that drive an event loop; what stands above them in a stack is a callback at work.
_LOOP = re.compile(r"(^|\.)(run_forever|run_until_complete|_run_once|run|_run|serve)$")
# anyio's frames alone are a worker thread's, which may wait as it likes; a loop has asyncio's or trio's below them.
_LOOP_FILES = re.compile(r"(asyncio/|uvloop/|uvicorn/|trio/|hypercorn/|aiohttp/web\.py)")
_WAITING = re.compile(r"(^|\.)(select|poll|epoll|kqueue|wait)$")

# Calls that wait until something comes; a coroutine never stands in one off the processor.
_BLOCKING_CALL = re.compile(
    r"(^|\.)(read|readinto|readline|recv|recv_into|connect|getaddrinfo|getresponse|sleep|acquire|join|communicate) \("
)

SATURATED = 0.9
"""Processor seconds a second from which on one interpreter is used up."""

_HELD = ["pid", "thread", "where", "doing", "held_s", "seen_s"]

# Libraries that talk to others; an app's frame below them waits or passes bytes on, and burns little by itself.
_TALKS = re.compile(
    r"(asyncio|uvloop|anyio|trio|httpx2?|httpcore2?|h11|h2|aiohttp|urllib3?|requests|openai|anthropic|http|ssl|socket|selectors"
    r"|starlette|fastapi|uvicorn|psycopg\w*|asyncpg|sqlalchemy|redis|grpc|opentelemetry)(/|\.py$)"
)


@dataclass(frozen=True)
class Frame:
    """One frame of a stack."""

    function: str
    file: str
    line: int | None

    @property
    def is_library(self) -> bool:
        """Tell whether this is Python's or a package's code."""
        return origin(str(self)) != "app"

    def __str__(self) -> str:
        return f"{self.function} ({self.file}:{self.line})" if self.line else f"{self.function} ({self.file})"


def frames(stack: str) -> tuple[Frame, ...]:
    """Return the frames of a collapsed stack, root first; a frame of another form keeps its text as function."""
    parsed = []
    for part in stack.split(";"):
        match = _FRAME.match(part.strip())
        if match:
            line = match["line"]
            parsed.append(Frame(match["function"], match["file"], int(line) if line else None))
        else:
            parsed.append(Frame(part.strip(), "", None))
    return tuple(parsed)


def above_loop(stack: tuple[Frame, ...]) -> tuple[Frame, ...] | None:
    """Return the frames a callback of the event loop has on the stack; empty while it waits; None off the loop."""
    last = max((index for index, frame in enumerate(stack) if _drives_loop(frame)), default=None)
    if last is None:
        return None
    above = stack[last + 1 :]
    if above and _WAITING.search(above[0].function) and above[0].is_library:
        return ()
    return above


def _drives_loop(frame: Frame) -> bool:
    return bool(_LOOP.search(frame.function) and _LOOP_FILES.search(frame.file))


def own_frames(stack: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Return the app's own frames, without those that merely started the server or the event loop."""
    working = above_loop(stack)
    considered = stack if working is None else working
    return tuple(frame for frame in considered if not frame.is_library and frame.function != "<module>")


def culprit(stack: tuple[Frame, ...]) -> Frame:
    """Return the app's own frame nearest to what runs, or what runs where no frame is the app's."""
    own = own_frames(stack)
    return own[-1] if own else stack[-1]


def held_loop(recording: Recording) -> pd.DataFrame:
    """Return how long event loops were seen waiting for work, working, and held up.

    One row per place: pid, thread, where (null for the loop's waiting and for quick work), doing, held_s, seen_s. Held
    means, in looks at all threads, that the same callback stood on the same line in two looks in a row (at 8 looks a
    second it kept the loop for an eighth of a second or longer); in profiles, that a callback was on the stack while its
    thread was off the processor: it waited for something synchronously. Looks count while requests were under way.
    """
    return recording.derived("held loop", lambda: pd.concat([_held_in_looks(recording), _held_in_profiles(recording)]))


def _held_in_looks(recording: Recording) -> pd.DataFrame:
    looks = observed(recording).query(
        "SELECT time, pid, thread, stack FROM observed_stacks WHERE mode = 'dump' ORDER BY pid, thread, time"
    )
    rows = []
    for (pid, thread), group in _during_requests(recording, looks).groupby(["pid", "thread"]):
        above = [above_loop(frames(stack)) for stack in group["stack"]]
        if all(each is None for each in above):
            continue
        spacing = float(group["time"].diff().median()) / 1e9 if len(group) > 1 else 0.0
        for position, here in enumerate(above):
            neighbours = above[max(0, position - 1) : position] + above[position + 1 : position + 2]
            held = bool(here) and here in neighbours
            where, doing = (str(culprit(here)), str(here[-1])) if held and here else (None, None)
            rows.append((pid, thread, where, doing, spacing if held else 0.0, spacing))
    return pd.DataFrame(rows, columns=_HELD).groupby(_HELD[:4], dropna=False)[_HELD[4:]].sum().reset_index()


def _held_in_profiles(recording: Recording) -> pd.DataFrame:
    profiles = observed(recording).query(
        "SELECT pid, thread, stack, on_cpu, sum(samples * period_ms) / 1000 AS seconds FROM observed_stacks "
        "WHERE mode = 'profile' GROUP BY pid, thread, stack, on_cpu"
    )
    rows = []
    for (pid, thread), group in profiles.groupby(["pid", "thread"]):
        above = [above_loop(frames(stack)) for stack in group["stack"]]
        if all(each is None for each in above):
            continue
        for here, on_cpu, seconds in zip(above, group["on_cpu"], group["seconds"], strict=True):
            held = bool(here) and not on_cpu
            where, doing = (str(culprit(here)), str(here[-1])) if held and here else (None, None)
            rows.append((pid, thread, where, doing, seconds if held else 0.0, seconds))
    return pd.DataFrame(rows, columns=_HELD).groupby(_HELD[:4], dropna=False)[_HELD[4:]].sum().reset_index()


def hot_functions(recording: Recording) -> pd.DataFrame:
    """Return the app's functions by processor time below them: where, cpu_s, part (of the sampled processor time).

    Each sample counts once, for the app's frame nearest to what runs.
    """
    return recording.derived("hot functions", lambda: _hot_functions(recording))


def _hot_functions(recording: Recording) -> pd.DataFrame:
    stacks = observed(recording).query(
        "SELECT stack, sum(samples) AS samples, sum(samples * period_ms) / 1000 AS cpu_s FROM observed_stacks "
        "WHERE mode = 'profile' AND on_cpu GROUP BY stack"
    )
    parsed = [frames(stack) for stack in stacks["stack"]]
    where = [_place(culprit(stack)) for stack in parsed]
    is_own = [_works_itself(stack) for stack in parsed]
    named = stacks.assign(where=where, is_own=is_own)
    groups = named.groupby(["where", "is_own"])["cpu_s"].sum().reset_index().sort_values("cpu_s", ascending=False)
    return groups.assign(part=groups["cpu_s"] / max(1e-9, groups["cpu_s"].sum()))


def _works_itself(stack: tuple[Frame, ...]) -> bool:
    """Tell whether the app's own frame computes; a library that sends or receives for it is not its work."""
    own = own_frames(stack)
    if not own:
        return False
    above = stack[stack.index(own[-1]) + 1 :]
    return not any(_TALKS.search(frame.file) for frame in above)


def _place(frame: Frame) -> str:
    return f"{frame.function} ({frame.file})"


def _profiled_seconds(recording: Recording) -> float:
    """Return how long processor samples were taken, from the windows' starts and lengths."""
    row = (
        observed(recording)
        .query(
            "SELECT coalesce(sum(length), 0) AS seconds FROM (SELECT time, pid, max(total) AS length FROM "
            "(SELECT time, pid, thread, sum(samples * period_ms) / 1000 AS total FROM observed_stacks WHERE mode = 'profile' "
            "GROUP BY time, pid, thread) GROUP BY time, pid)"
        )
        .iloc[0]
    )
    return float(row["seconds"])


@check("blocked-event-loop", area="slow")
def blocked_event_loop(
    recording: Recording,
    objectives: Objectives,
    *,
    min_part: float = 0.15,
    min_held_s: float = 0.4,
    one_place: float = 0.3,
    min_waiting: float = 0.03,
    late_ms: float = 250,
) -> Finding | Clear:
    """Synchronous work holds the event loop, so that all requests stand still together (R21).

    Seen in stacks, where one call accounts for a good part of it (waits for the interpreter lock are everywhere), or
    where the loop stands in a call that only waits; or by a light request that is answered late while another is
    under way. Where threads use all that one interpreter can give, the loop waits for its lock, and only a call that
    waits by itself is blamed.

    Source: E37, D32, C22
    """
    seen = held_loop(recording)
    if seen.empty:
        return _late_beside_others(recording, objectives, late_ms)
    held, total = float(seen["held_s"].sum()), float(seen["seen_s"].sum())
    part = held / total if total else 0.0
    places = seen.dropna(subset=["where"]).groupby(["where", "doing"])["held_s"].sum().sort_values(ascending=False)
    first = float(places.iloc[0]) if len(places) else 0.0
    waits = first >= min_waiting * total and bool(_BLOCKING_CALL.search(places.index[0][1])) if first else False
    stands = part >= min_part and first >= one_place * held and not _is_saturated(recording)
    if held < min_held_s or not (waits or stands):
        return Clear(f"the event loop was held for {held:.1f} of {total:.1f} s seen, {first:.1f} s of it at one place")
    where, doing = places.index[0]
    return Finding(
        title=f"The event loop stands still {part:.0%} of the time, most of it in {where}",
        severity=severity(part / min_part, part),
        share=part,
        evidence=(
            f"of {total:.1f} s in which stacks of the loop were seen, it was held for {held:.1f} s, {first:.1f} s of it in one call",
            f"there it waits in {doing}",
        ),
        remedy="Await the asynchronous form of this call, or move it off the loop with asyncio.to_thread.",
        effort="low",
        frame=places.head(20).reset_index(),
        figure="flame",
    )


def _during_requests(recording: Recording, looks: pd.DataFrame) -> pd.DataFrame:
    """Return looks taken while a request was under way; all where no request was seen."""
    prepare(recording)
    spans = recording.query("SELECT start_time, end_time FROM user_requests ORDER BY start_time")
    if spans.empty:
        return looks
    starts, ends = spans["start_time"].to_numpy(), spans["end_time"].cummax().to_numpy()
    latest = starts.searchsorted(looks["time"].to_numpy(), side="right") - 1
    inside = (latest >= 0) & (ends[latest.clip(min=0)] >= looks["time"].to_numpy())
    return looks[inside]


def _late_beside_others(recording: Recording, objectives: Objectives, late_ms: float) -> Finding | Clear:
    """Judge by the light requests a probe sends beside each of its requests."""
    lags = observed(recording).query(
        "SELECT start_time, duration_ms FROM observed_http_requests WHERE phase = 'lag' ORDER BY start_time"
    )
    if lags.empty:
        raise NotMeasured(
            "neither stacks of an event loop nor a probe's light requests",
            hint=HOW_TO_SAMPLE + "; or perfnb record --url URL",
        )
    late = lags[lags["duration_ms"] >= late_ms]
    part = len(late) / len(lags)
    if len(late) < 3 or part < 0.1:
        return Clear(f"{len(late)} of {len(lags)} light requests beside others took over {late_ms:.0f} ms")
    share = share_of_all_waits(recording, late["duration_ms"].sum())
    limit = objectives["health_check_ms"]
    return Finding(
        title=f"While one request is under way, another waits {late['duration_ms'].median():.0f} ms for a trivial answer",
        severity=severity(limit.miss(late["duration_ms"].median()), share),
        share=share,
        evidence=(
            f"{len(late)} of {len(lags)} light requests beside others took over {late_ms:.0f} ms; the rest {lags['duration_ms'].quantile(0.25):.0f} ms",
            "the app does one thing at a time: its event loop or only worker is held",
        ),
        remedy="Sample stacks (--pid) to see the line; await the asynchronous form of the call or use asyncio.to_thread.",
        effort="low",
        figure="requests_over_time",
    )


@check("python-hot-spot", area="slow")
def python_hot_spot(
    recording: Recording,
    objectives: Objectives,
    *,
    min_part: float = 0.4,
    min_busy: float = 0.15,
    min_share: float = 0.1,
) -> Finding | Clear:
    """One function of the app burns most of the processor time, and requests wait for it (R22).

    Source: C18, C19, C20, C22, B30, E55
    """
    if observed(recording).query("SELECT 1 FROM observed_stacks WHERE mode = 'profile' LIMIT 1").empty:
        raise NotMeasured("no processor samples", hint=HOW_TO_SAMPLE)
    hot = hot_functions(recording)
    own = hot[hot["is_own"]]
    window = _profiled_seconds(recording)
    if own.empty or not window:
        return Clear("no sample on the processor was in the app's own code")
    first = own.iloc[0]
    busy = float(hot["cpu_s"].sum()) / window
    share = hot_share(recording)
    if first["part"] < min_part or busy < min_busy or share < min_share:
        return Clear(
            f"{first['where']} takes {first['part']:.0%} of the processor time; the app is busy {busy:.0%} of the time"
        )
    return Finding(
        title=f"{first['where']} takes {first['part']:.0%} of the app's processor time",
        severity=severity(first["part"] / min_part * 1.5, share),
        share=share,
        evidence=(
            f"{first['cpu_s']:.1f} s of {hot['cpu_s'].sum():.1f} s processor time in {window:.0f} s of samples; the app is busy {busy:.0%} of the time",
            f"about {share:.0%} of the users' wait",
        ),
        remedy="Profile its lines (line_profiler), use a better algorithm or data structure, cache its result, or move it to a process.",
        effort="medium",
        frame=hot.head(20),
        figure="flame",
    )


def hot_share(recording: Recording) -> float:
    """Return the part of the users' wait the hottest function of the app may explain.

    Its processor time; in an app whose interpreter is used up, requests queue for it, and it is the function's part of
    all that is not waited for elsewhere.
    """
    hot = hot_functions(recording)
    own = hot[hot["is_own"]]
    window = _profiled_seconds(recording)
    if own.empty or not window:
        return 0.0
    seconds = float(own["cpu_s"].iloc[0]) / window * observed_seconds(recording)
    share = share_of_wait(recording, seconds * 1000)
    if not _is_saturated(recording):
        return share
    path = critical_path(recording)
    queued_ms = float(path.loc[path["call_id"].isna(), "exclusive_ms"].sum())
    return max(share, float(own["part"].iloc[0]) * share_of_wait(recording, queued_ms))


def _is_saturated(recording: Recording) -> bool:
    """Tell whether the app's threads together used up one interpreter."""
    window = _profiled_seconds(recording)
    return window > 0 and float(hot_functions(recording)["cpu_s"].sum()) / window >= SATURATED


def explained_by_stacks(recording: Recording) -> float:
    """Return the wait in ms that stacks explain as a held event loop or a hot function; 0 without stacks."""
    if not recording.has("stacks"):
        return 0.0
    seen = held_loop(recording)
    total = float(seen["seen_s"].sum())
    held = float(seen["held_s"].sum()) / total if total else 0.0
    return max(held, hot_share(recording)) * total_wait_ms(recording)
