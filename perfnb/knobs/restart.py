"""Environment variables of the app as a knob: the recorder that started it starts it anew with others.

Only for an app that perfnb started itself (``perfnb record … -- COMMAND``). In ``perfnb.toml``::

    [knob.workers]
    restart = true
    ready_url = "http://127.0.0.1:8000/health"    # answers once the app can be used
"""

import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from perfnb.errors import NotReachable
from perfnb.knobs.base import Knob
from perfnb.recording import Recording
from perfnb.sources.restarts import command, is_alive, is_left_alone, restart
from perfnb.target import KnobSettings, Target

READY_S = 60.0


class Restart:
    """The variables the app was started with beyond its own; setting others starts it anew."""

    kind = "restart"

    def __init__(self, recording: Path, settings: KnobSettings) -> None:
        self.name = settings.name
        self.title = settings.title or f"environment of the app ({settings.name})"
        self._recording = recording
        self._ready_url = settings.ready_url
        self._before: Mapping[str, Any] | None = None

    def current(self) -> dict[str, str | None]:
        """Return the variables that were set by this knob; None is one taken away."""
        return dict(command(self._recording)["variables"])

    def set(self, value: Mapping[str, str | None]) -> None:
        """Start the app anew with these variables and no others that this knob set; nothing where it has them."""
        if self._before is None:
            self._before = self.way_back()
        _restart(self._recording, value, self._ready_url)

    def undo(self) -> None:
        """Start the app anew with the variables it had before the first change."""
        if self._before is not None:
            before, self._before = self._before, None
            go_back(self._recording, before)

    def way_back(self) -> dict[str, Any]:
        """Return the variables now, and which recorder started the app."""
        told = command(self._recording)
        return {"variables": told["variables"], "recorder": told["recorder"], "ready_url": self._ready_url}

    def shown(self, value: Any) -> Any:
        """Return the value."""
        return value


def knobs(recording: Recording, target: Target) -> Iterator[Knob]:
    """Yield a knob for each ``[knob.NAME]`` with ``restart`` where a recorder runs the app now."""
    with contextlib.suppress(NotReachable):
        command(recording.path)
        for settings in target.knobs:
            if settings.restart:
                yield Restart(recording.path, settings)


def go_back(recording: Path, way: Mapping[str, Any]) -> str:
    """Start the app anew with the variables written down; an app that has ended has none left."""
    try:
        _restart(recording, way["variables"], way["ready_url"])
    except NotReachable:
        if is_alive(way["recorder"]) or is_left_alone(recording):
            raise
        return "the app has ended, and its variables with it"
    return "the app runs with the variables it had"


def _restart(recording: Path, variables: Mapping[str, str | None], ready_url: str) -> None:
    if command(recording)["variables"] != dict(variables):
        restart(recording, variables)
        _wait_until_ready(ready_url)


def _wait_until_ready(url: str) -> None:
    end = time.monotonic() + READY_S
    while url:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            raise NotReachable(
                f"{url} answers {error.code}", hint="the app does not start with these variables"
            ) from None
        except OSError:
            if time.monotonic() > end:
                raise NotReachable(f"{url} does not answer", hint="does the app start with these variables?") from None
        time.sleep(0.1)
