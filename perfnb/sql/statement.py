"""What is known of a statement once it is read. Names are folded as Postgres folds them; a table is as it was written.

A table is ``"schema.table"`` or ``"table"``; ``""`` where the statement alone can't tell which table a column is of
(it has no prefix and there are several, or it comes out of a subquery). No text here holds a string that the
statement held.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["select", "insert", "update", "delete", "other"]
Value = Literal["parameter", "column", "subquery", "expression", "nothing"]


@dataclass(frozen=True)
class Column:
    """A column and the table it is of."""

    table: str
    column: str


@dataclass(frozen=True)
class Filter:
    """One condition on a column.

    Attributes:
        table: Table of the column; see the module.
        column: The column's name.
        operator: ``=``, ``<``, ``<=``, ``>``, ``>=``, ``<>``, ``in``, ``not in``, ``between``, ``like``, ``ilike``,
            ``is null``, ``is not null``, ``is true`` …, or as written: ``@>``, ``@@``, ``~``, ``%``.
        value: What it is compared with; ``nothing`` for ``is null`` and its like.
        expression: ``lower(email)`` where not the bare column is compared; empty where it is.
        is_required: Every row must meet it; false inside OR and NOT.
    """

    table: str
    column: str
    operator: str
    value: Value = "parameter"
    expression: str = ""
    is_required: bool = True


@dataclass(frozen=True)
class Join:
    """Two columns of two tables that must be equal."""

    left: Column
    right: Column


@dataclass(frozen=True)
class Order:
    """One key of ORDER BY; ``column`` is empty where it is not a bare column, and ``expression`` says what it is."""

    table: str
    column: str
    is_descending: bool = False
    is_nulls_first: bool = False
    expression: str = ""


@dataclass(frozen=True)
class Distance:
    """An ORDER BY of nearness: ``ORDER BY embedding <=> $1 LIMIT $2``.

    Attributes:
        table: Table of the column; see the module.
        column: The column that holds vectors (or texts and shapes: ``<->`` is also pg_trgm's and PostGIS's).
        operator: ``<->``, ``<=>``, ``<#>``, ``<+>``, ``<~>`` or ``<%>``; also where it is called as a function.
        is_descending: Ordered DESC, which no vector index can serve.
        is_plain: The key is the operator alone, between the column (or a cast or function of it) and a value, which is
            what an index serves; false for ``1 - (embedding <=> $1)``.
        expression: ``cast(embedding as halfvec(3))`` where not the bare column is compared; empty where it is.
        has_limit: LIMIT stands beside this ORDER BY.
        limit_parameter: As :attr:`Statement.limit_parameter`, of that LIMIT.
        filters: Conditions beside it, those on the distance itself left out.
        joins: Joins beside it.
        bounds: Conditions on the distance itself, here or in a query around it: ``embedding <=> $1 < $2``. However many
            rows there are, only those that are near enough come.
    """

    table: str
    column: str
    operator: str
    is_descending: bool
    is_plain: bool
    expression: str
    has_limit: bool
    limit_parameter: str
    filters: tuple[Filter, ...]
    joins: tuple[Join, ...]
    bounds: tuple[Filter, ...] = ()


@dataclass(frozen=True)
class Part:
    """One SELECT, UPDATE or DELETE of a statement; subqueries are parts of their own.

    ``is_aggregate``: it answers with aggregates of all its rows, not with rows or groups.
    """

    kind: Kind
    tables: tuple[str, ...]
    filters: tuple[Filter, ...] = ()
    joins: tuple[Join, ...] = ()
    order_by: tuple[Order, ...] = ()
    group_by: tuple[Column, ...] = ()
    has_limit: bool = False
    limit_parameter: str = ""
    is_aggregate: bool = False


@dataclass(frozen=True)
class Statement:
    """One statement.

    Attributes:
        kind: What the whole does; a WITH that ends in SELECT is a select.
        tables: Tables it names, once each, in order; names of WITH are not tables.
        written: Those that it inserts into, updates or deletes from.
        filters: Conditions of all its parts.
        joins: Joins of all its parts.
        order_by: Keys of the outermost ORDER BY.
        has_limit: The outermost part has LIMIT or FETCH FIRST.
        limit_parameter: ``$2``, ``%s``, ``%(k)s``, ``?`` or the number itself; empty where there is no LIMIT.
        distance: The first ORDER BY of nearness in it, if any.
        selects_all: The outermost part selects ``*`` or ``table.*``.
        selected: Bare columns that the outermost part returns.
        locks_rows: FOR UPDATE, FOR SHARE or their like.
        parts: Every SELECT, UPDATE and DELETE, the outermost first.
        shape: The text without comments, values, lengths of lists and style of parameters: the same for the statement
            as an app sends it and as pg_stat_statements keeps it.
    """

    kind: Kind
    shape: str
    tables: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    joins: tuple[Join, ...] = ()
    order_by: tuple[Order, ...] = ()
    has_limit: bool = False
    limit_parameter: str = ""
    distance: Distance | None = None
    selects_all: bool = False
    selected: tuple[Column, ...] = ()
    locks_rows: bool = False
    parts: tuple[Part, ...] = ()
