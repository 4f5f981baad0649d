"""Recipes on how calls are made: together, bounded, tried again, as a stream, by one client."""

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from typing import Any

import httpx2
import pytest
import tiktoken
import uvicorn
from aiolimiter import AsyncLimiter
from fastapi import FastAPI, HTTPException
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, InternalServerError, RateLimitError
from watched_provider import Visit, WatchedProvider, watched_provider

MODEL = "sim-small"
EMBEDDING = "sim-embedding"


def request(question: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": question}]}


async def plainly(client: AsyncOpenAI, question: str) -> str:
    reply = await client.chat.completions.create(**request(question))
    return reply.choices[0].message.content or ""


def test_parallel_calls_take_place_at_once_and_never_more_than_allowed(book: Any) -> None:
    questions = [f"question {number}?" for number in range(20)]

    async def use(client: AsyncOpenAI) -> Any:
        return await book.parallel_calls.answers(
            lambda each: plainly(client, each), [*questions, questions[0]], asyncio.Semaphore(5)
        )

    with watched_provider(hold=5) as provider:  # one after another, the first would wait at the door for ever
        found, failed = provider.run(use)
        assert provider.most_inside == 5
        assert len(provider.calls()) == 20
    assert (sorted(found), failed) == (sorted(questions), {})


def test_parallel_calls_tell_errors_from_answers(book: Any) -> None:
    questions = [f"question {number}?" for number in range(20)]

    async def use(client: AsyncOpenAI) -> Any:
        return await book.parallel_calls.answers(lambda each: plainly(client, each), questions, asyncio.Semaphore(5))

    with watched_provider(refuse_share=0.5) as provider:
        found, failed = provider.run(use)
    assert found
    assert failed
    assert sorted([*found, *failed]) == sorted(questions)
    assert all(isinstance(error, BadRequestError) for error in failed.values())


@pytest.mark.parametrize(
    ("requests", "tokens", "let_through"),
    [(AsyncLimiter(5, 3600), AsyncLimiter(1e6, 3600), 5), (AsyncLimiter(1e6, 3600), AsyncLimiter(1600, 3600), 3)],
    ids=["requests", "tokens"],
)
def test_rate_limit_lets_through_what_the_account_allows(
    book: Any, provider: WatchedProvider, requests: AsyncLimiter, tokens: AsyncLimiter, let_through: int
) -> None:
    async def use(client: AsyncOpenAI) -> list[bool]:
        asks = [book.rate_limit.ask(client, requests, tokens, MODEL, f"question {number}?") for number in range(8)]
        tasks = [asyncio.create_task(each) for each in asks]
        while sum(task.done() for task in tasks) < let_through:
            await asyncio.sleep(0.01)
        for _ in range(5):
            await asyncio.sleep(0.01)  # whoever else could go has had the chance
        done = [task.done() for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return done

    assert sum(provider.run(use)) == let_through
    assert len(provider.calls()) == let_through


def test_bounded_queue_refuses_what_it_cannot_hold_and_loses_nothing(book: Any, provider: WatchedProvider) -> None:
    recipe = book.bounded_queue
    refused: list[HTTPException] = []

    async def use(client: AsyncOpenAI) -> None:
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=3)
        for number in range(10):
            try:
                recipe.accept(queue, f"question {number}?")
            except HTTPException as error:
                refused.append(error)

        async def do(question: str) -> None:
            await plainly(client, question)
            if question == "question 0?":
                raise ValueError("one bad job does not stop the work")

        worker = asyncio.create_task(recipe.work(queue, do))
        await queue.join()
        worker.cancel()

    provider.run(use)
    assert [visit.question for visit in provider.calls()] == [f"question {number}?" for number in range(3)]
    assert {(error.status_code, error.headers["Retry-After"]) for error in refused} == {(503, "5")}
    assert len(refused) == 7


def by_question(visits: list[Visit]) -> dict[str, list[Visit]]:
    found: dict[str, list[Visit]] = defaultdict(list)
    for visit in visits:
        found[visit.question].append(visit)
    return found


def assert_no_storm(visits: list[Visit], attempts: int) -> None:
    """Nobody came back sooner than asked, or more often than allowed."""
    refused = 0
    for tried in by_question(visits).values():
        assert len(tried) <= attempts
        for before, after in pairwise(tried):
            refused += before.status == 429
            assert after.arrived_s - before.left_s >= before.asked_wait_s - 0.001
    assert refused, "no call was refused: nothing was shown"


def test_retries_wait_as_long_as_asked_and_no_storm_follows(book: Any) -> None:
    async def use(client: AsyncOpenAI) -> list[Any]:
        asked = (book_ask(client, **request(f"question {number}?")) for number in range(20))
        return await asyncio.gather(*asked, return_exceptions=True)

    book_ask = book.retries.ask
    with watched_provider(
        rate_limit_share=0.4, retry_after_s=[10, 20]
    ) as provider:  # a fiftieth of it in simulated time
        answers = provider.run(use, max_retries=2)  # the recipe switches these off
        assert_no_storm(provider.calls(), attempts=3)
    answered = [each for each in answers if not isinstance(each, Exception)]
    given_up = [each for each in answers if isinstance(each, Exception)]
    assert len(answered) > len(given_up)
    assert all(isinstance(error, RateLimitError) for error in given_up)


@pytest.mark.parametrize(
    ("conditions", "error", "calls"),
    [({"rate_limit_share": 1}, RateLimitError, 3), ({"fail_share": 1, "fail_first": 9}, InternalServerError, 3),
     ({"refuse_share": 1}, BadRequestError, 1)],
    ids=["rate limit", "server error", "bad request"],
)  # fmt: skip
def test_retries_end_and_attempts_do_not_multiply(book: Any, conditions: Any, error: Any, calls: int) -> None:
    async def use(client: AsyncOpenAI) -> None:
        with pytest.raises(error):
            await book.retries.ask(client, **request("What is a list?"))

    with watched_provider(**conditions) as provider:
        provider.run(use, max_retries=2)
        assert len(provider.calls()) == calls


@pytest.mark.parametrize(
    ("status", "code", "retry_after", "kind", "is_transient", "asked_s"),
    [
        (429, "rate_limit_exceeded", "1.5", RateLimitError, True, 1.5),
        (429, "insufficient_quota", "", RateLimitError, False, 0),
        (429, None, "Wed, 21 Oct 2026 07:28:00 GMT", RateLimitError, True, 0),
        (503, None, "7", InternalServerError, True, 7),
        (401, "invalid_api_key", "", AuthenticationError, False, 0),
    ],
)
def test_retries_know_what_may_pass(
    book: Any, status: int, code: str | None, retry_after: str, kind: Any, is_transient: bool, asked_s: float
) -> None:
    response = httpx2.Response(
        status, headers={"retry-after": retry_after}, request=httpx2.Request("POST", "http://127.0.0.1")
    )
    error = kind("no", response=response, body={"code": code})
    recipe = book.retries
    assert (recipe.is_transient(error), recipe.asked_s(error)) == (is_transient, asked_s)


@pytest.fixture
def one_client(book: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("OPENAI_API_KEY", "simulated")
    recipe = book.one_client
    yield recipe
    recipe.client.cache_clear()


def run_app(recipe: Any, monkeypatch: pytest.MonkeyPatch, provider: WatchedProvider, *asks: Any) -> list[Any]:
    """Run ``asks`` one after another, as an app that closes its client at the end."""
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)

    async def main() -> list[Any]:
        async with recipe.client():
            return [await each() for each in asks]

    return asyncio.run(main())


def test_one_client_keeps_its_connection(
    one_client: Any, monkeypatch: pytest.MonkeyPatch, provider: WatchedProvider
) -> None:
    run_app(one_client, monkeypatch, provider, *[lambda: one_client.ask(**request("What is a list?"))] * 10)
    assert len(provider.calls()) == 10
    assert provider.provider.bill.connections == 1
    for _ in range(2):
        provider.run(lambda client: plainly(client, "What is a list?"))
    assert provider.provider.bill.connections == 3  # a client for each call: a connection for each call


def test_one_client_waits_as_asked_and_gives_up_after_three(one_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def limited() -> None:
        with pytest.raises(RateLimitError):
            await one_client.ask(**request("What is a list?"))

    with watched_provider(rate_limit_share=1, retry_after_s=[5, 10]) as provider:
        run_app(one_client, monkeypatch, provider, limited)
        assert len(provider.calls()) == 3
        assert_no_storm(provider.calls(), attempts=3)


def test_one_client_has_a_deadline_for_the_whole_call(one_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stalled() -> None:
        with pytest.raises(TimeoutError):
            await one_client.ask(deadline_s=0.5, **request("What is a list?"))

    with watched_provider(stall_share=1) as provider:
        run_app(one_client, monkeypatch, provider, stalled)
        assert len(provider.calls()) == 1


def test_one_client_makes_the_tokenizer_once(
    one_client: Any, monkeypatch: pytest.MonkeyPatch, encoding: tiktoken.Encoding
) -> None:
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "o200k_base", encoding)  # as if it had been downloaded
    assert one_client.encoding() is one_client.encoding() is encoding


def test_batched_embeddings_make_one_call_for_each_batch(book: Any, provider: WatchedProvider) -> None:
    texts = [f"text {number}" for number in range(250)]

    async def use(client: AsyncOpenAI) -> Any:
        vectors = await book.batched_embeddings.embed(client, EMBEDDING, texts)
        one = await client.embeddings.create(model=EMBEDDING, input=texts[201])
        return vectors, one.data[0].embedding

    vectors, one = provider.run(use)
    assert [len(visit.body["input"]) for visit in provider.calls("embeddings")[:-1]] == [100, 100, 50]
    assert len(vectors) == 250
    assert vectors[201] == one


def test_collected_requests_travel_together(book: Any, provider: WatchedProvider) -> None:
    recipe = book.collected_requests

    async def use(client: AsyncOpenAI) -> Any:
        waiting: Any = asyncio.Queue()
        asked = [asyncio.create_task(recipe.embed(waiting, f"text {number}")) for number in range(20)]
        gone = asyncio.create_task(recipe.embed(waiting, "nobody waits for this"))
        await asyncio.sleep(0)
        gone.cancel()
        collector = asyncio.create_task(recipe.collector(client, EMBEDDING, waiting))
        vectors = await asyncio.gather(*asked)
        collector.cancel()
        plain = await client.embeddings.create(model=EMBEDDING, input=[f"text {number}" for number in range(20)])
        return vectors, [one.embedding for one in plain.data]

    vectors, plain = provider.run(use)
    assert [len(visit.body["input"]) for visit in provider.calls("embeddings")[:2]] == [10, 10]
    assert vectors == plain


def test_collected_requests_pass_an_error_on_and_go_on(book: Any, provider: WatchedProvider) -> None:
    recipe = book.collected_requests

    async def use(client: AsyncOpenAI) -> Any:
        waiting: Any = asyncio.Queue()
        collector = asyncio.create_task(recipe.collector(client, EMBEDDING, waiting))
        with pytest.raises(BadRequestError):
            await recipe.embed(waiting, None)
        vector = await recipe.embed(waiting, "text")
        collector.cancel()
        return vector

    assert provider.run(use)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve ``app`` over real HTTP."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def answering(recipe: Any, provider: WatchedProvider, model: str = MODEL) -> FastAPI:
    client = AsyncOpenAI(base_url=provider.base_url, api_key="simulated", max_retries=0)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/chat")
    async def chat() -> Any:
        return recipe.streamed(client, model, "What is a list?")

    return app


def test_stream_answer_reaches_the_caller_before_the_answer_is_complete(book: Any) -> None:
    with (
        watched_provider(time_scale=1) as provider,
        serving(answering(book.stream_answer, provider, "sim-large")) as url,  # it writes for some seconds
        httpx2.stream("GET", f"{url}/chat", timeout=60) as response,
    ):
        first = next(line for line in response.iter_lines() if line)
        assert json.loads(first.removeprefix("data: "))
        assert not provider.booked
        assert provider.inside == 1


def test_stream_answer_is_the_whole_answer(book: Any, provider: WatchedProvider) -> None:
    with serving(answering(book.stream_answer, provider)) as url:
        response = httpx2.get(f"{url}/chat", timeout=60)
    *words, done = response.text.strip().split("\n\n")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert done == "event: done\ndata: {}"
    assert all(json.loads(each.removeprefix("data: ")) for each in words)
    assert len(words) == provider.booked[0].usage.output_tokens
    assert provider.calls()[0].body["stream_options"] == {"include_usage": True}


def test_stream_answer_says_that_it_broke_off(book: Any) -> None:
    with watched_provider(break_share=1) as provider, serving(answering(book.stream_answer, provider)) as url:
        response = httpx2.get(f"{url}/chat", timeout=60)
    assert response.status_code == 200
    assert response.text.strip().split("\n\n")[-1] == "event: error\ndata: {}"
