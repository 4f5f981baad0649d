"""Connections that may change a database, for knobs and trials alone: everything else in perfnb only reads.

Nothing is set for a whole session: behind a pooler the next client would get it. Timeouts and settings hold for one
transaction; what can't run in a transaction refuses a pooler.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from perfnb.errors import NotPermitted, NotReachable, WrongUse
from perfnb.sources.postgres.connecting import address, connected
from perfnb.sources.postgres.sql import MARK
from perfnb.target import Target

LOCK_TIMEOUT_S = 2.0
STATEMENT_TIMEOUT_S = 30.0
GONE_CLIENT_S = 1.0
"""How soon the server ends what a killed process was doing (version 14 and newer)."""

HOW_TO_REACH = "set PERFNB_DSN, or dsn under [target] in perfnb.toml"

Connection = psycopg.Connection[Any]

_dsns: "dict[Place, str]" = {}


class LockNotGiven(NotReachable):
    """Raised when another session held what was needed for longer than the lock timeout."""


class TookTooLong(NotReachable):
    """Raised when a statement was ended by its timeout, or on request."""


@dataclass(frozen=True)
class Place:
    """Which database: ``server`` (host:port), ``database``, and ``system``, the cluster's identifier where it is told."""

    server: str
    database: str
    system: str = ""

    def is_same(self, other: "Place") -> bool:
        """Tell whether both are one database, however it is reached."""
        same = self.system == other.system if self.system and other.system else self.server == other.server
        return same and self.database == other.database

    def as_dict(self) -> dict[str, str]:
        """Return it as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, str]) -> Self:
        """Return what :meth:`as_dict` gave."""
        return cls(**told)


@contextmanager
def connect(dsn: str) -> Iterator[Connection]:
    """Yield a connection in autocommit mode, closed when left.

    Raises NotReachable, NotPermitted or WrongUse with what to do about it; the password is in no message.
    """
    with connected(dsn) as made, told():
        made.row_factory = tuple_row  # type: ignore[assignment]  # the reader's rows are mappings
        yield made


@contextmanager
def told() -> Iterator[None]:
    """Raise what the server refuses as perfnb's own errors, with what to do about it."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise NotPermitted(_said(error), hint="connect as a role that may: the owner, or a superuser") from None
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise WrongUse(_said(error), hint="only a statement that reads can be tried") from None
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise LockNotGiven(
            "another session held the lock for longer than the timeout",
            hint="try again when its transaction has ended, or with a longer lock timeout",
        ) from None
    except psycopg.errors.QueryCanceled as error:
        raise TookTooLong(_said(error), hint="a longer timeout, or a smaller part of the data") from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise NotReachable(f"the server ended the session: {_said(error)}", hint="is it running?") from None
    except psycopg.Error as error:
        raise WrongUse(_said(error), hint="as the server tells it") from None


def _said(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).partition("\n")[0] or type(error).__name__


@contextmanager
def transaction(
    connection: Connection,
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    statement_timeout_s: float = STATEMENT_TIMEOUT_S,
    keep: bool = False,
) -> Iterator[None]:
    """Run the block in one transaction with timeouts, rolled back unless ``keep``.

    A process that is killed meanwhile, or stands still, leaves nothing: the server rolls back.
    """
    with told(), connection.transaction(force_rollback=not keep):
        set_local(connection, "lock_timeout", f"{lock_timeout_s * 1000:.0f}ms")
        set_local(connection, "statement_timeout", f"{statement_timeout_s * 1000:.0f}ms")
        set_local(connection, "idle_in_transaction_session_timeout", "60s")
        if connection.info.server_version >= 140000:
            set_local(connection, "client_connection_check_interval", f"{GONE_CLIENT_S * 1000:.0f}ms")
        yield


def set_local(connection: Connection, name: str, value: str) -> None:
    """Set ``name`` for the rest of the transaction."""
    connection.execute(f"SELECT {MARK} set_config(%s, %s, true)", [name, value])


def value(connection: Connection, query: str, *parameters: Any) -> Any:
    """Return the first column of the first row; None where there is none."""
    row = connection.execute(marked(query), parameters or None).fetchone()
    return row[0] if row else None


def place_of(connection: Connection) -> Place:
    """Return which database ``connection`` reaches."""
    try:
        system = str(value(connection, "SELECT system_identifier FROM pg_control_system()") or "")
    except psycopg.errors.InsufficientPrivilege:
        system = ""
    return Place(address(connection), connection.info.dbname, system)


def remember(place: Place, dsn: str) -> None:
    """Have this process undo what it does at ``place`` by ``dsn``; another takes the DSN of its target."""
    _dsns[place] = dsn


@contextmanager
def connect_to(place: Place) -> Iterator[Connection]:
    """Yield a connection to ``place``, by the DSN this process changed it with, else by the target's; raises NotReachable."""
    known = next((dsn for each, dsn in _dsns.items() if each.is_same(place)), None)
    dsn = known or Target.load().dsn
    if not dsn:
        raise NotReachable(f"no DSN for database {place.database} on {place.server}", hint=HOW_TO_REACH)
    with connect(dsn) as connection:
        if not (reached := place_of(connection)).is_same(place):
            raise NotReachable(
                f"the DSN leads to {reached.database} on {reached.server}, not to {place.database} on {place.server}",
                hint=HOW_TO_REACH,
            )
        yield connection


def require_primary(connection: Connection) -> None:
    """Raise WrongUse on a standby, which takes no changes."""
    if value(connection, "SELECT pg_is_in_recovery()"):
        raise WrongUse("this server is a standby and takes no changes", hint="give the primary's DSN")


def require_direct(connection: Connection) -> None:
    """Raise WrongUse behind a pooler, which would give the session to others."""
    if is_pooled(connection):
        raise WrongUse("the DSN leads to a pooler, which shares its sessions", hint="give the server's own address")


def is_pooled(connection: Connection) -> bool:
    """Tell whether a pooler stands between: it gives out another number than the server's process has."""
    return bool(value(connection, "SELECT pg_backend_pid()") != connection.info.backend_pid)


def run(connection: Connection, statement: sql.Composable) -> None:
    """Run one statement, and no second one that a text brought with it: the server refuses that."""
    with psycopg.RawCursor(connection) as cursor:
        cursor.execute(marked(statement.as_string(connection)), binary=True)


def marked(statement: str) -> str:
    """Return a statement with perfnb's mark behind its first word, by which it is left out of what is recorded."""
    first, _, rest = statement.strip().partition(" ")
    return f"{first} {MARK} {rest}"
