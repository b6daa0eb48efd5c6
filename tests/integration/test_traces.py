"""Traces, as a collector on this machine receives them over OTLP."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from tests.engines import BlurEngine
from tests.pictures import encoded
from tests.serving import wait_until

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Span]]:
    spans: list[Span] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield spans
        server.shutdown()


def test_a_request_is_a_span_with_its_stages_below(serve, srcnn_card, collected: list[Span]):
    picture = encoded(np.zeros((30, 40, 3), np.uint8))
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}, traces=True) as client:
        client.post("/enhance?callback=https://example.org/s3cret", content=picture)
        client.post("/enhance", content=picture, headers={"X-Request-ID": "mine-1"})
        client.get("/healthz")
        wait_until(lambda: sum(span.name == "POST /enhance" for span in collected) == 2)
    refused, request = [span for span in collected if not span.parent_span_id]
    assert "REDACTED" in str(refused)
    assert "s3cret" not in str(collected)
    assert request.name == "POST /enhance"
    stages = {span.name: span for span in collected if span.parent_span_id == request.span_id}
    assert set(stages) == {"decode", "queue", "infer", "bicubic", "encode"}
    for span in stages.values():
        assert span.trace_id == request.trace_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= request.end_time_unix_nano
        assert {one.key: one.value.string_value for one in span.attributes}[
            "request_id"
        ] == "mine-1"
    assert stages["decode"].end_time_unix_nano <= stages["encode"].start_time_unix_nano


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_without_the_setting_nothing_of_the_extra_is_imported():
    heavy = ("opentelemetry.sdk", "opentelemetry.exporter")
    ran = run(
        "import sys, app.main; from app.traces import make_provider; make_provider(False);"
        f"print([name for name in sys.modules if name.startswith({heavy})])"
    )
    assert ran.stdout.strip() == "[]"


def test_without_the_extra_the_setting_is_one_clear_error():
    ran = run(
        "import sys; sys.modules['opentelemetry.sdk'] = None;"
        "from app.traces import make_provider; make_provider(True)"
    )
    assert "BadRequest: SUPERRES_TRACES=true needs the extra otel" in ran.stderr
