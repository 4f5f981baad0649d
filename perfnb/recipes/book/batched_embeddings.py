"""Many texts are embedded with one call for every hundred, not one call for each.

Mends: unbatched-embeddings, unbatched-requests
Needs: openai
Source: B10, C57; OpenAI API reference (embeddings: at most 2048 inputs and 300,000 tokens a call)
Costs: nothing. One text the provider refuses fails the whole batch, so leave out empty ones first.
"""

from collections.abc import Sequence

from openai import AsyncOpenAI


async def embed(client: AsyncOpenAI, model: str, texts: Sequence[str], *, batch: int = 100) -> list[list[float]]:
    """Return the vectors of ``texts``, in their order."""
    vectors: list[list[float]] = []
    for start in range(0, len(texts), batch):
        reply = await client.embeddings.create(model=model, input=list(texts[start : start + batch]))
        vectors += [one.embedding for one in sorted(reply.data, key=lambda one: one.index)]
    return vectors
