"""What the LLM proxy costs: perfnb's proxy with recording on against a bare aiohttp pass-through that parses nothing.

Both stand before the same simulated provider and are measured in short blocks, in turn, in one run: requests per second
of a closed loop, latency of one request at a time, time to first token of a stream. perfnb's proxy takes part three
times: as it is ("perfnb": the policy engine is there and off), without the engine ("no engine"), and with policies on
(a cap, a deadline, a limit and retries: "policies"). Where litellm is installed its proxy takes part too. Everything runs on loopback; provider, load and each proxy are processes of their own.

    python bench/proxy.py [--rounds N] [--format json]
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

BLOCK_S = 1.0
POLICIES = {
    "output_cap": {"max_tokens": 150},
    "concurrency": {"limit": 100},
    "timeout": {"total_s": 60},
    "retry": {"attempts": 3},
}
CONNECTIONS = 8
STREAM_EVENTS = 20
EVENT_EVERY_S = 0.005
FIRST_TOKEN_S = 0.02
LITELLM_START_S = 60

SENTENCE = "the pool keeps open connections and lends them to whoever asks for one while an index finds rows fast"


def prompt(number: int) -> bytes:
    """A request of a small RAG app: system prompt, some history, three passages; the question differs each time."""
    rng = random.Random(number)
    passages = "\n\n".join(f"[{i}] " + " ".join(rng.choices(SENTENCE.split(), k=120)) for i in (1, 2, 3))
    messages = [
        {"role": "system", "content": "You answer from the passages and say so when they do not tell. " * 6},
        {"role": "user", "content": "What is a pool?"},
        {"role": "assistant", "content": "It keeps connections open [1]. " * 8},
        {"role": "user", "content": f"{passages}\n\nQuestion: {number}"},
    ]
    return json.dumps({"model": "gpt-4o-mini", "messages": messages, "max_tokens": 200}).encode()


ANSWER = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "It keeps connections. " * 30},
                     "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 700, "completion_tokens": 120, "total_tokens": 820,
                  "prompt_tokens_details": {"cached_tokens": 0}},
    }
).encode()  # fmt: skip


def event(delta: dict[str, str]) -> bytes:
    chunk = {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta}],
    }
    data = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


class Upstream(asyncio.Protocol):
    """The simulated provider: the least work that is still HTTP, so that it limits nobody."""

    def connection_made(self, transport: Any) -> None:  # noqa: D102
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:"), 0)
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        if b'"stream": true' in rest or b'"stream":true' in rest:
            self.task = asyncio.ensure_future(self.stream())
        else:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
            self.transport.write(head + ANSWER)

    async def stream(self) -> None:
        """Send an answer event by event."""
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self.transport.write(event({"role": "assistant", "content": ""}))
        await asyncio.sleep(FIRST_TOKEN_S)
        for _ in range(STREAM_EVENTS):
            self.transport.write(event({"content": "word "}))
            await asyncio.sleep(EVENT_EVERY_S)
        self.transport.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


async def be_upstream() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


async def be_bare(upstream: str) -> None:
    """The peer: what a careful person writes with aiohttp to pass requests through, and nothing more."""
    import aiohttp
    from aiohttp import web

    hops = ("Host", "Connection", "Transfer-Encoding")
    connector = aiohttp.TCPConnector(limit=0)
    session = aiohttp.ClientSession(
        connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
    )

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        headers = request.headers.copy()
        for name in hops:
            headers.popall(name, None)
        body = await request.read()
        async with session.request(
            request.method, upstream + request.path_qs, headers=headers, data=body, allow_redirects=False
        ) as answer:
            headers = answer.headers.copy()
            for name in hops:
                headers.popall(name, None)
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response

    server = await asyncio.get_running_loop().create_server(web.Server(handle, access_log=None), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


async def ask(reader: Any, writer: Any, body: bytes) -> tuple[float, float]:
    """Send one request; return seconds to the first byte that holds content and to the last byte."""
    start = time.perf_counter()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    data, first = b"", 0.0
    while True:
        data += await reader.read(65536)
        now = time.perf_counter()
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            continue
        if b"chunked" in head.lower():
            if not first and b"word" in rest:
                first = now - start
            if rest.endswith(b"0\r\n\r\n"):
                return first, now - start
        elif len(rest) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return now - start, now - start


async def be_load() -> None:
    """Closed loops on order: a line of JSON in, a line of JSON out."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        bodies = [prompt(order["seed"] + number) for number in range(200)]
        if order["stream"]:
            bodies = [body[:-1] + b', "stream": true}' for body in bodies]
        users = [bodies[number:] for number in range(order["users"])]
        connections = await asyncio.gather(*(connected(order["port"], bodies) for bodies in users))
        start = time.perf_counter()
        end = start + order["seconds"]
        loops = [closed_loop(*each, bodies, end) for each, bodies in zip(connections, users, strict=True)]
        times = [each for times in await asyncio.gather(*loops) for each in times]
        seconds = time.perf_counter() - start
        answer = {"requests": len(times), "per_s": len(times) / seconds}
        for index, name in enumerate(("first_ms", "total_ms")):
            answer[name] = statistics.median(each[index] for each in times) * 1e3
        print(json.dumps(answer), flush=True)


async def connected(port: int, bodies: list[bytes]) -> tuple[Any, Any]:
    """Open a connection and send a first request that is not measured."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await ask(reader, writer, bodies[0])
    return reader, writer


async def closed_loop(reader: Any, writer: Any, bodies: list[bytes], end: float) -> list[tuple[float, float]]:
    """One user: ask, wait for the whole answer, ask again."""
    times: list[tuple[float, float]] = []
    while not times or time.perf_counter() < end:
        times.append(await ask(reader, writer, bodies[len(times) % len(bodies)]))
    writer.close()
    return times


@contextlib.contextmanager
def role(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run this file in another process in the part ``name``."""
    command = [sys.executable, __file__, "--role", name, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


@contextlib.contextmanager
def litellm_proxy(command: str | None, upstream: int, folder: Path) -> Iterator[int | None]:
    """LiteLLM's proxy where it is installed and starts."""
    if not command:
        yield None
        return
    config = folder / "litellm.yaml"
    model = {"model": "openai/gpt-4o-mini", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "sk-x"}
    config.write_text(json.dumps({"model_list": [{"model_name": "gpt-4o-mini", "litellm_params": model}]}))
    port = free_port()
    arguments = [command, "--config", str(config), "--port", str(port), "--host", "127.0.0.1", "--telemetry", "False"]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    environment["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # on loopback, for a minute
    with (folder / "litellm.log").open("w") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True, env=environment)
    try:
        is_there = answers(f"http://127.0.0.1:{port}/health/liveliness")
        if not is_there:
            print((folder / "litellm.log").read_text()[-2000:], file=sys.stderr)
        yield port if is_there else None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answers(url: str) -> bool:
    end = time.monotonic() + LITELLM_START_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=2).close()
            return True
        time.sleep(0.5)
    return False


def measure(rounds: int, litellm: str | None) -> dict[str, Any]:
    """Run all blocks in random order within each round and return medians over rounds."""
    from perfnb.recording import Recording
    from perfnb.sources.llm_proxy import LlmProxy
    from perfnb.sources.traffic.control import ProxyControl

    folder = Path(tempfile.mkdtemp(prefix="perfnb-bench-"))
    recordings = {arm: Recording.create(folder / f"{arm}.perfnb") for arm in ("perfnb", "no engine", "policies")}
    recording = recordings["perfnb"]
    rng = random.Random(1)
    with (
        role("upstream") as upstream,
        role("load") as load,
        contextlib.ExitStack() as stack,
    ):
        port = port_of(upstream)
        base = f"http://127.0.0.1:{port}"
        bare = stack.enter_context(role("bare", base))
        proxies = {
            arm: stack.enter_context(LlmProxy(each.path, f"{base}/v1", has_control=arm != "no engine"))
            for arm, each in recordings.items()
        }
        ProxyControl.of(recordings["policies"].path).set({"base": POLICIES})
        proxy = proxies["perfnb"]
        ports = {"direct": port, "bare": port_of(bare)} | {arm: each.ready["port"] for arm, each in proxies.items()}
        pids = {"bare": bare.pid, "recorder": proxy.ready["recorder"]}
        pids |= {arm: each.ready["pid"] for arm, each in proxies.items()}
        other = stack.enter_context(litellm_proxy(litellm, port, folder))
        if other:
            ports["litellm"] = other

        def block(arm: str, users: int, *, stream: bool = False) -> dict[str, float]:
            order = {
                "port": ports[arm],
                "users": users,
                "stream": stream,
                "seconds": BLOCK_S,
                "seed": rng.randrange(10**6),
            }
            assert load.stdin is not None
            assert load.stdout is not None
            load.stdin.write(json.dumps(order) + "\n")
            load.stdin.flush()
            answer: dict[str, float] = json.loads(load.stdout.readline())
            return answer

        results: dict[str, list[dict[str, float]]] = {arm: [] for arm in ports}
        for arm in ports:
            block(arm, 2)
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for arm in rng.sample(list(ports), len(ports)):
                alone, stream = block(arm, 1), block(arm, 4, stream=True)
                before = cpu_s(pids)
                busy = block(arm, CONNECTIONS)
                behind_s = until_recorded(proxies.get(arm, proxy))
                after = cpu_s(pids)
                used = {name: (after[name] - before[name]) / busy["requests"] * 1e3 for name in pids}
                row = {"per_s": busy["per_s"], "alone_ms": alone["total_ms"], "first_token_ms": stream["first_ms"]}
                results[arm].append(
                    row | {"cpu_ms": used.get(arm, 0.0), "recorder_cpu_ms": used["recorder"], "behind_s": behind_s}
                )
    counters = dict(proxy.counters)
    recorded = int(recording.query("SELECT count(*) AS n FROM llm_calls").n[0])
    for each in recordings.values():
        each.close()
    shutil.rmtree(folder)
    return summary(results, counters, recorded)


def until_recorded(proxy: Any) -> float:
    """Wait until the recorder wrote all it was handed, so that the next block has the machine for itself."""
    start = time.monotonic()
    time.sleep(0.6)  # the counters are told twice a second
    while proxy.counters["rows"] < proxy.counters["exchanges"] - proxy.counters["dropped"]:
        time.sleep(0.05)
    return time.monotonic() - start


def cpu_s(pids: dict[str, int]) -> dict[str, float]:
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: each.user + each.system for name, each in times.items()}


def summary(results: dict[str, list[dict[str, float]]], counters: dict[str, int], recorded: int) -> dict[str, Any]:
    arms = {
        arm: {name: statistics.median(row[name] for row in rows) for name in rows[0]} for arm, rows in results.items()
    }
    pairs = list(zip(results["perfnb"], results["bare"], strict=True))
    compared = {
        "share_of_bare_requests_per_s": statistics.median(a["per_s"] / b["per_s"] for a, b in pairs),
        "added_median_latency_ms": statistics.median(a["alone_ms"] - b["alone_ms"] for a, b in pairs),
        "added_first_token_ms": statistics.median(a["first_token_ms"] - b["first_token_ms"] for a, b in pairs),
    }
    for name, arm in (("engine_off", "perfnb"), ("policies_on", "policies")):
        pairs = list(zip(results[arm], results["no engine"], strict=True))
        compared[f"{name}_share_of_requests_per_s"] = statistics.median(a["per_s"] / b["per_s"] for a, b in pairs)
        compared[f"{name}_added_latency_ms"] = statistics.median(a["alone_ms"] - b["alone_ms"] for a, b in pairs)
    if "litellm" in results:
        pairs = list(zip(results["perfnb"], results["litellm"], strict=True))
        compared["times_litellm_requests_per_s"] = statistics.median(a["per_s"] / b["per_s"] for a, b in pairs)
    seen = {"exchanges": counters["exchanges"], "recorded": recorded, "dropped": counters["dropped"]}
    return {"schema": 1, "rounds": len(results["bare"]), "arms": arms, "compared": compared, "recording": seen}


def table(result: dict[str, Any]) -> str:
    lines = [f"{'':10}{'requests/s':>14}{'latency ms':>14}{'first token ms':>17}{'CPU ms/request':>17}"]
    for arm, row in result["arms"].items():
        timed = f"{arm:10}{row['per_s']:>14.0f}{row['alone_ms']:>14.2f}{row['first_token_ms']:>17.2f}"
        lines.append(timed + (f"{row['cpu_ms']:>17.3f}" if row["cpu_ms"] else ""))
    lines.append(f"{'recorder':10}{'':45}{result['arms']['perfnb']['recorder_cpu_ms']:>17.3f}")
    compared = result["compared"]
    targets = {
        "share_of_bare_requests_per_s": "at least 0.75",
        "added_median_latency_ms": "at most 0.5",
        "added_first_token_ms": "at most 1",
        "engine_off_share_of_requests_per_s": "1, as far as can be measured",
        "engine_off_added_latency_ms": "0, as far as can be measured",
        "policies_on_share_of_requests_per_s": "at least 0.5",
        "policies_on_added_latency_ms": "at most 1",
        "times_litellm_requests_per_s": "at least 20",
    }
    lines += ["", *(f"{name:36}{value:8.3f}   wanted: {targets[name]}" for name, value in compared.items())]
    behind_s = result["arms"]["perfnb"]["behind_s"]
    lines.append(f"after a block of {BLOCK_S:.0f} s at full speed the recorder had written all within {behind_s:.1f} s")
    recording = result["recording"]
    lines.append(
        f"recorded {recording['recorded']} of {recording['exchanges']} requests, {recording['dropped']} dropped"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--litellm", default=shutil.which("litellm"), help="the litellm command, where it is elsewhere")
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument("--role", choices=["upstream", "bare", "load"], help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        import uvloop

        uvloop.run({"upstream": be_upstream, "bare": be_bare, "load": be_load}[given.role](*given.arguments))
        return
    result = measure(given.rounds, given.litellm)
    print(json.dumps(result, indent=2) if given.format == "json" else table(result))


if __name__ == "__main__":
    main()
