"""The pool calculator: Little's law, headroom, what the server takes, and scope before size."""

import math

import pytest
from builders import every, recording, request
from hypothesis import given
from hypothesis import strategies as st
from session_rows import counter, looks, session, setting

from perfnb.areas.database.pools import advice_for, guides, pool_advice, pool_demand, room_for
from perfnb.errors import NotMeasured, WrongUse


def all_taken(size: int, in_use: float) -> float:
    """Return how likely a Poisson number of ``in_use`` on average is ``size`` or more."""
    return 1 - sum(math.exp(k * math.log(in_use) - in_use - math.lgamma(k + 1)) for k in range(size))


@pytest.mark.parametrize("in_use", [0.01, 0.4, 1, 5, 20, 100, 480])
def test_room_is_the_least_that_is_seldom_all_taken(in_use: float) -> None:
    size = room_for(in_use)
    assert all_taken(size, in_use) < 0.01
    assert size == 1 or all_taken(size - 1, in_use) >= 0.01


def test_room_for_none_and_for_very_many() -> None:
    assert room_for(0) == 1
    assert 1070 < room_for(1000) < 1080
    assert room_for(499.9) <= room_for(501) <= room_for(499.9) + 4


def test_a_connection_held_while_the_model_answers_is_given_back_first() -> None:
    advice = pool_advice(20, 5000, outside_ms=4980, processes=2, pool_size=20, max_connections=100)
    assert advice.verdict == "release first"
    assert advice.needed_now == pytest.approx(100)
    assert advice.needed_released == pytest.approx(0.4)
    assert advice.total <= 6
    assert "20 requests/s × 5000 ms held = 100 connections" in advice.reasons[0]
    assert "= 0.4: change the scope first" in advice.reasons[1]


CASES = [
    # arrivals, hold, what else, verdict, per process
    (10, 20, {"pool_size": 5}, "enough", 3),
    (100, 100, {"pool_size": 5}, "enlarge", 19),
    (100, 100, {"pool_size": 20}, "enough", 19),
    (10, 20, {"processes": 8, "pool_size": 80}, "shrink", 2),
    (10, 20, {"processes": 4, "pool_size": 20, "max_overflow": 5}, "shrink", 2),
    (1000, 500, {"max_connections": 100}, "server is the limit", 97),
    (100, 100, {"cores": 2}, "server is the limit", 5),
    (1, 20, {"processes": 120}, "put a pooler between", 1),
    (0, 0, {}, "enough", 1),
]


@pytest.mark.parametrize(("arrivals", "hold", "more", "verdict", "per_process"), CASES)
def test_verdicts(arrivals: float, hold: float, more: dict[str, int], verdict: str, per_process: int) -> None:
    advice = pool_advice(arrivals, hold, **more)
    assert (advice.verdict, advice.per_process) == (verdict, per_process)


def test_a_statement_more_than_the_server_runs_is_no_reason_for_more_connections() -> None:
    advice = pool_advice(100, 100, cores=2)
    assert advice.active_cap == 5
    assert any("more connections only queue inside it" in reason for reason in advice.reasons)
    assert any("requests will queue" in reason for reason in advice.reasons)


def test_half_a_connection_held_outside_is_no_reason_to_change_the_scope() -> None:
    assert pool_advice(1, 500, outside_ms=490).verdict == "enough"
    assert pool_advice(10, 500, outside_ms=240).verdict == "enough"
    assert pool_advice(10, 500, outside_ms=250).verdict == "release first"


@given(
    st.floats(0, 2000), st.floats(0, 60_000), st.floats(0, 1), st.integers(1, 64), st.integers(1, 500), st.integers(0, 50),
    st.none() | st.integers(1, 64),
)  # fmt: skip
def test_never_more_than_the_server_takes(
    arrivals: float, hold: float, part: float, processes: int, most: int, others: int, cores: int | None
) -> None:
    advice = pool_advice(
        arrivals, hold, outside_ms=hold * part, processes=processes, max_connections=most, others=others, cores=cores
    )
    assert advice.total == advice.per_process * processes
    assert advice.per_process >= 1
    assert advice.total <= max(advice.server_takes, processes)
    assert advice.needed_released <= advice.needed_now + 1e-9
    if advice.total > advice.server_takes:
        assert advice.verdict in ("put a pooler between", "release first")


@pytest.mark.parametrize(
    ("given_", "more"),
    [((-1, 5), {}), ((1, math.nan), {}), ((1, math.inf), {}), ((1, 5), {"processes": 0}), ((1, 5), {"outside_ms": 6}),
     ((1, 5), {"outside_ms": -1}), ((1, 5), {"max_connections": 0})],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(given_: tuple[float, float], more: dict[str, float]) -> None:
    with pytest.raises(WrongUse):
        pool_advice(*given_, **more)  # type: ignore[arg-type]


def test_guides_give_each_process_a_pool_whatever_the_server_takes() -> None:
    frame = guides(8, 3, 97).set_index("guide")
    assert frame.loc["E6", "may_open"] == frame.loc["E7", "may_open"] == 640
    assert not frame.loc["E6", "fits"]
    assert frame.loc["E4", ["may_open", "fits"]].tolist() == [80, True]
    assert frame.loc["C35", "times_needed"] == pytest.approx(400 / 3)


def test_demand_is_measured_from_looks(tmp_path) -> None:  # type: ignore[no-untyped-def]
    requests = every(500, 40, lambda at: request(at, 400))  # 2 a second for 20 s
    rows = [
        row for turn in range(20) for row in (session(turn * 1000, 1, "idle in transaction"), session(turn * 1000, 2))
    ]
    rows += looks(10, [3], "active")
    made = recording(
        tmp_path,
        requests=requests,
        activity=rows,
        catalog=[setting("max_connections", 60), setting("superuser_reserved_connections", 3)],
        samples=counter("connections", [5, 5, 5], entity="server"),
    )
    demand = pool_demand(made)
    assert demand.in_use == pytest.approx(1.5)
    assert demand.arrival_per_s == pytest.approx(2, rel=0.02)
    assert demand.hold_ms == pytest.approx(750, rel=0.02)
    assert demand.sql_ms == pytest.approx(250, rel=0.02)
    assert (demand.in_use_peak, demand.open_peak, demand.max_connections, demand.reserved) == (2, 3, 60, 3)
    assert demand.others == 2  # 5 of which 2.5 are the app's
    advice = advice_for(made, processes=2, pool_size=10)
    assert advice.may_open == 20
    assert advice.server_takes == 55


def test_a_queue_that_drains_does_not_thin_the_arrivals(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """40 requests in the first 8 s wait for one connection that each holds for half a second."""
    requests = [request(turn * 200, 500 + turn * 300) for turn in range(40)]
    demand = pool_demand(recording(tmp_path, requests=requests, activity=looks(20, [1], "active")))
    assert demand.arrival_per_s == pytest.approx(5)
    assert demand.hold_ms == pytest.approx(500)


def test_without_requests_there_is_no_demand(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NotMeasured, match="requests"):
        pool_demand(recording(tmp_path, activity=looks(5, [1, 2])))
