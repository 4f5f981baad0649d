"""The app's own settings endpoint as a knob, from ``[knob.NAME]`` in ``perfnb.toml``.

::

    [knob.desk]
    url = "http://127.0.0.1:8000/optimization/configure"    # GET returns the settings
    set_url = "…"                                            # where they are set; url if missing
    method = "POST"                                          # or PUT, PATCH
    member = "settings"                                      # the member that holds them, in both directions
    whole = false                                            # whether all settings must be sent, not only changed ones
    preset_url = "http://127.0.0.1:8000/optimization/presets/{name}/apply"
    presets = { thrifty = { top_k = 2 } }
    header_env = { Authorization = "DESK_TOKEN" }            # header: the variable that holds its value

Settings whose names sound like secrets are neither read nor set, so that none gets onto the timeline.
"""

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from perfnb.errors import NotPermitted, NotReachable, WrongUse
from perfnb.knobs.base import Knob
from perfnb.recording import Recording
from perfnb.target import KnobSettings, Target

SECRET = re.compile(r"key|token|secret|passw|credential|authorization|dsn", re.I)
NOT_SECRET = re.compile(r"tokens$|^max_|token_(limit|budget|count)|cache_key|keyword|shortcut", re.I)
TIMEOUT_S = 30.0


class HttpSettings:
    """Settings by name, read and set over HTTP; a value is {name: value}, or the name of a preset."""

    kind = "http"

    def __init__(self, settings: KnobSettings) -> None:
        self.name = settings.name
        self.title = settings.title or f"settings of {settings.name}"
        for url in (settings.url, settings.set_url, settings.preset_url):
            _require_no_secret(url)
        self._settings = settings
        self._before: Mapping[str, Any] | None = None

    @property
    def presets(self) -> tuple[str, ...]:
        """Return the names of the presets that are spelled out in ``perfnb.toml``."""
        return tuple(self._settings.presets)

    def current(self) -> dict[str, Any]:
        """Return the settings by name, those that sound like secrets left out."""
        return {name: value for name, value in self._read().items() if not is_secret(name)}

    def set(self, value: Mapping[str, Any] | str) -> None:
        """Set what differs from now, or apply the preset of that name."""
        if self._before is None:
            self._before = self.way_back()
        if isinstance(value, str) and value not in self._settings.presets:
            self._apply_preset(value)
            return
        wanted = self._settings.presets[value] if isinstance(value, str) else value
        if hidden := [name for name in wanted if is_secret(name)]:
            raise WrongUse(f"{', '.join(hidden)} may be a secret", hint="set it in the app itself")
        self._put(wanted)

    def undo(self) -> None:
        """Bring back the settings before the first change."""
        if self._before is not None:
            before, self._before = self._before, None
            self._put(before["settings"])

    def way_back(self) -> dict[str, Any]:
        """Return where and how to set, and the settings now."""
        return {"knob": asdict(self._settings), "settings": self.current()}

    def shown(self, value: Any) -> Any:
        """Return the value."""
        return value

    def _put(self, wanted: Mapping[str, Any]) -> None:
        now = self._read()
        changes = {name: value for name, value in wanted.items() if name not in now or now[name] != value}
        if not changes:
            return
        sent = now | changes if self._settings.whole else changes
        member = self._settings.member
        self._ask(
            self._settings.set_url or self._settings.url, self._settings.method, {member: sent} if member else sent
        )

    def _read(self) -> dict[str, Any]:
        answer = self._ask(self._settings.url, "GET")
        found = answer.get(self._settings.member) if self._settings.member and isinstance(answer, dict) else answer
        if not isinstance(found, dict):
            raise NotReachable(f"{self._settings.url} returned no settings", hint="check url and member of the knob")
        return found

    def _apply_preset(self, name: str) -> None:
        if not self._settings.preset_url:
            known = ", ".join(self.presets) or "none"
            raise WrongUse(f"{self.name} has no preset {name!r}", hint=f"there are: {known}; or give it a preset_url")
        self._ask(self._settings.preset_url.replace("{name}", quote(name, safe="")), "POST", {})

    def _ask(self, url: str, method: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method, headers=self._headers())
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                said = response.read()
        except urllib.error.HTTPError as error:
            raise _refused(url, error) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise NotReachable(f"{url} does not answer: {reason}", hint="is the app running?") from None
        try:
            return json.loads(said or b"null")
        except ValueError:
            raise NotReachable(f"{url} did not answer with JSON", hint="check the knob's url") from None

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        for header, variable in self._settings.header_env.items():
            if not (value := os.environ.get(variable)):
                raise NotPermitted(f"{header} is needed for {self.name}", hint=f"set the variable {variable}")
            headers[header] = value
        return headers


def is_secret(name: str) -> bool:
    """Tell whether a setting or variable of that name may hold a secret."""
    return bool(SECRET.search(name)) and not NOT_SECRET.search(name)


def _require_no_secret(url: str) -> None:
    parts = urlsplit(url)
    if "@" in parts.netloc or any(is_secret(name) for name in parse_qs(parts.query)):
        raise WrongUse(
            "a knob's url holds a secret", hint='send it as a header: header_env = { Authorization = "VARIABLE" }'
        )


def knobs(recording: Recording, target: Target) -> Iterator[Knob]:
    """Yield a knob for each ``[knob.NAME]`` that has a url."""
    for settings in target.knobs:
        if settings.url:
            yield HttpSettings(settings)


def go_back(recording: Path, way: Mapping[str, Any]) -> str:
    """Set the settings that differ from those written down; raises NotReachable where the app does not answer."""
    knob = HttpSettings(KnobSettings(**way["knob"]))
    knob._put(way["settings"])
    return "the settings are what they were"


def _refused(url: str, error: urllib.error.HTTPError) -> Exception:
    with error:
        said = error.read(300).decode("utf-8", "replace").strip()
    if error.code in (401, 403):
        return NotPermitted(f"{url} refuses: {error.code}", hint="name the header's variable under header_env")
    if error.code in (400, 422):
        return WrongUse(f"{url} does not take it: {said}", hint="check names and values of the settings")
    return NotReachable(f"{url} answered {error.code}: {said}", hint="check the knob's url and method")
