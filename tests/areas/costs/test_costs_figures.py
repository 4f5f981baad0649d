"""Every figure of the area costs says what it shows, in dollars people read, and says what it lacks."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import START, call, embedding, recording, request, span

from perfnb.areas.costs import composition, figures, spend
from perfnb.errors import NotMeasured
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.widgets import theme
from perfnb.widgets.chart import Chart, Drawn, Missing

SCRIPT = "<script>alert(1)</script>"
ALL = {name: figure for name, figure in vars(figures).items() if isinstance(figure, Drawn)}
MODEL = f"m {SCRIPT}"
PRICES = [
    {"model": "m *", "input_usd_per_mtok": 1, "cache_read_usd_per_mtok": 0.1, "output_usd_per_mtok": 10},
    {"model": "text-*", "input_usd_per_mtok": 0.02, "output_usd_per_mtok": 0},
]
MESSAGES = [
    {"role": "system", "digest": "s", "tokens": 300, "sketch": [], "passages": 1, "passage_tokens": 200},
    {"role": "user", "digest": "h", "tokens": 50, "sketch": [], "passages": 0},
    {"role": "assistant", "digest": "a", "tokens": 50, "sketch": [], "passages": 0},
    {"role": "user", "digest": "q", "tokens": 500, "sketch": [], "passages": 1, "passage_tokens": 400},
    {"role": "tool", "digest": "t", "tokens": 40, "sketch": [], "passages": 0},
]
PROMPT = {"input_tokens": 1100, "cache_read_tokens": 380, "tool_schema_tokens": 60, "messages": MESSAGES}
BILL = {
    "line_digest": "1", "imported": START, "source": "openai", "time": START - START % (86_400 * 10**9),
    "model": MODEL, "requests": 30, "input_tokens": 40_000, "cache_read_tokens": 9000, "output_tokens": 3000,
}  # fmt: skip


def priced(folder: Path, **tables: Any) -> Recording:
    made = recording(folder, **tables)
    made.manifest["prices"] = PRICES
    return made


def asked(number: int, **columns: Any) -> dict[str, Any]:
    given = PROMPT | {"trace_id": f"{number:032x}", "request_model": MODEL, "response_model": MODEL}
    return call(number * 2000 + 100, 900, **(given | columns))


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return a recording with something for every figure to draw, scripts in its names."""
    ids = [f"{number:032x}" for number in range(20)]
    requests = [request(2000 * number, 1500, trace_id=each, route=f"/chat {SCRIPT}") for number, each in enumerate(ids)]
    calls = [asked(number, parent_span_id=f"{each}-step {SCRIPT}") for number, each in enumerate(ids)]
    text = [{"role": "input", "digest": "same", "tokens": 12, "sketch": [1, 2], "passages": 0}]
    calls += [embedding(2000 * number + 20, messages=text, trace_id=each) for number, each in enumerate(ids)]
    calls += [asked(30, request_model=f"unknown {SCRIPT}", response_model=None)]
    spans = [
        span(f"step {SCRIPT}", 2000 * number, 1400, trace=each, attributes={"user.id": f"ann {SCRIPT} {number % 15}"})
        for number, each in enumerate(ids)
    ]
    return priced(tmp_path_factory.mktemp("rich"), calls=calls, requests=requests, spans=spans, bills=[BILL])


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return recording(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("name", ALL)
def test_a_figure_has_title_units_words_and_numbers(rich: Recording, name: str) -> None:
    drawn = ALL[name].of(rich, Objectives.load())
    assert isinstance(drawn, Chart)
    assert re.search(r"\d", drawn.title), "a title says what is to be seen"
    assert len(drawn.alt) > 20
    assert drawn.alt != drawn.title
    assert not drawn.frame.empty
    axes = [drawn.figure.layout.xaxis.title.text, drawn.figure.layout.yaxis.title.text]
    assert any(re.search(r"\((USD|count|UTC)\)|tokens", axis or "") for axis in axes)


@pytest.mark.parametrize("name", ALL)
def test_a_figure_without_evidence_says_what_it_needs(empty: Recording, name: str) -> None:
    missing = ALL[name].of(empty)
    assert isinstance(missing, Missing)
    assert "perfnb " in str(missing) or str(missing).endswith(".")


@pytest.mark.parametrize("name", ALL)
def test_dollars_nobody_knows_are_not_drawn_as_nothing(tmp_path: Path, name: str) -> None:
    unpriced = asked(1, request_model="nobody-knows-it", response_model=None)
    drawn = ALL[name].of(recording(tmp_path, calls=[unpriced], requests=[request(2000, 1500, trace_id=f"{1:032x}")]))
    if name.startswith(("spend", "request")):
        assert "[[price]] in perfnb.toml" in str(drawn)
    elif isinstance(drawn, Chart):
        assert "nan" not in f"{drawn.title} {drawn.alt}".lower()
        assert "$" not in f"{drawn.title} {drawn.alt}"
    else:
        assert name in ("embedded_again", "billed_and_recorded")


@pytest.mark.parametrize("name", ALL)
def test_names_from_outside_are_no_markup_to_plotly(rich: Recording, name: str) -> None:
    texts = ALL[name].of(rich).figure.to_json()  # type: ignore[union-attr]
    assert SCRIPT not in texts.replace("\\u003c", "<").replace("\\u003e", ">")


@pytest.mark.parametrize("name", ALL)
def test_colours_are_those_that_colour_blind_readers_tell_apart(rich: Recording, name: str) -> None:
    figure = ALL[name].of(rich).figure  # type: ignore[union-attr]
    used = {trace.marker.color for trace in figure.data if trace.type == "bar"}
    assert used <= {*theme.COLOURS, theme.GREY}


def bars(chart: Any) -> dict[str, list[float]]:
    """Return the values of each series of bars by its name."""
    made = [trace for trace in chart.figure.data if trace.type == "bar"]
    return {trace.name or "": list(trace.x if trace.orientation == "h" else trace.y) for trace in made}


def test_the_bars_of_a_model_add_up_to_what_it_costs(rich: Recording) -> None:
    drawn = bars(ALL["spend_by_model"].of(rich))
    assert set(drawn) == {"input", "input read from the cache", "output"}
    costs = spend.spend_by_model(rich)["cost_usd"].iloc[::-1]
    assert [sum(parts) for parts in zip(*drawn.values(), strict=True)] == pytest.approx(costs.tolist())
    assert "1 call without a price is left out" in ALL["spend_by_model"].of(rich).alt  # type: ignore[union-attr]


def test_too_many_users_are_drawn_as_one(rich: Recording) -> None:
    frame = spend.spend_by_attribute(rich, "user.id")
    chart = figures.spend_by_attribute(frame, name="user.id")
    (drawn,) = bars(chart).values()
    assert len(frame) > figures.MOST_ROWS == len(drawn)
    assert sum(drawn) == pytest.approx(frame["cost_usd"].sum())
    assert any("others" in name for name in chart.figure.data[0].y)


def test_every_request_is_in_one_bar(rich: Recording) -> None:
    drawn = bars(ALL["request_costs"].of(rich))
    assert sum(sum(counts) for counts in drawn.values()) == len(spend.request_costs(rich))


def test_a_request_that_costs_a_hundred_others_stands_in_the_last_bar() -> None:
    costs = pd.DataFrame({"route": "/chat", "cost_usd": [1.0, *[0.001] * 999], "unpriced_calls": 0})
    chart: Any = figures.request_costs(costs)
    assert max(chart.figure.data[0].x) < 0.01
    assert "The dearest cost $1.00" in chart.alt


def test_a_bill_without_dollars_is_compared_by_tokens(rich: Recording) -> None:
    chart = ALL["billed_and_recorded"].of(rich)
    assert isinstance(chart, Chart)
    assert chart.title.startswith("The bill and the recording: 43,000 tokens billed")


def test_a_prompt_is_taken_apart_and_its_parts_add_up(rich: Recording) -> None:
    frame = composition.prompt_parts(rich).set_index("part")
    each = (frame["tokens"] / 21).to_dict()
    assert each == {
        "passages": 600, "not seen": 100, "instructions": 100, "history": 100, "question": 100, "tool schemas": 60,
        "tool calls and results": 40,
    }  # fmt: skip
    assert frame["tokens_per_call"].sum() == 1100
    assert frame["share"].sum() == pytest.approx(1)


def test_the_provider_reads_a_prompt_from_its_beginning(rich: Recording) -> None:
    frame = composition.prompt_parts(rich).set_index("part")
    cached = (frame["cached_tokens"] / 21).to_dict()
    assert cached == {
        "tool schemas": 60, "instructions": 100, "passages": 200, "history": 20, "question": 0, "not seen": 0,
        "tool calls and results": 0,
    }  # fmt: skip
    answers = spend.spend_by_model(rich).query("output_tokens > 0 and unpriced_calls == 0")
    assert frame["cost_usd"].sum() == pytest.approx((answers["input_usd"] + answers["cache_read_usd"]).sum())


def test_of_very_many_prompts_a_part_stands_for_all(rich: Recording) -> None:
    whole, part = (composition.prompt_parts(rich, most_calls=most).set_index("part") for most in (1000, 3))
    assert part["tokens_per_call"].to_dict() == whole["tokens_per_call"].to_dict()
    assert part["tokens"].sum() == pytest.approx(whole["tokens"].sum(), rel=0.1)


def test_prompts_nobody_saw_are_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="no prompt tells its messages"):
        composition.prompt_parts(recording(tmp_path, calls=[call()]))


def test_what_stands_on_one_side_only_is_no_zero(tmp_path: Path) -> None:
    calls = [call(0, 100, request_model=f"gpt-5{name}", response_model=f"gpt-5{name}") for name in ("", "-mini", "-x")]
    line = BILL | {"time": START - START % (86_400 * 10**9)}
    bills = [line | {"line_digest": name, "model": name, "charged_usd": 2.0} for name in ("gpt-5", "o3")]
    chart: Any = ALL["billed_and_recorded"].of(recording(tmp_path, calls=calls, bills=bills))
    texts = {trace.name: dict(zip(trace.y, trace.text, strict=True)) for trace in chart.figure.data}
    assert texts["billed"] == {
        "gpt-5": "$2.00", "o3": "$2.00", "gpt-5-mini": "not on this bill", "gpt-5-x": "not on this bill"
    }  # fmt: skip
    assert texts["recorded"]["o3"] == texts["recorded"]["gpt-5-x"] == "not recorded, or without a price"
    recorded = texts["recorded"]["gpt-5"]
    assert chart.title == f"The bill and the recording: $4.00 billed, {recorded} recorded of the same models"
