"""What can be seen of a server with this role, and how to see more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import psycopg

Rows = list[dict[str, Any]]

NOT_PRELOADED = "55000"
"""SQLSTATE of statements that are asked for where the library isn't loaded; the words differ by version."""


class Read(Protocol):
    """Asks one of the queries within a transaction that is open."""

    def __call__(self, name: str, values: Mapping[str, Any] | None = None, **parts: Any) -> Rows:
        """Return the rows of query ``name``; nothing where the server's version has no such thing."""


Missing = Literal["", "not created", "not installed", "not preloaded", "not permitted"]


@dataclass(frozen=True)
class Capabilities:
    """A server as a role sees it.

    ``statement_columns`` are those of pg_stat_statements, whatever the server's version; ``missing`` and ``how_to_see``
    say why there are no statements and what would bring them.
    """

    version: str
    version_num: int
    database: str
    role: str
    is_in_recovery: bool
    is_superuser: bool
    sees_all: bool
    times_io: bool
    started_at_us: int
    now_us: int
    block_bytes: int
    is_pooled: bool = False
    statements_version: str | None = None
    statements_schema: str = ""
    statement_columns: frozenset[str] = frozenset()
    statements_max: int | None = None
    has_statements_info: bool = False
    missing: Missing = ""
    how_to_see: str = ""

    @property
    def has_statements(self) -> bool:
        """Tell whether statements can be read."""
        return not self.missing

    @property
    def hints(self) -> list[str]:
        """Return what would let more be seen, one line each."""
        hints = [f"statements are {self.missing}: {self.how_to_see}"] if self.missing else []
        if not self.sees_all:
            hints.append(self.how_to_see_all)
        return hints

    @property
    def how_to_see_all(self) -> str:
        """Return what lets this role see what others do."""
        return f'what other roles do is hidden: GRANT pg_monitor TO "{self.role}"'

    def __str__(self) -> str:
        found = [f"PostgreSQL {self.version}", f"database {self.database} as {self.role}"]
        found += ["a standby"] if self.is_in_recovery else []
        found += ["through a pooler"] if self.is_pooled else []
        found.append(f"pg_stat_statements {self.statements_version}" if self.has_statements else "no statements")
        return ", ".join(found + ([] if self.sees_all else ["other roles' statements and sessions are hidden"]))


def capabilities(read: Callable[[], Any], backend_pid: int) -> Capabilities:
    """Return what can be seen; ``read()`` opens a transaction, ``backend_pid`` is the one told when connecting."""
    with read() as ask:
        about, extension = ask("capabilities")[0], ask("extension")[0]
    pid = about.pop("pid")
    missing = _missing(extension) or _refused(read, extension)
    return Capabilities(
        **about,
        is_pooled=pid != backend_pid,
        statements_version=extension["version"],
        statements_schema=extension["schema"] or "",
        statement_columns=frozenset(extension["columns"]),
        statements_max=extension["most"],
        has_statements_info=extension["has_info"],
        missing=missing,
        how_to_see=_how_to_see(missing, extension, about["role"], about["database"]),
    )


def _missing(extension: Mapping[str, Any]) -> Missing:
    if extension["version"] is None:
        return "not created" if extension["is_available"] else "not installed"
    return "" if extension["is_schema_open"] else "not permitted"


def _refused(read: Callable[[], Any], extension: Mapping[str, Any]) -> Missing:
    """Return why statements can't be read although they seem to be there, by trying."""
    from psycopg import sql

    try:
        with read() as ask:
            ask("statements_elsewhere", schema=sql.Identifier(extension["schema"]))
    except psycopg.errors.InsufficientPrivilege:
        return "not permitted"
    except psycopg.Error as error:
        if error.sqlstate == NOT_PRELOADED:
            return "not preloaded"
        raise
    return ""


def _how_to_see(missing: Missing, extension: Mapping[str, Any], role: str, database: str) -> str:
    preloaded = extension["preloaded"]
    if missing == "not permitted":
        schema = extension["schema"]
        function = f"{schema}.pg_stat_statements(boolean)"
        return f'GRANT USAGE ON SCHEMA {schema} TO "{role}"; GRANT EXECUTE ON FUNCTION {function} TO "{role}"'
    if missing == "not installed":
        return "install PostgreSQL's contrib package on the server, then preload and create pg_stat_statements"
    create = f"CREATE EXTENSION pg_stat_statements in database {database}"
    is_loaded = "pg_stat_statements" in _names(preloaded or "") or extension["most"] is not None
    if missing == "not created" and is_loaded:
        return create
    steps = [f"{preload(preloaded)}, restart the server"]
    return ", then ".join(steps + ([create] if missing == "not created" else []))


def preload(preloaded: str | None) -> str:
    """Return the statement that adds pg_stat_statements to ``preloaded`` in the form that keeps the server startable.

    Each library is a literal of its own: in one literal, ``'a, b'`` is the name of one library, and no server starts
    with it. ``preloaded`` is None where the role may not see it.
    """
    libraries = [*_names(preloaded or ""), "pg_stat_statements"]
    listed = ", ".join("'" + name.replace("'", "''") + "'" for name in dict.fromkeys(libraries))
    keep = " (and before it what SHOW shared_preload_libraries has, each in quotes of its own)"
    return f"ALTER SYSTEM SET shared_preload_libraries = {listed}" + (keep if preloaded is None else "")


def _names(preloaded: str) -> list[str]:
    return [name.strip().strip('"') for name in preloaded.split(",") if name.strip()]
