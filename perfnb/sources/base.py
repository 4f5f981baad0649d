"""What every source has in common: it tells whether it can work here, starts, writes rows, counts, and stops."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from perfnb.recording.journal import Row

Emit = Callable[[str, Iterable[Row]], int]
"""Writes rows into a table: ``emit("spans", rows)``; what :meth:`perfnb.recording.Writer.write` is."""


@dataclass(frozen=True)
class Readiness:
    """Whether a source can work here: what was found, and what each missing thing needs (one line)."""

    source: str
    works: bool
    found: str
    needs: str = ""


class Source(Protocol):
    """One kind of evidence. Entering starts it; leaving stops it and writes what is left.

    A source never takes the target down with it: what fails inside is counted under ``errors`` and told on the timeline.
    """

    name: str

    def probe(self) -> Readiness:
        """Tell whether this source can work here, without changing anything."""

    def __enter__(self) -> Self:
        """Start; raises NotReachable, NotPermitted or NotInstalled with the one thing to do."""

    def __exit__(self, *_: object) -> None:
        """Stop within a few seconds, whatever happened."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Return what was seen so far: rows by what they are, ``dropped``, ``errors``."""
