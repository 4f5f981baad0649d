"""What every knob has in common: it is read, set and undone, and says how another process can undo it.

A kind of knob is a module (or any object) with two functions: :class:`Kind`. A third-party package adds one under the
entry point group ``perfnb.knobs``; its name there is the kind's.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from perfnb.errors import NotInstalled
from perfnb.recording import Recording
from perfnb.target import Target

GROUP = "perfnb.knobs"


class Knob(Protocol):
    """Something that can be set, read and undone on the live target."""

    @property
    def kind(self) -> str:
        """Return which kind's ``go_back`` undoes it."""

    @property
    def name(self) -> str:
        """Return its name."""

    @property
    def title(self) -> str:
        """Return it in words."""

    def current(self) -> Any:
        """Return its value now, fit to be set again; raises NotReachable."""

    def set(self, value: Any) -> None:
        """Set it; returns once it holds. Raises NotReachable or WrongUse."""

    def undo(self) -> None:
        """Bring back what was there before the first set; nothing where none was."""

    def way_back(self) -> Mapping[str, Any]:
        """Return what ``go_back`` needs to bring back what holds now: plain JSON, no secret and no prompt in it."""

    def shown(self, value: Any) -> Any:
        """Return ``value`` as the timeline may show it."""


class Kind(Protocol):
    """A kind of knob."""

    def knobs(self, recording: Recording, target: Target) -> Iterable[Knob]:
        """Yield the knobs of this kind that the target has."""

    def go_back(self, recording: Path, way: Mapping[str, Any]) -> str:
        """Bring back what ``way`` describes and say so in a line; once more does no harm.

        Raises NotReachable where it can't be done now, with what to do.
        """


def kinds() -> dict[str, Kind]:
    """Return every kind of knob by name."""
    from perfnb.knobs import app, llm, restart
    from perfnb.knobs.postgres import index, role_settings

    found: dict[str, Kind] = {
        "llm": llm, "http": app, "restart": restart, role_settings.KIND: role_settings, index.KIND: index,
    }  # fmt: skip
    return {point.name: point.load() for point in entry_points(group=GROUP)} | found


def kind(name: str) -> Kind:
    """Return the kind of that name; raises NotInstalled."""
    if name not in (known := kinds()):
        raise NotInstalled(f"no kind of knob {name!r}", hint="install the package that set it")
    return known[name]


def all_knobs(recording: Recording, target: Target) -> dict[str, Knob]:
    """Return the knobs that can be turned on this target, by name."""
    return {knob.name: knob for each in kinds().values() for knob in each.knobs(recording, target)}
