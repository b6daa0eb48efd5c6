"""Prometheus metrics of the jobs, read at each scrape."""

import logging
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.jobs.repository import JobRepository
from app.service_errors import StorageError

logger = logging.getLogger("superres")


class JobCollector(Collector):
    """Number and size of the jobs."""

    def __init__(self, rows: JobRepository) -> None:
        self._rows = rows

    def collect(self) -> Iterable[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("superres_jobs", "Jobs that are kept.", labels=["state"])
        stored = GaugeMetricFamily(
            "superres_jobs_stored_bytes", "Uploads and results of jobs, on the disk."
        )
        try:
            counts, nbytes = self._rows.counts(), self._rows.stored_bytes()
        except StorageError as error:  # the other metrics matter all the more
            logger.warning("the metrics of the jobs are missing: %s", error)
        else:
            for state, count in counts.items():
                jobs.add_metric([state], count)
            stored.add_metric([], nbytes)
        yield jobs
        yield stored
