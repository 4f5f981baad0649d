"""Connections kept out of the pool while the model answers, with no transaction open: told by pools' metrics alone."""

from pathlib import Path
from typing import Any

import pytest
from builders import Row, call, recording, request
from session_rows import looks, sample

from perfnb.areas.database.held import connection_held_during_model_call
from perfnb.areas.database.kept_out import kept_out
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives

OBJECTIVES = Objectives.load(Path(__file__).parent)
SECONDS = 40


def waves(most: int = 6) -> list[int]:
    """Return how many requests ask the model in each second: more and fewer by turns."""
    return [1 + second * 5 // 3 % most for second in range(SECONDS)]


def traffic(asking: list[int]) -> dict[str, list[Row]]:
    """Return requests with one call of 900 ms each, so many a second."""
    starts = [second * 1000.0 + number for second, count in enumerate(asking) for number in range(count)]
    return {
        "requests": [request(at, 950, trace_id=f"t{at}") for at in starts],
        "calls": [call(at + 20, 900, trace_id=f"t{at}") for at in starts],
    }


def pool(used: list[int], *, most: int = 10, entity: str = "app", every: int = 1) -> list[Row]:
    """Return readings of a pool in the middle of each second."""
    rows = []
    for second in range(0, SECONDS, every):
        at, label = second * 1000.0 + 500, "db.client.connection.state"
        rows += [
            sample(at, "db.client.connection.count", used[second], source="otlp", entity=entity, attributes={label: "used"}),
            sample(at, "db.client.connection.max", most, source="otlp", entity=entity),
        ]  # fmt: skip
    return rows


def answer(folder: Path, used: list[int], asking: list[int], activity: list[Row] | None = None, **given: Any) -> Any:
    sessions = looks(SECONDS, range(8)) if activity is None else activity
    return connection_held_during_model_call(
        recording(folder, activity=sessions, samples=pool(used, **given), **traffic(asking)), OBJECTIVES
    )


def test_as_many_as_ask_the_model_and_idle(tmp_path: Path) -> None:
    found = answer(tmp_path, waves(), waves())
    assert isinstance(found, Finding)
    assert found.title == "Database connections are kept out of the pool while the model answers (0.9 s each)"
    assert found.share == 1.0
    assert "the pool lends out 3.5 connections on average (40 readings)" in found.evidence[0]
    assert "(correlation 1.00)" in found.evidence[1]
    assert "no timeout of the server" in found.remedy.lower()
    assert len(found.exemplars) == 3


def test_a_pool_that_is_always_empty(tmp_path: Path) -> None:
    assert isinstance(answer(tmp_path, [5] * SECONDS, [5] * SECONDS, most=5), Finding)


def test_several_processes_and_readings_that_are_far_apart(tmp_path: Path) -> None:
    half = [count // 2 for count in waves()]
    rest = [whole - part for whole, part in zip(waves(), half, strict=True)]
    samples = pool(half, every=3) + pool(rest, entity="app 2", every=3)
    made = recording(tmp_path, activity=looks(SECONDS, range(8)), samples=samples, **traffic(waves()))
    assert isinstance(connection_held_during_model_call(made, OBJECTIVES), Finding)
    seen = kept_out(made)
    assert seen is not None
    assert seen.together == pytest.approx(1)


BUSY = looks(SECONDS, range(3), "active") + looks(SECONDS, range(3, 8))
QUIET: dict[str, tuple[list[int], list[int], list[Row] | None]] = {
    "given back before the model is asked": ([0] * SECONDS, waves(), None),
    "one that a listener keeps for ever": ([1] * SECONDS, waves(2), None),
    "lent out for statements": ([3] * SECONDS, waves(), BUSY),
    "lent out at other times": ([*waves()[1:], 1], waves(), None),
    "many more than ask the model": ([3 * count for count in waves()], waves(), None),
    "few of those that ask": ([count // 4 for count in waves()], waves(), None),
}


@pytest.mark.parametrize("case", QUIET)
def test_quiet(tmp_path: Path, case: str) -> None:
    used, asking, activity = QUIET[case]
    assert isinstance(answer(tmp_path, used, asking, activity), Clear)


@pytest.mark.parametrize(("readings", "fires"), [(7, False), (8, True)])
def test_edge_of_eight_readings(tmp_path: Path, readings: int, fires: bool) -> None:
    samples = pool(waves())[: 2 * readings]
    made = recording(tmp_path, activity=looks(SECONDS, range(8)), samples=samples, **traffic(waves()))
    assert isinstance(connection_held_during_model_call(made, OBJECTIVES), Finding) is fires


def test_pgbouncer_and_pools_without_sessions_tell_nothing(tmp_path: Path) -> None:
    bouncer = [row | {"source": "pgbouncer", "metric": "servers_active"} for row in pool(waves())]
    made = recording(tmp_path, activity=looks(SECONDS, range(8)), samples=bouncer, **traffic(waves()))
    assert kept_out(made) is None
    assert kept_out(recording(tmp_path / "blind", samples=pool(waves()), **traffic(waves()))) is None


def test_what_could_not_be_seen_is_said(tmp_path: Path) -> None:
    made = recording(tmp_path, activity=looks(SECONDS, range(8)), **traffic(waves()))
    found = connection_held_during_model_call(made, OBJECTIVES)
    assert isinstance(found, Clear)
    assert "only the app's pool metrics would show" in found.examined
