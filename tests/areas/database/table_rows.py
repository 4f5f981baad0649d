"""Tables, columns and indexes of a catalog in a line each."""

from typing import Any

from builders import START, Row
from statement_rows import SERVER, catalog

NOW = START + 20 * 10**9
DAY_NS = 86_400 * 10**9
MB = 1_000_000


def server(**facts: Any) -> list[Row]:
    """Return a server whose counters go back for ``days``, and its database of ``bytes``."""
    days, size, ages = facts.pop("days", 60), facts.pop("bytes", 200 * MB), facts.pop("ages", {})
    since = NOW - round(days * DAY_NS)
    about = {"database": "desk", "started_at": since, "replicas": 0, "is_in_recovery": False} | facts
    return [
        *catalog("server", {SERVER: about}),
        *catalog("database", {"desk": {"bytes": size, "statistics_reset_at": since} | ages}),
    ]


def settings(**values: str) -> list[Row]:
    """Return settings of the server."""
    return catalog("setting", {name: {"value": value} for name, value in values.items()})


def table(name: str, *, grown: dict[str, Any] | None = None, **facts: Any) -> list[Row]:
    """Return a table of 200,000 rows and 40 MB, of which ``grown`` says what was added while observed."""
    given: Row = {
        "relation": "table", "persistence": "permanent", "rows_estimated": 200_000.0, "live_rows": 200_000, "dead_rows": 0,
        "bytes": 60 * MB, "heap_bytes": 40 * MB, "inserted": 200_000, "updated": 0, "hot_updated": 0, "deleted": 0,
        "sequential_scans": 2, "sequential_rows": 400_000, "index_scans": 100, "index_rows": 2000, "bloat_fraction": 0.05,
    } | facts  # fmt: skip
    later = {counter: given[counter] + added for counter, added in (grown or {}).items()}
    return catalog("table", {name: given}, later={name: later})


def columns(table_name: str, **known: Row) -> list[Row]:
    """Return columns of a table: ``session_id={"type": "text", "distinct": 2000}``."""
    made = {
        f"{table_name}.{name}": {"type": "bigint", "null_fraction": 0.0, "average_bytes": 8, "position": at + 1} | facts
        for at, (name, facts) in enumerate(known.items())
    }
    return catalog("column", made)


def index(name: str, of: str, *keys: str, scanned: int = 0, **facts: Any) -> list[Row]:
    """Return an index of 5 MB with a thousand scans, and ``scanned`` more while observed."""
    given: Row = {
        "table": of, "method": "btree", "keys": list(keys), "descending": [False for _ in keys], "included": [],
        "opclasses": ["text_ops" for _ in keys], "collations": [None for _ in keys], "is_unique": False, "is_primary": False,
        "is_valid": True, "is_ready": True, "is_building": False, "bytes": 5 * MB, "scans": 1000, "references": [],
        "definition": f"CREATE INDEX ON {of} ({', '.join(keys)})",
    } | facts  # fmt: skip
    later = {"scans": given["scans"] + scanned} if scanned else {}
    return catalog("index", {name: given}, later={name: later})


def primary(of: str, **facts: Any) -> list[Row]:
    """Return the primary key of a table, on its id."""
    return index(f"{of}_pkey", of, "id", is_unique=True, is_primary=True, constraint="pkey", **facts)


def foreign_key(of: str, column: str, target: str) -> list[Row]:
    """Return a foreign key to another table's id."""
    facts = {"table": of, "target": target, "columns": [column], "target_columns": ["id"], "on_delete": "cascade"}
    return catalog("foreign_key", {f"{of}.{column}_fkey": facts})
