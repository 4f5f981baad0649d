"""An index tried for real and never kept: built in a transaction that is rolled back, the statement run without, with and
without it again.

Writes to the table wait from the build to the rollback of the index; that is told first and must be confirmed. A
process that is killed leaves nothing: the server rolls back.

Source: PostgreSQL manual, CREATE INDEX (ShareLock), README.HOT (indcheckxmin: an index that its own transaction can't use)
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from perfnb.errors import NotReachable, WrongUse
from perfnb.knobs.postgres.definition import IndexDefinition, Table, table_of
from perfnb.knobs.postgres.rehearsal import IndexCost, rehearse, require_small_enough
from perfnb.knobs.postgres.server import Connection, connect, require_primary, run, set_local, transaction, value
from perfnb.recording import Recording
from perfnb.trials.database.outcome import LEAST_PAIRS, StatementTrial, Tried, between, drift_of
from perfnb.trials.database.session import EXECUTOR
from perfnb.trials.database.statement import Run, Statement, measured, reading_only, stoppable, uses_index
from perfnb.trials.result import Predicts
from perfnb.trials.run import Tell, TrialProgress

MODE = "rolled back"
RUNS = 6
MOST_BYTES = 2 * 1024**3
MOST_LOCKED_S = 60.0
LOCK_TIMEOUT_S = 2.0
STATEMENT_TIMEOUT_S = 20.0

Confirm = Callable[[IndexCost], bool]


class NotConfirmed(WrongUse):
    """Raised where nobody said yes to what a trial costs; nothing was done."""


@dataclass(frozen=True)
class Limits:
    """What a trial of an index may do to others.

    Attributes:
        table_bytes: Largest table.
        locked_s: Longest that writes may have to wait for the build and the runs with the index.
        lock_timeout_s: Longest that the trial waits for writers; new ones wait behind it.
        statement_s: Longest that one run of the statement may take.
    """

    table_bytes: int = MOST_BYTES
    locked_s: float = MOST_LOCKED_S
    lock_timeout_s: float = LOCK_TIMEOUT_S
    statement_s: float = STATEMENT_TIMEOUT_S


DEFAULT_LIMITS = Limits()


def try_index(
    recording: Recording,
    dsn: str,
    statement: Statement,
    definition: str | IndexDefinition,
    *,
    confirm: Confirm,
    runs: int = RUNS,
    limits: Limits = DEFAULT_LIMITS,
    prediction: Predicts | None = None,
    progress: Tell = lambda told: None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> StatementTrial:
    """Return what the index would do for ``statement``: built, measured and rolled back, if ``confirm`` says yes.

    ``confirm`` is given what it costs: size, time of the build, and that writes wait. Raises NotConfirmed, WrongUse (a
    standby, a partitioned or foreign table, one that is too large), NotPermitted (not the owner's role), NotReachable.
    A lock that is not given, a timeout, ``stop`` and Ctrl-C end the trial, and stand in its result.
    """
    wanted = IndexDefinition.parse(definition) if isinstance(definition, str) else definition
    stop = stop or threading.Event()
    with connect(dsn) as connection, stoppable(connection, stop):
        require_primary(connection)
        table, cost = table_of(connection, wanted), rehearse(connection, wanted)
        require_small_enough(cost, limits.table_bytes)
        _require_short_enough(cost, limits)
        if not confirm(cost):
            raise NotConfirmed("nothing was done", hint="say yes to what the trial costs")
        value = {"index": wanted.shown}
        tried = Tried(recording, statement, "postgres.index", f"index on {wanted.table}", MODE, None, value)
        work = _Work(connection, statement, wanted, table, max(runs, LEAST_PAIRS), limits, clock, tried.trial, progress)
        try:
            work.run()
        except (NotReachable, KeyboardInterrupt) as error:
            is_stopped = stop.is_set() or isinstance(error, KeyboardInterrupt)
            why = "stopped on request; the server rolled everything back" if is_stopped else str(error)
            return tried.ended(work.runs, "stopped" if is_stopped else "aborted", why)
    notes = [*work.told(), EXECUTOR]
    if not work.can_be_used:
        return tried.ended(work.runs, "undecided", CANT_BE_SEEN, notes=notes)
    return tried.judged(work.runs, work.pairs, notes=notes, prediction=prediction, drift=work.drift)


CANT_BE_SEEN = (
    "rows were changed while older transactions still see them as they were, so the index can't be used in the transaction "
    "that built it: try again when those have ended, or build it concurrently"
)


def _require_short_enough(cost: IndexCost, limits: Limits) -> None:
    if cost.low_s is None or cost.low_s > limits.locked_s:
        raise WrongUse(
            f"the build would hold up writes for longer than {limits.locked_s:.0f} s: {cost.told(is_concurrent=False)}",
            hint="build it concurrently, try it on a copy, or allow more: limits=Limits(locked_s=…)",
        )


@dataclass
class _Work:
    """The runs, in one transaction: without the index, with it, and without it again."""

    connection: Connection
    statement: Statement
    definition: IndexDefinition
    table: Table
    count: int
    limits: Limits
    clock: Callable[[], float]
    trial: str
    progress: Tell
    can_be_used: bool = True
    runs: list[Run] = field(default_factory=list)
    pairs: list[tuple[Run, Run]] = field(default_factory=list)
    drift: float = 0.0
    build_s: float = 0.0
    locked_s: float = 0.0
    index_bytes: int = 0
    wal_bytes: int = 0
    is_used: bool = False

    def run(self) -> None:
        """Do it all; rolled back whatever happens."""
        limits = self.limits
        with transaction(self.connection, lock_timeout_s=limits.lock_timeout_s, statement_timeout_s=limits.statement_s):
            before = self._runs("A", self.count, "without the index")
            with transaction(
                self.connection, lock_timeout_s=limits.lock_timeout_s, statement_timeout_s=limits.locked_s
            ):
                begun = self.clock()
                self._build()
                set_local(self.connection, "statement_timeout", f"{limits.statement_s * 1000:.0f}ms")
                until = begun + limits.locked_s
                made = self._runs("B", self.count, "with the index", until=until) if self.can_be_used else []
                self.locked_s = self.clock() - begun
            after = self._runs("A", len(made), "without the index again")
        self.drift = drift_of(before, after)
        self.is_used = any(uses_index(each.plan, self.definition.name) for each in made)
        self.pairs = [(between(a, c), b) for a, b, c in zip(before, made, after, strict=False)]

    def told(self) -> list[str]:
        """Return what building took, and whether the planner takes the index."""
        told = [
            f"built in {self.build_s:.1f} s, {self.index_bytes / 2**20:.1f} MiB; the server wrote {self.wal_bytes / 2**20:.1f} MiB "
            f"of write-ahead log meanwhile; writes to {self.definition.table} had to wait {self.locked_s:.1f} s; nothing of it remains"
        ]
        if self.pairs and not self.is_used:
            told.append("the planner does not take the index for this statement")
        if self.is_used and self.definition.method in ("hnsw", "ivfflat"):
            told.append("an approximate index may return other rows: the vector tuner measures its recall")
        if "((" in self.definition.rest.replace(" ", ""):
            told.append("an index on an expression is better understood by the planner after ANALYZE")
        return told

    def _build(self) -> None:
        self.progress(TrialProgress(self.trial, 1, 1, "the index is being built; writes to its table wait"))
        wal = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
        before, begun = int(value(self.connection, wal)), self.clock()
        run(self.connection, self.definition.on(self.table.identifier))
        self.build_s, self.wal_bytes = self.clock() - begun, int(value(self.connection, wal)) - before
        oid, waits = self.connection.execute(
            "SELECT /* perfnb */ indexrelid, indcheckxmin FROM pg_index WHERE indrelid = %s ORDER BY indexrelid DESC LIMIT 1",
            [self.table.oid],
        ).fetchone() or (0, True)
        self.index_bytes = int(value(self.connection, "SELECT pg_relation_size(%s::oid)", oid))
        self.can_be_used = not waits

    def _runs(self, arm: str, count: int, text: str, *, until: float | None = None) -> list[Run]:
        made: list[Run] = []
        with reading_only(self.connection):
            for turn in range(min(count, len(self.statement.values))):
                measured(self.connection, self.statement, arm, turn)
            for turn in range(count):
                if until is not None and self.clock() > until:
                    break
                self.progress(TrialProgress(self.trial, turn + 1, count, f"the statement, {text}"))
                made.append(measured(self.connection, self.statement, arm, turn))
                self.runs.append(made[-1])
        return made
