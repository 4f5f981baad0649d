"""What is under diagnosis and how to reach it: from ``perfnb.toml``, ``PERFNB_*`` variables and the command line."""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from perfnb.errors import WrongUse

SETTINGS = "perfnb.toml"
BESIDE = "target.json"
"""In a recording: requests and knobs of the target that was recorded, in the form of ``perfnb.toml``."""


@dataclass(frozen=True)
class Request:
    """One request a probe sends: ``[[request]]`` in ``perfnb.toml``."""

    url: str
    method: str = "POST"
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 120


@dataclass(frozen=True)
class KnobSettings:
    """One knob of the app: ``[knob.NAME]`` in ``perfnb.toml``; see :mod:`perfnb.knobs.app` and ``restart``."""

    name: str
    title: str = ""
    url: str = ""
    set_url: str = ""
    method: str = "POST"
    member: str = ""
    whole: bool = False
    preset_url: str = ""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    header_env: Mapping[str, str] = field(default_factory=dict)
    restart: bool = False
    ready_url: str = ""


@dataclass(frozen=True)
class Target:
    """How to reach the app and what is around it; every part may be missing.

    Attributes:
        upstream: Where the LLM proxy sends model calls.
        proxy_port: Port of the LLM proxy, where the app can't be told another each time.
        app: The app's base URL, for the front.
        listen: Port of the front.
        pid: The app's process.
        command: Command that starts the app.
        otlp: Whether to receive OpenTelemetry.
        requests: What the probe sends.
        logs: Log files to follow.
        dsn: Postgres; it may hold a password, so it is never shown.
        pgbouncer: PgBouncer's DSN; it may hold a password, so it is never shown.
        metrics: Addresses of pages in Prometheus' text form; they may hold a password, so they are never shown.
        qdrant: Qdrant's URL, or the folder of a qdrant-edge shard.
        milvus: Milvus' URI, or a file of Milvus Lite.
        redis: Redis' URL.
        knobs: What of the app can be set while it runs.
    """

    upstream: str | None = None
    proxy_port: int | None = None
    app: str | None = None
    listen: int | None = None
    pid: int | None = None
    command: tuple[str, ...] = ()
    otlp: bool = False
    requests: tuple[Request, ...] = ()
    logs: tuple[Path, ...] = ()
    dsn: str | None = field(default=None, repr=False)
    pgbouncer: str | None = field(default=None, repr=False)
    metrics: tuple[str, ...] = field(default=(), repr=False)
    qdrant: str | None = None
    milvus: str | None = None
    redis: str | None = None
    health: str | None = None
    knobs: tuple[KnobSettings, ...] = ()

    @classmethod
    def load(cls, folder: Path | None = None, *, environment: Mapping[str, str] = os.environ, **given: Any) -> Self:
        """Read ``perfnb.toml`` in ``folder``, then ``PERFNB_*``, then ``given`` (None is "not given")."""
        settings = read_settings((folder or Path.cwd()) / SETTINGS)
        requests = tuple(_request(entry) for entry in settings.pop("request", []))
        knobs = tuple(_knob(name, entry) for name, entry in settings.pop("knob", {}).items())
        settings = settings.get("target", {})
        names = {each.name for each in fields(cls)}
        for name in settings:
            if name not in names:
                raise WrongUse(f"{SETTINGS}: target has no setting {name!r}", hint=f"one of {', '.join(sorted(names))}")
        for name in names:
            if value := environment.get(f"PERFNB_{name.upper()}"):
                settings[name] = value
        settings |= {name: value for name, value in given.items() if value not in (None, (), [])}
        return replace(
            cls(requests=requests, knobs=knobs), **{name: _typed(name, value) for name, value in settings.items()}
        )

    def beside(self, recording: Path) -> Self:
        """Return this target with the requests and knobs that a recording names, where it has none itself."""
        file = recording / BESIDE
        told = json.loads(file.read_text()) if file.exists() else {}
        requests = self.requests or tuple(_request(entry) for entry in told.get("request", ()))
        knobs = self.knobs or tuple(_knob(name, entry) for name, entry in told.get("knob", {}).items())
        return replace(self, requests=requests, knobs=knobs)


def read_settings(path: Path) -> dict[str, Any]:
    """Return what ``path`` holds; nothing where there is no such file."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongUse(f"{path} can't be read: {error}", hint="mend the file, see the README's perfnb.toml") from None


def _request(entry: Mapping[str, Any]) -> Request:
    try:
        return Request(**entry)
    except TypeError as error:
        raise WrongUse(
            f"{SETTINGS}: [[request]] {error}", hint="it takes url, method, json, headers, timeout_s"
        ) from None


def _knob(name: str, entry: Mapping[str, Any]) -> KnobSettings:
    known = sorted(each.name for each in fields(KnobSettings) if each.name != "name")
    if not isinstance(entry, Mapping) or not set(entry) <= set(known):
        raise WrongUse(f"{SETTINGS}: [knob.{name}] has a setting there is not", hint=f"it takes {', '.join(known)}")
    if not entry.get("url") and not entry.get("restart"):
        raise WrongUse(f"{SETTINGS}: [knob.{name}] turns nothing", hint="give it a url, or restart = true")
    return KnobSettings(name, **entry)


def _typed(name: str, value: Any) -> Any:
    try:
        match name:
            case "listen" | "pid" | "proxy_port":
                return int(value)
            case "otlp":
                return value if isinstance(value, bool) else str(value).lower() in ("1", "true", "yes")
            case "command":
                return tuple(value.split()) if isinstance(value, str) else tuple(value)
            case "metrics":
                return tuple(value.split() if isinstance(value, str) else value)
            case "logs":
                return tuple(Path(part) for part in ([value] if isinstance(value, str) else value))
            case "requests" | "knobs":
                return tuple(value)
    except ValueError:
        raise WrongUse(f"{name} is {value!r}, not a number", hint=f"set {name} to a whole number") from None
    return value
