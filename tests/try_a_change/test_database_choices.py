"""The panel on a real database: choices, estimate, cost, trial, keep, undo, by its live controls too."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "estimates"))

from builders import recording
from database_rows import statement, thing
from servers import postgres_18

from perfnb.errors import NotMeasured, NotPermitted
from perfnb.finding import Finding
from perfnb.incident import Incident
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.target import Target
from perfnb.trials.database import NotConfirmed
from perfnb.trials.shown import trials_of
from perfnb.try_a_change import TryAChange
from perfnb.try_a_change.controls import Controls

BY_SESSION = "SELECT * FROM messages WHERE session_id = $1"
SORT = "SELECT body, count(*) FROM messages GROUP BY body ORDER BY body"
CATALOG = [
    thing("table", "public.messages", pages=500, rows_estimated=40_000.0),
    thing("column", "public.messages.session_id", distinct=400.0),
]


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with postgres_18() as made, psycopg.connect(made, autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN PASSWORD 'x'")
        connection.execute(
            "CREATE TABLE messages AS SELECT i AS id, i % 400 AS session_id, md5(i::text) AS body FROM generate_series(1, 40000) i"
        )
        connection.execute("ANALYZE messages")
        yield made


def built(folder: Path, database: str) -> Recording:
    rows = [
        *statement(BY_SESSION, "1", calls=100, ms=20, shared_blocks_hit=60_000),
        *statement(SORT, "2", calls=5, ms=100, temp_blocks_written=5000),
        *statement("SELECT * FROM notes WHERE lower(author) = $1", "3", calls=1, ms=1),
    ]
    return recording(folder, statements=[row | {"database": database} for row in rows], catalog=CATALOG)


@pytest.fixture
def panel(tmp_path: Path, dsn: str) -> TryAChange:
    made = built(tmp_path, dsn.rpartition("/")[2])
    finding = Finding("", "high", 0.7, (), "CREATE INDEX CONCURRENTLY messages_by_session ON public.messages (session_id);",
                      cause="missing-index", area="database")  # fmt: skip
    return TryAChange(Incident(made, Target(dsn=dsn), Objectives.load(tmp_path)), [finding])


def indexes(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1").fetchall()
    return [row[0] for row in rows]


def test_the_remedy_of_what_was_found_is_chosen_with_its_index_and_statement(panel: TryAChange) -> None:
    assert (panel.chosen.name, panel.chosen.causes) == ("index", ("missing-index",))
    panel.choose("index")
    assert panel.given["index"] == "CREATE INDEX messages_by_session ON public.messages (session_id)"
    assert panel.given["statement"].startswith("1. SELECT * FROM messages WHERE session_id = $1 (80% of the time)")
    assert "time of the statement, mean: 20 ms →" in panel.estimate().text
    assert "per execution" in panel.estimate().html
    assert "yes" in panel.overview().text
    panel.choose("work_mem")
    assert "GROUP BY body" in panel.given["statement"]
    panel.choose("release_connection")
    assert "in the app" in panel.why_not()


@pytest.mark.parametrize(
    ("cause", "frame", "remedy", "index", "place"),
    [
        ("missing-index", {"ddl": ['CREATE INDEX CONCURRENTLY ON "public"."notes" (lower("author"));']}, "x",
         'CREATE INDEX ON "public"."notes" (lower("author"))', 3),
        ("vector-index-missing", None, "CREATE INDEX CONCURRENTLY ON public.d USING hnsw ((e::halfvec(3000)) halfvec_l2_ops), and search",
         "CREATE INDEX ON public.d USING hnsw ((e::halfvec(3000)) halfvec_l2_ops)", 1),
        ("missing-index", None, "look at it", "CREATE INDEX ON public.messages (session_id)", 1),
        ("sort-spill", None, "CREATE INDEX ON t (x)", "CREATE INDEX ON public.messages (session_id)", 1),
    ],
)  # fmt: skip
def test_the_index_is_the_one_a_finding_names_else_the_one_that_is_missing(
    tmp_path: Path, cause: str, frame: dict[str, list[str]] | None, remedy: str, index: str, place: int
) -> None:
    rows = None if frame is None else pd.DataFrame(frame)
    finding = Finding("", "high", 0.7, (), remedy, cause=cause, area="database", frame=rows)
    panel = TryAChange(Incident(built(tmp_path, "desk"), Target(), Objectives.load(tmp_path)), [finding])
    panel.choose("index")
    assert panel.given["index"] == index
    assert panel.given["statement"].startswith(f"{place}.")


def test_an_index_is_tried_once_its_cost_is_said_yes_to_then_kept_and_undone(panel: TryAChange, dsn: str) -> None:
    panel.choose("index")
    assert panel.why_not() == ""
    assert "Writes to the table wait" in panel.cost()
    with pytest.raises(NotConfirmed):
        panel.run(panel.plan(10), 1.0, lambda told: None)
    panel.is_accepted = True
    result = panel.run(panel.plan(10), 1.0, lambda told: None)
    assert (result.outcome, result.mode) == ("better", "rolled back")
    assert result["statement_ms"].predicted_high is not None
    assert trials_of(panel.incident.recording) == [result]
    assert "to be tried: Add an index" in " ".join(panel.incident.timeline()["title"])
    assert "instead of Seq Scan" in panel.compared().text
    assert indexes(dsn) == []
    assert "Reads and writes go on" in panel.cost(to_keep=True)
    assert "messages_by_session" in panel.keep()
    assert indexes(dsn) == ["messages_by_session"]
    assert panel.undo() == "postgres.index: index messages_by_session is dropped"
    assert indexes(dsn) == []


def test_a_setting_is_tried_kept_for_the_statements_role_and_undone(panel: TryAChange, dsn: str) -> None:
    panel.choose("work_mem")
    panel.given["megabytes"] = 48
    assert panel.cost() == ""
    assert panel.run(panel.plan(10), 1.0, lambda told: None).value == {"work_mem": "48MB"}
    assert "new sessions have work_mem 48MB (as the catalog says)" in panel.keep()
    with psycopg.connect(dsn) as connection:
        (held,) = connection.execute(
            "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'app'::regrole"
        ).fetchone()
    assert held == ["work_mem=48MB"]
    assert panel.idle_sessions() == 0
    assert panel.end_idle_sessions().startswith("0 idle sessions")
    assert "as it was: not set" in panel.undo()


def test_any_other_setting_and_a_statement_of_ones_own(panel: TryAChange) -> None:
    panel.choose("postgres.setting")
    panel.given |= {
        "setting": "enable_seqscan",
        "value": "off",
        "own": "SELECT id FROM messages WHERE body = $1",
        "values": '["x"]',
    }
    assert "Nothing estimates what a setting of the database does" in panel.estimate().text
    result = panel.run(panel.plan(10), 1.0, lambda told: None)
    assert (result.statement, result.value) == ("SELECT id FROM messages WHERE body = $1", {"enable_seqscan": "off"})
    panel.choose("index")
    panel.given["own"] = "SELECT 1"
    assert "nothing was recorded of a statement that is typed in" in panel.estimate().text
    panel.given |= {"own": "", "statement": "", "how": panel.given["how"]}
    panel.is_accepted = True
    with pytest.raises(NotMeasured, match="no statement is chosen"):
        panel.run(panel.plan(10), 1.0, lambda told: None)


def test_without_a_dsn_it_is_said_how_to_name_one(tmp_path: Path) -> None:
    made = built(tmp_path, "desk")
    panel = TryAChange(Incident(made, Target(), Objectives.load(tmp_path)), [])
    for name in ("index", "work_mem", "postgres.setting"):
        panel.choose(name)
        assert "set PERFNB_DSN" in panel.why_not()
    assert "time of the statement" in (panel.choose("index"), panel.estimate().text)[1]


def test_a_role_that_may_not_is_told(tmp_path: Path, dsn: str) -> None:
    mine = psycopg.conninfo.make_conninfo(dsn, user="app", password="x")
    panel = TryAChange(Incident(built(tmp_path, "desk"), Target(dsn=mine), Objectives.load(tmp_path)), [])
    panel.choose("index")
    with pytest.raises(NotPermitted, match="only postgres may index"):
        panel.cost()


def wait_for(claim: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_controls_ask_before_they_try_and_before_they_keep(panel: TryAChange, dsn: str) -> None:
    controls = Controls(panel)
    assert controls.rate.layout.display == "none"
    assert controls.accept.layout.display == "none"
    assert "one statement" in controls.said.value

    def pressed(button: str) -> str:
        {"try": controls._start, "keep": controls._start_keeping}[button]()
        wait_for(lambda: not controls._is_running)
        return str(controls.said.value)

    assert "press Try it again" in pressed("try")
    assert controls.accept.layout.display == ""
    controls.accept.value = True
    assert "better, time of the statement" in pressed("try")
    assert "press Keep again" in pressed("keep")
    assert indexes(dsn) == []
    controls.accept.value = True
    assert "is built" in pressed("keep")
    assert controls.end_idle.layout.display == "none"
    controls.undo.click()
    assert "is dropped" in controls.said.value
    assert indexes(dsn) == []
    controls.change.value = "work_mem"
    assert not panel.is_accepted
    controls.change.value = "output_cap"
    assert controls.rate.layout.display == ""
