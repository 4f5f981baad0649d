"""Recipes that keep answers and vectors: what was asked before is not paid again, and nobody gets another's answer."""

import asyncio
import os
from typing import Any

import psycopg
import pytest
from openai import AsyncOpenAI, BadRequestError
from redis.asyncio import Redis
from watched_provider import WatchedProvider

from perfnb.demo.provider.conditions import Conditions

MODEL = "sim-small"
EMBEDDING = "sim-embedding"
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "What is a list?"}]}


def test_response_cache_makes_one_call_of_a_repeated_question(book: Any, provider: WatchedProvider) -> None:
    answer = book.response_cache.answer

    async def use(client: AsyncOpenAI) -> list[str]:
        together = await asyncio.gather(
            *(answer(client, "a", MODEL, "Be brief.", "What is a list?") for _ in range(20))
        )
        return [*together, await answer(client, "a", MODEL, "Be brief.", "What is a list?")]

    answers = provider.run(use)
    assert len(provider.calls()) == 1
    assert answers[0]
    assert len(set(answers)) == 1


def test_response_cache_gives_no_answer_to_another_tenant_model_or_instruction(
    book: Any, provider: WatchedProvider
) -> None:
    answer = book.response_cache.answer
    others = [
        ("a", MODEL, "Be brief."),
        ("b", MODEL, "Be brief."),
        ("a", "sim-large", "Be brief."),
        ("a", MODEL, "Be kind."),
    ]

    async def use(client: AsyncOpenAI) -> None:
        for _ in range(2):
            for tenant, model, system in others:
                await answer(client, tenant, model, system, "What is a list?")

    provider.run(use)
    assert len(provider.calls()) == len(others)


def test_response_cache_keeps_no_error(book: Any, provider: WatchedProvider) -> None:
    answer = book.response_cache.answer

    async def use(client: AsyncOpenAI) -> str:
        provider.provider.conditions = Conditions(refuse_share=1)
        with pytest.raises(BadRequestError):
            await answer(client, "a", MODEL, "Be brief.", "What is a list?")
        provider.provider.conditions = Conditions()
        return str(await answer(client, "a", MODEL, "Be brief.", "What is a list?"))

    assert provider.run(use)
    assert len(provider.calls()) == 2


def test_shared_response_cache_serves_another_process(book: Any, provider: WatchedProvider, redis_url: str) -> None:
    async def use(client: AsyncOpenAI) -> list[str]:
        found = []
        for tenant in ("a", "a", "b"):
            async with Redis.from_url(redis_url) as cache:  # a process of its own: new module, new connection
                found.append(await book.shared_response_cache.answer(client, cache, tenant, **ASKED))
        return found

    first, second, _ = provider.run(use)
    assert first
    assert first == second
    assert len(provider.calls()) == 2


def test_shared_response_cache_forgets_and_keeps_no_half_answers(
    book: Any, provider: WatchedProvider, redis_url: str
) -> None:
    answer = book.shared_response_cache.answer

    async def use(client: AsyncOpenAI) -> tuple[int, list[bytes]]:
        async with Redis.from_url(redis_url) as cache:
            await answer(client, cache, "a", ttl_s=300, **ASKED)
            [key] = await cache.keys()
            left_s = await cache.ttl(key)
            await answer(client, cache, "a", max_completion_tokens=2, **ASKED)
            return left_s, await cache.keys()

    left_s, keys = provider.run(use)
    assert 0 < left_s <= 300
    assert len(keys) == 1
    assert b"list" not in keys[0]


def test_shared_response_cache_lives_without_redis(book: Any, provider: WatchedProvider, tmp_path: Any) -> None:
    async def use(client: AsyncOpenAI) -> str:
        async with Redis.from_url(f"unix://{tmp_path}/nothing.sock") as cache:
            return str(await book.shared_response_cache.answer(client, cache, "a", **ASKED))

    assert provider.run(use)


def semantic_calls(book: Any, provider: WatchedProvider, dsn: str, asked: list[tuple[str, str]]) -> int:
    """Return how many answers the model gave for (tenant, question) after one another."""
    recipe = book.semantic_cache

    async def use(client: AsyncOpenAI) -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as database:
            await database.execute("DROP TABLE IF EXISTS kept_answers")
            await database.execute(recipe.TABLE)
            for tenant, question in asked:
                assert await recipe.answer(client, database, tenant, MODEL, question, embedding_model=EMBEDDING)

    provider.run(use)
    assert len(provider.calls("embeddings")) == len(asked)
    return len(provider.calls())


@pytest.mark.parametrize(
    ("second", "calls"),
    [
        (("a", "how can I open 3 csv files?"), 1),
        (("a", "How do I open 3 CSV files"), 1),
        (("b", "How do I open 3 csv files?"), 2),
        (("a", "How do I open 4 csv files?"), 2),
        (("a", "How do I not open 3 csv files?"), 2),
        (("a", "Where does the garbage collector run?"), 2),
    ],
)
def test_semantic_cache_answers_what_means_the_same(
    book: Any, provider: WatchedProvider, dsn: str, second: tuple[str, str], calls: int
) -> None:
    assert semantic_calls(book, provider, dsn, [("a", "How do I open 3 csv files?"), second]) == calls


def test_semantic_cache_lets_answers_grow_old(book: Any, provider: WatchedProvider, dsn: str) -> None:
    recipe = book.semantic_cache

    async def use(client: AsyncOpenAI) -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as database:
            await database.execute("DROP TABLE IF EXISTS kept_answers")
            await database.execute(recipe.TABLE)
            for _ in range(2):
                await recipe.answer(client, database, "a", MODEL, "What is a list?", embedding_model=EMBEDDING)
                await database.execute("UPDATE kept_answers SET made = made - interval '61 minutes'")

    provider.run(use)
    assert len(provider.calls()) == 2


def test_embedding_cache_asks_for_what_is_missing_in_one_call(
    book: Any, provider: WatchedProvider, redis_url: str
) -> None:
    embed = book.embedding_cache.embed

    async def use(client: AsyncOpenAI) -> tuple[Any, Any, Any]:
        async with Redis.from_url(redis_url) as cache:
            first = await embed(client, cache, EMBEDDING, ["one", "two", "one"])
            again = await book.embedding_cache.embed(client, cache, EMBEDDING, ["three", "two", "one"])
            assert await embed(client, cache, EMBEDDING, []) == []
            plain = await client.embeddings.create(model=EMBEDDING, input=["three", "two", "one"])
            return first, again, [one.embedding for one in plain.data]

    first, again, plain = provider.run(use)
    assert [visit.body["input"] for visit in provider.calls("embeddings")[:2]] == [["one", "two"], ["three"]]
    assert first == [again[2], again[1], again[2]]
    assert again == plain


def test_embedding_cache_keeps_models_apart(book: Any, provider: WatchedProvider, redis_url: str) -> None:
    async def use(client: AsyncOpenAI) -> None:
        async with Redis.from_url(redis_url) as cache:
            for model in (EMBEDDING, "sim-embedding-large"):
                await book.embedding_cache.embed(client, cache, model, ["one"])

    provider.run(use)
    assert len(provider.calls("embeddings")) == 2


def test_prepared_once_runs_once_and_lets_the_loop_go_on(book: Any) -> None:
    import threading

    runs, may_go = [], threading.Event()

    def prepare(text: str) -> str:
        runs.append(text)
        assert may_go.wait(20), "the event loop was blocked"
        return text.upper()

    async def main() -> list[str]:
        prepared = book.prepared_once.kept(prepare)
        waiting = [asyncio.create_task(prepared("abc")) for _ in range(min(4, (os.cpu_count() or 1) + 4))]
        while not runs:
            await asyncio.sleep(0)
        may_go.set()
        return await asyncio.gather(*waiting)

    assert set(asyncio.run(main())) == {"ABC"}
    assert runs == ["abc"]


def test_prepared_once_forgets_the_oldest(book: Any) -> None:
    runs: list[str] = []
    prepared = book.prepared_once.kept(lambda text: runs.append(text) or len(runs), most=2)

    async def main() -> list[int]:
        return [await prepared(text) for text in ("a", "b", "a", "c", "a", "b")]

    assert asyncio.run(main()) == [1, 2, 1, 3, 1, 4]
    assert runs == ["a", "b", "c", "b"]
