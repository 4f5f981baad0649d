"""A question that means the same as one before is answered with what that one got, found by pgvector.

Mends: no-response-cache
Needs: psycopg, pgvector (in Postgres), openai
Source: B26; pgvector manual (cosine distance)
Unlike the guides: a similarity above 0.9 alone mixes up "in 2023" and "in 2024", "is" and "is not", and tenants. Here
    numbers and negations must agree exactly, and an answer is found only by the tenant and model it was given for.
Costs: an embedding call for every question, and now and then a wrong answer: look at the pairs of your own questions
    that lie below the distance before you trust it, and again for another embedding model. Old rows are yours to
    delete; from some ten thousand on, give the vectors a fixed dimension and an HNSW index.
"""

import re
from typing import Any

from openai import AsyncOpenAI
from psycopg import AsyncConnection

TABLE = """
CREATE TABLE IF NOT EXISTS kept_answers (
    tenant text, model text, exact text[], embedding vector, answer text, made timestamptz DEFAULT now())
"""
NEAREST = """
SELECT answer FROM kept_answers
WHERE tenant = %(tenant)s AND model = %(model)s AND exact = %(exact)s AND made > now() - interval '1 hour'
    AND embedding <=> %(embedding)s::vector < %(distance)s
ORDER BY embedding <=> %(embedding)s::vector LIMIT 1
"""
KEEP = "INSERT INTO kept_answers VALUES (%(tenant)s, %(model)s, %(exact)s, %(embedding)s::vector, %(answer)s)"
EXACT = re.compile(r"\d[\d.,]*|\b(?:not|no|never|without|except)\b|n't\b", re.IGNORECASE)


async def answer(
    client: AsyncOpenAI,
    database: AsyncConnection[Any],
    tenant: str,
    model: str,
    question: str,
    embedding_model: str,
    distance: float = 0.1,
) -> str:
    """Return the answer to ``question`` or to one that lies within ``distance`` of it; the connection is autocommit."""
    embedded = await client.embeddings.create(model=embedding_model, input=question)
    exact = sorted(found.lower() for found in EXACT.findall(question))
    asked = {"tenant": tenant, "model": model, "exact": exact, "embedding": embedded.data[0].embedding}
    kept = await (await database.execute(NEAREST, asked | {"distance": distance})).fetchone()
    if kept:
        return str(kept[0])
    reply = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}])
    text = reply.choices[0].message.content or ""
    await database.execute(KEEP, asked | {"answer": text})
    return text
