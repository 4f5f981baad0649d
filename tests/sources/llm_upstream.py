"""A provider for tests: OpenAI's chat, responses, completions, embeddings and models, and Anthropic's messages."""

import asyncio
import json
from typing import Any

from aiohttp import web

ANSWER = "It keeps connections open and lends them out."
USAGE = {
    "prompt_tokens": 50, "completion_tokens": 12, "total_tokens": 62,
    "prompt_tokens_details": {"cached_tokens": 32}, "completion_tokens_details": {"reasoning_tokens": 4},
}  # fmt: skip
CALL = {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"q": "pool"}'}}


class Provider:
    """Answers like a provider; ``failures`` are (status, headers) to answer first, one a request."""

    def __init__(self, *failures: tuple[int, dict[str, str]]) -> None:
        self.failures = list(failures)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if self.failures:
            status, headers = self.failures.pop(0)
            error = {"error": {"message": "not now", "type": "tokens", "code": "rate_limit_exceeded"}}
            return web.json_response(error, status=status, headers=headers)
        body = json.loads(await request.read() or b"{}")
        headers = {"openai-processing-ms": "25", "x-request-id": "req_1"}
        match request.path.rpartition("/v1")[2]:
            case "/chat/completions":
                if body.get("stream"):
                    return await stream(request, chat_events(body), headers)
                return web.json_response(chat(body), headers=headers)
            case "/responses":
                if body.get("stream"):
                    return await stream(request, response_events(), headers, names=True)
                return web.json_response(response("completed"), headers=headers)
            case "/completions":
                choice = {"index": 0, "text": ANSWER, "finish_reason": "stop", "logprobs": None}
                return web.json_response(
                    {
                        "id": "c",
                        "object": "text_completion",
                        "created": 1,
                        "model": "m-1",
                        "choices": [choice],
                        "usage": USAGE,
                    }
                )
            case "/embeddings":
                texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
                data = [{"object": "embedding", "index": n, "embedding": [0.5, -0.5]} for n in range(len(texts))]
                usage = {"prompt_tokens": 8, "total_tokens": 8}
                return web.json_response({"object": "list", "data": data, "model": "e-1", "usage": usage})
            case "/models":
                model = {"id": "m", "object": "model", "created": 1, "owned_by": "x"}
                return web.json_response({"object": "list", "data": [model]})
            case "/messages":
                return await stream(request, message_events(), headers, names=True)
            case "/hang":
                await asyncio.sleep(60)
        return web.Response(body=b"\x00\x01 anything", content_type="audio/mpeg")


async def stream(
    request: web.Request, events: list[Any], headers: dict[str, str], *, names: bool = False
) -> web.StreamResponse:
    """Send ``events`` one by one, some ms apart."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **headers})
    await response.prepare(request)
    for event in events:
        name = f"event: {event['type']}\n" if names else ""
        await response.write(f"{name}data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode())
        await asyncio.sleep(0.01)
    await response.write_eof()
    return response


def chat(body: dict[str, Any]) -> dict[str, Any]:
    if body.get("tools"):
        message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    else:
        message = {"role": "assistant", "content": ANSWER}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if body.get("tools") else "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m-1", "choices": [choice], "usage": USAGE}


def chat_events(body: dict[str, Any]) -> list[Any]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if body.get("tools"):
        deltas += [{"tool_calls": [{"index": 0, **CALL}]}]
    else:
        deltas += [{"content": word + " "} for word in ANSWER.split()]
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
    events: list[Any] = [base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(base | {"choices": [], "usage": USAGE})
    return [*events, "[DONE]"]


def response(status: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": ANSWER, "annotations": []}]
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}
    usage = {
        "input_tokens": 50, "output_tokens": 12, "total_tokens": 62,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    return {
        "id": "r", "object": "response", "created_at": 1, "model": "m-1", "status": status, "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [], "output": [message] if status == "completed" else [],
        "usage": usage if status == "completed" else None,
    }  # fmt: skip


def response_events() -> list[Any]:
    where = {"item_id": "m", "output_index": 0, "content_index": 0, "logprobs": []}
    words = [{"type": "response.output_text.delta", "delta": word + " ", **where} for word in ANSWER.split()]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response("in_progress")}, *words,
        {"type": "response.completed", "response": response("completed")},
    ]  # fmt: skip
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


def message_events() -> list[Any]:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 5, "output_tokens": 1}
    return [
        {"type": "message_start", "message": {"id": "m", "model": "claude-1", "content": [], "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ANSWER}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 12}},
        {"type": "message_stop"},
    ]
