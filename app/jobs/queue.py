"""The queue of jobs, as callers see it."""

import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import BinaryIO
from uuid import UUID

import anyio.to_thread
from httpx import URL

from app.inference.enhance import EnhanceRequest
from app.jobs.listing import JobPage, JobSelection
from app.jobs.rows import ENDED, Callback, Job, Submission
from app.jobs.runner import JobRunner, RunningJob
from app.jobs.status import JobStatus
from app.jobs.store import JobStore
from app.jobs.watch import JobWatch
from app.jobs.webhooks import CallbackSender
from app.service_errors import JobMissing, JobUnfinished


class JobQueue:
    """Accepts jobs, reports on them, and removes them.

    Args:
        store: keeps the jobs.
        runner: does them.
        callbacks: reports to callers that they have ended.
        max_watchers, max_watchers_per_key: see :class:`app.jobs.watch.JobWatch`.
    """

    def __init__(
        self,
        store: JobStore,
        runner: JobRunner,
        callbacks: CallbackSender,
        *,
        max_watchers: int,
        max_watchers_per_key: int,
    ) -> None:
        self._store = store
        self._runner = runner
        self._callbacks = callbacks
        self._watch = JobWatch(
            store.rows,
            self.status,
            lambda: runner.draining,
            max_watchers=max_watchers,
            max_watchers_per_key=max_watchers_per_key,
        )

    def check_callback(self, url: str) -> None:
        """Return if the end of a job may be reported to a URL.

        Raises:
            BadRequest: the operator does not allow it.
        """
        self._callbacks.check(url)

    async def accept(
        self,
        request: EnhanceRequest,
        upload: bytes,
        *,
        owner: str | None,
        request_id: str,
        deadline_s: float | None,
        caller: str,
        key: str | None = None,
        fingerprint: str = "",
        callback: str | None = None,
    ) -> Job:
        """Keep a job; when this returns, it is on the disk.

        Args:
            request: what to make.
            upload: the picture's file.
            owner: the caller, who alone may see the job.
            request_id: of the request that submits it.
            deadline_s: seconds from now until the caller's deadline, if there is one.
            caller: the caller, by key or address, whose own the key is.
            key: ``Idempotency-Key`` of the request, if there is one.
            fingerprint: digest of the request.
            callback: URL to which the end of the job is reported, if any; it is an allowed one.

        Returns:
            The job; if an equal submission with this key made one before, that one.

        Raises:
            Busy: too many jobs wait.
            StorageError: it cannot be stored now.
            KeyReused: the caller used the key for another request.
        """
        now = time.time()
        job = Job(
            owner=owner,
            request_id=request_id,
            query=request.options.model_dump(),
            output_format=request.output_format,
            tiles=request.cost.tiles,
            deadline=None if deadline_s is None else now + deadline_s,
            upload_bytes=len(upload),
            created=now,
        )
        submission = Submission(job_id=job.id, caller=caller, key=key, fingerprint=fingerprint)
        called = None
        if callback is not None:
            called = Callback(job_id=job.id, url=callback, lane=f"{caller} {URL(callback).host}")
        job = await anyio.to_thread.run_sync(self._store.add, job, upload, submission, called)
        self._runner.wake()
        return job

    async def page(self, selection: JobSelection) -> JobPage:
        """A page of a caller's jobs.

        Raises:
            BadRequest: the cursor is not one of a page.
            StorageError: the jobs cannot be read now.
        """
        return await anyio.to_thread.run_sync(self._store.page, selection)

    async def find(self, job_id: UUID, owner: str | None) -> Job:
        """A job, as it is now.

        Raises:
            JobMissing: it does not exist, or has another owner.
            StorageError: the jobs cannot be read now.
        """
        job = await anyio.to_thread.run_sync(self._store.rows.find, job_id)
        if job is None or job.owner != owner:
            raise JobMissing(f"there is no job {job_id}; what has ended is not kept for ever")
        return job

    def status(self, job: Job) -> JobStatus:
        """The status of a job."""
        return job_status(job, self._runner.find(job.id), shared=self._store.rows.shared)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tell watchers of their jobs, and send callbacks, inside."""
        async with self._watch.running(), self._callbacks.running():
            yield

    def watch(self, job: Job) -> AbstractContextManager[AsyncIterator[JobStatus]]:
        """The statuses of a job; see :meth:`app.jobs.watch.JobWatch.watch`.

        Raises:
            Busy, TooManyRequests: there are too many watchers.
        """
        return self._watch.watch(job)

    async def open_result(self, job: Job) -> BinaryIO:
        """The file with the result of a job that is done.

        Raises:
            JobUnfinished: it is not.
            JobMissing: it was removed meanwhile.
        """
        if job.state != "done":
            raise JobUnfinished(f"job {job.id} is {job.state}", retry_after=1)
        return await anyio.to_thread.run_sync(self._store.files.open_result, job)

    async def remove(self, job: Job) -> None:
        """Remove a job; if this service runs it, it stops.

        Raises:
            StorageError: it cannot be removed now, and goes on.
        """
        await anyio.to_thread.run_sync(self._store.rows.remove, job.id)
        self._runner.stop(job.id)


def job_status(job: Job, running: RunningJob | None = None, *, shared: bool = False) -> JobStatus:
    """The status of a job.

    Args:
        job: as it was read.
        running: its progress, if this service runs it now.
        shared: whether other services work on the same jobs.
    """
    stage, tiles_done, timings = "waiting", 0, job.timings
    if job.state in ENDED:
        stage, tiles_done = "over", job.tiles if job.state == "done" else 0
    elif job.state == "running" and running is not None:
        stage, tiles_done, timings = running.stage, running.tiles_done, running.timings
    elif job.state == "running" and shared:  # another service runs it
        stage = "decode"
        if progress := job.progress:
            stage, tiles_done, timings = progress.stage, progress.tiles_done, progress.timings
    elif job.state == "running":  # it has ended since it was read
        stage, tiles_done = "encode", job.tiles
    if job.started is not None and job.state != "waiting":
        timings = {"waiting": job.started - job.created} | timings
    return JobStatus(
        id=job.id,
        state=job.state,
        stage=stage,
        tiles_done=tiles_done,
        tiles=job.tiles,
        attempts=job.attempts,
        created=job.created,
        started=job.started,
        ended=job.ended,
        timings={name: round(seconds, 3) for name, seconds in timings.items()},
        problem=job.problem,
    )
