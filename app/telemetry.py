"""Prometheus metrics that are counted, and the times of the stages of a request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from structlog.contextvars import get_contextvars

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_DECIBELS = (-2, -1, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)


class Telemetry:
    """The metrics of one app, in a registry of its own: two apps in a process share none."""

    def __init__(self, traces: TracerProvider) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "superres_requests",
            "Requests answered, by method, route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "superres_request_seconds",
            "Seconds from the head of a request to the last byte of its response.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "superres_stage_seconds",
            "Seconds of each stage of POST /enhance: decode, proof, queue, infer, bicubic, encode.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.pixels = Counter(
            "superres_pixels",
            "Pixels of the input and output pictures of POST /enhance.",
            ["direction"],
            registry=self.registry,
        )
        self.proof_gain = Histogram(
            "superres_proof_gain_db",
            "Estimated gain over bicubic on callers' pictures, in dB (proof=true, fallback=auto).",
            ["model"],
            buckets=_DECIBELS,
            registry=self.registry,
        )
        self.callbacks = Counter(
            "superres_callbacks",
            "Requests that report the end of a job: delivered, failed (and repeated), given_up.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("delivered", "failed", "given_up"):
            self.callbacks.labels(outcome)  # 0 until there is one
        ProcessCollector(registry=self.registry)
        self.tracer = traces.get_tracer("superres")


class Stages:
    """Times the stages of one request, in order, in seconds."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self.current = ""
        """Name of the present stage."""
        self.seconds: dict[str, float] = {}
        """Seconds of each stage that has ended."""

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time the block as a stage."""
        self.current = stage
        started = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - started)

    def add(self, stage: str, seconds: float) -> None:
        """Add a stage that was timed elsewhere and ends now."""
        ended = time.time_ns()
        span = self._telemetry.tracer.start_span(stage, start_time=ended - round(seconds * 1e9))
        span.set_attribute("request_id", get_contextvars().get("request_id", ""))
        span.end(ended)
        self.seconds[stage] = seconds
        self._telemetry.stage_seconds.labels(stage).observe(seconds)
