"""One statement of the user's, run and explained in a transaction that can't write and is always rolled back."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from perfnb.errors import WrongUse
from perfnb.knobs.postgres.server import Connection, set_local, told
from perfnb.sources.postgres.literals import plan_without_literals, without_literals
from perfnb.sources.postgres.sql import MARK

_SPACE = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)"
_READS = re.compile(rf"{_SPACE}*(?:\({_SPACE}*)*(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE | re.DOTALL)
STOP_LOOK_S = 0.1

Values = tuple[str | None, ...]


@dataclass(frozen=True)
class Statement:
    """A statement that reads, with the values of its parameters ``$1``, ``$2`` …: one tuple for each way it is called.

    Values are texts as the server reads them: ``'42'``, ``'[0.1,0.2]'``, ``'{a,b}'``. They stay in this process.
    """

    text: str
    values: tuple[Values, ...] = ((),)
    queryid: str = ""
    are_sampled: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not _READS.match(self.text):
            raise WrongUse("only a statement that reads can be tried", hint="a SELECT, or WITH … SELECT")
        if not self.values:
            raise WrongUse("a statement is run with at least one set of values", hint="values=((),) where it has none")

    @property
    def shown(self) -> str:
        """Return its text without any literal."""
        return without_literals(self.text)

    def in_turn(self, turn: int) -> int:
        """Return which set of values a turn uses."""
        return turn % len(self.values)


@dataclass(frozen=True)
class Run:
    """One execution, as EXPLAIN (ANALYZE, BUFFERS) tells it: ``ms`` is the executor's time, sending rows not included."""

    arm: str
    turn: int
    values: int
    ms: float
    rows: float
    blocks: int
    temp_blocks: int
    plan: Mapping[str, Any] = field(repr=False, compare=False)


@contextmanager
def reading_only(connection: Connection) -> Iterator[None]:
    """Run the block in a (sub)transaction in which the server refuses to write; rolled back when left."""
    with told(), connection.transaction(force_rollback=True):
        set_local(connection, "transaction_read_only", "on")
        yield


def measured(connection: Connection, statement: Statement, arm: str, turn: int) -> Run:
    """Execute the statement once and return what it took. To be called within :func:`reading_only`."""
    chosen = statement.in_turn(turn)
    told = explained(connection, statement.text, statement.values[chosen], "ANALYZE, BUFFERS, TIMING OFF")
    plan = told["Plan"]
    return Run(
        arm=arm,
        turn=turn,
        values=chosen,
        ms=float(told["Execution Time"]),
        rows=float(plan["Actual Rows"]) * float(plan["Actual Loops"]),
        blocks=_sum(plan, "Shared Hit Blocks", "Shared Read Blocks"),
        temp_blocks=_sum(plan, "Temp Read Blocks", "Temp Written Blocks"),
        plan=told,
    )


def explained(
    connection: Connection, text: str, values: Sequence[str | None] = (), options: str = ""
) -> dict[str, Any]:
    """Return what EXPLAIN (FORMAT JSON) says of ``text`` with ``values``; a second statement in it is refused."""
    listed = f"{options}, FORMAT JSON" if options else "FORMAT JSON"
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(f"EXPLAIN {MARK} ({listed}) {text}", list(values), binary=True)
        row = cursor.fetchone()
    assert row is not None
    found: dict[str, Any] = row[0][0]
    return found


def kept_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan as a recording may hold it: without literals."""
    found = plan_without_literals(dict(plan))
    assert isinstance(found, dict)
    return found


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the nodes of a plan, the outermost first."""
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def uses_index(plan: Mapping[str, Any], name: str) -> bool:
    """Tell whether a plan uses the index ``name``; hypothetical ones are called ``<oid>name``."""
    return any(str(each.get("Index Name", "")).rpartition(">")[2] == name for each in nodes(plan["Plan"]))


@contextmanager
def stoppable(connection: Connection, stop: threading.Event) -> Iterator[None]:
    """End what ``connection`` is doing as soon as ``stop`` is set."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(STOP_LOOK_S):
            if stop.is_set():
                connection.cancel_safe(timeout=5)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _sum(plan: Mapping[str, Any], *names: str) -> int:
    return sum(int(plan.get(name, 0)) for name in names)
