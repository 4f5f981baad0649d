"""The app's database: documentation with vectors, sessions and their messages."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from perfnb.demo.app.settings import Settings

# The number of passages is written behind; it is the app's own, nobody's input.
NEAREST: Mapping[str, str] = {
    "all": "SELECT id, module, title, body FROM documents ORDER BY embedding <=> %s::vector LIMIT {limit}",
    "euclidean": "SELECT id, module, title, body FROM documents ORDER BY embedding <-> %s::vector LIMIT {limit}",
    "language": """
SELECT id, module, title, body FROM documents WHERE about->>'language' = 'en'
ORDER BY embedding <=> %s::vector LIMIT {limit}
""",
}
READ = "SELECT id, module, title, body FROM documents WHERE id = %s"
DOCUMENTS = """
SELECT min(id), module, module || ', whole documentation', string_agg(title || E'\\n' || body, E'\\n\\n' ORDER BY id)
FROM documents WHERE module = ANY(%s) GROUP BY module ORDER BY module
"""
REMOVE = "DELETE FROM documents WHERE module = %s AND title = %s"
INSERT = "INSERT INTO documents (module, title, body, embedding) VALUES (%s, %s, %s, %s::vector)"
INSERT_ALL = """
INSERT INTO documents (module, title, body, embedding)
SELECT %s, %s, body, embedding::vector FROM unnest(%s::text[], %s::text[]) AS passages (body, embedding)
"""
LATEST = """
SELECT role, content FROM (
    SELECT id, role, content FROM messages WHERE session_id = %s ORDER BY id DESC LIMIT %s
) AS latest ORDER BY id
"""
ALL_MESSAGES = "SELECT role, content FROM messages WHERE session_id = %s ORDER BY id"
OPEN_SESSION = "INSERT INTO sessions (id) VALUES (%s) ON CONFLICT (id) DO UPDATE SET last_active_at = now()"
ADD_TURN = """
INSERT INTO messages (session_id, role, content) VALUES (%(id)s, 'user', %(asked)s), (%(id)s, 'assistant', %(said)s)
"""


@dataclass(frozen=True)
class Passage:
    """One row of ``documents``."""

    id: int
    module: str
    title: str
    body: str


class Store:
    """The database behind a pool of connections, or behind a new connection for each statement."""

    def __init__(self, dsn: str, settings: Settings) -> None:
        self._dsn = dsn
        self._settings = settings
        self._pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            dsn,
            min_size=settings.pool_least,
            max_size=settings.pool_size,
            open=False,
            configure=register_vector_async,
            timeout=10,
        )

    async def open(self) -> None:
        """Open the pool and its first connections."""
        if self._settings.pool == "shared":
            await self._pool.open(wait=True)

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection; what is done with it is one transaction."""
        if self._settings.pool == "shared":
            async with self._pool.connection() as connection:
                yield connection
            return
        async with await AsyncConnection.connect(self._dsn) as connection:
            await register_vector_async(connection)
            yield connection

    async def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return what a statement returns."""
        async with self.connection() as connection:
            return await (await connection.execute(query, values)).fetchall()

    async def nearest(self, embedding: Sequence[float], limit: int) -> list[Passage]:
        """Return the passages nearest to an embedding, nearest first."""
        return await self._passages(NEAREST[self._settings.search].format(limit=int(limit)), (list(embedding),))

    async def read(self, document_id: int) -> Passage | None:
        """Return one passage."""
        found = await self._passages(READ, (document_id,))
        return found[0] if found else None

    async def documents(self, modules: Sequence[str]) -> list[Passage]:
        """Return the whole documentation of each of these modules."""
        return await self._passages(DOCUMENTS, (list(modules),))

    async def add(self, module: str, title: str, bodies: Sequence[str], embeddings: Sequence[Sequence[float]]) -> None:
        """Store the passages of a document in place of those it had."""
        if self._settings.store == "one by one":
            for body, vector in zip(bodies, embeddings, strict=True):
                async with self.connection() as connection:
                    await connection.execute(INSERT, (module, title, body, list(vector)))
            return
        async with self.connection() as connection:
            await connection.execute(REMOVE, (module, title))
            vectors = [str(list(vector)) for vector in embeddings]
            await connection.execute(INSERT_ALL, (module, title, list(bodies), vectors))

    async def history(self, session_id: str, limit: int) -> list[dict[str, str]]:
        """Return a session's latest messages, oldest first; all of them for a negative limit."""
        query, values = (LATEST, (session_id, limit)) if limit >= 0 else (ALL_MESSAGES, (session_id,))
        rows = await self.rows(query, values)
        return [{"role": role, "content": content} for role, content in rows]

    async def add_turn(self, session_id: str, asked: str, said: str) -> None:
        """Store what was asked and said."""
        async with self.connection() as connection:
            await connection.execute(OPEN_SESSION, (session_id,))
            await connection.execute(ADD_TURN, {"id": session_id, "asked": asked, "said": said})

    async def _passages(self, query: str, values: Sequence[Any]) -> list[Passage]:
        return [Passage(*row) for row in await self.rows(query, values)]
