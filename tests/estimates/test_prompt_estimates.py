from pathlib import Path
from typing import Any

import pytest
from builders import Row
from traffic_rows import answer, bounds, effect, message, priced

from perfnb.errors import NotMeasured
from perfnb.estimates import predict

USD = 0.014  # of a call as it is: 1,000 tokens in, 100 out


def usd_of(input_tokens: float, read: float = 0) -> float:
    return (input_tokens - read) * 10e-6 + read * 1e-6 + 100 * 40e-6


def talk(count: int, **columns: Any) -> list[Row]:
    """Return calls with a system prompt of 100, four messages of 50 and a question of 700 tokens."""
    history = [message(role, f"h{n}", 50) for n, role in enumerate(("user", "assistant", "user", "assistant"))]
    return [
        answer(
            number,
            messages=[message("system", "s", 100), *history, message("user", f"q{number}", 700)],
            history_messages=4,
            history_tokens=200,
            **columns,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("messages", "left"),
    [(10, 1000), (4, 1000), (3, 900), (2, 900), (1, 800), (0, 800)],  # what stays begins with a user's message
)
def test_history_by_hand(tmp_path: Path, messages: int, left: int) -> None:
    made = priced(tmp_path, talk(5))
    found = predict(made, "history_trim", messages=messages)
    tokens, usd = effect(found, "input_tokens"), effect(found, "request_usd")
    assert (tokens.before, tokens.low, tokens.high) == (1000, left, left)
    assert (usd.low, usd.high) == (pytest.approx(usd_of(left)), pytest.approx(usd_of(left)))
    wait = effect(found, "request_duration_ms")
    assert wait.high == wait.before == 1100  # five calls can't tell how fast the model reads: perhaps at once …
    assert wait.low == pytest.approx(1100 - 300 * (1000 - left) / 1000)  # … perhaps all of the wait is reading


def test_a_cut_may_lose_what_the_providers_cache_read(tmp_path: Path) -> None:
    calls = talk(5, input_tokens=3000, cache_read_tokens=2048)
    before, low, high = bounds(tmp_path, "history_trim", calls, "request_usd", messages=2)
    assert before == pytest.approx(usd_of(3000, 2048))
    assert low == pytest.approx(usd_of(2900, 2048))  # read as before
    assert high == pytest.approx(usd_of(2900, 0))  # 100 tokens before the cut are too few to be kept
    assert high > before


def with_passages(text: str | None = None, **more: Any) -> list[Row]:
    kept = message("user", "q", 1000, passages=10, passage_tokens=500, **({"text": text} if text else {}) | more)
    return [answer(number, messages=[kept], passages=10, passage_tokens=500) for number in range(5)]


@pytest.mark.parametrize(
    ("setting", "left"),
    [({"passages": 10}, 1000), ({"passages": 4}, 700), ({"passages": 1}, 550), ({"passages": 9, "max_tokens": 120}, 600),
     ({"passages": 9, "max_tokens": 10}, 550)],
)  # fmt: skip
def test_passages_by_hand(tmp_path: Path, setting: dict[str, int], left: int) -> None:
    assert bounds(tmp_path, "context_trim", with_passages(), "input_tokens", **setting) == (1000, left, left)


def test_without_texts_passages_have_the_sizes_that_were_noted(tmp_path: Path) -> None:
    calls = with_passages(tokens_of_passages=[160, 120, *([40] * 8)])  # of 600; 500 by the provider's count
    assert bounds(tmp_path, "context_trim", calls, "input_tokens", passages=2) == (
        1000,
        *[pytest.approx(1000 - 500 * 320 / 600)] * 2,
    )


def test_with_texts_passages_have_their_own_lengths(tmp_path: Path) -> None:
    blocks = [f"[{n}] ".ljust(length, "x") for n, length in ((1, 100), (2, 300), (3, 600))]
    kept = message("user", "q", 1000, passages=3, passage_tokens=500, text="\n".join(blocks))
    calls = [answer(number, messages=[kept], passages=3, passage_tokens=500) for number in range(3)]
    made = priced(tmp_path, calls, content="full")
    tokens = effect(predict(made, "context_trim", passages=2), "input_tokens")
    assert (tokens.low, tokens.high) == (pytest.approx(700), pytest.approx(700))


@pytest.mark.parametrize(
    ("setting", "left"),
    [({"tokens": 200}, 600), ({"tokens": 600}, 1000), ({"tokens": 5000}, 1000), ({"replace": "x" * 400}, 500)],
)
def test_system_prompt_by_hand(tmp_path: Path, setting: dict[str, Any], left: int) -> None:
    calls = [
        answer(number, system_tokens=600, passages=0, passage_tokens=0, messages=[message("system", "s", 600)])
        for number in range(4)
    ]
    assert bounds(tmp_path, "system_prompt", calls, "input_tokens", **setting) == (1000, left, left)


def test_passages_in_a_system_message_are_no_instructions(tmp_path: Path) -> None:
    kept = [message("system", "s", 600, passages=4, passage_tokens=500)]
    calls = [answer(number, system_tokens=600, messages=kept) for number in range(4)]
    assert bounds(tmp_path, "system_prompt", calls, "input_tokens", tokens=100) == (1000, 1000, 1000)


def with_tools(number: int, called: str | None = None, **columns: Any) -> Row:
    given: Row = {
        "attributes": {"tools": ["search", "book", "refund", "weather"]},
        "tools_offered": 4,
        "tool_schema_tokens": 400,
        "tool_calls": [{"name": called}] if called else [],
    }
    return answer(number, **(given | columns))


def test_tools_by_hand(tmp_path: Path) -> None:
    """One tool of four is called; its schema may be half as large or twice as large as another's."""
    made = priced(tmp_path, [with_tools(number, "search") for number in range(4)])
    found = predict(made, "tool_subset")
    tokens = effect(found, "input_tokens")
    assert found.setting["names"] == ["search"]
    assert "book, refund, weather" in found.examined
    assert (tokens.low, tokens.high) == (pytest.approx(600 + 400 / 7), pytest.approx(600 + 400 * 0.4))


def test_tools_that_are_all_called_stay(tmp_path: Path) -> None:
    calls = [with_tools(number, name) for number, name in enumerate(("search", "book", "refund", "weather"))]
    assert bounds(tmp_path, "tool_subset", calls, "input_tokens") == (1000, 1000, 1000)


def test_without_tools_or_messages_it_is_not_measured(tmp_path: Path) -> None:
    made = priced(tmp_path, [answer(0, passages=None, history_messages=None)])
    for name in ("tool_subset", "context_trim", "history_trim", "system_prompt", "prefix_cache"):
        with pytest.raises(NotMeasured) as missing:
            predict(made, name)
        assert missing.value.hint


def clocked(number: int, **columns: Any) -> Row:
    """Return a call whose prompt begins with the time, before 2,000 tokens that never change."""
    parts = [message("user", f"t{number}", 20), message("system", "s", 2000), message("user", f"q{number}", 500)]
    return answer(number, input_tokens=2520, messages=parts, **columns)


def test_prefix_cache_by_hand(tmp_path: Path) -> None:
    """Of 2,000 unchanging tokens 1,920 are read, in steps of 128; of the first prompt none."""
    made = priced(tmp_path, [clocked(number) for number in range(10)])
    usd = effect(predict(made, "prefix_cache"), "request_usd")
    first, later = usd_of(2520), usd_of(2520, 1920)
    assert usd.before == pytest.approx(first)
    assert usd.low == pytest.approx(later)  # a sample without the first prompt
    assert usd.high >= (first + 9 * later) / 10
    assert usd.high < 0.7 * first


@pytest.mark.parametrize(
    "calls",
    [
        [clocked(number, cache_read_tokens=2048) for number in range(5)],  # the provider reads more already
        [answer(number, messages=[message("user", f"q{number}", 1000)]) for number in range(5)],  # nothing is shared
        [answer(n, input_tokens=990, messages=[message("system", "s", 900), message("user", f"q{n}", 90)]) for n in range(5)],
    ],
)  # fmt: skip
def test_prefix_cache_has_nothing_to_give(tmp_path: Path, calls: list[Row]) -> None:
    before, low, high = bounds(tmp_path, "prefix_cache", calls, "request_usd")
    assert before == low == high


@pytest.mark.parametrize(
    ("passage_tokens", "read"),
    [(0, 2944), (500, 2944), (2000, 1920)],  # three quarters of 4,000 in steps of 128, and never what passages hold
)
def test_a_first_message_that_changes_in_places_shares_what_its_sketch_says(
    tmp_path: Path, passage_tokens: int, read: int
) -> None:
    shared = [*range(1, 24), 10_000]
    calls = [
        answer(
            number,
            input_tokens=4500,
            messages=[
                message(
                    "system",
                    f"s{number}",
                    4000,
                    sketch=sorted([*shared, *range(100 + 8 * number, 108 + 8 * number)]),
                    passage_tokens=passage_tokens,
                ),
                message("user", f"q{number}", 500),
            ],
        )
        for number in range(10)
    ]
    usd = effect(predict(priced(tmp_path, calls), "prefix_cache"), "request_usd")
    assert usd.low == pytest.approx(usd_of(4500, read))
