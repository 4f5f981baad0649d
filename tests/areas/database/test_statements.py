from pathlib import Path
from typing import Any

import pytest
from builders import answer, recording, request
from statement_rows import Counted, catalog, counted, looks, requests, snapshots, traced

from perfnb.areas.database import statements
from perfnb.areas.database.workload import CANTELLI, workload
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding

SEARCH = "SELECT id, title FROM documents ORDER BY embedding <=> $1::vector LIMIT $2"
HISTORY = "SELECT role, content FROM messages WHERE session_id = $1 ORDER BY id DESC LIMIT $2"
ADD = "INSERT INTO messages (session_id, role) VALUES ($1, $2)"
REPORT = "SELECT topic, count(*) FROM tickets WHERE opened > $1 GROUP BY topic"

HEALTHY = (
    counted(SEARCH, calls=60, ms=6, rows=12), counted(HISTORY, calls=60, ms=0.3, rows=6),
    counted(ADD, calls=60, ms=0.2), counted("COMMIT", calls=60, ms=0.05, rows=0),
)  # fmt: skip

CAUSES = ("slow-statement", "frequent-statement", "unstable-statement", "over-fetching", "n-plus-one", "per-id-queries")


def found(folder: Path, cause: str, *statements: Counted, **tables: Any) -> Finding | Clear:
    """Return what is said of these statements beside a healthy app's, at three requests a second for 20 s."""
    given = {"requests": requests(60), "statements": snapshots(*statements)} | tables
    return answer(folder, cause, **given)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("with_requests", [True, False])
def test_a_healthy_app_gets_nothing(tmp_path: Path, cause: str, with_requests: bool) -> None:
    try:
        said = found(tmp_path, cause, *HEALTHY, **({} if with_requests else {"requests": []}))
    except NotMeasured:
        assert not with_requests
        return
    assert isinstance(said, Clear)
    assert any(letter.isdigit() for letter in said.examined)


@pytest.mark.parametrize(
    ("slow", "names"),
    [
        (counted(REPORT, calls=10, ms=1200), True),
        (counted(REPORT, calls=10, ms=1000), True),  # not above the objective, yet most of what the database does
        (counted(REPORT, calls=2, ms=5000), False),  # someone looked something up
        (counted(SEARCH, calls=60, ms=180, rows=12), True),
        (counted(SEARCH, calls=60, ms=90, rows=12), False),
        (counted("VACUUM ANALYZE documents", calls=5, ms=4000), False),
        (counted("COPY documents TO STDOUT", calls=5, ms=4000), False),
        (counted("CREATE INDEX ON documents (module)", calls=3, ms=4000), False),
        (counted("UPDATE documents SET module = $1 WHERE title = $2", calls=20, ms=1500), True),
    ],
)
def test_slow_statement(tmp_path: Path, slow: Counted, names: bool) -> None:
    said = found(tmp_path, "slow-statement", slow, *HEALTHY[1:])
    assert isinstance(said, Finding) is names


def test_slow_statement_tells_what_it_costs(tmp_path: Path) -> None:
    said = found(
        tmp_path,
        "slow-statement",
        counted(SEARCH, calls=60, ms=200, rows=12, shared_blocks_read=10.0, shared_blocks_hit=300.0),
        *HEALTHY[1:],
    )
    assert isinstance(said, Finding)
    assert said.symptom == "database time"
    assert said.share == pytest.approx(200 / 200.55, abs=0.001)
    assert "60 calls, mean 200 ms" in said.evidence[0]
    assert "1.0 calls and 200.0 ms a request, 67% of the users' wait" in said.evidence[1]
    assert "310 blocks of 8 kB and 12.0 rows a call" in said.evidence[2]
    assert said.frame is not None
    assert said.frame["statement"].to_list() == [SEARCH]


@pytest.mark.parametrize(("ms", "names"), [(150, True), (20, False)])
def test_without_requests_a_slow_statement_must_keep_the_server_busy(tmp_path: Path, ms: float, names: bool) -> None:
    said = found(tmp_path, "slow-statement", counted(REPORT, calls=20, ms=ms), *HEALTHY[1:], requests=[])
    assert isinstance(said, Finding) is names


def test_a_rare_report_is_no_slow_statement(tmp_path: Path) -> None:
    said = found(tmp_path, "slow-statement", counted(REPORT, calls=4, ms=200), *HEALTHY[1:])
    assert isinstance(said, Clear)  # most of the database's time, and a hundredth of the users'


def test_what_waits_for_locks_is_not_slow_itself(tmp_path: Path) -> None:
    update = "UPDATE documents SET module = $1 WHERE title = $2"
    waiting = looks(update, range(1, 9), wait_event_type="Lock", age_ms=1500)
    slow = counted(update, calls=20, ms=1500, deviation_ms=3000)
    assert isinstance(found(tmp_path / "a", "slow-statement", slow, *HEALTHY), Finding)
    assert isinstance(found(tmp_path / "b", "slow-statement", slow, *HEALTHY, activity=waiting), Clear)
    assert isinstance(found(tmp_path / "c", "unstable-statement", slow, *HEALTHY, activity=waiting), Clear)


def test_what_never_ends_is_seen_in_sessions(tmp_path: Path) -> None:
    """The server counts a statement when it has ended, and a cancelled one never."""
    activity = [
        row | {"pid": pid, "query_start": row["time"] - age * 10**9}
        for pid in (1, 2, 3) for age, row in enumerate(looks(REPORT, range(1, 6)), 1)
    ]  # fmt: skip
    for row in activity:
        row["query_start"] = activity[0]["time"] - 10**9
    said = found(tmp_path, "slow-statement", *HEALTHY, activity=activity)
    assert isinstance(said, Finding)
    assert "tickets" in said.title
    assert "3 calls, mean 5000 ms" in said.evidence[0]


@pytest.mark.parametrize(
    ("often", "names"),
    [
        (counted("SELECT value FROM switches WHERE area = $1 AND name > $2", calls=60 * 30, ms=0.2), True),
        (counted("SELECT count(*) FROM documents", calls=60 * 12, ms=1), True),
        (counted("SELECT count(*) FROM documents", calls=60 * 9, ms=1), False),  # below ten a request
        (counted("SELECT count(*) FROM documents", calls=60 * 12, ms=0.02), False),  # not felt
        (counted("SELECT count(*) FROM documents", calls=60 * 12, ms=6), False),  # not cheap
        (counted("COMMIT", calls=60 * 40, ms=1), False),
        (counted("INSERT INTO words (w) VALUES ($1)", calls=60 * 40, ms=1), False),
    ],
)
def test_frequent_statement(tmp_path: Path, often: Counted, names: bool) -> None:
    said = found(tmp_path, "frequent-statement", often, *HEALTHY)
    assert isinstance(said, Finding) is names
    if isinstance(said, Finding):
        assert "times a request" in said.title


@pytest.mark.parametrize(("calls", "ms", "names"), [(20 * 300, 0.5, True), (20 * 300, 0.1, False), (20 * 50, 2, False)])
def test_frequent_statement_by_the_second(tmp_path: Path, calls: int, ms: float, names: bool) -> None:
    """Where requests were not seen, a statement must also keep a tenth of a session busy."""
    poll = counted("SELECT id FROM jobs WHERE state = $1 LIMIT $2", calls=calls, ms=ms)
    assert isinstance(found(tmp_path, "frequent-statement", poll, *HEALTHY, requests=[]), Finding) is names


def bimodal(calls: int, part: float, fast_ms: float, slow_ms: float) -> Counted:
    """Return a statement of which ``part`` of the calls is slow."""
    mean = part * slow_ms + (1 - part) * fast_ms
    deviation = (slow_ms - fast_ms) * (part * (1 - part)) ** 0.5
    return counted(REPORT, calls=calls, ms=mean, deviation_ms=deviation, longest_ms=slow_ms)


@pytest.mark.parametrize(
    ("one", "names"),
    [
        (bimodal(60, 0.10, 5, 700), True),
        (bimodal(60, 0.30, 5, 300), True),
        (bimodal(60, 0.60, 5, 300), False),  # slow as a rule: slow-statement's
        (bimodal(60, 1 / 60, 5, 900), False),  # one outlier, a checkpoint say
        (bimodal(60, 2 / 60, 5, 900), False),
        (bimodal(60, 4 / 60, 5, 900), True),
        (bimodal(10, 0.30, 5, 700), False),  # too few to tell
        (bimodal(600, 0.05, 1, 40), False),  # some ms more
        (counted(REPORT, calls=60, ms=40, deviation_ms=15), False),
    ],
)
def test_unstable_statement(tmp_path: Path, one: Counted, names: bool) -> None:
    assert isinstance(found(tmp_path, "unstable-statement", one, *HEALTHY), Finding) is names


def test_an_unstable_statement_gets_a_bound_and_no_invented_percentile(tmp_path: Path) -> None:
    said = found(tmp_path, "unstable-statement", bimodal(60, 0.10, 5, 700), *HEALTHY)
    assert isinstance(said, Finding)
    assert said.evidence[1].startswith("its p95 is at most 700 ms (a bound")


def test_spans_give_real_percentiles(tmp_path: Path) -> None:
    rows = traced(40, (REPORT.replace("$1", "%s"), 1, 5), (ADD, 1, 1), ms=1000)
    timed = [row for row in rows["spans"] if row.get("statement") and row["statement"] != ADD]
    for row in timed[::5]:
        row["duration_ms"] = 700.0
    said = answer(tmp_path, "unstable-statement", **rows)
    assert isinstance(said, Finding)
    assert said.evidence[1] == "timed by 40 spans: median 5.0 ms, p95 700.0 ms"


@pytest.mark.parametrize(("also_held_up", "names"), [(0.0, True), (100.0, True), (400.0, False), (700.0, False)])
def test_what_holds_up_all_statements_is_the_apps_own(tmp_path: Path, also_held_up: float, names: bool) -> None:
    rows = traced(40, (SEARCH, 1, 5), (ADD, 1, 1), ms=2000)
    for row in [each for each in rows["spans"] if each.get("statement")][::10]:
        row["duration_ms"] = 700.0
    for row in [each for each in rows["spans"] if each.get("statement") == ADD][::5]:
        row["duration_ms"] += also_held_up
    assert isinstance(answer(tmp_path / "spans", "unstable-statement", **rows), Finding) is names
    counters = snapshots(bimodal(40, 0.1, 5, 700), counted(ADD, calls=40, ms=80, deviation_ms=200))
    assert isinstance(answer(tmp_path / "both", "unstable-statement", **rows, statements=counters), Finding)


@pytest.mark.parametrize(
    ("statement", "ms", "held_up_ms", "names"),
    [
        (SEARCH, 180, 0, True),
        (ADD, 180, 0, False),  # of who knows how many rows
        (ADD, 1200, 0, True),
        (SEARCH, 5, 9000, False),  # five in forty are held up: the mean is 1,130 ms, the median 5
    ],
)
def test_slow_by_spans_alone(tmp_path: Path, statement: str, ms: float, held_up_ms: float, names: bool) -> None:
    rows = traced(40, (statement, 1, ms), (HISTORY, 3, 1), ms=3000)
    for row in [each for each in rows["spans"] if each.get("statement") == statement][::8]:
        row["duration_ms"] += held_up_ms
    assert isinstance(answer(tmp_path, "slow-statement", **rows), Finding) is names


@pytest.mark.parametrize(("fast", "slow", "part"), [(1, 900, 0.03), (2, 300, 0.06), (10, 50, 0.3), (5, 6, 0.5)])
def test_the_bound_holds(tmp_path: Path, fast: float, slow: float, part: float) -> None:
    made = recording(tmp_path, statements=snapshots(bimodal(1000, part, fast, slow)), requests=requests(60))
    bound = workload(made)["p95_at_most_ms"].iloc[0]
    true = slow if part > 0.05 else fast
    assert true <= bound <= slow + 1e-6
    assert pytest.approx(4.3589, abs=1e-4) == CANTELLI


WIDE = catalog("table", {"public.documents": {"live_rows": 5000, "toast_bytes": 90_000_000}}) + catalog(
    "column",
    {
        "public.documents.id": {"type": "bigint", "average_bytes": 8},
        "public.documents.body": {"type": "text", "average_bytes": 18},
        "public.documents.title": {"type": "text", "average_bytes": 32},
        "public.documents.embedding": {"type": "vector(1536)", "average_bytes": 18},
    },
)


@pytest.mark.parametrize(
    ("one", "names"),
    [
        (counted("SELECT id, title FROM documents", calls=60, ms=8, rows=5000), True),
        (counted("SELECT id, title FROM documents LIMIT $1", calls=60, ms=8, rows=2000), True),
        (counted("SELECT id, title FROM documents LIMIT $1", calls=60, ms=8, rows=900), False),
        (counted("SELECT * FROM documents LIMIT $1", calls=60, ms=8, rows=200), True),  # vectors and texts
        (counted("SELECT id, embedding FROM documents LIMIT $1", calls=60, ms=8, rows=200), True),
        (counted("SELECT id, title FROM documents LIMIT $1", calls=60, ms=8, rows=200), False),
        (counted("SELECT id, title FROM documents", calls=6, ms=80, rows=5000), False),  # not what requests ask for
        (counted("SELECT id, title FROM documents", calls=60, ms=0.1, rows=5000), False),  # not felt
        (counted("COPY documents TO STDOUT", calls=60, ms=80, rows=5000), False),
        (counted("FETCH FORWARD 5000 FROM c", calls=60, ms=80, rows=5000), False),
    ],
)
def test_over_fetching(tmp_path: Path, one: Counted, names: bool) -> None:
    assert isinstance(found(tmp_path, "over-fetching", one, *HEALTHY, catalog=WIDE), Finding) is names


def test_over_fetching_sets_bytes_against_the_answer(tmp_path: Path) -> None:
    asked = [row | {"response_bytes": 2000} for row in requests(60)]
    said = found(
        tmp_path, "over-fetching", counted("SELECT * FROM documents", calls=60, ms=8, rows=200), *HEALTHY,
        catalog=WIDE, requests=asked,
    )  # fmt: skip
    assert isinstance(said, Finding)
    assert "about 4.8 MB" in said.evidence[0]  # 200 of 8 + 18 kB + 32 + 6152 bytes
    assert said.evidence[1] == "it has no LIMIT, and it selects every column"
    assert said.evidence[2] == "a request fetches 4.8 MB by it and answers with 2.0 kB (median)"


def test_over_fetching_needs_rows(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, "over-fetching", **traced(10, (HISTORY, 1, 5)))


@pytest.mark.parametrize("cause", ["slow-statement", "frequent-statement", "unstable-statement", "over-fetching"])
def test_without_statements_nothing_is_said(tmp_path: Path, cause: str) -> None:
    with pytest.raises(NotMeasured):
        answer(tmp_path, cause, requests=requests(5))


def test_one_snapshot_alone_says_nothing(tmp_path: Path) -> None:
    first = [row for row in snapshots(*HEALTHY) if row["calls"] == 100]
    with pytest.raises(NotMeasured):
        found(tmp_path, "slow-statement", requests=requests(5), statements=first)


def test_text_that_the_role_may_not_see_is_judged_all_the_same(tmp_path: Path) -> None:
    hidden = [row | {"query": None} for row in snapshots(counted(REPORT, calls=30, ms=1500), *HEALTHY)]
    said = answer(tmp_path, "slow-statement", statements=hidden, requests=requests(60))
    assert isinstance(said, Finding)
    assert "text not visible" in said.title


def test_roles_and_queryids_of_one_statement_are_one(tmp_path: Path) -> None:
    rows = snapshots(counted(HISTORY, calls=60, ms=1), counted(HISTORY.replace("$1", "$9"), calls=60, ms=3, role="job"))
    frame = workload(recording(tmp_path, statements=rows, requests=requests(60)))
    assert (len(frame), frame["calls"].iloc[0], frame["mean_exec_time_ms"].iloc[0]) == (1, 120, 2.0)
    assert frame["stddev_exec_time_ms"].iloc[0] == pytest.approx(1.0)
    assert len(frame["queryids"].iloc[0]) == 2


def test_what_ran_before_the_window_is_not_counted(tmp_path: Path) -> None:
    slow_before = [
        row | {"total_exec_time_ms": row["total_exec_time_ms"] + 1e6} for row in snapshots(*HEALTHY, before=10)
    ]
    assert isinstance(answer(tmp_path, "slow-statement", statements=slow_before, requests=requests(60)), Clear)


@pytest.mark.parametrize(
    ("by", "first"),
    [("total", SEARCH), ("mean", REPORT), ("requests", HISTORY), ("rows", SEARCH), ("spill", REPORT), ("io", ADD)],
)
def test_top_statements_by(tmp_path: Path, by: str, first: str) -> None:
    made = recording(
        tmp_path, requests=requests(60),
        statements=snapshots(
            counted(SEARCH, calls=60, ms=6, rows=12), counted(HISTORY, calls=180, ms=0.3, rows=6),
            counted(ADD, calls=60, ms=0.2, shared_blocks_read=5.0), counted(REPORT, calls=3, ms=90, rows=4, temp_blocks_written=100.0),
            counted("BEGIN", calls=9999, ms=500),
        ),
    )  # fmt: skip
    frame = statements.top_statements(made, by, limit=2)
    assert frame["statement"].iloc[0] == first
    assert len(frame) <= 2
    if by == "spill":
        assert frame["temp_bytes_per_call"].to_list() == [819200.0]


def test_requests_of_one_route_pay_for_what_they_run(tmp_path: Path) -> None:
    rows = traced(10, (HISTORY, 1, 30))
    rows["requests"] += [request(7000 + n, 300, route="/health", trace_id=f"{n + 500:032x}") for n in range(30)]
    frame = workload(recording(tmp_path, **rows))
    assert frame["share_of_wait"].iloc[0] == pytest.approx(300 / 12_000)
