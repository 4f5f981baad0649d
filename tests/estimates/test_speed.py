import random
from pathlib import Path

import pytest
from traffic_rows import answer, priced

from perfnb.estimates.speed import Speeds, speeds
from perfnb.estimates.traffic import traffic


def fitted(folder: Path, *, count: int, per_input_ms: float, slow: int = 0, same_size: bool = False) -> Speeds:
    dice = random.Random(7)
    calls = []
    for number in range(count):
        size = 1000 if same_size else dice.randrange(200, 4000)
        first = 100 + per_input_ms * size * dice.lognormvariate(0, 0.05)
        first = first * 10 if number < slow else first
        calls.append(answer(number, input_tokens=size, time_to_first_token_ms=first, duration_ms=first + 700))
    return speeds(traffic(priced(folder, calls)))


@pytest.mark.parametrize(("per_input_ms", "slow"), [(0.2, 0), (0.2, 4), (0.05, 0)])
def test_reading_speed_is_found_though_some_calls_are_slow(tmp_path: Path, per_input_ms: float, slow: int) -> None:
    low, high = fitted(tmp_path, count=40, per_input_ms=per_input_ms, slow=slow).fits["big", True].slope("input")
    assert 0.8 * per_input_ms < low < high < 1.2 * per_input_ms


def test_calls_of_one_size_tell_nothing(tmp_path: Path) -> None:
    fit = fitted(tmp_path, count=40, per_input_ms=0.2, same_size=True).fits["big", True]
    assert fit.slope("input") == (0, float("inf"))


def test_few_calls_carry_no_fit(tmp_path: Path) -> None:
    found = fitted(tmp_path, count=11, per_input_ms=0.2)
    assert found.fits == {}
    assert found.paces == {}


def test_answers_in_one_piece_tell_reading_and_writing_apart(tmp_path: Path) -> None:
    dice = random.Random(3)
    calls = []
    for number in range(60):
        size, said = dice.randrange(200, 4000), dice.randrange(20, 400)
        took = (100 + 0.2 * size + 6 * said) * dice.lognormvariate(0, 0.02)
        calls.append(answer(number, input_tokens=size, output_tokens=said, stream=False, duration_ms=took))
    fit = speeds(traffic(priced(tmp_path, calls))).fits["big", False]
    for column, true in (("input", 0.2), ("output", 6.0)):
        low, high = fit.slope(column)
        assert 0.9 * true < low < high < 1.1 * true
