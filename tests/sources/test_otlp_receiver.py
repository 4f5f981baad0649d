import gzip
import http.client
import json
import os
import signal
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

from perfnb.errors import NotReachable
from perfnb.recording import Recording
from perfnb.sources.otlp import Otlp
from perfnb.sources.otlp.protocol import LIMIT_BYTES, Refused, decompressed

PROTOBUF, JSON = "application/x-protobuf", "application/json"
Answer = tuple[int, str, bytes, http.client.HTTPMessage]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Otlp]:
    path = tmp_path_factory.mktemp("otlp") / "app.perfnb"
    Recording.create(path)
    with Otlp(path) as running:
        running.path = path  # type: ignore[attr-defined]
        yield running


def post(
    receiver: Otlp,
    body: bytes,
    *,
    path: str = "/v1/traces",
    kind: str | None = JSON,
    method: str = "POST",
    **headers: str,
) -> Answer:
    connection = http.client.HTTPConnection(receiver.http_url.removeprefix("http://"), timeout=30)
    given = {name.replace("_", "-"): value for name, value in headers.items()} | (
        {"Content-Type": kind} if kind else {}
    )
    connection.request(method, path, body, given)
    answer = connection.getresponse()
    found = (answer.status, answer.headers.get_content_type(), answer.read(), answer.headers)
    connection.close()
    return found


def spans(count: int = 1, *, bad: int = 0, **attributes: str) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    now = time.time_ns()
    for number in range(count + bad):
        span = scope.spans.add(name="work", start_time_unix_nano=now, end_time_unix_nano=now + 1000)
        span.trace_id, span.span_id = os.urandom(16), os.urandom(8) if number < count else b""
        for key, value in attributes.items():
            span.attributes.add(key=key).value.string_value = value
    return request


def json_spans(count: int = 1, *, bad: int = 0) -> bytes:
    now = time.time_ns()
    made = [
        {"traceId": os.urandom(16).hex(), "spanId": os.urandom(8).hex() if number < count else "", "name": "work",
         "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1000)}
        for number in range(count + bad)
    ]  # fmt: skip
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": made}]}]}).encode()


def count(receiver: Otlp, table: str = "spans") -> int:
    with Recording.open(receiver.path) as recording:  # type: ignore[attr-defined]
        return int(recording.query(f"SELECT count(*) AS n FROM {table}")["n"][0])


def test_what_was_acknowledged_is_in_the_recording_at_once(receiver: Otlp) -> None:
    before = count(receiver)
    assert post(receiver, spans(3).SerializeToString(), kind=PROTOBUF)[:3] == (200, PROTOBUF, b"")
    assert post(receiver, json_spans(4))[:3] == (200, JSON, b"{}")
    assert count(receiver) == before + 7


@pytest.mark.parametrize("exporter", ["http", "grpc"])
def test_the_sdk_exporters_are_understood(receiver: Otlp, exporter: str) -> None:
    before = count(receiver)
    made: SpanExporter = (
        HttpExporter(endpoint=f"{receiver.http_url}/v1/traces", headers={"Authorization": "Bearer x"})
        if exporter == "http"
        else GrpcExporter(endpoint=receiver.grpc_url, insecure=True)
    )
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    with (
        provider.get_tracer("test").start_as_current_span("parent"),
        provider.get_tracer("test").start_as_current_span("child"),
    ):
        pass
    provider.shutdown()
    assert count(receiver) == before + 2


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
        ("GZIP", lambda body: gzip.compress(body[:50], mtime=0) + gzip.compress(body[50:], mtime=0)),
    ],
)
def test_bodies_may_be_compressed(receiver: Otlp, encoding: str, packed: Any) -> None:
    before = count(receiver)
    assert post(receiver, packed(json_spans(2)), Content_Encoding=encoding)[0] == 200
    assert count(receiver) == before + 2


def test_unusable_spans_are_a_partial_success_and_the_others_are_kept(receiver: Otlp) -> None:
    before = count(receiver)
    status, kind, body, _ = post(receiver, spans(2, bad=3).SerializeToString(), kind=PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(body).partial_success
    assert (status, kind, partial.rejected_spans) == (200, PROTOBUF, 3)
    assert "span_id" in partial.error_message
    status, kind, body, _ = post(receiver, json_spans(2, bad=1))
    assert (status, kind, json.loads(body)["partialSuccess"]["rejectedSpans"]) == (200, JSON, "1")
    assert count(receiver) == before + 4


@pytest.mark.parametrize(
    ("body", "kind", "headers", "expected"),
    [
        (b"{", JSON, {}, 400),
        (b"[]", JSON, {}, 400),
        (b"", JSON, {}, 400),
        (b"\xff\xff\xff", PROTOBUF, {}, 400),
        (b"not gzip", PROTOBUF, {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b"{}", mtime=0)[:-4], JSON, {"Content_Encoding": "gzip"}, 400),
        (b"{}", JSON, {"Content_Encoding": "br"}, 415),
        (b"{}", "text/plain", {}, 415),
        (b"{}", None, {}, 415),
        (gzip.compress(bytes(LIMIT_BYTES + 1)), PROTOBUF, {"Content_Encoding": "gzip"}, 413),
    ],
)
def test_what_can_not_be_taken_is_answered_with_a_status_and_never_to_be_retried(
    receiver: Otlp, body: bytes, kind: str | None, headers: dict[str, str], expected: int
) -> None:
    before = count(receiver)
    status, answered, content, given = post(receiver, body, kind=kind, **headers)
    message = json.loads(content)["message"] if kind == JSON else Status.FromString(content).message
    assert (status, answered) == (expected, JSON if kind == JSON else PROTOBUF)
    assert message
    assert "Retry-After" not in given
    assert count(receiver) == before


def test_an_empty_protobuf_body_is_an_empty_request(receiver: Otlp) -> None:
    assert post(receiver, b"", kind=PROTOBUF)[:3] == (200, PROTOBUF, b"")


def test_json_may_name_its_charset(receiver: Otlp) -> None:
    assert post(receiver, b"{}", kind="application/json; charset=utf-8")[:3] == (200, JSON, b"{}")


def test_other_methods_and_paths_are_refused(receiver: Otlp) -> None:
    status, _, _, headers = post(receiver, b"", method="GET")
    assert (status, headers["Allow"]) == (405, "POST")
    assert post(receiver, b"{}", path="/v1/profiles")[0] == 404


def test_a_body_over_the_limit_is_refused(receiver: Otlp) -> None:
    assert post(receiver, bytes(LIMIT_BYTES + 1), kind=PROTOBUF)[0] == 413


def test_a_batch_that_is_sent_again_is_not_counted_twice(receiver: Otlp) -> None:
    before = count(receiver)
    body = spans(5).SerializeToString()
    assert [post(receiver, body, kind=PROTOBUF)[0] for _ in range(3)] == [200, 200, 200]
    assert count(receiver) == before + 5


def export(receiver: Otlp, service: str, body: bytes) -> bytes:
    assert receiver.grpc_url
    with grpc.insecure_channel(receiver.grpc_url.removeprefix("http://")) as channel:
        return bytes(channel.unary_unary(f"/opentelemetry.proto.collector.{service}/Export")(body, timeout=20))


def test_grpc_answers_partial_success_and_refuses_garbage(receiver: Otlp) -> None:
    answer = export(receiver, "trace.v1.TraceService", spans(1, bad=1).SerializeToString())
    assert ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans == 1
    with pytest.raises(grpc.RpcError) as refused:
        export(receiver, "trace.v1.TraceService", b"\xff\xff")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_metrics_and_logs_come_in_over_grpc_too(receiver: Otlp) -> None:
    before = count(receiver, "samples")
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="queue.size", unit="1")
    metric.gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=7)
    assert export(receiver, "metrics.v1.MetricsService", request.SerializeToString()) == b""
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1)
    answer = export(receiver, "logs.v1.LogsService", logs.SerializeToString())
    assert not ExportLogsServiceResponse.FromString(answer).HasField("partial_success")
    assert count(receiver, "samples") == before + 1


def test_it_counts_and_tells(tmp_path: Path) -> None:
    Recording.create(tmp_path / "a.perfnb")
    with Otlp(tmp_path / "a.perfnb", grpc_port=None) as running:
        running.path = tmp_path / "a.perfnb"  # type: ignore[attr-defined]
        post(running, json_spans(2, bad=1))
        assert running.grpc_url is None
        assert running.probe().works
        assert running.http_url.startswith("http://127.0.0.1:")
    assert (running.counters["spans"], running.counters["dropped"]) == (2, 1)


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    Recording.create(tmp_path / "a.perfnb")
    running = Otlp(tmp_path / "a.perfnb", grpc_port=None)
    with running:
        for _ in range(5):
            assert post(running, json_spans(20))[0] == 200
        assert running._process
        os.kill(running._process.pid, signal.SIGKILL)
    with Recording.open(tmp_path / "a.perfnb") as recording:
        assert int(recording.query("SELECT count(*) AS n FROM spans")["n"][0]) == 100


def test_a_recording_that_can_not_be_written_is_answered_with_try_later(tmp_path: Path) -> None:
    path = tmp_path / "a.perfnb"
    Recording.create(path)
    (path / "spans").write_text("no folder")
    with Otlp(path, grpc_port=None) as running:
        status, _, body, headers = post(running, json_spans(1))
        assert (status, headers["Retry-After"]) == (503, "5")
        assert json.loads(body)["code"] == 14
        (path / "spans").unlink()
        assert post(running, json_spans(1))[0] == 200


def test_a_port_in_use_is_told_with_what_to_do(receiver: Otlp, tmp_path: Path) -> None:
    Recording.create(tmp_path / "a.perfnb")
    port = int(receiver.http_url.rpartition(":")[2])
    with pytest.raises(NotReachable) as told, Otlp(tmp_path / "a.perfnb", port=port):
        pass
    assert str(port) in told.value.message
    assert "port" in told.value.hint


def test_unpacking_stops_at_the_limit() -> None:
    assert decompressed(gzip.compress(bytes(100)), "gzip", limit_bytes=100) == bytes(100)
    with pytest.raises(Refused) as refused:
        decompressed(gzip.compress(bytes(101)), "gzip", limit_bytes=100)
    assert refused.value.status == 413
