"""What the tuner asks of a vector store."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from perfnb.tuner.recall import Found
from perfnb.tuner.setting import Family, Setting

Vector = Sequence[float] | npt.NDArray[np.float32]
NO_INDEX = "no vector index"
SELECTIVITIES = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Description:
    """What is tuned, without anything of its content.

    Attributes:
        engine: Its name and version.
        name: Of the table and column, or the collection.
        rows: That it holds.
        unindexed: Rows that no vector index can hold, with the reason: null, or zero under cosine.
        distance: cosine, l2, inner product …
        index: Its kind (hnsw, ivfflat …); None where there is none.
        build: What the index was built with.
        index_rows: Rows that the index held when they were last counted.
        now: The search setting in effect.
        by_distance: The engine's distances can be compared with exact ones.
        no_latency: Why latency can't be measured here; empty where it can.
        notes: What else a reader should know.
    """

    engine: str
    name: str
    rows: int
    dimensions: int
    distance: str
    index: str | None = None
    unindexed: Mapping[str, int] = field(default_factory=dict)
    build: Mapping[str, int] = field(default_factory=dict)
    index_rows: int | None = None
    now: Mapping[str, Any] = field(default_factory=dict)
    by_distance: bool = True
    no_latency: str = ""
    round_trip_ms: float | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "notes": list(self.notes)}


@dataclass(frozen=True)
class Filter:
    """A condition that rows must meet; ``title`` holds no value of the user's, ``condition`` is the engine's own."""

    title: str
    condition: Any
    rows: int
    total: int

    @property
    def selectivity(self) -> float:
        """Return which part of the rows meets it."""
        return self.rows / self.total if self.total else 0.0

    def titled(self, title: str) -> "Filter":
        """Return it under another title."""
        return replace(self, title=title)


@dataclass(frozen=True)
class Question:
    """A query vector; ``own`` is its row where it was taken from the table."""

    vector: Vector
    own: Hashable | None = None


class Engine(Protocol):
    """A table or collection that can be searched with a setting, and exactly."""

    def describe(self) -> Description:
        """Return what is tuned."""

    def families(self, limit: int, condition: Filter | None) -> tuple[Family, ...]:
        """Return what can be set for searches of ``limit`` rows; none where no index would be used."""

    def current(self, limit: int) -> Setting | None:
        """Return the setting in effect now."""

    def sample(self, number: int, seed: int) -> list[Question]:
        """Return rows drawn at random, to ask for their neighbours."""

    def exact(self, vector: Vector, limit: int, condition: Filter | None) -> Found:
        """Return the true nearest rows; raises WrongUse where that can't be sure."""

    def search(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> Found:
        """Return what a search with ``setting`` gives."""

    def uses(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> str:
        """Return the index that such a search uses; empty where the engine does not tell."""

    def filtered(self, condition: Any) -> Filter:
        """Return a condition of the user's with the rows that meet it."""

    def filters(self, column: str, selectivities: Sequence[float]) -> list[Filter]:
        """Return conditions on ``column`` that about these parts of the rows meet, as far as its values allow."""


def timed(search: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[Any, float]:
    """Return what ``search`` gives, and the milliseconds it took."""
    began = clock()
    found = search()
    return found, (clock() - began) * 1000


def values_for(counts: Mapping[Any, int], total: int, part: float, *, within: float = 1.5) -> tuple[Any, ...]:
    """Return values of a column that together about ``part`` of ``total`` rows hold: one if one does, else several.

    Empty where none come within a factor of ``within``.
    """
    wanted = part * total
    if not counts or wanted < 1:
        return ()
    nearest = min(counts, key=lambda value: abs(np.log(counts[value] / wanted)))
    if wanted / within <= counts[nearest] <= wanted * within:
        return (nearest,)
    chosen, rows = [], 0
    for value in sorted(counts, key=lambda each: counts[each], reverse=True):
        if rows + counts[value] <= wanted * within:
            chosen.append(value)
            rows += counts[value]
        if rows >= wanted / within:
            return tuple(chosen)
    return ()


def as_percent(part: float) -> str:
    """Return ``part`` as people write it: 10 %, 0.1 %."""
    return f"{float(f'{part * 100:.2g}'):g} %"
