"""Does the jobs: a few at the same time, the oldest first.

A job is done as a request is: with the same checks, the same admission and the same queue of the
device, and with the same result, which is kept. The one difference is that a job waits for
admission, while a request is refused and told when to try again.
"""

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import anyio
import anyio.to_thread
from anyio import CapacityLimiter
from structlog.contextvars import bind_contextvars

from app.inference.enhance import (
    Enhanced,
    EnhanceOptions,
    enhance_picture,
    prepare_request,
)
from app.inference.memory import Reservation
from app.inference.scheduled_engine import ScheduledEngine
from app.inference.service import Service
from app.jobs.rows import Job, Progress
from app.jobs.store import JobStore
from app.service_errors import CallerGone, StorageError
from app.telemetry import Stages, Telemetry
from superres.codecs import MEDIA_TYPES, OUTPUT_FORMATS
from superres.errors import BadImage, Busy, JobAbandoned, NotReady, SuperresError

RETRY_S = 1.0
"""Seconds until the next try, after an error of the disk or the database."""
GIVE_UP_S = 600.0
"""Seconds that a result is kept in memory while it cannot be stored."""
REMOVE_S = 60.0
"""Seconds between two removals of old jobs."""
SYNCHRONIZE_S = 1.0
"""Seconds between two exchanges with other services of the same jobs."""

logger = logging.getLogger("superres")


@dataclass(eq=False)
class RunningJob:
    """A job that this service runs."""

    engine: ScheduledEngine
    stages: Stages
    tiles: int
    tiles_done: int = 0

    @property
    def stage(self) -> str:
        """Name of the stage in progress."""
        return self.stages.current

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of each stage that has ended."""
        return self.stages.seconds

    def report(self, done: int, tiles: int) -> None:
        """Note how many tiles are done, of how many."""
        # Scaled to the forecast: if bicubic is used instead, the number of tiles differs.
        self.tiles_done = done * self.tiles // tiles


class _JobContext:
    """Time limit and memory of a job: a :class:`app.inference.service.WorkContext`.

    Args:
        job: the job, with its caller's deadline if it has one.
        reservation: its memory.
        limit_s: most seconds from now.
    """

    def __init__(self, job: Job, reservation: Reservation, limit_s: float) -> None:
        self.reservation = reservation
        self.started, self.seconds = time.monotonic(), limit_s
        if job.deadline is not None and job.deadline - time.time() < limit_s:
            self.started -= time.time() - job.created
            self.seconds = job.deadline - job.created

    def seconds_left(self) -> float:
        return self.started + self.seconds - time.monotonic()

    @contextmanager
    def on_disconnect(self, callback: Callable[[], None]) -> Iterator[None]:
        """Do nothing: there is no connection. :meth:`JobRunner.stop` cancels a job."""
        yield


class JobRunner:
    """Does jobs.

    Args:
        store: keeps the jobs.
        service: has the models and the device.
        telemetry: counts the work.
        limiter: of the threads that enhance.
        make_headers: makes the headers that are kept with a result.
    """

    def __init__(
        self,
        store: JobStore,
        service: Service,
        telemetry: Telemetry,
        limiter: CapacityLimiter,
        *,
        make_headers: Callable[[Enhanced], dict[str, str]],
    ) -> None:
        self._store = store
        self._service = service
        self._telemetry = telemetry
        self._limiter = limiter
        self._make_headers = make_headers
        self._running: dict[UUID, RunningJob] = {}
        self._arrived = anyio.Event()
        self._dispatch_lock = anyio.Lock()
        """Held by the task that waits for admission, so that no later job overtakes its job."""
        self._dispatching: dict[UUID, anyio.CancelScope] = {}
        """Jobs that wait for admission."""

    @property
    def draining(self) -> bool:
        """Whether the service stops: no more jobs are begun."""
        return self._service.draining

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do jobs inside, first those of earlier services that stopped.

        No job is begun while the service drains. Jobs that run at the end are requeued, for the
        next service.

        Raises:
            StorageError: the jobs cannot be read.
        """
        await anyio.to_thread.run_sync(self._store.recover)
        async with anyio.create_task_group() as tasks:
            for _ in range(self._service.settings.jobs_at_once):
                tasks.start_soon(self._work)
            tasks.start_soon(self._remove_old)
            if self._store.rows.shared:
                tasks.start_soon(self._synchronize)
            yield
            unfinished = list(self._running)
            for job in self._running.values():
                job.engine.cancel()
            tasks.cancel_scope.cancel()
        try:
            await anyio.to_thread.run_sync(self._store.rows.requeue, *unfinished)
        except StorageError as error:  # then this attempt counts
            logger.warning("the running jobs were not requeued: %s", error)

    def wake(self) -> None:
        """Look for a waiting job now."""
        self._arrived.set()

    def find(self, job_id: UUID) -> RunningJob | None:
        """The progress of a job, if this service runs it."""
        return self._running.get(job_id)

    def stop(self, job_id: UUID) -> None:
        """Stop a job, if this service runs it or is about to begin it."""
        if running := self._running.get(job_id):
            running.engine.cancel()
        if scope := self._dispatching.get(job_id):
            scope.cancel()

    async def _work(self) -> None:
        while not self.draining:
            try:
                async with AsyncExitStack() as dispatch:
                    await dispatch.enter_async_context(self._dispatch_lock)
                    job = await self._oldest()
                    if not self.draining:
                        await self._do(job, dispatch)
            except StorageError as error:
                logger.warning("the jobs wait for their storage: %s", error)
                await anyio.sleep(RETRY_S)
            except Exception:  # it must not end the service
                logger.exception("an unexpected error interrupted a job")
                await anyio.sleep(RETRY_S)

    async def _oldest(self) -> Job:
        while True:
            self._arrived = anyio.Event()
            if job := await anyio.to_thread.run_sync(self._store.rows.oldest_waiting):
                return job
            await self._arrived.wait()

    async def _do(self, job: Job, dispatch: AsyncExitStack) -> None:
        """Do a job.

        Args:
            job: the oldest that waits.
            dispatch: has the dispatch lock; it is closed when the job runs.
        """
        if job.id in self._running:  # the database was away, and another service requeued the job
            await anyio.sleep(RETRY_S)
            return
        bind_contextvars(request_id=job.request_id, job=str(job.id))
        stages = Stages(self._telemetry)
        try:
            await self._enhance(job, stages, dispatch)
        except CallerGone:
            logger.info("the job was stopped")
            await anyio.to_thread.run_sync(self._store.rows.release, job.id)
        except (NotReady, Busy) as error:
            logger.info("the job waits again: %s", error)
            await anyio.sleep(RETRY_S)
            await _retry(partial(self._store.rows.requeue, job.id))
        except StorageError:
            raise
        except Exception as error:
            if isinstance(error, BadImage):  # whose message is a decoder's, for the caller alone
                logger.info("the job failed: %s", type(error).__name__)
            elif isinstance(error, SuperresError):
                logger.warning("the job failed: %s", error)
            else:
                logger.exception("the job failed")
            await _retry(partial(self._store.fail, job.id, error, stages.seconds))
        finally:
            self._dispatching.pop(job.id, None)
            self._running.pop(job.id, None)

    async def _enhance(self, job: Job, stages: Stages, dispatch: AsyncExitStack) -> None:
        service = self._service
        upload = await anyio.to_thread.run_sync(self._store.files.read_upload, job)
        header = await service.decoders.probe(upload, max_pixels=service.settings.max_input_pixels)
        output_format = next(name for name in OUTPUT_FORMATS if name == job.output_format)
        options = EnhanceOptions.from_mapping(job.query)
        request = prepare_request(service, options, header, len(upload), output_format)
        with service.admission.reservation(job.owner or "") as reservation:
            with anyio.CancelScope() as self._dispatching[job.id]:
                await service.wait_for_admission(request, _JobContext(job, reservation, math.inf))
            if self._dispatching[job.id].cancelled_caught:
                raise CallerGone("the job was removed or begun by another service")
            if self.draining:
                raise NotReady("the service is draining", retry_after=5)
            context = _JobContext(job, reservation, service.settings.job_deadline_s)
            with service.admit(request, context) as engine:
                running = self._running[job.id] = RunningJob(engine, stages, job.tiles)
                if not await anyio.to_thread.run_sync(self._store.rows.start, job.id):
                    raise CallerGone("the job was removed or begun by another service")
                await dispatch.aclose()
                enhanced = await enhance_picture(
                    request,
                    upload,
                    engine,
                    decoders=service.decoders,
                    stages=stages,
                    telemetry=self._telemetry,
                    limiter=self._limiter,
                    progress=running.report,
                )
            reservation.resize(len(upload) + len(enhanced.body))
            finish = partial(
                self._store.finish,
                job.id,
                enhanced.body,
                media_type=MEDIA_TYPES[enhanced.output_format],
                headers=self._make_headers(enhanced),
                timings=stages.seconds,
            )
            try:
                await _retry(finish, GIVE_UP_S)
            except StorageError as error:
                raise JobAbandoned(
                    f"its result could not be stored for {GIVE_UP_S:g} s: {error}"
                ) from error

    async def _synchronize(self) -> None:
        while True:
            await anyio.sleep(SYNCHRONIZE_S)
            running = {
                job_id: Progress(
                    job_id=job_id,
                    stage=job.stage,
                    tiles_done=job.tiles_done,
                    timings=dict(job.timings),
                )
                for job_id, job in self._running.items()
            }
            dispatching = self._dispatching.keys() - running.keys()
            try:
                stopped = await anyio.to_thread.run_sync(
                    self._store.rows.synchronize, running, dispatching
                )
            except StorageError as error:
                logger.warning("cannot exchange progress with other services: %s", error)
                continue
            except Exception:  # it must not end the service
                logger.exception("cannot exchange progress with other services")
                continue
            for job_id in stopped:
                self.stop(job_id)
            self.wake()  # another service may have a new job

    async def _remove_old(self) -> None:
        while True:
            try:
                before = time.time() - self._service.settings.keep_jobs_s
                await anyio.to_thread.run_sync(self._store.rows.remove_ended, before)
            except StorageError as error:
                logger.warning("cannot remove old jobs now: %s", error)
            await anyio.sleep(REMOVE_S)


async def _retry(step: Callable[[], None], seconds: float = math.inf) -> None:
    """Do a step of the store, and do it again after each error of the disk or the database.

    Raises:
        StorageError: the step still fails after so many seconds.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return await anyio.to_thread.run_sync(step)
        except StorageError as error:
            if time.monotonic() > until:
                raise
            logger.warning("cannot store the job now: %s", error)
            await anyio.sleep(RETRY_S)
