"""Capture what the OpenAI instrumentations emit against a small fake provider, as OTLP/JSON lines.

Run it in an environment of its own with one instrumentation installed beside ``openai``, ``opentelemetry-sdk``,
``opentelemetry-exporter-otlp-proto-common``, ``opentelemetry-instrumentation-httpx`` and ``aiohttp``::

    python capture.py otel|openinference|openllmetry > NAME.jsonl

The fake provider counts 2,006 input tokens of which 1,920 cached and 300 output tokens of which 200 reasoning.
"""

import asyncio
import contextlib
import json
import os
import sys
import threading
from importlib.metadata import version
from typing import Any

os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental,http"

import openai
from aiohttp import web
from google.protobuf.json_format import MessageToDict
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

USAGE = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920},
    "completion_tokens_details": {"reasoning_tokens": 200},
}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "find_order", "parameters": {"type": "object", "properties": {"id": {"type": "string"}}}},
    }
]
MESSAGES = [
    {"role": "system", "content": "You are a helpful support agent."},
    {"role": "user", "content": "Where is my order 4711?"},
]
CALL = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"id": "4711"}'}}
PACKAGES = {
    "otel": "opentelemetry-instrumentation-genai-openai",
    "openinference": "openinference-instrumentation-openai",
    "openllmetry": "opentelemetry-instrumentation-openai",
}


async def chat(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    if body["model"] == "limited":
        return web.json_response({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, status=429)
    if body.get("stream"):
        return await stream(request, body)
    called = "tools" in body and body["messages"][-1]["role"] != "tool"
    message = {"role": "assistant", "content": None if called else "It left on Monday."}
    if called:
        message["tool_calls"] = [CALL]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if called else "stop"}
    return web.json_response(
        {"id": "chat-1", "object": "chat.completion", "created": 1, "model": "gpt-5-mini-2026", "choices": [choice], "usage": USAGE}
    )  # fmt: skip


async def stream(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    pieces: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"content": "It left"},
        {"content": " on Monday."},
    ]
    for piece in pieces:
        await send(response, [{"index": 0, "delta": piece, "finish_reason": None}])
        await asyncio.sleep(0.02)
    await send(response, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
    await send(response, [], usage=USAGE)
    await response.write(b"data: [DONE]\n\n")
    return response


async def send(response: web.StreamResponse, choices: list[Any], **more: Any) -> None:
    chunk = {
        "id": "chat-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-5-mini-2026",
        "choices": choices,
        **more,
    }
    await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


async def embeddings(request: web.Request) -> web.Response:
    body = await request.json()
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [{"object": "embedding", "index": i, "embedding": [0.1, 0.2]} for i, _ in enumerate(inputs)]
    usage = {"prompt_tokens": 12, "total_tokens": 12}
    return web.json_response({"object": "list", "model": "text-embedding-3-small", "data": data, "usage": usage})


def serve() -> str:
    """Start the fake provider in a thread and return its base URL."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/v1/embeddings", embeddings)
    port: list[int] = []
    started = threading.Event()

    async def run() -> None:
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.append(runner.addresses[0][1])
        started.set()
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
    started.wait()
    return f"http://127.0.0.1:{port[0]}/v1"


def instrument(which: str, provider: TracerProvider) -> None:
    from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor

    HTTPX2ClientInstrumentor().instrument(tracer_provider=provider)
    if which == "otel":
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
    elif which == "openinference":
        from openinference.instrumentation.openai import OpenAIInstrumentor
    else:
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor
    OpenAIInstrumentor().instrument(tracer_provider=provider)


def talk(base_url: str, tracer: trace.Tracer) -> None:
    """Make one plain call with tools, its follow-up, a stream, embeddings and a rate-limited call with one retry."""
    client = openai.OpenAI(base_url=base_url, api_key="sk-not-a-key", max_retries=1)
    ask = client.chat.completions.create
    with tracer.start_as_current_span("turn"):
        ask(model="gpt-5-mini", messages=MESSAGES, tools=TOOLS, max_tokens=400, temperature=0.2)
        answer = {"role": "tool", "tool_call_id": "call_1", "content": "shipped"}
        follow = [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [CALL]}, answer]
        ask(model="gpt-5-mini", messages=follow, tools=TOOLS)
        for _ in ask(model="gpt-5-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}):
            pass
        client.embeddings.create(model="text-embedding-3-small", input=["order", "parcel"])
        with contextlib.suppress(openai.RateLimitError):
            ask(model="limited", messages=MESSAGES)


def as_json(spans: Any) -> dict[str, Any]:
    """Return OTLP/JSON: as protobuf's JSON, but with ids in hex; without stack traces, which tell of the machine."""
    message = encode_spans(spans)
    for span in (s for r in message.resource_spans for c in r.scope_spans for s in c.spans):
        for event in span.events:
            kept = [pair for pair in event.attributes if pair.key != "exception.stacktrace"]
            del event.attributes[:]
            event.attributes.extend(kept)
    document: dict[str, Any] = MessageToDict(message, use_integers_for_enums=True)
    flat = [s for r in message.resource_spans for c in r.scope_spans for s in c.spans]
    plain = [s for r in document["resourceSpans"] for c in r["scopeSpans"] for s in c["spans"]]
    for span, target in zip(flat, plain, strict=True):
        for ours, theirs in (("trace_id", "traceId"), ("span_id", "spanId"), ("parent_span_id", "parentSpanId")):
            if value := getattr(span, ours):
                target[theirs] = value.hex()
    return document


def main() -> None:
    which = sys.argv[1]
    memory = InMemorySpanExporter()
    name = PACKAGES[which]
    resource = Resource(
        {"service.name": "capture", "perfnb.captured.with": f"{name}=={version(name)}, openai=={version('openai')}"}
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    trace.set_tracer_provider(provider)
    instrument(which, provider)
    talk(serve(), provider.get_tracer("capture"))
    print(json.dumps(as_json(memory.get_finished_spans())))


if __name__ == "__main__":
    main()
