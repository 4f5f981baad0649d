"""A recording that is still being written, seen as it was at one moment."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perfnb.recording.recording import Recording
from perfnb.recording.views import Views

STANDS_S = 60.0
"""For how long a snapshot stands after something was last worked out from it."""


class Snapshot(Recording):
    """A recording whose rows stand still while they are worked with, so that all that is shown of them agrees.

    Without it each question to a live recording finds new rows, and everything is worked out anew. The rows are renewed
    once nothing was worked out from them for ``STANDS_S``, or after :meth:`renew`.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(path, manifest)
        self._clock = clock
        self._worked_at = clock()
        self._is_old = False

    def renew(self) -> None:
        """Take the rows there are when something is asked next."""
        self._is_old = True

    def derived(self, name: str, build: Callable[[], Any]) -> Any:
        """Return what ``build`` returned the first time for the rows of this moment."""

        def worked_out() -> Any:
            try:
                return build()
            finally:
                self._worked_at = self._clock()

        return super().derived(name, worked_out)

    def _new_views(self) -> Views:
        return Views(self.path, copies_live=True)

    def _is_due(self) -> bool:
        if self._held or (self._views.is_pointed and not self._is_old and self._clock() - self._worked_at < STANDS_S):
            return False
        self._is_old, self._worked_at = False, self._clock()
        return True
