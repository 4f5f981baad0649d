"""Watch a server with the source and keep what it writes."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from perfnb.recording.journal import Row
from perfnb.sources.postgres.source import Intervals, Postgres

OFTEN = Intervals(activity_s=0.1, samples_s=0.1, statements_s=0.1, catalog_s=0.3)
SELDOM = Intervals(activity_s=60, samples_s=60, statements_s=60, catalog_s=60)
PASSWORD = "sesame-7531"


class Kept:
    """What a source wrote, by table."""

    def __init__(self) -> None:
        self.tables: dict[str, list[Row]] = defaultdict(list)

    def emit(self, table: str, rows: Iterable[Row]) -> int:
        listed = list(rows)
        self.tables[table] += listed
        return len(listed)

    def __getitem__(self, table: str) -> list[Row]:
        return self.tables[table]

    @property
    def events(self) -> list[str]:
        return [str(row["title"]) for row in self["events"]]

    def statement(self, text: str) -> Row:
        """Return the last reading of the statement whose text holds ``text``."""
        return [row for row in self["statements"] if text in (row.get("query") or "")][-1]

    def objects(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """Return the properties of the objects of ``kind`` by name, as last seen."""
        return {row["name"]: row["properties"] for row in self["catalog"] if row["kind"] == kind}


@contextmanager
def watched(dsn: str, **options: Any) -> Iterator[tuple[Postgres, Kept]]:
    """Yield a running source and what it writes; the last snapshots are in once this is left."""
    kept = Kept()
    with Postgres(kept.emit, dsn, **{"intervals": OFTEN, **options}) as source:
        yield source, kept


def until(claim: Callable[[], Any], timeout_s: float = 30) -> None:
    """Wait until ``claim`` holds."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)


def run(dsn: str, *statements: str) -> Any:
    """Run ``statements`` each in its own transaction and return the last one's rows, if it has any."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for each in statements:
            cursor = connection.execute(each)
        return cursor.fetchall() if cursor.description else None


def as_role(dsn: str, role: str, *grants: str) -> str:
    """Return the DSN of a new ``role`` that may do nothing but log in and what ``grants`` say."""
    name = conninfo_to_dict(dsn)["dbname"]
    run(dsn, f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'", f"GRANT CONNECT ON DATABASE {name} TO {role}", *grants)
    return make_conninfo(dsn, user=role, password=PASSWORD)
