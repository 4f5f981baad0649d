"""Recall of a search against the exact answer; ties and duplicates count as hits whichever of them came back.

Source: ANN-benchmarks (Aumüller, Bernhardsson, Faithfull 2020): a hit is what is no farther than the k-th true neighbour
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

RELATIVE_TOLERANCE = 1e-5  # of 32-bit floats, summed in another order
ABSOLUTE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Found:
    """What a search gave, nearest first; less distance is nearer.

    Attributes:
        ids: Of the rows.
        distances: Of the rows, as the engine tells them.
        ms: How long it took, seen from here.
        server_ms: How long the engine says that it took, where it does.
    """

    ids: Sequence[Hashable]
    distances: Sequence[float]
    ms: float
    server_ms: float | None = None

    def without(self, own: Hashable | None, k: int) -> "Found":
        """Return the nearest ``k`` rows that are not the query itself."""
        kept = [at for at, each in enumerate(self.ids) if own is None or each != own][:k]
        ids, distances = [self.ids[at] for at in kept], [self.distances[at] for at in kept]
        return Found(ids, distances, self.ms, self.server_ms)


@dataclass(frozen=True)
class Truth:
    """The exact answer to one query: its ``k`` nearest rows, or all there are, and those as near as the last of them."""

    ids: frozenset[Hashable]
    farthest: float
    rows: int

    @classmethod
    def of(cls, exact: Found, k: int) -> "Truth":
        """Return the truth in ``exact``, which may hold more than ``k`` rows: that tells ties."""
        rows = min(k, len(exact.ids))
        if not rows:
            return cls(frozenset(), float("-inf"), 0)
        farthest = sorted(exact.distances)[rows - 1]
        near = (
            each for each, distance in zip(exact.ids, exact.distances, strict=True) if is_within(distance, farthest)
        )
        return cls(frozenset(near), farthest, rows)


def is_within(distance: float, farthest: float) -> bool:
    """Tell whether ``distance`` is at most ``farthest``, rounding aside."""
    return distance <= farthest + max(ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE * abs(farthest))


def recall(found: Found, truth: Truth, *, by_distance: bool = True) -> float | None:
    """Return the part of the true neighbours' places that ``found`` filled, 0 to 1; None where there is no neighbour.

    ``by_distance`` takes the engine's distances at their word, so that rows tied with the last neighbour count; without
    it (compressed vectors have distances of their own) only rows that the truth names do.
    """
    if not truth.rows:
        return None
    hits = {
        each
        for each, distance in zip(found.ids, found.distances, strict=True)
        if each in truth.ids or (by_distance and is_within(distance, truth.farthest))
    }
    return min(len(hits), truth.rows) / truth.rows
