"""Who waits for whom: the tree, its head, and waits that are no trouble."""

from pathlib import Path
from typing import Any

import pytest
from builders import Row, every, recording, request
from session_rows import counter, looks, moment, session

from perfnb.areas.database.locks import blockers, deadlocks, lock_tree, lock_waits, lock_waits_check, waits_by_event
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives

OBJECTIVES = Objectives.load(Path(__file__).parent)


def answer(folder: Path, **tables: Any) -> Finding | Clear:
    return lock_waits_check(recording(folder, **tables), OBJECTIVES)


def waiter(at_ms: float, pid: int, *by: int, since_ms: float, **columns: Any) -> Row:
    given = {
        "wait_event_type": "Lock", "wait_event": "transactionid", "blocked_by": list(by), "lock_mode": "ShareLock",
        "lock_on": "transaction", "query": "UPDATE sessions SET last_active_at = now() WHERE id = $1",
    }  # fmt: skip
    return session(at_ms, pid, "active", since_ms=since_ms, **(given | columns))


def queue(count: int = 12, *, wait_ms: float = 9000, waiting: int = 3) -> list[Row]:
    """Return looks at sessions that wait behind one, which sits idle in its transaction; each waits for the one before."""
    rows: list[Row] = []
    for turn in range(count):
        at = turn * 1000.0
        rows.append(
            session(at, 1, "idle in transaction", since_ms=-2000, transaction_start=moment(-2500), application="nightly",
                    query="UPDATE sessions SET state = $1")
        )  # fmt: skip
        since = max(-1000.0, at - wait_ms)
        rows += [waiter(at, pid, pid - 1, since_ms=since) for pid in range(2, 2 + waiting)]
        rows += [session(at, pid) for pid in range(20, 24)]
    return rows


def asked() -> list[Row]:
    return every(500, 24, lambda at: request(at, 2000))


def test_fires_and_names_the_head_of_the_queue(tmp_path: Path) -> None:
    found = answer(tmp_path, activity=queue(), requests=asked())
    assert isinstance(found, Finding)
    assert "behind one session that is idle in transaction" in found.title
    assert found.symptom == "latency"
    assert found.share == pytest.approx(36 / 48, abs=0.02)
    assert found.severity == "critical"
    said = " ".join(found.evidence)
    assert "pid 1 (nightly), idle in transaction, its transaction open for 13.5 s" in said
    assert "UPDATE sessions SET state = $1" in said
    assert "ShareLock on transaction" in said
    assert "idle_in_transaction_session_timeout" in found.remedy
    assert found.frame is not None
    assert found.frame["depth"].tolist() == [0, 1, 2, 3]


def test_the_tree(tmp_path: Path) -> None:
    made = recording(tmp_path, activity=queue(3))
    tree = lock_tree(made)
    assert tree[["depth", "pid"]].to_numpy().tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert tree["state"].tolist() == ["idle in transaction", "active", "active", "active"]
    assert tree["transaction_ms"].iloc[0] == pytest.approx(2500, abs=2000)
    waits = lock_waits(made)
    assert waits.groupby("pid")[["blocker", "root", "depth"]].first().to_numpy().tolist() == [
        [1, 1, 1],
        [2, 1, 2],
        [3, 1, 3],
    ]
    (head,) = blockers(made).to_dict("records")
    assert (head["root"], head["blocked"], head["looks"], head["state"]) == (1, 3, 3, "idle in transaction")
    assert head["blocked_ms"] == 9000


def test_several_wait_for_one_and_one_for_several(tmp_path: Path) -> None:
    rows = [
        session(0, 1, "active"), session(0, 2, "active"),
        waiter(0, 5, 1, 2, since_ms=-3000), waiter(0, 6, 1, since_ms=-2000), waiter(0, 7, 0, since_ms=-1000),
        waiter(0, 8, since_ms=-1000, blocked_by=None),
    ]  # fmt: skip
    made = recording(tmp_path, activity=rows)
    assert lock_tree(made)[["depth", "pid"]].to_numpy().tolist() == [[0, 0], [1, 7], [0, 1], [1, 5], [1, 6]]
    assert blockers(made).set_index("root")["blocked"].to_dict() == {1: 2, 0: 1}


def test_a_circle_has_an_end(tmp_path: Path) -> None:
    rows = [waiter(0, 1, 2, since_ms=-500), waiter(0, 2, 1, since_ms=-500)]
    made = recording(tmp_path, activity=rows)
    assert set(lock_waits(made)["root"]) == {1, 2}
    assert set(lock_tree(made)["pid"]) == {1, 2}


QUIET: dict[str, list[Row]] = {
    "idle sessions": looks(20, [1, 2, 3]),
    "busy sessions that run": looks(20, [1, 2, 3], "active"),
    "two short waits in a busy minute": looks(60, [1, 2, 3], "active")
    + [waiter(at, 9, 1, since_ms=at - 30) for at in (5000.0, 9000.0)],
    "waits of a few milliseconds now and then": looks(60, [1, 2, 3], "active")
    + [waiter(at * 1000.0, 9, 1, since_ms=at * 1000 - 30) for at in range(0, 50, 10)],
    "short waits in a few of few looks": looks(20, [1, 2, 3], "active")
    + [waiter(at * 1000.0, 9, 1, since_ms=at * 1000 - 30) for at in range(0, 20, 5)],
    "autovacuum that waits": looks(20, [1, 2], "active")
    + [waiter(at * 1000.0, 9, 1, since_ms=-1000, backend="autovacuum worker") for at in range(20)],
    "a leader that waits to lead": looks(20, [1, 2], "active")
    + [waiter(at * 1000.0, 9, 1, since_ms=-900_000, wait_event="advisory") for at in range(20)],
    "a sequential scan that reads now and then": looks(20, [1], "active")
    + looks(8, [2], "active", wait_event_type="IO", wait_event="DataFileRead"),
}


@pytest.mark.parametrize("case", QUIET)
def test_quiet(tmp_path: Path, case: str) -> None:
    found = answer(tmp_path, activity=QUIET[case], requests=asked())
    assert isinstance(found, Clear)
    assert "looks" in found.examined


@pytest.mark.parametrize(("since_ms", "fires"), [(950, False), (1000, True)])
def test_edge_of_a_second(tmp_path: Path, since_ms: float, fires: bool) -> None:
    rows = looks(60, [1], "active") + [
        waiter(at, 9, 1, since_ms=at - since_ms) for at in (1000.0, 9000.0, 30_000.0, 40_000.0)
    ]
    assert isinstance(answer(tmp_path, activity=rows, requests=asked()), Finding) is fires


@pytest.mark.parametrize(("waits", "fires"), [(4, False), (5, True)])
def test_edge_of_five_looks_with_short_waits(tmp_path: Path, waits: int, fires: bool) -> None:
    rows = looks(20, [1], "active") + [
        waiter(at * 1000.0, 9, 1, since_ms=at * 1000 - 30) for at in range(0, 4 * waits, 4)
    ]
    assert isinstance(answer(tmp_path, activity=rows, requests=asked()), Finding) is fires


def test_without_requests_the_share_is_of_the_statements(tmp_path: Path) -> None:
    found = answer(tmp_path, activity=queue() + looks(12, [30], "active"))
    assert isinstance(found, Finding)
    assert found.symptom == "database time"
    assert found.share == pytest.approx(0.75)


@pytest.mark.parametrize(("broken", "fires"), [(2, False), (3, True)])
def test_edge_of_three_deadlocks(tmp_path: Path, broken: int, fires: bool) -> None:
    samples = counter("deadlocks", [40, 40 + broken // 2, 40 + broken])
    made = recording(tmp_path, activity=looks(20, [1, 2], "active"), samples=samples, requests=asked())
    assert deadlocks(made) == broken
    assert isinstance(lock_waits_check(made, OBJECTIVES), Finding) is fires


def test_storage_that_all_wait_for_fires(tmp_path: Path) -> None:
    rows = looks(20, [1, 2, 3], "active", wait_event_type="IO", wait_event="DataFileRead") + looks(20, [4], "active")
    found = answer(tmp_path, activity=rows)
    assert isinstance(found, Finding)
    assert found.title == "Statements wait for storage in 75% of their time"
    assert found.share == pytest.approx(0.75)


def test_what_sessions_wait_for(tmp_path: Path) -> None:
    rows = (
        looks(10, [1], "active")
        + looks(10, [2, 3], "active", wait_event_type="LWLock", wait_event="WALWrite")
        + looks(10, [4])
    )
    frame = waits_by_event(recording(tmp_path, activity=rows))
    assert frame["looks"].tolist() == [20, 10]
    assert frame["share"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert frame["sessions"].tolist() == [2, 1]


def test_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="--dsn"):
        answer(tmp_path, requests=asked())
