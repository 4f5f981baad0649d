"""A question asked before is answered from memory; callers who ask it at the same moment share one call.

Mends: no-response-cache
Needs: async-lru, openai
Source: A9, C49; async-lru manual (alru_cache)
Unlike the guides: a function that sees only an MD5 of the prompt can't ask the model, and it would keep its answers for
    ever. Here all that changes the answer is part of the key, the tenant too, and answers get old.
Costs: the memory of 1000 answers in each process, gone at a restart (several processes: shared_response_cache); an
    answer may be five minutes old. Not for questions whose answer hangs on who asks, unless that is an argument.
"""

from async_lru import alru_cache
from openai import AsyncOpenAI


@alru_cache(maxsize=1000, ttl=300)
async def answer(client: AsyncOpenAI, tenant: str, model: str, system: str, question: str) -> str:
    """Return the model's answer, asked for once while these arguments stay the same; an error is not kept."""
    reply = await client.chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": system}, {"role": "user", "content": question}],
    )
    return reply.choices[0].message.content or ""
