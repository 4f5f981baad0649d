from pathlib import Path
from typing import Any

import pytest
from builders import Row, recording
from traffic_rows import answer, bounds, effect, message, priced

from perfnb.errors import NotMeasured
from perfnb.estimates import predict

SMALL = 1000 * 1e-6 + 100 * 4e-6


@pytest.mark.parametrize(("max_input_tokens", "moved"), [(1000, True), (5000, True), (999, False)])
def test_short_prompts_by_hand(tmp_path: Path, max_input_tokens: int, moved: bool) -> None:
    calls = [answer(number) for number in range(4)]
    found = predict(priced(tmp_path, calls), "route", max_input_tokens=max_input_tokens)
    usd = effect(found, "request_usd")
    expected = SMALL if moved else 0.014
    assert (usd.low, usd.high) == (pytest.approx(expected), pytest.approx(expected))
    assert (found.setting["from_model"], found.setting["to"]) == ("big", "small")


def test_the_other_models_cache_may_be_cold(tmp_path: Path) -> None:
    calls = [answer(number, cache_read_tokens=500) for number in range(4)]
    _, low, high = bounds(tmp_path, "route", calls, "request_usd", max_input_tokens=1000)
    assert low == pytest.approx(500 * 1e-6 + 500 * 0.5e-6 + 100 * 4e-6)
    assert high == pytest.approx(SMALL)


def test_the_wait_is_told_only_where_the_other_model_was_seen(tmp_path: Path) -> None:
    calls = [answer(number) for number in range(20)]
    alone = predict(priced(tmp_path, calls, name="alone"), "route", max_input_tokens=1000)
    assert alone.effect("request_duration_ms") is None
    assert any("nothing is said about the wait" in each for each in alone.assumptions)
    small: Row = {"request_model": "small", "response_model": "small", "duration_ms": 400.0, "first_token_ms": 100.0}
    both = [*calls, *(answer(number + 0.5, **small) for number in range(12))]
    found = predict(priced(tmp_path, both, name="both"), "route", max_input_tokens=1000)
    wait = effect(found, "request_duration_ms")
    assert wait.before == 1100
    assert wait.low == pytest.approx(500)  # 100 around, 100 to the first token, 300 for the rest


def test_a_function_chooses(tmp_path: Path) -> None:
    calls = [answer(number, output_tokens=100 + number) for number in range(4)]

    def terse(call: Any) -> str | None:
        return "small" if call["output_tokens"] < 102 else None

    found = predict(priced(tmp_path, calls), "route", choose=terse)
    assert found.examined.startswith("2 of 4 calls")
    assert found.as_dict()["setting"]["choose"] == "terse"


TEXTS = ("What is a refund?", "Summarise this contract.", "why " * 20 + "?")


def test_short_questions_go_to_the_small_model(tmp_path: Path) -> None:
    calls = [
        answer(number, messages=[message("user", f"q{number}", 10, text=text)]) for number, text in enumerate(TEXTS)
    ]
    made = priced(tmp_path, calls, content="full")
    assert predict(made, "route", rule="short question").examined.startswith("1 of 3 calls")


def test_short_questions_need_texts(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured) as missing:
        predict(priced(tmp_path, [answer(0)]), "route", rule="short question")
    assert "--content full" in missing.value.hint


def test_a_model_without_a_price_is_no_saving(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="price"):
        predict(priced(tmp_path, [answer(0)]), "route", to="house-model", max_input_tokens=1000)


def test_a_model_without_cheaper_siblings_asks_for_a_name(tmp_path: Path) -> None:
    made = recording(tmp_path, calls=[answer(0, request_model="house", response_model="house")])
    with pytest.raises(NotMeasured) as missing:
        predict(made, "route")
    assert "to=" in missing.value.hint
