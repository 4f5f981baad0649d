"""The agent: a loop of model calls and tools over the same documentation and sessions."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from perfnb.demo.app.answering import Desk
from perfnb.demo.app.models import Message
from perfnb.demo.app.telemetry import tracer
from perfnb.demo.app.toolbox import COMPANY_TOOLS, tool

ITERATIONS = 5
PARALLEL_TOOL_CALLS = 10
INSTRUCTIONS = (
    "You are the support desk for Python's standard library. Look things up before you answer, with search_docs and"
    " session_history first and then with read_document, and answer from what they returned, in at most 30 words."
)


TOOLS = (
    tool("search_docs", "Search the documentation", query={"type": "string"}),
    tool("session_history", "Read what was said in this session", limit={"type": "integer"}),
    tool("read_document", "Read one passage of the documentation", document_id={"type": "integer"}),
)


class Agent:
    """Answers one request with as many rounds of tools as it takes, five at most."""

    def __init__(self, desk: Desk, session_id: str | None) -> None:
        self._desk = desk
        self._session_id = session_id
        self._gate = asyncio.Semaphore(PARALLEL_TOOL_CALLS)

    async def answer(self, question: str) -> dict[str, Any]:
        """Return the answer and how many rounds it took."""
        messages: list[Message] = [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": question},
        ]
        with tracer.start_as_current_span("invoke_agent supportdesk") as span:
            span.set_attribute("gen_ai.operation.name", "invoke_agent")
            span.set_attribute("gen_ai.agent.name", "supportdesk")
            for iteration in range(1, ITERATIONS + 1):
                message = await self._ask(messages)
                if not message.get("tool_calls"):
                    return {"answer": message["content"], "iterations": iteration}
                messages += [message, *await self._run_tools(message["tool_calls"])]
        return {"answer": "I could not find out in time.", "iterations": ITERATIONS}

    async def _ask(self, messages: Sequence[Message]) -> Message:
        text: list[str] = []
        calls: dict[int, dict[str, Any]] = {}
        offered = [*TOOLS, *(COMPANY_TOOLS if self._desk.settings.toolbox == "company" else ())]
        async for delta in self._desk.models.deltas(messages, tools=offered):
            text.append(delta.content or "")
            for at, part in enumerate(delta.tool_calls or ()):
                _collect(calls, getattr(part, "index", at), part)
        message: Message = {"role": "assistant", "content": "".join(text) or None}
        return message | {"tool_calls": list(calls.values())} if calls else message

    async def _run_tools(self, calls: Sequence[dict[str, Any]]) -> list[Message]:
        return await asyncio.gather(*(self._run_tool(call) for call in calls))

    async def _run_tool(self, call: dict[str, Any]) -> Message:
        name = call["function"]["name"]
        arguments = json.loads(call["function"]["arguments"] or "{}")
        with (
            tracer.start_as_current_span(f"execute_tool {name}") as span,
            self._desk.measurements.time("tool_executions", name),
        ):
            span.set_attribute("gen_ai.operation.name", "execute_tool")
            span.set_attribute("gen_ai.tool.name", name)
            async with self._gate:
                result = await getattr(self, f"_{name}")(**arguments)
        return {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}

    async def _search_docs(self, query: str) -> list[dict[str, Any]]:
        found = await self._desk.retrieve(query)
        return [{"id": each.id, "title": each.title, "text": each.body[:300]} for each in found[:4]]

    async def _session_history(self, limit: int) -> list[Message]:
        return await self._desk.store.history(self._session_id, min(limit, 10)) if self._session_id else []

    async def _read_document(self, document_id: int) -> dict[str, Any]:
        found = await self._desk.store.read(document_id)
        return {"title": found.title, "text": found.body} if found else {"error": "no such document"}


def _collect(calls: dict[int, dict[str, Any]], index: int, part: Any) -> None:
    """Add one delta of a tool call to what came of it before."""
    call = calls.setdefault(index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call["id"] = part.id or call["id"]
    if part.function is not None:
        call["function"]["name"] += part.function.name or ""
        call["function"]["arguments"] += part.function.arguments or ""
