"""Change a knob so that it can be undone whatever happens: how to undo is on the timeline before the change is made."""

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from perfnb.errors import PerfnbError
from perfnb.knobs.base import Knob, kind
from perfnb.recording import Recording

SET, UNDONE, KEPT = "set", "undone", "kept"


class Change:
    """A knob that was set: undo it or keep it."""

    def __init__(self, recording: Recording, knob: Knob, value: Any) -> None:
        self.id = secrets.token_hex(6)
        self.is_open = True
        self._recording = recording
        self._knob = knob
        self._way = dict(knob.way_back())
        about = {"kind": knob.kind, "title": knob.title, "way_back": self._way, "value": knob.shown(value)}
        self._tell(f"{knob.title}: about to be set", SET, **about)
        try:
            knob.set(value)
        except BaseException:
            with contextlib.suppress(PerfnbError):  # then it stays for revert
                self.undo()
            raise

    def undo(self) -> None:
        """Bring back what was there; nothing where that was done, or the change was kept."""
        if self.is_open:
            said = kind(self._knob.kind).go_back(self._recording.path, self._way)
            self.is_open = False
            self._tell(f"{self._knob.title}: {said}", UNDONE)

    def keep(self) -> None:
        """Leave it as it is; ``revert`` undoes it only when asked to undo what was kept too."""
        if self.is_open:
            self.is_open = False
            self._tell(f"{self._knob.title}: kept", KEPT)

    def _tell(self, line: str, did: str, **more: Any) -> None:
        body = {"knob": self._knob.name, "did": did, "change": self.id, **more}
        self._recording.add_event("knob", line, body)


def change(recording: Recording, knob: Knob, value: Any) -> Change:
    """Write down how to undo, then set ``knob`` to ``value``; raises what the knob raises, undone again."""
    return Change(recording, knob, value)


@contextmanager
def changing(recording: Recording, knob: Knob, value: Any) -> Iterator[Change]:
    """Set ``knob`` to ``value`` for the time of the block; undone when it is left, unless ``keep`` was called."""
    made = Change(recording, knob, value)
    try:
        yield made
    finally:
        made.undo()


@dataclass(frozen=True)
class Reverted:
    """What became of one change: ``said`` in a line, whether it ``is_undone`` now."""

    knob: str
    said: str
    is_undone: bool

    def __str__(self) -> str:
        return f"{self.knob}: {self.said}" if self.is_undone else f"{self.knob}: NOT undone: {self.said}"


def reverted(recording: Recording, *, kept: bool = False) -> list[Reverted]:
    """Undo what was set and neither undone nor kept (``kept``: that too), the last change first, and tell of each.

    It needs nothing of the process that made the change, and running it again does no harm.
    """
    return [_go_back(recording, body) for body in reversed(open_changes(recording, kept=kept))]


def revert(recording: Recording, *, kept: bool = False) -> list[str]:
    """Undo as :func:`reverted` does and return a line for each change."""
    return [str(each) for each in reverted(recording, kept=kept)]


def open_changes(recording: Recording, *, kept: bool = False) -> list[dict[str, Any]]:
    """Return what the timeline says of each change that is not undone, the oldest first."""
    bodies = recording.query("SELECT body FROM events WHERE kind = 'knob' ORDER BY time").body
    told = [json.loads(body) for body in bodies]
    over = (UNDONE,) if kept else (UNDONE, KEPT)
    closed = {body.get("change") for body in told if body.get("did") in over}
    return [body for body in told if body.get("did") == SET and body["change"] not in closed]


def _go_back(recording: Recording, body: Mapping[str, Any]) -> Reverted:
    try:
        said = kind(body["kind"]).go_back(recording.path, body["way_back"])
    except (PerfnbError, OSError) as error:
        return Reverted(body["knob"], str(error), is_undone=False)
    about = {"knob": body["knob"], "did": UNDONE, "change": body["change"], "by": "revert"}
    recording.add_event("knob", f"{body['title']}: {said}", about)
    return Reverted(body["knob"], said, is_undone=True)
