"""A vector search looks far enough for what it is asked, and its setting leaks into no other connection.

Mends: missing-results, vector-search-parameters
Needs: psycopg, pgvector (0.8 or later, in Postgres)
Source: E23, C40; pgvector manual (query options, iterative index scans), PgBouncer manual (transaction pooling)
Unlike the guides: SET hnsw.ef_search stays on a pooled connection that the next request gets, and is lost on another one;
    set within the transaction it goes with it. It must not be below the limit, or rows are missing.
Costs: a larger ef_search finds more and takes longer: measure both on your own rows. Iterative scans read up to
    hnsw.max_scan_tuples rows where a filter leaves few.
"""

from typing import Any

from psycopg import AsyncConnection

SETTINGS = """
SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true)
"""

# materialized and sorted again: a relaxed scan gives its rows nearly in order
NEAREST = """
WITH found AS MATERIALIZED (
    SELECT id, body, embedding <=> %(vector)s::vector AS distance FROM passages
    WHERE category = %(category)s ORDER BY distance LIMIT %(limit)s
)
SELECT id, body, distance FROM found ORDER BY distance + 0
"""


async def nearest(
    database: AsyncConnection[Any], vector: list[float], category: str, *, limit: int = 10, ef_search: int = 100
) -> list[tuple[int, str, float]]:
    """Return the ``limit`` rows of ``category`` nearest to ``vector``: id, text, cosine distance."""
    given = {"vector": str(vector), "category": category, "limit": limit}
    async with database.transaction():  # outside of one, a local setting ends with its own statement
        await database.execute(SETTINGS, (str(min(1000, max(limit, ef_search))),))
        rows = await database.execute(NEAREST, given)
        return await rows.fetchall()
