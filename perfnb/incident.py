"""An incident: a recording, its target and its timeline; what :func:`perfnb.open` returns and every notebook holds."""

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perfnb.bundled import bundled
from perfnb.checklist import Checklist, run
from perfnb.errors import NotReachable, WrongUse
from perfnb.finding import Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording, Snapshot
from perfnb.recording.seal import abandoned
from perfnb.target import Target

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = "sample"

State = Literal["sealed", "live", "interrupted"]


class Incident:
    """A recording with the objectives it is judged by; ``incident.findings`` are the causes that are present.

    Attributes:
        recording: Everything observed.
        target: What was observed and how to reach it.
        objectives: The thresholds findings are judged by.
    """

    def __init__(self, recording: Recording, target: Target, objectives: Objectives) -> None:
        self.recording = recording
        self.target = target
        self.objectives = objectives

    @cached_property
    def snapshot(self) -> Snapshot:
        """Return the recording as it is shown: rows that are still being written stand still, so that all cells agree.

        They are renewed once nothing was worked out from them for a minute, or after :meth:`renew`.
        """
        return Snapshot(self.recording.path, self.recording.manifest)

    def renew(self) -> None:
        """Show the rows there are now from the next cell on."""
        self.snapshot.renew()

    def checklist(self, area: str | None = None, *, progress: Callable[[str], None] = lambda cause: None) -> Checklist:
        """Return the answers of all checks of ``area`` (or of every area) over the :attr:`snapshot`."""

        def build() -> Checklist:
            return run(self.snapshot, self.objectives, area=area, progress=progress)

        answers: Checklist = self.snapshot.derived(f"checklist {area} {id(self.objectives)}", build)
        return answers

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return the causes that are present, the largest share first."""
        return self.checklist().findings

    def note(self, text: str) -> None:
        """Put ``text`` on the timeline, now."""
        if not text.strip():
            raise WrongUse("the note is empty", hint='incident.note("what you saw or did")')
        self.recording.add_event("note", text.strip())

    def timeline(self) -> "pd.DataFrame":
        """Return the timeline, oldest first: time (ns since 1970, UTC), kind, title, body (JSON)."""
        return self.recording.query("SELECT time, kind, title, body FROM events ORDER BY time, title")

    @property
    def state(self) -> State:
        """Return whether the recording is complete, still being written, or was cut off and can be sealed."""
        journals = [path for path in self.recording.path.glob("*/*.jsonl") if not path.with_suffix(".parquet").exists()]
        if not journals:
            return "sealed"
        return "interrupted" if all(abandoned(path) for path in journals) else "live"

    @property
    def is_simulated(self) -> bool:
        """Tell whether the recording was made from a simulated provider."""
        return bool(self.recording.manifest.get("simulated"))

    def seal(self) -> int:
        """Seal what writers that are gone left open; return how many torn lines they ended in."""
        return self.recording.seal()

    def __str__(self) -> str:
        label = ", simulated" if self.is_simulated else ""
        return f"{self.recording.name} ({self.state}{label}, {self.recording.window.seconds:.0f} s)"

    def __repr__(self) -> str:
        return f"Incident({str(self.recording.path)!r})"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from perfnb.widgets.about import about

        return about(self)._repr_mimebundle_()


def open(target: str | Path = SAMPLE, *, folder: Path | None = None, data: Path | None = None) -> Incident:
    """Return the incident recorded at ``target``: "sample", or a ``NAME.perfnb``, finished or still being written.

    Target and objectives come from ``perfnb.toml`` in ``folder`` (the current one) and ``PERFNB_*`` variables; requests
    and knobs that the recording names are taken where there are none. The
    sample is the one in ``data`` (the bundled one), copied, so that notes leave it as it is.
    Raises BadRecording where there is no recording, NotReachable where the sample is missing.
    """
    if "://" in str(target):
        raise WrongUse(
            f"{target} is an address, not a recording",
            hint="record it first: perfnb record --url URL --out NAME.perfnb",
        )
    path = _copy_of(sample_path(data)) if str(target) == SAMPLE else Path(target).expanduser()
    recording = Recording.open(path)
    reached = Target.load(folder).beside(path)
    return Incident(recording, reached, Objectives.load(folder))


def sample_path(data: Path | None = None) -> Path:
    """Return where the bundled sample recording is (in ``data``); raises NotReachable where it is missing."""
    path = (data or bundled("data")) / "sample.perfnb"
    if not path.is_dir():
        raise NotReachable("the bundled sample recording is missing", hint="make one: perfnb demo --headless")
    return path


@cache
def _copy_of(sample: Path) -> Path:
    """Return a copy that notes may be added to; it goes when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="perfnb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(shutil.copytree(sample, folder / "sample.perfnb"))
