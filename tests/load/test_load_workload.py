from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfnb.errors import WrongUse
from perfnb.load import Arrival, Workload, planned_requests
from perfnb.target import Request

THREE = tuple(Request(f"http://127.0.0.1:1/{name}") for name in "abc")


def test_a_turn_is_the_same_for_everyone_who_asks_for_it() -> None:
    workload = Workload(THREE, 5, seed=7)
    assert workload.turn(3, 4, warm_up_s=1) == Workload(THREE, 5, seed=7).turn(3, 4, warm_up_s=1)
    assert workload.turn(3, 4) != workload.turn(4, 4)
    assert workload.turn(3, 4) != Workload(THREE, 5, seed=8).turn(3, 4)


def test_turns_go_on_in_the_list_where_the_one_before_stopped() -> None:
    workload = Workload(THREE, 2)
    sent = [arrival.index for number in range(4) for arrival in workload.turn(number, 2, warm_up_s=0.5)]
    assert sent == [place % 3 for place in range(4 * 5)]


def test_constant_arrivals() -> None:
    turn = Workload(THREE, 4, "constant").turn(0, 1, warm_up_s=0.5)
    assert turn == (
        Arrival(0.0, 0, False),
        Arrival(0.25, 1, False),
        Arrival(0.5, 2),
        Arrival(0.75, 0),
        Arrival(1.0, 1),
        Arrival(1.25, 2),
    )


@given(st.floats(0.2, 50), st.floats(0.1, 10), st.floats(0, 3), st.integers(0, 99))
def test_every_turn_holds_the_same_number_in_order_and_in_time(
    rate: float, seconds: float, warm_up_s: float, number: int
) -> None:
    workload = Workload(THREE, rate)
    turn = workload.turn(number, seconds, warm_up_s=warm_up_s)
    measured = [arrival for arrival in turn if arrival.is_measured]
    assert len(measured) == workload.number_in(seconds)
    assert [arrival.at_s for arrival in turn] == sorted(arrival.at_s for arrival in turn)
    assert all(warm_up_s <= arrival.at_s <= warm_up_s + seconds for arrival in measured)
    assert all(arrival.at_s <= warm_up_s for arrival in turn if not arrival.is_measured)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Workload(()),
        lambda: Workload(THREE, 0),
        lambda: Workload((Request("nowhere"),)),
        lambda: Workload(THREE, control=Request("/health")),
        lambda: Workload(THREE, 10_000).turn(0, 60),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: object) -> None:
    with pytest.raises(WrongUse) as told:
        wrong()  # type: ignore[operator]
    assert told.value.hint


def test_planned_requests_are_sent_as_they_are() -> None:
    planned = [SimpleNamespace(path="/chat", body={"message": "why?"})]
    (request,) = planned_requests("http://127.0.0.1:8000/", planned, timeout_s=9)
    assert request == Request("http://127.0.0.1:8000/chat", json={"message": "why?"}, timeout_s=9)
