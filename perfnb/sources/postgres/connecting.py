"""Connect to Postgres; what goes wrong is told in one line with what to do, and never with the password."""

import re
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row

from perfnb.errors import NotPermitted, NotReachable, PerfnbError, WrongUse
from perfnb.sources.postgres.sql import APPLICATION

Connection = psycopg.Connection[DictRow]
Connect = Callable[..., Connection]

EXAMPLE = "postgresql://USER:PASSWORD@HOST:5432/DATABASE, the password percent-encoded"
PATIENCE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A host that is gone without a word is noticed within ten seconds; what the DSN itself says wins."""


def connected(dsn: str, *, connect: Connect = psycopg.connect) -> Connection:
    """Return a connection for ``dsn``; raises WrongUse, NotPermitted or NotReachable with the one thing to do.

    Nothing is prepared on the server and nothing is set at its start but the application's name, so that a pooler in
    transaction mode is fine.
    """
    given = parameters(dsn)
    options = {name: value for name, value in PATIENCE.items() if name not in given}
    try:
        return connect(
            dsn,
            autocommit=True,
            prepare_threshold=None,
            row_factory=dict_row,
            **options | {"application_name": APPLICATION},
        )
    except psycopg.ProgrammingError:
        raise _malformed() from None
    except psycopg.Error as error:
        raise explained(error, dsn) from None


def parameters(dsn: str) -> dict[str, Any]:
    """Return what ``dsn`` says; raises WrongUse where it makes no sense."""
    try:
        return dict(conninfo_to_dict(dsn))
    except psycopg.Error:
        raise _malformed() from None


def address(connection: Connection) -> str:
    """Return host:port, as recordings name a server; a socket's folder stands for the host."""
    return f"{connection.info.host or connection.info.hostaddr}:{connection.info.port}"


def one_line(error: BaseException, dsn: str) -> str:
    """Return the last line that says what happened, without the password of ``dsn``."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Is the server", "-", "HINT", "LINE", "^"))]
    text = (told or lines or [type(error).__name__])[-1 if len(told) > 1 and "FATAL" in told[-1] else 0]
    text = re.sub(r"^connection failed: ", "", text)
    return without_secrets(text, dsn)


def without_secrets(text: str, dsn: str) -> str:
    """Return ``text`` without the password that ``dsn`` holds, however short that is."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error:
        return text.replace(dsn, "…")
    for secret in (dsn, given.get("password"), given.get("sslpassword")):
        text = text.replace(str(secret), "…") if secret else text
    return text


_CAUSES: tuple[tuple[str, type[PerfnbError], str], ...] = (
    (r"password authentication failed|SASL authentication failed|no password supplied|fe_sendauth", NotPermitted,
     "check user and password in the DSN, or ~/.pgpass"),
    (r"no pg_hba.conf entry.*(no encryption|SSL off)|SSL required", NotPermitted,
     "the server wants an encrypted connection: add sslmode=require to the DSN"),
    (r"no pg_hba.conf entry", NotPermitted, "allow this host, user and database in the server's pg_hba.conf"),
    (r"does not support SSL", NotReachable,
     "the server speaks no SSL: use sslmode=prefer or disable in the DSN, if the network is yours"),
    (r"certificate|SSL error", NotReachable, "check sslmode and sslrootcert in the DSN"),
    (r"role .* does not exist|no such user", NotPermitted, "check the user in the DSN"),
    (r"database .* does not exist|no such database", WrongUse, "check the database's name at the end of the DSN"),
    (r"permission denied for database", NotPermitted, "GRANT CONNECT ON DATABASE … TO the role in the DSN"),
    (r"too many (clients|connections)|remaining connection slots", NotReachable,
     "the server has no connection left: end idle ones, or use a role with pg_use_reserved_connections"),
    (r"failed to resolve|could not translate host name|Name or service", NotReachable, "check the host in the DSN"),
    (r"Connection refused|No such file or directory", NotReachable,
     "start Postgres, or check host and port in the DSN"),
    (r"timeout|timed out|No route|unreachable", NotReachable, "check host, port, network and firewall"),
    (r"starting up|shutting down|recovery mode|not accepting connections", NotReachable,
     "wait until the server accepts connections"),
)  # fmt: skip


def explained(error: BaseException, dsn: str) -> PerfnbError:
    """Return the error that tells what to do about ``error``, which came of connecting to ``dsn``."""
    text = str(error)
    for pattern, kind, hint in _CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(one_line(error, dsn), hint=hint)
    return NotReachable(one_line(error, dsn), hint="check the DSN and the server's log")


def _malformed() -> WrongUse:
    return WrongUse("the DSN of Postgres can't be read", hint=f"write it as {EXAMPLE}")
