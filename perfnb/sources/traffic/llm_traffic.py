"""Turn a captured exchange with a model provider into a row of ``llm_calls``."""

import contextlib
import email.utils
import secrets
import time
from collections.abc import Mapping
from typing import Any

import orjson

from perfnb.prompts.digest import CHARACTERS_PER_TOKEN, Digester, prompt_tokens, scale_tokens
from perfnb.prompts.prompt import operation_of
from perfnb.recording.journal import Row
from perfnb.sources.traffic.encoding import UnknownEncoding, plain
from perfnb.sources.traffic.exchange import Exchange
from perfnb.sources.traffic.llm_answer import Answer, streamed_answer, whole_answer
from perfnb.sources.traffic.llm_usage import usage_columns
from perfnb.sources.traffic.traceparent import caller

PROVIDERS = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure",
    "cognitiveservices.azure.com": "azure",
    "services.ai.azure.com": "azure",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "google",
    "aiplatform.googleapis.com": "google",
    "amazonaws.com": "aws",
    "api.mistral.ai": "mistral",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "x-ai",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "openrouter.ai": "openrouter",
    "api.together.xyz": "together",
    "api.fireworks.ai": "fireworks",
    "api.perplexity.ai": "perplexity",
    "api.cerebras.ai": "cerebras",
}
"""Host, or the end of one, to provider as price lists name it."""

_ENDS = {
    "disconnected": "disconnected",
    "unfinished": "unfinished",
    "unreachable": "connection",
    "broken": "connection",
    "timeout": "timeout",
    "superseded": "superseded",
}
_KNOWN_ERRORS = {
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "server_error": "server_error",
    "internal_server_error": "server_error",
    "api_error": "server_error",
    "overloaded_error": "server_error",
    "timeout": "timeout",
    "timeout_error": "timeout",
}
_CONVERSATION_HEADERS = ("x-conversation-id", "x-session-id", "session-id", "session_id")
_ASKED = (
    "request_model", "max_tokens", "request_digest", "prompt_digest", "system_tokens", "history_messages",
    "history_tokens", "passages", "passage_tokens", "tools_offered", "tool_schema_tokens", "inputs",
)  # fmt: skip
"""What is kept of the body the caller sent where a policy sent another one upstream."""
_TIMEOUT_SHARE = 0.95
"""A caller that left after this share of the timeout it announced is taken to have timed out."""


def provider_of(host: str) -> str:
    """Return the provider behind ``host``, or ``host`` itself."""
    host = host.lower()
    named = (name for end, name in PROVIDERS.items() if host == end or host.endswith(f".{end}"))
    return next(named, host)


def call_row(exchange: Exchange, digester: Digester, provider: str) -> Row:
    """Return one attempt at a model call; what can't be read stays null."""
    row = bare_row(exchange, provider)
    operation = row["operation"]
    attributes = row["attributes"]
    request = _request_columns(exchange, exchange.request_body, digester)
    attributes |= request.pop("attributes", {})
    row |= request
    if exchange.asked:
        asked = _request_columns(exchange, exchange.asked, digester)
        attributes["asked"] = {name: asked[name] for name in _ASKED if asked.get(name) is not None}
    answer = _read_answer(exchange, attributes) if operation not in ("moderation", "other") else Answer()
    row |= _answer_columns(exchange, answer, digester, operation)
    row |= _token_columns(row, answer, attributes)
    row["error_type"] = error_type(exchange, answer, row["timeout_ms"])
    row["client_disconnected"] = exchange.end == "disconnected" and not answer.is_done
    row["output_tokens_per_s"] = _speed(row)
    if answer.error:
        attributes["error_code"] = answer.error
    return row


def bare_row(exchange: Exchange, provider: str) -> dict[str, Any]:
    """Return the columns that need no look into the bodies."""
    sent, got = exchange.request_headers, exchange.response_headers
    trace_id, parent = caller(sent.get("traceparent", ""))
    return {
        "call_id": secrets.token_hex(8),
        "trace_id": trace_id,
        "parent_span_id": parent,
        "source": "proxy",
        "provider": provider,
        "arm": exchange.arm,
        "answered_by": exchange.answered_by,
        "path": exchange.path,
        "operation": operation_of(exchange.path),
        "start_time": exchange.started_ns,
        "duration_ms": exchange.duration_ms,
        "time_to_first_byte_ms": exchange.first_byte_ms,
        "connect_ms": exchange.connect_ms,
        "processing_ms": _number(got.get("openai-processing-ms") or got.get("x-envoy-upstream-service-time")),
        "status_code": exchange.status,
        "error_type": error_type(exchange, Answer(), timeout_ms(sent)),
        "client_disconnected": exchange.end == "disconnected",
        "retry_count": _count(sent.get("x-stainless-retry-count")),
        "retry_after_ms": retry_after_ms(got, now=time.time()),
        "timeout_ms": timeout_ms(sent),
        "connection_id": exchange.connection_id,
        "connection_requests": exchange.connection_requests,
        "user_agent": sent.get("user-agent"),
        "request_bytes": exchange.request_bytes,
        "response_bytes": exchange.response_bytes,
        "attributes": _details(exchange),
    }


def error_type(exchange: Exchange, answer: Answer, timeout: float | None) -> str | None:
    """Return what went wrong, in the words of the schema; None where nothing did."""
    if exchange.end == "disconnected" and timeout and exchange.ended is not None and not answer.is_done:
        waited = exchange.ended - (exchange.last or exchange.answered or 0.0)
        if waited >= _TIMEOUT_SHARE * timeout:
            return "timeout"
    if exchange.end in _ENDS and not answer.is_done:
        return _ENDS[exchange.end]
    status = exchange.status or 0
    if status == 429:
        return "rate_limit"
    if status in (408, 504):
        return "timeout"
    if status >= 500:
        return "server_error"
    if status >= 400:
        return "client_error"
    return _KNOWN_ERRORS.get(answer.error, answer.error) or None


def timeout_ms(headers: Mapping[str, str]) -> float | None:
    """Return the read timeout that the OpenAI and Anthropic clients announce (in seconds on the wire)."""
    seconds = _number(headers.get("x-stainless-read-timeout") or headers.get("x-stainless-timeout"))
    return None if seconds is None else seconds * 1e3


def retry_after_ms(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return how long the provider asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds
    if not (given := headers.get("retry-after")):
        return None
    if (seconds := _number(given)) is not None:
        return seconds * 1e3
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, (email.utils.parsedate_to_datetime(given).timestamp() - now) * 1e3)
    return None


def _details(exchange: Exchange) -> dict[str, Any]:
    headers = exchange.response_headers
    details: dict[str, Any] = {"method": exchange.method}
    limits = {name: value for name, value in headers.items() if "ratelimit" in name}
    if limits:
        details["rate_limits"] = limits
    if request_id := headers.get("x-request-id") or headers.get("request-id"):
        details["request_id"] = request_id
    if exchange.error:
        details["connection_error"] = exchange.error
    if exchange.pieces > 1:
        details["pieces"] = exchange.pieces
    details |= exchange.notes
    if exchange.is_cut:
        details["too_long_to_read"] = True
    return details


def _request_columns(exchange: Exchange, data: bytes | None, digester: Digester) -> dict[str, Any]:
    body = _request_json(exchange, data)
    if body is None:
        return {"stream": False}
    columns = digester.request(body, exchange.path)
    if columns["conversation_id"] is None:
        sent = exchange.request_headers
        named = next((sent[name] for name in _CONVERSATION_HEADERS if name in sent), None)
        columns["conversation_id"] = digester.digest(named) if named else None
    return columns


def _request_json(exchange: Exchange, data: bytes | None) -> dict[str, Any] | None:
    if not data:
        return None
    try:
        encoding = exchange.request_headers.get("content-encoding", "")
        body = orjson.loads(b"".join(part for _, part in plain([(0.0, data)], encoding)))
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _read_answer(exchange: Exchange, attributes: dict[str, Any]) -> Answer:
    headers = exchange.response_headers
    is_stream = headers.get("content-type", "").startswith("text/event-stream")
    pieces = list(zip(exchange.times, exchange.answer, strict=True))
    try:
        decoded = plain(pieces, headers.get("content-encoding", ""), is_stream=is_stream)
        return streamed_answer(decoded) if is_stream else whole_answer(b"".join(part for _, part in decoded))
    except UnknownEncoding:
        attributes["unread_encoding"] = headers["content-encoding"]
        return Answer()


def _answer_columns(exchange: Exchange, answer: Answer, digester: Digester, operation: str) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "response_model": answer.model,
        "finish_reason": answer.finish_reason,
        "time_to_first_token_ms": answer.first,
        "last_token_ms": answer.last,
    }
    if answer.service_tier:
        columns["service_tier"] = answer.service_tier
    if operation in ("chat", "responses", "text_completion") and (answer.texts or answer.calls):
        columns |= digester.answer(answer.text, answer.tool_calls)
    return columns


def _token_columns(row: dict[str, Any], answer: Answer, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the token columns: the provider's, else estimated where the model did something."""
    if answer.usage:
        attributes["usage"] = answer.usage
    is_anthropic = row["path"].rstrip("/").endswith("/messages")
    if usage := usage_columns(answer.usage, is_anthropic=is_anthropic):
        return (scale_tokens(row, usage["input_tokens"]) if "messages" in row else {}) | usage
    failed = row["status_code"] is None or row["status_code"] >= 400
    is_cut_short = row["error_type"] in ("disconnected", "unfinished", "timeout", "superseded")
    if (failed and not is_cut_short) or not row.get("messages"):
        return {}
    return {
        "input_tokens": prompt_tokens(row) + (0 if row["operation"] == "embeddings" else _framing_tokens(row)),
        "output_tokens": -(-answer.characters // CHARACTERS_PER_TOKEN),
        "usage_rule": "estimated",
        "tokens_estimated": True,
    }


def _framing_tokens(row: Mapping[str, Any]) -> int:
    """Return the tokens around a prompt's messages: three each, three before the answer (OpenAI cookbook, tiktoken)."""
    return 3 * len(row["messages"]) + 3


def _speed(row: Mapping[str, Any]) -> float | None:
    first, last, tokens = row["time_to_first_token_ms"], row["last_token_ms"], row.get("output_tokens")
    if first is None or last is None or last <= first or not tokens or tokens < 2:
        return None
    return float((tokens - 1) / (last - first) * 1e3)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < 1e12 else None


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None
