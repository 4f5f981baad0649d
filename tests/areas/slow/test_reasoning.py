from pathlib import Path

import pytest
from builders import answer, call, recording

from perfnb.areas.slow.reasoning import reasoning
from perfnb.finding import Finding


@pytest.mark.parametrize(
    ("reasoning_tokens", "output_tokens", "count", "found"),
    [(900, 1000, 6, True), (400, 1000, 6, True), (390, 1000, 6, False), (0, 1000, 6, False), (900, 1000, 2, False)],
)
def test_deep_reasoning(tmp_path: Path, reasoning_tokens: int, output_tokens: int, count: int, found: bool) -> None:
    rows = [
        call(n * 9000, 6000, first_token_ms=5000, reasoning_tokens=reasoning_tokens, output_tokens=output_tokens)
        for n in range(count)
    ]
    assert isinstance(answer(tmp_path, "deep-reasoning", calls=rows), Finding) is found


def test_reasoning_takes_its_part_of_the_output_and_no_more_than_the_silence(tmp_path: Path) -> None:
    rows = [call(0, 6000, first_token_ms=2000, reasoning_tokens=900, output_tokens=1000)]
    assert reasoning(recording(tmp_path, calls=rows))["reasoning_ms"].tolist() == pytest.approx([2000])
    rows = [call(0, 6000, stream=False, reasoning_tokens=500, output_tokens=1000)]
    assert reasoning(recording(tmp_path / "b", calls=rows))["reasoning_ms"].tolist() == pytest.approx([3000])
