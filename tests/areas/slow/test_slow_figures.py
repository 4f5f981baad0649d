"""Every figure says what it shows, can be read without seeing it, and says what it lacks where it can't be drawn."""

import importlib
import inspect
import re
from pathlib import Path

import pandas as pd
import pytest
from builders import MS, START, call, embedding, every, failed_call, recording, request, span

from perfnb.areas.slow import figures, panel
from perfnb.attribution import timeline_of
from perfnb.checklist import AREAS, checks
from perfnb.incident import Incident
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.target import Target
from perfnb.widgets import theme
from perfnb.widgets.chart import Chart, Drawing, Drawn, Missing

SCRIPT = "<script>alert(1)</script>"
ALL = {name: figure for name, figure in vars(figures).items() if isinstance(figure, Drawn)}


@pytest.fixture(scope="module")
def rich(tmp_path_factory) -> Recording:
    """Return a recording with something for every figure to draw, scripts in its names."""
    requests, calls, spans = [], [], []
    for number in range(12):
        at, trace = number * 2000, f"{number:032x}"
        requests.append(
            request(
                at,
                1900,
                trace_id=trace,
                route=f"/chat {SCRIPT}",
                request_id=f"r{number}",
                status_code=500 if number == 3 else 200,
            )
        )
        spans.append(span("root", at, 1900, trace=trace, kind="SERVER"))
        spans.append(span(f"search {SCRIPT}", at + 5, 80, trace=trace, parent="root", operation="retrieval"))
        calls += [
            call(at + 100 + 400 * turn, 390, trace_id=trace, request_model=f"m {SCRIPT}", prompt_digest=f"p{number % 5}-{turn}",
                 stream=bool(turn), parent_span_id=f"{trace}-root")
            for turn in range(4)
        ]  # fmt: skip
        calls.append(embedding(at + 20, 30, trace_id=trace))
    calls += [
        failed_call(700 * number, trace_id=f"{number:032x}", error_type=f"refused {SCRIPT}") for number in range(5)
    ]
    stacks = [
        {"time": START + turn * MS, "pid": 1, "thread": "MainThread", "stack": f"main (app.py:1);{frame} (app.py:2)", "samples": 10,
         "on_cpu": True, "mode": "profile", "period_ms": 10.0}
        for turn, frame in enumerate(["work", SCRIPT])
    ]  # fmt: skip
    return recording(tmp_path_factory.mktemp("rich"), calls=calls, requests=requests, spans=spans, stacks=stacks)


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Recording:
    return recording(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("name", ALL)
def test_a_figure_has_title_units_words_and_numbers(rich, name):
    drawn = ALL[name].of(rich, Objectives.load())
    assert isinstance(drawn, Chart | Drawing)
    assert len(drawn.title) > 15
    assert len(drawn.alt) > 20
    assert drawn.alt != drawn.title
    assert not drawn.frame.empty
    if isinstance(drawn, Chart):
        axes = [drawn.figure.layout.xaxis.title.text, drawn.figure.layout.yaxis.title.text]
        assert any(re.search(r"\((s|ms|%|count|UTC|median|ms, .*)\)|tokens|times", axis or "") for axis in axes)
        assert len(drawn.figure.data) >= 1


@pytest.mark.parametrize("name", ALL)
def test_a_figure_without_evidence_says_what_it_needs(empty, name):
    missing = ALL[name].of(empty, Objectives.load())
    assert isinstance(missing, Missing)
    assert "perfnb record" in str(missing) or str(missing).endswith(".")


@pytest.mark.parametrize("name", ALL)
def test_names_from_outside_are_no_markup_to_plotly(rich, name):
    drawn = ALL[name].of(rich)
    texts = drawn.figure.to_json() if isinstance(drawn, Chart) else str(drawn.html)
    assert SCRIPT not in texts.replace("\\u003c", "<").replace("\\u003e", ">")


@pytest.mark.parametrize("name", [name for name in ALL if name != "flame"])
def test_colours_are_those_that_colour_blind_readers_tell_apart(rich, name):
    figure = ALL[name].of(rich, Objectives.load()).figure
    allowed = {*theme.COLOURS, *theme.KINDS.values(), theme.GREY}
    used = {getattr(trace.marker, "color", None) or trace.line.color for trace in figure.data}
    assert used <= allowed


def test_every_figure_a_check_names_can_be_drawn():
    for area in AREAS:
        module = importlib.import_module(f"perfnb.areas.{area}.figures")
        sources = {
            inspect.getsourcefile(check.function)
            for check in checks(area)
            if check.function.__module__.startswith("perfnb.")
        }
        named = {name for source in sources for name in re.findall(r'figure="(\w+)"', Path(source).read_text())}
        assert named
        assert not {name for name in named if not isinstance(getattr(module, name, None), Drawn)}


def test_the_waterfall_draws_every_step_and_what_was_waited_for(rich):
    frame = timeline_of(rich, "r0")
    chart = figures.waterfall(frame, about="the request")
    bars = [trace for trace in chart.figure.data if trace.type == "bar"]
    assert sum(len(trace.y) for trace in bars) == len(frame)
    assert chart.title.startswith("the request: waits longest for")
    assert len(set(chart.figure.layout.yaxis.categoryarray)) == len(frame)
    assert "first token" in [trace.name for trace in chart.figure.data]


def test_long_recordings_are_thinned_and_say_so(tmp_path):
    many = recording(tmp_path, requests=every(10, 4000, lambda at: request(at, 50)))
    chart = figures.requests_over_time.of(many)
    assert sum(len(trace.x) for trace in chart.figure.data) == 1500
    assert "1,500 of 4,000 requests are drawn" in chart.alt
    assert len(chart.as_json()["data"][0]["x"]) <= 1500


def test_answers_in_one_piece_lie_on_the_diagonal():
    frame = pd.DataFrame(
        {"call_id": ["a", "b"], "model": "m", "stream": [True, False], "time_to_first_token_ms": [100.0, None],
         "duration_ms": [900.0, 700.0], "output_tokens": 50}
    )  # fmt: skip
    chart = figures.first_token_and_total(frame)
    whole = next(trace for trace in chart.figure.data if trace.name == "in one piece")
    assert list(whole.x) == list(whole.y) == [700.0]
    assert "1 of 2 answers come in one piece" in chart.title


PANELS = [
    name
    for name, function in vars(panel).items()
    if not name.startswith("_") and callable(function) and getattr(function, "__annotations__", {}).get("incident")
]


@pytest.mark.parametrize("name", PANELS)
def test_every_panel_shows_something_readable_of_any_recording(rich, empty, name):
    for made in (rich, empty):
        shown = getattr(panel, name)(Incident(made, Target(), Objectives.load()))
        if isinstance(shown, str) or hasattr(shown, "chart"):
            shown = shown if isinstance(shown, str) else shown.chart
        if isinstance(shown, str):
            assert shown.strip()
            continue
        if name == "try_a_change":  # several pieces and live controls; this is the one that reads the recording
            shown = shown.estimate()
        bundle = shown._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        assert data["text/plain"].strip()
        assert SCRIPT not in data["text/html"]


def test_the_checklist_publishes_its_findings_as_data(rich):
    incident = Incident(rich, Target(), Objectives.load())
    data = panel.checklist(incident)._repr_mimebundle_()["application/vnd.perfnb.findings+json"]
    assert data == incident.checklist("slow").as_dict(rich)
