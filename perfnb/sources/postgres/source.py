"""Postgres as a source: statements, sessions, objects and counters, read beside the app by a thread."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Self

import psycopg

from perfnb.errors import NotMeasured, PerfnbError
from perfnb.sources.base import Emit, Readiness
from perfnb.sources.postgres.activity import sessions
from perfnb.sources.postgres.capabilities import Capabilities
from perfnb.sources.postgres.catalog import Catalog
from perfnb.sources.postgres.connecting import Connect, explained, one_line
from perfnb.sources.postgres.explain import Busiest, top_plans
from perfnb.sources.postgres.samples import elsewhere, samples
from perfnb.sources.postgres.server import Server
from perfnb.sources.postgres.statements import Statements, Totals
from perfnb.sources.threaded import Threaded

RECONNECT_S = (0.5, 1.0, 2.0, 5.0)
EVERYTHING_EVERY = 5
ELSEWHERE_EVERY = 6
STATEMENTS_MS = 5000


@dataclass(frozen=True)
class Intervals:
    """How often each part is read."""

    activity_s: float = 1.0
    samples_s: float = 5.0
    statements_s: float = 10.0
    catalog_s: float = 60.0


@dataclass
class _Job:
    """One part that is read again and again; ``trouble`` is why it can't be read now."""

    name: str
    every_s: float
    read: Callable[[bool], None]
    due: float = 0.0
    trouble: str = ""


class Postgres(Threaded):
    """Writes ``statements``, ``activity``, ``catalog`` and ``samples`` of the database ``dsn`` until left.

    All is read in read-only transactions with timeouts. What can't be read, a lost connection, a server that was
    started anew, counters that were reset: each is told once on the timeline, and the rest goes on.
    """

    name = "postgres"
    stop_timeout_s = 15.0

    def __init__(
        self,
        emit: Emit,
        dsn: str,
        *,
        intervals: Intervals | None = None,
        most_tables: int | None = None,
        connect: Connect = psycopg.connect,
        now: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(emit, "rows", "looks", "errors", "reconnects")
        every = intervals or Intervals()
        self._server = Server(dsn, connect=connect, now=now)
        self._statements = Statements()
        self._busiest = Busiest()
        self._catalog = Catalog(most_tables) if most_tables else Catalog()
        self._now = now
        self._clock = clock
        self._jobs = (
            _Job("statements", every.statements_s, self._look_at_statements),
            _Job("sessions", every.activity_s, self._look_at_sessions),
            _Job("counters", every.samples_s, self._look_at_counters),
            _Job("catalog", every.catalog_s, self._look_at_catalog),
            _Job("plans", float("inf"), self._look_at_plans),
        )
        self._totals = Totals()
        self._told: set[str] = set()
        self._catalogs = self._snapshots = 0
        self._lost = ""

    def probe(self) -> Readiness:
        """Tell what of the database can be seen, and what would let more be seen."""
        server = Server(self._server.dsn, connect=self._server.connect)
        try:
            seen = server.open()
        except PerfnbError as error:
            return Readiness(self.name, False, error.message, error.hint)
        except psycopg.Error as error:
            return Readiness(self.name, False, one_line(error, server.dsn), "see the server's log")
        finally:
            server.close()
        return Readiness(self.name, True, str(seen), "; ".join(seen.hints))

    def __enter__(self) -> Self:
        try:
            seen = self._server.open()
        except psycopg.Error as error:
            raise explained(error, self._server.dsn) from None
        if not seen.sees_all:
            self._tell(f"postgres: {seen.how_to_see_all}")
        self._do(self._jobs[0])  # counters from before anything that is measured
        return super().__enter__()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._server.is_open or self._reconnected():
                self._do_what_is_due()
                self._stop.wait(max(0.0, min(job.due for job in self._jobs) - self._clock()))
        if self._server.is_open:
            for job in self._jobs:
                self._do(job, last=True)
        self._server.close()

    def _do_what_is_due(self) -> None:
        for job in self._jobs:
            if self._stop.is_set() or not self._server.is_open:
                return
            if self._clock() >= job.due:
                self._do(job)

    def _do(self, job: _Job, *, last: bool = False) -> None:
        began = self._clock()
        try:
            job.read(last)
            self._recovered(job)
        except NotMeasured as lack:
            self._troubled(job, lack.message)
        except psycopg.Error as error:
            self._failed(job, error)
        except Exception as error:  # whatever fails here must not end the recording; the timeline tells
            self._counters["errors"] += 1
            self._troubled(job, f"{type(error).__name__}: {one_line(error, self._server.dsn)}")
        job.due = began + job.every_s

    def _failed(self, job: _Job, error: psycopg.Error) -> None:
        self._counters["errors"] += 1
        reason = one_line(error, self._server.dsn)
        if self._server.is_open:
            self._troubled(job, reason)
        else:
            self._lose(reason)

    def _troubled(self, job: _Job, reason: str) -> None:
        if reason != job.trouble:
            job.trouble = reason
            self._tell(f"postgres: {job.name} can't be read: {reason}")

    def _recovered(self, job: _Job) -> None:
        if job.trouble:
            job.trouble = ""
            self._tell(f"postgres: {job.name} can be read again")

    def _lose(self, reason: str) -> None:
        if not self._lost:
            self._lost = reason
            self._tell(f"postgres: the connection was lost: {reason}")

    def _reconnected(self) -> bool:
        """Try to connect until it works or the end comes."""
        before = self._server.seen
        for pause in chain(RECONNECT_S, repeat(RECONNECT_S[-1])):
            try:
                self._back(before, self._server.open())
                return True
            except (PerfnbError, psycopg.Error):
                self._counters["errors"] += 1
                self._server.close()
            if self._stop.wait(pause):
                return False
        return False

    def _back(self, before: Capabilities, now: Capabilities) -> None:
        self._counters["reconnects"] += 1
        was_restarted = now.started_at_us != before.started_at_us
        how = "the server was started anew" if was_restarted else "the server ran on"
        self._tell(f"postgres: connected again; {how}")
        self._lost = ""

    def _look_at_statements(self, last: bool) -> None:
        if not self._server.seen.has_statements:
            self._server.look_around()
        self._require_statements()
        try:
            self._read_statements(last)
        except psycopg.errors.InsufficientPrivilege:
            self._server.look_around()
            self._require_statements()
            raise

    def _require_statements(self) -> None:
        seen = self._server.seen
        if not seen.has_statements:
            raise NotMeasured(f"{seen.missing}: {seen.how_to_see}")

    def _read_statements(self, last: bool) -> None:
        with self._server.reading(STATEMENTS_MS) as read:
            taken = self._now()
            rows = self._statements.snapshot(self._server, read, taken, everything=last)
            others = elsewhere(self._server, read, taken) if self._snapshots % ELSEWHERE_EVERY == 0 else []
        self._write("statements", rows)
        self._busiest.see(rows)
        self._snapshots += 1
        if others:
            self._counters["rows"] += self._emit("samples", others)
        self._tell_of(self._statements.totals)

    def _tell_of(self, totals: Totals) -> None:
        before, self._totals = self._totals, totals
        if totals.is_reset:
            self._tell("postgres: the counters of statements were reset")
        elif before.evicted is not None and (totals.evicted or 0) > before.evicted:
            most = self._server.seen.statements_max
            self._tell_once(
                f"postgres: there are more statements than pg_stat_statements.max ({most}) keeps: totals are lower bounds"
            )

    def _look_at_sessions(self, last: bool) -> None:
        with self._server.reading() as read:
            self._write("activity", sessions(self._server, read, self._now()))

    def _look_at_counters(self, last: bool) -> None:
        with self._server.reading() as read:
            self._write("samples", samples(self._server, read, self._now()))

    def _look_at_catalog(self, last: bool) -> None:
        everything = last or self._catalogs % EVERYTHING_EVERY == 0
        if everything:
            self._server.look_around()
        self._write("catalog", self._catalog.snapshot(self._server, self._now(), everything=everything))
        if self._catalog.left_out:
            self._tell_once(f"postgres: {self._catalog.left_out}")
        self._catalogs += 1

    def _look_at_plans(self, last: bool) -> None:
        """At the end, ask for the generic plans of the statements that took most time."""
        if not last:
            return
        found = top_plans(self._server.connection, self._busiest.statements())
        self._write("plans", list(found.rows))
        for reason, count in sorted(found.left_out.items()):
            self._tell(f"postgres: no plan for {count} of the busiest statements: {reason}")

    def _write(self, table: str, rows: list[Any]) -> None:
        self._counters["rows"] += self._emit(table, rows)
        self._counters["looks"] += 1

    def _tell_once(self, title: str) -> None:
        if title not in self._told:
            self._told.add(title)
            self._tell(title)

    def _tell(self, title: str) -> None:
        row = {"time": self._now(), "kind": "source", "title": title, "body": {"source": self.name}}
        try:
            self._emit("events", [row])
        except Exception:  # the disk may be full; the thread goes on, as it may be freed
            self._counters["errors"] += 1
