"""An index that only the planner sees (hypopg): what it would make of a statement's plan and cost. Nothing is measured.

Source: hypopg 1.3, hypopg_index.c (btree, brin, hash; no vector index can be pretended)
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from perfnb.errors import NotInstalled, WrongUse
from perfnb.knobs.postgres.definition import IndexDefinition, table_of
from perfnb.knobs.postgres.server import Connection, connect, told, transaction, value
from perfnb.recording import Recording
from perfnb.sources.postgres.sql import MARK
from perfnb.trials.database.outcome import StatementTrial, Tried
from perfnb.trials.database.statement import Statement, explained, reading_only, uses_index
from perfnb.trials.database.values import types_of

MODE = "hypothetical"
METHODS = ("btree", "brin", "hash")
HOW_TO_GET = "apt-get install postgresql-NN-hypopg, then CREATE EXTENSION hypopg"
_PREPARED = "perfnb_generic"


def try_hypothetical_index(
    recording: Recording, dsn: str, statement: Statement, definition: str | IndexDefinition
) -> StatementTrial:
    """Return what the planner expects of the statement with an index that is not there.

    A statement with parameters whose values are not given is planned without them (GENERIC_PLAN). Raises NotInstalled
    where hypopg is not there, WrongUse for an index it can't pretend.
    """
    wanted = IndexDefinition.parse(definition) if isinstance(definition, str) else definition
    if wanted.method not in METHODS:
        raise WrongUse(
            f"nothing can pretend an index of method {wanted.method}",
            hint="measure it: in a transaction that is rolled back",
        )
    with connect(dsn) as connection, told():
        require_hypopg(connection)
        table = table_of(connection, wanted)
        value_ = {"index": wanted.shown}
        tried = Tried(recording, statement, "postgres.index", f"index on {wanted.table}", MODE, None, value_)
        before = planned(connection, statement)
        try:
            name = _pretend(connection, wanted.on(table.identifier).as_string(connection))
            after = planned(connection, statement)
        finally:
            connection.execute(f"SELECT {MARK} hypopg_reset()")
    is_used = uses_index(after, name)
    return tried.ended((), "estimated", _why(before, after, is_used), plans={"A": before, "B": after},
                       notes=_notes(statement))  # fmt: skip


def is_available(connection: Connection) -> bool:
    """Tell whether hypopg is created in this database."""
    return bool(value(connection, "SELECT count(*) FROM pg_extension WHERE extname = 'hypopg'"))


def require_hypopg(connection: Connection) -> None:
    """Raise NotInstalled where hypopg is not created in this database."""
    if not is_available(connection):
        offered = value(connection, "SELECT count(*) FROM pg_available_extensions WHERE name = 'hypopg'")
        raise NotInstalled(
            "hypopg is not created in this database", hint="CREATE EXTENSION hypopg" if offered else HOW_TO_GET
        )


def planned(connection: Connection, statement: Statement) -> dict[str, Any]:
    """Return the plan of a statement that is not executed: for its first values, else for any."""
    values = statement.values[0]
    if values or not re.search(r"\$\d", statement.text):
        with transaction(connection), reading_only(connection):
            return explained(connection, statement.text, values)
    if connection.info.server_version >= 160000:
        return _generic(connection, statement.text)
    return _generic_by_preparing(connection, statement)


def _generic(connection: Connection, text: str) -> dict[str, Any]:
    with transaction(connection), psycopg.RawCursor(connection) as cursor:
        cursor.execute(f"EXPLAIN {MARK} (GENERIC_PLAN, FORMAT JSON) {text}", binary=True)
        return _first(cursor.fetchone())


def _generic_by_preparing(connection: Connection, statement: Statement) -> dict[str, Any]:
    """Return the generic plan on servers before 16, which have it for prepared statements alone."""
    nulls = ", ".join(["NULL"] * len(types_of(connection, statement)))
    with transaction(connection), psycopg.RawCursor(connection) as cursor:
        cursor.execute(f"SET {MARK} LOCAL plan_cache_mode = force_generic_plan")
        cursor.execute(f"PREPARE {MARK} {_PREPARED} AS {statement.text}", binary=True)
        try:
            cursor.execute(f"EXPLAIN {MARK} (FORMAT JSON) EXECUTE {_PREPARED}({nulls})")
            return _first(cursor.fetchone())
        finally:
            cursor.execute(f"DEALLOCATE {MARK} {_PREPARED}")


def _first(row: Any) -> dict[str, Any]:
    found: dict[str, Any] = row[0][0]
    return found


def _pretend(connection: Connection, statement: str) -> str:
    row = connection.execute(f"SELECT {MARK} indexname FROM hypopg_create_index(%s)", [statement]).fetchone()
    return str(row[0]).rpartition(">")[2] if row else ""


def _why(before: Mapping[str, Any], after: Mapping[str, Any], is_used: bool) -> str:
    was, now = (float(plan["Plan"]["Total Cost"]) for plan in (before, after))
    if not is_used:
        return f"the planner would not take the index: its cost stays {was:,.0f}"
    return f"the planner would take the index: its cost is {now:,.0f} instead of {was:,.0f} ({now / was - 1:+.1%})"


def _notes(statement: Statement) -> Sequence[str]:
    told = ["cost is the planner's own unit, not time; nothing was built and nothing measured"]
    return told if statement.values[0] else [*told, "planned without values of the parameters"]
