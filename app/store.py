"""Where jobs are kept: a SQLite database, and beside it the uploads and the results.

A job exists once its row is committed; its upload is on the disk before, and its result is
before the row says that it is done. So whatever stops the service, each row tells the truth,
and what files no row speaks of can go. All of this blocks: call it in a thread.
"""

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO
from uuid import UUID, uuid4

from sqlalchemy import JSON, Connection, create_engine, event, func, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    mapped_column,
    sessionmaker,
)

from app.errors import problem_of
from app.schemas import Problem
from superres.errors import Busy, JobAbandoned, JobMissing, StorageError

State = Literal["waiting", "running", "done", "failed"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "failed")
ENDED: tuple[State, ...] = ("done", "failed")

ATTEMPTS = 2
"""Times that a job is begun: it may be what kills the service."""
PATIENCE_S = 1.0
"""That a locked database is waited for."""


class _Base(MappedAsDataclass, DeclarativeBase):
    pass


class Job(_Base):
    """One job, as it was when it was read; times are seconds since 1970."""

    __tablename__ = "jobs"

    owner: Mapped[str | None]
    """Who may see it: the name of a caller's key."""
    request_id: Mapped[str]
    """Of the request that it came with."""
    query: Mapped[dict[str, Any]] = mapped_column(JSON)
    output_format: Mapped[str]
    tiles: Mapped[int]
    deadline: Mapped[float | None]
    """The caller's own."""
    upload_bytes: Mapped[int]
    created: Mapped[float] = mapped_column(index=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=uuid4)
    state: Mapped[str] = mapped_column(default="waiting", index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    started: Mapped[float | None] = mapped_column(default=None)
    ended: Mapped[float | None] = mapped_column(default=None)
    timings: Mapped[dict[str, float]] = mapped_column(JSON, default_factory=dict)
    """Seconds of each stage."""
    result_bytes: Mapped[int] = mapped_column(default=0)
    media_type: Mapped[str | None] = mapped_column(default=None)
    headers: Mapped[dict[str, str]] = mapped_column(JSON, default_factory=dict)
    """Of the result."""
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    """Why it failed."""


class Store:
    """The jobs' folder. One process at a time may have it.

    Args:
        folder: made if need be.
        max_waiting: jobs that wait.
        max_bytes: of all uploads and results.

    Raises:
        StorageError: another process has it, or it cannot be written.
    """

    def __init__(self, folder: Path, *, max_waiting: int, max_bytes: int) -> None:
        self._folder = folder
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._lock = _locked(folder)
        self._engine = create_engine(
            f"sqlite:///{folder / 'jobs.sqlite'}", connect_args={"timeout": PATIENCE_S}
        )
        event.listen(self._engine, "connect", _set_up)
        event.listen(self._engine, "begin", _begin)
        try:
            with _trouble_told():
                _Base.metadata.create_all(self._engine)
        except StorageError:
            self.close()
            raise
        self._reading = sessionmaker(self._engine, expire_on_commit=False)
        self._writing = sessionmaker(
            self._engine.execution_options(begin="IMMEDIATE"), expire_on_commit=False
        )

    def close(self) -> None:
        """Let another process have the folder."""
        self._engine.dispose()
        self._lock.close()

    def recover(self) -> None:
        """After a start: what was running waits again, or has failed; files of no job go."""
        with self._change() as session:
            for job in session.scalars(select(Job).where(Job.state == "running")):
                if job.attempts < ATTEMPTS:
                    job.state = "waiting"
                else:
                    reason = JobAbandoned(
                        f"the service stopped {job.attempts} times while it worked on this job"
                    )
                    _end(job, "failed", problem=problem_of(reason, job.request_id).model_dump())
        with _trouble_told():
            with self._reading() as session:
                jobs = session.scalars(select(Job)).all()
            wanted = {self._upload(job.id) for job in jobs if job.state not in ENDED}
            wanted |= {self._result(job.id) for job in jobs if job.state == "done"}
            for kind in ("upload", "result", "partial"):
                for file in self._folder.glob(f"*.{kind}"):
                    if file not in wanted:
                        file.unlink()

    def add(self, job: Job, upload: bytes) -> None:
        """Keep a job: when this returns, it is on the disk.

        Raises:
            Busy: too many wait.
            StorageError: there is no room, or it cannot be written.
        """
        with self._change() as session:  # nothing is written of what is refused
            self._check_waiting(session)
            self._make_room(session, len(upload))
        path = self._upload(job.id)
        try:
            with _trouble_told():
                _write(path, upload)
            with self._change() as session:
                self._check_waiting(session)
                self._make_room(session, len(upload))
                session.add(job)
        except BaseException:
            _discard(path)
            raise

    def find(self, job_id: UUID) -> Job | None:
        """A job."""
        with _trouble_told(), self._reading() as session:
            return session.get(Job, job_id)

    def oldest_waiting(self) -> Job | None:
        """The job whose turn it is."""
        with _trouble_told(), self._reading() as session:
            return session.scalars(
                select(Job).where(Job.state == "waiting").order_by(Job.created).limit(1)
            ).one_or_none()

    def read_upload(self, job: Job) -> bytes:
        """The picture that came with it.

        Raises:
            JobAbandoned: it cannot be read.
        """
        try:
            return self._upload(job.id).read_bytes()
        except OSError as error:
            raise JobAbandoned(f"its upload cannot be read: {error.strerror}") from error

    def open_result(self, job: Job) -> BinaryIO:
        """Its result, which can be read even when the job is removed meanwhile.

        Raises:
            JobMissing: it was removed since the job was read.
        """
        try:
            with _trouble_told():
                return self._result(job.id).open("rb")
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise JobMissing(f"the result of job {job.id} is no longer there") from None
            raise

    def start(self, job_id: UUID) -> bool:
        """Note that a job is begun; false if it was removed."""
        with self._change() as session:
            job = session.get(Job, job_id)
            if job is None:
                return False
            job.state, job.started = "running", time.time()
            job.attempts += 1
            return True

    def finish(
        self,
        job_id: UUID,
        result: bytes,
        *,
        media_type: str,
        headers: dict[str, str],
        timings: dict[str, float],
    ) -> None:
        """Keep a result; if the job was removed meanwhile, nothing is kept.

        Raises:
            StorageError: as :meth:`add`.
        """
        path = self._result(job_id)
        try:
            with self._change() as session:
                self._make_room(session, len(result))
            with _trouble_told():
                _write(path, result)
            with self._change() as session:
                if job := session.get(Job, job_id):
                    self._make_room(session, len(result))
                    _end(job, "done", timings=timings)
                    job.media_type, job.headers = media_type, headers
                    job.result_bytes = len(result)
        except BaseException:
            _discard(path)
            raise
        if job is None:
            _discard(path)
        _discard(self._upload(job_id))

    def fail(self, job_id: UUID, problem: Problem, timings: dict[str, float]) -> None:
        """Note why a job failed, if it is still there."""
        with self._change() as session:
            if job := session.get(Job, job_id):
                _end(job, "failed", problem=problem.model_dump(), timings=timings)
        _discard(self._upload(job_id))

    def put_back(self, *job_ids: UUID) -> None:
        """Jobs that run wait again, and this attempt does not count."""
        with self._change() as session:
            session.execute(
                update(Job)
                .where(Job.state == "running", Job.id.in_(job_ids))
                .values(state="waiting", attempts=Job.attempts - 1)
            )

    def remove(self, job_id: UUID) -> None:
        """Forget a job, whatever its state."""
        with self._change() as session:
            if job := session.get(Job, job_id):
                self._delete(session, job)

    def remove_ended(self, before: float) -> None:
        """Forget the jobs that ended before a time."""
        with self._change() as session:
            for job in session.scalars(select(Job).where(Job.ended < before)):
                self._delete(session, job)

    def counts(self) -> dict[State, int]:
        """Jobs by state."""
        with _trouble_told(), self._reading() as session:
            found = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
        return {state: found.get(state, 0) for state in STATES}

    def stored_bytes(self) -> int:
        """Of all uploads and results."""
        with _trouble_told(), self._reading() as session:
            return _stored_bytes(session)

    @contextmanager
    def _change(self) -> Iterator[Session]:
        """A transaction; the files of what it deletes go when it is committed."""
        with _trouble_told():
            with self._writing.begin() as session:
                session.info["gone"] = []
                yield session
            for job_id in session.info["gone"]:
                _discard(self._upload(job_id))
                _discard(self._result(job_id))

    def _delete(self, session: Session, job: Job) -> None:
        session.delete(job)
        session.info["gone"].append(job.id)

    def _check_waiting(self, session: Session) -> None:
        waiting = session.scalar(select(func.count()).where(Job.state == "waiting")) or 0
        if waiting >= self._max_waiting:
            raise Busy(f"at most {self._max_waiting:,} jobs wait; {waiting:,} do", retry_after=10)

    def _make_room(self, session: Session, nbytes: int) -> None:
        """Remove results, the oldest first, until so many bytes more can be kept."""
        excess = _stored_bytes(session) + nbytes - self._max_bytes
        if excess <= 0:
            return
        for job in session.scalars(select(Job).where(Job.state == "done").order_by(Job.ended)):
            self._delete(session, job)
            excess -= job.result_bytes
            if excess <= 0:
                return
        raise StorageError(
            f"at most {self._max_bytes:,} bytes of uploads and results are kept; with this one's "
            f"{nbytes:,} there would be {self._max_bytes + excess:,}",
            retry_after=30,
        )

    def _upload(self, job_id: UUID) -> Path:
        return self._folder / f"{job_id}.upload"

    def _result(self, job_id: UUID) -> Path:
        return self._folder / f"{job_id}.result"


def _locked(folder: Path) -> TextIO:
    """Make the folder, and hold it for as long as the file is open."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise StorageError(
            f"the jobs' folder {folder} cannot be written: {error.strerror}; SUPERRES_JOBS names it"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StorageError(
            f"another service works in {folder}; SUPERRES_JOBS names a folder of this one's own"
        ) from None
    return lock


def _end(
    job: Job,
    state: State,
    *,
    problem: dict[str, Any] | None = None,
    timings: dict[str, float] | None = None,
) -> None:
    job.state, job.ended, job.problem = state, time.time(), problem
    job.timings = timings or {}
    job.upload_bytes = 0


def _stored_bytes(session: Session) -> int:
    return session.scalar(select(func.sum(Job.upload_bytes + Job.result_bytes))) or 0


def _write(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _discard(file: Path) -> None:
    with suppress(OSError):  # recover() tries again
        file.unlink()


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # _begin says BEGIN, not the driver
    connection.execute("PRAGMA journal_mode = WAL")  # who reads waits for nobody who writes
    connection.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut


def _begin(connection: Connection) -> None:
    # A transaction that will write takes the lock at once: later, it could only fail.
    kind = connection.get_execution_options().get("begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {kind}")


@contextmanager
def _trouble_told() -> Iterator[None]:
    """Raise what the disk and the database complain of as :class:`StorageError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        said = "is full" if full else f"failed: {error.strerror}"
        raise StorageError(f"the disk for jobs {said}", retry_after=30) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StorageError(f"the jobs' database: {cause}", retry_after=5) from error
