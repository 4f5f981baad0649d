"""Short names of statements for axes and lists: what is done to which table, by what."""

from functools import lru_cache

from perfnb.areas.database.workload import brief
from perfnb.sql.parsed import parsed
from perfnb.sql.statement import Statement

MOST = 46
VERBS = {"select": "read", "insert": "insert", "update": "update", "delete": "delete"}


@lru_cache(maxsize=8192)
def headline(statement: str) -> str:
    """Return ``read messages by session_id`` of a statement's text; where it can't be read, its beginning."""
    read = parsed(statement) if statement else None
    if read is None or read.kind not in VERBS or not (read.tables or read.written):
        return brief(statement, MOST)
    return f"{_verb(read)} {_tables(read)}{_way(read)}"


def headlines(statements: "list[str]") -> list[str]:
    """Return the headline of each, those of different statements told apart by a number."""
    seen: dict[str, list[str]] = {}
    made = []
    for statement in statements:
        name = headline(statement)
        twins = seen.setdefault(name, [])
        if statement not in twins:
            twins.append(statement)
        place = twins.index(statement)
        made.append(f"{name} ({place + 1})" if place else name)
    return made


def plain(name: object) -> str:
    """Return a table's or an index's name without the schema nobody has to be told."""
    return str(name).removeprefix("public.")


def _verb(read: Statement) -> str:
    if read.distance is not None:
        return "search"
    counts = read.kind == "select" and bool(read.parts) and read.parts[0].is_aggregate
    return "count" if counts else VERBS[read.kind]


def _tables(read: Statement) -> str:
    names = [plain(name) for name in (read.written or read.tables)]
    more = f" + {len(names) - 2}" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _way(read: Statement) -> str:
    if read.kind == "insert":
        return ""
    columns = dict.fromkeys(each.column for each in read.filters if each.is_required and each.column)
    if read.distance is not None:
        near = read.distance.column
        return f" by {near}" + (f", {', '.join(list(columns)[:2])}" if columns else "")
    if columns:
        return f" by {', '.join(list(columns)[:3])}"
    return f", first by {read.order_by[0].column}" if read.order_by and read.order_by[0].column else ""
