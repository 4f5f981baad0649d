import json
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from sources.otlp_spans import START, span

from perfnb.prompts.digest import Digester
from perfnb.sources.otlp.decode import logs_from_protobuf, metrics_from_protobuf
from perfnb.sources.otlp.intake import Intake
from perfnb.sources.otlp.logs import Waiting, records
from perfnb.sources.otlp.metrics import samples
from perfnb.sources.otlp.spans import Group, Traces

Rows = dict[str, list[dict[str, Any]]]


def request() -> ExportMetricsServiceRequest:
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "api"
    metrics = resource.scope_metrics.add().metrics
    gauge = metrics.add(name="queue.size", unit="{item}").gauge.data_points.add(time_unix_nano=START, as_double=2.5)
    gauge.attributes.add(key="queue").value.string_value = "mail"
    total = metrics.add(name="requests", unit="1").sum
    total.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    total.data_points.add(time_unix_nano=START, as_int=0)
    metrics.add(name="duration", unit="s").histogram.data_points.add(
        time_unix_nano=START, count=6, sum=3.5, min=0.1, explicit_bounds=[0.5, 1], bucket_counts=[3, 2, 1]
    )
    metrics.add(name="size").exponential_histogram.data_points.add(time_unix_nano=START, count=2, sum=9)
    summary = metrics.add(name="wait", unit="ms").summary.data_points.add(time_unix_nano=START, count=2, sum=9)
    summary.quantile_values.add(quantile=0.5, value=4)
    return made


EXPECTED = [
    ("queue.size", 2.5, "{item}", {"queue": "mail"}),
    ("requests", 0.0, "1", {"otel.temporality": "cumulative"}),
    ("duration_count", 6.0, "count", {}),
    ("duration_sum", 3.5, "s", {}),
    ("duration_min", 0.1, "s", {}),
    ("duration_bucket", 3.0, "count", {"le": "0.5"}),
    ("duration_bucket", 5.0, "count", {"le": "1.0"}),
    ("duration_bucket", 6.0, "count", {"le": "+Inf"}),
    ("size_count", 2.0, "count", {}),
    ("size_sum", 9.0, "", {}),
    ("wait_count", 2.0, "count", {}),
    ("wait_sum", 9.0, "ms", {}),
    ("wait", 4.0, "ms", {"quantile": "0.5"}),
]


def test_every_kind_of_metric_becomes_samples() -> None:
    found = samples(metrics_from_protobuf(request().SerializeToString()))
    assert [(r["metric"], r["value"], r["unit"], r["attributes"]) for r in found.rows] == EXPECTED
    assert {(r["entity"], r["source"], r["time"]) for r in found.rows} == {("api", "otlp", START)}


@pytest.mark.parametrize("enums", [True, False])
def test_metrics_in_json_become_the_same_samples(enums: bool) -> None:
    document = json.loads(json_format.MessageToJson(request(), use_integers_for_enums=enums))
    assert samples(document).rows == samples(metrics_from_protobuf(request().SerializeToString())).rows


def test_points_without_a_time_or_a_value_are_rejected_and_ended_series_left_out() -> None:
    points = [
        {"asInt": "1"},
        {"timeUnixNano": START},
        {"timeUnixNano": START, "flags": 1},
        {"timeUnixNano": START, "asDouble": "much"},
        {"timeUnixNano": START, "asInt": 3},
    ]
    metric = {"name": "m", "gauge": {"dataPoints": points}}
    found = samples({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]})
    assert (len(found.rows), found.points, found.rejected) == (1, 5, 3)
    assert "'m'" in found.reason


MESSAGES = [{"role": "user", "parts": [{"type": "text", "content": "where is it"}]}]


def log_record(**fields: Any) -> dict[str, Any]:
    value = {"stringValue": json.dumps(MESSAGES)}
    return {
        "timeUnixNano": str(START),
        "traceId": "a" * 32,
        "spanId": "b" * 16,
        "eventName": "gen_ai.client.inference.operation.details",
        "attributes": [{"key": "gen_ai.input.messages", "value": value}],
    } | fields


def logs(*found: dict[str, Any]) -> dict[str, Any]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": list(found)}]}]}


def intake() -> tuple[Intake, Rows]:
    written: Rows = {}

    def emit(table: str, rows: Any) -> int:
        written.setdefault(table, []).extend(rows)
        return len(rows)

    return Intake(emit, Digester(b"k" * 32)), written


def chat() -> Traces:
    return Traces([Group({}, "test", [span({"gen_ai.operation.name": "chat"})])])


def test_messages_in_log_records_reach_the_call_they_belong_to() -> None:
    taken, written = intake()
    legacy = log_record(
        eventName="",
        attributes=[{"key": "event.name", "value": {"stringValue": "gen_ai.choice"}}],
        body={"kvlistValue": {"values": [{"key": "message", "value": {"stringValue": "it left"}}]}},
    )
    assert taken.add_logs(logs(log_record(), legacy, {"body": {"stringValue": "other"}})).accepted == 3
    taken.add_traces(chat())
    (call,) = written["llm_calls"]
    assert [message["role"] for message in call["messages"]] == ["user"]
    assert call["response_digest"]
    assert taken.counters["messages_from_logs"] == 2
    assert "where is it" not in json.dumps(written)
    assert "it left" not in json.dumps(written)


def test_log_records_read_alike_from_protobuf() -> None:
    made = ExportLogsServiceRequest()
    record = made.resource_logs.add().scope_logs.add().log_records.add(
        time_unix_nano=START, trace_id=b"\xaa" * 16, span_id=b"\xbb" * 8, event_name="gen_ai.client.inference.operation.details"
    )  # fmt: skip
    record.attributes.add(key="gen_ai.input.messages").value.string_value = json.dumps(MESSAGES)
    taken, written = intake()
    taken.add_logs(logs_from_protobuf(made.SerializeToString()))
    taken.add_traces(chat())
    assert written["llm_calls"][0]["messages"]


def test_waiting_messages_take_limited_memory() -> None:
    waiting = Waiting(limit_bytes=1000)
    for number in range(50):
        assert waiting.add(log_record(spanId=f"{number + 1:016x}"))
    assert 0 < len(waiting) < 15
    newest = Group({}, "", [span({}, span_id=f"{50:016x}")])
    assert waiting.give_to([newest]) == 1
    assert list(records({"resourceLogs": 5})) == []
