"""Every figure of the area database says what it shows, in words and numbers, and says what it lacks."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import recording
from session_rows import counter, looks
from statement_rows import counted, snapshots, traced
from table_rows import MB, server, table
from test_locks import queue

from perfnb.areas.database import figures
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.widgets import theme
from perfnb.widgets.chart import Chart, Drawn, Missing

SCRIPT = "<script>alert(1)</script>"
ALL = {name: figure for name, figure in vars(figures).items() if isinstance(figure, Drawn)}
OWN = [name for name in ALL if name != "recall_curve"]  # that one is the tuner's, and tested there
HISTORY = "SELECT role, content FROM messages WHERE session_id = $1 ORDER BY id DESC LIMIT $2"
FIRST = f'SELECT body FROM "{SCRIPT}" WHERE id = $1'


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return a recording with something for every figure to draw, scripts in its names."""
    own: Any = {"shared_blocks_read": 30, "shared_blocks_hit": 900, "temp_blocks_written": 8}
    many = [counted(f"SELECT c{n} FROM t WHERE id = $1", calls=5, ms=1, **own) for n in range(20)]
    made = traced(40, (HISTORY, 3, 10), (FIRST, 1, 40), ms=400)
    for row in (activity := queue()):
        row["wait_event"] = f"{row['wait_event']} {SCRIPT}" if row["wait_event"] else None
    tables = [*table("public.messages", dead_rows=50_000, bytes=90 * MB), *table(f"public.{SCRIPT}")]
    return recording(
        tmp_path_factory.mktemp("rich"), activity=activity, catalog=[*server(), *tables],
        statements=snapshots(counted(FIRST, calls=40, ms=40, **own), counted(HISTORY, calls=120, ms=10, **own), *many),
        samples=[*counter("blocks_hit", [0, 900, 1800, 2700]), *counter("blocks_read", [0, 100, 200, 300])], **made,
    )  # fmt: skip


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return recording(tmp_path_factory.mktemp("empty"))


def drawn(recording: Recording, name: str) -> Chart:
    shown = ALL[name].of(recording, Objectives.load())
    assert isinstance(shown, Chart), str(shown)
    return shown


@pytest.mark.parametrize("name", OWN)
def test_a_figure_has_title_units_words_and_numbers(rich: Recording, name: str) -> None:
    chart = drawn(rich, name)
    assert ": " in chart.title, "a title says what is to be seen"
    assert len(chart.alt) > 20
    assert re.search(r"\d", chart.alt)
    assert chart.alt.rstrip(".") != chart.title
    assert "nan" not in f"{chart.title} {chart.alt}".lower()
    assert not chart.frame.empty
    axes = [chart.figure.layout.xaxis.title.text, chart.figure.layout.yaxis.title.text]
    assert any(re.search(r"\((ms|UTC|MiB)\)|calls per|sessions|connections", axis or "") for axis in axes)


@pytest.mark.parametrize("name", ALL)
def test_a_figure_without_evidence_says_what_it_needs(empty: Recording, name: str) -> None:
    missing = ALL[name].of(empty)
    assert isinstance(missing, Missing)
    assert "perfnb " in str(missing) or "perfnb.tuner" in str(missing)


@pytest.mark.parametrize("name", OWN)
def test_names_from_outside_are_no_markup_to_plotly(rich: Recording, name: str) -> None:
    texts = drawn(rich, name).figure.to_json().replace("\\u003c", "<").replace("\\u003e", ">")
    assert SCRIPT not in texts


@pytest.mark.parametrize("name", OWN)
def test_colours_are_those_that_colour_blind_readers_tell_apart(rich: Recording, name: str) -> None:
    figure = drawn(rich, name).figure
    used = {trace.marker.color if trace.type == "bar" else trace.line.color for trace in figure.data}
    assert used <= {*theme.COLOURS, theme.GREY}


@pytest.mark.parametrize("by", figures.RANKINGS)
def test_each_ranking_draws_what_it_ranks_by_with_the_leader_on_top(rich: Recording, by: str) -> None:
    from perfnb.areas.database.workload import top_statements

    frame = top_statements(rich, by)
    chart = figures.statements_by(frame, by)
    column, axis, title = figures.RANKINGS[by]
    (bars,) = chart.figure.data
    assert chart.figure.layout.xaxis.title.text == axis
    assert chart.title.startswith(f"{title}: ")
    assert len(bars.y) == min(len(frame), figures.MOST_ROWS)
    assert len(set(bars.y)) == len(bars.y), "bars of one name would be drawn over one another"
    assert list(bars.x) == sorted(bars.x)
    assert max(bars.x) == frame[column].max()
    assert "statement" in chart.frame


def test_the_text_of_a_bar_is_in_its_hover_and_in_the_numbers(rich: Recording) -> None:
    chart: Any = drawn(rich, "top_statements")
    assert chart.figure.data[0].y[-2] == "read messages by session_id"
    assert "ORDER BY id DESC" in chart.figure.data[0].hovertext[-2].replace("<br>", " ")
    assert HISTORY in list(chart.frame["statement"])


def test_a_statement_nobody_may_read_is_drawn(tmp_path: Path) -> None:
    hidden = recording(tmp_path, statements=snapshots(counted("", calls=10, ms=5)))
    assert "not visible" in drawn(hidden, "top_statements").title


def test_connections_add_up_to_those_that_were_seen(rich: Recording) -> None:
    chart: Any = drawn(rich, "connections_over_time")
    stacked = [trace.y for trace in chart.figure.data if trace.stackgroup]
    assert [sum(each) for each in zip(*stacked, strict=True)] == [8] * 12
    assert chart.title == "Connections over time: at most 8, 1.0 of them idle in a transaction on average"


def test_what_active_sessions_wait_for_is_told_with_its_part(rich: Recording, tmp_path: Path) -> None:
    assert drawn(rich, "waits_by_event").title.startswith("What active sessions wait for: Lock: transactionid")
    running = recording(tmp_path, activity=looks(10, [1], "active"))
    chart = drawn(running, "waits_by_event")
    assert chart.title == "What active sessions wait for: nothing but the processor, 100 % of the times"
    assert chart.alt == "1.00 sessions ran a statement at a moment, on average; they were on the processor."


def test_the_cache_is_told_by_its_part_and_count(rich: Recording) -> None:
    assert drawn(rich, "cache_over_time").title == "Shared buffers: 90 % of 3,000 blocks were there"


def test_the_parts_of_a_table_add_up_to_its_bytes(tmp_path: Path) -> None:
    facts = {
        "bytes": 90 * MB,
        "heap_bytes": 60 * MB,
        "index_bytes": 20 * MB,
        "toast_bytes": 10 * MB,
        "dead_rows": 100_000,
    }
    made = recording(tmp_path, catalog=[*server(), *table("public.messages", **facts)])
    chart: Any = drawn(made, "table_sizes")
    assert sum(trace.x[0] for trace in chart.figure.data) == pytest.approx(90 * MB / 2**20)
    assert chart.title == "Largest tables: messages holds 85.8 MiB"
    assert "33 % of all tables' bytes are dead rows" in chart.alt


def test_what_is_missing_of_a_table_is_drawn_as_nothing(tmp_path: Path) -> None:
    made = recording(tmp_path, catalog=[*server(), *table("t", index_bytes=None, toast_bytes=None, bytes=None)])
    assert "0 B" in drawn(made, "table_sizes").title
    assert not pd.isna(drawn(made, "table_sizes").frame[["live", "dead", "indexes", "other"]]).any().any()
