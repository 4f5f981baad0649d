"""Recipes on Postgres: connections that are lent out, documents that come in batches."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from openai import AsyncOpenAI, BadRequestError
from psycopg_pool import PoolTimeout, TooManyRequests
from watched_provider import WatchedProvider, watched_provider

EMBEDDING = "sim-embedding"


def test_connection_pool_lends_few_connections_to_many_and_none_to_those_who_wait_for_the_model(
    book: Any, dsn: str
) -> None:
    recipe = book.connection_pool
    query = "SELECT pg_backend_pid() || %s"

    async def use(client: AsyncOpenAI) -> list[str]:
        async with recipe.pool(dsn, least=1, most=3) as connections:
            asks = (recipe.answer(connections, client, "sim-small", f"-{number}?", query) for number in range(12))
            return await asyncio.gather(*asks)

    with watched_provider(hold=12) as provider:  # with a connection each, only three would come to the door
        assert all(provider.run(use))
        assert provider.most_inside == 12
        backends = {visit.question.partition("-")[0] for visit in provider.calls()}
    assert 1 <= len(backends) <= 3


def test_connection_pool_replaces_connections_that_died(book: Any, dsn: str, provider: WatchedProvider) -> None:
    recipe = book.connection_pool
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pooled'"

    async def use(client: AsyncOpenAI) -> str:
        async with recipe.pool(f"{dsn}?application_name=pooled", least=2, most=2) as connections:
            await connections.wait()
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
                killed = await (await other.execute(kill)).fetchone()
                assert killed == (2,)
            return str(await recipe.answer(connections, client, "sim-small", "alive", "SELECT %s"))

    assert provider.run(use)


def test_connection_pool_tells_those_it_cannot_serve(book: Any, dsn: str) -> None:
    async def main() -> None:
        async with book.connection_pool.pool(dsn, least=1, most=1) as connections:
            assert connections.max_waiting == 100
            async with connections.connection():
                with pytest.raises(PoolTimeout):
                    await connections.getconn(timeout=0.05)
                waiting = [asyncio.create_task(connections.getconn(timeout=20)) for _ in range(100)]
                await asyncio.sleep(0)
                with pytest.raises(TooManyRequests):
                    await connections.getconn()
                for each in waiting:
                    each.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(main())


class Text(str):
    """A text that can be watched going away."""


def documents(count: int, alive: list["weakref.ref[Text]"], most: list[int]) -> Iterator[str]:
    for number in range(count):
        text = Text(f"document {number}")
        alive.append(weakref.ref(text))
        gc.collect(0)
        most.append(sum(one() is not None for one in alive))
        yield text


def test_ingest_in_batches_holds_one_batch_and_stores_all(book: Any, dsn: str, provider: WatchedProvider) -> None:
    most: list[int] = []

    async def use(client: AsyncOpenAI) -> tuple[int, Any]:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as database:
            await database.execute("DROP TABLE IF EXISTS passages")
            await database.execute("CREATE TABLE passages (body text, embedding vector)")
            stored = await book.ingest_in_batches.ingest(client, database, EMBEDDING, documents(250, [], most))
            rows = await database.execute(
                "SELECT count(*), count(DISTINCT body), min(vector_dims(embedding)) FROM passages"
            )
            return stored, await rows.fetchone()

    stored, row = provider.run(use)
    assert (stored, row) == (250, (250, 250, 256))
    assert [len(visit.body["input"]) for visit in provider.calls("embeddings")] == [100, 100, 50]
    assert max(most) <= 110, "more than a batch was held"


def test_ingest_in_batches_keeps_what_was_stored_before_a_failure(
    book: Any, dsn: str, provider: WatchedProvider
) -> None:
    async def use(client: AsyncOpenAI) -> Any:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as database:
            await database.execute("DROP TABLE IF EXISTS passages")
            await database.execute("CREATE TABLE passages (body text, embedding vector)")
            with pytest.raises(BadRequestError):
                await book.ingest_in_batches.ingest(client, database, EMBEDDING, ["a", "b", "c", None], batch=2)
            return await (await database.execute("SELECT array_agg(body) FROM passages")).fetchone()

    assert provider.run(use) == (["a", "b"],)
