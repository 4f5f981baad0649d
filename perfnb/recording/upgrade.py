"""Bring a recording of an older schema to today's, one registered step for each version.

A column that was added needs no step that touches files: where a file lacks it, it reads as null. A column that was
renamed does. A step may run again over files it has done already, since a crash can come between two of them.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

from perfnb.errors import BadRecording, NotPermitted
from perfnb.recording.manifest import read_manifest, write_manifest
from perfnb.recording.schema import SCHEMA_VERSION
from perfnb.recording.seal import abandoned, file_list, quoted
from perfnb.recording.views import listing


@dataclass(frozen=True)
class Step:
    """What leads from one schema version to the next: in words, and what it does to the recording's folder."""

    what: str
    run: Callable[[Path], None]


def columns_added(path: Path) -> None:
    """Do nothing: a column that a file lacks reads as null."""


STEPS: Mapping[int, Step] = {
    0: Step("recordings made before the first release: columns were added since", columns_added),
}


def upgrade(path: Path, *, steps: Mapping[int, Step] = STEPS, to: int = SCHEMA_VERSION) -> dict[str, Any]:
    """Run the steps that ``path`` still needs and return its new manifest.

    Raises BadRecording where a step is missing or somebody still writes, NotPermitted where the folder is read-only.
    """
    try:
        with _alone(path):
            manifest = read_manifest(path)  # another process may have upgraded meanwhile
            for version in range(manifest["schema"], to):
                _require(path, version, steps)
                steps[version].run(path)
                manifest["schema"] = version + 1
                write_manifest(path, manifest)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise NotPermitted(
            f"{path} must be upgraded but can't be written: {error.strerror}", hint="copy it and open the copy"
        ) from None
    return manifest


def renamed(table: str, old: str, new: str) -> Callable[[Path], None]:
    """Return the run of a step that renames a column in every file of ``table``."""

    def run(path: Path) -> None:
        sealed, live = listing(path / table)
        for parquet in sealed:
            _rename_in_parquet(parquet, old, new)
        for journal in live:
            _rename_in_journal(journal, old, new)

    return run


def _require(path: Path, version: int, steps: Mapping[int, Step]) -> None:
    if version not in steps:
        raise BadRecording(
            f"{path} has schema {version}, which this perfnb can't upgrade", hint="open it with the perfnb that made it"
        )
    writing = [journal for journal in path.glob("*/*.jsonl") if not abandoned(journal)]
    if writing:
        raise BadRecording(
            f"{path} has the older schema {version} and is still being written", hint="stop the recording, then open it"
        )


def _rename_in_parquet(parquet: Path, old: str, new: str) -> None:
    partial = parquet.with_suffix(".partial")
    with import_module("duckdb").connect() as connection:
        connection.execute(f"CREATE VIEW old AS FROM read_parquet([{file_list([parquet])}])")
        names = {name for name, *_ in connection.execute("DESCRIBE old").fetchall()}
        if old not in names or new in names:
            return
        connection.execute(
            f"COPY (SELECT * RENAME ({old} AS {new}) FROM old) TO {quoted(partial)} (FORMAT parquet, COMPRESSION zstd)"
        )
    partial.rename(parquet)


def _rename_in_journal(journal: Path, old: str, new: str) -> None:
    partial = journal.with_suffix(".partial")
    with journal.open("rb") as lines, partial.open("wb") as renamed_lines:
        renamed_lines.writelines(_renamed_line(line, old, new) for line in lines)
    partial.rename(journal)


def _renamed_line(line: bytes, old: str, new: str) -> bytes:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:  # a torn line stays torn, to be counted when it is sealed
        return line
    if not isinstance(row, dict):
        return line
    return orjson.dumps({new if name == old else name: value for name, value in row.items()}) + b"\n"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time upgrade."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
