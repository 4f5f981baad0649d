"""OTLP over gRPC: the three Export services, bytes in and bytes out, so that they share the HTTP path."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from perfnb.errors import NotReachable, NotWritable, WrongUse
from perfnb.sources.otlp import protocol
from perfnb.sources.otlp.intake import Intake
from perfnb.sources.otlp.protocol import Signal

_SERVICES: dict[str, Signal] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
}


async def start(intake: Intake, host: str, port: int) -> tuple[Any, int]:
    """Return a started server and its port; raises NotReachable."""
    options = [("grpc.max_receive_message_length", protocol.LIMIT_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    for service, signal in _SERVICES.items():
        method = grpc.unary_unary_rpc_method_handler(_export(intake, signal))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise NotReachable(f"can't listen on {host}:{port}: {error}", hint="name another port, or 0") from None
    await server.start()
    return server, bound


def _export(intake: Intake, signal: Signal) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def export(body: bytes, context: Any) -> bytes:
        try:
            return protocol.response(signal, intake.take(signal, body, is_json=False))
        except NotWritable as error:
            intake.counters["errors"] += 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        except WrongUse as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        return b""

    return export
