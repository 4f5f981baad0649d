"""Read journals with SQL, and turn those of writers that are done into Parquet.

Sealing writes Parquet beside the journal, renames it into place and then removes the journal; while both exist, readers
take the Parquet. Whoever seals holds the lock on the journal.
"""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from perfnb.recording.schema import TABLES

LONGEST_LINE = 60 * 2**20
_LONGEST_READ = 64 * 2**20


def live_rows(table: str, journals: Iterable[Path]) -> str:
    """Return the SQL that reads unsealed journals; a torn line becomes a row without a time."""
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in TABLES[table].types.items())
    return (
        f"SELECT * FROM read_json([{file_list(journals)}], format = 'newline_delimited', columns = {{{columns}}}, "
        f"ignore_errors = true, maximum_object_size = {_LONGEST_READ})"
    )


def file_list(paths: Iterable[Path]) -> str:
    """Return ``paths`` as SQL strings; DuckDB takes each for a pattern, so its special characters are escaped."""
    return ", ".join(quoted("".join(f"[{c}]" if c in "*?[" else c for c in str(path))) for path in paths)


def quoted(text: object) -> str:
    """Return ``text`` as an SQL string."""
    return "'" + str(text).replace("'", "''") + "'"


def seal(journal: Path) -> int:
    """Turn ``journal`` into Parquet beside it and return how many torn lines were left out.

    The caller holds the journal's lock. The number of torn lines is kept in ``NAME.torn``. Raises OSError or a DuckDB
    error, with the journal as it was, when the Parquet can't be written.
    """
    parquet, partial = journal.with_suffix(".parquet"), journal.with_suffix(".partial")
    torn = 0
    if not parquet.exists():  # it does where an earlier sealer was killed before it could remove the journal
        lines = _count_lines(journal)
        rows = _write_parquet(journal, partial) if lines else 0
        torn = lines - rows
        if torn:
            journal.with_suffix(".torn").write_text(str(torn))
        if rows:
            partial.rename(parquet)
        else:
            partial.unlink(missing_ok=True)
    journal.unlink()
    return torn


def seal_abandoned(journal: Path) -> int:
    """Seal ``journal`` if its writer is gone; return how many torn lines it had."""
    fd = _locked(journal)
    if fd is None:
        return 0
    try:
        return seal(journal) if os.fstat(fd).st_nlink else 0  # without a link another sealer was quicker
    finally:
        os.close(fd)


def abandoned(journal: Path) -> bool:
    """Tell whether the writer of ``journal`` is gone."""
    fd = _locked(journal)
    if fd is not None:
        os.close(fd)
    return fd is not None


def _locked(journal: Path) -> int | None:
    try:
        fd = os.open(journal, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _write_parquet(journal: Path, partial: Path) -> int:
    import duckdb  # slow to import, and most writers never seal

    table = journal.parent.name
    with duckdb.connect(config={"threads": 2}) as connection:
        copied = connection.execute(
            f"COPY (FROM ({live_rows(table, [journal])}) WHERE {TABLES[table].time} IS NOT NULL) "
            f"TO {quoted(partial)} (FORMAT parquet, COMPRESSION zstd)"
        ).fetchone()
    _flush(partial)
    return int(copied[0]) if copied else 0


def _flush(path: Path) -> None:
    """Bring ``path`` to the disk before the journal it replaces, much of which is there already, goes away."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _count_lines(journal: Path) -> int:
    lines, last = 0, b"\n"
    with journal.open("rb") as file:
        while chunk := file.read(2**20):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    return lines + (last != b"\n")
