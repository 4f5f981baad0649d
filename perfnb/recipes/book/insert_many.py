"""Many rows are inserted with one statement, whatever their number.

Mends: single-inserts, frequent-statement
Needs: psycopg, pgvector (in Postgres)
Source: A23; PostgreSQL manual (unnest with several arrays, INSERT), pgvector manual (loading)
Unlike the guides: VALUES lists of different lengths are different statements to the server, each planned and counted anew,
    and end at 65,535 parameters; arrays are one statement of three parameters.
Costs: all rows of a call succeed or fail together. Above some ten thousand rows COPY is faster still.
"""

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection

INSERT = """
INSERT INTO passages (source_id, body, embedding)
SELECT source_id, body, embedding::vector
FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS given (source_id, body, embedding)
ON CONFLICT (source_id) DO UPDATE SET body = excluded.body, embedding = excluded.embedding
"""

Passage = tuple[int, str, Sequence[float]]


async def store(database: AsyncConnection[Any], passages: Sequence[Passage], *, batch: int = 500) -> int:
    """Store ``passages``, those already there anew, and return how many; a source id may be in each batch only once."""
    for start in range(0, len(passages), batch):
        ids, bodies, vectors = zip(*passages[start : start + batch], strict=True)
        texts = [str(list(map(float, vector))) for vector in vectors]
        await database.execute(INSERT, (list(ids), list(bodies), texts))
    return len(passages)
