"""Sample a process and its children: processor, memory, threads, descriptors, I/O, context switches."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from perfnb.errors import NotReachable
from perfnb.recording.journal import Row
from perfnb.sources.base import Emit, Readiness
from perfnb.sources.cgroup import Limits, limits_of
from perfnb.sources.threaded import Threaded

USS_EVERY = 10  # walking all pages takes about 10 ms a gigabyte and holds the target's memory lock meanwhile


@dataclass(frozen=True)
class _Reading:
    """Processor time a process had used at a moment of the monotonic clock."""

    cpu_s: float
    at_s: float


class Process(Threaded):
    """Writes ``samples`` rows about the process ``pid`` and each of its children until it ends.

    Entities are ``pid 4711 (uvicorn)`` for one process and ``pid 4711 (uvicorn) and children`` for all together.
    Metrics: cpu_percent (100 is one core), cpu_of_host and cpu_of_limit (fractions; the limit is the cgroup's, where
    there is one), memory_rss_bytes, memory_uss_bytes, memory_limit_bytes, threads, descriptors, processes; read_bytes,
    written_bytes and context_switches, voluntary or not, since the process began.
    """

    name = "process"

    def __init__(
        self,
        emit: Emit,
        pid: int,
        *,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], int] = time.time_ns,
        limits: Callable[[int], Limits] = limits_of,
    ) -> None:
        super().__init__(emit, "rows", "looks", "errors")
        self._pid = pid
        self._interval_s = interval_s
        self._clock = clock
        self._now = now
        self._limits = limits(pid)
        self._before: dict[psutil.Process, _Reading] = {}

    def probe(self) -> Readiness:
        """Tell whether there is such a process and what of it can be seen."""
        try:
            process = psutil.Process(self._pid)
            process.cpu_times()
        except psutil.NoSuchProcess:
            return Readiness(self.name, False, f"no process {self._pid}", "name a running process: --pid PID")
        except psutil.AccessDenied:
            return Readiness(
                self.name, False, f"pid {self._pid} can't be looked at", "run as the same user, or as root"
            )
        hidden = [what for what, read in _MAYBE_HIDDEN.items() if not _can(read, process)]
        needs = "run as the same user, or as root" if hidden else ""
        return Readiness(self.name, True, entity(process) + (f" without {', '.join(hidden)}" if hidden else ""), needs)

    def __enter__(self) -> Self:
        if not psutil.pid_exists(self._pid):
            raise NotReachable(f"no process {self._pid}", hint="name a running process: --pid PID")
        return super().__enter__()

    def look(self) -> list[Row]:
        """Return the rows of one look; raises psutil.NoSuchProcess once the process has ended."""
        process = psutil.Process(self._pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            raise psutil.NoSuchProcess(self._pid)
        rows: list[Row] = []
        readings: dict[psutil.Process, _Reading] = {}
        for each in (process, *process.children(recursive=True)):
            try:
                rows += self._rows_of(each, readings)
            except psutil.Error:  # a child that ended meanwhile, or one that is not ours to see
                self._counters["errors"] += 1
        self._before = readings
        self._counters["looks"] += 1
        return rows + self._rows_together(process, rows)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = self._clock()
            try:
                rows = self.look()
                self._counters["rows"] += self._emit("samples", rows)
            except psutil.NoSuchProcess:
                return
            except Exception:  # whatever fails here must not end the recording; the counter tells
                self._counters["errors"] += 1
            self._stop.wait(max(0.0, self._interval_s - (self._clock() - began)))

    def _rows_of(self, process: psutil.Process, readings: dict[psutil.Process, _Reading]) -> list[Row]:
        name, taken = entity(process), self._now()
        with process.oneshot():
            times = process.cpu_times()
            readings[process] = reading = _Reading(times.user + times.system, self._clock())
            values = [*self._processor(process, reading), *_state(process)]
        if self._counters["looks"] % USS_EVERY == 0:
            values += _maybe("memory_uss_bytes", "bytes", lambda: process.memory_full_info().uss)
        attributes = {"pid": process.pid, "parent": process.ppid()}
        return [_row(taken, name, metric, value, unit, attributes) for metric, value, unit in values]

    def _processor(self, process: psutil.Process, now: _Reading) -> Iterator[tuple[str, float, str]]:
        before = self._before.get(process)
        if before is None or now.at_s <= before.at_s:
            return
        cores = (now.cpu_s - before.cpu_s) / (now.at_s - before.at_s)
        yield "cpu_percent", cores * 100, "percent"
        yield "cpu_of_host", cores / (psutil.cpu_count() or 1), "fraction"
        if self._limits.cores:
            yield "cpu_of_limit", cores / self._limits.cores, "fraction"

    def _rows_together(self, process: psutil.Process, rows: list[Row]) -> list[Row]:
        taken, name = self._now(), f"{entity(process)} and children"
        summed = ("cpu_percent", "cpu_of_host", "cpu_of_limit", "memory_rss_bytes", "threads", "descriptors")
        made = [_row(taken, name, "processes", len({row["entity"] for row in rows}), "count", {})]
        for metric in summed:
            parts = [row for row in rows if row["metric"] == metric]
            if parts:
                made.append(_row(taken, name, metric, sum(row["value"] for row in parts), parts[0]["unit"], {}))
        if self._limits.memory_bytes:
            made.append(_row(taken, name, "memory_limit_bytes", self._limits.memory_bytes, "bytes", {}))
        return made


def entity(process: psutil.Process) -> str:
    """Return how rows name ``process``: ``pid 4711 (uvicorn)``; never its whole command line, which may hold secrets."""
    return f"pid {process.pid} ({_program(process)})"


def pid_listening_on(port: int) -> int | None:
    """Return the process on this host that listens on TCP ``port``, the parent where workers share it, or None.

    None also where it belongs to someone else and may not be seen, or where a container's port is only forwarded.
    """
    pid = next(_listeners(port), None)
    while pid is not None and (parent := _parent(pid)) is not None and _holds(parent, port):
        pid = parent
    return pid if pid is not None and _name(pid) != "docker-proxy" else None


def _listeners(port: int) -> Iterator[int]:
    """Yield who listens; of several that share a socket, the system tells only one."""
    try:
        yield from (each.pid for each in psutil.net_connections("tcp") if each.pid and _listens(each, port))
    except psutil.AccessDenied:  # macOS tells only root about all; each of our own processes may still be asked
        yield from (process.pid for process in psutil.process_iter() if _holds(process.pid, port))


def _holds(pid: int, port: int) -> bool:
    try:
        return any(_listens(each, port) for each in psutil.Process(pid).net_connections("tcp"))
    except psutil.Error:
        return False


def _listens(connection: Any, port: int) -> bool:
    return bool(connection.status == psutil.CONN_LISTEN and connection.laddr.port == port)


def _parent(pid: int) -> int | None:
    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return None


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""


def _program(process: psutil.Process) -> str:
    """Return what runs: for Python the module after -m or the script's name."""
    name = process.name()
    if not name.lower().startswith("python"):
        return name
    try:
        _, *arguments = process.cmdline()
    except (psutil.Error, ValueError):
        return name
    if "-m" in arguments[:-1]:
        return arguments[arguments.index("-m") + 1]
    script = next((argument for argument in arguments if not argument.startswith("-")), "")
    return Path(script).name if script.endswith(".py") or "/bin/" in script else name


def _state(process: psutil.Process) -> Iterator[tuple[str, float, str]]:
    yield "memory_rss_bytes", process.memory_info().rss, "bytes"
    yield "threads", process.num_threads(), "count"
    switches = process.num_ctx_switches()
    yield "context_switches_voluntary", switches.voluntary, "count"
    yield "context_switches_involuntary", switches.involuntary, "count"
    yield from _maybe("descriptors", "count", process.num_fds)
    if hasattr(process, "io_counters"):
        yield from _maybe("read_bytes", "bytes", lambda: process.io_counters().read_bytes)
        yield from _maybe("written_bytes", "bytes", lambda: process.io_counters().write_bytes)


def _maybe(metric: str, unit: str, read: Callable[[], float]) -> list[tuple[str, float, str]]:
    """Return one value, or nothing where it may not be seen."""
    try:
        return [(metric, read(), unit)]
    except psutil.AccessDenied:
        return []


def _row(taken: int, name: str, metric: str, value: float, unit: str, attributes: Mapping[str, Any]) -> Row:
    return {
        "time": taken,
        "source": "process",
        "entity": name,
        "metric": metric,
        "value": float(value),
        "unit": unit,
        "attributes": attributes,
    }


def _can(read: Callable[[psutil.Process], object], process: psutil.Process) -> bool:
    try:
        read(process)
    except (psutil.AccessDenied, AttributeError):
        return False
    return True


_MAYBE_HIDDEN: Mapping[str, Callable[[psutil.Process], object]] = {
    "descriptors": lambda process: process.num_fds(),
    "I/O": lambda process: process.io_counters(),
    "unshared memory": lambda process: process.memory_full_info(),
}
