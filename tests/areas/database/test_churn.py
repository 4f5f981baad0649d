"""Sessions that come and go: which programs' they are, and whether requests use them."""

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from builders import Row, recording, request, span
from session_rows import counter, looks, moment, session

from perfnb.areas.database.churn import Churn, Program, churn
from perfnb.areas.database.connections import no_connection_pool
from perfnb.errors import NotMeasured
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives

OBJECTIVES = Objectives.load(Path(__file__).parent)
READ = "SELECT title FROM documents WHERE id = $1"
REPORT = "SELECT sum(length(body)) FROM documents GROUP BY module"

# 60 sessions in 20 s come and go.
COUNTERS = counter("sessions", [0, 15, 30, 45, 60]) + counter("connections", [3, 4, 3, 4, 3])


def asked(gap_ms: float = 0) -> list[Row]:
    """Return 20 requests in 20 s, one after another with ``gap_ms`` between."""
    return [request(turn * 1000.0, 1000 - gap_ms, trace_id=f"t{turn}") for turn in range(20)]


def traced(statement: str = READ) -> list[Row]:
    return [
        row
        for turn in range(20)
        for row in (
            span("GET /chat", turn * 1000.0, 900, trace=f"t{turn}", kind="SERVER", operation="server"),
            span("SELECT", turn * 1000.0 + 10, 5, trace=f"t{turn}", operation="database", statement=statement),
        )
    ]


def short(count: int = 20, *, after_ms: float = 500, age_ms: float = 250, **columns: Any) -> list[Row]:
    """Return sessions that are seen once each, ``after_ms`` into a second; the looks at them are those of ``kept``."""
    ages = {"session_start": 0}
    return [
        session(turn * 1000.0 + after_ms, 500 + turn, "active", **(ages | columns | {"session_start": moment(turn * 1000.0 + after_ms - age_ms)}))
        for turn in range(1, count - 1)
    ]  # fmt: skip


def kept(after_ms: float = 500, **columns: Any) -> list[Row]:
    """Return sessions of a pool, which work."""
    return [
        row | {"time": row["time"] + moment(after_ms) - moment(0)} for row in looks(20, [1, 2], "active", **columns)
    ]


def of(folder: Path, *activity: list[Row], **tables: Any) -> tuple[Churn, Any]:
    made = recording(
        folder,
        activity=list(chain(*activity)),
        **({"requests": asked(), "samples": COUNTERS, "spans": traced()} | tables),
    )
    return churn(made), lambda: no_connection_pool(made, OBJECTIVES)


def programs(found: Churn) -> dict[str, Program]:
    return {program.owner: program for program in found.programs}


class TestWithTraces:
    def test_reports_that_connect_anew_are_not_the_requests(self, tmp_path: Path) -> None:
        found, check = of(tmp_path, kept(), short(application="report", query=REPORT))
        report = programs(found)["app@shop report"]
        assert (report.seen, report.serves, report.statement) == (18, False, REPORT)
        assert report.most == pytest.approx(18 * 1000 / 250)
        assert found.ended == 60
        assert found.per_request == 0
        answer = check()
        assert isinstance(answer, Clear)
        assert "left out as no request's: app@shop report (up to 72)" in answer.examined

    def test_sessions_that_run_what_requests_ask_are_theirs(self, tmp_path: Path) -> None:
        found, check = of(tmp_path, kept(query=REPORT, application="worker"), short())
        assert programs(found)["app@shop"].serves is True
        assert found.per_request == 3
        assert isinstance(check(), Finding)

    def test_the_apps_own_remain_when_a_strangers_are_taken_off(self, tmp_path: Path) -> None:
        found, check = of(tmp_path, kept(), short(age_ms=600, application="report", query=REPORT), short(age_ms=5))
        assert found.ended_for_requests == pytest.approx(60 - 18 * 1000 / 600)
        answer = check()
        assert isinstance(answer, Finding)
        assert "1.5 database connections" in answer.title
        assert "report (up to 30)" in answer.evidence[0]

    def test_a_program_with_the_apps_name_is_known_by_what_it_runs(self, tmp_path: Path) -> None:
        found, check = of(tmp_path, kept(), short(query=REPORT))
        assert programs(found)["app@shop"].serves is False
        assert isinstance(check(), Clear)

    @pytest.mark.parametrize(("seen", "serves"), [(2, None), (3, False)])
    def test_edge_of_three_strange_ones(self, tmp_path: Path, seen: int, serves: bool | None) -> None:
        found, _ = of(tmp_path, kept(), short(seen + 2, application="report", query=REPORT))
        assert programs(found)["app@shop report"].serves is serves

    def test_what_was_cut_off_or_is_housekeeping_tells_nothing(self, tmp_path: Path) -> None:
        cut = "SELECT " + ", ".join(f"column_{number}" for number in range(120))
        for name, query in {"cut": cut, "commit": "COMMIT", "hidden": None}.items():
            found, _ = of(tmp_path / name, kept(), short(application="report", query=query))
            assert programs(found)["app@shop report"].serves is None, name


class TestWithoutTraces:
    def test_what_lives_while_nobody_asks_is_no_requests(self, tmp_path: Path) -> None:
        idle = short(after_ms=900, application="report", query=REPORT)
        found, check = of(tmp_path, kept(900), idle, requests=asked(gap_ms=600), spans=[])
        assert programs(found)["app@shop report"].serves is False
        assert isinstance(check(), Clear)

    def test_what_lives_within_requests_may_be_theirs(self, tmp_path: Path) -> None:
        found, check = of(tmp_path, short(), spans=[])
        assert programs(found)["app@shop"].serves is None
        assert isinstance(check(), Finding)

    def test_nobody_knows_whose_they_are_where_another_programs_sessions_last(self, tmp_path: Path) -> None:
        found, check = of(tmp_path, kept(), short(application="report", query=REPORT), spans=[])
        assert [program.owner for program in found.doubtful] == ["app@shop report"]
        with pytest.raises(NotMeasured, match="short sessions of app@shop report") as caught:
            check()
        assert "--otlp" in str(caught.value.hint)


def test_sessions_that_are_still_logging_in_have_no_program_yet(tmp_path: Path) -> None:
    found, _ = of(tmp_path, kept(), short(role=None, database=None, application=None, query=None))
    assert set(programs(found)) == {"app@shop"}


def test_a_role_that_may_not_see_what_sessions_do_counts_them_all_the_same(tmp_path: Path) -> None:
    hidden = [row | {"state": None, "query": None, "backend": None} for row in kept() + short(application="report")]
    found, check = of(tmp_path, hidden)
    assert found.programs == ()
    assert isinstance(check(), Finding)


def test_before_version_14_a_strangers_are_taken_off_as_they_were_seen(tmp_path: Path) -> None:
    found, check = of(tmp_path, kept(), short(application="report", query=REPORT, age_ms=20), samples=[])
    assert (found.seen_by, found.ended, found.ended_for_requests) == ("looks", 18, 0)
    assert isinstance(check(), Clear)


def test_without_looks_all_sessions_may_be_the_requests(tmp_path: Path) -> None:
    made = recording(tmp_path, requests=asked(), samples=COUNTERS)
    assert churn(made).programs == ()
    assert churn(made).per_request == 3
