"""Prometheus metrics of the jobs, read at each scrape."""

import logging
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.jobs.store import JobStore
from app.service_errors import StorageError

logger = logging.getLogger("superres")


class JobCollector(Collector):
    """Number and size of the jobs."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    def collect(self) -> Iterable[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("superres_jobs", "Stored jobs, by state.", labels=["state"])
        stored = GaugeMetricFamily(
            "superres_jobs_stored_bytes",
            "Bytes of uploads and results of jobs, of SUPERRES_MAX_JOBS_BYTES.",
        )
        unsent = GaugeMetricFamily(
            "superres_callbacks_unsent", "Callbacks of ended jobs that are still to be sent."
        )
        try:
            counts, nbytes = self._store.rows.counts(), self._store.rows.stored_bytes()
            callbacks = self._store.callbacks.count()
        except StorageError as error:  # the other metrics matter all the more
            logger.warning("the metrics of the jobs are missing: %s", error)
        else:
            for state, count in counts.items():
                jobs.add_metric([state], count)
            stored.add_metric([], nbytes)
            unsent.add_metric([], callbacks)
        yield jobs
        yield stored
        yield unsent
