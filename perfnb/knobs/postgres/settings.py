"""Which settings may be changed, and what the server itself says each can be: type, bounds, choices."""

from dataclasses import dataclass
from typing import Any

import psycopg

from perfnb.errors import NotInstalled, WrongUse
from perfnb.knobs.postgres.server import Connection, set_local, told, value
from perfnb.sources.postgres.sql import MARK


@dataclass(frozen=True)
class Allowed:
    """A setting that may be changed.

    Attributes:
        title: What it does, in words.
        extension: The extension that has it; empty for the server's own.
        may_stay: Whether it may be kept for a role; others (``enable_seqscan``) are for looking only.
    """

    title: str
    extension: str = ""
    may_stay: bool = True


_LOOKING = (
    "enable_bitmapscan", "enable_hashagg", "enable_hashjoin", "enable_incremental_sort", "enable_indexonlyscan",
    "enable_indexscan", "enable_material", "enable_memoize", "enable_mergejoin", "enable_nestloop", "enable_seqscan",
    "enable_sort",
)  # fmt: skip

ALLOWED: dict[str, Allowed] = {
    "work_mem": Allowed("memory of one sort or hash"),
    "hash_mem_multiplier": Allowed("how many times work_mem a hash may take"),
    "random_page_cost": Allowed("cost of a page read out of order"),
    "seq_page_cost": Allowed("cost of a page read in order"),
    "effective_cache_size": Allowed("cache that the planner reckons with"),
    "effective_io_concurrency": Allowed("reads at the same time"),
    "jit": Allowed("compile expressions of costly statements"),
    "jit_above_cost": Allowed("cost from which expressions are compiled"),
    "max_parallel_workers_per_gather": Allowed("workers that help one statement"),
    "plan_cache_mode": Allowed("plans of prepared statements"),
    "join_collapse_limit": Allowed("tables whose order of joining is searched"),
    "from_collapse_limit": Allowed("subqueries that are merged"),
    "statement_timeout": Allowed("longest that a statement may take"),
    "lock_timeout": Allowed("longest wait for a lock"),
    "idle_in_transaction_session_timeout": Allowed("longest that a transaction may stand idle"),
    "hnsw.ef_search": Allowed("candidates that a search in an HNSW index keeps", "vector"),
    "hnsw.iterative_scan": Allowed("search on in an HNSW index while a filter leaves too few rows", "vector"),
    "hnsw.max_scan_tuples": Allowed("rows after which an iterative search ends", "vector"),
    "hnsw.scan_mem_multiplier": Allowed("memory of an iterative search, in work_mem", "vector"),
    "ivfflat.probes": Allowed("lists that a search in an IVFFlat index visits", "vector"),
    "ivfflat.iterative_scan": Allowed("search on in an IVFFlat index while a filter leaves too few rows", "vector"),
    "ivfflat.max_probes": Allowed("lists after which an iterative search ends", "vector"),
    **{name: Allowed(name.replace("_", " "), may_stay=False) for name in _LOOKING},
}

_TRUE_FALSE = ("on", "off", "true", "false", "yes", "no", "1", "0")


@dataclass(frozen=True)
class Setting:
    """What the server says of a setting; ``now`` and ``default`` are in its ``unit``."""

    name: str
    type: str
    now: str
    default: str
    unit: str = ""
    low: str = ""
    high: str = ""
    choices: tuple[str, ...] = ()

    @property
    def range(self) -> str:
        """Return in words what it can be: "64 to 2147483647 (kB)"."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.type == "bool":
            return "on or off"
        return f"{self.low} to {self.high}" + (f" ({self.unit})" if self.unit else "")

    def require(self, text: str) -> None:
        """Raise WrongUse where ``text`` can't be meant; a number with a unit is left to the server."""
        is_fine = True
        if self.choices:
            is_fine = text.lower() in self.choices
        elif self.type == "bool":
            is_fine = text.lower() in _TRUE_FALSE
        elif (number := _number(text)) is not None:
            is_fine = float(self.low) <= number <= float(self.high)
        if not is_fine:
            raise WrongUse(f"{self.name} can't be {text!r}", hint=self.range)


def require_allowed(name: str, *, to_stay: bool = False) -> Allowed:
    """Return what is known of ``name``; raises WrongUse for a setting that perfnb does not change."""
    allowed = ALLOWED.get(name)
    if allowed is None:
        raise WrongUse(f"perfnb does not change {name!r}", hint=f"one of {', '.join(ALLOWED)}")
    if to_stay and not allowed.may_stay:
        raise WrongUse(
            f"{name} is for looking only: it can be tried, not kept", hint="mend the index or the statistics"
        )
    return allowed


def read_setting(connection: Connection, name: str) -> Setting:
    """Return what the server says of ``name``; raises WrongUse or NotInstalled where it has no such setting."""
    load_library(connection, require_allowed(name).extension)
    with told():
        row = connection.execute(
            f"SELECT {MARK} vartype, setting, boot_val, unit, min_val, max_val, enumvals FROM pg_settings WHERE name = %s",
            [name],
        ).fetchone()
    if row is None:
        raise NotInstalled(f"this server has no {name}", hint="a newer version of the server or the extension has it")
    kind, now, default, unit, low, high, choices = row
    return Setting(name, kind, now, default or "", unit or "", low or "", high or "", tuple(choices or ()))


def load_library(connection: Connection, extension: str) -> None:
    """Have the session load pgvector, whose settings it does not know before; raises NotInstalled."""
    if extension != "vector":
        return
    found = value(
        connection,
        "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'vector'",
    )
    if found is None:
        raise NotInstalled("pgvector is not installed in this database", hint="CREATE EXTENSION vector")
    value(connection, f"SELECT '[1]'::{found}.vector")


def as_text(given: Any) -> str:
    """Return a value as the server reads it: True is ``on``."""
    return {True: "on", False: "off"}.get(given, str(given)) if isinstance(given, bool) else str(given).strip()


def checked(connection: Connection, name: str, given: Any) -> str:
    """Return ``given`` as the server takes it for ``name``; raises WrongUse with what it can be. Changes nothing."""
    setting = read_setting(connection, name)
    text = as_text(given)
    setting.require(text)
    try:
        with connection.transaction(force_rollback=True):
            set_local(connection, name, text)
    except (psycopg.DataError, psycopg.ProgrammingError):
        raise WrongUse(f"{name} can't be {text!r}", hint=setting.range) from None
    return text


def effective(connection: Connection, name: str) -> str:
    """Return what ``name`` holds in this session, as SHOW tells it."""
    return str(value(connection, "SELECT current_setting(%s)", name))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
