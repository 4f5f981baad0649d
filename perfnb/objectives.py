"""Objectives: the thresholds findings are judged by, each with the seeds it comes from, all editable."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Self

from perfnb.errors import WrongUse
from perfnb.finding import Severity


@dataclass(frozen=True)
class Said:
    """What one seed says about an objective."""

    seed: str
    value: Any
    note: str = ""


@dataclass(frozen=True)
class Objective:
    """One threshold: ``better`` tells which side of ``value`` is good, ``acceptable`` is a second, laxer bound."""

    name: str
    value: Any
    unit: str
    better: str
    kind: str
    meaning: str
    said: tuple[Said, ...]
    id: str = ""
    acceptable: float | None = None
    overridden: bool = False

    def miss(self, actual: float) -> float:
        """Return how many times the objective is missed: 1 just meets it, 2 is twice as bad."""
        worse, good = (actual, float(self.value)) if self.better == "lower" else (float(self.value), actual)
        return worse / good if good else float("inf")

    def is_missed(self, actual: float) -> bool:
        """Tell whether ``actual`` is on the bad side."""
        return bool(actual > self.value if self.better == "lower" else actual < self.value)


class Objectives(Mapping[str, Objective]):
    """All objectives by name; ``objectives.value("llm_call_ms")`` is the number."""

    def __init__(self, objectives: Mapping[str, Objective]) -> None:
        self._objectives = dict(objectives)

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        """Return the defaults with the ``[objectives]`` of ``folder/perfnb.toml`` over them."""
        from perfnb.target import SETTINGS, read_settings

        loaded = dict(_defaults())
        for name, value in read_settings((folder or Path.cwd()) / SETTINGS).get("objectives", {}).items():
            if name not in loaded:
                raise WrongUse(f"{SETTINGS}: no objective {name!r}", hint="perfnb objectives lists them")
            if isinstance(value, bool) or not isinstance(value, type(loaded[name].value) | int | float):
                raise WrongUse(f"{SETTINGS}: objective {name} is {value!r}", hint=f"give it in {loaded[name].unit}")
            loaded[name] = replace(loaded[name], value=value, overridden=True)
        return cls(loaded)

    def value(self, name: str) -> float:
        """Return the threshold of ``name`` as a number."""
        return float(self._objectives[name].value)

    def __getitem__(self, name: str) -> Objective:
        return self._objectives[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._objectives)

    def __len__(self) -> int:
        return len(self._objectives)


def severity(miss: float, share: float) -> Severity:
    """Return how severe a finding is: by how many times the objective is missed, capped by the share it explains.

    What explains under 10 % of the symptom is never more than low, under 25 % never more than medium.
    """
    level: Severity = "critical" if miss > 5 else "high" if miss > 2 else "medium" if miss > 1 else "low"
    if share < 0.10:
        return "low"
    if share < 0.25 and level != "low":
        return "medium"
    return level


@cache
def _defaults() -> Mapping[str, Objective]:
    text = resources.files("perfnb").joinpath("objectives.toml").read_text()
    return {
        name: Objective(name, **{**entry, "said": tuple(Said(**one) for one in entry["said"])})
        for name, entry in tomllib.loads(text).items()
    }
