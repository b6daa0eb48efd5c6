"""The rows of jobs. All of this blocks: call it in a thread."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.jobs.callbacks import forget_unfinished, note_end
from app.jobs.databases import WRITE, Database, database_errors
from app.jobs.eviction import choose_evictions
from app.jobs.idempotency import find_submitted, keep_submission
from app.jobs.rows import ENDED, STATES, Callback, Job, Progress, State, Submission
from app.jobs.schema import prepare_tables
from app.service_errors import StorageError
from superres.errors import Busy, JobAbandoned

ATTEMPTS = 2
"""Most times that a job is begun: the job itself may be what kills the service."""


class JobRepository:
    """Reads and writes the rows of jobs.

    Args:
        database: where the rows are; it is closed with this.
        max_waiting: most jobs that wait.
        max_bytes: most bytes of all uploads and results.
        describe_error: makes the description of a failure, from the error and the request's id.
        describe_job: makes what a callback says of a job that has ended.
        discard_files: removes the files of a job; called after the commit that removed the row.

    Raises:
        StorageError: the database does not answer, or a later version has made its tables.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_waiting: int,
        max_bytes: int,
        describe_error: Callable[[Exception, str], dict[str, Any]],
        describe_job: Callable[[Job], str],
        discard_files: Callable[[UUID], None],
    ) -> None:
        self._database = database
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._describe_error = describe_error
        self._describe_job = describe_job
        self._discard_files = discard_files
        self._reading = sessionmaker(database.engine, expire_on_commit=False)
        writing = database.engine.execution_options(**WRITE)
        self._writing = sessionmaker(writing, expire_on_commit=False)
        try:
            with database_errors(), writing.begin() as connection:
                prepare_tables(connection)
        except StorageError:
            self.close()
            raise

    @property
    def shared(self) -> bool:
        """Whether other services may work on the same jobs."""
        return self._database.shared

    def close(self) -> None:
        """Release the database, and this service's claims on jobs."""
        self._database.close()

    def find(self, job_id: UUID) -> Job | None:
        """A job."""
        with self.reading() as session:
            return session.get(Job, job_id)

    def find_all(self, job_ids: Iterable[UUID]) -> list[Job]:
        """Those of the jobs that exist."""
        with self.reading() as session:
            return list(session.scalars(select(Job).where(Job.id.in_(job_ids))))

    def all(self) -> list[Job]:
        """All jobs."""
        with self.reading() as session:
            return list(session.scalars(select(Job)))

    def oldest_waiting(self) -> Job | None:
        """The job to begin next."""
        with self.reading() as session:
            return session.scalars(
                select(Job).where(Job.state == "waiting").order_by(Job.created).limit(1)
            ).one_or_none()

    def counts(self) -> dict[State, int]:
        """Number of jobs by state."""
        with self.reading() as session:
            found = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
        return {state: found.get(state, 0) for state in STATES}

    def stored_bytes(self) -> int:
        """Bytes of all uploads and results."""
        with self.reading() as session:
            return _stored_bytes(session)

    def make_room_for_job(self, owner: str | None, nbytes: int) -> None:
        """Remove results until there is room for an upload; :mod:`app.jobs.eviction` says which.

        Raises:
            Busy: too many jobs wait.
            StorageError: there is no room.
        """
        with self.writing() as session:
            self._check_waiting(session)
            self._make_room(session, owner, nbytes)

    def add(
        self, job: Job, submission: Submission | None = None, callback: Callback | None = None
    ) -> Job:
        """Keep a job, which has a file for its upload already.

        Returns:
            The job; if an equal submission made one before, that one, and nothing is kept.

        Raises:
            Busy, StorageError: as :meth:`make_room_for_job`.
            KeyReused: the caller used the key for another request.
        """
        with self.writing() as session:
            if submission and (earlier := find_submitted(session, submission)):
                return earlier
            self._check_waiting(session)
            self._make_room(session, job.owner, job.upload_bytes)
            session.add(job)
            session.flush()  # the others refer to it
            if submission:
                keep_submission(session, submission)
            if callback:
                session.add(callback)
            return job

    def start(self, job_id: UUID) -> bool:
        """Claim a waiting job and set it running; False if it was removed or is begun elsewhere.

        Raises:
            Busy: another service still has a claim on it.
        """
        try:
            with self.writing() as session:
                job = session.get(Job, job_id)
                if job is None or job.state != "waiting":
                    return False
                if not self._database.claim(job_id):
                    raise Busy("another service has not released it yet", retry_after=1)
                job.state, job.started = "running", time.time()
                job.attempts += 1
                job.progress = None
                return True
        except StorageError:  # the job waits, or it runs without a claim and is requeued
            self.release(job_id)
            raise

    def release(self, job_id: UUID) -> None:
        """Release this service's claim on a job."""
        with suppress(SQLAlchemyError):  # then the claim ends with the connection
            self._database.release(job_id)

    def make_room_for_result(self, job_id: UUID, nbytes: int) -> bool:
        """Remove results until there is room for a new one; False if its job has ended.

        Raises:
            StorageError: there is no room.
        """
        with self.writing() as session:
            job = _unfinished(session, job_id)
            if job is None:
                return False
            self._make_room(session, job.owner, nbytes)
            return True

    def finish(
        self,
        job_id: UUID,
        nbytes: int,
        *,
        media_type: str,
        headers: dict[str, str],
        timings: dict[str, float],
    ) -> bool:
        """Note that a job is done, and that its result has a file; False if the job has ended.

        Raises:
            StorageError: there is no room.
        """
        with self.writing() as session:
            job = _unfinished(session, job_id)
            if job is None:
                return False
            self._make_room(session, job.owner, nbytes)
            _end(job, "done", timings=timings)
            job.media_type, job.headers, job.result_bytes = media_type, headers, nbytes
            note_end(session, job, self._describe_job)
            return True

    def fail(self, job_id: UUID, error: Exception, timings: dict[str, float]) -> bool:
        """Note why a job failed, unless it has ended; False if another service runs it."""
        with self.writing() as session:
            job = session.get(Job, job_id)
            if job and job.state == "running" and not self._database.has_claim(job_id):
                return False
            if job and job.state not in ENDED:
                self._fail(session, job, error, timings)
            return True

    def requeue(self, *job_ids: UUID) -> None:
        """Let jobs of this service wait again; the attempt does not count."""
        claimed = [job_id for job_id in job_ids if self._database.has_claim(job_id)]
        with self.writing() as session:
            session.execute(
                update(Job)
                .where(Job.state == "running", Job.id.in_(claimed))
                .values(state="waiting", attempts=Job.attempts - 1)
            )
        for job_id in claimed:
            self.release(job_id)

    def requeue_abandoned(self) -> None:
        """Let the running jobs of services that stopped wait again, or fail."""
        with self.writing() as session:
            self._requeue_abandoned(session)

    def synchronize(
        self, running: Mapping[UUID, Progress], dispatching: Iterable[UUID]
    ) -> set[UUID]:
        """Write the progress of this service's jobs, and read what other services have done.

        Jobs of services that stopped are requeued.

        Args:
            running: the progress of each job that this service runs.
            dispatching: jobs that this service is about to begin.

        Returns:
            The jobs to stop: those that were removed, and those that another service has begun.
        """
        with database_errors():
            self._database.renew()
        with self.writing() as session:
            self._requeue_abandoned(session)
            for job_id, progress in running.items():
                if (job := session.get(Job, job_id)) and job.state == "running":
                    session.merge(progress)
            removed = {job_id for job_id in running if session.get(Job, job_id) is None}
            begun = {
                job_id
                for job_id in dispatching
                if ((job := session.get(Job, job_id)) is None or job.state != "waiting")
                and not self._database.has_claim(job_id)
            }
        return removed | begun

    def remove(self, job_id: UUID) -> None:
        """Remove a job, whatever its state."""
        with self.writing() as session:
            if job := session.get(Job, job_id):
                _delete(session, job)

    def remove_ended(self, before: float) -> None:
        """Remove the jobs that ended before a time."""
        with self.writing() as session:
            for job in session.scalars(select(Job).where(Job.ended < before)):
                _delete(session, job)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that reads."""
        with database_errors(), self._reading() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that writes; after the commit, the files of removed jobs are discarded."""
        with database_errors():
            with self._writing.begin() as session:
                session.info["discard"] = []
                yield session
            for job_id in session.info["discard"]:
                self._discard_files(job_id)

    def _requeue_abandoned(self, session: Session) -> None:
        for job in session.scalars(select(Job).where(Job.state == "running")):
            if not self._database.is_abandoned(session, job.id):
                continue
            if job.attempts < ATTEMPTS:
                job.state = "waiting"
            else:
                error = JobAbandoned(
                    f"the service stopped {job.attempts} times while it worked on this job"
                )
                self._fail(session, job, error)
                session.info["discard"].append(job.id)

    def _fail(
        self,
        session: Session,
        job: Job,
        error: Exception,
        timings: dict[str, float] | None = None,
    ) -> None:
        _end(job, "failed", timings=timings)
        job.problem = self._describe_error(error, job.request_id)
        note_end(session, job, self._describe_job)

    def _check_waiting(self, session: Session) -> None:
        waiting = session.scalar(select(func.count()).where(Job.state == "waiting")) or 0
        if waiting >= self._max_waiting:
            raise Busy(f"at most {self._max_waiting:,} jobs wait; {waiting:,} do", retry_after=10)

    def _make_room(self, session: Session, owner: str | None, nbytes: int) -> None:
        if _stored_bytes(session) + nbytes > self._max_bytes:
            jobs = list(session.scalars(select(Job)))
            for job in choose_evictions(jobs, owner, nbytes, self._max_bytes):
                _delete(session, job)


def _unfinished(session: Session, job_id: UUID) -> Job | None:
    """A job that has not ended."""
    job = session.get(Job, job_id)
    return job if job is not None and job.state not in ENDED else None


def _end(job: Job, state: State, *, timings: dict[str, float] | None) -> None:
    job.state, job.ended, job.problem = state, time.time(), None
    job.timings, job.progress = timings or {}, None
    job.upload_bytes = 0


def _delete(session: Session, job: Job) -> None:
    session.execute(delete(Submission).where(Submission.job_id == job.id))
    forget_unfinished(session, job.id)
    session.delete(job)
    session.info["discard"].append(job.id)


def _stored_bytes(session: Session) -> int:
    return session.scalar(select(func.sum(Job.upload_bytes + Job.result_bytes))) or 0
