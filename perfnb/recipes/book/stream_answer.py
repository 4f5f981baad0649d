"""Words reach the user as the model says them, and a failure half-way is told, not hidden behind a status of 200.

Mends: no-streaming, errors-as-success, no-usage-tracking
Needs: fastapi, openai
Source: A3, B11, E33; OpenAI API reference (stream_options); HTML standard (server-sent events)
Unlike the guides: a proxy in front may hold words back until all are there (nginx: X-Accel-Buffering), and the tokens
    used come only where they are asked for.
Costs: the page has to read a stream (EventSource or fetch). Answers can't be checked as a whole before they are shown.
"""

import json
import logging
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI, OpenAIError


async def events(client: AsyncOpenAI, model: str, question: str) -> AsyncIterator[str]:
    """Yield server-sent events: the words, and at the end ``done`` or ``error``."""
    try:
        async with await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            async for chunk in stream:
                if chunk.usage:
                    logging.info("%s used %d tokens", model, chunk.usage.total_tokens)
                if chunk.choices and (words := chunk.choices[0].delta.content):
                    yield f"data: {json.dumps(words)}\n\n"
        yield "event: done\ndata: {}\n\n"
    except OpenAIError as error:
        logging.error("the answer broke off: %s", error)
        yield "event: error\ndata: {}\n\n"


def streamed(client: AsyncOpenAI, model: str, question: str) -> StreamingResponse:
    """Return what a FastAPI route answers; a caller who leaves ends the call to the model, too."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(client, model, question), media_type="text/event-stream", headers=headers)
