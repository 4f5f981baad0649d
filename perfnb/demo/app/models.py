"""Calls to the model: one client for the app, timeouts, retries, streaming."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from typing import Any, TypeVar

from openai import APIError, AsyncOpenAI, OpenAI

from perfnb.demo.app.cache import EmbeddingCache
from perfnb.demo.app.measurements import Measurements
from perfnb.demo.app.settings import Settings

Message = dict[str, Any]
T = TypeVar("T")


class Models:
    """The provider's models under the app's current settings."""

    def __init__(self, settings: Callable[[], Settings], measurements: Measurements) -> None:
        self._settings = settings
        self._measurements = measurements
        self._embeddings = EmbeddingCache()
        self._clients: dict[tuple[float, int], AsyncOpenAI] = {}
        self._shared: AsyncOpenAI | None = None

    async def close(self) -> None:
        """Close the shared client's connections."""
        if self._shared is not None:
            await self._shared.close()

    def _client(self) -> AsyncOpenAI:
        now = self._settings()
        if now.client == "per call":
            return AsyncOpenAI(timeout=now.timeout_s, max_retries=now.max_retries)
        if self._shared is None:
            self._shared = AsyncOpenAI()
        key = (now.timeout_s, now.max_retries)
        if key not in self._clients:  # shares the connections of the first
            self._clients[key] = self._shared.with_options(timeout=now.timeout_s, max_retries=now.max_retries)
        return self._clients[key]

    async def embed(self, texts: Sequence[str]) -> list[Sequence[float]]:
        """Return an embedding for each text; those that are not kept are asked for in one call."""
        model, kept = self._settings().embedding_model, self._embeddings
        if not self._settings().cache_embeddings:
            return [*await self._embedded(texts)]
        unknown = [text for text in dict.fromkeys(texts) if kept.get(model, text) is None]
        fresh = dict(zip(unknown, await self._embedded(unknown) if unknown else (), strict=True))
        found = [fresh[text] if text in fresh else kept.get(model, text) or () for text in texts]
        for text, embedding in fresh.items():
            kept.put(model, text, embedding)
        return found

    async def _embedded(self, texts: Sequence[str]) -> list[list[float]]:
        now = self._settings()
        found: list[list[float]] = []
        for start in range(0, len(texts), now.embed_at_once):
            part = list(texts[start : start + now.embed_at_once])
            with self._measurements.time("llm_calls", "embeddings"):
                answer = await self._client().embeddings.create(model=now.embedding_model, input=part)
            self._measurements.count_tokens(now.embedding_model, answer.usage)
            found += [each.embedding for each in answer.data]
        return found

    async def say(self, messages: Sequence[Message], *, model: str = "", **options: Any) -> str:
        """Return the model's whole answer, not streamed: for short answers nobody reads as they come."""
        asked = self._asked(messages, model, options)
        with self._measurements.time("llm_calls", asked["model"]):
            return "".join([message.content or "" async for message in self._whole(asked)])

    async def speak(self, messages: Sequence[Message], *, model: str = "", **options: Any) -> AsyncIterator[str]:
        """Yield the model's answer: as it comes where calls are streamed, else in one piece."""
        async for delta in self.deltas(messages, model=model, **options):
            if delta.content:
                yield delta.content

    async def deltas(self, messages: Sequence[Message], *, model: str = "", **options: Any) -> AsyncIterator[Any]:
        """Yield what the model answers, text and tool calls, as deltas of a chat completion."""
        asked = self._asked(messages, model, options)
        with self._measurements.time("llm_calls", asked["model"]):
            async for delta in self._streamed(asked) if self._settings().stream else self._whole(asked):
                yield delta

    def _asked(self, messages: Sequence[Message], model: str, options: dict[str, Any]) -> dict[str, Any]:
        now = self._settings()
        asked: dict[str, Any] = {"model": model or now.model, "messages": list(messages)}
        if now.max_tokens:
            asked["max_completion_tokens"] = now.max_tokens
        if now.reasoning_effort and not model:
            asked["reasoning_effort"] = now.reasoning_effort
        return asked | options

    async def _whole(self, asked: dict[str, Any]) -> AsyncIterator[Any]:
        answer = await self._persist(lambda: self._client().chat.completions.create(**asked))
        self._measurements.count_tokens(asked["model"], answer.usage)
        yield answer.choices[0].message

    async def _streamed(self, asked: dict[str, Any]) -> AsyncIterator[Any]:
        wanted = {**asked, "stream": True}
        if self._settings().count_usage:
            wanted["stream_options"] = {"include_usage": True}
        stream = await self._persist(lambda: self._client().chat.completions.create(**wanted))
        try:
            async for chunk in stream:
                self._measurements.count_tokens(asked["model"], chunk.usage)
                if chunk.choices:
                    yield chunk.choices[0].delta
        finally:
            await stream.close()

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what ``call`` returns, trying as often as the settings say."""
        last = self._settings().attempts - 1
        for attempt in range(last):
            try:
                return await call()
            except APIError:
                await asyncio.sleep(0.2 * 2**attempt)
        return await call()


@cache
def _moderator() -> OpenAI:
    return OpenAI()


def is_acceptable(text: str) -> bool:
    """Tell whether the provider's moderation lets the text pass; blocks until it says so."""
    return not _moderator().moderations.create(input=text, model="sim-moderation").results[0].flagged
