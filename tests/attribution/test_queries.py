from pathlib import Path

import pytest
from builders import call, recording, request, span
from hypothesis import given
from hypothesis import strategies as st
from statement_rows import counted, query_span, requests, snapshots, traced

from perfnb.attribution.queries import (
    BY_COUNTS,
    ONE_AT_A_TIME,
    calls_per_request,
    prepare_queries,
    sees_queries,
)
from perfnb.attribution.shapes import shape_of
from perfnb.errors import NotMeasured

READ = "SELECT name FROM authors WHERE id = %s"
LIST = "SELECT id, author_id FROM posts LIMIT 20"


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN", "begin isolation level serializable", "COMMIT", "ROLLBACK", "ROLLBACK TO SAVEPOINT $1", "RELEASE sp",
        "DISCARD ALL", "RESET ALL", "SET application_name = $1", "SET LOCAL statement_timeout TO $1", "SHOW timezone",
        "DEALLOCATE $1", "DEALLOCATE ALL", "SELECT 1", "select $1", "SELECT", "SELECT 1 AS one;", "-- ping\nSELECT 1",
        "/* pool */ SELECT %s", "select pg_catalog.version()", "SELECT current_schema()", "SELECT pg_is_in_recovery()",
        "SELECT set_config($1, $2, $3)", "SELECT typname, oid FROM pg_type WHERE typname = $1", "LISTEN jobs",
        "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
        "SELECT version_num FROM alembic_version", "SELECT * FROM pg_stat_activity",
        "SELECT column_name FROM information_schema.columns WHERE table_name = $1",
    ],
)  # fmt: skip
def test_housekeeping_is_no_work(text: str) -> None:
    assert not shape_of(text).is_work


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (READ, "select"),
        ("SELECT count(*) FROM beginners", "select"),
        ("WITH x AS (SELECT id FROM t) SELECT * FROM x", "select"),
        ("SELECT t.oid FROM t JOIN pg_class c ON c.oid = t.oid", "select"),
        ("INSERT INTO sets (a) VALUES ($1)", "insert"),
        ("update t set a = $1 where id = $2", "update"),
        ("DELETE FROM t WHERE id = ANY($1)", "delete"),
        ("VACUUM t", "other"),
        ("COPY t TO STDOUT", "other"),
        ("SELECT * FROM t WHERE a @@@ nonsense ((", "select"),  # can't be read, so its words tell
    ],
)
def test_work_has_a_kind(text: str, kind: str) -> None:
    shape = shape_of(text)
    assert shape.is_work
    assert shape.kind == kind


@pytest.mark.parametrize("text", ["GET session:4711", "HGETALL x", "{'find': 'users'}", ""])
def test_commands_of_other_stores_are_no_statements(text: str) -> None:
    assert not shape_of(text).is_work


@pytest.mark.parametrize("placeholder", ["$1", "%s", "%(id)s", ":id", "?", "42", "'42'"])
@pytest.mark.parametrize("text", ["SELECT a, b FROM t WHERE id = {} ", "select  a,b from t\nwhere id = {} -- by id"])
def test_a_statement_is_the_same_whatever_its_parameters_look_like(text: str, placeholder: str) -> None:
    assert shape_of(text.format(placeholder)).key == shape_of("SELECT a, b FROM t WHERE id = $1").key


@pytest.mark.parametrize(
    "other", ["SELECT a FROM t WHERE id = $1", "SELECT a, b FROM t WHERE ref = $1", "SELECT a, b FROM u WHERE id = $1"]
)
def test_different_statements_have_different_shapes(other: str) -> None:
    assert shape_of(other).key != shape_of("SELECT a, b FROM t WHERE id = $1").key


@given(st.text(max_size=200))
def test_any_text_has_a_shape(text: str) -> None:
    assert isinstance(shape_of(text).key, str)


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=40))
def test_the_length_of_a_list_makes_no_other_statement(ids: list[int]) -> None:
    listed = ", ".join(map(str, ids))
    assert (
        shape_of(f"SELECT a FROM t WHERE id IN ({listed})").key == shape_of("SELECT a FROM t WHERE id IN ($1, $2)").key
    )


def test_traces_tell_exactly_what_each_request_runs(tmp_path: Path) -> None:
    rows = traced(10, (LIST, 1, 4), (READ, 6, 1), ("BEGIN", 3, 0.1))
    made = recording(tmp_path, **rows)
    assert sees_queries(made)
    frame = calls_per_request(made).set_index("statement")
    assert frame["calls_per_request"].to_dict() == {LIST: 1.0, READ: 6.0}
    assert frame["ms_per_request"].to_dict() == {LIST: 4.0, READ: 6.0}
    assert frame["in_loop"].to_dict() == {LIST: 0, READ: 60}
    assert set(frame["certainty"]) == {1.0}
    queries = made.query(
        "SELECT * FROM request_queries WHERE request_id = $id ORDER BY start_time",
        {"id": rows["requests"][0]["request_id"]},
    )
    assert list(queries["start_ms"].round(3))[:3] == [5.0, 10.0, 12.0]
    assert list(queries["repeats"]) == [1] + [6] * 6


@pytest.mark.parametrize(("pause_ms", "loops"), [(1, True), (200, True), (400, False)])
def test_polling_is_no_loop(tmp_path: Path, pause_ms: float, loops: bool) -> None:
    made = recording(tmp_path, **traced(4, (READ, 8, 1), ms=4000, pause_ms=pause_ms))
    assert bool(calls_per_request(made)["in_loop"].iloc[0] > 0) is loops


def test_what_an_agent_reads_once_a_turn_is_no_loop(tmp_path: Path) -> None:
    trace = "a" * 32
    calls = [call(100 * turn, 50, trace_id=trace) for turn in range(8)]
    spans = [query_span(READ, 100 * turn + 60, 2, trace=trace, name=f"q{turn}") for turn in range(8)]
    spans.append(span("POST /chat", 0, 900, trace=trace, kind="SERVER", operation="server"))
    made = prepare_queries(recording(tmp_path, requests=[request(0, 900, trace_id=trace)], calls=calls, spans=spans))
    frame = made.query("SELECT DISTINCT turn, repeats FROM request_queries ORDER BY turn")
    assert list(frame["turn"]) == list(range(1, 9))
    assert set(frame["repeats"]) == {1}


@pytest.mark.parametrize("above", ["beside", "parent"])
def test_a_statement_that_library_and_driver_both_show_counts_once(tmp_path: Path, above: str) -> None:
    rows = traced(3, (READ, 5, 2))
    doubles = []
    for one in [row for row in rows["spans"] if row.get("statement")]:
        outer = one | {"span_id": f"{one['span_id']}-outer", "name": "SELECT desk", "duration_ms": 2.6}
        outer["start_time"] = one["start_time"] - 200_000
        doubles.append(outer)
        if above == "parent":
            one["parent_span_id"] = outer["span_id"]
    rows["spans"] += doubles
    assert calls_per_request(recording(tmp_path, **rows))["calls_per_request"].to_list() == [5.0]


def test_statements_side_by_side_count_each(tmp_path: Path) -> None:
    rows = traced(3, (READ, 5, 2), pause_ms=-1.5)
    assert calls_per_request(recording(tmp_path, **rows))["calls_per_request"].to_list() == [5.0]


def test_requests_without_a_statement_count_and_those_not_traced_do_not(tmp_path: Path) -> None:
    rows = traced(4, (READ, 6, 1))
    rows["requests"] += [request(9000, 300, trace_id="f" * 32), request(9500, 300, trace_id="e" * 32)]
    rows["spans"].append(span("POST /chat", 9000, 300, trace="f" * 32, kind="SERVER", operation="server"))
    frame = calls_per_request(recording(tmp_path, **rows))
    assert (frame["requests"].iloc[0], round(frame["calls_per_request"].iloc[0], 2)) == (5, 4.8)


def test_counters_tell_by_requests_that_come_one_at_a_time(tmp_path: Path) -> None:
    made = recording(
        tmp_path,
        statements=snapshots(
            counted("SELECT 1 FROM t WHERE id = $1", calls=120, ms=2), counted("COMMIT", calls=999, ms=1)
        ),
        requests=requests(60, ms=200),
    )
    frame = calls_per_request(made)
    assert (len(frame), frame["calls_per_request"].iloc[0]) == (1, 2.0)
    assert (frame["certainty"].iloc[0], frame["seen_by"].iloc[0], frame["route"].iloc[0]) == (
        ONE_AT_A_TIME,
        "counters",
        "/chat",
    )
    assert frame["ms_per_request"].iloc[0] == 4.0


def test_counters_beside_overlapping_requests_are_less_sure(tmp_path: Path) -> None:
    made = recording(tmp_path, statements=snapshots(counted(READ, calls=120, ms=2)), requests=requests(60, ms=900))
    assert calls_per_request(made)["certainty"].to_list() == [BY_COUNTS]


def test_what_runs_without_requests_is_not_theirs(tmp_path: Path) -> None:
    rows = snapshots(counted(READ, calls=240, ms=1), seconds=40, steps=8)
    made = recording(tmp_path, statements=rows, requests=requests(20, seconds=20, ms=200))
    assert calls_per_request(made).empty  # six a second, with requests and without


def test_routes_that_have_snapshots_to_themselves_are_told_apart(tmp_path: Path) -> None:
    first = snapshots(counted(READ, calls=100, ms=1), counted(LIST, calls=0, ms=1), seconds=10, steps=2)
    last = [
        row | {"calls": 300, "total_exec_time_ms": 300.0, "time": row["time"] + 10 * 10**9}
        for row in first
        if row["query"] == LIST and row["time"] > first[0]["time"]
    ][-1:]
    made = recording(
        tmp_path, statements=first + last,
        requests=requests(20, seconds=10, ms=100) + [request(10_000 + 200 * n, 100, route="/list") for n in range(40)],
    )  # fmt: skip
    frame = calls_per_request(made).set_index(["route", "statement"])["calls_per_request"]
    assert frame.to_dict() == {("/chat", READ): 5.0, ("/list", LIST): 5.0}


@pytest.mark.parametrize("tables", [{"requests": requests(5)}, {"statements": snapshots(counted(READ, calls=5, ms=1))}])
def test_both_sides_are_needed(tmp_path: Path, tables: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(NotMeasured):
        calls_per_request(recording(tmp_path, **tables))
