"""Make recordings in a line: ``recording(tmp_path, calls=[call(...)], requests=[request(...)])``."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from perfnb.checklist import checks
from perfnb.finding import Clear, Finding
from perfnb.objectives import Objectives
from perfnb.recording import Recording
from perfnb.trials import MetricResult, TrialResult
from perfnb.trials.statistics import compare

START = 1_790_000_000_000_000_000  # an instant in September 2026
MS = 1_000_000

_ids = itertools.count(1)

Row = dict[str, Any]


def recording(
    folder: Path, *, name: str = "built", content: str = "digest", **tables: Iterable[Mapping[str, Any]]
) -> Recording:
    """Return a sealed recording that holds ``tables``: calls, requests, spans, or any table by its name."""
    made = Recording.create(folder / f"{name}.perfnb", content=content)  # type: ignore[arg-type]
    with made.writer() as writer:
        for table, rows in tables.items():
            writer.write({"calls": "llm_calls", "requests": "http_requests"}.get(table, table), rows)
    return made


def call(at_ms: float = 0, ms: float = 1000, **columns: Any) -> Row:
    """Return a successful streamed chat call seen by the proxy that starts ``at_ms`` and takes ``ms``."""
    number = next(_ids)
    first = columns.pop("first_token_ms", ms * 0.3)
    row: Row = {
        "call_id": f"call{number}",
        "source": "proxy",
        "provider": "openai",
        "path": "/v1/chat/completions",
        "operation": "chat",
        "request_model": "gpt-5-mini",
        "response_model": "gpt-5-mini",
        "stream": True,
        "start_time": START + round(at_ms * MS),
        "duration_ms": float(ms),
        "time_to_first_byte_ms": first,
        "time_to_first_token_ms": first,
        "status_code": 200,
        "retry_count": 0,
        "connection_id": 1,
        "connection_requests": number + 1,
        "input_tokens": 700,
        "cache_read_tokens": 0,
        "output_tokens": 80,
        "reasoning_tokens": 0,
        "history_messages": 0,
        "history_tokens": 0,
        "passages": 4,
        "passage_tokens": 500,
        "tools_offered": 0,
        "prompt_digest": f"prompt{number}",
        "request_digest": f"request{number}",
        "response_digest": f"response{number}",
        "finish_reason": "stop",
    }
    if first is not None and (columns.get("output_tokens", 80) or 0) > 1 and ms > first:
        row["output_tokens_per_s"] = (columns.get("output_tokens", 80) - 1) / (ms - first) * 1000
    if columns.get("stream") is False:
        row["time_to_first_token_ms"] = row["output_tokens_per_s"] = None
        row["time_to_first_byte_ms"] = float(ms)
    return row | columns


def failed_call(at_ms: float, ms: float = 10, *, status: int = 429, **columns: Any) -> Row:
    """Return an attempt the provider refused."""
    kind = "rate_limit" if status == 429 else "server_error" if status >= 500 else "client_error"
    empty = dict.fromkeys(("time_to_first_token_ms", "output_tokens_per_s", "output_tokens", "input_tokens"))
    return call(at_ms, ms, **(empty | {"status_code": status, "error_type": kind, "first_token_ms": None} | columns))


def embedding(at_ms: float = 0, ms: float = 20, **columns: Any) -> Row:
    """Return an embeddings call for one text."""
    given = {"operation": "embeddings", "path": "/v1/embeddings", "stream": False, "inputs": 1, "input_tokens": 12}
    model = columns.get("request_model", "text-embedding-3-small")
    return call(at_ms, ms, **(given | {"request_model": model, "response_model": model, "output_tokens": 0} | columns))


def request(at_ms: float = 0, ms: float = 1100, **columns: Any) -> Row:
    """Return a streamed request as the front saw it."""
    number = next(_ids)
    row: Row = {
        "request_id": f"http{number}",
        "source": "front",
        "method": "POST",
        "route": "/chat",
        "status_code": 200,
        "start_time": START + round(at_ms * MS),
        "duration_ms": float(ms),
        "time_to_first_byte_ms": ms * 0.35,
        "time_to_first_content_ms": ms * 0.35,
        "stream": True,
        "chunks": 40,
        "error_in_body": False,
        "phase": "measure",
        "body_digest": f"body{number}",
    }
    if columns.get("stream") is False:
        row |= {"time_to_first_byte_ms": float(ms), "time_to_first_content_ms": float(ms), "chunks": 1}
    return row | columns


def span(
    name: str, at_ms: float, ms: float, *, trace: str = "trace1", parent: str | None = None, **columns: Any
) -> Row:
    """Return a span; its span_id is its name unless given."""
    return {
        "trace_id": trace,
        "span_id": f"{trace}-{name}",
        "parent_span_id": None if parent is None else f"{trace}-{parent}",
        "name": name,
        "kind": "INTERNAL",
        "service": "app",
        "operation": "step",
        "start_time": START + round(at_ms * MS),
        "duration_ms": float(ms),
        "status": "OK",
        "source": "otlp",
        "attributes": {},
    } | columns


def every(period_ms: float, count: int, *makers: Any) -> list[Row]:
    """Return what each of ``makers(at_ms)`` makes, ``count`` times, a period apart."""
    return [row for turn in range(count) for make in makers for row in _rows(make(turn * period_ms))]


def _rows(made: Row | list[Row]) -> list[Row]:
    return made if isinstance(made, list) else [made]


def answer(folder: Path, cause: str, **tables: Iterable[Mapping[str, Any]]) -> Finding | Clear:
    """Return what the check for ``cause`` says of a recording that holds ``tables``."""
    one = next(each for each in checks() if each.cause == cause)
    return one.function(recording(folder, **tables), Objectives.load(folder))


FASTER = compare([-0.25, -0.2, -0.22, -0.21, -0.24, -0.2], alpha=0.01, margin=0.03)


def trial_result(**changes: Any) -> TrialResult:
    """Return the result of a trial in which an output cap was better."""
    metrics = (
        MetricResult.of("request_duration_ms", 2000, 1600, FASTER),
        MetricResult.of("request_usd", 0.002, 0.0016, FASTER),
    )
    made = TrialResult(
        trial="4711abcd", knob="output_cap", title="Output cap", before=None, value={"max_tokens": 300}, mode="pairs",
        outcome="better", why="99% interval -23% to -16% in 6 pairs", primary="request_duration_ms", confidence=0.99,
        margin=0.03, pairs=6, void_pairs=0, requests=120, failed=0, spent_usd=0.2, started_ns=0, ended_ns=61 * 10**9,
        was_undone=True, worst_late_ms=1.5, metrics=metrics, notes=("each request was sent twice",),
    )  # fmt: skip
    return replace(made, **changes)
