"""What an index would cost, told before it is built: it is made on a sample of the rows, in a transaction that is rolled
back. No lock is taken but the one that reading takes.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from psycopg import sql

from perfnb.errors import WrongUse
from perfnb.knobs.postgres.definition import IndexDefinition, Table, from_using, table_of
from perfnb.knobs.postgres.server import Connection, TookTooLong, run, transaction, value

SAMPLE_ROWS = 20_000
GRAPH_ROWS = 2_000
"""Rows of the sample where building takes long for each: hnsw and ivfflat."""
REHEARSAL_S = 10.0
FASTEST, SLOWEST = 0.5, 3.0
"""Builds of whole tables against a sample's pace: several workers make them faster, reading from disk slower."""
LEAST_ROWS = 100
SAMPLE = "perfnb_sample"
_HERE = sql.Identifier("pg_temp", SAMPLE)
_OF_SAMPLE = f"FROM pg_index WHERE indrelid = 'pg_temp.{SAMPLE}'::regclass"


@dataclass(frozen=True)
class IndexCost:
    """What an index takes.

    Attributes:
        table: Its table; ``table_bytes`` without indexes, and about how many ``rows``.
        index_bytes: About what it will take on disk; None where it could not be rehearsed.
        low_s: Building takes about from here …
        high_s: … to here; None where it could not be rehearsed.
        definition: As the server words it, from USING on, without values.
        memory_bytes: What a build may hold in memory (maintenance_work_mem).
    """

    table: str
    table_bytes: int
    rows: float
    index_bytes: float | None
    low_s: float | None
    high_s: float | None
    definition: str
    memory_bytes: int

    def told(self, *, is_concurrent: bool) -> str:
        """Return what a reader should know before saying yes."""
        size = "of unknown size" if self.index_bytes is None else f"of about {_size(self.index_bytes)}"
        took = "unknown length" if self.low_s is None or self.high_s is None else _span(self.low_s, self.high_s)
        parts = [
            f"An index {size} on {self.table} ({_size(self.table_bytes)}, about {self.rows:,.0f} rows), a build of {took}, "
            "and as much write-ahead log as the index is large."
        ]
        if is_concurrent:
            parts.append("Reads and writes go on; the table is read twice, and the build waits for older transactions.")
        else:
            parts.append("Writes to the table wait from the build until the trial's rollback; reads go on.")
        if self.index_bytes and self.index_bytes > self.memory_bytes:
            parts.append(
                f"It is larger than maintenance_work_mem ({_size(self.memory_bytes)}), which makes a build slower."
            )
        parts.append("How much disk is free can't be seen from here.")
        return " ".join(parts)


def rehearse(
    connection: Connection, definition: IndexDefinition, *, clock: Callable[[], float] = time.perf_counter
) -> IndexCost:
    """Return what the index would cost, from building it on a sample. Changes nothing.

    Raises WrongUse where the server does not take the definition, or where the table can't have it.
    """
    table = table_of(connection, definition)
    table.require_indexable()
    wanted = GRAPH_ROWS if definition.method in ("hnsw", "ivfflat") else SAMPLE_ROWS
    memory = int(
        value(connection, "SELECT setting::bigint * 1024 FROM pg_settings WHERE name = 'maintenance_work_mem'")
    )
    worded = _worded(connection, definition, table)
    try:
        sampled, taken_s, size = _on_sample(connection, definition, table, wanted, clock)
    except TookTooLong:
        return IndexCost(definition.table, table.bytes, max(0.0, table.rows), None, None, None, worded, memory)
    rows = max(table.rows, float(sampled))
    if sampled < LEAST_ROWS:
        return IndexCost(definition.table, table.bytes, rows, float(size), 0.0, 1.0, worded, memory)
    grown = rows / sampled
    steps = grown * math.log(max(rows, 2)) / math.log(sampled)
    low, high = FASTEST * taken_s * steps, SLOWEST * taken_s * steps
    return IndexCost(definition.table, table.bytes, rows, size * grown, low, high, worded, memory)


def require_small_enough(cost: IndexCost, most_bytes: int) -> None:
    """Raise WrongUse where the table is larger than ``most_bytes``."""
    if cost.table_bytes > most_bytes:
        raise WrongUse(
            f"{cost.table} holds {_size(cost.table_bytes)}, more than the {_size(most_bytes)} this is allowed for",
            hint="allow more with most_bytes, or try it on a copy",
        )


def _worded(connection: Connection, definition: IndexDefinition, table: Table) -> str:
    """Return the definition as the server words it, from making it on an empty copy of the table."""
    with transaction(connection):
        _copy(connection, table)
        run(connection, definition.on(_HERE))
        return from_using(value(connection, "SELECT pg_get_indexdef(indexrelid) " + _OF_SAMPLE))


def _on_sample(
    connection: Connection, definition: IndexDefinition, table: Table, wanted: int, clock: Callable[[], float]
) -> tuple[int, float, int]:
    """Return rows of the sample, seconds of the build, and bytes of the index."""
    percent = 100.0 if table.rows <= wanted else min(100.0, 150.0 * wanted / table.rows)
    with transaction(connection, statement_timeout_s=REHEARSAL_S):
        _copy(connection, table)
        source = sql.SQL("{} TABLESAMPLE SYSTEM ({})").format(table.identifier, sql.Literal(percent))
        run(connection, sql.SQL("INSERT INTO {} SELECT * FROM {} LIMIT {}").format(_HERE, source, sql.Literal(wanted)))
        sampled = int(value(connection, f"SELECT count(*) FROM pg_temp.{SAMPLE}"))
        begun = clock()
        run(connection, definition.on(_HERE))
        taken_s = clock() - begun
        return sampled, taken_s, int(value(connection, "SELECT pg_relation_size(indexrelid) " + _OF_SAMPLE))


def _copy(connection: Connection, table: Table) -> None:
    made = sql.SQL("CREATE TEMP TABLE {} (LIKE {}) ON COMMIT DROP")
    run(connection, made.format(sql.Identifier(SAMPLE), table.identifier))


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _span(low: float, high: float) -> str:
    if high < 1:
        return "under 1 s"
    return f"about {_seconds(low)} to {_seconds(high)}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
