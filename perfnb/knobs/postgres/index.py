"""An index built beside the traffic as a knob: built concurrently, and dropped concurrently when it is undone.

Only what this knob made is ever dropped: the way back holds name, table and definition as the server words it, and an
index that differs in any of them stays. An invalid leftover of a build that was killed matches too.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from psycopg import sql

from perfnb.errors import NotReachable, WrongUse
from perfnb.knobs.base import Knob
from perfnb.knobs.postgres.build import LOCK_TIMEOUT_S, Tell, begin, build, require_ready
from perfnb.knobs.postgres.definition import IndexDefinition, creation, definition_of, table_of
from perfnb.knobs.postgres.rehearsal import IndexCost, rehearse, require_small_enough
from perfnb.knobs.postgres.server import (
    Connection,
    Place,
    connect,
    connect_to,
    marked,
    place_of,
    remember,
    run,
    told,
    value,
)
from perfnb.recording import Recording
from perfnb.target import Target

KIND = "index"
MOST_BYTES = 50 * 1024**3
ENDED_S = 15.0


class ConcurrentIndex:
    """One index: True builds it concurrently, False (or None) drops it if this knob built it.

    ``tell`` hears how far a build is, ``stop`` ends it, ``most_bytes`` is the largest table it is done to.
    """

    kind = KIND
    name = "postgres.index"

    def __init__(
        self,
        dsn: str,
        definition: str | IndexDefinition,
        *,
        tell: Tell = lambda told: None,
        stop: threading.Event | None = None,
        most_bytes: int = MOST_BYTES,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        self.definition = IndexDefinition.parse(definition) if isinstance(definition, str) else definition
        self._dsn = dsn
        self._tell = tell
        self._stop = stop
        self._most_bytes = most_bytes
        self._lock_timeout_s = lock_timeout_s
        self._before: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """Return which index it is."""
        return f"index {self.definition.name} on {self.definition.table}"

    @cached_property
    def cost(self) -> IndexCost:
        """Return what the index takes, from a sample; raises WrongUse where the server would not take it."""
        with connect(self._dsn) as connection:
            require_ready(connection)
            return rehearse(connection, self.definition)

    def current(self) -> bool:
        """Tell whether the index is there and can be used."""
        with connect(self._dsn) as connection:
            return bool(value(connection, _IS_VALID, self._schema(connection), self.definition.name))

    def set(self, value: bool | None) -> None:
        """Build it, or drop what was built; returns once that is done.

        Raises WrongUse on a standby, behind a pooler, for a table that is too large or a name that is taken;
        NotPermitted for a role that is not the table's owner; LockNotGiven where older transactions do not end.
        """
        if self._before is None:
            self._before = self.way_back()
        if value:
            self._build()
        else:
            restore(self._before)

    def undo(self) -> None:
        """Drop the index this knob built, if it did."""
        if self._before is not None:
            before, self._before = self._before, None
            restore(before)

    def way_back(self) -> dict[str, Any]:
        """Return where the index will be and how it will look; raises WrongUse where its name is taken already."""
        worded = self.cost.definition
        with connect(self._dsn) as connection:
            table, place = table_of(connection, self.definition), place_of(connection)
            if definition_of(connection, table.schema, self.definition.name) is not None:
                raise WrongUse(f"there is an index {self.definition.name} already", hint="give it another name")
        remember(place, self._dsn)
        return {"place": place.as_dict(), "schema": table.schema, "name": self.definition.name, "table": table.name,
                "definition": worded}  # fmt: skip

    def shown(self, value: Any) -> Any:
        """Return the statement that makes it, without the values in it; nothing where there is none."""
        return {"index": self.definition.shown} if value else None

    def _build(self) -> None:
        require_small_enough(self.cost, self._most_bytes)
        with connect(self._dsn) as connection:
            table = table_of(connection, self.definition)
        build(
            self._dsn, self.definition, table, tell=self._tell, stop=self._stop, lock_timeout_s=self._lock_timeout_s,
        )  # fmt: skip
        if not self.current():
            raise NotReachable("the index was built and is not valid", hint="see the server's log")

    def _schema(self, connection: Connection) -> str:
        return table_of(connection, self.definition).schema


_IS_VALID = """
SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
_ON = """
SELECT t.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class t ON t.oid = i.indrelid WHERE n.nspname = %s AND c.relname = %s
"""
_SESSIONS = "FROM pg_stat_activity WHERE starts_with(query, %s) AND state <> 'idle' AND pid <> pg_backend_pid()"


def knobs(recording: Recording, target: Target) -> Iterator[Knob]:
    """Yield nothing: which index is wanted is for the caller to say, by :class:`ConcurrentIndex`."""
    return iter(())


def go_back(recording: Path, way: Mapping[str, Any]) -> str:
    """Drop the index that was built, or what is left of one; an index that looks otherwise is not ours and stays."""
    return restore(way)


def restore(way: Mapping[str, Any]) -> str:
    """Do what :func:`go_back` does; once more does no harm."""
    schema, name = way["schema"], way["name"]
    with connect_to(Place.from_dict(way["place"])) as connection:
        _end_build(connection, way)
        found = definition_of(connection, schema, name)
        if found is None:
            return f"there is no index {name}"
        if found != way["definition"] or value(connection, _ON, schema, name) != way["table"]:
            return f"index {name} is not the one that was built here, and stays"
        require_ready(connection)
        begin(connection, LOCK_TIMEOUT_S)
        with told():
            run(connection, sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(schema, name)))
    return f"index {name} is dropped"


def _end_build(connection: Connection, way: Mapping[str, Any], *, sleep: Callable[[float], None] = time.sleep) -> None:
    """End a build of ours that goes on though its process is gone, and wait until it has ended."""
    begun = creation(way["name"], sql.Identifier(way["schema"], way["table"]), concurrently=True)
    begins = marked(begun.as_string(connection))
    value(connection, f"SELECT count(pg_terminate_backend(pid)) {_SESSIONS}", begins)
    for _ in range(int(ENDED_S / 0.1)):
        if not value(connection, f"SELECT count(*) {_SESSIONS}", begins):
            return
        sleep(0.1)
    raise NotReachable("the build under way does not end", hint="run perfnb revert again in a while")
