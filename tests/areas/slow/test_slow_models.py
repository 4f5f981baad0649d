"""Models that write slowly, and models that are late to begin."""

from pathlib import Path
from typing import Any

import pytest
from builders import Row, answer, call, recording

from perfnb.areas.slow.models import speed_by_model
from perfnb.finding import Clear, Finding


def speed(tokens_per_s: float, count: int = 12, **columns: Any) -> list[Row]:
    ms = 200 + 80 / tokens_per_s * 1000
    return [call(number * 10_000, ms, first_token_ms=200, **columns) for number in range(count)]


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        (speed(10), True),
        (speed(19), True),
        (speed(21), False),
        (speed(80), False),
        (speed(10, count=2), False),
        (speed(10, reasoning_tokens=60), False),  # deep reasoning, not a slow model
        ([call(n * 10_000, 8000, stream=False, output_tokens=80) for n in range(6)], True),
    ],
)
def test_slow_model(tmp_path: Path, calls: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "slow-model", calls=calls), Finding) is found


def late(first_ms: float, count: int = 12, **columns: Any) -> list[Row]:
    return [
        call(number * 10_000, first_ms + 1000, **({"first_token_ms": first_ms} | columns)) for number in range(count)
    ]


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        (late(2000), True),
        (late(1500), True),
        (late(1400), False),
        (late(2000, count=4), False),
        (late(2000, source="span", trace_id="t"), False),  # seen in the app, which may have been late to look
        (late(2000, input_tokens=4001), False),  # a long prompt takes its time
        (late(2000, reasoning_tokens=30), False),
        (late(2000, time_to_first_byte_ms=1950, processing_ms=300), False),  # the way there
        (late(2000, connect_ms=900), False),
        (late(2000, stream=False), False),
        (late(2000, 6) + late(300, 6), False),  # some are in time: it is not the model
    ],
)
def test_late_to_begin(tmp_path: Path, calls: list[Row], found: bool) -> None:
    said = answer(tmp_path, "slow-model", calls=calls)
    assert isinstance(said, Finding) is found
    if isinstance(said, Finding):
        assert "begins to answer after" in said.title


def test_a_model_that_was_quick_before_is_not_slow_by_itself(tmp_path: Path) -> None:
    calls = [call(n * 3000, 800 * (12 if n >= 18 else 1)) for n in range(40)]
    assert isinstance(answer(tmp_path / "a", "provider-slow", calls=calls), Finding)
    assert isinstance(answer(tmp_path / "b", "slow-model", calls=calls), Clear)


def test_speed_by_model_has_a_row_per_model(tmp_path: Path) -> None:
    frame = speed_by_model(recording(tmp_path, calls=[*speed(50), *speed(10, request_model="slow-one")]))
    assert dict(zip(frame["model"], frame["output_tokens_per_s"].round(), strict=True)) == pytest.approx(
        {"gpt-5-mini": 50, "slow-one": 10}, abs=1
    )
