"""Find the cheapest value of a family that surely reaches a target, with few queries: scout, then prove.

Scouting halves the ladder by the mean of a few queries. Proving looks at a setting after 25, 50, 100 … queries and stops
as soon as its interval leaves the target out, or as soon as more queries could not. From where the scout points it goes
down while that proves enough, up while it does not.

Source: sequential analysis (A. Wald 1945), with the looks planned and their error shared (Bonferroni); racing (O. Maron
and A. W. Moore 1994)
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from perfnb.tuner.intervals import effective, least_queries, mean, reaches, wilson
from perfnb.tuner.setting import Family, Setting

LOOK_Z = 2.24
"""Standard errors at a look: one-sided, four looks that err at most 1.25 % each keep to 5 % together."""
HOPE_Z = 1.0
FIRST_LOOK = 25

Verdict = Literal["meets", "falls short", "open"]


class Measures(Protocol):
    """Something that gives the recalls of a setting on the first queries."""

    def __call__(self, setting: Setting, queries: int) -> Sequence[float]:
        """Return the recall of each of the first ``queries`` queries, as far as they have neighbours."""


def looks(most: int) -> tuple[int, ...]:
    """Return after how many queries one looks: 25, 50, 100 … up to ``most``."""
    found, each = [], FIRST_LOOK
    while each < most:
        found.append(each)
        each *= 2
    return (*found, most)


def judged(recalls: Sequence[float], target: float, *, z: float = LOOK_Z) -> Verdict:
    """Return whether ``recalls`` tell that the mean is at least ``target``, or below it.

    Enough is only what as many queries tell as would prove it were each a yes or no: among fewer, the rare query that
    finds nothing has not been met yet.
    """
    if not recalls:
        return "open"
    found = mean(recalls, z)
    if found.low >= target and can_prove(target, len(recalls)):
        return "meets"
    return "falls short" if found.high < target else "open"


def can_prove(target: float, queries: int) -> bool:
    """Tell whether that many queries can be enough: each of them perfect, they would prove it."""
    return queries >= least_queries(target, LOOK_Z)


def is_hopeless(recalls: Sequence[float], target: float, most: int, *, z: float = LOOK_Z) -> bool:
    """Tell whether ``most`` queries would not prove it either, even if the mean were a standard error better than seen."""
    hoped = mean(recalls, HOPE_Z).high
    if hoped >= 1:
        return not can_prove(target, most)
    return wilson(hoped, effective(recalls) * most / len(recalls), z)[0] < target


def prove(setting: Setting, target: float, measure: Measures, most: int) -> Verdict:
    """Return whether ``setting`` reaches ``target``, from as few of ``most`` queries as tell it.

    Where ``most`` are too few to prove anything, the mean over all of them is taken for the truth.
    """
    if not can_prove(target, most):
        return "meets" if reaches(measure(setting, most), target) else "falls short"
    for number in looks(most):
        recalls = measure(setting, number)
        verdict = judged(recalls, target)
        if verdict != "open":
            return verdict
        if number >= 2 * FIRST_LOOK and recalls and is_hopeless(recalls, target, most):
            return "open"
    return "open"


def scout(family: Family, target: float, measure: Measures, queries: int = FIRST_LOOK) -> int:
    """Return the place of the least value whose mean over a few queries reaches ``target``; the length if none does."""
    low, high = 0, len(family)
    while low < high:
        middle = (low + high) // 2
        if reaches(measure(family[middle], queries), target):
            high = middle
        else:
            low = middle + 1
    return low


def cheapest(
    family: Family, target: float, measure: Measures, most: int, tell: Callable[[Setting, Verdict], None] | None = None
) -> tuple[int, dict[int, Verdict]]:
    """Return the place of the least value that is proven to reach ``target`` (the length if none), and all verdicts."""
    verdicts: dict[int, Verdict] = {}

    def verdict(place: int) -> Verdict:
        if place not in verdicts:
            verdicts[place] = prove(family[place], target, measure, most)
            if tell:
                tell(family[place], verdicts[place])
        return verdicts[place]

    place = scout(family, target, measure)
    while place < len(family) and verdict(place) != "meets":
        place += 1
    while place > 0 and place < len(family) and verdict(place - 1) == "meets":
        place -= 1
    return place, verdicts
