from pathlib import Path

import pytest
from builders import Row, answer, call, every, recording, request

from perfnb.areas.slow import streaming
from perfnb.attribution import requests
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding


def streamed(at_ms: float) -> list[Row]:
    return [request(at_ms, 1100), call(at_ms + 50, 1000)]


def unstreamed(at_ms: float, ms: float = 3000, tokens: int = 200) -> list[Row]:
    return [request(at_ms, ms + 100, stream=False), call(at_ms + 50, ms, stream=False, output_tokens=tokens)]


def held_back(at_ms: float) -> list[Row]:
    return [request(at_ms, 3100, stream=False), call(at_ms + 50, 3000, first_token_ms=300)]


def split(rows: list[Row]) -> dict[str, list[Row]]:
    return {
        "calls": [row for row in rows if "call_id" in row],
        "requests": [row for row in rows if "call_id" not in row],
    }


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (every(5000, 10, unstreamed), True),
        (every(5000, 10, held_back), True),
        (every(5000, 10, streamed), False),
        (every(5000, 2, unstreamed), False),  # two cases prove nothing
        (every(5000, 10, lambda at: unstreamed(at, ms=900)), False),  # quick enough in one piece
        (every(5000, 10, lambda at: unstreamed(at, tokens=10)), False),  # nothing to read while it is written
        (every(5000, 10, lambda at: [*streamed(at), *streamed(at + 2000)]) + unstreamed(60000), False),
    ],
)
def test_no_streaming(tmp_path: Path, rows: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "no-streaming", **split(rows)), Finding) is found


def test_a_call_for_tools_is_not_an_answer(tmp_path: Path) -> None:
    rows = every(5000, 10, lambda at: [request(at, 3100), call(at, 3000, stream=False, finish_reason="tool_calls")])
    assert isinstance(answer(tmp_path, "no-streaming", **split(rows)), Clear)


def test_the_share_is_what_the_user_waited_blind(tmp_path: Path) -> None:
    rows = every(5000, 10, lambda at: [request(at, 3000, stream=False), call(at, 3000, first_token_ms=600)])
    finding = answer(tmp_path, "no-streaming", **split(rows))
    assert isinstance(finding, Finding)
    assert finding.share == pytest.approx(0.8, abs=0.001)
    assert finding.estimate is not None
    assert finding.estimate.low == pytest.approx(600, abs=1)


def test_calls_that_do_not_tell_are_not_judged(tmp_path: Path) -> None:
    rows = every(5000, 5, lambda at: [request(at, 3000), call(at, 2900, stream=None)])
    with pytest.raises(NotMeasured, match="streamed"):
        answer(tmp_path, "no-streaming", **split(rows))


@pytest.mark.parametrize(
    ("byte_ms", "content_ms", "count", "found"),
    [(50, 2500, 10, True), (50, 1040, 10, False), (50, 1100, 10, True), (2000, 2500, 10, False), (50, 2500, 2, False)],
)
def test_late_first_content(tmp_path: Path, byte_ms: float, content_ms: float, count: int, found: bool) -> None:
    made = lambda at: request(at, 3000, time_to_first_byte_ms=byte_ms, time_to_first_content_ms=content_ms)  # noqa: E731
    rows = every(5000, count, made)
    assert isinstance(answer(tmp_path, "late-first-content", requests=rows), Finding) is found


def test_late_first_content_is_seen_at_the_model_where_requests_are_not(tmp_path: Path) -> None:
    rows = every(5000, 6, lambda at: call(at, 3000, first_token_ms=2500, time_to_first_byte_ms=30))
    finding = answer(tmp_path, "late-first-content", calls=rows)
    assert isinstance(finding, Finding)
    assert any("the model" in line for line in finding.evidence)


def test_hidden_reasoning_is_left_to_its_own_check(tmp_path: Path) -> None:
    rows = every(5000, 6, lambda at: call(at, 3000, first_token_ms=2500, time_to_first_byte_ms=30, reasoning_tokens=60))
    with pytest.raises(NotMeasured):
        answer(tmp_path, "late-first-content", calls=rows)


def test_first_token_and_total_has_a_row_per_answer(tmp_path: Path) -> None:
    made = recording(tmp_path, **split(every(5000, 4, streamed)))
    assert len(streaming.first_token_and_total(made)) == len(requests(made)) == 4
