"""A cache put before recorded calls: which of them it would have answered, in the order in which they came."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from cachetools import TTLCache

Find = Callable[[int, "TTLCache[Any, int]"], Any]
"""Returns the key under which a call finds its answer in the cache, or None."""


class Clock:
    """The time of the replay, in ns."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        """Return the time it is."""
        return self.now


def replay(
    keys: Sequence[Any],
    starts: Sequence[int],
    ends: Sequence[int],
    *,
    ttl_s: float,
    entries: int,
    keeps: Sequence[bool] | None = None,
    known: Iterable[Any] = (),
    find: Find | None = None,
) -> np.ndarray:
    """Return for each call, by start, the number of the call that gave its answer; -1 for none, -2 for a known one.

    The cache keeps an answer from when its call ended until ``ttl_s`` later, and the ``entries`` used last; a call made
    while an equal one is still under way is not answered. ``keeps`` tells which answers are worth keeping, ``known``
    the keys it holds at the start, least wanted first. It is the cache the proxy uses (cachetools.TTLCache).
    """
    clock = Clock()
    cache: TTLCache[Any, int] = TTLCache(entries, max(1, round(ttl_s * 1e9)), timer=clock)
    clock.now = int(starts[0]) if len(starts) else 0
    for key in known:
        cache[key] = -2
    under_way: list[tuple[int, int]] = []
    given = np.full(len(keys), -1)
    for number in range(len(keys)):
        _keep_ended(under_way, int(starts[number]), keys, cache, clock)
        clock.now = int(starts[number])
        key = keys[number] if find is None else find(number, cache)
        found = None if key is None else cache.get(key)
        if found is not None:
            given[number] = found
        elif keeps is None or keeps[number]:
            heapq.heappush(under_way, (int(ends[number]), number))
    return given


def _keep_ended(
    under_way: list[tuple[int, int]], now: int, keys: Sequence[Any], cache: "TTLCache[Any, int]", clock: Clock
) -> None:
    while under_way and under_way[0][0] <= now:
        clock.now, number = heapq.heappop(under_way)
        cache[keys[number]] = number
