"""An index that leads a statement to its rows instead of reading the whole table."""

import math
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from perfnb.attribution.objects import objects
from perfnb.errors import NotMeasured, WrongUse
from perfnb.estimates.change import Parameter, Prediction, change
from perfnb.estimates.statements import brief, chosen
from perfnb.finding import Estimate
from perfnb.recording import Recording
from perfnb.sql import Statement

LEAST_PAGES = 100
WHOLE = 0.5
"""Part of a table's pages that a statement touches each time, from which it is taken to read all of it."""
DESCENT = 3
"""Blocks from the root of a btree to the leaf, for tables up to hundreds of millions of rows."""
RANGE = (0.001, 1 / 3)
"""Part of the rows that a range is taken to leave; a third is the planner's own guess (DEFAULT_INEQ_SEL)."""
RANDOM = 4.0
"""How much longer a block takes that is read out of order, at most: the default random_page_cost."""
EQUAL, RANGES = ("=", "in"), ("<", "<=", ">", ">=", "between")
HOW_TO_SEE_TABLES = "tables and columns: perfnb record --dsn DSN, as a role that may read the statistics (pg_monitor)"


@dataclass(frozen=True)
class Candidate:
    """An index on ``columns`` of ``table`` (as the catalog names it), and what part of the rows it leaves, from and to."""

    table: str
    columns: tuple[str, ...]
    low: float
    high: float

    @property
    def statement(self) -> str:
        """Return the statement that makes it."""
        return f"CREATE INDEX ON {self.table} ({', '.join(map(_quoted, self.columns))})"


@change(
    "index",
    title="Add an index to the database",
    causes=("missing-index", "unindexed-filter", "vector-index-missing", "slow-statement"),
    parameters=(
        Parameter("statement", "Statement (queryid)", None),
        Parameter("columns", "Columns of the index", None),
    ),
)
def index(recording: Recording, *, statement: str | None, columns: str | None) -> Prediction:
    """Return what an index on the columns that a statement compares would do to its blocks and its time.

    By default the statement of the most time that reads a whole table again and again, and the columns it filters by.

    Source: C26, C30-C33; PostgreSQL manual, Row Estimation Examples, and costsize.c (a block per row at worst)
    """
    row = chosen(
        recording,
        statement,
        lambda one: _lacks_one(recording, one),
        "reads a whole table by a filter without an index",
    )
    found = _candidate(recording, row, columns)
    if found is None:
        raise NotMeasured(
            "the statement has no filter on a large table that it reads whole", hint="name columns that it compares: columns='a, b'"
        )  # fmt: skip
    table = _table(recording, found.table)
    was = _blocks(row)
    pages, rows = float(table["pages"]), float(table["rows_estimated"])
    rest = max(0.0, was - pages)
    low, high = (
        rest + DESCENT + _heap_blocks(rows * part, pages, rows, clustered=part == found.low)
        for part in (found.low, found.high)
    )
    mean = float(row["mean_exec_time_ms"])
    assumptions = (
        f"the index leaves {_part(found.low)} to {_part(found.high)} of the rows",
        "low: rows that go together lie together, and a block takes as long as before; high: each row lies in a block of its own, "
        f"which takes {RANDOM:g} times as long",
        "time goes with the blocks that are touched",
    )
    not_modelled = ("a planner that does not take the index", "writes, which keep one more index up")
    effects = (
        Estimate("statement_ms", mean, mean * min(1.0, low / was), mean * min(1.0, (rest + RANDOM * (high - rest)) / was), assumptions, not_modelled),
        Estimate("statement_blocks", was, min(was, low), min(was, high), assumptions, not_modelled),
    )  # fmt: skip
    return Prediction(
        effects,
        f"{brief(row['query'])} takes {row['share']:.0%} of the database's time and touches {was:,.0f} blocks each of {row['calls']:,.0f} times; {found.table} has {pages:,.0f}",
        assumptions,
        not_modelled,
        setting={"statement": str(row["queryid"]), "columns": ", ".join(found.columns)},
    )


def index_for(recording: Recording, queryid: str | None = None) -> tuple[str, Candidate]:
    """Return a statement (queryid) and the index it lacks; raises NotMeasured where none does."""
    row = chosen(recording, queryid, lambda one: _lacks_one(recording, one), "lacks an index")
    found = _candidate(recording, row, None)
    if found is None:
        raise NotMeasured("the statement reads no large table whole by a filter", hint="name the index")
    return str(row["queryid"]), found


def _lacks_one(recording: Recording, row: Any) -> bool:
    """Tell whether a statement lacks an index; searches by distance are told apart: another kind of index serves them."""
    return row["read"].distance is None and _candidate(recording, row, None) is not None


def _candidate(recording: Recording, row: Any, columns: str | None) -> Candidate | None:
    """Return the index on the columns that a statement compares in the largest table it reads whole."""
    tables = objects(recording, "table")
    if tables.empty:
        raise NotMeasured("no tables were seen", hint=HOW_TO_SEE_TABLES)
    read: Statement = row["read"]
    for name in sorted(
        filter(None, (_resolved(each, tables) for each in read.tables)), key=lambda one: -_pages(tables, one)
    ):
        pages = _pages(tables, name)
        if pages < LEAST_PAGES or _blocks(row) < WHOLE * pages:
            continue
        wanted = tuple(re.split(r"\s*,\s*", columns.strip())) if columns else _filtered(read, name, tables)
        if wanted and not (columns is None and _is_led(recording, name, wanted[0])):
            low, high = _selectivity(recording, name, wanted, read, tables)
            return Candidate(name, wanted, low, high)
    return None


def _resolved(written: str, tables: pd.DataFrame) -> str | None:
    """Return the catalog's name of a table; one without a schema is taken for public's, or the only one of that name."""
    if written in set(tables["name"]):
        return written
    same = [name for name in tables["name"] if name.rpartition(".")[2] == written.rpartition(".")[2]]
    return f"public.{written}" if f"public.{written}" in same else same[0] if len(same) == 1 else None


def _filtered(read: Statement, name: str, tables: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns to index: those compared with ``=`` first, then one range."""
    mine = [
        each
        for each in read.filters
        if each.is_required and not each.expression and each.table and _resolved(each.table, tables) == name
    ]
    equal = [each.column for each in mine if each.operator in EQUAL]
    ranges = [each.column for each in mine if each.operator in RANGES and each.column not in equal]
    return tuple(dict.fromkeys([*equal, *ranges[:1]]))[:3]


def _is_led(recording: Recording, table: str, column: str) -> bool:
    indexes = objects(recording, "index")
    mine = indexes[(indexes["table"] == table) & indexes["is_valid"].fillna(True)]
    return any(keys and keys[0] == column for keys in mine["keys"])


def _selectivity(
    recording: Recording, table: str, columns: tuple[str, ...], read: Statement, tables: pd.DataFrame
) -> tuple[float, float]:
    """Return what part of the rows the columns leave: by the number of different values, and by the commonest one.

    A column that the statement does not compare leaves them all: it may stand in the index for their order.
    """
    known = objects(recording, "column").set_index("name")
    rows = max(1.0, float(_table_in(tables, table)["rows_estimated"]))
    operators = {
        each.column: each.operator for each in read.filters if each.table and _resolved(each.table, tables) == table
    }
    low = high = 1.0
    for column in columns:
        if f"{table}.{column}" not in known.index:
            raise WrongUse(f"{table} has no column {column!r}", hint="columns of the table, with commas between them")
        if column not in operators:
            continue
        if operators[column] in RANGES:
            low, high = low * RANGE[0], high * RANGE[1]
            continue
        row = known.loc[f"{table}.{column}"]
        distinct = float(row["distinct"])
        if math.isnan(distinct) or not distinct:
            high = high * RANGE[1]
            low = low / rows
            continue
        part = 1 / (distinct if distinct > 0 else -distinct * rows)
        common = float(row["most_common_fraction"])
        low, high = low * part, high * (part if math.isnan(common) else max(part, common))
    return max(low, 1 / rows), max(high, 1 / rows)


def _heap_blocks(matched: float, pages: float, rows: float, *, clustered: bool) -> float:
    """Return how many blocks of the table hold ``matched`` rows: side by side, or each in one of its own."""
    return min(pages, max(1.0, matched * pages / max(rows, 1.0) if clustered else matched))


def _blocks(row: Any) -> float:
    return float(row["shared_blocks_hit"] + row["shared_blocks_read"]) / max(1.0, float(row["calls"]))


def _pages(tables: pd.DataFrame, name: str) -> float:
    pages = _table_in(tables, name)["pages"]
    return 0.0 if pd.isna(pages) else float(pages)


def _table(recording: Recording, name: str) -> "pd.Series[Any]":
    return _table_in(objects(recording, "table"), name)


def _table_in(tables: pd.DataFrame, name: str) -> "pd.Series[Any]":
    return tables[tables["name"] == name].iloc[0]


def _quoted(column: str) -> str:
    return column if re.fullmatch(r"[a-z_][a-z0-9_]*", column) else '"' + column.replace('"', '""') + '"'


def _part(value: float) -> str:
    return f"{value:.2%}" if value >= 0.0001 else f"1 in {1 / value:,.0f}"
