"""Recall against the exact answer: ties, duplicates, the query itself, too few rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.tuner.recall import Found, Truth, recall


def found(*pairs: tuple[str, float]) -> Found:
    return Found([row for row, _ in pairs], [distance for _, distance in pairs], 1.0)


EXACT = found(("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.3), ("e", 0.5))


@pytest.mark.parametrize(
    ("given_rows", "expected"),
    [
        ([("a", 0.1), ("b", 0.2), ("c", 0.3)], 1.0),
        ([("a", 0.1), ("b", 0.2), ("d", 0.3)], 1.0),  # tied with the third
        ([("a", 0.1), ("b", 0.2), ("unknown", 0.3)], 1.0),  # tied, and beyond what the truth listed
        ([("a", 0.1), ("b", 0.2), ("e", 0.5)], 2 / 3),
        ([("a", 0.1), ("a", 0.1), ("a", 0.1)], 1 / 3),  # the same row thrice is one row
        ([("a", 0.1)], 1 / 3),  # fewer rows than asked for
        ([], 0.0),
    ],
)
def test_a_hit_is_no_farther_than_the_last_true_neighbour(given_rows: list[tuple[str, float]], expected: float) -> None:
    assert recall(found(*given_rows), Truth.of(EXACT, 3)) == pytest.approx(expected)


def test_without_comparable_distances_only_known_rows_count() -> None:
    truth = Truth.of(EXACT, 3)
    compressed = found(("a", 90.0), ("d", 91.0), ("unknown", 0.0))
    assert recall(compressed, truth, by_distance=False) == pytest.approx(2 / 3)


def test_fewer_rows_than_k_are_the_whole_truth() -> None:
    truth = Truth.of(found(("a", 0.1)), 10)
    assert truth.rows == 1
    assert recall(found(("a", 0.1)), truth) == 1.0
    assert recall(found(), Truth.of(found(), 10)) is None


def test_the_query_itself_is_left_out() -> None:
    assert list(EXACT.without("a", 2).ids) == ["b", "c"]
    assert list(EXACT.without(None, 2).ids) == ["a", "b"]
    assert list(EXACT.without("not among them", 5).ids) == ["a", "b", "c", "d", "e"]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 12), st.randoms(use_true_random=False))
def test_any_order_of_ties_is_perfect(values: list[int], k: int, random: "np.random.Generator") -> None:
    rows = [(str(at), float(value)) for at, value in enumerate(values)]
    truth = Truth.of(found(*sorted(rows, key=lambda row: row[1])), k)
    random.shuffle(rows)
    nearest = sorted(rows, key=lambda row: row[1])[:k]
    assert recall(found(*nearest), truth) == 1.0


@given(st.integers(1, 10), st.integers(0, 10))
def test_recall_is_the_part_that_came_back(k: int, hits: int) -> None:
    hits = min(k, hits)
    truth = Truth.of(found(*((str(at), float(at)) for at in range(30))), k)
    came = [(str(at), float(at)) for at in range(hits)] + [(str(at), float(at)) for at in range(20, 20 + k - hits)]
    assert recall(found(*came), truth) == pytest.approx(hits / k)
