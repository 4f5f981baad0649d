"""Settings of new sessions, by role and database: ``ALTER ROLE … IN DATABASE … SET``, read back in a new session."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from perfnb.errors import NotInstalled, NotPermitted
from perfnb.knobs.base import Knob
from perfnb.knobs.postgres.server import (
    Connection,
    Place,
    connect,
    connect_to,
    is_pooled,
    place_of,
    remember,
    require_primary,
    run,
    transaction,
    value,
)
from perfnb.knobs.postgres.settings import ALLOWED, as_text, checked, effective, load_library, require_allowed
from perfnb.recording import Recording
from perfnb.sources.postgres.sql import MARK
from perfnb.target import Target

KIND = "role setting"


@dataclass(frozen=True)
class Scope:
    """Whose new sessions: of ``role`` in ``database``; None is every role, or every database."""

    role: str | None
    database: str | None

    def __str__(self) -> str:
        parts = [f"role {self.role}" if self.role else "", f"database {self.database}" if self.database else ""]
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class ReadBack:
    """What new sessions get: ``value``; ``is_seen`` in a session opened for it, else as the catalog says."""

    value: str | None
    is_seen: bool


class RoleSetting:
    """One setting for new sessions of ``scope`` (the DSN's own role in its database, if not given).

    Sessions that are open keep what they have: those of a pool until they connect anew.
    """

    kind = KIND

    def __init__(self, dsn: str, setting: str, scope: Scope | None = None) -> None:
        require_allowed(setting, to_stay=True)
        self.name = f"postgres.{setting}"
        self.setting = setting
        self._dsn = dsn
        self._given = scope
        self._before: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """Return the setting and whose sessions it is for."""
        return f"{self.setting} of new sessions" + (f" ({self._given})" if self._given else "")

    def current(self) -> str | None:
        """Return what is set for the scope; None where nothing is."""
        with connect(self._dsn) as connection:
            return held(connection, self._scope(connection)).get(self.setting)

    def set(self, value: Any) -> None:
        """Set it for new sessions; None takes it away. Returns once a new session has it.

        Raises WrongUse for a value the server would not take, NotPermitted where the role may not.
        """
        if self._before is None:
            self._before = self.way_back()
        with connect(self._dsn) as connection:
            require_primary(connection)
            scope = self._scope(connection)
            text = None if value is None else checked(connection, self.setting, value)
            put(connection, scope, self.setting, text)
            seen = self._read_back(connection, scope)
            wanted = None if text is None else self._as_shown(connection, text)
        if text is not None and seen.is_seen and seen.value != wanted:
            raise NotPermitted(
                f"a new session has {self.setting} {seen.value}, not {wanted}",
                hint="the DSN or a start option sets it too: take it out there",
            )

    def undo(self) -> None:
        """Bring back what was set before the first change."""
        if self._before is not None:
            before, self._before = self._before, None
            restore(before)

    def way_back(self) -> dict[str, Any]:
        """Return where, whose, and what is set there now."""
        with connect(self._dsn) as connection:
            scope, place = self._scope(connection), place_of(connection)
            remember(place, self._dsn)
            return {
                "place": place.as_dict(),
                "role": scope.role,
                "database": scope.database,
                "setting": self.setting,
                "value": held(connection, scope).get(self.setting),
            }

    def shown(self, value: Any) -> Any:
        """Return the value as the server reads it."""
        return None if value is None else as_text(value)

    def read_back(self) -> ReadBack:
        """Return what new sessions get now."""
        with connect(self._dsn) as connection:
            return self._read_back(connection, self._scope(connection))

    def idle_sessions(self) -> int:
        """Return how many open sessions of the scope stand idle, with what they were given when they connected."""
        with connect(self._dsn) as connection:
            return int(value(connection, f"SELECT count(*) {_IDLE}", *self._whose(connection)))

    def end_idle_sessions(self) -> int:
        """End the sessions of the scope that stand idle outside a transaction, so that a pool opens new ones.

        Returns how many. Only ever called when somebody asked for it; a session that wakes up at that very moment
        loses its statement. Raises NotPermitted where the role may not end them.
        """
        with connect(self._dsn) as connection:
            return int(value(connection, f"SELECT count(pg_terminate_backend(pid)) {_IDLE}", *self._whose(connection)))

    def aftermath(self) -> str:
        """Return what a reader must know once it is set: who has it, and who keeps the old value."""
        seen, idle = self.read_back(), self.idle_sessions()
        where = "read back in a new session" if seen.is_seen else "as the catalog says"
        said = f"new sessions have {self.setting} {seen.value} ({where})"
        return f"{said}; open ones keep what they had until they reconnect: {idle} stand idle now" if idle else said

    def _scope(self, connection: Connection) -> Scope:
        if self._given is not None:
            return self._given
        role, database = connection.execute(f"SELECT {MARK} current_user, current_database()").fetchone() or ("", "")
        return Scope(role, database)

    def _whose(self, connection: Connection) -> tuple[str | None, ...]:
        scope = self._scope(connection)
        return scope.role, scope.role, scope.database, scope.database

    def _read_back(self, connection: Connection, scope: Scope) -> ReadBack:
        mine = (value(connection, "SELECT session_user::text"), connection.info.dbname)
        is_another = scope.role not in (None, mine[0]) or scope.database not in (None, mine[1])
        if is_another or is_pooled(connection):  # a pooler hands out sessions that began before
            return ReadBack(held(connection, scope).get(self.setting), is_seen=False)
        with connect(self._dsn) as fresh:
            load_library(fresh, require_allowed(self.setting).extension)
            return ReadBack(effective(fresh, self.setting), is_seen=True)

    def _as_shown(self, connection: Connection, text: str) -> str:
        with transaction(connection):
            connection.execute(f"SELECT {MARK} set_config(%s, %s, true)", [self.setting, text])
            return effective(connection, self.setting)


_IDLE = """
FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'idle' AND pid <> pg_backend_pid()
  AND (%s::text IS NULL OR usename = %s) AND (%s::text IS NULL OR datname = %s)
"""


def held(connection: Connection, scope: Scope) -> dict[str, str]:
    """Return what ALTER ROLE or ALTER DATABASE … SET says for exactly this scope."""
    rows = value(
        connection,
        """
        SELECT s.setconfig FROM pg_db_role_setting s
        LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
        WHERE r.rolname IS NOT DISTINCT FROM %s AND d.datname IS NOT DISTINCT FROM %s
        """,
        scope.role,
        scope.database,
    )
    return dict(each.split("=", 1) for each in rows or ())


def put(connection: Connection, scope: Scope, setting: str, text: str | None) -> None:
    """Set ``setting`` for new sessions of ``scope``; None resets it."""
    name = sql.Identifier(*setting.split("."))
    what = sql.SQL("RESET {}").format(name)
    if text is not None:
        what = sql.SQL("SET {} = {}").format(name, sql.Literal(text))
    with transaction(connection, keep=True):
        run(connection, _whose(scope) + what)


def _whose(scope: Scope) -> sql.Composed:
    if scope.role is None:
        return sql.SQL("ALTER DATABASE {} ").format(sql.Identifier(scope.database or ""))
    if scope.database is None:
        return sql.SQL("ALTER ROLE {} ").format(sql.Identifier(scope.role))
    return sql.SQL("ALTER ROLE {} IN DATABASE {} ").format(sql.Identifier(scope.role), sql.Identifier(scope.database))


def knobs(recording: Recording, target: Target) -> Iterator[Knob]:
    """Yield a knob for each setting that may stay, for new sessions of the DSN's role; none without a DSN."""
    if target.dsn:
        for name, allowed in ALLOWED.items():
            if allowed.may_stay:
                yield RoleSetting(target.dsn, name)


def go_back(recording: Path, way: Mapping[str, Any]) -> str:
    """Set again what was set before; a role or database that is gone took its settings with it."""
    return restore(way)


def restore(way: Mapping[str, Any]) -> str:
    """Bring back what ``way`` describes and say so; once more does no harm."""
    scope, setting, before = Scope(way["role"], way["database"]), way["setting"], way["value"]
    with connect_to(Place.from_dict(way["place"])) as connection:
        if not _is_there(connection, scope):
            return f"{scope} is gone, and its settings with it"
        if held(connection, scope).get(setting) != before:
            require_primary(connection)
            with contextlib.suppress(NotInstalled):
                load_library(connection, require_allowed(setting).extension)
            put(connection, scope, setting, before)
    return f"new sessions have {setting} as it was: {before if before is not None else 'not set'}"


def _is_there(connection: Connection, scope: Scope) -> bool:
    found = value(
        connection,
        "SELECT (%s::text IS NULL OR EXISTS (SELECT FROM pg_roles WHERE rolname = %s)) "
        "AND (%s::text IS NULL OR EXISTS (SELECT FROM pg_database WHERE datname = %s))",
        scope.role, scope.role, scope.database, scope.database,
    )  # fmt: skip
    return bool(found)
