"""How the two arms are put in place: a knob set in turn, or traffic split by trace; always undone in the end."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, Self, runtime_checkable

from perfnb.errors import PerfnbError
from perfnb.recording import Recording


class Knob(Protocol):
    """Something that can be set, read and undone on the live target."""

    @property
    def name(self) -> str:
        """Return its name."""

    @property
    def title(self) -> str:
        """Return it in words."""

    def current(self) -> Any:
        """Return its value now."""

    def set(self, value: Any) -> None:
        """Set it; returns once it holds."""

    def undo(self) -> None:
        """Bring back what was there before the first set."""


@runtime_checkable
class SplittingKnob(Protocol):
    """A knob that can hold two values at once, one for each arm of a trial, by trace."""

    splits_by_trace: bool

    def split(self, trial: str, a: Any, b: Any) -> None:
        """Give traces of arm A the value ``a`` and those of arm B ``b``; ``undo`` ends it."""


Changing = Callable[[Recording, Any, Any], AbstractContextManager[Any]]
"""Sets a knob after writing down how to undo it, and undoes it when left."""
Label = Callable[[Mapping[str, str] | None], None]
"""Has the proxy mark all calls with ``{"trial": id, "arm": "A"}``; None ends it."""


class Switch:
    """The arms of one trial; leaving undoes the knob, ``trouble`` says why where that failed.

    ``shown`` are the arms' values as the timeline may show them: a knob with a ``shown`` of its own leaves prompts out.
    """

    def __init__(
        self, recording: Recording, knob: Knob, value: Any, trial: str, *, changing: Changing, label: Label | None
    ) -> None:
        before = knob.current()
        shown = getattr(knob, "shown", _as_it_is)
        self.shown = {"A": shown(before), "B": shown(value)}
        self.trouble = ""
        self.is_split = isinstance(knob, SplittingKnob) and knob.splits_by_trace
        self._recording = recording
        self._knob = knob
        self._values = {"A": before, "B": value}
        self._trial = trial
        self._changing = changing
        self._label = None if self.is_split else label
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Write down how to undo and set what is set already, so that A comes about in the same way as B."""
        self._stack.enter_context(self._changing(self._recording, self._knob, self._values["A"]))
        if self.is_split:
            assert isinstance(self._knob, SplittingKnob)
            try:
                self._knob.split(self._trial, self._values["A"], self._values["B"])
            except BaseException:
                self.__exit__()
                raise
        return self

    def apply(self, arm: str) -> None:
        """Put ``arm`` in place; nothing is to do where both are."""
        if self.is_split:
            return
        self._knob.set(self._values[arm])
        if self._label is not None:
            self._label({"trial": self._trial, "arm": arm})

    def __exit__(self, *_: object) -> None:
        for end in (self._end_label, self._stack.close):
            try:
                end()
            except (PerfnbError, OSError) as error:
                self.trouble = str(error)

    def _end_label(self) -> None:
        if self._label is not None:
            self._label(None)


def _as_it_is(value: Any) -> Any:
    return value
