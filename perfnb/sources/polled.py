"""A source that asks a server how it is from time to time, in a thread of its own, until it is told to stop."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

from perfnb.errors import PerfnbError
from perfnb.recording.journal import Row
from perfnb.sources.base import Emit, Readiness
from perfnb.sources.threaded import Threaded

Rows = Iterable[tuple[str, Row]]
"""Rows, each with the table it goes into."""


class Polled(Threaded):
    """Calls :meth:`look` at once, every ``interval_s``, and once more at the end, and writes what it returns.

    A subclass gives ``name``, :meth:`look`, which raises a PerfnbError where nothing answers, and :meth:`close` where it keeps a connection.
    A server that goes away is told on the timeline once and asked again at the next look.
    """

    def __init__(self, emit: Emit, *, interval_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(emit, "rows", "looks", "errors")
        self._interval_s = interval_s
        self._clock = clock
        self._is_away = False

    @abstractmethod
    def look(self) -> Rows:
        """Return what one look saw."""

    def close(self) -> None:
        """Let go of the connection."""

    def found(self, rows: Rows) -> str:
        """Return in a few words what a look saw."""
        return f"{sum(table == 'catalog' for table, _ in rows)} collections"

    def probe(self) -> Readiness:
        """Tell whether the server answers a first look; nothing is written."""
        try:
            return Readiness(self.name, True, self.found(list(self.look())))
        except PerfnbError as error:
            return Readiness(self.name, False, error.message, error.hint)
        finally:
            self.close()

    def __enter__(self) -> Self:
        self._write(list(self.look()))
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.close()

    def _run(self) -> None:
        began = self._clock()
        while not self._stop.wait(max(0.0, self._interval_s - (self._clock() - began))):
            began = self._clock()
            self._try()
        self._try()

    def _try(self) -> None:
        try:
            self._write(list(self.look()))
            self._is_away = False
        except Exception as error:  # whatever fails here must not end the recording; counter and timeline tell
            self._counters["errors"] += 1
            if not self._is_away:
                self._is_away = True
                why = error.message if isinstance(error, PerfnbError) else type(error).__name__
                self._emit("events", [event(f"{self.name} could not be read", why)])

    def _write(self, rows: list[tuple[str, Row]]) -> None:
        self._counters["looks"] += 1
        for table in dict.fromkeys(table for table, _ in rows):
            self._counters["rows"] += self._emit(table, [row for each, row in rows if each == table])


def event(title: str, why: str) -> Row:
    """Return a row of the timeline about a source."""
    return {"time": time.time_ns(), "kind": "source", "title": title, "body": {"why": why}}


def thing(taken: int, server: str, kind: str, name: str, properties: Mapping[str, Any]) -> tuple[str, Row]:
    """Return a row of ``catalog``, what is not known left out."""
    known = {key: value for key, value in properties.items() if value is not None}
    return "catalog", {"time": taken, "server": server, "kind": kind, "name": name, "properties": known}


def sample(taken: int, source: str, entity: str, metric: str, value: float, unit: str = "count") -> tuple[str, Row]:
    """Return a row of ``samples``."""
    row = {"time": taken, "source": source, "entity": entity, "metric": metric, "value": float(value), "unit": unit}
    return "samples", row


def host_and_port(address: str, default: int) -> str:
    """Return ``host:port`` of a URL, without user, password and path; of something else nothing but ``address``."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        return f"{parts.hostname or 'localhost'}:{parts.port or default}"
    except ValueError:
        return parts.hostname or "localhost"
