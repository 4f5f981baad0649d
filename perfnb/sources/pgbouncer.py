"""PgBouncer's own counts: who waits for a connection, for how long, and how the pools are set.

Read from the admin console, the database ``pgbouncer`` of PgBouncer itself, with the simple protocol it speaks. Columns
are taken by name, as versions differ (1.18 to 1.24); a user in ``stats_users`` or ``admin_users`` may look.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from perfnb.errors import NotPermitted, NotReachable, PerfnbError
from perfnb.recording.journal import Row
from perfnb.sources.base import Emit
from perfnb.sources.polled import Polled, Rows, sample, thing
from perfnb.sources.postgres.connecting import Connect, Connection, address, connected, one_line, parameters

CONSOLE = "pgbouncer"
SETTINGS_EVERY = 30

# Ours to SHOW POOLS's, of which several are added up.
_POOL = {
    "clients_active": ("cl_active",),
    "clients_waiting": ("cl_waiting",),
    "servers_active": ("sv_active",),
    "servers_idle": ("sv_idle",),
    "servers_used": ("sv_used", "sv_tested"),
}
# Ours to SHOW STATS's, with what makes milliseconds of microseconds.
_STATS = {
    "queries": ("total_query_count", 1.0),
    "transactions": ("total_xact_count", 1.0),
    "query_time_ms": ("total_query_time", 1e-3),
    "transaction_time_ms": ("total_xact_time", 1e-3),
    "wait_time_ms": ("total_wait_time", 1e-3),
}
_SETTINGS = (
    "default_pool_size", "min_pool_size", "reserve_pool_size", "reserve_pool_timeout", "max_client_conn",
    "max_db_connections", "pool_mode", "query_wait_timeout", "server_idle_timeout", "server_lifetime",
    "client_idle_timeout", "idle_transaction_timeout", "max_prepared_statements",
)  # fmt: skip


class PgBouncer(Polled):
    """Writes ``samples`` and ``catalog`` about the pools of the PgBouncer that ``dsn`` leads to; its database is not used.

    Entities are ``pool DATABASE/USER``: clients_active, clients_waiting, servers_active, servers_idle, servers_used,
    max_wait_ms, pool_size; and ``database NAME``, for which PgBouncer counts: queries, transactions, query_time_ms,
    transaction_time_ms, wait_time_ms, all since it was started. Settings are named ``pgbouncer.NAME``.
    """

    name = "pgbouncer"

    def __init__(
        self,
        emit: Emit,
        dsn: str,
        *,
        interval_s: float = 1.0,
        connect: Connect = psycopg.connect,
        now: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(emit, interval_s=interval_s, clock=clock)
        self._dsn = dsn
        self._connect = connect
        self._now = now
        self._connection: Connection | None = None
        self._databases: dict[str, Mapping[str, Any]] = {}
        self._since_settings = 0

    def look(self) -> Rows:
        """Return pools and totals, and now and then databases and settings; raises NotReachable or NotPermitted."""
        try:
            connection = self._open()
            shown = {what: _shown(connection, what) for what in ("POOLS", "STATS")}
            if self._since_settings % SETTINGS_EVERY == 0:
                shown |= {what: _shown(connection, what) for what in ("DATABASES", "CONFIG")}
                self._databases = {str(row["name"]): row for row in shown["DATABASES"]}
            self._since_settings += 1
        except psycopg.Error as error:
            self.close()
            raise NotReachable(
                f"PgBouncer: {one_line(error, self._dsn)}",
                hint="see PgBouncer's log; it is asked again at the next look",
            ) from None
        return list(self._rows(address(connection), shown))

    def found(self, rows: Rows) -> str:
        """Return how many pools a look saw."""
        pools = [row["name"] for _, row in rows if row.get("kind") == "pool"]
        return f"PgBouncer with {len(pools)} pool{'' if len(pools) == 1 else 's'}" + (
            f": {', '.join(pools[:5])}" if pools else ""
        )

    def close(self) -> None:
        """Close the connection; the next look makes a new one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._since_settings = 0

    def _open(self) -> Connection:
        if self._connection is None:
            parameters(self._dsn)
            try:
                self._connection = connected(make_conninfo(self._dsn, dbname=CONSOLE), connect=self._connect)
            except PerfnbError as error:
                raise _explained(error) from None
        return self._connection

    def _rows(self, server: str, shown: Mapping[str, list[Row]]) -> Iterator[tuple[str, Row]]:
        taken = self._now()
        for row in shown["POOLS"]:
            if row["database"] != CONSOLE:
                yield from self._pool(taken, server, row, with_settings="CONFIG" in shown)
        for row in shown["STATS"]:
            if row["database"] != CONSOLE:
                yield from _totals(taken, row)
        for row in shown.get("CONFIG", ()):
            if row["key"] in _SETTINGS:
                told = {"value": str(row["value"]), "default": row.get("default"), "source": "pgbouncer.ini"}
                yield thing(taken, server, "setting", f"pgbouncer.{row['key']}", told)

    def _pool(self, taken: int, server: str, row: Row, *, with_settings: bool) -> Iterator[tuple[str, Row]]:
        name = f"{row['database']}/{row['user']}"
        about = f"pool {name}"
        for metric, columns in _POOL.items():
            yield sample(taken, self.name, about, metric, sum(float(row.get(column) or 0) for column in columns))
        waited = float(row.get("maxwait") or 0) * 1000 + float(row.get("maxwait_us") or 0) / 1000
        yield sample(taken, self.name, about, "max_wait_ms", waited, "ms")
        settings = self._databases.get(str(row["database"]), {})
        if settings.get("pool_size") is not None:
            yield sample(taken, self.name, about, "pool_size", settings["pool_size"])
        if with_settings:
            yield thing(taken, server, "pool", name, _properties(row, settings))


def _shown(connection: Connection, what: str) -> list[Row]:
    return list(connection.execute(f"SHOW {what}".encode()).fetchall())


def _totals(taken: int, row: Row) -> Iterator[tuple[str, Row]]:
    for metric, (column, scale) in _STATS.items():
        if row.get(column) is not None:
            unit = "ms" if metric.endswith("_ms") else "count"
            yield sample(taken, "pgbouncer", f"database {row['database']}", metric, float(row[column]) * scale, unit)


def _properties(row: Row, settings: Mapping[str, Any]) -> Row:
    reserve = settings.get("reserve_pool_size", settings.get("reserve_pool"))
    mode = row.get("pool_mode") or settings.get("pool_mode")
    size = settings.get("pool_size")
    return {
        "pooler": "pgbouncer",
        "mode": mode,
        "size": None if size is None else int(size),
        "reserve": None if reserve is None else int(reserve),
    }


def _explained(error: PerfnbError) -> PerfnbError:
    """Return what to do where the console can't be entered."""
    text = error.message.removeprefix("Postgres: ")
    if "not allowed" in text or "no such user" in text:
        return NotPermitted(f"PgBouncer: {text}", hint="add the DSN's user to stats_users in pgbouncer.ini, and RELOAD")
    if "does not exist" in text or "no such database" in text:
        return NotReachable(
            f"no PgBouncer answers there: {text}", hint="give PgBouncer's port (6432 as a rule), not the server's"
        )
    return type(error)(f"PgBouncer: {text}", hint=error.hint.replace("Postgres", "PgBouncer"))
