"""A question's way to its answer: rewrite, retrieve, rerank, prompt, generate; each stage is a span."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

import httpx
from opentelemetry import trace

from perfnb.demo.app.cache import Answer, AnswerCache, key_of
from perfnb.demo.app.handbook import handbook
from perfnb.demo.app.measurements import Measurements
from perfnb.demo.app.models import Message, Models, is_acceptable
from perfnb.demo.app.processing import Vocabulary, normalised
from perfnb.demo.app.records import SESSION, Records
from perfnb.demo.app.settings import Settings
from perfnb.demo.app.store import Passage, Store
from perfnb.demo.app.telemetry import tracer

INSTRUCTIONS = (
    "You are the support desk for Python's standard library. Answer from the numbered passages below and name the"
    " module you speak of. If they do not say, say so. {length}"
)
SECTIONS = (
    "Summarise in one paragraph what it is for.",
    "Say how it is called and with which arguments.",
    "Say what it returns and what it raises.",
    "Name related calls and when to prefer them.",
)
DOCUMENTS = 3
DOCUMENT_CHARACTERS = 14_000
RANKING_URL = os.environ.get("DESK_RANKING_URL", "")


@dataclass(frozen=True)
class Prepared:
    """Everything the model needs for one answer."""

    question: str
    messages: tuple[Message, ...]
    sources: tuple[str, ...]


class Desk:
    """The support desk: prepares and gives answers under the current settings."""

    def __init__(
        self, settings: Settings, store: Store, models: Models, cache: AnswerCache, measurements: Measurements
    ) -> None:
        self.settings = settings
        self.store = store
        self.records = Records(store)
        self.models = models
        self.cache = cache
        self.measurements = measurements
        self.vocabulary = Vocabulary()

    async def warm_up(self) -> None:
        """Load what the first request would otherwise wait for, and open a connection to the provider."""
        await self.vocabulary.words(quickly=True)
        await self.retrieve("warm up")

    async def reply(self, question: str, session_id: str | None) -> tuple[Answer | None, AsyncIterator[str]]:
        """Return the kept answer, if there is one, and the pieces of the answer as they come."""
        history = await self.store.history(session_id, self.settings.history_messages) if session_id else []
        key = self._cache_key(question) if self.settings.enable_caching and not history else None
        if key and (kept := self.cache.get(key)):
            return kept, _pieces(kept.text)
        return None, self._answered(question, history, session_id, key)

    def _cache_key(self, question: str) -> str:
        now = self.settings
        request = {"question": " ".join(question.lower().split()), "model": now.model, "top_k": now.top_k}
        if now.cache_key == "request":
            request["request_id"] = str(uuid4())
        return key_of(request)

    async def _answered(
        self, question: str, history: Sequence[Message], session_id: str | None, key: str | None
    ) -> AsyncIterator[str]:
        said: list[str] = []
        with self.measurements.time("turn_processing", "chat"):
            async with self._held(session_id):
                prepared = await self.prepare(question, history, session_id)
                async for piece in self.generate(prepared):
                    said.append(piece)
                    yield piece
        answer = Answer("".join(said), prepared.sources)
        if key:
            self.cache.put(key, answer)
        if session_id:
            await self.store.add_turn(session_id, question, answer.text)

    @asynccontextmanager
    async def _held(self, session_id: str | None) -> AsyncIterator[None]:
        """Keep a transaction open meanwhile, if the settings want that."""
        if self.settings.transaction == "statement":
            yield
            return
        async with self.store.connection() as connection:
            await connection.execute(SESSION, (session_id or "customer-2",))
            yield

    async def prepare(self, question: str, history: Sequence[Message], session_id: str | None = None) -> Prepared:
        """Return the prompt for a question: its passages found, ordered and fitted into the budget."""
        words = await self.vocabulary.words()
        question = await normalised(question, words, self.settings)
        if self.settings.moderation and not is_acceptable(question):
            return Prepared(question, ({"role": "user", "content": "Decline politely."},), ())
        with tracer.start_as_current_span("rewrite"):
            wanted = standalone(question, history)
        found = await self.retrieve(wanted)
        if self.settings.records != "none":
            with tracer.start_as_current_span("records"):
                await self.records.read(self.settings.records, question, session_id, found)
        chosen = await self.rerank(wanted, found)
        with tracer.start_as_current_span("prompt") as span:
            context = await self._context(chosen)
            span.set_attribute("prompt.passages", len(context))
            return Prepared(question, self._messages(question, history, context), tuple(p.title for p in context))

    async def retrieve(self, question: str) -> list[Passage]:
        """Return the passages nearest to the question."""
        now = self.settings
        with tracer.start_as_current_span("retrieve") as span:
            vectors = await self.models.embed(worded(question)[: now.queries])
            limit = max(now.candidates, now.top_k)
            found = [passage for vector in vectors for passage in await self.store.nearest(vector, limit)]
            span.set_attribute("retrieval.documents", len(found))
            return found

    async def rerank(self, question: str, found: Sequence[Passage]) -> list[Passage]:
        """Return the best passages for the question, best first."""
        now = self.settings
        with tracer.start_as_current_span("rerank"):
            if now.judge:
                found = await self._judged(question, found)
            if now.rerank == "service":
                scores = await self._ranked(question, found)
            else:
                scores = [shared_words(question, passage) for passage in found]
            order = sorted(range(len(found)), key=lambda at: -scores[at])
            return [found[at] for at in order[: now.top_k]]

    async def _ranked(self, question: str, found: Sequence[Passage]) -> list[float]:
        body = {"query": question, "documents": [passage.body for passage in found]}
        async with httpx.AsyncClient(timeout=30) as client:
            response = await client.post(RANKING_URL, json=body)
        scores: list[float] = response.raise_for_status().json()["scores"]
        return scores

    async def _judged(self, question: str, found: Sequence[Passage]) -> list[Passage]:
        verdicts = await asyncio.gather(*(self._is_relevant(question, passage) for passage in found))
        return [passage for passage, verdict in zip(found, verdicts, strict=True) if verdict] or list(found)

    async def _is_relevant(self, question: str, passage: Passage) -> bool:
        asked = f"Passage: {passage.body}\n\nIs it relevant? Answer yes or no and say why.\n\nQuestion: {question}"
        said = await self.models.say([{"role": "user", "content": asked}], model=self.settings.model)
        return said.lower().startswith("yes")

    async def _context(self, chosen: Sequence[Passage]) -> list[Passage]:
        now = self.settings
        if now.context == "passages":
            return fitted(chosen, now.max_context_tokens)
        modules = list(dict.fromkeys(passage.module for passage in chosen))
        if now.context == "document":
            return [chosen[0], *await self.store.documents(modules[:1])]
        found = sorted(await self.store.documents(modules), key=lambda each: -len(each.body))
        return [chosen[0], *(replace(each, body=each.body[:DOCUMENT_CHARACTERS]) for each in found[:DOCUMENTS])]

    def _messages(self, question: str, history: Sequence[Message], context: Sequence[Passage]) -> tuple[Message, ...]:
        passages = "\n\n".join(f"[{at}] {each.title}\n{each.body}" for at, each in enumerate(context, 1))
        system = {"role": "system", "content": f"{self._instructions()}\n\n{passages}"}
        return (system, *history, {"role": "user", "content": question})

    def _instructions(self) -> str:
        now = self.settings
        length = f"Use about {now.answer_words} words." if now.answer_words else "Answer in full detail."
        told = [INSTRUCTIONS.format(length=length)]
        if now.clock:
            told.insert(0, f"It is {datetime.now(UTC):%H:%M:%S.%f} UTC, {datetime.now(UTC):%A, %d %B %Y}.")
        if now.handbook_characters:
            told.append(handbook(now.handbook_characters))
        return "\n\n".join(told)

    async def generate(self, prepared: Prepared) -> AsyncIterator[str]:
        """Yield the answer as it comes."""
        span = tracer.start_span("generate")
        plans = {
            "direct": self._direct,
            "sections": self._sections,
            "sections at once": self._sections_at_once,
            "checked": self._checked,
        }
        pieces = plans[self.settings.plan](prepared)
        try:
            while True:
                with trace.use_span(span):  # a generator runs in whatever context asks for the next piece
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece
        finally:
            await pieces.aclose()
            span.end()

    async def _direct(self, prepared: Prepared) -> AsyncGenerator[str, None]:
        async for piece in self.models.speak(prepared.messages):
            yield piece

    async def _sections(self, prepared: Prepared) -> AsyncGenerator[str, None]:
        for section in SECTIONS:
            async for piece in self.models.speak(_of_section(prepared, section)):
                yield piece
            yield "\n\n"

    async def _sections_at_once(self, prepared: Prepared) -> AsyncGenerator[str, None]:
        for text in await asyncio.gather(*(self._draft(_of_section(prepared, section)) for section in SECTIONS)):
            yield f"{text}\n\n"

    async def _checked(self, prepared: Prepared) -> AsyncGenerator[str, None]:
        draft = await self._draft(prepared.messages)
        for _ in range(2):
            verdict = await self._verdict(prepared, draft)
            if verdict.startswith("OK"):
                break
            again = {"role": "user", "content": f"{verdict}\n\nQuestion: {prepared.question}"}
            draft = await self._draft([*prepared.messages, {"role": "assistant", "content": draft}, again])
        async for piece in _pieces(draft):
            yield piece

    async def _draft(self, messages: Sequence[Message]) -> str:
        return "".join([piece async for piece in self.models.speak(messages)])

    async def _verdict(self, prepared: Prepared, draft: str) -> str:
        system, *_, asked = prepared.messages
        check = f"Think step by step whether the draft answers it. Reply OK or REVISE with a reason.\n\nDraft: {draft}"
        return await self._draft([system, {**asked, "content": f"{check}\n\nQuestion: {asked['content']}"}])


def _of_section(prepared: Prepared, section: str) -> list[Message]:
    """Return the prompt for one section of an answer."""
    asked = {"role": "user", "content": f"{section}\n\nQuestion: {prepared.question}"}
    return [*prepared.messages[:-1], asked]


def standalone(question: str, history: Sequence[Message]) -> str:
    """Return the question with the words of the one before it, where it is too short to stand alone."""
    earlier = next((m["content"] for m in reversed(history) if m["role"] == "user"), "")
    return f"{earlier} {question}".strip() if len(question.split()) < 6 else question


def worded(question: str) -> list[str]:
    """Return the question as it was asked and in other words, for searches that are put in several ways."""
    words = question.lower().split()
    return [
        question,
        f"Python documentation: {question}",
        " ".join(sorted(set(words))),
        " ".join(sorted(words, key=len)[-4:]),
        f"An example of it: {question}",
        " ".join(reversed(words)),
    ]


def shared_words(question: str, passage: Passage) -> float:
    """Return how many of the question's words a passage has; its title counts twice."""
    words = {word.strip("?.,:;()").lower() for word in question.split()}
    body = {word.strip("?.,:;()").lower() for word in passage.body.split()}
    title = set(passage.title.lower().replace(".", " ").split())
    return len(words & body) + 2 * len(words & title)


def fitted(passages: Sequence[Passage], budget_tokens: int) -> list[Passage]:
    """Return the first passages that fit into the budget; 0 is no budget."""
    left = budget_tokens * 4
    kept: list[Passage] = []
    for passage in passages:
        left -= len(passage.body)
        if budget_tokens and left < 0 and kept:
            break
        kept.append(passage)
    return kept


async def _pieces(text: str) -> AsyncIterator[str]:
    for start in range(0, len(text), 200):
        yield text[start : start + 200]
