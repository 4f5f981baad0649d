"""The postmortem tells the whole story, to someone who was not there, and nothing that is not theirs to read."""

import re
from dataclasses import replace

import pytest
from builders import START, call, every, recording, request, trial_result
from planted_pages import SCRIPT, planted_recording
from secrets_to_plant import ENVIRONMENT, PROMPT, SECRETS

from perfnb.errors import BadRecording, WrongUse
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.report import postmortem
from perfnb.report.document import as_postmortem
from perfnb.report.page import MOST_BYTES, packed_plotly

SECTIONS = [
    "Summary", "Impact", "Timeline", "Findings", "Action items", "What was not measured", "Checklist", "Objectives used", "Environment",
]  # fmt: skip


@pytest.fixture
def plain(tmp_path) -> Recording:
    """Return a recording in which answers come in one piece."""
    made = every(
        1000, 20,
        lambda at: request(at, 3000, stream=False, request_id=f"r{at:.0f}"),
        lambda at: call(at + 50, 2900, stream=False, output_tokens=220),
    )  # fmt: skip
    return recording(tmp_path, requests=made[0::2], calls=made[1::2])


def text_of(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", html)


def test_it_has_every_section_in_order(plain):
    html = as_postmortem(plain, Objectives.load())
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", html) == SECTIONS


def test_it_is_written_as_one_small_file(plain, tmp_path):
    out = postmortem(plain.path, tmp_path / "deep" / "page.html", title="Friday's incident")
    html = out.read_text(encoding="utf-8")
    assert "<h1>Friday&#39;s incident</h1>" in html
    assert len(html.encode()) < MOST_BYTES
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_the_largest_cause_is_told_first_with_what_to_do(plain):
    html = as_postmortem(plain, Objectives.load())
    summary = re.search(r'<p class="summary">(.*?)</p>', html, re.DOTALL)[1]
    assert "20 requests came in and none failed" in summary
    assert "19 of 20 within 3 s" in summary
    assert "The largest cause: 20 of 20 answers come in one piece" in summary
    actions = html[html.index("Action items</h2>") :]
    assert actions.index("stream=True") < actions.index("<h2")


def test_each_finding_has_its_figure_once_and_a_link_from_the_action(plain):
    html = as_postmortem(plain, Objectives.load())
    causes = re.findall(r'<article class="pnb-finding \w+" id="finding-([\w-]+)">', html)
    assert causes
    assert re.findall(r'href="#finding-([\w-]+)"', html) == causes
    titles = re.findall(r'<p class="chart-title">(.*?)</p>', html)
    assert len(titles) == len(set(titles)) >= 4


def test_objectives_that_sources_disagree_on_show_every_value(plain):
    html = as_postmortem(plain, Objectives.load())
    objectives = Objectives.load()
    row = re.search(r"<tr><td>simple answer ms</td>.*?</tr>", html, re.DOTALL)[0]
    assert "they disagree" in row
    for said in objectives["simple_answer_ms"].said:
        assert said.seed in row


def test_an_objective_of_ones_own_is_marked(plain):
    mine = {
        **Objectives.load(),
        "request_p95_ms": replace(Objectives.load()["request_p95_ms"], value=9000, overridden=True),
    }
    html = as_postmortem(plain, Objectives(mine))
    assert "which meets the objective of 9 s" in text_of(html)
    assert "(set in perfnb.toml)" in html


def test_an_empty_recording_makes_no_claims(tmp_path):
    html = as_postmortem(recording(tmp_path), Objectives.load())
    assert "Nothing that could be timed was recorded" in html
    assert "what users felt is not known" in html
    assert "None of the causes that could be judged is present" in html
    assert 'id="plotly-packed"' not in html


def test_trials_are_told_where_there_were_any(plain):
    assert "Trials" not in re.findall(r"<h2[^>]*>(.*?)</h2>", as_postmortem(plain, Objectives.load()))
    result = trial_result()
    plain.add_event("trial", result.headline, result.as_dict())
    html = as_postmortem(plain, Objectives.load())
    assert "Trials" in re.findall(r"<h2[^>]*>(.*?)</h2>", html)
    assert "Output cap: better" in text_of(html)
    assert "as it is → max tokens 300" in text_of(html)


@pytest.mark.parametrize("simulated", [True, False])
def test_a_simulation_is_labelled(tmp_path, simulated):
    made = Recording.create(tmp_path / "s.perfnb", simulated=simulated)
    html = as_postmortem(made, Objectives.load())
    assert ('<span class="badge">simulated</span>' in html) is simulated
    assert ("was a simulation" in html) is simulated


def test_notes_stand_on_the_timeline_in_order(plain):
    with plain.writer() as writer:
        writer.write(
            "events",
            [
                {"time": START + 10**9, "kind": "note", "title": "second"},
                {"time": START + 1, "kind": "note", "title": "first"},
            ],
        )
    timeline = re.search(r'<ol class="pnb-timeline">.*?</ol>', as_postmortem(plain, Objectives.load()), re.DOTALL)[0]
    assert (
        timeline.index("First observation")
        < timeline.index("first")
        < timeline.index("second")
        < timeline.index("Last observation")
    )


def test_a_live_recording_is_reported_as_it_is(plain, tmp_path):
    with plain.writer() as writer:
        writer.write("http_requests", [request(0, 100)])
        assert postmortem(plain.path, tmp_path / "live.html").exists()


def test_what_cannot_be_written_or_read_is_one_clear_error(plain, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WrongUse, match="can't be written"):
        postmortem(plain.path, tmp_path / "file" / "page.html")
    with pytest.raises(BadRecording, match="no recording"):
        postmortem(tmp_path / "none.perfnb", tmp_path / "page.html")


@pytest.fixture(scope="module")
def planted_page(tmp_path_factory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        return as_postmortem(planted_recording(tmp_path_factory.mktemp("planted")), Objectives.load()).replace(
            packed_plotly(), ""
        )


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_of_the_recording_is_in_it(planted_page, secret):
    assert secret not in planted_page


def test_scripts_in_routes_models_and_notes_stay_text(planted_page):
    assert SCRIPT not in planted_page
    assert "&lt;script&gt;window.broken" in planted_page


def test_secrets_of_the_settings_are_known_by_value(plain, tmp_path, monkeypatch):
    (tmp_path / "perfnb.toml").write_text(
        '[target]\ndsn = "postgresql://app:tulip-garden@db/shop"\n[[request]]\nurl = "http://x"\n'
        'headers = { X-Api-Key = "lantern-river", Accept = "application/json" }\n'
    )
    monkeypatch.chdir(tmp_path)
    plain.add_event("note", "tulip-garden and lantern-river and application/json")
    html = as_postmortem(plain, Objectives.load())
    assert "[environment secret] and [environment secret] and application/json" in html


def test_a_long_recording_still_makes_a_small_page(tmp_path):
    route = "/a/long/route/that/is/seen/in/every/row/of/every/table"
    requests = every(20, 4000, lambda at: request(at, 3000 + at % 997, stream=False, route=route))
    calls = every(
        20,
        4000,
        lambda at: call(at + 5, 2900 + at % 991, stream=False, output_tokens=220, input_tokens=int(400 + at % 5000)),
    )
    html = as_postmortem(recording(tmp_path, requests=requests, calls=calls), Objectives.load())
    assert "4,000 requests" in html
    assert len(html.encode()) < MOST_BYTES


def test_prompts_are_in_it_only_where_asked_for(tmp_path):
    made = planted_recording(tmp_path)
    made.add_event("note", f"a user wrote: {PROMPT}")
    assert PROMPT not in as_postmortem(made, Objectives.load())
    assert PROMPT in as_postmortem(made, Objectives.load(), with_content=True)


@pytest.fixture
def dear(tmp_path) -> Recording:
    """Return a recording whose prompts hold far too much, and one call of a model without a price."""
    made = every(
        1000, 20,
        lambda at: request(at, 900, request_id=f"r{at:.0f}"),
        lambda at: call(at + 50, 800, input_tokens=40_000, passage_tokens=39_000, output_tokens=20, response_model="gpt-5"),
    )  # fmt: skip
    stranger = call(21_000, 100, request_model="in-house <7b>", response_model=None)
    return recording(tmp_path, requests=made[0::2], calls=[*made[1::2], stranger])


def test_dollars_stand_in_summary_impact_findings_and_actions(dear):
    html = as_postmortem(dear, Objectives.load())
    summary = re.search(r'<p class="summary">(.*?)</p>', html, re.DOTALL)[1]
    assert "The model calls cost $1.00, $0.0502 per request." in summary
    assert '<h3 id="s-what-it-cost">What it cost</h3>' in html
    assert "Spend by model: gpt-5 takes 100 % of $1.00" in html
    card = re.search(r'<article[^>]*id="finding-large-context">.*?</article>', html, re.DOTALL)[0]
    assert re.search(r"<strong>\$[\d,.]+ a day at this rate, \$0\.0\d+ per request</strong>", card)
    actions = html[html.index("Action items</h2>") :]
    assert re.search(r"<td>\$[\d,.]+ a day at this rate, \$0\.0\d+ per request</td>", actions)


def test_who_answered_is_told_only_where_another_model_did(dear):
    html = as_postmortem(dear, Objectives.load())
    assert "chat, answered by gpt-5, 20 calls" in html
    assert "chat, 1 call" in html
    assert "answered by nan" not in html


def test_the_price_list_its_date_and_models_without_a_price_are_told(dear):
    html = as_postmortem(dear, Objectives.load())
    for section in (html[html.index("What it cost</h3>") :], html[html.index("Environment</h2>") :]):
        assert re.search(r"rice list(</th><td>|: )genai-prices [\d.]+ \(prices as of 20\d\d-\d\d-\d\d", section)
        assert re.search(r"o dollars for in-house &lt;7b&gt;(</th><td>|: )1 call, 780 tokens: no price known", section)


def test_without_model_calls_nothing_is_said_of_money(tmp_path):
    html = as_postmortem(recording(tmp_path, requests=every(1000, 5, lambda at: request(at, 50))), Objectives.load())
    assert "What it cost" not in html
    assert "$" not in text_of(html[html.index("<main") : html.index("Objectives used</h2>")])
