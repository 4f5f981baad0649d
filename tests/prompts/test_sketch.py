import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.prompts.sketch import SKETCH_SIZE, Sketcher, containment, similarity, words

KEY = b"k" * 32
SKETCHER = Sketcher(KEY)


def text_of(count: int, *, seed: int = 1) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(10**6)}" for _ in range(count))


@pytest.mark.parametrize("count", [1, 3, 4, 40, 2000])
def test_a_text_is_like_itself(count: int) -> None:
    sketch = SKETCHER.sketch(text_of(count))
    assert similarity(sketch, sketch) == containment(sketch, sketch) == 1
    assert sketch == sorted(set(sketch))
    assert len(sketch) == min(SKETCH_SIZE, max(1, count - 3))


@pytest.mark.parametrize(
    ("shared", "own", "low", "high"),
    [(500, 0, 1, 1), (500, 500, 0.15, 0.55), (50, 950, 0, 0.2), (0, 500, 0, 0)],
)
def test_similarity_follows_the_shared_text(shared: int, own: int, low: float, high: float) -> None:
    common = text_of(shared, seed=2)
    a = SKETCHER.sketch(f"{common} {text_of(own, seed=3)}")
    b = SKETCHER.sketch(f"{common} {text_of(own, seed=4)}")
    assert low <= similarity(a, b) <= high
    assert similarity(a, b) == similarity(b, a)


def test_a_part_is_contained_in_the_whole_and_not_the_other_way_round() -> None:
    part, whole = text_of(300), text_of(300) + " " + text_of(900, seed=5)
    a, b = SKETCHER.sketch(part), SKETCHER.sketch(whole)
    assert containment(a, b) == 1
    assert containment(b, a) < 0.6


def test_short_texts_are_compared_exactly() -> None:
    a, b = SKETCHER.sketch("one two three four five"), SKETCHER.sketch("one two three four six")
    assert similarity(a, b) == pytest.approx(1 / 3)


def test_case_and_punctuation_do_not_matter_but_order_does() -> None:
    assert SKETCHER.sketch("Open the File, please!") == SKETCHER.sketch("open the file please")
    assert SKETCHER.sketch("open the file please") != SKETCHER.sketch("please open the file")


def test_text_without_spaces_has_more_than_one_shingle() -> None:
    assert len(SKETCHER.sketch("連接池保持一定數量的連接")) == 9


def test_nothing_can_be_told_without_the_key() -> None:
    assert not {*SKETCHER.sketch(text_of(100))} & {*Sketcher(b"another").sketch(text_of(100))}


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=80))
def test_words_are_the_same_on_the_fast_way(text: str) -> None:
    assert words(text) == words(text + " é")[:-1]


@given(st.text(max_size=300), st.text(max_size=300))
def test_takes_any_text(a: str, b: str) -> None:
    x, y = SKETCHER.sketch(a), SKETCHER.sketch(b)
    assert 0 <= similarity(x, y) <= 1
    assert 0 <= containment(x, y) <= 1
    assert json.loads(json.dumps(x)) == x
    assert all(0 <= value < 2**48 for value in x)
