"""Trials on machines that drift: the design and the statistics, with nothing but numbers."""

from collections import Counter
from functools import cache
from itertools import islice

import numpy as np
import numpy.typing as npt
import pytest

from perfnb.trials import Judgement, Plan
from perfnb.trials.design import orders
from perfnb.trials.judge import judge

REQUESTS = 100
Floats = npt.NDArray[np.float64]


def drift(rng: np.random.Generator, blocks: int, *, rho: float = 0.9, sd: float = 0.06, trend: float = 0.05) -> Floats:
    """Return how slow the machine is in each block: a first-order autoregression around a trend, as logs."""
    level, found = rng.normal(0, sd), []
    for block in range(blocks):
        found.append(level + trend * block / blocks)
        level = rho * level + rng.normal(0, sd * np.sqrt(1 - rho**2))
    return np.array(found)


def block(rng: np.random.Generator, prompts: Floats, slow: float, noise: float) -> Floats:
    """Return latencies of the same prompts once more: their own length, correlated noise, three stragglers in a hundred."""
    shocks = rng.normal(0, noise, REQUESTS + 1)
    correlated = shocks[1:] + 0.3 * shocks[:-1]
    stragglers = np.where(rng.random(REQUESTS) < 0.03, rng.uniform(1, 3, REQUESTS), 0)
    return np.exp(prompts + correlated + slow) * (1 + stragglers) * 500


@cache
def ratios(seed: int, *, effect: float = 0.0, noise: float = 0.15, neighbour_from: int = 80) -> dict[str, list[float]]:
    """Return the log ratios of a simulated trial whose B is slower by the log ``effect``."""
    rng = np.random.default_rng(seed)
    slow = drift(rng, 80) + np.where(np.arange(80) >= neighbour_from, np.log(1.6), 0.0)
    found: dict[str, list[float]] = {"request_duration_ms": [], "request_duration_p95_ms": []}
    for number, order in enumerate(islice(orders(seed), 40)):
        prompts = rng.normal(0, 0.5, REQUESTS)
        times = {
            arm: block(rng, prompts, slow[2 * number + place] + (effect if arm == "B" else 0), noise)
            for place, arm in enumerate(order)
        }
        for name, quantile in zip(found, (50, 95), strict=True):
            a, b = (np.percentile(times[arm], quantile) for arm in "AB")
            found[name].append(float(np.log(b / a)))
    return found


def conducted(d: dict[str, list[float]], plan: Plan) -> tuple[Judgement, int]:
    """Return the judgement at the first look that decides, or at the last, and the pairs it took."""
    for look in plan.looks:
        found = judge({name: values[:look] for name, values in d.items()}, plan)
        if found.is_final:
            return found, look
    return found, look


@pytest.mark.parametrize("metric", ["request_duration_ms", "request_duration_p95_ms"])
def test_an_unchanged_app_on_a_drifting_machine_seldom_gets_a_verdict(metric: str) -> None:
    outcomes = Counter(conducted(ratios(seed), Plan(primary=metric))[0].outcome for seed in range(200))
    assert outcomes["better"] + outcomes["worse"] <= 0.05 * 200


@pytest.mark.parametrize(("noise", "pairs", "part"), [(0.08, 10, 0.95), (0.15, 10, 0.85), (0.3, 16, 0.85)])
def test_a_slowdown_by_a_tenth_is_found(noise: float, pairs: int, part: float) -> None:
    found = [conducted(ratios(seed, effect=np.log(1.1), noise=noise), Plan()) for seed in range(60)]
    assert not any(judgement.outcome == "better" for judgement, _ in found)
    in_time = [judgement.outcome == "worse" and needed <= pairs for judgement, needed in found]
    assert np.mean(in_time) >= part


def test_what_a_plan_promises_holds_for_the_interval_too() -> None:
    intervals = [
        judge({name: d[:10] for name, d in ratios(seed, effect=0.2).items()}, Plan()).comparisons["request_duration_ms"]
        for seed in range(200)
    ]
    assert np.mean([each.low <= np.exp(0.2) <= each.high for each in intervals]) >= 0.97


@pytest.mark.parametrize("begins", [5, 8, 20])
def test_a_neighbour_that_slows_the_machine_part_way_changes_no_verdict(begins: int) -> None:
    same = Counter(conducted(ratios(seed, neighbour_from=begins), Plan())[0].outcome for seed in range(100))
    assert same["better"] + same["worse"] <= 5
    slower = Counter(
        conducted(ratios(seed, effect=np.log(1.25), neighbour_from=begins), Plan())[0].outcome for seed in range(50)
    )
    assert slower["better"] + slower["no practical change"] == 0
    assert slower["worse"] >= 40


def test_looking_after_every_pair_is_what_the_plan_protects_from() -> None:
    def peeked(seed: int) -> bool:
        d = ratios(seed)["request_duration_ms"]
        one_look = Plan(looks=(40,), alpha=0.05, margin=0.0)
        judged = (judge({"request_duration_ms": d[:pairs]}, one_look) for pairs in range(6, 41))
        return any(each.comparisons["request_duration_ms"].has_moved for each in judged)

    assert np.mean([peeked(seed) for seed in range(100)]) > 0.1
