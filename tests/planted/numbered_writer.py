"""Write a number of rows into a recording's samples, in batches, and stop: one of several writers."""

import sys
from pathlib import Path

from perfnb.recording import Writer


def main(directory: str, name: str, rows: str, batch: str, seal_at_bytes: str) -> None:
    with Writer(Path(directory), seal_at_bytes=int(seal_at_bytes)) as writer:
        for first in range(0, int(rows), int(batch)):
            numbers = range(first, first + int(batch))
            writer.write("samples", [{"time": n + 1, "entity": name, "metric": "n", "value": n} for n in numbers])


main(*sys.argv[1:])
