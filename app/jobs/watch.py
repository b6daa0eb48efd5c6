"""Watches jobs for callers: one task reads all jobs that are watched, and tells all watchers."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

import anyio
import anyio.to_thread

from app.jobs.repository import JobRepository
from app.jobs.rows import ENDED, Job
from app.jobs.status import JobStatus
from app.service_errors import StorageError
from superres.errors import Busy, TooManyRequests

WATCH_S = 0.2
"""Seconds between two reads of the jobs that are watched."""
RETRY_AFTER_S = 5
"""``Retry-After`` of a refused watcher, in seconds."""

logger = logging.getLogger("superres")


class _WatchedJob:
    """A job with its watchers, and what they are told of it."""

    def __init__(self, job: Job, status: JobStatus) -> None:
        self.owner = job.owner
        self.status = status
        self.over = job.state in ENDED
        """Whether nothing follows: the job has ended or was removed, or the service stops."""
        self.changed = anyio.Event()
        self.watchers = 0

    def tell(self, status: JobStatus, *, over: bool) -> None:
        """Wake the watchers if there is anything new."""
        if over or status != self.status:
            self.status, self.over = status, over
            self.changed.set()
            self.changed = anyio.Event()


class JobWatch:
    """Tells watchers how their jobs go on.

    Args:
        rows: of the jobs.
        make_status: makes the status of a job, as it was read.
        draining: returns whether the service stops; then nothing more is sent.
        max_watchers: most watchers at the same time.
        max_watchers_per_key: the same, of the jobs of one key.
    """

    def __init__(
        self,
        rows: JobRepository,
        make_status: Callable[[Job], JobStatus],
        draining: Callable[[], bool],
        *,
        max_watchers: int,
        max_watchers_per_key: int,
    ) -> None:
        self._rows = rows
        self._make_status = make_status
        self._draining = draining
        self._max_watchers = max_watchers
        self._max_watchers_per_key = max_watchers_per_key
        self._watched: dict[UUID, _WatchedJob] = {}
        self._begun = anyio.Event()
        """Set when a first job is watched."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the jobs that are watched, inside."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._poll)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    @contextmanager
    def watch(self, job: Job) -> Iterator[AsyncIterator[JobStatus]]:
        """The statuses of a job: now, and whenever it changes, until it has ended or is removed.

        Raises:
            Busy: there are too many watchers.
            TooManyRequests: there are too many watchers of this owner's jobs.
        """
        self._check_room(job.owner)
        watched = self._watched.get(job.id)
        if watched is None:
            watched = self._watched[job.id] = _WatchedJob(job, self._make_status(job))
        watched.watchers += 1
        self._begun.set()
        try:
            yield self._statuses(watched)
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[job.id]

    async def _statuses(self, watched: _WatchedJob) -> AsyncIterator[JobStatus]:
        last = None
        while not self._draining():
            changed = watched.changed
            if watched.status != last:
                last = watched.status
                yield last
                continue  # it may have changed while the status was sent
            if watched.over:
                return
            await changed.wait()

    async def _poll(self) -> None:
        while True:
            if not self._watched:
                self._begun = anyio.Event()
                await self._begun.wait()
            await anyio.sleep(WATCH_S)
            if self._draining():
                for watched in self._watched.values():
                    watched.tell(watched.status, over=True)
                continue
            job_ids = list(self._watched)
            try:
                found = await anyio.to_thread.run_sync(self._rows.find_all, job_ids)
            except StorageError:  # perhaps for a moment only
                continue
            except Exception:  # it must not end the service
                logger.exception("cannot read the jobs that are watched")
                continue
            jobs = {job.id: job for job in found}
            for job_id in job_ids:
                if watching := self._watched.get(job_id):
                    self._tell(watching, jobs.get(job_id))

    def _tell(self, watched: _WatchedJob, job: Job | None) -> None:
        if job is None:  # removed
            watched.tell(watched.status, over=True)
        else:
            watched.tell(self._make_status(job), over=job.state in ENDED)

    def _check_room(self, owner: str | None) -> None:
        watchers = sum(watched.watchers for watched in self._watched.values())
        if watchers >= self._max_watchers:
            raise Busy(
                f"at most {self._max_watchers:,} streams of events are open at once, and so many "
                "are; GET /jobs/ID tells the same",
                retry_after=RETRY_AFTER_S,
            )
        own = sum(one.watchers for one in self._watched.values() if one.owner == owner)
        if owner is not None and own >= self._max_watchers_per_key:
            raise TooManyRequests(
                f"at most {self._max_watchers_per_key:,} streams of events are open at once with "
                f"one key, and {owner!r} has so many; GET /jobs/ID tells the same",
                retry_after=RETRY_AFTER_S,
            )
