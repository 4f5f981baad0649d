"""SQL views over the files of a recording, sealed and live together."""

import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfnb.recording.schema import TABLES
from perfnb.recording.seal import file_list, live_rows

if TYPE_CHECKING:
    import duckdb

Files = tuple[tuple[Path, ...], tuple[Path, ...]]


def connect() -> "duckdb.DuckDBPyConnection":
    """Return an in-memory connection with bounded memory."""
    connection: duckdb.DuckDBPyConnection = import_module("duckdb").connect(
        config={"memory_limit": "1200MB", "threads": min(4, os.cpu_count() or 2)}
    )
    connection.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
    return connection


def listing(folder: Path) -> Files:
    """Return the sealed files of a table and its live journals; a journal whose Parquet stands already is not live.

    Journals are listed first: one that is sealed in between has its Parquet in the second look, so that no row is
    missed and none is counted twice.
    """
    journals = _named(folder, ".jsonl")
    sealed = _named(folder, ".parquet")
    done = {path.stem for path in sealed}
    return sealed, tuple(path for path in journals if path.stem not in done)


def sizes(journals: Iterable[Path]) -> tuple[Any, ...]:
    """Return path and size of each journal, to tell whether there is something new."""
    return tuple((path, _size(path)) for path in journals)


def damage(parquet: Path) -> str:
    """Return what is wrong with a sealed file, or nothing; reads all of it."""
    duckdb = import_module("duckdb")
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SELECT max(length(COLUMNS(*)::VARCHAR)) FROM read_parquet([{file_list([parquet])}])")
    except duckdb.Error as error:
        return str(error).split("\n", 1)[0]
    return ""


def view(table: str, sealed: tuple[Path, ...], live: tuple[Path, ...]) -> str:
    """Return the SELECT that reads ``table``; a column that a file lacks is null in its rows."""
    declared = TABLES[table]
    empty = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in declared.types.items())
    columns = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in declared.types.items())
    parts = [f"SELECT {empty} WHERE false"]
    if sealed:
        parts.append(f"FROM read_parquet([{file_list(sealed)}], union_by_name = true)")
    if live:
        parts.append(f"FROM ({live_rows(table, live)}) WHERE {declared.time} IS NOT NULL")
    return f"SELECT {columns} FROM ({' UNION ALL BY NAME '.join(parts)})"


def _named(folder: Path, suffix: str) -> tuple[Path, ...]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - one call on the hot path
    except FileNotFoundError:
        return ()
    return tuple(folder / name for name in sorted(names) if name.endswith(suffix))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # sealed since the listing; the next look finds the Parquet
        return -1
