"""A source that works in a thread of its own until it is told to stop."""

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Self

from perfnb.sources.base import Emit


class Threaded(ABC):
    """Runs :meth:`_run` in a thread from entering to leaving.

    A subclass gives ``name``, and ``stop_timeout_s`` where its last look may take longer (None: as long as it takes).
    In it ``_stop`` is set when the time has come, and ``_counters`` tells what was seen so far.
    """

    name = ""
    stop_timeout_s: float | None = 5.0

    def __init__(self, emit: Emit, *counters: str) -> None:
        self._emit = emit
        self._counters = Counter(dict.fromkeys(counters, 0))
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _run(self) -> None:
        """Work until ``_stop`` is set."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Return what was seen so far, and how much of it failed."""
        return self._counters

    @property
    def is_alive(self) -> bool:
        """Tell whether the thread still works."""
        return self._thread is not None and self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self.stop_timeout_s)
