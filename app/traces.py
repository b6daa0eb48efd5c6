"""OpenTelemetry: FastAPI makes a span of each request, and the stages below it are ours.

The SDK is the extra ``otel``, and imported only where the setting asks for traces. Without it, what
FastAPI brings of OpenTelemetry makes spans that go nowhere, at no cost.
"""

import os
from collections.abc import MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from superres.errors import BadRequest

PROBES = {"/healthz", "/readyz", "/metrics"}
"""They come every few seconds, and say nothing while all is well."""


def make_provider(enabled: bool) -> TracerProvider:
    """Where spans go: over OTLP to where the standard ``OTEL_*`` variables say, or nowhere.

    Raises:
        BadRequest: the extra is not installed.
    """
    if not enabled:
        return NoOpTracerProvider()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise BadRequest(
            f"SUPERRES_TRACES=true needs the extra otel ({error}): "
            "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from error

    class WithoutCallbacks(SpanProcessor):
        """Takes the query out of a span if it has a callback, whose URL may have a secret."""

        def on_start(self, span: Span, parent_context: object = None) -> None:
            if "callback=" in str((span.attributes or {}).get("url.query", "")):
                span.set_attribute("url.query", "REDACTED")

    os.environ.setdefault("OTEL_SERVICE_NAME", "superres")
    provider = TracerProvider()
    provider.add_span_processor(WithoutCallbacks())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def of_requests(provider: TracerProvider) -> TelemetryConfig:
    """What FastAPI is to trace: requests but for probes; its metrics and logs would be others."""
    return {
        "tracer_provider": provider,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
        "exclude": _is_probe,
    }


def _is_probe(scope: MutableMapping[str, Any]) -> bool:
    return scope.get("path") in PROBES
