"""How sure a recall is: intervals for the mean over queries and for the worst of them.

The mean's is Wilson's interval with the number of queries made effective: queries whose recall varies little tell more
than a coin's throw each, and those that are all alike no more than that.

Source: E. B. Wilson (1927); E. L. Korn and B. I. Graubard (1998), intervals for proportions with few positive counts
from surveys; B. Efron (1979), the bootstrap
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE_Z = 1.96
WORST_PART = 0.05
RESAMPLES = 1000
ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def mean(recalls: Sequence[float], z: float = CONFIDENCE_Z) -> Estimate:
    """Return the mean of ``recalls``, at least one, with the interval that ``z`` standard errors give."""
    values = np.asarray(recalls, float)
    found = float(values.mean())
    low, high = wilson(found, effective(recalls), z)
    return Estimate(found, min(low, found), max(high, found))


def reaches(recalls: Sequence[float], target: float) -> bool:
    """Tell whether the mean of ``recalls`` is at least ``target``, rounding aside; none reach nothing."""
    return bool(recalls) and math.fsum(recalls) / len(recalls) >= target - ROUNDING


def effective(recalls: Sequence[float]) -> float:
    """Return how many independent yes-or-no answers tell as much as these recalls."""
    values = np.asarray(recalls, float)
    number, found = len(values), float(values.mean())
    variance = float(values.var(ddof=1)) if number > 1 else 0.0
    if variance <= 0:
        return float(number)
    return max(float(number), number * found * (1 - found) / variance)


def wilson(part: float, number: float, z: float) -> tuple[float, float]:
    """Return Wilson's interval of a ``part`` seen in ``number`` answers."""
    spread = z * z / number
    middle = (part + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(part * (1 - part) / number + z * z / (4 * number * number))
    return max(0.0, middle - half), min(1.0, middle + half)


def worst(recalls: Sequence[float], *, part: float = WORST_PART, seed: int = 0) -> Estimate:
    """Return the mean recall of the worst ``part`` of the queries, one at least, with its bootstrap interval."""
    values = np.asarray(recalls, float)
    drawn = np.random.default_rng(seed).choice(values, size=(RESAMPLES, len(values)))
    low, high = np.quantile(_lowest(drawn, part), (0.025, 0.975))
    found = float(_lowest(values[None, :], part)[0])
    return Estimate(found, min(float(low), found), max(float(high), found))


def _lowest(rows: "np.typing.NDArray[np.float64]", part: float) -> "np.typing.NDArray[np.float64]":
    number = max(1, math.ceil(part * rows.shape[1]))
    lowest: np.typing.NDArray[np.float64] = np.sort(rows, axis=1)[:, :number].mean(axis=1)
    return lowest


def least_queries(target: float, z: float) -> int:
    """Return how many queries, each of them perfect, it takes to be sure of a mean recall of ``target``."""
    if target >= 1:
        return 2**31
    return math.ceil(z * z * target / (1 - target))
