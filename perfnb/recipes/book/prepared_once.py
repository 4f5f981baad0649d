"""Costly preparation of a text is done once and kept, and the event loop goes on meanwhile.

Mends: slow-processing, python-hot-spot, blocked-event-loop
Needs: cachetools
Source: B9; cachetools manual (cached, condition); asyncio manual (to_thread)
Unlike the guides: a plain dict as a cache grows for ever, which is the next incident (unbounded-growth).
Costs: the memory of a thousand results. The result must hang on the text alone. Threads take turns at Python code: what
    computes for long belongs into a process.
"""

import asyncio
from collections.abc import Awaitable, Callable
from threading import Condition
from typing import TypeVar

from cachetools import LRUCache, cached

T = TypeVar("T")


def kept(prepare: Callable[[str], T], *, most: int = 1000) -> Callable[[str], Awaitable[T]]:
    """Return ``prepare`` with a memory of its latest results; callers with the same text wait for one run."""
    once = cached(LRUCache[str, T](most), key=str, condition=Condition())(prepare)

    async def prepared(text: str) -> T:
        return await asyncio.to_thread(once, text)

    return prepared
