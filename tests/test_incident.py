"""Opening a recording: the sample, a finished one, one that is still being written, and what is none."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from builders import call, every, recording, request

import perfnb
from perfnb.checklist import Checklist
from perfnb.errors import BadRecording, NotReachable, PerfnbError, WrongUse
from perfnb.recording import Recording


@pytest.fixture
def slow(tmp_path) -> Recording:
    requests = every(1000, 20, lambda at: request(at, 3000, stream=False))
    calls = every(1000, 20, lambda at: call(at + 50, 2900, stream=False, output_tokens=220))
    return recording(tmp_path, requests=requests, calls=calls)


def test_findings_come_ranked_and_the_checklist_can_be_of_one_area(slow):
    incident = perfnb.open(slow.path)
    assert incident.findings[0].cause == "no-streaming"
    assert incident.findings == incident.checklist("slow").findings


def test_rows_that_come_later_change_the_answer_once_it_is_asked_for_anew(tmp_path):
    live = Recording.create(tmp_path / "live.perfnb")
    incident = perfnb.open(live.path)
    assert incident.findings == ()
    with live.writer() as writer:
        writer.write("http_requests", every(1000, 20, lambda at: request(at, 3000, stream=False)))
        writer.write("llm_calls", every(1000, 20, lambda at: call(at + 50, 2900, stream=False, output_tokens=220)))
        assert incident.state == "live"
        assert incident.findings == ()
        incident.renew()
        assert [finding.cause for finding in incident.findings][:1] == ["no-streaming"]
    assert incident.state == "sealed"


def test_while_a_recording_is_written_its_answers_are_worked_out_once(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr("perfnb.incident.run", lambda *_, **__: counted.append(1) or Checklist((), (), ()))
    live = Recording.create(tmp_path / "live.perfnb")
    incident = perfnb.open(live.path)
    with live.writer() as writer:
        for at in range(5):
            writer.write("http_requests", [request(at, 3000)])
            incident.checklist("slow")
            incident.note("and another")
    assert counted == [1]
    assert len(incident.timeline()) == 5


def test_notes_stand_on_the_timeline_in_order(slow):
    incident = perfnb.open(slow.path)
    incident.note("  users complain ")
    incident.note("rolled back")
    timeline = incident.timeline()
    assert list(timeline["title"]) == ["users complain", "rolled back"]
    assert set(timeline["kind"]) == {"note"}


def test_an_empty_note_is_an_error(slow):
    with pytest.raises(WrongUse, match="note is empty"):
        perfnb.open(slow.path).note("  ")


def test_a_recording_whose_writer_was_killed_is_told_and_can_be_sealed(tmp_path):
    path = Recording.create(tmp_path / "cut.perfnb").path
    program = (
        "import sys, time; from pathlib import Path; from perfnb.recording import Writer\n"
        "writer = Writer(Path(sys.argv[1])); writer.write('events', [{'time': 1, 'kind': 'note', 'title': 'kept'}])\n"
        "print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        incident = perfnb.open(path)
        assert incident.state == "live"
        os.kill(process.pid, signal.SIGKILL)
    assert incident.state == "interrupted"
    assert incident.seal() == 0
    assert incident.state == "sealed"
    assert list(incident.timeline()["title"]) == ["kept"]


def test_a_cell_shows_what_it_is_and_a_terminal_one_line(slow):
    incident = perfnb.open(slow.path)
    bundle = incident._repr_mimebundle_()
    assert "digests only" in bundle["text/html"]
    assert "http requests: 20" in bundle["text/plain"]
    assert str(incident) == "built (sealed, 22 s)"
    assert repr(incident) == f"Incident({str(slow.path)!r})"


def test_a_simulation_says_so(tmp_path):
    incident = perfnb.open(Recording.create(tmp_path / "s.perfnb", simulated=True).path)
    assert "simulated" in str(incident)
    assert "Simulated" in incident._repr_mimebundle_()["text/plain"]


def test_settings_beside_the_app_are_used(slow, tmp_path):
    (tmp_path / "perfnb.toml").write_text('[target]\ndsn = "postgresql://h/db"\n[objectives]\nrequest_p95_ms = 123\n')
    incident = perfnb.open(slow.path, folder=tmp_path)
    assert incident.target.dsn == "postgresql://h/db"
    assert incident.objectives.value("request_p95_ms") == 123


@pytest.mark.parametrize(
    ("target", "kind", "words"),
    [
        ("http://localhost:8000", WrongUse, "is an address"),
        ("nowhere.perfnb", BadRecording, "no recording"),
        (__file__, BadRecording, "recording.json"),
    ],
)
def test_what_is_no_recording_is_one_clear_line(target, kind, words):
    with pytest.raises(kind, match=words) as error:
        perfnb.open(target)
    assert error.value.hint
    assert "\n" not in str(error.value)


def test_a_missing_sample_says_how_to_make_one(tmp_path):
    with pytest.raises(NotReachable, match="perfnb demo"):
        perfnb.open("sample", data=tmp_path)


def test_notes_on_the_sample_leave_the_bundled_files_as_they_are(tmp_path, slow):
    slow.path.rename(tmp_path / "sample.perfnb")
    before = _files(tmp_path)
    perfnb.open(data=tmp_path).note("tried something")
    assert list(perfnb.open("sample", data=tmp_path).timeline()["title"]) == ["tried something"]
    assert _files(tmp_path) == before


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_newer_recording_is_refused(slow):
    manifest = json.loads((slow.path / "recording.json").read_text())
    (slow.path / "recording.json").write_text(json.dumps({**manifest, "schema": 999}))
    with pytest.raises(PerfnbError, match="pip install --upgrade perfnb"):
        perfnb.open(slow.path)
