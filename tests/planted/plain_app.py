"""A second app, written another way: aiohttp, no database, no OpenTelemetry, its knowledge in memory.

``OPENAI_BASE_URL=… python plain_app.py`` prints the address it listens at. ``POST /api/ask`` takes ``{"q": …, "chat": …}``
and answers as an event stream of bare words. ``HABIT`` names the mistakes it makes, separated by commas; with none it is
well-behaved. What the provider or the users do wrong is not the app's business.
"""

import asyncio
import os
import random
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncGenerator
from pydoc_data.topics import topics

import openai
from aiohttp import web

HABITS = {
    "no-streaming", "sequential-calls", "large-context", "too-many-documents", "long-history", "slow-model",
    "slow-processing", "unbatched-requests", "deep-reasoning", "timeout-too-long", "timeout-too-short",
    "no-retry", "retry-amplification", "cold-start", "blocked-event-loop", "python-hot-spot", "varying-context",
    "slow-embedding", "errors-as-success", "late-first-content", "client-per-request",
    "oversized-model", "verbose-system-prompt", "no-output-limit", "redundant-prompt-text", "no-usage-tracking",
    "unstable-prompt-prefix",
}  # fmt: skip
HABIT = {name for name in os.environ.get("HABIT", "").split(",") if name in HABITS}
TIME_SCALE = float(os.environ.get("TIME_SCALE") or 1)
PARTS = ("List what one has to know first.", "Give the rule.", "Give a counterexample.", "Say where to read on.")


def does(name: str) -> bool:
    return name in HABIT


class Handbook:
    """The language reference, cut into sections and found by keywords."""

    def __init__(self) -> None:
        self.sections = [
            (name, text[at : at + 900]) for name, text in sorted(topics.items()) for at in range(0, len(text), 900)
        ]
        self.index: dict[str, set[int]] = defaultdict(set)
        for number, (_, text) in enumerate(self.sections):
            for word in set(text.lower().split()):
                self.index[word].add(number)

    def look_up(self, question: str, count: int) -> list[tuple[str, str]]:
        scores: dict[int, float] = defaultdict(float)
        for word in set(question.lower().split()):
            for number in self.index.get(word, ()):
                scores[number] += 1 / len(self.index[word])
        best = sorted(scores, key=lambda number: -scores[number]) or [0]
        return [self.sections[number] for number in best[:count]]


class Bot:
    """Answers questions from the handbook."""

    def __init__(self) -> None:
        self.handbook: Handbook | None = None if does("cold-start") else Handbook()
        self.loading = asyncio.Lock()
        self.chats: dict[str, list[dict[str, str]]] = {}
        self.client = new_client()

    async def ready(self) -> Handbook:
        async with self.loading:
            if self.handbook is None:
                await asyncio.sleep(3.5 / TIME_SCALE)  # stands for fetching the handbook from a share
                self.handbook = Handbook()
        return self.handbook

    async def answer(self, question: str, chat: str | None) -> AsyncGenerator[str, None]:
        handbook = await self.ready()
        if does("slow-processing"):
            await asyncio.to_thread(write_audit_record, question)
        if does("blocked-event-loop"):
            check_manners(question)
        if does("python-hot-spot"):
            question = await asyncio.to_thread(without_repeats, question, handbook)
        if does("slow-embedding"):
            await self.ask_client().embeddings.create(model="sim-embedding-large", input=question)
        docs = await self.choose(handbook, question)
        earlier = self.chats.setdefault(chat, old_messages(chat)) if chat else []
        messages = [*rules(), *(earlier if does("long-history") else earlier[-4:]), prompt(question, docs)]
        said = ""
        async for piece in self.write(messages, question):
            said += piece
            yield piece
        if chat:
            self.chats[chat] += [{"role": "user", "content": question}, {"role": "assistant", "content": said}]

    async def choose(self, handbook: Handbook, question: str) -> list[tuple[str, str]]:
        if does("varying-context"):
            name, _ = handbook.look_up(question, 1)[0]
            return [(name, topics[name][:46_000])]
        if does("large-context"):
            names = dict.fromkeys(name for name, _ in handbook.look_up(question, 40))
            longest = sorted(names, key=lambda name: -len(topics[name]))
            return [(name, topics[name][:12_000]) for name in longest[:3]]
        if does("unbatched-requests"):
            docs = handbook.look_up(question, 12)
            verdicts = await asyncio.gather(*(self.fits(question, text) for _, text in docs))
            return [doc for doc, verdict in zip(docs, verdicts, strict=True) if verdict][:3] or docs[:3]
        return handbook.look_up(question, 25 if does("too-many-documents") else 3)

    async def fits(self, question: str, text: str) -> bool:
        asked = f"Text: {text}\n\nDoes it help? Answer yes or no and say why.\n\nQuestion: {question}"
        return (await self.whole([{"role": "user", "content": asked}])).startswith("Yes")

    async def write(self, messages: list[dict[str, str]], question: str) -> AsyncGenerator[str, None]:
        if does("sequential-calls"):
            for part in PARTS:
                last = {"role": "user", "content": f"{messages[-1]['content']}\n\n{part}\n\nQuestion: {question}"}
                async for piece in self.stream([*messages[:-1], last]):
                    yield piece
        elif does("deep-reasoning"):
            yield await self.considered(messages, question)
        elif does("no-streaming"):
            yield await self.whole(messages)
        else:
            async for piece in self.stream(messages):
                yield piece

    async def considered(self, messages: list[dict[str, str]], question: str) -> str:
        said = await self.whole(messages)
        for _ in range(2):
            check = {"role": "user", "content": f"Draft: {said}\n\nReply OK or REVISE.\n\nQuestion: {question}"}
            verdict = await self.whole([*messages, check])
            if verdict.startswith("OK"):
                break
            again = {"role": "user", "content": f"Draft: {said}\n\n{verdict}\n\nQuestion: {question}"}
            said = await self.whole([*messages, again])
        return said

    async def whole(self, messages: list[dict[str, str]]) -> str:
        answer = await self.persist(lambda: self.ask_client().chat.completions.create(messages=messages, **options()))
        return answer.choices[0].message.content or ""

    async def stream(self, messages: list[dict[str, str]]) -> AsyncGenerator[str, None]:
        asked = {} if does("no-usage-tracking") else {"stream_options": {"include_usage": True}}
        chunks = await self.persist(
            lambda: self.ask_client().chat.completions.create(messages=messages, stream=True, **asked, **options())
        )
        async with chunks:
            async for chunk in chunks:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    async def persist(self, call):
        for attempt in range(3 if does("retry-amplification") else 0):
            try:
                return await call()
            except openai.APIError:
                await asyncio.sleep(0.2 * (attempt + 1))
        return await call()

    def ask_client(self) -> openai.AsyncOpenAI:
        return new_client() if does("client-per-request") else self.client


def new_client() -> openai.AsyncOpenAI:
    timeout = 300.0 if does("timeout-too-long") else 0.8 if does("timeout-too-short") else 30.0
    never = does("no-retry") or does("timeout-too-short")
    return openai.AsyncOpenAI(timeout=timeout, max_retries=0 if never else 2)


def options() -> dict[str, object]:
    if does("deep-reasoning"):
        return {"model": "sim-reasoning", "max_completion_tokens": 1000, "reasoning_effort": "high"}
    model = "sim-large" if does("slow-model") else "sim-premium" if does("oversized-model") else "sim-balanced"
    cap = {} if does("no-output-limit") else {"max_tokens": 400}
    return {"model": model, "temperature": 0.2, **cap}


def rules() -> list[dict[str, str]]:
    """Return what stands before everything else, in an app that is wordy or tells the time."""
    if does("verbose-system-prompt"):
        return [{"role": "system", "content": f"You answer for the handbook. {topics['typesmapping'][:13_000]}"}]
    if does("unstable-prompt-prefix"):
        now = time.strftime("%H:%M:%S") + f".{time.time_ns() % 10**9}"
        text = " ".join(topics["attribute-access"].split())[:6500]
        return [{"role": "system", "content": f"You answer for the handbook. Today's clock says {now}.\n{text}"}]
    return []


def prompt(question: str, docs: list[tuple[str, str]]) -> dict[str, str]:
    docs = docs * 3 if does("redundant-prompt-text") else docs
    texts = "\n".join(f'<doc title="{name}">\n{text}\n</doc>' for name, text in docs)
    words = 220 if does("no-streaming") else 50
    length = "Answer in full detail." if does("no-output-limit") else f"Answer in {words} words."
    asked = f"{question}\n\nUse these texts.\n\n{texts}\n\n{length}\n\nQuestion: {question}"
    return {"role": "user", "content": asked}


def old_messages(chat: str) -> list[dict[str, str]]:
    """Return what a returning user has said before, as an archive would."""
    names = random.Random(chat).sample(sorted(topics), 30)
    pairs = [(f"What about {name}?", " ".join(topics[name].split())[:300]) for name in names]
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def write_audit_record(question: str) -> None:
    """Write to an audit log that is on a slow share; the sleep stands for the share."""
    time.sleep(0.9 / TIME_SCALE)


def check_manners(question: str) -> None:
    """Ask the moderation service, and block until it answers."""
    body = f'{{"input": "{len(question)}"}}'.encode()
    address = f"{os.environ['OPENAI_BASE_URL']}/moderations"
    urllib.request.urlopen(urllib.request.Request(address, body), timeout=30).close()


def without_repeats(question: str, handbook: Handbook) -> str:
    """Return the question without words said twice, found by comparing all letters of all words with all others."""
    same = 0
    words = question.split() + " ".join(text for _, text in handbook.sections[:5]).split()
    for one in words:
        for other in words:
            same += sum(a == b for a, b in zip(one, other, strict=False)) == len(one)
    return question


async def ask(request: web.Request) -> web.StreamResponse:
    wanted = await request.json()
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    if does("late-first-content"):
        await response.prepare(request)
        await response.write(b": open\n\n")
    try:
        async for piece in request.app[BOT].answer(wanted["q"], wanted.get("chat")):
            if not response.prepared:
                await response.prepare(request)
            await response.write(f"event: word\ndata: {piece}\n\n".replace("\ndata: \n", "\ndata: \ndata: ").encode())
    except openai.APIError as error:
        if does("errors-as-success"):
            return web.json_response({"ok": False, "error": str(error)})
        if not response.prepared:
            return web.json_response({"detail": "the model failed"}, status=500)
        raise
    if not response.prepared:
        await response.prepare(request)
    await response.write(b"event: end\ndata:\n\n")
    return response


async def is_up(request: web.Request) -> web.Response:
    return web.Response(text="up")


BOT = web.AppKey("bot", Bot)


async def main() -> None:
    app = web.Application()
    app[BOT] = Bot()
    app.add_routes([web.post("/api/ask", ask), web.get("/up", is_up)])
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ.get("PORT", "0"))).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
