"""Prometheus metrics of the models and the device, read at each scrape."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.inference.service import Service
from superres.errors import NotReady
from superres.models.automatic_scores import all_scores
from superres.models.card import Scores


class ServiceCollector(Collector):
    """State of the service, and the scores of its models."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[Metric]:
        service = self._service
        yield GaugeMetricFamily(
            "superres_ready",
            "1 if the default model can enhance pictures at x3 now.",
            value=_is_ready(service),
        )
        yield CounterMetricFamily(
            "superres_tiles", "Tiles that the device has finished.", value=service.done_tiles
        )
        yield GaugeMetricFamily(
            "superres_queue_tiles", "Tiles that wait for the device.", value=service.queued_tiles
        )
        yield GaugeMetricFamily(
            "superres_stalled_seconds",
            "Seconds since a tile was done, while one waits. Above SUPERRES_STALLED_S, the service "
            "is not ready.",
            value=service.stalled_seconds,
        )
        yield GaugeMetricFamily(
            "superres_pictures_in_progress",
            "Pictures in progress.",
            value=service.admission.active_requests,
        )
        yield GaugeMetricFamily(
            "superres_reserved_bytes",
            "Memory reserved for the peaks of requests in progress, of SUPERRES_MAX_MEMORY_BYTES.",
            value=service.admission.reserved_bytes,
        )
        yield GaugeMetricFamily(
            "superres_max_memory_bytes",
            "The setting SUPERRES_MAX_MEMORY_BYTES.",
            value=service.admission.max_bytes,
        )
        engines = GaugeMetricFamily(
            "superres_engine_info",
            "1 for each model that is loaded: its hash, precision and device.",
            labels=["model", "hash", "precision", "device"],
        )
        for loaded in service.models.loaded:
            labels = [loaded.card.name, loaded.card.short_hash, loaded.precision, loaded.device]
            engines.add_metric(labels, 1)
        yield engines
        yield from self._quality()

    def _quality(self) -> Iterable[GaugeMetricFamily]:
        psnr = GaugeMetricFamily(
            "superres_model_psnr_db",
            "Mean PSNR of each model and of auto on each published set, and bicubic's, in dB.",
            labels=["model", "method", "dataset", "channel"],
        )
        ssim = GaugeMetricFamily(
            "superres_model_ssim",
            "Mean SSIM of each model and of auto on each published set, and bicubic's.",
            labels=["model", "method", "dataset", "channel"],
        )
        for name, family, one in all_scores(self._service.models.cards):
            methods: list[tuple[str, Scores]] = [(family, one.model), ("bicubic", one.bicubic)]
            for method, scores in methods:
                dataset = f"{one.dataset}-x{one.scale:g}"
                for channel in ("y", "rgb"):
                    labels = [name, method, dataset, channel]
                    psnr.add_metric(labels, getattr(scores, f"psnr_{channel}"))
                    ssim.add_metric(labels, getattr(scores, f"ssim_{channel}"))
        yield psnr
        yield ssim


def _is_ready(service: Service) -> bool:
    try:
        service.check_ready()
    except NotReady:
        return False
    return True
