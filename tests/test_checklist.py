"""Running checks: what becomes of the others when one fails."""

from dataclasses import replace
from pathlib import Path

import pytest
from builders import recording

from perfnb import checklist
from perfnb.errors import BadRecording
from perfnb.finding import Clear
from perfnb.objectives import Objectives
from perfnb.recording import Recording


@pytest.mark.failing_check
def test_a_check_that_fails_takes_no_other_answer_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(recording: Recording, objectives: Objectives) -> Clear:
        raise KeyError("rows")

    found = {one.cause: one for one in checklist.checks()}
    stub = replace(found["no-streaming"], function=broken)
    monkeypatch.setitem(checklist._REGISTRY, "no-streaming", stub)
    answers = checklist.run(recording(tmp_path), area="slow")
    (failed,) = [one for one in answers.not_measured if one.cause == "no-streaming"]
    assert failed.needs == "a check without a defect: this one failed (KeyError: 'rows')"
    assert len(answers.not_measured) > 1
    assert "Traceback" in caplog.text


@pytest.mark.failing_check
def test_what_stands_in_the_way_of_all_checks_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(recording: Recording, objectives: Objectives) -> Clear:
        raise BadRecording("a file is damaged")

    stub = replace(checklist.checks()[0], function=damaged)
    monkeypatch.setitem(checklist._REGISTRY, stub.cause, stub)
    with pytest.raises(BadRecording, match="damaged"):
        checklist.run(recording(tmp_path))
