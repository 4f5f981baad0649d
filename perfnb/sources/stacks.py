"""Sample the stacks of a Python process and its Python children with py-spy, without a change to the app.

In turns: a burst of looks at every thread (mode ``dump``: is the event loop held, and where), then a window of samples
(mode ``profile``: where does time go). A window is sampled twice, first without and then with waiting threads; what the
first saw was on the processor, and the rest of each thread's time is given to the stacks that only the second saw.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import psutil

from perfnb.errors import NotInstalled, NotPermitted, NotReachable, PerfnbError
from perfnb.profiles.stacks import Stack, collapsed
from perfnb.recording.journal import Row
from perfnb.sources.base import Emit, Readiness
from perfnb.sources.pyspy import FASTEST_HZ, Look, PySpy, Samples
from perfnb.sources.threaded import Threaded

MOST_PROCESSES = 8
WAITING: Stack = ("(waiting)",)
PAUSE_S = 2.0


@dataclass(frozen=True)
class Rhythm:
    """How often and how long: a burst of looks, then a window without waiting threads, then one with them."""

    looks: int = 20
    look_hz: float = 8.0
    window_s: float = 5.0
    waiting_s: float = 2.0
    rate_hz: float = 50.0


class Stacks(Threaded):
    """Writes ``stacks`` rows about ``pid`` and its Python children until it ends."""

    name = "stacks"
    stop_timeout_s = 10.0

    def __init__(
        self,
        emit: Emit,
        pid: int,
        *,
        rate_hz: float = 50.0,
        rhythm: Rhythm | None = None,
        py_spy: PySpy | None = None,
    ) -> None:
        super().__init__(emit, "looks", "windows", "rows", "errors")
        self._pid = pid
        self._rhythm = rhythm or Rhythm(rate_hz=min(rate_hz, FASTEST_HZ))
        self._py_spy = py_spy

    def probe(self) -> Readiness:
        """Tell whether py-spy is there and may look into the process."""
        try:
            looks = self._found().look(self._pid)
        except (NotInstalled, NotPermitted) as error:
            return Readiness(self.name, False, error.message, error.hint)
        except NotReachable as error:
            if not psutil.pid_exists(self._pid):
                return Readiness(self.name, False, error.message, error.hint)
            return Readiness(self.name, True, f"pid {self._pid} runs no Python yet; its children may")
        return Readiness(self.name, True, f"pid {self._pid}, {len(looks)} Python threads")

    def __enter__(self) -> Self:
        self._py_spy = self._found()
        readiness = self.probe()
        if not readiness.works:
            kind = NotReachable if not psutil.pid_exists(self._pid) else NotPermitted
            raise kind(readiness.found, hint=readiness.needs)
        return super().__enter__()

    def _found(self) -> PySpy:
        return self._py_spy or PySpy.find()

    def _run(self) -> None:
        while not self._stop.is_set() and (pids := python_processes(self._pid)):
            try:
                seen = [self._burst(pids), self._windows(pids)]
            except Exception:  # whatever fails here must not end the recording; the counter tells
                self._counters["errors"] += 1
                seen = []
            if not any(seen):
                self._stop.wait(PAUSE_S)

    def _burst(self, pids: list[int]) -> bool:
        """Take a burst of looks and tell whether one succeeded."""
        seen = False
        for _ in range(self._rhythm.looks):
            began = time.perf_counter()
            for pid in pids:
                seen |= self._look(pid)
            if self._stop.wait(max(0.0, 1 / self._rhythm.look_hz - (time.perf_counter() - began))) or not seen:
                break
        return seen

    def _look(self, pid: int) -> bool:
        try:
            taken = time.time_ns()
            looks = self._found().look(pid)
        except PerfnbError:  # it ended, runs no Python yet, or was caught between two states
            self._counters["errors"] += 1
            return False
        self._counters["looks"] += 1
        self._write(look_rows(pid, taken, looks, 1000 / self._rhythm.look_hz))
        return True

    def _windows(self, pids: list[int]) -> bool:
        """Sample all processes at once and tell whether there was something to see."""
        if self._stop.is_set():
            return False
        with ThreadPoolExecutor(len(pids), thread_name_prefix="py-spy") as pool:
            windows = list(pool.map(self._window, pids))
        for rows in windows:
            self._write(rows)
        return any(windows)

    def _window(self, pid: int) -> list[Row]:
        taken, rhythm = time.time_ns(), self._rhythm
        try:
            busy = self._found().sample(pid, rhythm.window_s, rhythm.rate_hz, idle=False, stop=self._stop)
            both = Samples(0.0, rhythm.rate_hz, {})
            if not self._stop.is_set():
                both = self._found().sample(pid, rhythm.waiting_s, rhythm.rate_hz, idle=True, stop=self._stop)
        except PerfnbError:
            self._counters["errors"] += 1
            return []
        self._counters["windows"] += 1
        return profile_rows(pid, taken, busy, both)

    def _write(self, rows: list[Row]) -> None:
        self._counters["rows"] += self._emit("stacks", rows)


def python_processes(pid: int) -> list[int]:
    """Return those of ``pid`` and its descendants that run Python, at most eight; nothing once ``pid`` has ended.

    Where none seems to, it is ``pid`` itself: a server that embeds Python, or a command that is about to start it.
    """
    try:
        root = psutil.Process(pid)
        if root.status() == psutil.STATUS_ZOMBIE:
            return []
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return []
    return [each.pid for each in family if _is_python(each)][:MOST_PROCESSES] or [pid]


def look_rows(pid: int, taken: int, looks: Iterable[Look], period_ms: float) -> list[Row]:
    """Return one row for each thread of one look."""
    return [
        _row(pid, taken, look.thread, look.stack, 1, look.is_active, "dump", period_ms) | {"holds_gil": look.holds_gil}
        for look in looks
    ]


def profile_rows(pid: int, taken: int, busy: Samples, both: Samples) -> list[Row]:
    """Return one row for each stack of a window; a thread's samples add up to the whole window.

    Args:
        pid: The process.
        taken: Start of the window.
        busy: Samples without waiting threads.
        both: Samples with them, taken right after.
    """
    expected = both.seconds * both.rate_hz
    kept_up = min(1.0, both.most / expected) if both.most else 1.0  # a sampler short of time takes fewer
    ticks = max(busy.most, round(busy.seconds * busy.rate_hz * kept_up), 1)
    period_ms = busy.seconds * 1000 / ticks
    rows: list[Row] = []
    for thread in sorted({*busy.threads, *both.threads}):
        running = busy.of_thread(thread)
        rows += [_row(pid, taken, thread, stack, n, True, "profile", period_ms) for stack, n in sorted(running.items())]
        left = ticks - sum(running.values())
        waiting = shared(left, _beyond(both.of_thread(thread), running, max(both.most, 1) / ticks))
        rows += [_row(pid, taken, thread, stack, n, False, "profile", period_ms) for stack, n in waiting.items()]
    return rows


def shared(samples: int, weights: Mapping[Stack, float]) -> dict[Stack, int]:
    """Return ``samples`` shared out by ``weights`` in whole numbers; all to "(waiting)" where there are none."""
    whole = sum(weights.values())
    if not whole:
        return {WAITING: samples} if samples else {}
    exact = {stack: samples * weight / whole for stack, weight in sorted(weights.items())}
    given = {stack: int(part) for stack, part in exact.items()}
    by_loss = sorted(exact, key=lambda stack: given[stack] - exact[stack])
    for stack in by_loss[: samples - sum(given.values())]:
        given[stack] += 1
    return {stack: count for stack, count in given.items() if count}


def _beyond(both: Mapping[Stack, int], running: Mapping[Stack, int], scale: float) -> dict[Stack, float]:
    """Return how much more often stacks were seen with waiting threads than running alone explains."""
    extra = {stack: count - running.get(stack, 0) * scale for stack, count in both.items()}
    return {stack: more for stack, more in extra.items() if more > 0}


def _row(
    pid: int, taken: int, thread: str, stack: Stack, samples: int, on_cpu: bool, mode: str, period_ms: float
) -> dict[str, object]:
    return {
        "time": taken,
        "pid": pid,
        "thread": thread,
        "stack": collapsed(stack),
        "samples": samples,
        "on_cpu": on_cpu,
        "mode": mode,
        "period_ms": round(period_ms, 3),
    }


def _is_python(process: psutil.Process) -> bool:
    try:
        name = process.exe().rsplit("/", 1)[-1] or process.name()
    except psutil.Error:
        return False
    return name.lower().startswith(("python", "pypy"))
