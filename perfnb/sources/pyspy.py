"""Run py-spy: look at every thread once, or sample for a while; what goes wrong becomes one error with one remedy.

Targets are never paused (``--nonblocking``): a sampler that is itself kept waiting for a processor would otherwise hold
the app for that long. Locals are never asked for.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfnb.errors import NotInstalled, NotPermitted, NotReachable, PerfnbError
from perfnb.profiles.stacks import NO_FRAMES, Stack, parse, short_path

FASTEST_HZ = 100
LONGEST_S = 30.0
GRACE_S = 5.0
NICE = 10

_FRAME = re.compile(r"^(?P<function>.+?) \((?P<file>.*?)(?::(?P<line>\d+))?\)$", re.DOTALL)
_THREAD = re.compile(r"^thread \((?P<id>[^)]*)\)(?:: (?P<name>.*))?$", re.DOTALL)


@dataclass(frozen=True)
class Look:
    """One thread as one look found it."""

    thread: str
    stack: Stack
    is_active: bool
    holds_gil: bool


@dataclass(frozen=True)
class Samples:
    """Samples of one process over ``seconds``: how many showed each stack of each thread."""

    seconds: float
    rate_hz: float
    counts: Mapping[tuple[str, Stack], int]

    def of_thread(self, thread: str) -> dict[Stack, int]:
        """Return the counts of one thread."""
        return {stack: count for (name, stack), count in self.counts.items() if name == thread}

    @property
    def threads(self) -> list[str]:
        """Return the threads that were seen, by name."""
        return sorted({name for name, _ in self.counts})

    @property
    def most(self) -> int:
        """Return the samples of the thread that was seen most."""
        totals: Counter[str] = Counter()
        for (name, _), count in self.counts.items():
            totals[name] += count
        return max(totals.values(), default=0)


class PySpy:
    """The py-spy program, started through ``prefix``; one that does not end ``grace_s`` after it should is killed."""

    def __init__(self, program: Path, *, prefix: Sequence[str] | None = None, grace_s: float = GRACE_S) -> None:
        self._program = program
        self._grace_s = grace_s
        nice = shutil.which("nice")
        self._prefix = list(prefix) if prefix is not None else [nice, "-n", str(NICE)] if nice else []

    @classmethod
    def find(cls, python: str = sys.executable) -> "PySpy":
        """Return the py-spy beside the interpreter, or on the path; raises NotInstalled."""
        beside = shutil.which("py-spy", path=str(Path(python).parent))
        program = beside or shutil.which("py-spy")
        if program is None:
            raise NotInstalled("py-spy is not installed", hint="pip install py-spy")
        return cls(Path(program))

    def look(self, pid: int) -> list[Look]:
        """Return every thread that runs Python code; raises NotPermitted or NotReachable."""
        command = [*self._prefix, str(self._program), "dump", "--json", "--nonblocking", "--pid", str(pid)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=self._grace_s, env=_environment(), check=False)
        except subprocess.TimeoutExpired:
            raise NotReachable(f"py-spy got no answer from pid {pid}", hint="is the process stopped?") from None
        if done.returncode:
            raise failure(pid, done.stderr.decode(errors="replace"))
        return looks_in(json.loads(done.stdout))

    def sample(self, pid: int, seconds: float, rate_hz: float, *, idle: bool, stop: threading.Event) -> Samples:
        """Return what was sampled in ``seconds``, or until ``stop`` is set; with ``idle`` waiting threads too.

        Raises NotPermitted or NotReachable.
        """
        rate = max(1, min(round(rate_hz), FASTEST_HZ))
        seconds = max(1, round(min(seconds, LONGEST_S)))
        with tempfile.TemporaryDirectory(prefix="perfnb-") as folder:
            output = Path(folder) / "stacks.txt"
            began = time.perf_counter()
            stderr = self._record(pid, seconds, rate, output, idle, stop)
            took = min(seconds, time.perf_counter() - began)
            if not output.exists():
                raise failure(pid, stderr)
            return Samples(took, rate, counted(output.read_text(errors="replace")))

    def _record(self, pid: int, seconds: float, rate: int, output: Path, idle: bool, stop: threading.Event) -> str:
        command = [*self._prefix, str(self._program), "record", "--format", "raw", "--threads", "--full-filenames"]
        command += ["--nonblocking", "--rate", str(rate), "--duration", str(round(seconds))]
        command += ["--output", str(output), "--pid", str(pid), *(["--idle"] if idle else [])]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C in the terminal is for perfnb, which then stops py-spy in order
        ) as process:
            return _wait(process, seconds, self._grace_s, stop)


def failure(pid: int, stderr: str) -> PerfnbError:
    """Return what py-spy's complaint about ``pid`` means and what to do about it."""
    said = stderr.partition("Stack backtrace")[0]
    if re.search(r"permission denied|not permitted|elevated permissions|as root", said, re.IGNORECASE):
        return NotPermitted(f"py-spy may not look into pid {pid}", hint=how_to_be_permitted(pid))
    if re.search(r"no such (file|process)|is the process running|process exited", said, re.IGNORECASE):
        return NotReachable(f"no process {pid}", hint="name a running process: --pid PID")
    if re.search(r"python version|python interpreter|libpython", said, re.IGNORECASE):
        return NotReachable(f"pid {pid} runs no Python that py-spy knows", hint="name the Python process: --pid PID")
    first = said.strip().partition("\n")[0].removeprefix("Error: ") or "it ended without a word"
    return NotReachable(f"py-spy failed on pid {pid}: {first}", hint="try: py-spy dump --pid " + str(pid))


def how_to_be_permitted(pid: int, *, root: Path = Path("/"), uid: Callable[[], int] = os.geteuid) -> str:
    """Return the one thing that lets py-spy look into ``pid`` here."""
    if uid() == 0 or (root / ".dockerenv").exists():
        return "in a container, add cap_add: [SYS_PTRACE] to its service; in Kubernetes, the capability SYS_PTRACE"
    try:
        owner = (root / "proc" / str(pid)).stat().st_uid
    except OSError:
        owner = uid()
    if owner != uid():
        return f"run perfnb as the user of pid {pid}, or as root"
    if ptrace_scope(root) > 0:
        return "sudo sysctl kernel.yama.ptrace_scope=0, or run perfnb as root"
    return "run perfnb as root"


def ptrace_scope(root: Path = Path("/")) -> int:
    """Return Yama's restriction on looking into other processes; 0 where there is none."""
    try:
        return int((root / "proc/sys/kernel/yama/ptrace_scope").read_text())
    except (OSError, ValueError):
        return 0


def looks_in(threads: Iterable[Mapping[str, Any]]) -> list[Look]:
    """Return the threads of ``py-spy dump --json`` that run Python code."""
    running = [thread for thread in threads if thread.get("frames")]
    names = _unique([(str(t.get("thread_name") or ""), str(t.get("os_thread_id") or t["thread_id"])) for t in running])
    return [
        Look(name, _stack(thread["frames"]), bool(thread["active"]), bool(thread["owns_gil"]))
        for thread, name in zip(running, names, strict=True)
    ]


def counted(raw: str) -> dict[tuple[str, Stack], int]:
    """Return samples by thread and stack from ``py-spy record --format raw --threads --full-filenames``."""
    parsed = [(*_split(stack), n) for stack, n in parse(raw).stacks.items() if stack != (NO_FRAMES,)]
    threads = sorted({thread for thread, _, _ in parsed})
    names = dict(zip(threads, _unique(threads), strict=True))
    counts: Counter[tuple[str, Stack]] = Counter()
    for thread, stack, samples in parsed:
        if stack:
            counts[names[thread], stack] += samples
    return dict(counts)


def frame(function: str, file: str, line: int) -> str:
    """Return a frame as recordings write it: ``function (file:line)``, the file's path shortened."""
    place = short_path(file)
    return f"{function} ({place}:{line})" if line else f"{function} ({place})"


def _stack(frames: Sequence[Mapping[str, Any]]) -> Stack:
    return tuple(frame(each["name"], each["filename"], each["line"]) for each in reversed(frames))


def _split(stack: Stack) -> tuple[tuple[str, str], Stack]:
    """Return (thread name, thread id) and the frames below; a name may hold the ``;`` that frames are split at."""
    match = _THREAD.match(stack[0])
    if match is None:
        return ("", ""), tuple(map(_shortened, stack))
    begin = next((n for n, each in enumerate(stack) if n and _FRAME.match(each) and ":" in each), len(stack))
    name = ";".join([match["name"] or "", *stack[1:begin]])
    return (name, match["id"]), tuple(map(_shortened, stack[begin:]))


def _shortened(text: str) -> str:
    match = _FRAME.match(text)
    return frame(match["function"], match["file"], int(match["line"] or 0)) if match else text


def _unique(threads: Sequence[tuple[str, str]]) -> list[str]:
    """Return names for threads of (name, id); the id is added where a name is missing or not alone."""
    threads = [(";".join(part.strip() for part in name.split(";")), number) for name, number in threads]
    times = Counter(name for name, _ in threads)
    return [name if name and times[name] == 1 else f"{name} {number}".strip() for name, number in threads]


def _wait(process: "subprocess.Popen[bytes]", seconds: float, grace_s: float, stop: threading.Event) -> str:
    """Wait for the end, asking for it once ``stop`` is set, forcing it when it does not come; return what was said."""
    until = time.monotonic() + seconds + grace_s
    asked = False
    while True:
        try:
            return (process.communicate(timeout=0.1)[1] or b"").decode(errors="replace")
        except subprocess.TimeoutExpired:
            if stop.is_set() and not asked:
                process.send_signal(signal.SIGINT)  # it writes what it has and ends
                asked, until = True, time.monotonic() + grace_s
            elif time.monotonic() > until:
                process.kill()


def _environment() -> dict[str, str]:
    return {**os.environ, "RUST_BACKTRACE": "0"}
