"""Pictures that are enhanced while nobody waits: what is done to the jobs that are stored.

A job goes the way of a request: the same checks, room and turn at the device, and the same
answer, which is kept. Only that it waits for room where a request is told to come back.
"""

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import BinaryIO
from uuid import UUID

import anyio
import anyio.to_thread
from anyio import CapacityLimiter
from structlog.contextvars import bind_contextvars

from app.api.schemas import JobProgress, JobReport
from app.errors import problem_of
from app.inference.admission import Reservation
from app.inference.enhance import (
    Enhanced,
    EnhanceOptions,
    EnhanceRequest,
    enhance_picture,
    prepare_request,
)
from app.inference.scheduler import ScheduledEngine
from app.inference.service import Service
from app.store import ENDED, Job, Progress, Store
from app.telemetry import Stages, Telemetry
from superres.codecs import MEDIA_TYPES, OUTPUT_FORMATS, read_header
from superres.errors import (
    Busy,
    CallerGone,
    JobAbandoned,
    JobMissing,
    JobUnfinished,
    NotReady,
    StorageError,
    SuperresError,
)

RETRY_S = 1.0
"""Seconds until a disk or a database that refused is asked again."""
GIVE_UP_S = 600.0
"""Seconds for which a result that cannot be stored is held in memory."""
SWEEP_S = 60.0
"""Seconds between two looks for jobs that are too old."""
SHARE_S = 1.0
"""Seconds between two looks at what other services of the same jobs do."""
WATCH_S = 0.2
"""Seconds between two looks at a job that is watched."""

logger = logging.getLogger("superres")


@dataclass(eq=False)
class _Running:
    """A job at work."""

    engine: ScheduledEngine
    stages: Stages
    tiles: int
    tiles_done: int = 0

    def progress(self, done: int, tiles: int) -> None:
        # Bicubic, where it answers instead, is cut in another way than was foretold.
        self.tiles_done = done * self.tiles // tiles


class _JobContext:
    """Time limit and memory of a job: a :class:`app.inference.service.WorkContext`.

    Args:
        job: the job, with its caller's deadline, if it has one.
        reservation: memory of the job.
        max_seconds: largest time limit, from now.
    """

    def __init__(self, job: Job, reservation: Reservation, max_seconds: float) -> None:
        self.reservation = reservation
        self.started, self.seconds = time.monotonic(), max_seconds
        if job.deadline is not None and job.deadline - time.time() < max_seconds:
            self.started -= time.time() - job.created
            self.seconds = job.deadline - job.created

    def seconds_left(self) -> float:
        return self.started + self.seconds - time.monotonic()

    @contextmanager
    def on_disconnect(self, callback: Callable[[], None]) -> Iterator[None]:
        """A job has no connection; :meth:`Jobs.remove` cancels it."""
        yield


class Jobs:
    """Takes jobs in, does them, a few at once and the oldest first, and tells of them.

    Args:
        store: where they are kept.
        service: that does the work.
        telemetry: what is counted.
        limiter: of the threads that enhance.
        make_headers: makes the headers that are kept with a result.
    """

    def __init__(
        self,
        store: Store,
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
        self._running: dict[UUID, _Running] = {}
        self._arrived = anyio.Event()
        self._door = anyio.Lock()
        """Held by the one that waits for room, so that no later job overtakes it."""
        self._at_door: dict[UUID, anyio.CancelScope] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Jobs"]:
        """Take up what an earlier service left, and do jobs until this is left.

        From when the service drains, none is begun and none is watched. What is being done at
        the end is done again by the next service.

        Raises:
            StorageError: the jobs cannot be read.
        """
        await anyio.to_thread.run_sync(self._store.recover)
        async with anyio.create_task_group() as tasks:
            for _ in range(self._service.settings.jobs_at_once):
                tasks.start_soon(self._do_jobs)
            tasks.start_soon(self._sweep)
            if self._store.shared:
                tasks.start_soon(self._share)
            yield self
            unfinished = list(self._running)
            for job in self._running.values():
                job.engine.cancel()
            tasks.cancel_scope.cancel()
        try:
            await anyio.to_thread.run_sync(self._store.put_back, *unfinished)
        except StorageError as error:  # then this attempt counts
            logger.warning("jobs were not put back: %s", error)

    async def accept(
        self,
        request: EnhanceRequest,
        upload: bytes,
        *,
        owner: str | None,
        request_id: str,
        deadline_s: float | None,
    ) -> Job:
        """Keep a job; when this returns, it is on the disk.

        Args:
            request: what to make.
            upload: the picture's file.
            owner: who may see it.
            request_id: of the request that it came with.
            deadline_s: seconds from now after which it is of no more use, if the caller said so.

        Raises:
            Busy: too many wait.
            StorageError: it cannot be stored now.
        """
        now = time.time()
        job = Job(
            owner=owner,
            request_id=request_id,
            query=asdict(request.options),
            output_format=request.output_format,
            tiles=request.cost.tiles,
            deadline=None if deadline_s is None else now + deadline_s,
            upload_bytes=len(upload),
            created=now,
        )
        await anyio.to_thread.run_sync(self._store.add, job, upload)
        self._arrived.set()
        return job

    async def find(self, job_id: UUID, owner: str | None) -> Job:
        """A job, as it is now.

        Raises:
            JobMissing: there is none, or it is somebody else's.
            StorageError: the jobs cannot be read now.
        """
        job = await anyio.to_thread.run_sync(self._store.find, job_id)
        if job is None or job.owner != owner:
            raise JobMissing(f"there is no job {job_id}; what has ended is not kept for ever")
        return job

    def report(self, job: Job) -> JobReport:
        """What is told of a job."""
        stage, tiles_done, timings = "waiting", 0, job.timings
        if job.state in ENDED:
            stage, tiles_done = "over", job.tiles if job.state == "done" else 0
        elif job.state == "running" and (running := self._running.get(job.id)):
            stage, tiles_done = running.stages.current, running.tiles_done
            timings = running.stages.seconds
        elif job.state == "running" and self._store.shared:  # by another service
            stage = "decode"
            if told := job.progress:
                stage, tiles_done, timings = told.stage, told.tiles_done, told.timings
        elif job.state == "running":  # it has ended since it was read
            stage, tiles_done = "encode", job.tiles
        if job.started is not None and job.state != "waiting":
            timings = {"waiting": job.started - job.created} | timings
        return JobReport(
            id=job.id,
            state=job.state,
            progress=JobProgress(stage=stage, tiles_done=tiles_done, tiles=job.tiles),
            attempts=job.attempts,
            created=_moment(job.created),
            started=_moment(job.started),
            ended=_moment(job.ended),
            timings={name: round(seconds, 3) for name, seconds in timings.items()},
            problem=job.problem,
            result=f"/jobs/{job.id}/result" if job.state == "done" else None,
        )

    async def watch(self, job: Job) -> AsyncIterator[JobReport]:
        """Tell of a job whenever there is something new, until it has ended or is removed."""
        told = None
        while not self._service.draining:
            if (report := self.report(job)) != told:
                yield report
            told = report
            if job.state in ENDED:
                return
            await anyio.sleep(WATCH_S)
            try:
                job = await self.find(job.id, job.owner)
            except JobMissing:
                return
            except StorageError:  # it may come again, and the watcher need not know
                continue

    async def open_result(self, job: Job) -> BinaryIO:
        """The file with the result of a job that is done.

        Raises:
            JobUnfinished: it is not.
            JobMissing: it was removed meanwhile.
        """
        if job.state != "done":
            raise JobUnfinished(f"job {job.id} is {job.state}", retry_after=1)
        return await anyio.to_thread.run_sync(self._store.open_result, job)

    async def remove(self, job: Job) -> None:
        """Forget a job; if it is being worked on, that stops.

        Raises:
            StorageError: it cannot be removed now, and nothing is.
        """
        await anyio.to_thread.run_sync(self._store.remove, job.id)
        self._stop(job.id)

    def _stop(self, job_id: UUID) -> None:
        if running := self._running.get(job_id):
            running.engine.cancel()
        if waiting := self._at_door.get(job_id):
            waiting.cancel()

    async def _do_jobs(self) -> None:
        while not self._service.draining:
            try:
                async with AsyncExitStack() as door:
                    await door.enter_async_context(self._door)
                    job = await self._oldest()
                    if not self._service.draining:
                        await self._do(job, door)
            except StorageError as error:
                logger.warning("jobs have to wait: %s", error)
                await anyio.sleep(RETRY_S)
            except Exception:  # which must not end the service
                logger.exception("a job was left where it was")
                await anyio.sleep(RETRY_S)

    async def _oldest(self) -> Job:
        while True:
            self._arrived = anyio.Event()
            if job := await anyio.to_thread.run_sync(self._store.oldest_waiting):
                return job
            await self._arrived.wait()

    async def _do(self, job: Job, door: AsyncExitStack) -> None:
        """Do a job; the door is opened to the next one when it is at work."""
        if job.id in self._running:  # the database was away, and another service took it for dead
            await anyio.sleep(RETRY_S)
            return
        bind_contextvars(request_id=job.request_id, job=str(job.id))
        stages = Stages(self._telemetry)
        try:
            await self._enhance(job, stages, door)
        except CallerGone:
            logger.info("the job was stopped")
            await anyio.to_thread.run_sync(self._store.let_go, job.id)
        except (NotReady, Busy) as error:
            logger.info("the job was put off: %s", error)
            await anyio.sleep(RETRY_S)
            await _insist(partial(self._store.put_back, job.id))
        except StorageError:
            raise
        except Exception as error:
            if isinstance(error, SuperresError):
                logger.warning("the job failed: %s", error)
            else:
                logger.exception("the job failed")
            problem = problem_of(error, job.request_id)
            await _insist(partial(self._store.fail, job.id, problem, stages.seconds))
        finally:
            self._at_door.pop(job.id, None)
            self._running.pop(job.id, None)

    async def _enhance(self, job: Job, stages: Stages, door: AsyncExitStack) -> None:
        service = self._service
        upload = await anyio.to_thread.run_sync(self._store.read_upload, job)
        header = await anyio.to_thread.run_sync(
            lambda: read_header(upload, max_pixels=service.settings.max_input_pixels)
        )
        output_format = next(name for name in OUTPUT_FORMATS if name == job.output_format)
        options = EnhanceOptions.from_mapping(job.query)
        request = prepare_request(service, options, header, len(upload), output_format)
        with service.admission.reservation() as reservation:
            waiting = _JobContext(job, reservation, math.inf)
            with anyio.CancelScope() as self._at_door[job.id]:
                await service.wait_for_admission(request, waiting)
            if self._at_door[job.id].cancelled_caught:
                raise CallerGone("the job was removed or begun by another service")
            context = _JobContext(job, reservation, service.settings.job_deadline_s)
            with service.admit(request, context) as engine:
                running = self._running[job.id] = _Running(engine, stages, job.tiles)
                if not await anyio.to_thread.run_sync(self._store.start, job.id):
                    raise CallerGone("the job was removed or begun by another service")
                await door.aclose()
                enhanced = await enhance_picture(
                    request,
                    upload,
                    engine,
                    stages=stages,
                    telemetry=self._telemetry,
                    limiter=self._limiter,
                    progress=running.progress,
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
                await _insist(finish, GIVE_UP_S)
            except StorageError as error:
                raise JobAbandoned(
                    f"its result could not be stored for {GIVE_UP_S:g} s: {error}"
                ) from error

    async def _share(self) -> None:
        while True:
            await anyio.sleep(SHARE_S)
            running = {
                job_id: Progress(
                    job_id=job_id,
                    stage=job.stages.current,
                    tiles_done=job.tiles_done,
                    timings=dict(job.stages.seconds),
                )
                for job_id, job in self._running.items()
            }
            try:
                at_door = self._at_door.keys() - running.keys()
                left = await anyio.to_thread.run_sync(self._store.share, running, at_door)
            except StorageError as error:
                logger.warning("what other services do with the jobs is not known: %s", error)
                continue
            except Exception:  # which must not end the service
                logger.exception("what other services do with the jobs is not known")
                continue
            for job_id in left:
                self._stop(job_id)
            self._arrived.set()  # perhaps at another service

    async def _sweep(self) -> None:
        while True:
            try:
                before = time.time() - self._service.settings.keep_jobs_s
                await anyio.to_thread.run_sync(self._store.remove_ended, before)
            except StorageError as error:
                logger.warning("old jobs are kept for now: %s", error)
            await anyio.sleep(SWEEP_S)


async def _insist(step: Callable[[], None], seconds: float = math.inf) -> None:
    """Write something down, however often the disk or the database refuses.

    Raises:
        StorageError: still, after so many seconds.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return await anyio.to_thread.run_sync(step)
        except StorageError as error:
            if time.monotonic() > until:
                raise
            logger.warning("not written yet: %s", error)
            await anyio.sleep(RETRY_S)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
