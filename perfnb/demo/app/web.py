"""The app's endpoints."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse, StreamingResponse
from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError
from psycopg_pool import PoolTimeout
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perfnb.demo.app.agent import Agent
from perfnb.demo.app.answering import Desk
from perfnb.demo.app.cache import AnswerCache
from perfnb.demo.app.measurements import Measurements
from perfnb.demo.app.models import Models
from perfnb.demo.app.settings import PRESETS, Settings, changed
from perfnb.demo.app.store import Store
from perfnb.demo.app.summaries import summarising
from perfnb.demo.app.telemetry import set_up
from perfnb.demo.corpus import cut


class Question(BaseModel):
    """What ``/chat`` and ``/agent`` are asked."""

    message: str
    session_id: str | None = None
    stream: bool = True


class Document(BaseModel):
    """What ``/ingest`` takes."""

    title: str
    body: str
    module: str = "uploads"


def create_app(settings: Settings, dsn: str) -> FastAPI:
    """Return the app."""
    measurements = Measurements()
    desk = Desk(
        settings,
        Store(dsn, settings),
        Models(lambda: desk.settings, measurements),
        AnswerCache(measurements),
        measurements,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if settings.warm_up:
            await desk.store.open()
            await desk.warm_up()
        background = summarising(desk) if settings.summaries else []
        yield
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await desk.models.close()
        await desk.store.close()
        end_telemetry()

    app = FastAPI(title="Support desk", lifespan=lifespan)
    app.add_middleware(_Counting, measurements=measurements)
    _add_answers(app, desk)
    _add_optimization(app, desk)
    end_telemetry = set_up(app)
    return app


def _add_answers(app: FastAPI, desk: Desk) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(desk.measurements.as_prometheus(), media_type="text/plain; version=0.0.4")

    @app.post("/chat")
    async def chat(question: Question) -> Response:
        if not desk.settings.warm_up:
            await desk.store.open()
        return await _guarded(desk, question, _chat)

    @app.post("/agent")
    async def agent(question: Question) -> Response:
        return await _guarded(desk, question, _agent)

    @app.post("/ingest")
    async def ingest(document: Document) -> dict[str, int]:
        pieces = cut(document.body, desk.settings.passage_characters)
        embeddings = await desk.models.embed([f"{document.title}\n{piece}" for piece in pieces])
        await desk.store.add(document.module, document.title, pieces, embeddings)
        return {"passages": len(pieces)}


def _add_optimization(app: FastAPI, desk: Desk) -> None:
    @app.get("/optimization/performance/metrics")
    async def performance_metrics() -> dict[str, Any]:
        return desk.measurements.as_dict()

    @app.post("/optimization/performance/reset")
    async def performance_reset() -> dict[str, str]:
        desk.measurements.reset()
        return {"status": "reset"}

    @app.get("/optimization/configure")
    async def configuration() -> dict[str, Any]:
        return desk.settings.as_dict()

    @app.post("/optimization/configure")
    async def configure(changes: dict[str, Any]) -> dict[str, Any]:
        try:
            desk.settings = changed(desk.settings, changes)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return desk.settings.as_dict()

    @app.post("/optimization/presets/{name}/apply")
    async def apply_preset(name: str) -> dict[str, Any]:
        if name not in PRESETS:
            raise HTTPException(404, f"no preset {name!r}; there are {', '.join(PRESETS)}")
        return await configure(dict(PRESETS[name]))


async def _chat(desk: Desk, question: Question) -> Response:
    kept, pieces = await desk.reply(question.message, question.session_id)
    headers = {"X-Cache": "hit" if kept else "miss"} if desk.settings.enable_caching else {}
    if not question.stream:
        answer = "".join([piece async for piece in pieces])
        return JSONResponse({"answer": answer, "session_id": question.session_id}, headers=headers)
    events = _events(pieces)
    if desk.settings.start_event:
        return StreamingResponse(_opened(events), media_type="text/event-stream", headers=headers)
    first = await anext(events)  # what fails before the first word still gets its own status
    return StreamingResponse(_continued(first, events), media_type="text/event-stream", headers=headers)


async def _agent(desk: Desk, question: Question) -> Response:
    return JSONResponse(await Agent(desk, question.session_id).answer(question.message))


async def _guarded(desk: Desk, question: Question, handle: Callable[[Desk, Question], Awaitable[Response]]) -> Response:
    """Return the handler's response; failures become a status, or a friendly 200 if the settings want that."""
    try:
        return await handle(desk, question)
    except (APIError, PoolTimeout) as error:
        if desk.settings.errors == "status":
            raise _as_status(error) from error
        message = f"Sorry, something went wrong: {error}"
        if question.stream and handle is _chat:
            return Response(_event({"error": message}, "error"), media_type="text/event-stream")
        return JSONResponse({"error": message})


async def _events(pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    async for piece in pieces:
        yield _event({"delta": piece})
    yield _event({"finished": True}, "done")


async def _continued(first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    async with aclosing(events):  # type: ignore[type-var]  # every generator here can be closed
        yield first
        try:
            async for event in events:
                yield event
        except (APIError, PoolTimeout) as error:
            yield _event({"error": str(error)}, "error")


async def _opened(events: AsyncIterator[str]) -> AsyncIterator[str]:
    async for event in _continued(_event({"role": "assistant", "delta": ""}), events):
        yield event


def _event(data: dict[str, Any], name: str = "") -> str:
    text = f"data: {json.dumps(data)}\n\n"
    return f"event: {name}\n{text}" if name else text


def _as_status(error: Exception) -> HTTPException:
    if isinstance(error, APITimeoutError):
        return HTTPException(504, "the model did not answer in time")
    if isinstance(error, APIStatusError) and error.status_code == 429:
        return HTTPException(429, "too many requests at the model's provider")
    if isinstance(error, APIConnectionError | APIError):
        return HTTPException(502, "the model's provider failed")
    return HTTPException(503, "the database is busy")


class _Counting:
    """Counts requests and their time to the last byte; streaming passes untouched."""

    def __init__(self, app: ASGIApp, measurements: Measurements) -> None:
        self._app = app
        self._measurements = measurements

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._measurements.requests.labels(scope["method"], route, status).inc()
            self._measurements.request_seconds.labels(route).observe(time.perf_counter() - started)
