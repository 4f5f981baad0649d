"""Intervals of a mean recall and of its worst queries: they hold the truth as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.tuner.intervals import effective, least_queries, mean, wilson, worst

RECALLS = st.lists(st.integers(0, 10).map(lambda hits: hits / 10), min_size=2, max_size=300)


@given(RECALLS)
def test_an_interval_holds_its_value_and_stays_between_0_and_1(recalls: list[float]) -> None:
    for each in (mean(recalls), worst(recalls)):
        assert 0 <= each.low <= each.value <= each.high <= 1
    assert worst(recalls).value <= mean(recalls).value + 1e-9


@given(RECALLS)
def test_more_standard_errors_are_wider(recalls: list[float]) -> None:
    narrow, wide = mean(recalls, 1.0), mean(recalls, 3.0)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


@pytest.mark.parametrize("queries", [25, 100, 400])
def test_perfect_queries_tell_no_more_than_their_number(queries: int) -> None:
    assert effective([1.0] * queries) == queries
    low, high = wilson(1.0, queries, 1.96)
    assert mean([1.0] * queries).low == pytest.approx(low)
    assert high == pytest.approx(1.0)


def test_queries_that_vary_little_tell_more_than_coins() -> None:
    even = [0.9] * 50 + [1.0] * 50
    assert effective(even) > 100
    assert mean(even).low > wilson(0.95, 100, 1.96)[0]


@pytest.mark.parametrize(("rate", "queries"), [(0.95, 100), (0.95, 25), (0.8, 50), (0.99, 200)])
def test_the_interval_covers_the_truth_at_least_nearly_as_often_as_it_says(rate: float, queries: int) -> None:
    """Recalls of 10 neighbours whose difficulty differs from query to query, as it does in tables."""
    rng = np.random.default_rng(3)
    spread = rng.beta(8 * rate, 8 * (1 - rate), size=(1500, queries))
    recalls = rng.binomial(10, spread) / 10
    covered = [found.low <= rate <= found.high for found in (mean(list(each)) for each in recalls)]
    assert np.mean(covered) > 0.92


def test_the_worst_are_a_twentieth_and_at_least_one() -> None:
    assert worst([0.0] + [1.0] * 9).value == 0.0
    assert worst([0.0] * 5 + [1.0] * 95).value == 0.0
    assert worst([0.0] * 4 + [1.0] * 96).value == pytest.approx(0.2)


@pytest.mark.parametrize("target", [0.5, 0.9, 0.95, 0.99])
def test_the_least_number_of_perfect_queries_just_proves_it(target: float) -> None:
    number = least_queries(target, 2.24)
    assert mean([1.0] * number, 2.24).low >= target - 1e-9
    assert mean([1.0] * (number - 1), 2.24).low < target


def test_certainty_takes_more_queries_than_there_are() -> None:
    assert least_queries(1.0, 1.96) > 1_000_000
