"""An engine in memory whose recall and latency at each setting are known: for what the tuner makes of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perfnb.tuner import Description, Family, Filter, Question, Setting
from perfnb.tuner.engines.base import NO_INDEX, Vector
from perfnb.tuner.recall import Found
from perfnb.tuner.setting import ladder

ROWS = 5000


@dataclass
class KnownEngine:
    """Answers with the right rows by chance: ``recall_at(ef)`` of them; a search takes ``ms_at(ef)``, a scan ``exact_ms``."""

    recall_at: Callable[[int], float]
    ms_at: Callable[[int], float] = lambda ef: ef / 100
    exact_ms: float = 10.0
    values: tuple[int, ...] = ladder(10, 1000)
    unused_from: int = 10**9
    no_latency: str = ""
    before_search: Callable[[int], None] = lambda number: None
    searched: list[Setting] = field(default_factory=list)

    def describe(self) -> Description:
        return Description(
            "known 1", "docs.embedding", ROWS, 2, "cosine", "hnsw index", no_latency=self.no_latency, now={}
        )

    def families(self, limit: int, condition: Filter | None) -> tuple[Family, ...]:
        return (Family("hnsw", "ef", self.values),) if self.values else ()

    def current(self, limit: int) -> Setting | None:
        return None

    def sample(self, number: int, seed: int) -> list[Question]:
        return [Question([float(at), 0.0], own=10_000 + at) for at in range(number)]

    def exact(self, vector: Vector, limit: int, condition: Filter | None) -> Found:
        rows = limit if condition is None else min(limit, condition.rows)
        return Found(list(range(rows)), [float(at) for at in range(rows)], self.exact_ms)

    def search(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> Found:
        self.before_search(len(self.searched))
        self.searched.append(setting)
        ef = int(setting.value or 0)
        rng = np.random.default_rng([int(vector[0]), ef])
        right = rng.random(limit) < self.recall_at(ef)
        rows = [at if is_right else 1000 + at for at, is_right in enumerate(right)]
        return Found(rows, [float(at) for at in rows], self.ms_at(ef))

    def uses(self, vector: Vector, limit: int, setting: Setting, condition: Filter | None) -> str:
        return NO_INDEX if (setting.value or 0) >= self.unused_from else "index"

    def filtered(self, condition: Any) -> Filter:
        return Filter(f"a filter ({condition})", condition, int(condition), ROWS)

    def filters(self, column: str, selectivities: Sequence[float]) -> list[Filter]:
        return [Filter(f"{column} on {part * 100:g} %", "", int(part * ROWS), ROWS) for part in selectivities]


def asked(number: int = 400) -> list[list[float]]:
    return [[float(at), 1.0] for at in range(number)]


def rising(half: float) -> Callable[[int], float]:
    """Return a recall that is one half at ``half`` and nears 1 beyond."""
    return lambda ef: 1 / (1 + (half / ef) ** 2)
