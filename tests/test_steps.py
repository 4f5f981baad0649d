"""Steps become spans whatever shape the timed code has, and cost nothing where nobody listens."""

import asyncio
import inspect
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import perfnb
from perfnb import steps

Spans = Callable[[], dict[str, ReadableSpan]]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Record steps with a real SDK, and return what ended so far by name."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))  # a provider can be set only once
    steps._otel_if_installed.cache_clear()
    yield lambda: {span.name: span for span in exporter.get_finished_spans()}  # type: ignore[misc]
    steps._otel_if_installed.cache_clear()


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def current_is_none() -> bool:
    return trace.get_current_span() is trace.INVALID_SPAN


def test_a_block_is_a_span_with_attributes_and_what_it_holds_hangs_below(spans: Spans) -> None:
    with perfnb.step("retrieval", documents=3, store="pg", operation="retrieval", nothing=None) as running:
        with perfnb.step("embed"):
            time.sleep(0.002)
        running.set(cache_hit=False, tags=["a", "b"], other={"a": 1})
    found = spans()
    assert parent_of(found["embed"]) == id_of(found["retrieval"])
    assert found["retrieval"].attributes == {
        "gen_ai.retrieval.document_count": 3,
        "gen_ai.operation.name": "retrieval",
        "store": "pg",
        "cache.hit": False,
        "tags": ("a", "b"),
        "other": "{'a': 1}",
    }
    assert found["embed"].end_time - found["embed"].start_time >= 2_000_000  # type: ignore[operator]
    assert current_is_none()


def test_an_error_is_recorded_with_the_time_it_took_and_raised_on(spans: Spans) -> None:
    @perfnb.step("load")
    def load() -> None:
        time.sleep(0.002)
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        load()
    span = spans()["load"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == "KeyError"
    assert [event.name for event in span.events] == ["exception"]
    assert span.end_time - span.start_time >= 2_000_000  # type: ignore[operator]
    assert current_is_none()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_error_without_a_text_is_recorded_all_the_same(spans: Spans) -> None:
    with pytest.raises(Unprintable), perfnb.step("load", given=Unprintable()):
        raise Unprintable
    attributes = spans()["load"].attributes
    assert attributes == {"given": "<Unprintable>", "error.type": f"{__name__}.Unprintable"}


def test_started_and_ended_by_hand(spans: Spans) -> None:
    running = perfnb.step("my_operation", operation="tool").start()
    with perfnb.step("inside"):
        pass
    running.end(custom="data")
    running.end(custom="again")
    running.set(late=True)
    failed = perfnb.step("failed").start()
    failed.end(error=TimeoutError("slow"))
    found = spans()
    assert parent_of(found["inside"]) == id_of(found["my_operation"])
    assert found["my_operation"].attributes == {"gen_ai.operation.name": "tool", "custom": "data"}
    assert found["failed"].status.status_code is StatusCode.ERROR
    assert parent_of(found["failed"]) is None
    assert current_is_none()


def test_ended_in_another_task_than_started(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        running = perfnb.step("handed on").start()

        async def end() -> None:
            running.end()

        await asyncio.create_task(end())

    asyncio.run(main())
    assert list(spans()) == ["handed on"]
    assert not caplog.records


def test_steps_left_in_another_order_than_entered(spans: Spans) -> None:
    first, second = perfnb.step("first").start(), perfnb.step("second").start()
    first.end()
    second.end()
    found = spans()
    assert parent_of(found["second"]) == id_of(found["first"])
    assert current_is_none(), "a step that is over must not be current"


def test_one_step_may_be_used_again_and_nested(spans: Spans) -> None:
    once = perfnb.step("again")
    with once, once:
        pass
    with once:
        pass
    assert current_is_none()
    assert len(spans()) == 1
    assert list(once._running) == []


def test_functions_of_every_kind_stay_what_they_are() -> None:
    @perfnb.step("f")
    def function() -> int:
        """Say something."""
        return 1

    @perfnb.step("c")
    async def coroutine() -> int:
        return 2

    @perfnb.time_it
    def generator() -> Iterator[int]:
        yield 3

    @perfnb.time_it()
    async def async_generator() -> AsyncIterator[int]:
        yield 4

    assert (function(), asyncio.run(coroutine()), list(generator())) == (1, 2, [3])
    assert function.__doc__ == "Say something."
    assert inspect.iscoroutinefunction(coroutine)
    assert inspect.isgeneratorfunction(generator)
    assert inspect.isasyncgenfunction(async_generator)
    assert inspect.signature(function).return_annotation is int


def test_functions_are_named_after_themselves_or_as_given(spans: Spans) -> None:
    class Index:
        @perfnb.time_it
        def search(self, query: str) -> str:
            return query

        @perfnb.time_it("rank", store="pg")
        async def rerank(self) -> None: ...

    assert Index().search("a") == "a"
    asyncio.run(Index().rerank())
    found = spans()
    assert set(found) == {"Index.search", "rank"}
    assert found["rank"].attributes == {"store": "pg"}


def test_a_coroutine_is_timed_until_it_is_done_and_its_calls_hang_below(spans: Spans) -> None:
    @perfnb.time_it("answer")
    async def answer() -> None:
        async with perfnb.step("model"):
            await asyncio.sleep(0.002)

    async def main() -> None:
        await asyncio.gather(answer(), answer())

    asyncio.run(main())
    found = spans()
    assert found["answer"].end_time - found["answer"].start_time >= 2_000_000  # type: ignore[operator]
    assert parent_of(found["model"]) == id_of(found["answer"])


def test_a_cancelled_coroutine_is_recorded(spans: Spans) -> None:
    @perfnb.time_it("answer")
    async def answer() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        await asyncio.wait_for(answer(), 0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    attributes = spans()["answer"].attributes
    assert attributes is not None
    assert attributes["error.type"] == "asyncio.exceptions.CancelledError"


@perfnb.step("stream")
def echo() -> Iterator[Any]:
    """Give back what is sent or thrown, until None comes."""
    got: Any = "first"
    while got is not None:
        with perfnb.step("inside"):
            pass
        try:
            got = yield got
        except KeyError as error:
            got = f"caught {error}"
    return "result"


@perfnb.step("stream")
async def async_echo() -> AsyncIterator[Any]:
    got: Any = "first"
    while got is not None:
        async with perfnb.step("inside"):
            await asyncio.sleep(0)
        try:
            got = yield got
        except KeyError as error:
            got = f"caught {error}"


def test_a_generator_hands_on_values_errors_and_its_result(spans: Spans) -> None:
    stream: Any = echo()
    assert not spans(), "nothing runs before the first value is asked for"
    assert next(stream) == "first"
    assert current_is_none(), "the consumer's own calls are not the generator's"
    assert stream.send("b") == "b"
    assert stream.throw(KeyError("k")) == "caught 'k'"
    with pytest.raises(StopIteration) as stopped:
        stream.send(None)
    assert stopped.value.value == "result"
    found = spans()
    assert parent_of(found["inside"]) == id_of(found["stream"])
    assert found["stream"].status.status_code is StatusCode.UNSET


def test_an_async_generator_hands_on_values_and_errors(spans: Spans) -> None:
    async def main() -> None:
        stream: Any = async_echo()
        assert await anext(stream) == "first"
        assert current_is_none()
        assert await stream.asend("b") == "b"
        assert await stream.athrow(KeyError("k")) == "caught 'k'"
        with pytest.raises(StopAsyncIteration):
            await stream.asend(None)

    asyncio.run(main())
    found = spans()
    assert parent_of(found["inside"]) == id_of(found["stream"])
    assert found["stream"].status.status_code is StatusCode.UNSET


def test_a_consumer_that_had_enough_is_no_error(spans: Spans) -> None:
    closed = []

    @perfnb.step("stream")
    def numbers() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    @perfnb.step("async stream")
    async def async_numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def main() -> None:
        stream: Any = async_numbers()
        await anext(stream)
        await stream.aclose()

    stream: Any = numbers()
    next(stream)
    stream.close()
    asyncio.run(main())
    assert closed == [True, True]
    assert {span.status.status_code for span in spans().values()} == {StatusCode.UNSET}
    assert set(spans()) == {"stream", "async stream"}


@pytest.mark.parametrize("make", [echo, async_echo])
def test_an_error_in_a_generator_is_recorded(spans: Spans, make: Callable[[], Any]) -> None:
    async def drive() -> None:
        stream = make()
        if inspect.isasyncgen(stream):
            await anext(stream)
            await stream.athrow(ValueError("bad"))
        else:
            next(stream)
            stream.throw(ValueError("bad"))

    with pytest.raises(ValueError, match="bad"):
        asyncio.run(drive())
    assert spans()["stream"].status.status_code is StatusCode.ERROR


WITHOUT = """
import asyncio, sys
sys.modules["opentelemetry"] = None
import perfnb

with perfnb.step("a", documents=1) as running:
    running.set(b=2)
perfnb.step("b").start().end(c=3)

@perfnb.time_it
async def answer():
    async with perfnb.step("c"):
        return 7

@perfnb.time_it
def numbers():
    yield from range(3)

print(asyncio.run(answer()), list(numbers()), "opentelemetry.trace" in sys.modules)
"""


def test_without_opentelemetry_steps_do_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "7 [0, 1, 2] False"


def test_without_an_sdk_steps_change_nothing() -> None:
    script = (
        "import perfnb; from opentelemetry import trace\n"
        "with perfnb.step('a'):\n"
        "    print(trace.get_current_span() is trace.INVALID_SPAN)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_an_sdk_that_is_set_up_after_the_first_step_records_the_next() -> None:
    script = (
        "import perfnb\n"
        "with perfnb.step('early'): pass\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "exporter = InMemorySpanExporter()\n"
        "provider = TracerProvider(); provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
        "trace.set_tracer_provider(provider)\n"
        "with perfnb.step('late'): pass\n"
        "print([span.name for span in exporter.get_finished_spans()])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['late']\n"
