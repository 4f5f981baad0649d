"""Values for the parameters of a recorded statement, which holds none: taken from rows of the tables it reads.

They go from the table into the statement and nowhere else. Values of one table come from one row, so that conditions
on several columns fit each other; LIMIT is 10. What can't be guessed must be given.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import sqlglot
from psycopg import sql
from sqlglot import exp

from perfnb.errors import NotMeasured, WrongUse
from perfnb.knobs.postgres.server import Connection, told, value
from perfnb.sources.postgres.sql import MARK
from perfnb.sql.parameters import rewritten
from perfnb.trials.database.statement import Statement, Values, reading_only

SETS = 5
LIMIT = "10"
SAMPLED_ROWS = 2000
LISTED = 3
"""Values in a list (``= ANY ($1)``)."""
_NUMBERS = ("smallint", "integer", "bigint", "real", "double precision", "numeric")
_VECTORS = ("vector", "halfvec", "sparsevec", "bit")
_PREPARED = "perfnb_values"
HOW = "give the values of $1, $2 … in order"

Place = tuple[str, str]
"""Table (as written) and column."""


def with_values(
    connection: Connection, text: str, given: Sequence[Any] | None = None, *, queryid: str = ""
) -> Statement:
    """Return the statement with the values ``given`` for its parameters, else with some taken from its tables.

    Raises WrongUse where they do not fit, NotMeasured where a value can't be found.
    """
    statement = Statement(text, queryid=queryid)
    types = types_of(connection, statement)
    if given is not None:
        return Statement(text, (_fitting(given, types),), queryid)
    if not types:
        return statement
    return Statement(text, sampled(connection, text, types), queryid, are_sampled=True)


def read_values(text: str) -> list[Any] | None:
    """Return the values that ``text`` lists as JSON: ``[42, "open"]``; None where it is empty. Raises WrongUse."""
    if not text.strip():
        return None
    try:
        found = json.loads(text)
    except ValueError:
        raise WrongUse("the values are no JSON list", hint='like [42, "open", null]') from None
    return found if isinstance(found, list) else [found]


def types_of(connection: Connection, statement: Statement) -> tuple[str, ...]:
    """Return the types of the statement's parameters, as the server sees them; raises WrongUse where it can't read it."""
    with reading_only(connection), psycopg.RawCursor(connection) as cursor:
        cursor.execute(f"PREPARE {MARK} {_PREPARED} AS {statement.text}", binary=True)
        found = value(
            connection, "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = %s", _PREPARED
        )
        cursor.execute(f"DEALLOCATE {MARK} {_PREPARED}")
    return tuple(found or ())


def sampled(connection: Connection, text: str, types: Sequence[str], *, sets: int = SETS) -> tuple[Values, ...]:
    """Return up to ``sets`` sets of values from the tables; raises NotMeasured where a parameter stands for no column."""
    places = places_of(text)
    with told(), reading_only(connection):
        rows = {table: _rows(connection, table, _columns(places, table), sets) for table in _tables(places)}
    made = [
        tuple(_value(number, kind, places.get(number), rows, turn) for number, kind in enumerate(types, 1))
        for turn in range(sets)
    ]
    return tuple(dict.fromkeys(made))


def places_of(text: str) -> dict[int, Place | str]:
    """Return for each parameter the table and column it is compared with, or ``LIMIT`` or ``OFFSET``."""
    told = rewritten(text)
    try:
        tree = sqlglot.parse_one(told.text, dialect="postgres")
    except sqlglot.errors.SqlglotError:
        return {}
    names = _aliases(tree)
    found: dict[int, Place | str] = {}
    for node in tree.find_all(exp.Placeholder):
        match = re.fullmatch(r"p(\d+)", str(node.this))
        number = re.fullmatch(r"\$(\d+)", told.values[int(match[1])]) if match else None
        if number and (place := _place(node, names)) is not None:
            found.setdefault(int(number[1]), place)
    return found


def _place(node: exp.Expr, names: Mapping[str, str]) -> Place | str | None:
    inner: exp.Expr = node
    while (outer := inner.parent) is not None:
        if isinstance(outer, exp.Limit | exp.Fetch):
            return "LIMIT"
        if isinstance(outer, exp.Offset):
            return "OFFSET"
        if isinstance(outer, exp.Select | exp.Where | exp.And | exp.Or):
            return None
        column = next((each for each in outer.find_all(exp.Column) if not _is_within(each, inner)), None)
        if column is not None:
            table = names.get(column.table or "", "")
            return (table, column.name) if table else None
        inner = outer
    return None


def _is_within(node: exp.Expr | None, other: exp.Expr) -> bool:
    while node is not None:
        if node is other:
            return True
        node = node.parent
    return False


def _aliases(tree: exp.Expr) -> dict[str, str]:
    """Return each table by what columns call it; by "" where there is but one."""
    found = {
        each.alias_or_name: ".".join(part.sql(dialect="postgres") for part in each.parts)
        for each in tree.find_all(exp.Table)
    }
    return found | ({"": next(iter(found.values()))} if len(set(found.values())) == 1 else {})


def _tables(places: Mapping[int, Place | str]) -> list[str]:
    return list(dict.fromkeys(place[0] for place in places.values() if isinstance(place, tuple)))


def _columns(places: Mapping[int, Place | str], table: str) -> list[str]:
    return list(dict.fromkeys(place[1] for place in places.values() if isinstance(place, tuple) and place[0] == table))


def _rows(connection: Connection, table: str, columns: Sequence[str], count: int) -> list[dict[str, str]]:
    """Return random rows of ``table`` in which none of ``columns`` is null, as texts."""
    row = connection.execute(
        f"SELECT {MARK} n.nspname, c.relname, c.relkind::text, c.reltuples FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)", [table],
    ).fetchone()  # fmt: skip
    if row is None:
        return []
    schema, name, kind, estimated = row
    part: sql.Composable = sql.SQL("")
    if kind in ("r", "m", "p") and estimated > SAMPLED_ROWS:
        part = sql.SQL(" TABLESAMPLE SYSTEM ({})").format(sql.Literal(100 * SAMPLED_ROWS / estimated))
    query = sql.SQL("SELECT /* perfnb */ {} FROM (SELECT * FROM {}{} LIMIT {}) AS t WHERE {} ORDER BY random() LIMIT {}").format(
        sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(each)) for each in columns),
        sql.Identifier(schema, name), part, sql.Literal(SAMPLED_ROWS),
        sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(each)) for each in columns),
        sql.Literal(count * LISTED),
    )  # fmt: skip
    return [dict(zip(columns, each, strict=True)) for each in connection.execute(query).fetchall()]


def _value(
    number: int, kind: str, place: Place | str | None, rows: Mapping[str, Sequence[Mapping[str, str]]], turn: int
) -> str:
    if isinstance(place, str):
        return LIMIT if place == "LIMIT" else "0"
    held = [each[place[1]] for each in rows.get(place[0], ())] if place else []
    if held and kind.endswith("[]"):
        return _array([held[(turn * LISTED + at) % len(held)] for at in range(LISTED)])
    if held and not (kind in _NUMBERS and held[0].startswith(("[", "{"))):
        return held[turn % len(held)]
    if kind in _NUMBERS:
        return "1"
    if kind == "boolean":
        return "true"
    raise NotMeasured(f"no value can be found for ${number} ({kind})", hint=HOW)


def _fitting(given: Sequence[Any], types: Sequence[str]) -> Values:
    if len(given) != len(types):
        raise WrongUse(f"{len(given)} values for {len(types)} parameters", hint=f"{HOW}: {', '.join(types) or 'none'}")
    return tuple(_text(each, kind) for each, kind in zip(given, types, strict=True))


def _text(given: Any, kind: str) -> str | None:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, list | tuple):
        return f"[{','.join(map(str, given))}]" if kind.startswith(_VECTORS) else _array(map(str, given))
    return json.dumps(given) if isinstance(given, dict) else str(given)


def _array(values: Any) -> str:
    quoted = ('"' + str(each).replace("\\", "\\\\").replace('"', '\\"') + '"' for each in values)
    return "{" + ",".join(quoted) + "}"
