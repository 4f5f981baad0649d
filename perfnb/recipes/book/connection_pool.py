"""Database connections are kept open and lent out, and given back before the model is asked.

Mends: no-connection-pool, connection-held-during-model-call, stale-connections, pool-exhausted
Needs: psycopg-pool, openai
Source: B20, C34, E3; psycopg manual (connection pools, check_connection)
Unlike the guides: a pool belongs to one process, so workers × 20 must stay below the server's max_connections; a checked
    connection costs a round trip and saves the request that would meet a dead one.
Costs: five open connections for each process. With 100 callers waiting or after 5 s the next one gets an error, in place
    of a queue without end.
"""

from typing import Any

from openai import AsyncOpenAI
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

Pool = AsyncConnectionPool[AsyncConnection[Any]]


def pool(dsn: str, *, least: int = 5, most: int = 20) -> Pool:
    """Return the app's pool: open it (``async with``) when the app starts."""
    check = AsyncConnectionPool.check_connection
    return AsyncConnectionPool(dsn, min_size=least, max_size=most, timeout=5, max_waiting=100, check=check, open=False)


async def answer(connections: Pool, client: AsyncOpenAI, model: str, question: str, query: str) -> str:
    """Return the model's answer from the rows of ``query`` (one column, one parameter)."""
    async with connections.connection() as connection:
        rows = await (await connection.execute(query.encode(), (question,))).fetchall()
    # from here on the connection serves others: the model takes seconds
    prompt = "\n\n".join([*(str(row[0]) for row in rows), f"Question: {question}"])
    reply = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": prompt}])
    return reply.choices[0].message.content or ""
