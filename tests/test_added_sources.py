"""Sources that other packages add: the doctor sees them, a recorder starts them, and none of them stops it."""

from pathlib import Path

import pytest

from perfnb import sources
from perfnb.recorder import Recorder
from perfnb.recording import Recording
from perfnb.sources import Readiness
from perfnb.target import Target

PACKAGE = """
import time
from perfnb.sources import Kind, Readiness
from perfnb.sources.threaded import Threaded

class Extra(Threaded):
    name = "extra"

    def probe(self):
        return Readiness("extra", True, "here")

    def _run(self):
        row = {"time": time.time_ns(), "source": "extra", "entity": "queue", "metric": "length", "value": 7.0}
        self._counters["rows"] += self._emit("samples", [row])
        self._stop.wait()

def ready(works):
    return lambda target: Readiness("extra", works, "here")

def broken(target, emit):
    raise RuntimeError("secret of the package")

extra = Kind("extra", ("samples",), "--extra", ready(True), lambda target, emit: Extra(emit, "rows"))
away = Kind("away", ("samples",), "--away", ready(False), lambda target, emit: Extra(emit, "rows"))
only_told = Kind("only_told", ("samples",), "--told", ready(True))
failing = Kind("failing", ("samples",), "--failing", ready(True), broken)
"""
ENTRY_POINTS = """[perfnb.sources]
extra = extra_source:extra
away = extra_source:away
only_told = extra_source:only_told
failing = extra_source:failing
broken = no_such_module:kind
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package that adds sources."""
    (tmp_path / "extra_source.py").write_text(PACKAGE)
    info = tmp_path / "extra-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_the_doctor_sees_them() -> None:
    found = {kind.name: kind.ready(Target()) for kind in sources.kinds()}
    assert found["extra"] == Readiness("extra", True, "here")
    assert "no_such_module" in found["broken"].found
    assert not found["broken"].works


def test_a_recorder_starts_those_that_work_and_goes_on_without_the_others(tmp_path: Path) -> None:
    told: list[str] = []
    with Recorder(Target(), tmp_path / "a.perfnb", tell=told.append) as recorder:
        assert list(recorder.running) == ["extra"]
        assert recorder.refused == {"failing": "RuntimeError in its package"}
    assert told == ["without failing: RuntimeError in its package"]
    with Recording.open(tmp_path / "a.perfnb") as made:
        assert made.query("SELECT entity, value FROM samples").to_dict("records") == [{"entity": "queue", "value": 7.0}]
        (event,) = made.query("SELECT title FROM events WHERE kind = 'source'")["title"]
        assert event == "failing could not start"
