"""How many spans a second the OTLP receiver acknowledges, each durable before the answer, and what limits it.

    python bench/otlp.py [--spans 200000] [--batch 512] [--rounds 5] [--gzip] [--format json]

Two kinds of spans come as OTLP/HTTP protobuf: HTTP client spans with ten attributes, and GenAI spans with messages. The
peer, in the same run and in turns, is the least any Python receiver does: aiohttp reads the body, protobuf parses it,
nothing is written. Spans per second of the receiver's own CPU time is the figure per core; the sender has another one.
"""

import argparse
import asyncio
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from perfnb.prompts.digest import Digester
from perfnb.recording import Recording
from perfnb.recording.encode import encoded
from perfnb.sources.otlp import Otlp
from perfnb.sources.otlp.decode import traces_from_protobuf
from perfnb.sources.otlp.protocol import LIMIT_BYTES, PROTOBUF
from perfnb.sources.otlp.rows import RowMaker

CONNECTIONS = 4
TARGET_SPANS_PER_S = 20_000

HTTP = {
    "http.request.method": "GET", "url.full": "http://localhost:8080/api/items/42", "server.address": "localhost",
    "server.port": 8080, "network.peer.address": "127.0.0.1", "http.response.status_code": 200, "thread.id": 12345,
    "network.protocol.version": "1.1", "user_agent.original": "python-httpx/0.28", "thread.name": "MainThread",
}  # fmt: skip
GENAI = {
    "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini",
    "gen_ai.response.model": "gpt-5-mini-2026", "gen_ai.usage.input_tokens": 900, "gen_ai.usage.output_tokens": 120,
    "gen_ai.usage.cache_read.input_tokens": 512, "gen_ai.response.time_to_first_chunk": 0.0021,
}  # fmt: skip


def main() -> int:
    options = _options()
    if options.bare:
        asyncio.run(_serve_bare())
        return 0
    result: dict[str, Any] = {"spans": options.spans, "batch": options.batch, "gzip": options.gzip}
    for kind in options.kind:
        spans = options.spans if kind == "http" else options.spans // 8
        result[kind] = _measure(kind, spans, options)
    print(json.dumps(result, indent=2) if options.format == "json" else _as_table(result, options.kind))
    good = result.get("http", {}).get("spans_per_s_and_core", TARGET_SPANS_PER_S) >= TARGET_SPANS_PER_S
    return 0 if good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--spans", type=int, default=200_000, help="HTTP spans in all; GenAI spans are an eighth")
    parser.add_argument("--batch", type=int, default=512, help="spans per request, as SDKs send by default")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server")
    parser.add_argument("--kind", nargs="+", default=["http", "genai"], choices=("http", "genai"))
    parser.add_argument("--gzip", action="store_true", help="compress the bodies")
    parser.add_argument("--format", default="table", choices=("table", "json"))
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(kind: str, spans: int, options: argparse.Namespace) -> dict[str, Any]:
    per_round = max(spans // options.rounds // options.batch, 1)
    with tempfile.TemporaryDirectory(prefix="perfnb-otlp-") as folder:
        Recording.create(Path(folder) / "bench.perfnb")
        with Otlp(Path(folder) / "bench.perfnb", grpc_port=None) as receiver, _bare() as bare:
            assert receiver._process
            servers = {"perfnb": (receiver.http_url, receiver._process.pid), "bare": bare}
            found: dict[str, list[tuple[float, float]]] = {"perfnb": [], "bare": []}
            for turn in range(options.rounds + 1):
                for name in ("perfnb", "bare") if turn % 2 else ("bare", "perfnb"):
                    bodies = [_body(kind, options.batch, options.gzip) for _ in range(per_round if turn else 2)]
                    timed = asyncio.run(_send(*servers[name], bodies))
                    if turn:  # the first turn warms up
                        found[name].append(timed)
        acknowledged = (per_round * options.rounds + 2) * options.batch
        with Recording.open(Path(folder) / "bench.perfnb") as recording:
            kept = int(recording.query("SELECT count(*) AS n FROM spans")["n"][0])
    assert kept == acknowledged, f"{acknowledged} spans were acknowledged, {kept} are in the recording"
    rates = {name: _rates(per_round * options.batch, timed) for name, timed in found.items()}
    return {
        "spans_per_s": rates["perfnb"][0],
        "spans_per_s_and_core": rates["perfnb"][1],
        "bare_spans_per_s_and_core": rates["bare"][1],
        "share_of_bare": round(rates["perfnb"][1] / rates["bare"][1], 3),
        "acknowledged_and_found": kept,
        "us_per_span": _parts(kind, options.batch),
    }


def _rates(spans: int, timed: list[tuple[float, float]]) -> tuple[int, int]:
    """Return spans per second: by the clock in the median round, and by the server's CPU time in all of them."""
    walls = sorted(wall for wall, _ in timed)
    cpu = sum(cpu for _, cpu in timed)  # counted in steps of 10 ms, too coarse for one round
    return round(spans / walls[len(walls) // 2]), round(spans * len(timed) / max(cpu, 0.01))


async def _send(url: str, pid: int, bodies: list[tuple[bytes, dict[str, str]]]) -> tuple[float, float]:
    """Send all ``bodies`` over a few connections; return seconds by the clock and of the server's CPU."""
    server = psutil.Process(pid)
    waiting = iter(bodies)
    async with aiohttp.ClientSession() as session:

        async def send() -> None:
            for body, headers in waiting:
                async with session.post(f"{url}/v1/traces", data=body, headers=headers) as answer:
                    assert answer.status == 200, await answer.text()
                    assert not await answer.read()  # anything would be a partial success

        before, started = server.cpu_times(), time.perf_counter()
        await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
        wall, after = time.perf_counter() - started, server.cpu_times()
    return wall, after.user + after.system - before.user - before.system


def _body(kind: str, batch: int, packed: bool) -> tuple[bytes, dict[str, str]]:
    headers = {"Content-Type": PROTOBUF} | ({"Content-Encoding": "gzip"} if packed else {})
    body = _request(kind, batch).SerializeToString()
    return (gzip.compress(body, 6) if packed else body), headers


def _request(kind: str, batch: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = "bench"
    spans = resource_spans.scope_spans.add().spans
    attributes = _attributes(HTTP if kind == "http" else GENAI | _messages())
    now, ids = time.time_ns(), os.urandom(24 * batch)
    for number in range(batch):
        span = spans.add(
            name="GET", kind=3, start_time_unix_nano=now, end_time_unix_nano=now + 5_000_000, attributes=attributes
        )
        span.trace_id, span.span_id = ids[number * 24 : number * 24 + 16], ids[number * 24 + 16 : number * 24 + 24]
    return request


def _attributes(given: dict[str, Any]) -> list[Any]:
    span = ExportTraceServiceRequest().resource_spans.add().scope_spans.add().spans.add()
    for key, value in given.items():
        held = span.attributes.add(key=key).value
        setattr(held, {int: "int_value", float: "double_value"}.get(type(value), "string_value"), value)
    return list(span.attributes)


def _messages() -> dict[str, str]:
    """Return a system message, five passages and a question, the question new in each batch."""
    passages = "\n\n".join(f"[{number}] " + "Orders leave on the day they are paid. " * 12 for number in range(5))
    asked = f"{passages}\n\nWhere is my order {time.time_ns()}?"
    texts = [("system", "You answer questions about orders, briefly and kindly. " * 10), ("user", asked)]
    messages = [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in texts]
    return {"gen_ai.input.messages": json.dumps(messages)}


def _parts(kind: str, batch: int) -> dict[str, float]:
    """Return what each step of the receiver costs, best of several, in µs a span."""
    body = _request(kind, batch).SerializeToString()
    traces, maker = traces_from_protobuf(body), RowMaker(Digester(b"k" * 32))
    rows = [row for table in maker.rows(traces.groups).values() for row in table]
    return {
        "parse": _best(lambda: ExportTraceServiceRequest.FromString(body), batch),
        "read": _best(lambda: traces_from_protobuf(body), batch),
        "understand": _best(lambda: maker.rows(traces.groups), batch),
        "encode": _best(lambda: encoded(rows), batch),
    }


def _best(run: Callable[[], Any], batch: int) -> float:
    times = []
    for _ in range(7):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return round(min(times) / batch * 1e6, 2)


@contextmanager
def _bare() -> Iterator[tuple[str, int]]:
    process = subprocess.Popen([sys.executable, __file__, "--bare"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


async def _serve_bare() -> None:
    async def take(request: web.Request) -> web.Response:
        ExportTraceServiceRequest.FromString(await request.read())
        return web.Response(body=b"", content_type=PROTOBUF)

    app = web.Application(client_max_size=LIMIT_BYTES)
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def _as_table(result: dict[str, Any], kinds: list[str]) -> str:
    lines = [f"{'spans':8} {'per s':>9} {'per s and core':>15} {'bare':>9} {'share':>6}   µs a span"]
    for kind in kinds:
        one = result[kind]
        parts = ", ".join(f"{name} {value}" for name, value in one["us_per_span"].items())
        lines.append(
            f"{kind:8} {one['spans_per_s']:9,} {one['spans_per_s_and_core']:15,} "
            f"{one['bare_spans_per_s_and_core']:9,} {one['share_of_bare']:6.1%}   {parts}"
        )
    return "\n".join([*lines, "read includes parse; every acknowledged span was found in the recording"])


if __name__ == "__main__":
    sys.exit(main())
