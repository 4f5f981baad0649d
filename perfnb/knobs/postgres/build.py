"""``CREATE INDEX CONCURRENTLY`` with progress and an end on request; what it leaves half done is for :mod:`.index` to drop."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from perfnb.errors import NotReachable, PerfnbError, WrongUse
from perfnb.knobs.postgres.definition import IndexDefinition, Table
from perfnb.knobs.postgres.server import (
    GONE_CLIENT_S,
    Connection,
    connect,
    require_direct,
    require_primary,
    run,
    told,
)
from perfnb.sources.postgres.sql import MARK

LOCK_TIMEOUT_S = 30.0
LOOK_S = 0.25


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is: the server's word for what it does, how much of it is done (0 to 1; None where it does not
    say), and the process it waits for (0: none).
    """

    phase: str
    part: float | None
    waits_for: int = 0

    def __str__(self) -> str:
        done = "" if self.part is None else f", {self.part:.0%}"
        return f"{self.phase}{done}" + (f", waits for process {self.waits_for}" if self.waits_for else "")


Tell = Callable[[BuildProgress], None]


class Stopped(NotReachable):
    """Raised when a build was ended on request."""


def build(
    dsn: str,
    definition: IndexDefinition,
    table: Table,
    *,
    tell: Tell = lambda told: None,
    stop: threading.Event | None = None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> None:
    """Build the index while reads and writes go on; returns once it can be used.

    Raises LockNotGiven where an older transaction does not end in time, Stopped, and what the server refuses.
    """
    with connect(dsn) as builder, connect(dsn) as watcher:
        require_ready(builder)
        begin(builder, lock_timeout_s)
        raised: list[BaseException] = []
        work = threading.Thread(target=_work, args=(builder, definition, table, raised), daemon=True)
        work.start()
        try:
            _watch(work, builder, watcher, tell, stop or threading.Event())
        except BaseException:
            builder.cancel_safe(timeout=5)
            work.join()
            raise
    if raised:
        if stop is not None and stop.is_set():
            raise Stopped("stopped on request", hint="the index is dropped again")
        raise raised[0]


def require_ready(connection: Connection) -> None:
    """Raise WrongUse where nothing can be built concurrently: a standby, a pooler, a transaction under way."""
    if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        raise WrongUse("an index can't be built concurrently inside a transaction", hint="commit or roll back first")
    require_primary(connection)
    require_direct(connection)


def begin(connection: Connection, lock_timeout_s: float) -> None:
    """Set what holds for the whole session: it has no transaction that could hold it."""
    connection.execute(f"SELECT {MARK} set_config('lock_timeout', %s, false)", [f"{lock_timeout_s * 1000:.0f}ms"])
    connection.execute(f"SELECT {MARK} set_config('statement_timeout', '0', false)")
    if connection.info.server_version >= 140000:
        connection.execute(
            f"SELECT {MARK} set_config('client_connection_check_interval', %s, false)",
            [f"{GONE_CLIENT_S * 1000:.0f}ms"],
        )


def _work(connection: Connection, definition: IndexDefinition, table: Table, raised: list[BaseException]) -> None:
    try:
        with told():
            run(connection, definition.on(table.identifier, concurrently=True))
    except (PerfnbError, psycopg.Error) as error:
        raised.append(error)


def _watch(work: threading.Thread, builder: Connection, watcher: Connection, tell: Tell, stop: threading.Event) -> None:
    """Tell how far the build is until it ends; ``stop`` ends it."""
    while work.is_alive():
        if stop.is_set():
            builder.cancel_safe(timeout=5)
        if (progress := progress_of(watcher, builder.info.backend_pid)) is not None:
            tell(progress)
        work.join(LOOK_S)


_PROGRESS = f"""
SELECT {MARK} phase, CASE WHEN phase LIKE 'waiting%%' THEN lockers_done::float / nullif(lockers_total, 0)
                   WHEN tuples_total > 0 THEN tuples_done::float / tuples_total
                   ELSE blocks_done::float / nullif(blocks_total, 0) END,
       coalesce(current_locker_pid, 0)
FROM pg_stat_progress_create_index WHERE pid = %s
"""


def progress_of(connection: Connection, pid: int) -> BuildProgress | None:
    """Return how far the build of the session ``pid`` is; None where none is under way."""
    row = connection.execute(_PROGRESS, [pid]).fetchone()
    return None if row is None else BuildProgress(row[0], None if row[1] is None else min(1.0, row[1]), row[2])
