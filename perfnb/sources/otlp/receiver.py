"""The OTLP receiver: OTLP/HTTP with protobuf and JSON, and gRPC where grpcio is installed, in a process of its own.

What was answered with success is in the recording and survives a kill -9 of the receiver.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiohttp import web

from perfnb.errors import NotReachable, NotWritable, WrongUse
from perfnb.prompts.digest import Digester
from perfnb.recording import Recording
from perfnb.sources.base import Readiness
from perfnb.sources.otlp import protocol
from perfnb.sources.otlp.intake import Intake
from perfnb.sources.otlp.protocol import JSON, PROTOBUF, Refused, Signal
from perfnb.sources.worker import REPORT_EVERY_S, WorkerSource, serve

HOW_TO_GET_GRPC = "pip install 'perfnb[otlp-grpc]'"
RETRY_AFTER_S = 5

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")


class Otlp(WorkerSource):
    """Receives OpenTelemetry into ``recording``; port 0 takes a free one, ``grpc_port=None`` leaves gRPC out."""

    def __init__(self, recording: Path, *, host: str = "127.0.0.1", port: int = 0, grpc_port: int | None = 0) -> None:
        settings = {"host": host, "port": port, "grpc_port": grpc_port}
        super().__init__("otlp", "perfnb.sources.otlp.receiver", recording, settings)

    def probe(self) -> Readiness:
        """Tell that it works over HTTP, and whether over gRPC too."""
        if has_grpc():
            return Readiness(self.name, True, "OTLP over HTTP and gRPC")
        return Readiness(self.name, True, "OTLP over HTTP", f"gRPC needs grpcio: {HOW_TO_GET_GRPC}")

    @property
    def http_url(self) -> str:
        """Return the base address for OTEL_EXPORTER_OTLP_ENDPOINT with the protocol http/protobuf or http/json."""
        return str(self.ready["http_url"])

    @property
    def grpc_url(self) -> str | None:
        """Return the address for the protocol grpc; None without it."""
        return self.ready.get("grpc_url")


def has_grpc() -> bool:
    """Tell whether grpcio is installed."""
    return find_spec("grpc") is not None


def application(intake: Intake) -> web.Application:
    """Return the web application that takes OTLP/HTTP."""
    app = web.Application(client_max_size=protocol.LIMIT_BYTES)
    for signal in SIGNALS:
        app.router.add_route("*", f"/v1/{signal}", _handler(intake, signal))
    return app


def _handler(intake: Intake, signal: Signal) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        content_type = request.content_type.lower()
        try:
            is_json = _is_json(request)
            body = protocol.decompressed(await request.read(), request.headers.get("Content-Encoding", ""))
            outcome = intake.take(signal, body, is_json=is_json)
        except web.HTTPRequestEntityTooLarge:
            return _error(content_type, Refused(413, f"the body is larger than {protocol.LIMIT_BYTES} bytes"))
        except Refused as error:
            return _error(content_type, error)
        except WrongUse as error:
            return _error(content_type, Refused(400, error.message))
        except NotWritable as error:
            intake.counters["errors"] += 1
            return _error(content_type, Refused(503, error.message))
        body = protocol.response(signal, outcome, JSON if is_json else PROTOBUF)
        return web.Response(body=body, content_type=JSON if is_json else PROTOBUF)

    return handle


def _is_json(request: web.Request) -> bool:
    if request.method != "POST":
        raise Refused(405, f"method {request.method} is not supported; use POST")
    if request.content_type.lower() not in (PROTOBUF, JSON):
        raise Refused(415, f"content type {request.content_type!r} is not supported; use {PROTOBUF} or {JSON}")
    return request.content_type.lower() == JSON


def _error(content_type: str, error: Refused) -> web.Response:
    """Return a google.rpc.Status; only 503 may be retried, so only it says when."""
    kind = JSON if content_type == JSON else PROTOBUF
    code = protocol.UNAVAILABLE if error.status == 503 else protocol.INVALID_ARGUMENT
    headers = {"Retry-After": str(RETRY_AFTER_S)} if error.status == 503 else {}
    headers |= {"Allow": "POST"} if error.status == 405 else {}
    body = protocol.status(code, error.message, kind)
    return web.Response(status=error.status, body=body, content_type=kind, headers=headers)


async def main(settings: Mapping[str, Any], report: Callable[[dict[str, Any]], None], stop: asyncio.Event) -> None:
    """Receive until ``stop`` is set, then seal what was written."""
    recording = Recording.open(settings["recording"])
    async with AsyncExitStack() as stack:
        writer = stack.enter_context(recording.writer())
        intake = Intake(writer.write, Digester(recording.key, recording.content), recording.content)
        ready = {"http_url": await _start_http(intake, settings, stack)}
        ready |= await _start_grpc(intake, settings, stack)
        report({"ready": ready})
        while not stop.is_set():
            report({"counters": dict(intake.counters)})
            await _either(stop, REPORT_EVERY_S)
    report({"counters": dict(intake.counters)})


async def _either(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def _start_http(intake: Intake, settings: Mapping[str, Any], stack: AsyncExitStack) -> str:
    # Unpacking is done here, with a limit and with an OTLP answer when it fails.
    runner = web.AppRunner(application(intake), access_log=None, auto_decompress=False, shutdown_timeout=2)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, port = settings["host"], settings["port"]
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        hint = "name another port, or 0 for a free one"
        raise NotReachable(f"can't listen on {host}:{port}: {error.strerror or error}", hint=hint) from None
    return f"http://{host}:{runner.addresses[0][1]}"


async def _start_grpc(intake: Intake, settings: Mapping[str, Any], stack: AsyncExitStack) -> dict[str, str]:
    if settings["grpc_port"] is None:
        return {}
    if not has_grpc():
        return {"grpc_needs": HOW_TO_GET_GRPC}
    from perfnb.sources.otlp.grpc import start

    server, port = await start(intake, settings["host"], settings["grpc_port"])
    stack.push_async_callback(server.stop, 1)
    return {"grpc_url": f"http://{settings['host']}:{port}"}


if __name__ == "__main__":
    serve(main)
