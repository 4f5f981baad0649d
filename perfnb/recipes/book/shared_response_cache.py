"""Answers are kept in Redis, so that every process of the app finds what one of them has asked for.

Mends: no-response-cache
Needs: redis, openai
Source: A10, E48; redis-py manual (asyncio client, SET with EX)
Unlike the guides: the key is made of the whole request and the tenant, not of the prompt alone, by SHA-256 (MD5 is
    blocked on FIPS machines); the client doesn't block the event loop; without Redis the app goes on, paying.
Costs: a Redis to run, with maxmemory and an eviction policy set; the answers' text lies in it. Callers who ask at the
    same moment each make their call (response_cache joins them). Give the client a socket_timeout well below a second.
"""

import json
from contextlib import suppress
from hashlib import sha256
from typing import Any

from openai import AsyncOpenAI
from redis.asyncio import Redis
from redis.exceptions import RedisError


async def answer(client: AsyncOpenAI, cache: Redis, tenant: str, *, ttl_s: int = 300, **request: Any) -> str:
    """Return the answer to ``request`` (model, messages, …), from Redis where it was given in the last ``ttl_s``."""
    key = "answer:" + sha256(json.dumps([tenant, request], sort_keys=True).encode()).hexdigest()
    with suppress(RedisError):
        kept = await cache.get(key)
        if kept is not None:
            return kept.decode() if isinstance(kept, bytes) else str(kept)
    choice = (await client.chat.completions.create(**request)).choices[0]
    text: str = choice.message.content or ""
    if choice.finish_reason == "stop":  # half an answer is not worth keeping
        with suppress(RedisError):
            await cache.set(key, text, ex=ttl_s)
    return text
