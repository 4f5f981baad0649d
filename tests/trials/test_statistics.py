import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.trials.statistics import (
    compare,
    holm,
    interval,
    log_ratios,
    p_of_t,
    pairs_needed,
    sign_flip,
    smoothed_rate,
)

LOGS = st.lists(st.floats(-1, 1), min_size=3, max_size=30)


def around(mean: float, spread: float, count: int) -> list[float]:
    """Return ``count`` values with exactly this mean, spread evenly."""
    return [mean + spread * each for each in np.linspace(-1, 1, count)]


def test_log_ratios_leave_out_what_was_not_measured() -> None:
    assert log_ratios([(1, math.e), (None, 2), (3, None), (0, 1), (2, 2)]) == pytest.approx([1, 0])


@pytest.mark.parametrize(("failed", "of", "rate"), [(0, 50, 0.01), (1, 50, 0.03), (50, 50, 1.01)])
def test_an_error_rate_has_a_logarithm(failed: int, of: int, rate: float) -> None:
    assert smoothed_rate(failed, of) == pytest.approx(rate)


def test_interval_and_p_are_those_of_the_textbook() -> None:
    sleep = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]  # Student's own pairs (1908): t = 4.06, p = 0.0028
    assert interval(sleep, 0.05) == pytest.approx((0.70, 2.46), abs=0.005)
    assert p_of_t(sleep) == pytest.approx(0.0028, abs=0.0001)


@pytest.mark.parametrize(("d", "p"), [([1, 1, 1], 2 / 8), ([1, 2, 3, 4, 5, 6], 2 / 64), ([1, -1], 1), ([0, 0, 0], 1)])
def test_sign_flip_is_exact_for_few_pairs(d: list[float], p: float) -> None:
    assert sign_flip(d) == p


def test_sign_flip_of_many_pairs_is_sampled_and_repeatable() -> None:
    assert sign_flip([1.0] * 13) == pytest.approx(2**-12, abs=0.002)
    d = around(0.02, 0.2, 20)
    assert sign_flip(d) == sign_flip(d)
    assert sign_flip(d) == pytest.approx(p_of_t(d), abs=0.05)


@given(LOGS)
def test_sign_flip_knows_no_direction_and_no_unit(d: list[float]) -> None:
    assert sign_flip(d) == sign_flip([-each for each in d])
    assert 0 < sign_flip(d) <= 1


@given(LOGS)
def test_a_verdict_never_contradicts_its_interval(d: list[float]) -> None:
    found = compare(d, alpha=0.01, margin=0.03)
    assert found.low <= found.ratio * (1 + 1e-9)
    assert found.ratio <= found.high * (1 + 1e-9)
    assert (found.verdict == "better") <= (found.high < 1 and found.ratio < 1 / 1.03)
    assert (found.verdict == "worse") <= (found.low > 1 and found.ratio > 1.03)
    assert (found.verdict == "no practical change") <= (0.97 < found.ratio < 1.03)
    assert (found.more_pairs is None) | (found.verdict == "undecided")


@pytest.mark.parametrize(
    ("d", "verdict"),
    [
        (around(math.log(0.8), 0.05, 8), "better"),
        (around(math.log(1.25), 0.05, 8), "worse"),
        (around(0.0, 0.01, 8), "no practical change"),
        (around(0.01, 0.01, 8), "no practical change"),
        (around(math.log(0.99), 0.2, 8), "undecided"),
        (around(math.log(0.975), 0.03, 10), "undecided"),  # surely faster, but is it 3 %?
        (around(math.log(0.96), 0.03, 10), "better"),
        ([math.log(0.5)] * 6, "better"),
        ([0.0] * 6, "no practical change"),
        ([math.log(0.5)] * 5 + [3.0], "undecided"),  # one outlier
    ],
)
def test_three_verdicts_and_undecided(d: list[float], verdict: str) -> None:
    assert compare(d, alpha=0.01, margin=0.03).verdict == verdict


def test_undecided_says_how_many_pairs_more() -> None:
    near, far = (compare(around(math.log(0.9), spread, 6), alpha=0.01, margin=0.03) for spread in (0.15, 0.4))
    assert near.verdict == far.verdict == "undecided"
    assert near.more_pairs is not None
    assert far.more_pairs is not None
    assert 0 < near.more_pairs < far.more_pairs
    assert compare(around(math.log1p(0.029999), 0.5, 6), alpha=0.01, margin=0.03).more_pairs is None


@pytest.mark.parametrize(
    ("sd", "effect", "pairs"),
    [
        (0.05, 0.05, 10), (0.05, 0.10, 5), (0.10, 0.05, 32), (0.10, 0.10, 10), (0.10, 0.20, 4),
        (0.17, 0.05, 89), (0.17, 0.10, 23), (0.17, 0.20, 7),
    ],
)  # fmt: skip
def test_how_many_pairs_an_effect_needs(sd: float, effect: float, pairs: int) -> None:
    assert pairs_needed(effect, sd, alpha=0.05) == pairs


def test_more_pairs_for_more_certainty_and_none_within_the_margin() -> None:
    assert pairs_needed(0.1, 0.1) > pairs_needed(0.1, 0.1, alpha=0.05)  # type: ignore[operator]
    assert pairs_needed(0.02, 0.1, margin=0.03) is None
    assert pairs_needed(0.001, 1.0) is None
    assert pairs_needed(0.1, 0.0) == 2


def test_the_pairs_needed_do_find_it_as_often_as_promised() -> None:
    rng = np.random.default_rng(5)
    needed = pairs_needed(0.1, 0.08, alpha=0.05)
    found = [p_of_t(rng.normal(math.log(0.9), 0.08, needed)) < 0.05 for _ in range(2000)]
    assert 0.77 < np.mean(found) < 0.88


def test_holm() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({}) == {}
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_never_makes_anything_surer_and_keeps_the_order(p_values: dict[str, float]) -> None:
    corrected = holm(p_values)
    assert all(corrected[name] >= p for name, p in p_values.items())
    for one, other in itertools.combinations(p_values, 2):
        if p_values[one] < p_values[other]:
            assert corrected[one] <= corrected[other]
