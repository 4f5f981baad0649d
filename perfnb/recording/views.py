"""SQL views over the files of a recording, sealed and live together."""

import contextlib
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfnb.recording.schema import TABLES
from perfnb.recording.seal import file_list, live_rows

if TYPE_CHECKING:
    import duckdb

Files = tuple[tuple[Path, ...], tuple[Path, ...]]


class Views:
    """A DuckDB connection with one view a table; not safe to use from several threads at once.

    Journals are held open, and read through the descriptor, so that one that is sealed and removed while a query runs
    is still there for it. With ``copies_live`` they are read once at each :meth:`refresh`, so that no row comes between.
    """

    def __init__(self, path: Path, *, copies_live: bool = False) -> None:
        self._path = path
        self._copies_live = copies_live
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._files: dict[str, Files] = {}
        self._descriptors: dict[Path, int] = {}
        self._sizes: dict[Path, int] = {}

    @property
    def connection(self) -> "duckdb.DuckDBPyConnection":
        """Return the connection; its views are those of the latest :meth:`refresh`."""
        if self._connection is None:
            self._connection = connect()
        return self._connection

    @property
    def is_pointed(self) -> bool:
        """Tell whether there are views yet."""
        return bool(self._files)

    def refresh(self) -> bool:
        """Point the views at the files there are now and tell whether there is something new."""
        files = self._listing()
        moved = [table for table in TABLES if files[table] != self._files.get(table)]
        sizes = {path: os.fstat(self._descriptors[path]).st_size for _, live in files.values() for path in live}
        grown = [table for table in TABLES if any(sizes[path] != self._sizes.get(path) for path in files[table][1])]
        for table in dict.fromkeys(moved + grown) if self._copies_live else moved:
            self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {table} AS {self._view(table, *files[table])}")
        self._files, self._sizes = files, sizes
        if moved:
            self._close_all_but(set(sizes))
        return bool(moved or grown)

    def close(self) -> None:
        """Release the connection and the journals."""
        if self._connection is not None:
            self._connection.close()
        self.leave()

    def leave(self) -> Any:
        """Let go of the connection without closing it, and return it; close the journals."""
        connection, self._connection = self._connection, None
        self._close_all_but(set())
        self._files = {}
        self._sizes = {}
        return connection

    def _listing(self) -> dict[str, Files]:
        while True:
            files = {table: listing(self._path / table) for table in TABLES}
            if all(self._is_open(path) for _, live in files.values() for path in live):
                return files

    def _is_open(self, journal: Path) -> bool:
        if journal not in self._descriptors:
            try:
                self._descriptors[journal] = os.open(journal, os.O_RDONLY)
            except FileNotFoundError:  # sealed since it was listed: list anew, its Parquet is there
                return False
        return True

    def _close_all_but(self, wanted: set[Path]) -> None:
        for path in self._descriptors.keys() - wanted:
            with contextlib.suppress(OSError):
                os.close(self._descriptors.pop(path))

    def _view(self, table: str, sealed: tuple[Path, ...], live: tuple[Path, ...]) -> str:
        journals = tuple(Path(f"/dev/fd/{self._descriptors[path]}") for path in live)
        if not self._copies_live or not live:
            return view(table, sealed, journals)
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE live_{table} AS {view(table, (), journals)}")
        return f"{view(table, sealed, ())} UNION ALL BY NAME FROM live_{table}"


def connect() -> "duckdb.DuckDBPyConnection":
    """Return an in-memory connection with bounded memory."""
    connection: duckdb.DuckDBPyConnection = import_module("duckdb").connect(
        config={"memory_limit": "1200MB", "threads": min(4, os.cpu_count() or 2)}
    )
    # the cache knows files by path, and a descriptor's path is soon another file's
    connection.execute("SET preserve_insertion_order = false; SET enable_external_file_cache = false")
    connection.execute("SET TimeZone = 'UTC'")
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


def damage(parquet: Path) -> str:
    """Return what is wrong with a sealed file, or nothing; reads all of it."""
    duckdb = import_module("duckdb")
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SELECT max(length(COLUMNS(*)::VARCHAR)) FROM read_parquet([{file_list([parquet])}])")
    except duckdb.Error as error:
        return str(error).split("\n", 1)[0]
    return ""


def _named(folder: Path, suffix: str) -> tuple[Path, ...]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - one call on the hot path
    except FileNotFoundError:
        return ()
    return tuple(folder / name for name in sorted(names) if name.endswith(suffix))
