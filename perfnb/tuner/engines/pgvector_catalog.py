"""What Postgres knows about a vector column and its indexes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from perfnb.errors import NotInstalled, WrongUse
from perfnb.tuner.engines.pgvector_shape import OPERATORS, Shape, condensed, operator_of, quoted

TYPES = ("vector", "halfvec", "sparsevec", "bit")
COUNTED_UP_TO = 2_000_000

COLUMN = """
SELECT n.nspname, c.relname, a.attname, t.typname, a.atttypmod, c.reltuples::bigint, c.relkind
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = %s AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
WHERE c.oid = to_regclass(%s)
"""
INDEXES = """
SELECT i.relname, am.amname, o.opcname, i.reloptions, i.reltuples::bigint, pg_relation_size(i.oid),
    pg_get_indexdef(i.oid, 1, true), format_type(k.atttypid, k.atttypmod), pg_get_expr(x.indpred, x.indrelid), x.indisvalid
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am am ON am.oid = i.relam
JOIN pg_opclass o ON o.oid = x.indclass[0] JOIN pg_attribute k ON k.attrelid = i.oid AND k.attnum = 1
WHERE x.indrelid = to_regclass(%s) AND am.amname IN ('hnsw', 'ivfflat') ORDER BY i.relname
"""


@dataclass(frozen=True)
class Column:
    """A vector column: its table and column as written in SQL, its type and size."""

    table: str
    column: str
    name: str
    type: str
    dimensions: int
    rows_estimated: int


@dataclass(frozen=True)
class Index:
    """A vector index on the column."""

    name: str
    method: str
    opclass: str
    options: dict[str, int]
    rows: int
    bytes: int
    key: str
    key_type: str
    predicate: str | None
    is_valid: bool

    @property
    def distance(self) -> str:
        """Return the distance it orders by."""
        return operator_of(self.opclass)[1]

    def is_on(self, column: Column) -> bool:
        """Tell whether the column itself, or an expression of it alone, is the key."""
        words = set(re.findall(r'"[^"]+"|\w+', self.key))
        return column.column in words or column.column.strip('"') in words


def read_column(connection: Connection[Any], table: str, column: str) -> Column:
    """Return what is known of a column; raises WrongUse where there is none, or it holds no vectors."""
    row = connection.execute(COLUMN, (column, table)).fetchone()
    if row is None:
        raise WrongUse(f"there is no column {column} in {table}", hint='write table as "schema.table"')
    schema, relation, name, type_, modifier, rows, kind = row
    if type_ not in TYPES:
        raise WrongUse(f"{table}.{column} is {type_}, not a vector", hint="name a column of type vector or halfvec")
    if kind not in "rpm":
        raise WrongUse(f"{table} is no table", hint="name the table that holds the vectors, not a view of it")
    shown = f"{schema}.{relation}.{name}" if not schema.startswith("pg_temp") else f"{relation}.{name}"
    return Column(quoted(schema, relation), quoted(name), shown, type_, max(0, modifier), rows)


def read_indexes(connection: Connection[Any], table: str, column: Column) -> list[Index]:
    """Return the vector indexes on the column."""
    rows = connection.execute(INDEXES, (table,)).fetchall()
    found = [_index(row) for row in rows]
    return [index for index in found if index.is_on(column)]


def _index(row: Sequence[Any]) -> Index:
    name, method, opclass, options, rows, size, key, key_type, predicate, is_valid = row
    return Index(name, method, opclass, _options(options), rows, size, key, key_type, predicate, is_valid)


def _options(told: list[str] | None) -> dict[str, int]:
    pairs = (each.split("=", 1) for each in told or ())
    return {name: int(value) for name, value in pairs if value.isdigit()}


def read_version(connection: Connection[Any]) -> tuple[str, str]:
    """Return the versions of pgvector and of the server; raises NotInstalled where there is no pgvector."""
    row = connection.execute(
        "SELECT extversion, current_setting('server_version') FROM pg_extension WHERE extname = 'vector'"
    ).fetchone()
    if row is None:
        raise NotInstalled("the database has no extension vector", hint="CREATE EXTENSION vector")
    return row[0], row[1]


def count_rows(connection: Connection[Any], column: Column, distance: str) -> tuple[int, dict[str, int], bool]:
    """Return the rows, those that no vector index holds by reason, and whether that was counted.

    Tables of more than two million rows are not counted: the planner's estimate is taken.
    """
    if column.rows_estimated > COUNTED_UP_TO:
        return column.rows_estimated, {}, False
    norm = {"vector": "vector_norm", "halfvec": "l2_norm", "sparsevec": "l2_norm"}.get(column.type)
    zero = f"{norm}({column.column}) = 0" if distance == "cosine" and norm else "false"
    row = connection.execute(
        f"SELECT /* perfnb */ count(*), count(*) FILTER (WHERE {column.column} IS NULL), count(*) FILTER (WHERE {zero})"
        f" FROM {column.table}"
    ).fetchone()
    assert row is not None
    counted = {"null": row[1], "zero, which has no cosine": row[2]}
    return row[0], {why: number for why, number in counted.items() if number}, True


def shape_of(column: Column, index: Index | None, distance: str | None) -> tuple[Shape, str]:
    """Return how searches on the column are written, and the distance wanted: the index' own where none is named."""
    wanted = distance or (index.distance if index else ("hamming" if column.type == "bit" else "cosine"))
    if index and index.distance == "hamming" and column.type != "bit":
        wanted = distance or "cosine"
    operator = next((each for each, name in OPERATORS.values() if name == wanted), None)
    if operator is None:
        raise WrongUse(
            f"{wanted} is no distance of pgvector", hint=f"one of {', '.join(n for _, n in OPERATORS.values())}"
        )
    type_ = f"bit({column.dimensions})" if column.type == "bit" else column.type
    shape = Shape(column.table, column.column, type_, operator)
    if index is None or index.key == column.column:
        return shape, wanted
    query, rerank = condensed(index.key_type, column.type, index.key)
    key = index.key if index.key.startswith("(") else f"({index.key})"
    return Shape(shape.table, shape.column, type_, operator, key, operator_of(index.opclass)[0], query, rerank), wanted
