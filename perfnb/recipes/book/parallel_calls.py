"""Calls that don't need each other are made at once, but never more than the app may have under way.

Mends: sequential-calls, sequential-tools, no-backpressure, rate-limited
Needs: nothing but asyncio
Source: B21, A4, C48, C59; asyncio manual (semaphores, gather)
Unlike the guides: a gather without a bound sends a burst of any size and earns 429s, and errors come back among the
    answers. Await this from code that runs already: asyncio.run() fails in a notebook and in a web app.
Costs: make one semaphore when the app starts and pass it everywhere; one for each request bounds nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable


async def answers(
    ask: Callable[[str], Awaitable[str]], questions: Iterable[str], at_once: asyncio.Semaphore
) -> tuple[dict[str, str], dict[str, Exception]]:
    """Return the answers and the errors by question."""
    found: dict[str, str] = {}
    failed: dict[str, Exception] = {}

    async def one(question: str) -> None:
        async with at_once:
            try:
                found[question] = await ask(question)
            except Exception as error:
                failed[question] = error

    await asyncio.gather(*(one(question) for question in dict.fromkeys(questions)))
    return found, failed
