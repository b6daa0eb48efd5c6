"""Prometheus metrics of the jobs, read at each scrape."""

import logging
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.store import Store
from superres.errors import StorageError

logger = logging.getLogger("superres")


class StoreCollector(Collector):
    """Metrics that are read from the database of the jobs at each scrape."""

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
