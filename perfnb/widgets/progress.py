"""One line that says what is being worked on; rewritten in place, and left out of an export."""

import sys
from types import TracebackType
from typing import Any, Self

LIVE_ONLY = {"perfnb": {"live_only": True}}  # metadata of what an export leaves out


class Progress:
    """Tells what is done, ``total`` steps in all: in a notebook in place, elsewhere not at all.

    The kernel's interrupt stops the work between two steps; the line then says how far it came.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self.done = 0
        self._handle: Any = None

    def __call__(self, step: str) -> None:
        """Say that ``step`` is next."""
        self.done += 1
        self.say(f"{self.what}: {step} ({self.done} of {self.total})")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.done:
            self.say(f"{self.what}: {'stopped at' if kind else 'done,'} {self.done} of {self.total}")

    def say(self, text: str) -> None:
        """Show ``text`` in the line."""
        if not _in_kernel():
            return
        from IPython.display import display

        line = {"text/plain": text}
        if self._handle is None:
            self._handle = display(line, raw=True, metadata=LIVE_ONLY, display_id=True)
        else:
            self._handle.update(line, raw=True, metadata=LIVE_ONLY)


def _in_kernel() -> bool:
    """Tell whether this runs in a notebook's kernel."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    return shell is not None and hasattr(shell, "kernel")
