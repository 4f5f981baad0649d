"""Keeps one child process: it dies when its keeper is told to stop, and when whoever started the keeper is gone.

``python -m perfnb.demo.keeper`` reads one line of JSON from its standard input: ``command``, and if wanted
``environment`` (complete), ``log`` (a file), ``user`` and ``group`` (numbers), ``signal`` (that stops the child) and
``remove`` (folders to remove at the end). It writes ``{"pid": …}`` and later ``{"exit": …}``. The end of standard input
is the order to stop, so even a kill -9 of the parent ends the child; on Linux a kill -9 of the keeper does too.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from perfnb.errors import NotReachable

STOP_TIMEOUT_S = 8.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Child:
    """What a keeper keeps; ``stop_signal`` is sent first, SIGKILL eight seconds later."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    user: int | None = None
    group: int | None = None
    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL
    remove: Sequence[Path] = ()

    def as_json(self) -> str:
        """Return the line a keeper reads."""
        fields: dict[str, Any] = {
            "command": list(self.command),
            "log": str(self.log),
            "environment": dict(self.environment),
        }
        fields |= {"user": self.user, "group": self.group, "remove": [str(folder) for folder in self.remove]}
        return json.dumps(fields | {"signal": int(self.stop_signal), "death_signal": int(self.death_signal)})


class Keeper:
    """A running child and its keeper. Entering starts both; leaving stops the child, then the keeper."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.pid = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perfnb.demo.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops its children in order
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self.child.as_json() + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or "{}")
        if "pid" not in answer:
            self.__exit__()
            raise NotReachable(f"{self.child.name} can't be started: {answer.get('error')}", hint="see the message")
        self.pid = answer["pid"]
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(STOP_TIMEOUT_S + 4)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def is_alive(self) -> bool:
        """Tell whether the child still runs."""
        return self._process is not None and self._process.poll() is None

    def wait(self, timeout_s: float) -> bool:
        """Wait for the child to end by itself; False if it still runs after ``timeout_s``."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return not self.is_alive

    def last_lines(self, count: int = 12) -> str:
        """Return the last lines of the child's log."""
        if not self.child.log.exists():
            return ""
        return "\n".join(self.child.log.read_text(errors="replace").splitlines()[-count:])


def main() -> int:
    """Keep one child until it ends or standard input does."""
    settings = json.loads(sys.stdin.readline())
    try:
        with open(settings["log"], "ab") as log:  # noqa: PTH123 - bytes, shared with the child
            child = _start(settings, log)
    except (OSError, subprocess.SubprocessError) as error:
        _tell({"error": str(error)})
        return 1
    _tell({"pid": child.pid})
    threading.Thread(target=_stop_at_end_of_input, args=(child, settings["signal"]), daemon=True).start()
    status = child.wait()
    for folder in settings["remove"]:
        shutil.rmtree(folder, ignore_errors=True)
    _tell({"exit": status})
    return 0


def _start(settings: Mapping[str, Any], log: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        settings["command"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=settings["environment"],
        user=settings["user"],
        group=settings["group"],
        extra_groups=[] if settings["user"] is not None else None,
        preexec_fn=die_with_parent(settings["death_signal"]),
    )


def die_with_parent(number: int) -> Callable[[], object] | None:
    """Return what a child does before it runs, so that it gets signal ``number`` when its parent ends; None but on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork
    return lambda: prctl(_PR_SET_PDEATHSIG, number)


def _stop_at_end_of_input(child: "subprocess.Popen[bytes]", number: int) -> None:
    while sys.stdin.readline():
        pass
    child.send_signal(number)
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _tell(message: Mapping[str, Any]) -> None:
    with suppress(BrokenPipeError, ValueError):
        print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
