"""Write numbered rows into a recording's samples and acknowledge each batch on standard output once it is written."""

import sys
from itertools import count
from pathlib import Path

from perfnb.recording import Writer


def main(directory: str, seal_at_bytes: str, batch: str) -> None:
    writer = Writer(Path(directory), seal_at_bytes=int(seal_at_bytes))
    for first in count(0, int(batch)):
        numbers = range(first, first + int(batch))
        writer.write("samples", [{"time": n + 1, "metric": "n", "value": n, "attributes": {"n": n}} for n in numbers])
        sys.stdout.write(f"{numbers[-1]}\n")
        sys.stdout.flush()


main(*sys.argv[1:])
