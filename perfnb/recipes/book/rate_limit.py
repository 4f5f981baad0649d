"""Calls wait their turn in the app, by requests and by tokens, so that the provider has no reason to refuse them.

Mends: rate-limited, no-backpressure
Needs: aiolimiter, openai
Source: B17; aiolimiter manual (AsyncLimiter, acquire)
Unlike the guides: 100 in 60 s are 1.7 a second once the first burst is over, far below a load of 10 a second; take the
    limits of your own account (x-ratelimit-limit-* in any answer). Providers count tokens too, not requests alone.
Costs: waiting, in place of a 429. A limiter counts for one process and one event loop: divide by the number of workers.
"""

from aiolimiter import AsyncLimiter
from openai import AsyncOpenAI


async def ask(
    client: AsyncOpenAI, requests: AsyncLimiter, tokens: AsyncLimiter, model: str, question: str, most_tokens: int = 500
) -> str:
    """Return the answer; ``requests`` and ``tokens`` are made once: AsyncLimiter(100, 60), AsyncLimiter(200_000, 60)."""
    expected = len(question) / 4 + most_tokens
    await tokens.acquire(min(expected, tokens.max_rate))
    async with requests:
        reply = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], max_completion_tokens=most_tokens
        )
    return reply.choices[0].message.content or ""
