"""Every cell of the notebook on the database shows something readable of any recording, and says first whether it is the database."""

from pathlib import Path
from typing import Any

import pytest
from builders import every, recording, request
from session_rows import counter, looks
from statement_rows import counted, snapshots, traced
from table_rows import MB, columns, foreign_key, index, primary, server, settings, table
from test_locks import queue

from perfnb.areas.database import overview, panel
from perfnb.areas.database.calculator import PoolCalculator
from perfnb.areas.database.names import headline, headlines
from perfnb.areas.database.vector_tuner import VectorTuner
from perfnb.checklist import checks_felt_in, run
from perfnb.finding import Finding
from perfnb.incident import Incident
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.target import Target
from perfnb.widgets.cards import FINDINGS_MIME
from perfnb.widgets.choose import Chooser

SCRIPT = "<script>alert(1)</script>"
HISTORY = "SELECT role, content FROM messages WHERE session_id = $1 ORDER BY id DESC LIMIT $2"
SEARCH = "SELECT id, body FROM documents ORDER BY embedding <=> $1::vector LIMIT $2"
ODD = f'SELECT * FROM "{SCRIPT}" WHERE a = $1'
PLAN = {"Plan": {"Node Type": "Seq Scan", "Relation Name": f"messages {SCRIPT}", "Startup Cost": 0.0, "Total Cost": 1873.0,
                  "Plan Rows": 298, "Plan Width": 40, "Filter": "(session_id = $1)"}}  # fmt: skip
CELLS = [
    name
    for name, function in vars(panel).items()
    if not name.startswith("_")
    and callable(function)
    and getattr(function, "__annotations__", {}).get("incident")
    and name != "try_a_change"  # a live panel, tested where it is made
]


def incident(made: Recording) -> Incident:
    return Incident(made, Target(), Objectives.load())


def plan(query: str, origin: str = "generic") -> dict[str, Any]:
    return {
        "time": 1_790_000_000_000_000_000, "server": "127.0.0.1:5432", "query": query, "origin": origin,
        "plan": PLAN, "duration_ms": None,
    }  # fmt: skip


def catalog() -> list[dict[str, Any]]:
    vectors = {"embedding": {"type": "vector(256)", "position": 2}}
    return [
        *server(version="18.1", version_num=180001),
        *settings(shared_buffers="16384", maintenance_work_mem="65536", max_connections="60"),
        *table("public.messages", grown={"sequential_scans": 3, "inserted": 40}, bytes=90 * MB, options={"autovacuum_enabled": "false"}),
        *table("public.documents", last_autovacuum_at=1_790_000_000_000_000_000),
        *columns("public.documents", id={}, **vectors),
        *primary("public.messages"),
        *index("public.documents_embedding", "public.documents", "embedding", method="hnsw", opclasses=["vector_cosine_ops"], options={}),
        *index("public.broken", "public.documents", "title", is_valid=False),
        *foreign_key("public.messages", "session_id", "public.sessions"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return a recording with something for every cell, scripts in its names."""
    made = traced(40, (HISTORY, 2, 40), (SEARCH, 1, 5))
    statements = [
        counted(HISTORY, calls=80, ms=40, rows=6, temp_blocks_written=8, shared_blocks_read=30, shared_blocks_hit=900),
        counted(SEARCH, calls=40, ms=5, rows=12), counted(ODD, calls=3, ms=0.031),
    ]  # fmt: skip
    return recording(
        tmp_path_factory.mktemp("rich"), statements=snapshots(*statements), catalog=catalog(), activity=queue(),
        plans=[plan(HISTORY), plan(SEARCH), plan(ODD), plan(HISTORY, "auto_explain")],
        samples=[*counter("blocks_hit", [0, 900, 2000, 5000]), *counter("blocks_read", [0, 10, 20, 30])], **made,
    )  # fmt: skip


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return recording(tmp_path_factory.mktemp("empty"))


def bundle_of(shown: Any) -> dict[str, Any]:
    parts = {Chooser: "chart", PoolCalculator: "answer"}
    shown = getattr(shown, parts[type(shown)]) if type(shown) in parts else shown
    shown = shown.result() if isinstance(shown, VectorTuner) else shown
    bundle = shown._repr_mimebundle_()
    data: dict[str, Any] = bundle[0] if isinstance(bundle, tuple) else bundle
    return data


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_shows_something_readable_of_any_recording(rich: Recording, empty: Recording, name: str) -> None:
    for made in (rich, empty):
        shown: Any = getattr(panel, name)(incident(made))
        if isinstance(shown, str):
            assert shown.strip()
            continue
        data = bundle_of(shown)
        assert data["text/plain"].strip()
        assert SCRIPT not in data["text/html"]
        assert "<td>nan</td>" not in data["text/html"].lower()
        assert "<td>none</td>" not in data["text/html"].lower()
        if isinstance(shown, Chooser):
            assert all(bundle_of(shown.draw(key))["text/plain"].strip() for key in shown.options.values())


@pytest.mark.parametrize(
    "name",
    ["overview", "top", "statements", "waits_for_what", "index_inventory", "table_inventory", "plans", "vectors",
     "pool", "connections_over_time", "waits_by_event", "cache_over_time", "table_sizes"],
)  # fmt: skip
def test_a_cell_without_evidence_says_how_to_get_it(empty: Recording, name: str) -> None:
    text = str(getattr(panel, name)(incident(empty)))
    assert "perfnb record" in text or "perfnb.tuner" in text or "no column" in text.lower() or "neither" in text, text


def test_the_overview_says_first_whether_it_is_the_database(rich: Recording) -> None:
    first, *tiles = str(panel.overview(incident(rich))).splitlines()
    assert first.startswith("Is it the database? Yes: about ")
    assert "look first at " in first
    said = "\n".join(tiles)
    assert tiles[0].startswith("of users' wait: 28 %")
    assert "statements: 123 (3 different)" in said
    assert "waiting for a lock: 3 (sessions at most)" in said
    assert "PostgreSQL: 18.1 (desk)" in said


def found(cause: str, severity: Any, share: float, symptom: str = "latency") -> Finding:
    return Finding("Told.", severity, share, ("seen",), "Mend it.", cause=cause, symptom=symptom)


HELD = found("pool-exhausted", "critical", 0.9)
SEQUENTIAL = found("missing-index", "high", 0.97, "database time")


@pytest.mark.parametrize(
    ("waited", "findings", "said"),
    [
        (0.01, [], "Hardly: about 1 % of the users' wait; no cause was found there."),
        (0.0, [], "Hardly: about 0 % of the users' wait; no cause was found there."),
        (0.6, [], "Yes: about 60 % of the users' wait; no cause was found there."),
        (0.07, [SEQUENTIAL], "In part: about 7 % of the users' wait; look first at missing-index (high)."),
        (0.02, [SEQUENTIAL], "Hardly: about 2 % of the users' wait; look first at missing-index (high)."),
        (0.02, [SEQUENTIAL, HELD], "Yes: about 90 % of the users' wait; look first at pool-exhausted (critical) and missing-index (high)."),
        (None, [], "Not known: requests and what they ask the database were not seen together (it takes traces); no cause was found there."),
        (None, [HELD], "Yes: about 90 % of the users' wait; look first at pool-exhausted (critical)."),
        (0.01, [found("stale-connections", "high", 0.1, "errors")],
         "In part: 10 % of the failed requests and about 1 % of the users' wait; look first at stale-connections (high)."),
    ],
)  # fmt: skip
def test_the_verdict_weighs_statements_and_what_waits_for_none(
    waited: float | None, findings: list[Finding], said: str
) -> None:
    assert overview.verdict(waited, findings) == said


def test_a_server_that_counts_no_statements_says_so_on_a_tile(tmp_path: Path) -> None:
    missing = server(version="18.1", version_num=180001, statements_missing="pg_stat_statements is not loaded")
    text = str(panel.overview(incident(recording(tmp_path, catalog=missing))))
    assert "pg_stat_statements is not loaded" in text


def test_statements_are_shown_with_their_text_and_few_columns(rich: Recording) -> None:
    shown: Any = panel.statements(incident(rich))
    assert list(shown.frame.columns) == ["statement", "calls", "time_ms", "share", "mean_ms", "p95_at_most_ms", "rows", "per_request"]  # fmt: skip
    assert HISTORY in shown.text
    assert shown.frame["per_request"].iloc[0] == 2


def test_what_is_not_known_of_any_statement_is_no_column(tmp_path: Path) -> None:
    made = recording(tmp_path, statements=snapshots(counted(HISTORY, calls=10, ms=2)))
    assert "per_request" not in panel.statements(incident(made)).text


def test_statements_lead_by_what_there_is_of_them(rich: Recording, tmp_path: Path) -> None:
    shown = panel.top(incident(rich))
    assert isinstance(shown, Chooser)
    assert list(shown.options) == list(panel.RANKED)
    fewer = panel.top(incident(recording(tmp_path, statements=snapshots(counted(HISTORY, calls=10, ms=2)))))
    assert isinstance(fewer, Chooser)
    assert list(fewer.options) == ["Time in all", "Mean time", "Rows per call"]


def test_no_statement_in_the_window_is_said(tmp_path: Path) -> None:
    idle = recording(tmp_path, statements=snapshots(counted(HISTORY, calls=0, ms=2)))
    assert "No statement ran" in str(panel.top(incident(idle)))
    assert "No statement ran" in str(panel.statements(incident(idle)))


def test_the_queue_is_drawn_as_a_tree_from_its_head(rich: Recording, tmp_path: Path) -> None:
    shown: Any = panel.waits_for_what(incident(rich))
    assert [name.strip() for name in shown.frame["session"]] == ["1", "└ 2", "└ 3", "└ 4"]
    assert shown.frame["state"].iloc[0] == "idle in transaction"
    assert "holds up 3 sessions" in shown.text
    calm = recording(tmp_path, activity=looks(10, [1, 2]))
    assert "No session waited" in str(panel.waits_for_what(incident(calm)))


def test_indexes_and_tables_are_told_in_words_a_reader_needs(rich: Recording) -> None:
    kept: Any = panel.index_inventory(incident(rich))
    rows = kept.frame.set_index("index")
    assert rows.loc["messages_pkey", "on"] == "messages (id)"
    assert "the primary key" in rows.loc["messages_pkey", "leans_on_it"]
    assert "broken (invalid)" in rows.index
    assert rows.loc["messages_pkey", "size"] == "4.8\u00a0MiB"
    tables: Any = panel.table_inventory(incident(rich))
    rows = tables.frame.set_index("table")
    assert list(rows.index) == ["messages (autovacuum off)", "documents"]
    assert rows.loc["messages (autovacuum off)", "last_vacuum"] == "never"
    assert rows.loc["documents", "last_vacuum"] == "2026\u201109\u201121\u00a014:13"


def test_each_plan_can_be_chosen_by_what_its_statement_does_and_shows_its_text(rich: Recording, tmp_path: Path) -> None:
    shown = panel.plans(incident(rich))
    assert isinstance(shown, Chooser)
    assert len(shown.options) == 4
    assert next(iter(shown.options)).startswith("read messages by session_id, as ")
    first: Any = shown.draw("0")
    assert HISTORY in first.text
    assert "Seq Scan" in first.text
    torn = recording(tmp_path, plans=[plan(HISTORY) | {"plan": {"no": "plan"}}])
    assert "No plan was recorded" in str(panel.plans(incident(torn)))


def test_vectors_are_told_with_the_memory_of_their_indexes(rich: Recording) -> None:
    text = panel.vectors(incident(rich)).text
    assert "Columns of vectors" in text
    assert "documents_embedding" in text
    assert "127.0.0.1" not in text, "one server needs no column"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (HISTORY, "read messages by session_id"),
        (SEARCH, "search documents by embedding"),
        ("SELECT id FROM documents WHERE tenant = $1 ORDER BY embedding <=> $2 LIMIT 5", "search documents by embedding, tenant"),
        ("INSERT INTO sessions (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET at = now()", "insert sessions"),
        ("DELETE FROM public.documents WHERE module = $1 AND title = $2", "delete documents by module, title"),
        ("UPDATE sessions SET at = now() WHERE id = $1", "update sessions by id"),
        ("SELECT count(*) FROM orders", "count orders"),
        ("SELECT * FROM orders ORDER BY created_at LIMIT 5", "read orders, first by created_at"),
        ("SELECT 1 FROM a, b, c, d", "read a, b + 2"),
        ("SELECT now()", "SELECT now()"),
        ("SELECT cut off in the", "SELECT cut off in the"),
        ("", "(text not visible to this role)"),
    ],
)  # fmt: skip
def test_a_statement_is_named_by_what_it_does(statement: str, said: str) -> None:
    assert headline(statement) == said


def test_statements_that_do_alike_are_told_apart() -> None:
    other = HISTORY.replace("role, content", "id")
    assert headlines([HISTORY, other, HISTORY]) == [
        "read messages by session_id", "read messages by session_id (2)", "read messages by session_id"
    ]  # fmt: skip


def test_the_pool_begins_with_what_was_measured(tmp_path: Path) -> None:
    activity = [*looks(20, [1], "active"), *looks(20, [2, 3])]
    made = recording(tmp_path, activity=activity, requests=every(500, 40, lambda at: request(at, 400)))
    shown = panel.pool(incident(made))
    assert isinstance(shown, PoolCalculator)
    assert shown.demand.open_peak == 3


def test_the_checklist_publishes_its_findings_as_data(rich: Recording) -> None:
    one = incident(rich)
    data = panel.checklist(one)._repr_mimebundle_()[FINDINGS_MIME]
    assert data == one.checklist("database").as_dict(rich)


def test_a_database_that_moved_to_another_server_meanwhile_is_judged_as_well(tmp_path: Path) -> None:
    both = [row | {"server": name} for name in ("first:5432", "second:5432") for row in catalog()]
    counts = [row | {"server": name} for name in ("first:5432", "second:5432")
              for row in snapshots(counted(HISTORY, calls=80, ms=40, rows=6), counted(SEARCH, calls=40, ms=5, rows=12))]  # fmt: skip
    made = recording(tmp_path, statements=counts, catalog=both, activity=queue(), **traced(40, (HISTORY, 2, 40)))
    answers = run(made, area="database")
    assert len(answers.findings) + len(answers.clear) + len(answers.not_measured) == len(checks_felt_in("database"))
