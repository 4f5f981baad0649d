"""Time steps of your own app: ``perfnb.step("retrieval")`` and ``@perfnb.time_it``, thin over the OpenTelemetry API.

::

    with perfnb.step("retrieval", documents=5):          # async with works, too
        ...

    @perfnb.step("rerank")                               # functions, coroutines and generators of both kinds
    async def rerank(passages): ...

    @perfnb.time_it                                      # the same, named after the function
    def clean(text): ...

    running = perfnb.step("my_operation", operation="tool").start()
    ...
    running.end(custom="data")                           # or running.end(error=exception)

A step is a span: it hangs in the trace that is current, becomes current itself, and lasts as long as the step whatever
happens in it; an exception is recorded and raised on. Without an OpenTelemetry SDK, or with no OpenTelemetry at all,
steps cost next to nothing and do nothing. ``documents``, ``cache_hit`` and ``operation`` fill the columns of that name
in a recording; any other attribute is kept as it is.

Source: A28, B8, C8, D29, D30
"""

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

F = TypeVar("F", bound=Callable[..., Any])

# What OpenTelemetry calls the attributes that have a column of their own.
STANDARD: Mapping[str, str] = {
    "documents": "gen_ai.retrieval.document_count",
    "cache_hit": "cache.hit",
    "operation": "gen_ai.operation.name",
}

STEP = "perfnb.step"


def step(name: str, /, **attributes: Any) -> "Step":
    """Return a step named ``name``: a context manager, a decorator, or something to start and end by hand."""
    return Step(name, attributes)


@overload
def time_it(function: F, /) -> F: ...
@overload
def time_it(name: str | None = None, /, **attributes: Any) -> Callable[[F], F]: ...
def time_it(given: Any = None, /, **attributes: Any) -> Any:
    """Return the function timed as a step, named after itself or as given: ``@time_it`` or ``@time_it("clean")``."""
    if callable(given):
        return Step(_name_of(given), {})(given)
    return lambda function: Step(given or _name_of(function), attributes)(function)


class Running:
    """A step under way."""

    def __init__(self, name: str, attributes: Mapping[str, Any]) -> None:
        self.span = _start(name, attributes)
        self.outer: Any = None
        self.is_over = self.span is None

    def set(self, **attributes: Any) -> Self:
        """Add what became known meanwhile."""
        if not self.is_over:
            self.span.set_attributes(_told(attributes))
        return self

    def end(self, *, error: BaseException | None = None, **attributes: Any) -> None:
        """End the step, as failed where an ``error`` is given; ending it again does nothing."""
        if self.is_over:
            return
        self.set(**attributes)
        if error is not None:
            _otel().fail(self.span, error)
        self.is_over = True
        _otel().leave(self)
        self.span.end()

    def enter(self) -> Self:
        """Make the step the current one: what starts from here on belongs to it."""
        if not self.is_over:
            _otel().enter(self)
        return self

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the step the current one for a while."""
        self.enter()
        try:
            yield
        finally:
            if not self.is_over:
                _otel().leave(self)


class Step:
    """What to time and under which name; it may be used any number of times, one after another or nested."""

    def __init__(self, name: str, attributes: Mapping[str, Any]) -> None:
        self.name = name
        self.attributes = dict(attributes)
        self._running: list[Running] = []

    def start(self) -> Running:
        """Start the step; it is current until :meth:`Running.end`."""
        return Running(self.name, self.attributes).enter()

    def __enter__(self) -> Running:
        self._running.append(self.start())
        return self._running[-1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.pop().end(error=error)

    async def __aenter__(self) -> Running:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: F) -> F:
        """Return ``function`` with each call timed; a generator is timed from its first value asked for to its end."""
        if inspect.isasyncgenfunction(function):
            wrapper: Any = self._async_generator(function)
        elif inspect.isgeneratorfunction(function):
            wrapper = self._generator(function)
        elif inspect.iscoroutinefunction(function):
            wrapper = self._coroutine(function)
        else:
            wrapper = self._function(function)
        return cast(F, functools.wraps(function)(wrapper))

    def _again(self) -> "Step":
        return Step(self.name, self.attributes)

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return timed

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def timed(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return await function(*args, **kwargs)

        return timed

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with self._apart() as running:
                inner = function(*args, **kwargs)
                resume = functools.partial(next, inner)
                while True:
                    with running.current():
                        try:
                            value = resume()
                        except StopIteration as stop:
                            return stop.value
                    try:
                        resume = functools.partial(inner.send, (yield value))
                    except GeneratorExit:
                        with running.current():
                            inner.close()
                        raise
                    except BaseException as error:
                        resume = functools.partial(inner.throw, error)

        return timed

    def _async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def timed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            with self._apart() as running:
                inner = function(*args, **kwargs)
                resume = functools.partial(inner.asend, None)
                while True:
                    with running.current():
                        try:
                            value = await resume()
                        except StopAsyncIteration:
                            return
                    try:
                        resume = functools.partial(inner.asend, (yield value))
                    except GeneratorExit:
                        with running.current():
                            await inner.aclose()
                        raise
                    except BaseException as error:
                        resume = functools.partial(inner.athrow, error)

        return timed

    @contextlib.contextmanager
    def _apart(self) -> Iterator[Running]:
        """Time without being current: a generator's consumer runs in between, and its calls are not the step's."""
        running = Running(self.name, self.attributes)
        try:
            yield running
        except GeneratorExit:  # the consumer had enough, which is no error
            raise
        except BaseException as error:
            running.end(error=error)
            raise
        finally:
            running.end()


class _Otel:
    """The few calls of the OpenTelemetry API that steps need."""

    def __init__(self, trace: Any, context: Any) -> None:
        self._trace = trace
        self._context = context
        self._tracer = trace.get_tracer("perfnb")  # hands over to an SDK that is set up later

    def start(self, name: str, attributes: Mapping[str, Any]) -> Any:
        """Return a new span, or None where no SDK would record it."""
        span = self._tracer.start_span(name, attributes=attributes)
        return span if span.get_span_context().is_valid and span is not self._trace.get_current_span() else None

    def enter(self, running: Running) -> None:
        """Make ``running`` current."""
        running.outer = self._context.get_current()
        inner = self._trace.set_span_in_context(running.span, running.outer)
        self._context.attach(self._context.set_value(STEP, running, inner))

    def leave(self, running: Running) -> None:
        """Make what was current before ``running`` current again, unless something else is by now.

        It may be left in another task than it was entered in, where its token could not be given back, and after a
        step around it has ended; that one must not become current again.
        """
        if self._trace.get_current_span() is not running.span:
            return
        outer = running.outer
        while (around := self._context.get_value(STEP, outer)) is not None and self._is_stale(around, outer):
            outer = around.outer
        self._context.attach(outer)

    def _is_stale(self, running: Running, context: Any) -> bool:
        return running.is_over and self._trace.get_current_span(context) is running.span

    def fail(self, span: Any, error: BaseException) -> None:
        """Mark ``span`` as failed."""
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        span.set_attribute("error.type", name)
        span.set_status(self._trace.StatusCode.ERROR, f"{kind.__name__}: {_text(error)}")
        with contextlib.suppress(Exception):  # it asks the exception for its text, too
            span.record_exception(error)


@functools.cache
def _otel_if_installed() -> _Otel | None:
    try:
        from opentelemetry import context, trace
    except ImportError:
        return None
    return _Otel(trace, context)


def _otel() -> _Otel:
    found = _otel_if_installed()
    assert found is not None, "a span was made without OpenTelemetry"
    return found


def _start(name: str, attributes: Mapping[str, Any]) -> Any:
    otel = _otel_if_installed()
    return None if otel is None else otel.start(name, _told(attributes))


def _told(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``attributes`` under OpenTelemetry's names, in the types it takes."""
    return {STANDARD.get(name, name): _value(value) for name, value in attributes.items() if value is not None}


def _value(value: Any) -> Any:
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return list(value)
    return _text(value)


def _text(value: object) -> str:
    """Return ``value`` as text; one that has none must not break the app that is being timed."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


def _name_of(function: Callable[..., Any]) -> str:
    name: str = getattr(function, "__qualname__", None) or type(function).__name__
    return name.rpartition("<locals>.")[2]
