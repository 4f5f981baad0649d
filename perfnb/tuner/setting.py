"""What is set for a search, and families of settings that differ in one number along which recall does not fall."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Within a power of ten: a step is a third to a half more work, about what recall tells apart with 200 queries."""


@dataclass(frozen=True)
class Setting:
    """One way to search: ``parameter`` at ``value``, and what is fixed beside it; an exact scan has neither."""

    family: str
    parameter: str | None = None
    value: int | None = None
    fixed: tuple[tuple[str, Any], ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """Return everything that is set, by its name in the engine."""
        own = {} if self.parameter is None else {self.parameter: self.value}
        return {**own, **dict(self.fixed)}

    @property
    def is_exact(self) -> bool:
        """Tell whether this is the exact scan, which uses no vector index."""
        return self.parameter is None

    def __str__(self) -> str:
        return ", ".join(f"{name} = {value}" for name, value in self.values.items()) or "no vector index (exact)"


EXACT = Setting("exact scan")


@dataclass(frozen=True)
class Family:
    """Settings that differ in ``parameter`` alone; ``values`` rise, and with them work and recall."""

    name: str
    parameter: str
    values: tuple[int, ...]
    fixed: tuple[tuple[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: int) -> Setting:
        return Setting(self.name, self.parameter, self.values[place], self.fixed)

    def settings(self) -> tuple[Setting, ...]:
        """Return all its settings, the cheapest first."""
        return tuple(self[place] for place in range(len(self)))


def ladder(low: int, high: int, extra: Iterable[int] = ()) -> tuple[int, ...]:
    """Return round numbers from ``low`` to ``high``, each a third to a half more than the one before, and ``extra``."""
    if high < low:
        return tuple(sorted(set(extra)))
    powers = range(math.floor(math.log10(max(1, low))), math.floor(math.log10(max(1, high))) + 1)
    round_ones = {round(step * 10**power) for power in powers for step in STEPS}
    kept = {value for value in round_ones if low <= value <= high}
    return tuple(sorted(kept | {high} | set(extra)))
