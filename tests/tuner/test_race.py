"""The search for the cheapest setting: it ends at the threshold, errs seldom, and takes few queries."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.tuner.race import cheapest, is_hopeless, judged, looks, prove, scout
from perfnb.tuner.setting import Family, Setting, ladder

FAMILY = Family("hnsw", "ef", ladder(10, 1000))


class Simulated:
    """Recall of 10 neighbours that rises along the ladder; ``difficulty`` is where it is one half."""

    def __init__(self, difficulty: float, *, seed: int = 0, most: int = 200, family: Family = FAMILY) -> None:
        rng = np.random.default_rng(seed)
        self.asked: dict[int, int] = {}
        self.rates = {value: 1 / (1 + (difficulty / value) ** 2.5) for value in family.values}
        hardness = rng.normal(0, 0.5, most)
        luck = rng.random((most, 10))
        odds = np.array([rate / (1 - rate) for rate in self.rates.values()])[:, None] * np.exp(hardness)
        hits = luck[None, :, :] < (odds / (1 + odds))[:, :, None]
        self.made: dict[int, list[float]] = dict(zip(self.rates, hits.mean(axis=2).tolist(), strict=True))

    def __call__(self, setting: Setting, queries: int) -> Sequence[float]:
        assert setting.value is not None
        self.asked[setting.value] = max(queries, self.asked.get(setting.value, 0))
        return self.made[setting.value][:queries]

    @property
    def searches(self) -> int:
        return sum(self.asked.values())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30).map(sorted), st.floats(0.01, 0.99))
def test_scouting_finds_the_first_value_that_reaches_the_target(means: list[float], target: float) -> None:
    family = Family("any", "ef", tuple(range(1, len(means) + 1)))
    place = scout(family, target, lambda setting, queries: [means[(setting.value or 0) - 1]] * queries)
    assert place == next((at for at, each in enumerate(means) if each >= target), len(means))


@given(st.floats(3, 600), st.integers(0, 1000))
def test_what_is_picked_was_proven_and_what_is_below_was_not(difficulty: float, seed: int) -> None:
    measure = Simulated(difficulty, seed=seed)
    place, verdicts = cheapest(FAMILY, 0.95, measure, 200)
    if place < len(FAMILY):
        assert verdicts[place] == "meets"
        assert place == 0 or verdicts[place - 1] != "meets"
    assert all(verdict != "meets" for at, verdict in verdicts.items() if at < place)


def test_picks_reach_the_target_nearly_always_with_a_third_of_the_grid_or_less() -> None:
    wrong, parts = 0, []
    difficulties = np.exp(np.random.default_rng(1).uniform(np.log(5), np.log(200), 300))
    for seed, difficulty in enumerate(difficulties):
        measure = Simulated(difficulty, seed=seed)
        place, _ = cheapest(FAMILY, 0.95, measure, 200)
        true = float(
            np.mean(
                Simulated(difficulty, seed=seed + 10_000, most=2000).made[FAMILY.values[min(place, len(FAMILY) - 1)]]
            )
        )
        wrong += place < len(FAMILY) and true < 0.945
        parts.append(measure.searches / (200 * len(FAMILY)))
    assert wrong <= 0.05 * len(difficulties)
    assert np.mean(parts) < 0.25
    assert np.quantile(parts, 0.95) < 1 / 3


@pytest.mark.parametrize(
    ("recalls", "verdict"),
    [
        ([1.0] * 200, "meets"),
        ([1.0] * 25, "open"),  # too few to be sure
        ([0.5] * 10 + [0.6] * 10, "falls short"),
        ([0.9, 1.0] * 100, "open"),  # right at the target
        ([], "open"),
    ],
)
def test_a_verdict_needs_queries_enough(recalls: list[float], verdict: str) -> None:
    assert judged(recalls, 0.95) == verdict


def test_looks_double_up_to_the_most() -> None:
    assert looks(200) == (25, 50, 100, 200)
    assert looks(30) == (25, 30)
    assert looks(10) == (10,)


def test_proving_stops_where_more_queries_could_not_tell() -> None:
    recalls = [0.9, 1.0] * 100
    asked = []

    def measure(setting: Setting, queries: int) -> Sequence[float]:
        asked.append(queries)
        return recalls[:queries]

    assert is_hopeless(recalls[:50], 0.95, 200)
    assert prove(FAMILY[0], 0.95, measure, 200) == "open"
    assert max(asked) == 50


def test_too_few_queries_to_prove_anything_decide_by_their_mean() -> None:
    assert prove(FAMILY[0], 0.95, lambda setting, queries: [1.0] * queries, 20) == "meets"
    assert prove(FAMILY[0], 0.95, lambda setting, queries: [0.9] * queries, 20) == "falls short"


def test_none_that_is_enough_is_told_by_the_length() -> None:
    place, verdicts = cheapest(FAMILY, 0.95, lambda setting, queries: [0.5, 0.6] * (queries // 2), 200)
    assert place == len(FAMILY)
    assert "meets" not in verdicts.values()


@given(st.integers(1, 500), st.integers(1, 3000), st.lists(st.integers(1, 3000), max_size=3))
def test_a_ladder_rises_and_holds_its_ends(low: int, high: int, extra: list[int]) -> None:
    found = ladder(low, high, extra)
    assert list(found) == sorted(set(found))
    assert set(extra) <= set(found)
    steps = ladder(low, high)
    if low <= high:
        assert steps[-1] == high
        assert steps[0] >= low
        assert all(after <= 2 * before for before, after in pairwise(steps) if before > 1)
