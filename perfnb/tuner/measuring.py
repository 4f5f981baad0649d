"""Searches as they are made: each query at several settings in random order, so that noise hits all of them alike."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perfnb.tuner.engines.base import Engine, Filter, Question
from perfnb.tuner.recall import Truth, recall
from perfnb.tuner.setting import EXACT, Setting

BLOCK = 10
TIES = 20
"""Rows asked for beyond the k nearest, so that the truth knows what is tied with the last of them."""


class Ended(Exception):
    """The tuning is over before it is through; what was measured is kept."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class OverBudget(Exception):
    """As many searches were made as are allowed for choosing."""


@dataclass(frozen=True)
class Search:
    """One search: its recall (None where the query has no neighbours), time, and rows against those there are."""

    recall: float | None
    ms: float
    rows: int
    missing: bool


@dataclass
class Pace:
    """When to end: on request, after a time, or after a number of searches; counts what was made."""

    stop: threading.Event
    deadline: float = float("inf")
    tell: Callable[[str, int], None] = lambda text, searches: None
    clock: Callable[[], float] = time.monotonic
    searches: int = 0
    exact_searches: int = 0
    most: float = float("inf")

    def step(self, text: str, *, is_exact: bool = False) -> None:
        """Count a search that is about to be made; raises Ended or OverBudget where it may not be."""
        if self.stop.is_set():
            raise Ended("stopped on request")
        if self.clock() > self.deadline:
            raise Ended("the time given was over")
        if self.made >= self.most:
            raise OverBudget(self.most)
        self.searches += not is_exact
        self.exact_searches += is_exact
        self.tell(text, self.made)

    @property
    def made(self) -> int:
        """Return all searches made, exact ones too."""
        return self.searches + self.exact_searches


class Measuring:
    """Searches for one filter, none of them made twice; ``questions`` come in the order they are used."""

    def __init__(
        self, engine: Engine, questions: Sequence[Question], k: int, condition: Filter | None, pace: Pace, seed: int = 0
    ) -> None:
        self.made: dict[Setting, dict[int, Search]] = {}
        self.used: dict[Setting, str] = {}
        self._engine = engine
        self._questions = questions
        self._k = k
        self._condition = condition
        self._pace = pace
        self._random = random.Random(f"order {seed}")
        self._truths: dict[int, Truth] = {}
        described = engine.describe()
        self._by_distance = described.by_distance
        self._times_exact = not described.no_latency
        self._what = condition.title if condition else "all rows"

    @property
    def limit(self) -> int:
        """Return how many rows a search asks for: one more where the query is a row of the table."""
        return self._k + any(question.own is not None for question in self._questions)

    def uses(self, setting: Setting) -> str:
        """Return the index that searches with ``setting`` use; empty where the engine does not tell."""
        if setting not in self.used:
            self.used[setting] = self._engine.uses(self._questions[0].vector, self.limit, setting, self._condition)
        return self.used[setting]

    def warm_up(self, setting: Setting, numbers: Sequence[int]) -> None:
        """Search for these queries without keeping anything, so that caches are filled and plans are known."""
        for number in numbers:
            self._pace.step(f"{self._what}: warm-up")
            self._engine.search(self._questions[number].vector, self.limit, setting, self._condition)

    def recalls(self, setting: Setting, queries: int) -> list[float]:
        """Return the recall of each of the first ``queries`` queries that has neighbours; searches for those missing."""
        self.measure([setting], range(min(queries, len(self._questions))))
        made = self.made[setting]
        found = (made[number].recall for number in sorted(made) if number < queries)
        return [each for each in found if each is not None]

    def measure(self, settings: Sequence[Setting], numbers: Sequence[int]) -> None:
        """Search with each of ``settings`` for each of these queries, ten queries at a time, in random order."""
        for setting in settings:
            self.made.setdefault(setting, {})
        for start in range(0, len(numbers), BLOCK):
            block = numbers[start : start + BLOCK]
            pairs = [(each, at) for at in block for each in settings if not each.is_exact and at not in self.made[each]]
            self._random.shuffle(pairs)
            for number in block:  # scans of the whole table apart from searches: they empty the processor's caches
                self._truth(number)
            for setting, number in pairs:
                self._search(setting, number)

    def _search(self, setting: Setting, number: int) -> None:
        question = self._questions[number]
        self.uses(setting)
        self._pace.step(f"{self._what}: {setting}")
        found = self._engine.search(question.vector, self.limit, setting, self._condition)
        own, truth = found.without(question.own, self._k), self._truth(number)
        hit = recall(own, truth, by_distance=self._by_distance)
        rows = len(set(own.ids))
        self.made[setting][number] = Search(hit, found.server_ms or found.ms, rows, rows < truth.rows)

    def _truth(self, number: int) -> Truth:
        if number not in self._truths:
            question = self._questions[number]
            self._pace.step(f"{self._what}: exact answers", is_exact=True)
            found = self._engine.exact(question.vector, self.limit + TIES, self._condition)
            own = found.without(question.own, self._k + TIES)
            truth = self._truths[number] = Truth.of(own, self._k)
            if self._times_exact:
                search = Search(1.0 if truth.rows else None, found.server_ms or found.ms, truth.rows, False)
                self.made.setdefault(EXACT, {})[number] = search
        return self._truths[number]

    @property
    def neighbourless(self) -> int:
        """Return the queries that have no neighbour under the filter."""
        return sum(not truth.rows for truth in self._truths.values())
