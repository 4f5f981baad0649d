from pathlib import Path
from typing import Any

import pytest
from builders import Row, call, failed_call, request
from traffic_rows import GAP_MS, answer, bounds, effect, message, priced

from perfnb.errors import NotMeasured
from perfnb.estimates import predict


def test_output_cap_by_hand(tmp_path: Path) -> None:
    """40 of 100 tokens: 0.16 of 0.4 cents, and 60 of the 99 pauses between tokens, which took 700 ms."""
    found = predict(priced(tmp_path, [answer(number) for number in range(5)]), "output_cap", max_tokens=40)
    usd, wait = effect(found, "request_usd"), effect(found, "request_duration_ms")
    first, tokens = effect(found, "time_to_first_token_ms"), effect(found, "output_tokens")
    assert (usd.low, usd.high) == (pytest.approx(0.0116), pytest.approx(0.0116))
    assert (wait.low, wait.high) == (pytest.approx(1100 - 700 * 60 / 99), pytest.approx(1100 - 700 * 60 / 99))
    assert first.before == first.low == first.high
    assert (tokens.before, tokens.low, tokens.high) == (100, 40, 40)


@pytest.mark.parametrize("max_tokens", [100, 101, 100_000])
def test_a_cap_above_every_length_changes_nothing(tmp_path: Path, max_tokens: int) -> None:
    calls = [answer(number, output_tokens=10 + 9 * number) for number in range(11)]
    for one in predict(priced(tmp_path, calls), "output_cap", max_tokens=max_tokens).effects:
        assert [one.low, one.high] == [pytest.approx(one.before)] * 2, one.metric


def test_a_cap_that_reasoning_uses_up_is_told(tmp_path: Path) -> None:
    calls = [answer(number, reasoning_tokens=80) for number in range(5)]
    found = predict(priced(tmp_path, calls), "output_cap", max_tokens=50)
    assert "5 would end before they say anything" in found.examined
    wait = effect(found, "request_duration_ms")
    assert wait.high == pytest.approx(1100 - 700)  # all visible tokens go; thinking may have been quick …
    assert wait.low == pytest.approx(1100 - 700 - 300 * 30 / 80)  # … or most of the wait


def test_failed_and_cached_answers_stay_as_they_are(tmp_path: Path) -> None:
    calls = [answer(0), answer(1, answered_by="cache"), failed_call(2 * GAP_MS, 1000, request_model="big")]
    before, low, high = bounds(tmp_path, "output_cap", calls, "output_tokens", max_tokens=50)
    assert before == pytest.approx(200 / 3)
    assert low <= 150 / 3 <= high


def in_one_piece(count: int, **columns: Any) -> tuple[list[Row], list[Row]]:
    calls = [answer(number, **({"stream": False} | columns)) for number in range(count)]
    return calls, [request(number * GAP_MS - 50, 1100, stream=False) for number in range(count)]


def test_streaming_by_the_pace_of_other_streams(tmp_path: Path) -> None:
    """The model's streams, seen outside of requests, write 100 tokens in 700 ms: the first is there after 300."""
    calls, requests = in_one_piece(5)
    calls += [answer(number + 0.5) for number in range(12)]
    first = effect(predict(priced(tmp_path, calls, requests), "streaming"), "time_to_first_token_ms")
    assert (first.before, first.low, first.high) == (1100, pytest.approx(400), pytest.approx(400))


def test_streaming_that_cannot_be_fitted_is_a_wide_range(tmp_path: Path) -> None:
    made = priced(tmp_path, *in_one_piece(5))
    found = predict(made, "streaming")
    first, total = effect(found, "time_to_first_token_ms"), effect(found, "request_duration_ms")
    assert (first.low, first.high) == (pytest.approx(1100 - 990), 1100)
    assert total.before == total.low == total.high
    assert any("can't tell" in each for each in found.assumptions)


def test_answers_that_the_app_holds_back_could_be_shown(tmp_path: Path) -> None:
    calls, requests = in_one_piece(4, stream=True, first_token_ms=300.0)
    found = predict(priced(tmp_path, calls, requests), "streaming")
    first = effect(found, "time_to_first_token_ms")
    assert (first.low, first.high) == (pytest.approx(400), pytest.approx(400))
    assert "4 were held back by the app" in found.examined


def test_streams_have_nothing_to_gain(tmp_path: Path) -> None:
    before, low, high = bounds(tmp_path, "streaming", [answer(n) for n in range(4)], "time_to_first_token_ms")
    assert before == low == high


def sections(*, limit_needs: bool = False, pause_ms: float = 0) -> tuple[list[Row], list[Row]]:
    """Return three requests of three calls one after another; each begins with the question's digest of its own."""
    calls, requests = [], []
    for number in range(3):
        start = number * GAP_MS
        requests.append(request(start - 50, 3100 + 2 * pause_ms))
        for part in range(3):
            said = [number * 100 + part * 10 + shingle for shingle in range(8)]
            before = [number * 100 + (part - 1) * 10 + shingle for shingle in range(8)] if limit_needs and part else []
            calls.append(
                call(
                    start + part * (1000 + pause_ms), 1000, first_token_ms=300.0, request_model="big", response_model="big",
                    messages=[message("user", f"{number}{part}", 700, sketch=before)], response_sketch=said,
                )
            )  # fmt: skip
    return calls, requests


@pytest.mark.parametrize(("limit", "left"), [(10, 1100), (3, 1100), (2, 2100), (1, 3100)])
def test_parallel_calls_by_hand(tmp_path: Path, limit: int, left: int) -> None:
    found = predict(priced(tmp_path, *sections()), "parallel_calls", limit=limit)
    wait, usd = effect(found, "request_duration_ms"), effect(found, "request_usd")
    assert wait.before == 3100
    assert (wait.low, wait.high) == (pytest.approx(left), pytest.approx(left))
    assert usd.before == usd.low == usd.high


def test_answers_that_quote_a_passage_of_every_prompt_need_nothing_of_each_other(tmp_path: Path) -> None:
    calls, requests = sections()
    shared = list(range(8))
    for row in calls:
        row["messages"] = [message("system", "passages", 500, sketch=shared), *row["messages"]]
        row["response_sketch"] = shared
    found = predict(priced(tmp_path, calls, requests), "parallel_calls")
    assert found.examined.startswith("3 of 3")


def test_calls_that_need_the_answer_before_stay_in_order(tmp_path: Path) -> None:
    found = predict(priced(tmp_path, *sections(limit_needs=True)), "parallel_calls")
    wait = effect(found, "request_duration_ms")
    assert wait.before == wait.low == wait.high
    assert found.examined.startswith("0 of 3")


def test_calls_with_pauses_between_are_less_sure(tmp_path: Path) -> None:
    wait = effect(predict(priced(tmp_path, *sections(pause_ms=200)), "parallel_calls"), "request_duration_ms")
    # two of three calls of 1000 ms go away, and with them two thirds of the two pauses of 200 ms
    assert (wait.low, wait.high) == (pytest.approx(3500 - 2000 - 400 * 2 / 3), 3500)


def test_calls_whose_prompts_are_unknown_stay_in_order(tmp_path: Path) -> None:
    calls, requests = sections()
    for row in calls[3:]:
        row["messages"] = None
    wait = effect(predict(priced(tmp_path, calls, requests), "parallel_calls"), "request_duration_ms")
    assert wait.high == 3100


def test_batch_tier_by_hand(tmp_path: Path) -> None:
    """Four of seven calls run outside requests: half the price of these surely, of all of the kind perhaps."""
    calls = [answer(number) for number in range(7)]
    requests = [request(number * GAP_MS - 50, 1100) for number in range(3)]
    found = predict(priced(tmp_path, calls, requests), "batch_tier")
    usd = effect(found, "request_usd")
    assert usd.before == pytest.approx(7 * 0.014 / 3)
    assert usd.low == pytest.approx(usd.before / 2)
    assert usd.high >= (3 * 0.014 + 4 * 0.007) / 3
    assert found.effect("request_duration_ms") is None


def test_batch_tier_leaves_users_requests_alone(tmp_path: Path) -> None:
    before, low, high = bounds(tmp_path, "batch_tier", [answer(number) for number in range(5)], "request_usd")
    assert before == low == high


def test_batch_tier_needs_requests(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="requests"):
        predict(priced(tmp_path, [answer(0)], []), "batch_tier")
