"""Prometheus metrics, request ids, and the middleware that keeps both."""

import logging
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opentelemetry.trace import TracerProvider
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, get_contextvars

from app.inference.models import Service
from app.store import Store
from app.traces import PROBES
from superres.errors import NotReady, StorageError
from superres.metrics import Scores

logger = logging.getLogger("superres")

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_DECIBELS = (-2, -1, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)


class Telemetry:
    """One registry of metrics an app, so that two apps in a process do not share any."""

    def __init__(self, service: Service, store: Store, traces: TracerProvider) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "superres_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "superres_request_seconds",
            "Time from the request's head to the answer's last byte.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "superres_stage_seconds",
            "Time of each stage of POST /enhance: decode, proof, queue, infer, bicubic, encode.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.pixels = Counter(
            "superres_pixels",
            "Pixels of the pictures that POST /enhance took (input) and made (output).",
            ["direction"],
            registry=self.registry,
        )
        self.proof_gain = Histogram(
            "superres_proof_gain_db",
            "Estimated gain over bicubic on the callers' pictures, dB; see proof=true.",
            ["model"],
            buckets=_DECIBELS,
            registry=self.registry,
        )
        self.registry.register(_ServiceCollector(service))
        self.registry.register(_StoreCollector(store))
        ProcessCollector(registry=self.registry)
        self.tracer = traces.get_tracer("superres")


class Stages:
    """Times the stages of one request, in order, in seconds."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self.current = ""
        """What is being done."""
        self.seconds: dict[str, float] = {}
        """Of each stage that is over."""

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time what is done inside."""
        self.current = stage
        started = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - started)

    def add(self, stage: str, seconds: float) -> None:
        """Add a stage that was timed elsewhere, up to now."""
        ended = time.time_ns()
        span = self._telemetry.tracer.start_span(stage, start_time=ended - round(seconds * 1e9))
        span.set_attribute("request_id", get_contextvars().get("request_id", ""))
        span.end(ended)
        self.seconds[stage] = seconds
        self._telemetry.stage_seconds.labels(stage).observe(seconds)

    def header(self) -> str:
        """The value of Server-Timing, in milliseconds."""
        return ", ".join(f"{stage};dur={1000 * s:.1f}" for stage, s in self.seconds.items())


class _ServiceCollector(Collector):
    """What is read off the service at each scrape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        service = self._service
        yield GaugeMetricFamily(
            "superres_ready",
            "1 if pictures can be enhanced now, by every model.",
            value=_is_ready(service),
        )
        yield CounterMetricFamily(
            "superres_tiles", "Tiles that the device has done.", value=service.done_tiles
        )
        yield GaugeMetricFamily(
            "superres_queue_tiles", "Tiles that wait for the device.", value=service.queued_tiles
        )
        yield GaugeMetricFamily(
            "superres_stalled_seconds",
            "How long the oldest tile has not moved.",
            value=service.stalled_seconds,
        )
        yield GaugeMetricFamily(
            "superres_pictures_in_progress", "Pictures being worked on.", value=service.requests
        )
        yield GaugeMetricFamily(
            "superres_reserved_bytes",
            "Memory that requests hold, by what they may peak at.",
            value=service.admission.reserved_bytes,
        )
        yield GaugeMetricFamily(
            "superres_max_memory_bytes",
            "Memory that requests may hold together.",
            value=service.admission.max_bytes,
        )
        engines = GaugeMetricFamily(
            "superres_engine_info",
            "1 for each model that is served: its hash, precision and device.",
            labels=["model", "hash", "precision", "device"],
        )
        for loaded in service.loaded:
            labels = [loaded.card.name, loaded.card.short_hash, loaded.precision, loaded.device]
            engines.add_metric(labels, 1)
        yield engines
        yield from self._quality()

    def _quality(self) -> Iterable[GaugeMetricFamily]:
        psnr = GaugeMetricFamily(
            "superres_model_psnr_db",
            "Mean PSNR on a published set, from the model's card; bicubic's beside it.",
            labels=["model", "method", "dataset", "channel"],
        )
        ssim = GaugeMetricFamily(
            "superres_model_ssim",
            "Mean SSIM on a published set, from the model's card; bicubic's beside it.",
            labels=["model", "method", "dataset", "channel"],
        )
        for card in self._service.cards:
            for one in card.scores:
                methods: list[tuple[str, Scores]] = [
                    (card.family, one.model),
                    ("bicubic", one.bicubic),
                ]
                for method, scores in methods:
                    dataset = f"{one.dataset}-x{one.scale:g}"
                    for channel in ("y", "rgb"):
                        labels = [card.name, method, dataset, channel]
                        psnr.add_metric(labels, getattr(scores, f"psnr_{channel}"))
                        ssim.add_metric(labels, getattr(scores, f"ssim_{channel}"))
        yield psnr
        yield ssim


class _StoreCollector(Collector):
    """What is read off the jobs' database at each scrape."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("superres_jobs", "Jobs that are kept.", labels=["state"])
        stored = GaugeMetricFamily(
            "superres_jobs_stored_bytes", "Uploads and results of jobs, on the disk."
        )
        try:
            counts, nbytes = self._store.counts(), self._store.stored_bytes()
        except StorageError as error:  # the other metrics are wanted all the more
            logger.warning("no metrics of the jobs: %s", error)
        else:
            for state, count in counts.items():
                jobs.add_metric([state], count)
            stored.add_metric([], nbytes)
        yield jobs
        yield stored


class TelemetryMiddleware:
    """Gives each request an id (the caller's own is kept), times it and counts it."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        # A request has a task of its own, and so have they.
        bind_contextvars(request_id=request_id, method=scope["method"])
        started = time.perf_counter()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            # Routes are labels, paths are not: callers could make any number of those.
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.perf_counter() - started
            self._telemetry.requests.labels(method, route, status).inc()
            self._telemetry.request_seconds.labels(method, route).observe(seconds)
            about = {"route": route, "status": status, "seconds": round(seconds, 4)}
            quiet = route in PROBES and status < 400
            logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra=about)


def _is_ready(service: Service) -> bool:
    try:
        service.check_ready()
    except NotReady:
        return False
    return True


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return uuid.uuid4().hex
