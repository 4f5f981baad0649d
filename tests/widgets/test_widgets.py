"""What panels are made of: tables, cards, charts, choices, each readable without a kernel."""

import re

import ipywidgets
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from perfnb.checklist import Checklist
from perfnb.finding import Clear, Estimate, Finding, Unmeasured
from perfnb.objectives import Objectives
from perfnb.widgets import cards, theme
from perfnb.widgets.chart import Chart
from perfnb.widgets.choose import Chooser
from perfnb.widgets.draw import label, labels
from perfnb.widgets.next_steps import next_steps, next_steps_piece, notebooks_there
from perfnb.widgets.progress import Progress
from perfnb.widgets.table import MOST_CHARACTERS, Table, cell, heading, table


def finding(**changed) -> Finding:
    given = {
        "title": "Answers wait <b>", "severity": "high", "share": 0.62, "evidence": ("4.1 s (median)",), "remedy": "Stream.",
        "cause": "no-streaming", "area": "slow", "seeds": ("A3",), "exemplars": ("r1",),
    }  # fmt: skip
    return Finding(**(given | changed))


def chart(title: str = "A chart of two dots") -> Chart:
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1, 2]))
    figure.update_layout(title=title)
    return Chart(figure, "Two dots that rise.", pd.DataFrame({"duration_ms": [1.0, 2.0]}))


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ("time_to_first_token_ms", "time to first token (ms)"), ("input_tokens", "input tokens"), ("request_bytes", "request (bytes)"),
        ("output_tokens_per_s", "output tokens (per s)"), ("model", "model"), ("cpu_percent", "cpu (%)"),
        ("cost_usd", "cost (USD)"), ("usd_per_request", "USD per request"),
    ],
)  # fmt: skip
def test_heads_tell_the_unit(column, shown):
    assert heading(column) == shown


@pytest.mark.parametrize(
    ("value", "column", "shown"),
    [
        (None, "x", "–"), (float("nan"), "x", "–"), (pd.NaT, "time", "–"), (True, "ok", "yes"), (1234.5, "duration_ms", "1,234"),
        (0.62, "share", "62 %"), (1_790_000_000_000_000_000, "start_time", "14:13:20"), (5, "time", "5"),
        (0.000421, "cost_usd", "0.000421"), (1234.5, "usd_per_day", "1,234"), (0.17, "read_share", "17 %"),
        (pd.Timestamp("2026-09-21 14:13:20", tz="UTC"), "time", "14:13:20"), ("text", "x", "text"),
    ],
)  # fmt: skip
def test_cells_read_as_people_say_them(value, column, shown):
    assert cell(value, column) == shown


def test_a_long_text_is_cut_between_words_so_that_no_half_secret_is_left():
    text = "word " * 1000 + "x"
    assert len(cell(text, "x")) <= MOST_CHARACTERS + 2
    assert cell(text, "x").endswith("word …")
    assert cell("a" * 5000, "x") == " …"


def test_a_table_escapes_aligns_and_counts_what_it_leaves_out():
    made = table(pd.DataFrame({"name": ["<b>"] * 60, "duration_ms": 1.5}), "Sixty <rows>")
    assert "&lt;b&gt;" in made
    assert "<b>" not in made
    assert '<th scope="col" class="num">duration (ms)</th>' in made
    assert "10 more rows not shown" in made
    assert "<caption>Sixty &lt;rows&gt;</caption>" in made


def test_a_table_reads_as_text_too():
    assert "duration_ms" in Table(pd.DataFrame({"duration_ms": [1]}), "One row")._repr_mimebundle_()["text/plain"]


def test_a_card_tells_cause_share_evidence_remedy_and_estimate():
    html = cards.finding_card(finding(estimate=Estimate("time_to_first_token_ms", 4100, 350, 700)))
    for part in (
        "Answers wait &lt;b&gt;",
        "▲ high",
        "explains 62 % of the users’ wait",
        "4.1 s (median)",
        "Stream.",
        "350 ms to 700 ms, now 4.1 s",
    ):
        assert part in html
    assert "guide entries A3" in html


def test_a_share_of_nothing_is_not_told():
    assert "explains" not in cards.finding_card(finding(share=0.0))


def test_severity_is_told_by_shape_as_well_as_by_colour():
    assert len(set(cards.MARKS.values())) == len(cards.MARKS)


def test_a_checklist_answers_every_cause_and_publishes_data():
    answers = Checklist(
        (finding(),), (Clear("0 of 9 calls", "rate-limited"),), (Unmeasured("slow-network", "the proxy"),)
    )
    piece = cards.checklist_piece(answers, {"schema": 1})
    assert piece.text.splitlines()[0] == "3 causes: 1 found, 1 clear, 1 not measured"
    assert re.findall(r'<td title="(.*?)">(.*?)</td>', piece.html)[1] == ("Provider rate limiting", "rate-limited")
    assert piece._repr_mimebundle_()[cards.FINDINGS_MIME] == {"schema": 1}


@pytest.mark.parametrize(
    ("value", "verdict", "missed"),
    [
        (2999.0, "within the objective of 3 s", False),
        (6000.0, "2.0 × the objective of 3 s", True),
        (float("nan"), "", False),
    ],
)
def test_a_tile_is_judged_by_its_objective(value, verdict, missed):
    tile = cards.judged("p95", value, Objectives.load()["request_p95_ms"])
    assert (tile.verdict, tile.missed) == (verdict, missed)


def test_a_chart_is_live_through_plotly_and_a_table_elsewhere():
    data, metadata = chart()._repr_mimebundle_()
    assert data[theme.PLOTLY_MIME]["data"][0]["type"] == "scatter"
    assert "<table" in data["text/html"]
    assert "<script" not in data["text/html"]
    assert metadata["perfnb"]["alt"] == "Two dots that rise."


def test_no_figure_of_this_process_offers_to_upload_its_data():
    own = chart()._repr_mimebundle_()[0][theme.PLOTLY_MIME]["config"]
    anyones = go.Figure()._repr_mimebundle_()[theme.PLOTLY_MIME]["config"]
    assert own["showSendToCloud"] is anyones["showSendToCloud"] is False
    configured = [pio.renderers[name] for name in pio.renderers if hasattr(pio.renderers[name], "config")]
    assert configured
    assert all(renderer.config["showSendToCloud"] is False for renderer in configured)


def test_a_figure_costs_its_data_and_little_more():
    assert len(go.Figure().to_json()) < 2000


def test_a_choice_is_live_and_has_a_static_twin():
    chooser = Chooser("Slowest", {"1. /chat <b>": "a", "2. /chat": "b"}, lambda key: chart(f"chart {key}"))
    bundle = chooser.bundle(ipywidgets.Dropdown(options=["a", "b"]))
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "<strong>1. /chat &lt;b&gt;</strong> (shown)" in bundle["text/html"]
    assert bundle["text/plain"] == "Slowest: 1. /chat <b> (of 2)"
    assert chooser.chart.title == "chart a"
    chooser.key = "b"
    assert chooser.chart.title == "chart b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a  b\nc", "a b c"), ("<b>&amp;", "&lt;b&gt;&amp;amp;"), ("x" * 100, "x" * 30 + " … " + "x" * 12)],
)
def test_labels_are_short_and_no_markup(text, shown):
    assert label(text) == shown


def test_labels_differ_where_the_values_do():
    assert labels(pd.Series(["a", "b", "a"])) == ["a", "b", "a (2)"]


def test_next_steps_follow_what_was_found_and_end_with_the_postmortem():
    steps = next_steps([finding(), finding(cause="x")], {"no-streaming": "slow", "x": "no such area"})
    assert [(step.notebook, step.causes) for step in steps] == [
        ("01_slow_responses", ("no-streaming",)),
        ("99_postmortem", ()),
    ]
    assert 'href="99_postmortem.ipynb"' in next_steps_piece([], {}).html
    assert {"start", "slow", "postmortem"} <= set(notebooks_there())


def test_progress_is_silent_outside_a_kernel(capsys):
    with Progress("Looking", 2) as progress:
        progress("one")
    assert progress.done == 1
    assert capsys.readouterr().out == ""
