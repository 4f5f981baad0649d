import math

import pytest

from perfnb.load import BlockReport, Health, Progress
from perfnb.trials import Guard, Plan
from perfnb.trials.judge import judge

PLAN = Plan()
FASTER = [math.log(0.8) + step for step in (-0.02, -0.01, 0, 0, 0.01, 0.02)]
SAME = [-0.006, -0.003, 0.0, 0.0, 0.003, 0.006]
WILD = [0.3, -0.2, 0.1, -0.4, 0.2, 0.05]


@pytest.mark.parametrize(
    ("primary", "outcome", "said"),
    [
        (FASTER, "better", "would not count"),
        ([-each for each in FASTER], "worse", "would not count"),
        (SAME, "no practical change", "within 3%"),
        (WILD, "undecided", "more pairs"),
        ([], "undecided", "not measured in enough pairs"),
    ],
)
def test_the_primary_metric_decides(primary: list[float], outcome: str, said: str) -> None:
    found = judge({"request_duration_ms": primary, "output_tokens": FASTER}, PLAN)
    assert (found.outcome, said in found.why) == (outcome, True)
    assert found.is_final == (outcome != "undecided")


@pytest.mark.parametrize(("control", "outcome"), [(SAME, "better"), (FASTER, "withheld"), (FASTER[:2], "better")])
def test_a_control_that_moved_withholds_the_verdict(control: list[float], outcome: str) -> None:
    found = judge({"request_duration_ms": FASTER}, PLAN, {"the control request": control})
    assert found.outcome == outcome
    assert ("environment moved" in found.why) == (outcome == "withheld")


def test_metrics_beside_the_primary_are_corrected_for_being_many() -> None:
    slight = [-0.10, -0.075, -0.085, -0.14, -0.06, -0.115]  # p about 0.0006
    alone = judge({"request_duration_ms": SAME, "m0": slight}, PLAN)
    assert alone.comparisons["m0"].verdict == "better"
    names = {f"m{number}": slight if number == 0 else WILD for number in range(30)}
    among_many = judge({"request_duration_ms": SAME, **names}, PLAN)
    assert among_many.comparisons["m0"].verdict == "undecided"


def report(*, ended: int = 20, failed: int = 0, median_ms: float | None = 100) -> BlockReport:
    return BlockReport(1, ended, ended, failed, ended, 0, 1, median_ms, True, Health())


@pytest.mark.parametrize(
    ("guard", "block", "trips"),
    [
        (Guard(), report(), False),
        (Guard(), report(failed=4), False),
        (Guard(), report(failed=5), True),
        (Guard(), report(ended=4, failed=4), False),
        (Guard(error_rate=None), report(failed=20), False),
        (Guard(latency_ms=100), report(), False),
        (Guard(latency_ms=99), report(), True),
        (Guard(latency_ms=99), report(median_ms=None), False),
    ],
)
def test_what_a_guard_lets_pass(guard: Guard, block: BlockReport, trips: bool) -> None:
    assert bool(guard.on_block(block)) == trips


def test_a_guard_of_errors_trips_within_a_block_and_one_of_money_on_spending() -> None:
    assert Guard().on_progress(Progress(1, 100, 10, 3))
    assert not Guard().on_progress(Progress(1, 100, 10, 2))
    assert Guard(spend_usd=1).on_spend(1.01)
    assert not Guard(spend_usd=1).on_spend(1)
    assert not Guard().on_spend(1e6)
