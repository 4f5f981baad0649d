"""An index as somebody asks for it: ``CREATE INDEX ON documents USING hnsw (embedding vector_cosine_ops)``."""

import re
import secrets
from dataclasses import dataclass
from typing import Self

import psycopg
from psycopg import sql

from perfnb.errors import NotPermitted, WrongUse
from perfnb.knobs.postgres.server import Connection
from perfnb.sources.postgres.literals import without_literals
from perfnb.sources.postgres.sql import MARK

_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_CREATE = re.compile(
    rf"""
    \s*(?:CREATE\s+(?P<unique>UNIQUE\s+)?INDEX\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?)
    (?:(?!ON\s)(?P<name>{_NAME})\s+)?ON\s+(?:ONLY\s+)?(?P<table>{_NAME}(?:\.{_NAME})?)\s*
    (?P<rest>(?:USING\s+(?P<method>{_NAME})\s*)?\(.*?)\s*;?\s*
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_OPTIONS = re.compile(r"\bWITH\s*\(([\w\s=',.]*)\)", re.IGNORECASE)
HOW = "CREATE INDEX ON table (column, …)"
MOST_NAME = 63
TABLE_KINDS = {"r": "table", "m": "materialised view", "p": "partitioned table", "f": "foreign table", "v": "view"}


@dataclass(frozen=True)
class IndexDefinition:
    """An index that is to be: its ``name``, its ``table`` as written, and ``rest`` from USING or the columns on."""

    name: str
    table: str
    rest: str
    method: str = "btree"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what ``text`` asks for; an index without a name gets one that nothing else has. Raises WrongUse."""
        match = _CREATE.fullmatch(text)
        if match is None:
            raise WrongUse("that is no CREATE INDEX", hint=HOW)
        if match["unique"]:
            raise WrongUse("a unique index is a rule for the data, not for speed", hint="leave UNIQUE out")
        name = _plain(match["name"]) if match["name"] else _made_name(match["table"], match["rest"])
        return cls(name, match["table"], match["rest"].strip(), _plain(match["method"] or "btree"))

    @property
    def shown(self) -> str:
        """Return the statement without the values in it: what may stand on the timeline."""
        return f"CREATE INDEX {self.name} ON {self.table} {without_values(self.rest)}"

    def on(self, table: sql.Identifier, *, concurrently: bool = False) -> sql.Composed:
        """Return the statement that makes it on ``table``."""
        return creation(self.name, table, concurrently=concurrently) + sql.SQL(self.rest)


def creation(name: str, table: sql.Identifier, *, concurrently: bool) -> sql.Composed:
    """Return how the statement begins that makes the index ``name`` on ``table``: up to what is indexed."""
    how = sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} " if concurrently else "CREATE INDEX {} ON {} ")
    return how.format(sql.Identifier(name), table)


@dataclass(frozen=True)
class Table:
    """A table as the catalog has it."""

    oid: int
    schema: str
    name: str
    kind: str
    rows: float
    bytes: int
    owner: str
    is_owned: bool

    @property
    def identifier(self) -> sql.Identifier:
        """Return its quoted name."""
        return sql.Identifier(self.schema, self.name)

    def require_indexable(self) -> None:
        """Raise WrongUse where an index can't be tried on it, NotPermitted where this role may make none."""
        if self.kind not in ("r", "m"):
            raise WrongUse(
                f"{self.name} is a {TABLE_KINDS.get(self.kind, 'relation of another kind')}",
                hint="name one of its partitions" if self.kind == "p" else "name the table that holds the rows",
            )
        if self.schema in ("pg_catalog", "information_schema", "pg_toast"):
            raise WrongUse(f"{self.name} is the server's own", hint="name a table of the app")
        if not self.is_owned:
            raise NotPermitted(
                f"only {self.owner} may index {self.schema}.{self.name}", hint=f"give a DSN of role {self.owner}"
            )


_TABLE = f"""
SELECT {MARK} c.oid, n.nspname, c.relname, c.relkind::text, c.reltuples, pg_table_size(c.oid),
       pg_get_userbyid(c.relowner), pg_has_role(c.relowner, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)
"""


def table_of(connection: Connection, definition: IndexDefinition) -> Table:
    """Return the table the index is for; raises WrongUse where there is none."""
    try:
        row = connection.execute(_TABLE, [definition.table]).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        raise NotPermitted(f"{definition.table} may not be looked at", hint="give a DSN of its owner") from None
    if row is None:
        raise WrongUse(f"there is no table {definition.table}", hint="write it as schema.table")
    return Table(*row)


def definition_of(connection: Connection, schema: str, name: str) -> str | None:
    """Return the part of an index's definition from USING on, without values; None where there is no such index."""
    row = connection.execute(
        f"""SELECT {MARK} pg_get_indexdef(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('i', 'I')""",
        [schema, name],
    ).fetchone()
    return None if row is None else from_using(row[0])


def from_using(definition: str) -> str:
    """Return the part of what pg_get_indexdef tells that is the same on any table: from USING on, without values."""
    return without_values(definition[definition.index(" USING ") + 1 :])


def without_values(rest: str) -> str:
    """Return the part of a definition from USING on without literals, but with its options: m, lists, fillfactor."""
    options = _OPTIONS.search(rest)
    if options is None:
        return without_literals(rest)
    before, after = without_literals(rest[: options.start()]), without_literals(rest[options.end() :])
    return " ".join(filter(None, (before, options.group(), after)))


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _made_name(table: str, rest: str) -> str:
    columns = re.sub(r"\W+", "_", rest.split("(", 1)[1].split(")", 1)[0].lower()).strip("_")[:24].strip("_")
    plain = _plain(table.rpartition(".")[2])
    token = secrets.token_hex(3)
    return f"{plain[: MOST_NAME - len(columns) - 10]}_{columns}_{token}"
