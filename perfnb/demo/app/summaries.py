"""A job in the background: every module's documentation is summarised, over and over, for an overview page."""

import asyncio
from collections.abc import Sequence

from openai import APIError

from perfnb.demo.app.answering import Desk
from perfnb.demo.corpus import MODULES

INSTRUCTIONS = "Summarise the documentation for the overview page, in about 60 words."
CHARACTERS = 6500
WORKERS = 2


def summarising(desk: Desk) -> list[asyncio.Task[None]]:
    """Start the job's workers and return their tasks."""
    modules = MODULES.split()
    return [asyncio.create_task(_summarise(desk, modules[at::WORKERS])) for at in range(WORKERS)]


async def _summarise(desk: Desk, modules: Sequence[str]) -> None:
    while True:
        for module in modules:
            for document in await desk.store.documents([module]):
                try:
                    await desk.models.say(
                        [
                            {"role": "system", "content": INSTRUCTIONS},
                            {"role": "user", "content": f"{document.title}\n\n{document.body[:CHARACTERS]}"},
                        ]
                    )
                except APIError:
                    await asyncio.sleep(1)
