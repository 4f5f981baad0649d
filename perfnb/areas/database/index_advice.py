"""Which index would serve one part of a statement on one table: its columns, what it would hold, and what it would save.

Columns that are compared for equality come first, the most selective of them leading, until few rows are left; then
the ORDER BY of a LIMIT, or else one range. What the planner knows of the columns tells how few.

Source: C30 to C33, E9, E10, corrected (X39: no index on a column of few values alone; no partial index on a primary key);
PostgreSQL manual, Multicolumn Indexes, Indexes and ORDER BY, Partial Indexes; PgHero, suggested_indexes
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perfnb.areas.database.maintenance_statements import column as quoted_column
from perfnb.areas.database.maintenance_statements import create_index
from perfnb.sql import Filter, Order, Part

BLOCK_BYTES = 8192
MOST_COLUMNS = 3
FEW_ROWS = 50
"""Rows left at which further columns do not pay (PgHero's figure), or a thousandth of the table."""
WIDE_BYTES = 64
"""Average width from which a column is no key to sort by."""
ENTRY_BYTES = 8 + 4
"""Header of an index entry and the pointer to it on its page."""
ROW_POINTER_BYTES = 6
FULL = 0.9
"""How full a btree's pages are made."""
LISTED = 10
"""Values taken for the length of an IN list, which is not known."""

_EQUAL = ("=", "in", "is null", "is true", "is false")
_RANGES = {"<": 1 / 3, "<=": 1 / 3, ">": 1 / 3, ">=": 1 / 3, "between": 0.1}
_PATTERNS = ("like", "ilike", "~", "~*", "%")
_CONTAINED = {"@>": "jsonb", "?": "jsonb", "?|": "jsonb", "?&": "jsonb", "@?": "jsonb", "@@": "tsvector", "&&": "[]"}
_NO_BTREE = re.compile(r"^(json|jsonb|point|box|circle|polygon|path|line|lseg|xml|vector|halfvec|sparsevec|bit|tsvector|tsquery)\b")  # fmt: skip
_SAFE_FUNCTION = re.compile(r"^(lower|upper|md5|length|abs|trim)\([\w\" .]+\)$")


@dataclass(frozen=True)
class KnownColumn:
    """What the planner knows of a column."""

    name: str
    type: str = ""
    distinct: float | None = None
    null_fraction: float = 0.0
    most_common: float | None = None
    width: float = 8.0
    correlation: float = 0.0


@dataclass(frozen=True)
class KnownTable:
    """A table and its columns; ``indexes`` are the key columns of those that queries may use, with their predicate."""

    name: str
    rows: float
    heap_bytes: float
    columns: Mapping[str, KnownColumn] = field(default_factory=dict)
    indexes: Sequence[tuple[str, str, tuple[str, ...], str]] = ()

    @property
    def pages(self) -> float:
        """Return how many blocks a scan of it reads."""
        return max(1.0, self.heap_bytes / BLOCK_BYTES)

    def part_of(self, each: Filter) -> float | None:
        """Return about what part of the rows meets a condition, None where nothing tells."""
        known = self.columns.get(each.column)
        if each.expression:
            return 0.005 if each.operator == "=" else None
        if each.operator == "is null":
            return known.null_fraction if known else None
        if each.operator in ("is true", "is false"):
            return 0.5
        if each.operator in _RANGES:
            return _RANGES[each.operator]
        return self._equal(known, each.operator) if each.operator in _EQUAL else None

    def _equal(self, known: KnownColumn | None, operator: str) -> float | None:
        if known is None or known.distinct is None:
            return None
        values = known.distinct if known.distinct > 0 else -known.distinct * self.rows
        part = (1 - known.null_fraction) / max(1.0, values)
        return min(1.0, part * (LISTED if operator == "in" else 1))


@dataclass(frozen=True)
class Advice:
    """An index that is not there.

    Attributes:
        table: ``schema.table``.
        keys: Its columns or expressions, as they stand in ``ddl``.
        ddl: The statement that makes it.
        matched_rows: Rows that meet what it is for, of one call.
        read_rows: Rows one call would read through it: fewer than matched where ORDER BY … LIMIT is served.
        size_bytes: Least and most it would take.
        blocks: Least and most one call would read.
        note: What to know besides; empty where nothing.
    """

    table: str
    keys: tuple[str, ...]
    ddl: str
    matched_rows: float
    read_rows: float
    size_bytes: tuple[float, float]
    blocks: tuple[float, float]
    note: str = ""


def advice(
    part: Part, table: KnownTable, *, rows_per_call: float | None, joined: Sequence[str] = (), most_part: float = 0.1
) -> Advice | None:
    """Return the index that ``part`` lacks on ``table``, or None: none would serve, one does, or too many rows match.

    ``rows_per_call`` is what a call gives, where that is all that matches (no LIMIT, no groups), else None; ``joined``
    are columns that few rows of another table are looked up by.
    """
    wanted = [
        each for each in part.filters if each.is_required and each.value != "column" and _is_of(each, table, part)
    ]
    equal = _equalities(wanted, table, joined)
    if not equal and _special(wanted, table):
        return _gin(wanted, table, rows_per_call, most_part)
    keys, matched = _narrowest(equal, table)
    ordered = _order_keys(part, table) if part.has_limit and _all_served(wanted, keys) else []
    ranged = [] if ordered else [each for each in wanted if each.operator in _RANGES and _is_indexable(each, table)][:1]
    if ranged:
        matched *= table.part_of(ranged[0]) or 1.0
    if rows_per_call is not None:
        matched = rows_per_call
    names = [_key(each) for each in keys]
    names += [key for key in (ordered or [_key(each) for each in ranged]) if key not in names]
    if not names or (matched > most_part * table.rows and not ordered):
        return None
    if not equal and rows_per_call is None and not ordered:
        return None  # a range alone, of unknown width
    columns = [each.column for each in keys] + [each.column for each in (_orders(part, table) if ordered else ranged)]
    where = _predicate(wanted, table, names)
    if _is_served(table, names, len(keys), _single(wanted, equal, by_order=bool(ordered)), where):
        return None
    read = min(matched, _limit(part, matched)) if ordered else matched
    return Advice(
        table.name, tuple(names), create_index(table.name, names, where=where), matched, read,
        size_bytes(table, columns), blocks(table, read, columns), _prefixed(table, names),
    )  # fmt: skip


def _is_of(each: Filter, table: KnownTable, part: Part) -> bool:
    named = each.table or (part.tables[0] if len(part.tables) == 1 else "")
    if not named:
        return each.column in table.columns
    return named == table.name or named == table.name.partition(".")[2]


def _equalities(wanted: Sequence[Filter], table: KnownTable, joined: Sequence[str]) -> list[Filter]:
    """Return conditions an index may lead with; those that few values share out among the rows are kept for the end."""
    made = [Filter(table.name, name, "=", "column") for name in joined]
    found = [each for each in [*wanted, *made] if each.operator in ("=", "in") and _is_indexable(each, table)]
    return sorted(found, key=lambda each: _part(each, table))


def _part(each: Filter, table: KnownTable) -> float:
    part = table.part_of(each)
    return 0.005 if part is None else part


def _is_indexable(each: Filter, table: KnownTable) -> bool:
    if each.expression:
        return bool(_SAFE_FUNCTION.match(each.expression))
    known = table.columns.get(each.column)
    return known is not None and not _NO_BTREE.match(known.type)


def _narrowest(equal: Sequence[Filter], table: KnownTable) -> tuple[list[Filter], float]:
    """Return the equalities to index, until few rows are left, and how many rows are left then."""
    rows = table.rows
    keys: list[Filter] = []
    for each in equal[:MOST_COLUMNS]:
        part = _part(each, table)
        if keys and (rows <= max(FEW_ROWS, table.rows / 1000) or part > 0.5):
            break
        if each.column not in [key.column for key in keys]:
            keys.append(each)
            rows *= part
    return keys, rows


def _all_served(wanted: Sequence[Filter], keys: Sequence[Filter]) -> bool:
    """Tell whether rows come in order out of an index on ``keys``: every key is one value."""
    return all(each.operator == "=" for each in keys) and not any(each.operator in _RANGES and each not in keys for each in wanted)  # fmt: skip


def _orders(part: Part, table: KnownTable) -> list[Order]:
    narrow = {
        name for name, known in table.columns.items() if known.width < WIDE_BYTES and not _NO_BTREE.match(known.type)
    }
    found = [each for each in part.order_by if each.column in narrow]
    named = (table.name, table.name.partition(".")[2])
    alone = len(part.tables) == 1
    mine = [each for each in found if each.table in named or (not each.table and alone)]
    return mine if len(mine) == len(part.order_by) else []


def _order_keys(part: Part, table: KnownTable) -> list[str]:
    """Return the keys of ORDER BY; a btree runs both ways, so directions stand there only where they differ."""
    orders = _orders(part, table)
    plain = all(each.is_nulls_first == each.is_descending for each in orders)
    if plain and len({each.is_descending for each in orders}) <= 1:
        return [quoted_column(each.column) for each in orders]
    return [_directed(each) for each in orders]


def _directed(order: Order) -> str:
    way = " DESC" if order.is_descending else ""
    nulls = (
        "" if order.is_nulls_first == order.is_descending else f" NULLS {'FIRST' if order.is_nulls_first else 'LAST'}"
    )
    return f"{quoted_column(order.column)}{way}{nulls}"


def _key(each: Filter) -> str:
    return f"({each.expression})" if each.expression else quoted_column(each.column)


def _limit(part: Part, matched: float) -> float:
    return float(part.limit_parameter) if part.limit_parameter.isdigit() else min(matched, 100.0)


def _predicate(wanted: Sequence[Filter], table: KnownTable, names: Sequence[str]) -> str:
    """Return a predicate that leaves out rows no such statement wants: deleted ones, or the many that are null."""
    for each in wanted:
        known = table.columns.get(each.column)
        if each.expression or known is None or quoted_column(each.column) in names:
            continue
        if each.operator == "is null" and known.null_fraction < 0.95:
            return f"{quoted_column(each.column)} IS NULL"
        if each.operator == "is not null" and known.null_fraction > 0.5:
            return f"{quoted_column(each.column)} IS NOT NULL"
    return ""


def _plain(key: str) -> str:
    """Return a key without quotes, parentheses and direction."""
    return re.sub(r"\s+(ASC|DESC|NULLS \w+)", "", key).strip("()").replace('"', "").lower()


def _single(wanted: Sequence[Filter], equal: Sequence[Filter], *, by_order: bool) -> set[str]:
    """Return the keys that are compared for equality, with one value each where rows are to come ``by_order``."""
    operators = ("=", "is null") if by_order else _EQUAL
    return {_plain(_key(each)) for each in [*equal, *wanted] if each.operator in operators}


def _is_served(table: KnownTable, names: Sequence[str], first: int, equal: set[str], where: str) -> bool:
    """Tell whether there is an index that does the work of one on ``names``, whose ``first`` are compared for equality.

    It begins with these, in whatever order and among others of ``equal``, and goes on as ``names`` do.
    """
    wanted = [_plain(name) for name in names]
    for _, method, there, predicate in table.indexes:
        have = [_plain(key) for key in there]
        if predicate and _plain(predicate) != _plain(where):
            continue
        if method == "hash" and have == wanted[:1] == wanted:
            return True
        if method == "btree" and _begins(have, wanted[:first], wanted[first:], equal):
            return True
    return False


def _begins(have: Sequence[str], keys: Sequence[str], then: Sequence[str], equal: set[str]) -> bool:
    known = equal | {*keys}
    leading = next((at for at, each in enumerate(have) if each not in known), len(have))
    ends = [at for at in range(leading + 1) if {*keys} <= {*have[:at]}]
    return any([*have[at : at + len(then)]] == [*then] for at in ends)


def _prefixed(table: KnownTable, names: Sequence[str]) -> str:
    wanted = [_plain(name) for name in names]
    for name, method, there, predicate in table.indexes:
        have = [_plain(key) for key in there]
        if method == "btree" and not predicate and len(have) < len(wanted) and have == wanted[: len(have)]:
            return f"it does the work of {name} as well, which could go then unless it is unique"
    return ""


def size_bytes(table: KnownTable, columns: Sequence[str]) -> tuple[float, float]:
    """Return least and most bytes of a btree on ``columns``: entries of their average width, or lists of equal ones."""
    known = [table.columns[name] for name in columns if name in table.columns]
    width = sum(8 * math.ceil(each.width / 8) for each in known) or 16
    most = table.rows * (width + ENTRY_BYTES) / FULL
    values = math.prod(_values(each, table.rows) for each in known)
    packed = min(table.rows, values) * (width + ENTRY_BYTES) + table.rows * ROW_POINTER_BYTES
    return min(most, packed / FULL), most


def _values(known: KnownColumn, rows: float) -> float:
    if known.distinct is None:
        return rows
    return max(1.0, known.distinct if known.distinct > 0 else -known.distinct * rows)


def blocks(table: KnownTable, rows: float, columns: Sequence[str]) -> tuple[float, float]:
    """Return least and most blocks that reading ``rows`` by the index takes: rows side by side, or each in its own block."""
    size = size_bytes(table, columns)[1]
    height = 1 + max(1, math.ceil(math.log(max(2.0, size / BLOCK_BYTES), 250)))
    leaves = rows * size / max(1.0, table.rows) / BLOCK_BYTES
    return height + leaves + rows * table.pages / max(1.0, table.rows), height + leaves + max(
        1.0, min(rows, table.pages)
    )


def _special(wanted: Sequence[Filter], table: KnownTable) -> bool:
    return any(_gin_key(each, table) for each in wanted)


def _gin_key(each: Filter, table: KnownTable) -> str:
    known = table.columns.get(each.column)
    if known is None or each.expression:
        return ""
    if each.operator in _PATTERNS and re.match(r"^(text|character|varchar|citext)", known.type):
        return f"{quoted_column(each.column)} gin_trgm_ops"
    kind = _CONTAINED.get(each.operator, "none")
    if kind == "jsonb" and known.type == "jsonb":
        return f"{quoted_column(each.column)}{' jsonb_path_ops' if each.operator in ('@>', '@?') else ''}"
    return quoted_column(each.column) if kind == known.type or (kind == "[]" and known.type.endswith("[]")) else ""


def _gin(wanted: Sequence[Filter], table: KnownTable, rows: float | None, most_part: float) -> Advice | None:
    found = [(each, key) for each in wanted if (key := _gin_key(each, table))]
    each, key = found[0]
    has_one = any(
        method in ("gin", "gist") and each.column in map(_plain, there) for _, method, there, _ in table.indexes
    )
    if has_one or (rows is not None and rows > most_part * table.rows):
        return None
    is_pattern = key.endswith("gin_trgm_ops")
    width = table.columns[each.column].width
    entries = table.rows * max(1.0, width)
    ddl = create_index(table.name, [key], method="gin")
    matched = rows if rows is not None else table.rows * 0.01
    return Advice(
        table.name, (key,), f"CREATE EXTENSION IF NOT EXISTS pg_trgm;\n{ddl}" if is_pattern else ddl, matched, matched,
        (0.3 * entries, 3 * entries), (10 + matched, table.pages * 0.3 + matched),
        "trigrams serve patterns of three letters or more; the index is large and makes writes dearer: full-text search may suit better"
        if is_pattern
        else "GIN makes writes dearer; its size depends on what the column holds",
    )  # fmt: skip
