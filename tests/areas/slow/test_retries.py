from pathlib import Path
from typing import Any

import pytest
from builders import Row, answer, call, failed_call, recording, request

from perfnb.areas.slow.retries import chains
from perfnb.errors import NotMeasured
from perfnb.finding import Finding

GOOD = [row for n in range(20) for row in (request(n * 2000, 900), call(n * 2000 + 20, 800))]


def split(rows: list[Row]) -> dict[str, list[Row]]:
    return {
        "calls": [row for row in rows if "call_id" in row],
        "requests": [row for row in rows if "call_id" not in row],
    }


def hung(count: int, *, ms: float = 9000, timeout_ms: float | None = 300_000) -> list[Row]:
    silent = {
        "time_to_first_token_ms": None,
        "output_tokens": None,
        "error_type": "disconnected",
        "client_disconnected": True,
    }
    rows = []
    for n in range(count):
        at = 100_000 + n * 20_000
        rows += [
            request(at, ms + 20, error_type="disconnected", status_code=None),
            call(at + 10, ms, timeout_ms=timeout_ms, **silent),
        ]
    return rows


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (GOOD + hung(3), True),
        (GOOD + hung(3, timeout_ms=60_000), False),  # a sensible timeout
        (GOOD + hung(3, timeout_ms=60_001), True),
        (GOOD + hung(1), False),
        (GOOD + hung(3, ms=3000), False),  # slow, but not stuck
        (GOOD + hung(3, timeout_ms=None), False),  # nobody knows how long it would have waited
        (GOOD + hung(3, ms=70_000, timeout_ms=None), True),
        (GOOD, False),
    ],
)
def test_timeout_too_long(tmp_path: Path, rows: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "timeout-too-long", **split(rows)), Finding) is found


def cut_off(ages: list[float]) -> list[Row]:
    silent = {"error_type": "disconnected", "client_disconnected": True, "timeout_ms": 1000}
    return [row for n, age in enumerate(ages) for row in
            (request(100_000 + n * 2000, age + 10, status_code=504), call(100_005 + n * 2000, age, **silent))]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (GOOD + cut_off([1000, 1001, 1002, 1003]), True),
        (GOOD + cut_off([1000, 1001]), False),
        (GOOD + cut_off([300, 700, 1400, 2500]), False),  # users who leave do so at any age
        (GOOD + cut_off([8000, 8001, 8002, 8003]), False),  # far beyond any good answer: they hung
        (GOOD, False),
    ],
)
def test_timeout_too_short(tmp_path: Path, rows: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "timeout-too-short", **split(rows)), Finding) is found


def refused_once(count: int, *, status: int = 503, retried: bool = False, served: int = 500) -> list[Row]:
    rows: list[Row] = []
    for n in range(count):
        at = 100_000 + n * 3000
        rows += [
            request(at, 900, status_code=200 if retried else served),
            failed_call(at + 10, status=status, prompt_digest=f"p{n}"),
        ]
        rows += [call(at + 60, 700, prompt_digest=f"p{n}")] if retried else []
    return rows


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (GOOD + refused_once(4), True),
        (GOOD + refused_once(3, status=429), True),
        (GOOD + refused_once(2), False),
        (GOOD + refused_once(4, retried=True), False),
        (GOOD + refused_once(4, status=400), False),  # no use in trying again
        (GOOD + refused_once(4, served=200), False),  # the app had another answer
    ],
)
def test_no_retry(tmp_path: Path, rows: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "no-retry", **split(rows)), Finding) is found


def tried(times: int, count: int = 4, **columns: Any) -> list[Row]:
    rows: list[Row] = []
    for n in range(count):
        at = 100_000 + n * 20_000
        rows += [request(at, times * 600 + 900)]
        rows += [
            failed_call(at + 10 + each * 600, 300, status=500, prompt_digest=f"p{n}", retry_count=each % 3, **columns)
            for each in range(times - 1)
        ]
        rows += [call(at + 10 + (times - 1) * 600, 700, prompt_digest=f"p{n}")]
    return rows


@pytest.mark.parametrize(
    ("rows", "found"),
    [(tried(9), True), (tried(4), True), (tried(3), False), (tried(9, count=2), False), (GOOD, False)],
)
def test_retry_amplification(tmp_path: Path, rows: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "retry-amplification", **split(rows)), Finding) is found


@pytest.mark.parametrize(("counts", "found"), [((0, 1, 2, 3, 4), False), ((0, 1, 2, 0, 1), True)])
def test_waiting_out_a_rate_limit_is_no_amplification_unless_layers_multiply(
    tmp_path: Path, counts: tuple[int, ...], found: bool
) -> None:
    rows = list(GOOD)
    for n in range(4):
        at = 100_000 + n * 20_000
        rows += [request(at, 6000)]
        rows += [
            failed_call(at + 10 + turn * 1000, prompt_digest=f"p{n}", retry_count=count)
            for turn, count in enumerate(counts)
        ]
    assert isinstance(answer(tmp_path, "retry-amplification", **split(rows)), Finding) is found


def test_nested_layers_are_told_by_counts_that_start_anew(tmp_path: Path) -> None:
    finding = answer(tmp_path, "retry-amplification", **split(tried(9)))
    assert isinstance(finding, Finding)
    assert any(line.startswith("4 of them start counting") for line in finding.evidence)


def test_chains_tell_what_failed_and_what_it_cost(tmp_path: Path) -> None:
    frame = chains(recording(tmp_path, **split(tried(3, count=1))))
    assert frame[["attempts", "errors", "succeeded", "transient"]].to_numpy().tolist() == [
        [3, "server_error", True, True]
    ]
    assert frame["lost_ms"].iloc[0] == pytest.approx(2 * 300 + 2 * 300)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (GOOD + [request(n * 100, 50, error_in_body=True) for n in range(4)], True),
        (GOOD + [request(n * 100, 50, error_in_body=True) for n in range(2)], False),
        (GOOD + [request(n * 100, 50, error_in_body=True, status_code=500) for n in range(4)], False),  # told honestly
        (GOOD + refused_once(4, served=200), True),  # the model failed and the status says it did not
        (GOOD + refused_once(4, retried=True), False),
        (GOOD, False),
    ],
)
def test_errors_as_success(tmp_path: Path, rows: list[Row], found: bool) -> None:
    assert isinstance(answer(tmp_path, "errors-as-success", **split(rows)), Finding) is found


def test_errors_as_success_needs_a_status(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "errors-as-success", calls=[call()])
