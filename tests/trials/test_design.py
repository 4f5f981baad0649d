import itertools
from collections import Counter

import pytest

from perfnb.errors import WrongUse
from perfnb.load import Workload
from perfnb.sources.traffic.policies.arms import arm_of
from perfnb.target import Request
from perfnb.trials import Plan
from perfnb.trials.design import orders, split_entries, trace_id_in

WORKLOAD = Workload(
    (Request("http://127.0.0.1:1/a"), Request("http://127.0.0.1:1/b"), Request("http://127.0.0.1:1/c")), 10
)


def test_orders_are_balanced_in_every_two_pairs_and_drawn_by_seed() -> None:
    for seed in range(20):
        drawn = list(itertools.islice(orders(seed), 40))
        assert all({one, other} == {"AB", "BA"} for one, other in zip(drawn[::2], drawn[1::2], strict=True))
        assert drawn == list(itertools.islice(orders(seed), 40))
    firsts = Counter(order for seed in range(200) for order in itertools.islice(orders(seed), 1))
    assert 70 < firsts["AB"] < 130


@pytest.mark.parametrize(
    "wrong",
    [{"looks": ()}, {"looks": (10, 6)}, {"looks": (2,)}, {"looks": (6, 6)}, {"alpha": 0.05}, {"alpha": 0}, {"margin": -1}, {"seconds": 0}],
)  # fmt: skip
def test_a_plan_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(WrongUse):
        Plan(**wrong)  # type: ignore[arg-type]


def test_one_look_may_use_all_of_the_error() -> None:
    plan = Plan(looks=(8,), alpha=0.05, seconds=3, warm_up_s=1, settle_s=0.5)
    assert plan.most_pairs == 8
    assert plan.expected_s(8) == 72


def test_both_arms_at_once_get_the_same_requests_at_the_workloads_rate() -> None:
    turn = WORKLOAD.turn(2, 3, warm_up_s=1)
    entries = split_entries((turn, turn), "4711", seed=1)
    by_arm = {arm: [entry for entry in entries if entry.arm == f"4711/{arm}"] for arm in "AB"}
    for entries_of_arm in by_arm.values():
        assert [entry.index for entry in entries_of_arm] == [arrival.index for arrival in turn]
        assert [entry.phase == "measure" for entry in entries_of_arm] == [arrival.is_measured for arrival in turn]
    assert [entry.at_s for entry in entries] == sorted(entry.at_s for entry in entries)
    assert 4 < entries[-1].at_s <= 2 * 4, "twice the requests in twice the time"
    assert all(entry.arm == f"4711/{arm_of('4711', entry.trace_id)}" for entry in entries)
    firsts = Counter(entry.arm for entry in entries[::2])
    assert firsts["4711/A"] == firsts["4711/B"]
    assert split_entries((turn, turn), "4711", seed=2)[0::2] != entries[0::2]


@pytest.mark.parametrize("is_shared", [True, False])
def test_arms_get_the_same_moments_and_share_requests_only_where_they_may(is_shared: bool) -> None:
    """Twelve requests, six a turn."""
    requests = tuple(Request(f"http://127.0.0.1:9/{number}") for number in range(12))
    workload = Workload(requests, rate_per_s=2, is_shared=is_shared)
    turns = [workload.turns(number, 2, warm_up_s=1) for number in range(2)]
    for first, second in turns:
        assert [each.at_s for each in first] == [each.at_s for each in second]
        assert ([each.index for each in first] == [each.index for each in second]) is is_shared
    sent = [each.index for pair in turns[:1] for turn in pair for each in turn]
    assert sorted(sent) == sorted([*range(6), *range(6)] if is_shared else range(12))
    assert [entry.index for entry in split_entries(turns[0], "t", seed=0)[:2]] == ([0, 0] if is_shared else [0, 6])


def test_trace_ids_are_fresh_and_fall_into_their_arm() -> None:
    found = [trace_id_in("t", arm) for arm in "AB" * 20]
    assert len(set(found)) == 40
    assert [arm_of("t", trace_id) for trace_id in found] == list("AB" * 20)
