"""The panel on the live demo: an estimate, a trial with both arms at once, keep and undo; on a recording alone, why not."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import call, every, recording, request

from perfnb import incident
from perfnb.incident import Incident
from perfnb.load import Limits
from perfnb.objectives import Objectives
from perfnb.staging import staged
from perfnb.target import KnobSettings, Request, Target
from perfnb.trials import Plan
from perfnb.trials.shown import trials_of
from perfnb.try_a_change import TryAChange
from perfnb.try_a_change.choices import LLM
from perfnb.try_a_change.live import Live

TIME_SCALE = 10
QUICK = Plan(looks=(5,), alpha=0.05, seconds=1.0, warm_up_s=0.2, settle_s=0.1, evidence_s=1.0,
             primary="output_tokens", limits=Limits(late_ms=60_000, busy=100))  # fmt: skip


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TryAChange]:
    path: Path = tmp_path_factory.mktemp("try_a_change") / "demo.perfnb"
    with staged(path, ["no-output-limit"], time_scale=TIME_SCALE) as stage:
        stage.demo.run_workload(stage.users_url, 8)
        time.sleep(1.5)
        opened = incident.open(path)
        yield TryAChange(opened, opened.findings)


@pytest.mark.demo
def test_a_trial_follows_an_estimate_and_everything_is_undone(panel: TryAChange) -> None:
    panel.choose("output_cap")
    panel.given["max_tokens"] = 20
    assert "output tokens, mean" in panel.estimate().text
    assert panel.why_not() == ""
    assert panel.pairs_wanted(replace(QUICK, primary="output_tokens")) in range(2, 30)
    assert isinstance(panel.live, Live)
    assert panel.live.carries_traces
    told: list[str] = []
    result = panel.run(QUICK, 4.0, lambda progress: told.append(progress.text))
    assert (result.outcome, result.mode) == ("better", "split")
    assert "both arms at once" in told
    assert result["output_tokens"].b < result["output_tokens"].a
    assert result["output_tokens"].predicted_high is not None
    assert result["request_usd"].a > 0
    assert panel.live.now("llm") == {}
    assert trials_of(panel.incident.recording)[-1] == result
    assert "to be tried: Let no answer be longer" in " ".join(panel.incident.timeline()["title"])
    assert "better" in panel.trial().text
    assert {trace.name.split(" (")[0] for trace in panel.compared().figure.data} == {"without the change", "with it"}


@pytest.mark.demo
def test_what_is_kept_stays_until_it_is_undone(panel: TryAChange) -> None:
    panel.choose("output_cap")
    panel.given["max_tokens"] = 25
    assert isinstance(panel.live, Live)
    panel.keep()
    assert panel.live.now("llm") == {"output_cap": {"max_tokens": 25}}
    assert "does again what it did" in panel.undo()
    assert panel.live.now("llm") == {}
    assert panel.undo() == "Nothing is set that could be undone."


@pytest.mark.demo
def test_a_setting_of_the_app_is_tried_in_turns(panel: TryAChange) -> None:
    panel.choose("desk.answer_words")
    panel.given["answer_words"] = 8
    assert "Nothing estimates" in panel.estimate().text
    before = panel.live.now("desk")  # type: ignore[union-attr]
    result = panel.run(QUICK, 4.0, lambda progress: None)
    assert result.mode == "pairs", str(result)
    assert result["output_tokens"].b < result["output_tokens"].a
    assert panel.live.now("desk") == before  # type: ignore[union-attr]


@pytest.mark.demo
def test_a_trial_that_is_stopped_undoes_its_change(panel: TryAChange) -> None:
    panel.choose("output_cap")
    panel.given["max_tokens"] = 20
    result = panel.run(replace(QUICK, looks=(40,)), 4.0, lambda progress: panel.stop())
    assert result.outcome == "stopped"
    assert panel.live.now("llm") == {}  # type: ignore[union-attr]


def test_on_a_recording_alone_there_are_estimates_and_the_reason_why_nothing_can_be_tried(tmp_path: Path) -> None:
    made = recording(tmp_path, requests=every(2000, 12, request), calls=every(2000, 12, call))
    opened = incident.open(made.path)
    panel = TryAChange(opened, opened.findings)
    panel.choose("output_cap")
    assert "no proxy records into this recording now" in panel.why_not()
    panel.choose("streaming")
    assert "in the app" in panel.why_not()
    assert "No trial yet" in panel.trial().text


def test_once_the_proxy_is_gone_the_panel_says_so(tmp_path: Path) -> None:
    made = recording(tmp_path, requests=every(1000, 5, request), calls=every(1000, 5, call))
    gone = Target(
        requests=(Request("http://127.0.0.1:9/chat"),), knobs=(KnobSettings("desk", url="http://127.0.0.1:9/"),)
    )
    panel = TryAChange(Incident(made, gone, Objectives.load()), [])
    panel.choose(next(each.name for each in panel.choices if each.knob == LLM))
    assert isinstance(panel.live, Live)
    assert "no proxy records into this recording now" in panel.why_not()
