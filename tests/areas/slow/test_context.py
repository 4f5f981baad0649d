from pathlib import Path

import pytest
from builders import Row, answer, call, recording

from perfnb.areas.slow.context import ASSUMED_MS_PER_TOKEN, reading_speed
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding

PER_TOKEN = 0.1


def sized(at_ms: float, tokens: int, **columns: object) -> Row:
    """Return a call whose first token comes 100 ms and a tenth of a millisecond per fresh input token later."""
    fresh = tokens - int(columns.get("cache_read_tokens", 0))  # type: ignore[call-overload]
    first = 100 + PER_TOKEN * fresh
    return call(at_ms, first + 500, first_token_ms=first, input_tokens=tokens, **columns)


def rows(*sizes: int, times: int = 6, **columns: object) -> list[Row]:
    return [sized(number * 5000, size, **columns) for number, size in enumerate(sizes * times)]


@pytest.mark.parametrize(
    ("cause", "calls", "found"),
    [
        ("large-context", rows(9000, 10000, 11000), True),
        ("large-context", rows(700, 800, 900), False),
        ("large-context", rows(2000, 2000, 2000), False),  # on the budget
        ("large-context", rows(2100, 2200, 2300), False),  # over it, but not worth it
        ("large-context", rows(9000, 10000, 11000, cache_read_tokens=8900), False),  # the provider's cache read it
        ("large-context", rows(500, 12000), False),  # swings: another cause
        ("varying-context", rows(500, 3000, 7000, 12000), True),
        ("varying-context", rows(9000, 10000, 11000), False),
        ("varying-context", rows(400, 1900), False),  # swings within the budget
        ("too-many-documents", rows(6000, passages=25, passage_tokens=5000), True),
        ("too-many-documents", rows(6000, passages=10, passage_tokens=5000), False),
        ("too-many-documents", rows(6000, passages=5, passage_tokens=5000), False),
        ("too-many-documents", rows(900, passages=12, passage_tokens=200), False),  # many, but tiny
        ("long-history", rows(8000, history_messages=44, history_tokens=7000), True),
        ("long-history", rows(8000, history_messages=10, history_tokens=7000), False),
        ("long-history", rows(8000, history_messages=44, history_tokens=500), False),
        ("long-history", rows(600, history_messages=12, history_tokens=300), False),
    ],
)
def test_context_checks(tmp_path: Path, cause: str, calls: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, cause, calls=calls), Finding) is found


def test_each_surplus_token_is_blamed_once(tmp_path: Path) -> None:
    calls = rows(8000, passages=30, passage_tokens=7000)
    assert isinstance(answer(tmp_path / "a", "too-many-documents", calls=calls), Finding)
    assert isinstance(answer(tmp_path / "b", "large-context", calls=calls), Clear)


def test_reading_speed_is_measured_where_sizes_differ(tmp_path: Path) -> None:
    speed = reading_speed(recording(tmp_path, calls=rows(500, 2000, 4000, 8000)))
    assert speed.is_measured
    assert speed.ms_per_token == pytest.approx(PER_TOKEN, rel=0.01)


def test_reading_speed_is_assumed_and_says_so_where_sizes_are_alike(tmp_path: Path) -> None:
    speed = reading_speed(recording(tmp_path, calls=rows(800, 810)))
    assert not speed.is_measured
    assert speed.ms_per_token == ASSUMED_MS_PER_TOKEN
    assert "assumed" in str(speed)


@pytest.mark.parametrize("cause", ["large-context", "varying-context", "long-history", "too-many-documents"])
def test_without_usage_nothing_is_claimed(tmp_path: Path, cause: str) -> None:
    calls = [call(number * 2000, input_tokens=None, output_tokens=None) for number in range(5)]
    with pytest.raises(NotMeasured):
        answer(tmp_path, cause, calls=calls)
