"""What a statement is: work or housekeeping, and which texts are the same statement with other parameters."""

import re
from dataclasses import dataclass
from functools import lru_cache

from perfnb.sql import parsed

CHANGES = ("insert", "update", "delete", "merge")

_COMMENTS = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
_WORD = re.compile(r"[a-z]+")

# What pools, drivers and poolers say to a server; none of it is asked for by a request.
_HOUSEKEEPING = {
    "begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release", "prepare", "deallocate", "set",
    "reset", "show", "discard", "listen", "unlisten", "notify", "checkpoint", "load", "close",
}  # fmt: skip
_SQL = {"select", "with", "insert", "update", "delete", "merge", "values", "table", "call", "execute", "fetch", "copy"}
_DEFINITIONS = {
    "explain", "lock", "create", "alter", "drop", "vacuum", "analyze", "reindex", "refresh", "cluster", "truncate", "do", "grant", "declare",
}  # fmt: skip

# A ping, or a question about the session: nothing is read from a table.
_PING = re.compile(
    r"^select\s*(?:(?:'[^']*'|\$\d+|\?|%s|-?\d+|null|true|false)(?:::\w+)?(?:\s+(?:as\s+)?\"?\w+\"?)?)?\s*;?$"
)
_ABOUT_THE_SESSION = re.compile(
    r"^select\s+(?:pg_catalog\.)?(?:version|current_schemas?|current_database|current_setting|set_config|current_user|"
    r"session_user|pg_stat_\w+|pg_is_in_recovery|pg_backend_pid|pg_is_wal_replay_paused|inet_server_addr)\b(?!.*\bfrom\b)",
    re.DOTALL,
)
_FROM = re.compile(r"\b(?:from|join)\s+(?:only\s+)?\"?([a-z_][\w$]*)")
_SYSTEM = re.compile(r"pg_|information_schema$|(?:alembic_version|schema_migrations|django_migrations)$")

_PLACEHOLDER = re.compile(r"%\(\w+\)s|%s|\$\d+|(?<![:\w]):[a-z_]\w*|\?|'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b")
_LIST = re.compile(r"\(\s*\?(?:\s*,\s*\?)+\s*\)")


@dataclass(frozen=True, slots=True)
class Shape:
    """What is alike in all runs of a statement.

    Attributes:
        key: The same for texts that differ in parameters, literals, comments and spacing alone.
        kind: select, insert, update, delete, merge, other; or housekeeping (BEGIN, SET, a ping, a look at the catalogue).
        is_sql: It is SQL at all; other stores have commands of their own.
    """

    key: str
    kind: str
    is_sql: bool = True

    @property
    def is_work(self) -> bool:
        """Tell whether it belongs to what a request asks of the database."""
        return self.is_sql and self.kind != "housekeeping"


@lru_cache(maxsize=20_000)
def shape_of(text: str) -> Shape:
    """Return what ``text`` is; the key is made from its structure where it can be read, else from its words."""
    plain = " ".join(_COMMENTS.sub(" ", text).lower().split())
    first = _WORD.match(plain.lstrip("("))
    word = first.group() if first else ""
    if word in _HOUSEKEEPING or _is_about_the_server(plain):
        return Shape(plain, "housekeeping")
    if word not in _SQL:
        return Shape(plain, "other", is_sql=word in _DEFINITIONS)
    statement = parsed(text)
    if statement is None or not statement.shape:
        return Shape(_by_words(plain), word if word in ("select", *CHANGES) else "other")
    return Shape(statement.shape, statement.kind)


def _is_about_the_server(plain: str) -> bool:
    if _PING.match(plain) or _ABOUT_THE_SESSION.match(plain):
        return True
    read = _FROM.findall(plain)
    return bool(read) and all(_SYSTEM.match(name) for name in read)


def _by_words(plain: str) -> str:
    return _LIST.sub("(?)", _PLACEHOLDER.sub("?", plain))
