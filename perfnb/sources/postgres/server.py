"""One connection to a server; everything is read in short read-only transactions with timeouts."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from perfnb.sources.postgres.capabilities import Capabilities, Read, Rows, capabilities
from perfnb.sources.postgres.connecting import Connect, Connection, address, connected
from perfnb.sources.postgres.sql import MARK, query

LOCK_TIMEOUT_MS = 200
QUICK_MS = 2000
BEGIN = f"BEGIN {MARK} READ ONLY"
LIMITS = (
    f"SELECT {MARK} set_config('statement_timeout', %(statement)s, true), set_config('lock_timeout', %(lock)s, true), "
    "set_config('jit', 'off', true)"
)


class Server:
    """A connection to ``dsn``, opened by :meth:`open`; ``seen`` tells what can be read, ``name`` is host:port."""

    def __init__(self, dsn: str, *, connect: Connect = psycopg.connect, now: Callable[[], int] = time.time_ns) -> None:
        self.dsn = dsn
        self.name = ""
        self.ahead_ns = 0
        self._seen: Capabilities | None = None
        self.connect = connect
        self._now = now
        self._connection: Connection | None = None

    @property
    def seen(self) -> Capabilities:
        """Return what can be read; only after :meth:`open`."""
        assert self._seen is not None
        return self._seen

    @property
    def is_open(self) -> bool:
        """Tell whether the connection still stands."""
        return self._connection is not None and not self._connection.closed

    @property
    def connection(self) -> Connection:
        """Return the connection itself, outside of any transaction; only after :meth:`open`."""
        assert self._connection is not None
        return self._connection

    def open(self) -> Capabilities:
        """Connect anew and find out what can be read; raises what :func:`connected` does."""
        self.close()
        self._connection = connected(self.dsn, connect=self.connect)
        self.name = address(self._connection)
        return self.look_around()

    def look_around(self) -> Capabilities:
        """Find out anew what can be read, and how far the server's clock is ahead of ours."""
        assert self._connection is not None
        before = self._now()
        with self.reading() as read:
            told = read("capabilities")[0]["now_us"] * 1000
        after = self._now()
        ahead = told - (before + after) // 2
        if abs(ahead - self.ahead_ns) > after - before:  # within the round trip nothing can be told
            self.ahead_ns = ahead
        self._seen = capabilities(self.reading, self._connection.info.backend_pid)
        return self._seen

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None

    @contextmanager
    def reading(self, timeout_ms: int = QUICK_MS) -> Iterator[Read]:
        """Open a read-only transaction and yield what asks queries in it; no query may take over ``timeout_ms``."""
        assert self._connection is not None
        connection = self._connection
        connection.execute(BEGIN)
        try:
            connection.execute(LIMITS, {"statement": str(timeout_ms), "lock": str(LOCK_TIMEOUT_MS)})
            yield lambda name, values=None, **parts: self._rows(connection, name, values, parts)
        except BaseException:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _rows(
        self, connection: Connection, name: str, values: Mapping[str, Any] | None, parts: Mapping[str, Any]
    ) -> Rows:
        text = query(name, connection.info.server_version)
        if not text:
            return []
        composed = sql.SQL(text)
        return connection.execute(composed.format(**parts) if parts else composed, values).fetchall()

    def here(self, server_us: int | None) -> int | None:
        """Return a moment of the server's clock, in microseconds, as nanoseconds of ours."""
        return None if server_us is None else server_us * 1000 - self.ahead_ns

    def timed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``row`` with each NAME_us as NAME of our clock, and without what is null."""
        made = {
            name.removesuffix("_us"): self.here(value) if name.endswith("_us") else value for name, value in row.items()
        }
        return {name: value for name, value in made.items() if value is not None}
