"""Ask the recorder that started a command to start it anew with other variables: files in the recording, no listener.

Whoever asks writes ``restart.json``; the recorder answers in ``command.json``, which tells the command's process, the
variables it has beyond those it was started with, and the number of the request that was done. Both are readable by
their owner alone, hold no secret (variables that sound like one are refused) and go when the recording stops.
"""

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfnb.errors import NotReachable, WrongUse

ASKED, COMMAND = "restart.json", "command.json"
WAIT_S = 60.0
_SECRET = re.compile(r"key|token|secret|passw|credential|authorization|dsn", re.I)
_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")

Variables = Mapping[str, str | None]
"""Variables by name; None takes one away."""


class Restarts:
    """The recorder's side."""

    def __init__(self, recording: Path) -> None:
        self._recording = recording

    def tell(self, pid: int, variables: Variables, done: str = "", why: str = "") -> None:
        """Say which process the command is, what it was given, and which request was ``done`` or failed (``why``)."""
        told = {"pid": pid, "recorder": os.getpid(), "variables": dict(variables), "done": done, "why": why}
        _write(self._recording / COMMAND, told)

    def asked(self) -> tuple[str, Variables] | None:
        """Return the number of a new request and the variables it wants, once; None where there is none."""
        path = self._recording / ASKED
        try:
            given = json.loads(path.read_text())
            path.unlink()
        except (OSError, ValueError):
            return None
        return given["number"], given["variables"]

    def close(self) -> None:
        """Leave nothing behind."""
        for name in (ASKED, COMMAND):
            with contextlib.suppress(OSError):
                (self._recording / name).unlink()


def command(recording: Path) -> dict[str, Any]:
    """Return what is known of the running command: pid, recorder, variables; raises NotReachable."""
    try:
        told: dict[str, Any] = json.loads((recording / COMMAND).read_text())
    except (OSError, ValueError):
        raise NotReachable(
            f"no command was started into {recording}", hint="start the app with perfnb: perfnb record … -- COMMAND"
        ) from None
    if not is_alive(told["recorder"]):
        raise NotReachable("the recorder that started the command is gone", hint="start the app anew yourself")
    return told


def restart(recording: Path, variables: Variables, *, wait_s: float = WAIT_S) -> None:
    """Have the command started anew with ``variables`` beyond its own; returns once it runs. Raises NotReachable."""
    if wrong := [name for name, value in variables.items() if is_private(name, value)]:
        raise WrongUse(f"{', '.join(wrong)} may be a secret", hint="set it where the recording is started")
    command(recording)
    number = secrets.token_hex(6)
    _write(recording / ASKED, {"number": number, "variables": dict(variables)})
    end = time.monotonic() + wait_s
    while (told := command(recording))["done"] != number:
        if time.monotonic() > end:
            raise NotReachable("the recorder did not start the command anew", hint="is perfnb record still running?")
        time.sleep(0.05)
    if told["why"]:
        raise NotReachable(f"the command can't be started anew: {told['why']}", hint="see the recorder's own output")


def is_private(name: str, value: str | None) -> bool:
    """Tell whether a variable may hold a secret."""
    return bool(_SECRET.search(name)) or bool(value and _WITH_PASSWORD.search(value))


def is_alive(pid: int) -> bool:
    """Tell whether a process of this number runs."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def is_left_alone(recording: Path) -> bool:
    """Tell whether the command goes on although the recorder that started it is gone."""
    try:
        told = json.loads((recording / COMMAND).read_text())
    except (OSError, ValueError):
        return False
    return is_alive(told["pid"]) and not is_alive(told["recorder"])


def _write(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(dict(value)))
    partial.rename(path)
