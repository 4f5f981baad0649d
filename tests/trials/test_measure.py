import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import Row, call, recording, request

from perfnb.trials.measure import Evidence, level, ratios


def load(at_ms: float, ms: float, *, block: int, arm: str, **columns: Any) -> Row:
    trace = columns.pop("trace_id", f"{block}{arm}{at_ms:.0f}")
    return request(at_ms, ms, source="load", arm=f"t/{arm}", block=block, trace_id=trace, **columns)


def block(number: int, arm: str, at_ms: float, times: list[float], **columns: Any) -> list[Row]:
    return [load(at_ms + place * 10, ms, block=number, arm=arm, **columns) for place, ms in enumerate(times)]


def evidence(folder: Path, **tables: Any) -> Evidence:
    return Evidence(recording(folder, **tables).path, "t")


def test_medians_and_errors_of_each_block(tmp_path: Path) -> None:
    rows = block(1, "A", 0, [100, 200, 300]) + block(2, "B", 1000, [50, 60, 70])
    rows += block(2, "B", 1100, [1], status_code=503) + block(2, "B", 1200, [2], error_in_body=True)
    rows += block(1, "A", 500, [9000], phase="warm-up")
    found = evidence(tmp_path, requests=rows)
    blocks = found.blocks()
    assert blocks[1, "A"]["request_duration_ms"] == 200
    assert blocks[2, "B"]["request_duration_ms"] == 60, "what failed says nothing of speed"
    assert blocks[2, "B"]["error_rate"] == pytest.approx(2.5 / 5)
    assert blocks[1, "A"]["time_to_first_token_ms"] == pytest.approx(70)
    assert found.counts() == (8, 2)
    assert "request_usd" not in blocks[1, "A"]
    assert found.spent_usd() is None


def test_a_timeout_took_at_least_that_long(tmp_path: Path) -> None:
    rows = block(1, "A", 0, [100, 200]) + block(1, "A", 50, [5000], error_type="timeout", status_code=None)
    values = evidence(tmp_path, requests=rows).blocks()[1, "A"]
    assert values["request_duration_ms"] == 200
    assert values["error_rate"] == pytest.approx(1.5 / 3)


def test_what_a_front_saw_of_the_same_requests_and_other_trials_do_not_count(tmp_path: Path) -> None:
    mine = block(1, "A", 0, [100, 200, 300])
    front = [request(row_at, 900, trace_id=f"1A{row_at}") for row_at in (0, 10, 20)]
    other = [row | {"arm": "u/A"} for row in block(1, "A", 5, [7, 7])]
    found = evidence(tmp_path, requests=mine + front + other)
    assert found.blocks() == {(1, "A"): found.blocks()[1, "A"]}
    assert found.blocks()[1, "A"]["request_duration_ms"] == 200


def test_dollars_and_tokens_are_those_of_the_calls_of_the_blocks_requests(tmp_path: Path) -> None:
    rows = block(1, "A", 0, [500, 500]) + block(2, "B", 2000, [500, 500])
    calls = [call(at + 5, 100, trace_id=trace, input_tokens=1000, output_tokens=100)
             for at, trace in ((0, "1A0"), (10, "1A10"), (20, "1A10"), (2000, "2B2000"), (2010, "2B2010"))]  # fmt: skip
    calls.append(call(2020, 1, trace_id="2B2010", input_tokens=999, answered_by="cache"))
    blocks = evidence(tmp_path, requests=rows, calls=calls).blocks()
    assert blocks[1, "A"]["input_tokens"] == 1500
    assert blocks[2, "B"]["input_tokens"] == 1000
    assert blocks[2, "B"]["output_tokens"] == 100
    assert blocks[1, "A"]["request_usd"] == pytest.approx(1.5 * blocks[2, "B"]["request_usd"])
    assert blocks[2, "B"]["request_usd"] > 0


def test_a_call_without_a_price_leaves_no_dollars(tmp_path: Path) -> None:
    rows = block(1, "A", 0, [500])
    calls = [call(5, 10, trace_id="1A0"), call(20, 10, trace_id="1A0", request_model="own", response_model="own-model")]
    blocks = evidence(tmp_path, requests=rows, calls=calls).blocks()
    assert "request_usd" not in blocks[1, "A"]
    assert blocks[1, "A"]["input_tokens"] == 1400


def test_calls_belong_by_time_where_the_app_passes_no_trace_on(tmp_path: Path) -> None:
    rows = block(1, "A", 0, [500]) + block(2, "B", 1000, [500])
    calls = [call(5, 100, input_tokens=10), call(1005, 100, input_tokens=20)]
    blocks = evidence(tmp_path, requests=rows, calls=calls).blocks()
    assert [values["input_tokens"] for values in blocks.values()] == [10, 20]


def test_controls_are_apart(tmp_path: Path) -> None:
    rows = block(1, "A", 0, [100]) + block(1, "A", 10, [3, 5, 90], phase="control")
    found = evidence(tmp_path, requests=rows)
    assert found.controls() == {(1, "A"): {"the control request": 5.0}}
    assert found.counts() == (1, 0)


def test_nothing_was_measured_yet(tmp_path: Path) -> None:
    found = evidence(tmp_path, requests=[request()])
    assert (found.blocks(), found.controls(), found.counts(), found.spent_usd()) == ({}, {}, (0, 0), None)


def test_ratios_and_levels_of_pairs() -> None:
    blocks = {(1, "A"): {"m": 100.0, "n": 1.0}, (2, "B"): {"m": 50.0}, (4, "A"): {"m": 400.0}, (3, "B"): {"m": 400.0}}
    assert ratios(blocks, [(1, 2), (4, 3)]) == {"m": [pytest.approx(-math.log(2)), 0.0]}
    assert level(blocks, "m", "A", [1, 4]) == pytest.approx(200)
    assert level(blocks, "n", "B", [2, 3]) is None
    both_arms = {(1, "A"): {"m": 2.0}, (1, "B"): {"m": 4.0}}
    assert ratios(both_arms, [(1, 1)]) == {"m": [pytest.approx(math.log(2))]}


def test_new_rows_are_seen_while_a_trial_goes_on(tmp_path: Path) -> None:
    made = recording(tmp_path, requests=block(1, "A", 0, [100]))
    found = Evidence(made.path, "t")
    assert set(found.blocks()) == {(1, "A")}
    made.writer().write("http_requests", block(2, "B", 1000, [100]))
    assert set(found.blocks()) == {(1, "A"), (2, "B")}
    assert isinstance(found._calls(), pd.DataFrame)


@pytest.mark.parametrize(("traces", "silent"), [(("1A0", "1A10"), 1), (("1A0", "1A10", "1A20"), 0), ((), 0)])
def test_requests_the_app_answered_by_itself_are_counted(tmp_path: Path, traces: tuple[str, ...], silent: int) -> None:
    rows = block(1, "A", 0, [500, 500, 500])
    calls = [call(5 + place, 10, trace_id=trace) for place, trace in enumerate(traces)]
    assert evidence(tmp_path, requests=rows, calls=calls).without_calls() == silent  # without any call, none are seen
