"""A text is embedded once; its vector is kept in Redis under the model and the SHA-256 of the text.

Mends: no-embedding-cache, slow-embedding
Needs: redis, openai
Source: A11, E49; redis-py manual (MGET, pipelines)
Unlike the guides: questions are cached as documents are (CacheBackedEmbeddings leaves them out unless told); Python's
    hash() differs in every process, so a cache keyed by it never hits after a restart.
Costs: a Redis with 4 bytes for each dimension of each text, and one round trip. Another model or another number of
    dimensions is another space: name both in model where you shorten vectors.
"""

from array import array
from collections.abc import Sequence
from hashlib import sha256

from openai import AsyncOpenAI
from redis.asyncio import Redis

KEPT_S = 30 * 24 * 3600


async def embed(client: AsyncOpenAI, cache: Redis, model: str, texts: Sequence[str]) -> list[list[float]]:
    """Return the vectors of ``texts`` in their order; those not seen before are asked for in one call."""
    keys = [f"embedding:{model}:{sha256(text.encode()).hexdigest()}" for text in texts]
    found = await cache.mget(keys) if keys else []
    kept = {key: vector for key, vector in zip(keys, found, strict=True) if isinstance(vector, bytes)}
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in kept}
    if missing:
        reply = await client.embeddings.create(model=model, input=list(missing.values()))
        fresh = {key: array("f", one.embedding).tobytes() for key, one in zip(missing, reply.data, strict=True)}
        async with cache.pipeline(transaction=False) as pipeline:
            for key, vector in fresh.items():
                pipeline.set(key, vector, ex=KEPT_S)
            await pipeline.execute()
        kept |= fresh
    return [array("f", kept[key]).tolist() for key in keys]
