"""Every cell of the notebook on costs shows something readable of any recording, and dollars that are right."""

from pathlib import Path
from typing import Any

import pytest
from builders import call, failed_call, recording, request, span

from perfnb.areas.costs import panel, spend
from perfnb.incident import Incident
from perfnb.objectives import Objectives
from perfnb.prices import Prices
from perfnb.recording import Recording
from perfnb.target import Target
from perfnb.widgets.cards import FINDINGS_MIME
from perfnb.widgets.choose import Chooser

SCRIPT = "<script>alert(1)</script>"
STRANGER = f'in-house "7b" {SCRIPT}'
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


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where perfnb.toml would be."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "perfnb.toml"


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return ten requests at $0.002 each, one of them failed, and a call without a price."""
    ids = [f"{number:032x}" for number in range(10)]
    requests = [
        request(1000 * number, 900, trace_id=each, route=f"/chat {SCRIPT}", status_code=500 if number == 3 else 200)
        for number, each in enumerate(ids)
    ]
    calls = [call(1000 * number + 50, 800, trace_id=each, input_tokens=1000, output_tokens=100) for number, each in enumerate(ids)]  # fmt: skip
    calls += [failed_call(20), call(9950, 10, request_model=STRANGER, response_model=None)]
    spans = [span("root", 1000 * number, 900, trace=each, attributes={"user.id": f"ann {SCRIPT}", "session.id": each})
             for number, each in enumerate(ids)]  # fmt: skip
    made = recording(tmp_path_factory.mktemp("rich"), calls=calls, requests=requests, spans=spans)
    made.manifest["prices"] = [{"model": "gpt-5-mini", "input_usd_per_mtok": 1, "output_usd_per_mtok": 10}]
    return made


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return recording(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_shows_something_readable_of_any_recording(rich: Recording, empty: Recording, name: str) -> None:
    for made in (rich, empty):
        shown: Any = getattr(panel, name)(incident(made))
        if isinstance(shown, str):
            assert shown.strip()
            continue
        shown = shown.chart if isinstance(shown, Chooser) else shown
        bundle = shown._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        assert data["text/plain"].strip()
        assert SCRIPT not in data["text/html"]
        assert "nan" not in data["text/plain"].lower().split()


def test_the_overview_tells_dollars_by_request_by_answer_and_by_day(rich: Recording) -> None:
    text = str(panel.overview(incident(rich)))
    for said in (
        "spent in this recording: $0.02 (12 calls)",
        "per request: $0.002\n",
        "per answered request: $0.00222 ($0.002 went into requests that failed)",
        "a day at this rate: $17",
        "calls without a price: 1 (in no sum of dollars: see Prices)",
        "budgets: none set",
        "A day and a month: as in the",
        "So short a recording says little about a day",
    ):
        assert said in text


def test_an_hour_is_long_enough_to_speak_of_a_day(tmp_path: Path) -> None:
    hour = recording(tmp_path, calls=[call(0), call(3_700_000)])
    assert "A day and a month" in str(panel.overview(incident(hour)))
    assert "So short a recording" not in str(panel.overview(incident(hour)))


def test_without_any_price_the_overview_feigns_no_dollars(tmp_path: Path) -> None:
    made = recording(tmp_path, calls=[call(request_model=STRANGER, response_model=None)])
    assert "$" not in str(panel.overview(incident(made)))


def test_users_and_sessions_can_be_chosen(rich: Recording) -> None:
    chooser = panel.spend_by_user(incident(rich))
    assert isinstance(chooser, Chooser)
    assert list(chooser.options) == ["user.id", "session.id"]
    assert chooser.chart.title.startswith("Spend by user.id: ann")
    assert chooser.draw("session.id").title.startswith("Spend by session.id: ")


def test_what_to_write_to_price_a_model_is_valid_and_prices_it(rich: Recording, settings: Path) -> None:
    piece = panel.unpriced(incident(rich))
    example = piece.text[piece.text.index("[[price]]") :]
    settings.write_text(example.replace("input_usd_per_mtok = 0.00", "input_usd_per_mtok = 2.00"))
    rates = Prices.load().rates("openai", STRANGER, at_ns=0)
    assert [one.input_usd for one in rates] == [2e-6]


def test_what_to_write_for_a_budget_is_valid_and_its_alerts_are_shown(rich: Recording, settings: Path) -> None:
    assert panel.A_BUDGET in panel.budgets(incident(rich)).text
    settings.write_text(panel.A_BUDGET)
    assert "budget per request: $0.02 (kept)" in str(panel.budgets(incident(rich)))
    settings.write_text("[budget]\nusd_per_request = 0.001\nusd_per_day = 1")
    text = str(panel.budgets(incident(rich)))
    assert "budget per request: $0.001 (passed, a request costs $0.002 on average" in text
    assert "budget per day: $1.00 (will be passed at this rate" in text
    assert "budget alerts: 2 (per day will be passed at this rate and per request passed)" in str(
        panel.overview(incident(rich))
    )


def test_the_price_list_is_named_with_its_date(rich: Recording) -> None:
    assert spend.price_version(rich) in str(panel.prices(incident(rich)))


def test_dearest_requests_come_first_with_their_ids(rich: Recording) -> None:
    text = str(panel.dearest_requests(incident(rich)))
    assert text.startswith("The 10 dearest of 10 requests; together 100 %")


def test_causes_are_named_with_their_dollars(tmp_path: Path) -> None:
    calls = [call(1000 * n, 900, input_tokens=40_000, passage_tokens=39_000, response_model="gpt-5") for n in range(20)]
    requests = [request(1000 * n, 950) for n in range(20)]
    named = panel.named(incident(recording(tmp_path, calls=calls, requests=requests)))
    line = next(line for line in named.splitlines() if line.startswith("large-context"))
    assert line.endswith("per request")
    assert "$0.0" in line


def test_the_checklist_publishes_its_findings_as_data(rich: Recording) -> None:
    one = incident(rich)
    data = panel.checklist(one)._repr_mimebundle_()[FINDINGS_MIME]
    assert data == one.checklist("costs").as_dict(rich)
