"""Requests that come in one by one are sent together: whatever waits when a call returns goes into the next one.

Mends: unbatched-requests, unbatched-embeddings, slow-embedding
Needs: openai
Source: B10; asyncio manual (queues, futures)
Costs: a request that comes while a call is under way waits for it; nobody waits on an idle app, as there is no delay to
    fill a batch. Start one collector with the app, and cancel it when the app stops.
"""

import asyncio

from openai import AsyncOpenAI

Waiting = asyncio.Queue[tuple[str, "asyncio.Future[list[float]]"]]


async def embed(waiting: Waiting, text: str) -> list[float]:
    """Return the vector of one text; it travels with what others ask at the same time."""
    vector: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
    await waiting.put((text, vector))
    return await vector


async def collector(client: AsyncOpenAI, model: str, waiting: Waiting, *, batch: int = 10) -> None:
    """Answer what waits, at most ``batch`` in a call, until cancelled; an error goes to those it concerns."""
    while True:
        asked = [await waiting.get()]
        while len(asked) < batch and not waiting.empty():
            asked.append(waiting.get_nowait())
        try:
            reply = await client.embeddings.create(model=model, input=[text for text, _ in asked])
        except Exception as error:
            for _, vector in asked:
                if not vector.done():
                    vector.set_exception(error)
        else:
            for (_, vector), one in zip(asked, reply.data, strict=True):
                if not vector.done():  # its caller may have gone
                    vector.set_result(one.embedding)
