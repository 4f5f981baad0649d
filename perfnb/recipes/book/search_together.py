"""Several questions are searched for with one statement, each still by the vector index.

Mends: single-vector-searches
Needs: psycopg, pgvector (in Postgres)
Source: C44; PostgreSQL manual (LATERAL subqueries, WITH ORDINALITY), pgvector manual (HNSW)
Costs: the server does one search after another, so this saves round trips and connections, not the searches' own time. The
    answer is as late as its slowest search.
"""

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection

NEAREST = """
SELECT asked.place, near.id, near.body
FROM unnest(%s::text[]) WITH ORDINALITY AS asked (vector, place)
CROSS JOIN LATERAL (
    SELECT id, body, embedding <=> asked.vector::vector AS distance FROM passages
    ORDER BY embedding <=> asked.vector::vector LIMIT %s
) AS near
ORDER BY asked.place, near.distance
"""


async def search_together(
    database: AsyncConnection[Any], vectors: Sequence[Sequence[float]], *, limit: int = 5
) -> list[list[tuple[int, str]]]:
    """Return for each of ``vectors`` its ``limit`` nearest rows (id, text), nearest first."""
    texts = [str(list(map(float, vector))) for vector in vectors]
    found: list[list[tuple[int, str]]] = [[] for _ in vectors]
    for place, number, body in await (await database.execute(NEAREST, (texts, limit))).fetchall():
        found[place - 1].append((number, body))
    return found
