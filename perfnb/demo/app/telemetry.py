"""Standard OpenTelemetry, on when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set and off otherwise."""

import os
from collections.abc import Callable
from typing import Any

from opentelemetry import trace

tracer = trace.get_tracer("supportdesk")


def set_up(app: Any) -> Callable[[], None]:
    """Instrument the app, its HTTP clients, its database and its model client; returns what ends it."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return lambda: None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
    from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", "supportdesk")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    FastAPIInstrumentor.instrument_app(app, excluded_urls="metrics,health", exclude_spans=["receive", "send"])
    OpenAIInstrumentor().instrument()
    HTTPXClientInstrumentor().instrument()
    HTTPX2ClientInstrumentor().instrument()  # what openai 3 speaks through
    PsycopgInstrumentor().instrument()
    return provider.shutdown
