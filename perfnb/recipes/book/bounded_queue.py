"""Work waits in a queue of limited length; when that is full, the caller is told so at once.

Mends: unbounded-growth, no-backpressure
Needs: fastapi (or any other way to answer 503)
Source: B16; asyncio manual (Queue, maxsize)
Unlike the guides: deque(maxlen=1000) drops the oldest task without a word. Here nothing that was accepted is lost.
Costs: callers have to live with a 503 and its Retry-After. The queue lives in memory: what must survive a restart goes
    into the database. A producer that can wait awaits queue.put() and is slowed down instead.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import HTTPException


def accept(queue: "asyncio.Queue[Any]", job: Any) -> None:
    """Put a job into the queue, made as asyncio.Queue(maxsize=1000); raises a 503 where it is full."""
    try:
        queue.put_nowait(job)
    except asyncio.QueueFull:
        raise HTTPException(503, "busy, please try again", headers={"Retry-After": "5"}) from None


async def work(queue: "asyncio.Queue[Any]", do: Callable[[Any], Awaitable[None]]) -> None:
    """Do jobs one after another until cancelled; start as many of these tasks as may run at once."""
    while True:
        job = await queue.get()
        try:
            await do(job)
        except Exception:
            logging.exception("a job failed")
        finally:
            queue.task_done()
