"""Reads one statement: ``parsed(sql)``."""

import logging
import re
from contextvars import ContextVar
from functools import lru_cache

from perfnb.sql.parameters import rewritten
from perfnb.sql.statement import Kind, Statement

LONGEST = 30_000  # characters; longer texts are lists of values as a rule, and take seconds to read

_READ = re.compile(r"\(*\s*(select|with|insert|update|delete|values|table)\b", re.IGNORECASE)
_CURSOR = re.compile(r"declare\s+\S+\s+(?:\w+\s+)*?cursor\s+(?:with(?:out)?\s+hold\s+)?for\s+", re.IGNORECASE)
_LISTED = re.compile(r":p\d+")

# sqlglot warns of what it takes for a command; here that is no news, as such a statement is not read.
_IS_READING: ContextVar[bool] = ContextVar("is_reading", default=False)
logging.getLogger("sqlglot").addFilter(lambda record: record.levelno > logging.WARNING or not _IS_READING.get())


@lru_cache(maxsize=8192)
def parsed(sql: str) -> Statement | None:
    """Return the structure of ``sql``, or None where it can't be read: cut off, too long, or not known to sqlglot.

    Takes the text as an app sends it or as Postgres keeps it: ``$1``, ``%s``, ``%(name)s``, ``:name``, ``?``,
    ``($1 /*, ... */)``. Statements that name no rows (BEGIN, SET, VACUUM …) are of kind ``other``. Never raises.
    """
    if len(sql) > LONGEST:
        return None
    try:
        text, values = (made := rewritten(sql)).text, made.values
        text = _CURSOR.sub("", text, count=1)
        if not _READ.match(text):
            return Statement("other", " ".join(_LISTED.sub("?", text).split())) if text else None
        return _quietly(text, values)
    except Exception:  # the parser's own errors are of many kinds, its faults of any
        return None


def _quietly(text: str, values: tuple[str, ...]) -> Statement | None:
    before = _IS_READING.set(True)
    try:
        return _read(text, values)
    finally:
        _IS_READING.reset(before)


def _read(text: str, values: tuple[str, ...]) -> Statement | None:
    import sqlglot

    from perfnb.sql.reading import Reading
    from perfnb.sql.shape import shape

    trees = sqlglot.parse(text, dialect="postgres")
    if len(trees) != 1 or trees[0] is None:
        return None
    reading = Reading(trees[0], values)
    kind: Kind = reading.kind
    parts = tuple(reading.part(scope) for scope in reading.scopes)
    outer = reading.outermost
    return Statement(
        kind=kind,
        tables=reading.tables,
        written=reading.written,
        filters=tuple(each for part in parts for each in part.filters),
        joins=tuple(each for part in parts for each in part.joins),
        order_by=reading.order_by(outer),
        has_limit=reading.limit(outer) is not None,
        limit_parameter=reading.limit_parameter(outer),
        distance=reading.distance(parts),
        selects_all=reading.selects_all,
        selected=reading.selected,
        locks_rows=reading.locks_rows,
        parts=parts,
        shape=shape(trees[0]),
    )
