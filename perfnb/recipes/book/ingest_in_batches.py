"""Documents are read, embedded and stored a hundred at a time, however many there are.

Mends: load-everything, list-not-generator, single-inserts, unbatched-embeddings
Needs: psycopg, pgvector (in Postgres), openai
Source: A16, A23, B15; psycopg manual (executemany, transactions)
Unlike the guides: del frees nothing by itself; memory stays low because documents come from a generator and no list
    holds more than a batch.
Costs: a batch that fails is rolled back alone: those before it stay, so start again with what is missing.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from openai import AsyncOpenAI
from psycopg import AsyncConnection

INSERT = "INSERT INTO passages (body, embedding) VALUES (%s, %s::vector)"


async def ingest(
    client: AsyncOpenAI, database: AsyncConnection[Any], model: str, documents: Iterable[str], *, batch: int = 100
) -> int:
    """Store ``documents``, best a generator, with their vectors and return how many there were."""
    unread = iter(documents)
    stored = 0
    while texts := list(islice(unread, batch)):
        reply = await client.embeddings.create(model=model, input=texts)
        rows = [(text, one.embedding) for text, one in zip(texts, reply.data, strict=True)]
        async with database.transaction(), database.cursor() as cursor:
            await cursor.executemany(INSERT, rows)
        stored += len(rows)
        del texts, rows  # or they live on while the next batch is read
    return stored
