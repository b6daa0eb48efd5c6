"""Where jobs are kept: rows in a database, and the uploads and the results in a folder.

A job exists once its row is committed; its upload is on the disk before, and its result is
before the row says that it is done. So whatever stops the service, each row tells the truth,
and what files no row speaks of can go. All of this blocks: call it in a thread.
"""

import errno
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal
from uuid import UUID, uuid4

from sqlalchemy import JSON, BigInteger, ForeignKey, func, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    mapped_column,
    relationship,
    sessionmaker,
)

from app.api.schemas import Problem
from app.databases import WRITE, Database, Postgres, Sqlite, postgres_url
from app.errors import problem_of
from app.files import AnyPath, to_path, write_whole
from superres.errors import BadRequest, Busy, JobAbandoned, JobMissing, StorageError

State = Literal["waiting", "running", "done", "failed"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "failed")
ENDED: tuple[State, ...] = ("done", "failed")

ATTEMPTS = 2
"""Times that a job is begun: it may be what kills the service."""
FILES = (".upload", ".result", ".partial")
ORPHAN_S = 3600.0
"""Age of a file that no row speaks of and that goes; a younger one's row may be on its way, where
other services add jobs, too."""


class _Base(MappedAsDataclass, DeclarativeBase):
    pass


class Progress(_Base):
    """How far a job is, as the service that is at it tells the others."""

    __tablename__ = "progress"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[str]
    tiles_done: Mapped[int]
    timings: Mapped[dict[str, float]] = mapped_column(JSON)
    """Seconds of each stage that is over."""


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
    upload_bytes: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[float] = mapped_column(index=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=uuid4)
    state: Mapped[str] = mapped_column(default="waiting", index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    started: Mapped[float | None] = mapped_column(default=None)
    ended: Mapped[float | None] = mapped_column(default=None)
    timings: Mapped[dict[str, float]] = mapped_column(JSON, default_factory=dict)
    """Seconds of each stage."""
    result_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    media_type: Mapped[str | None] = mapped_column(default=None)
    headers: Mapped[dict[str, str]] = mapped_column(JSON, default_factory=dict)
    """Of the result."""
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    """Why it failed."""
    progress: Mapped[Progress | None] = relationship(
        lazy="joined", cascade="all, delete-orphan", default=None
    )
    """Of one that runs, where several services share the jobs."""


class Store:
    """The jobs of one service, or of several that are given the same database and folder.

    Args:
        folder: of the files, and of the database if none is given; made if need be.
        database: a PostgreSQL database's URL; with it, the folder may be a bucket's URL.
        max_waiting: jobs that wait.
        max_bytes: of all uploads and results.

    Raises:
        BadRequest: the database is none that can be shared, or a bucket is given without one.
        StorageError: another process has the folder, it cannot be written, or the database does
            not answer.
    """

    def __init__(
        self, folder: Path | str, database: str = "", *, max_waiting: int, max_bytes: int
    ) -> None:
        self._folder = to_path(str(folder))
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._database = _open(self._folder, database)
        self._reading = sessionmaker(self._database.engine, expire_on_commit=False)
        writing = self._database.engine.execution_options(**WRITE)
        self._writing = sessionmaker(writing, expire_on_commit=False)
        try:
            with _database_told(), writing.begin() as connection:
                _Base.metadata.create_all(connection)
        except StorageError:
            self.close()
            raise

    @property
    def shared(self) -> bool:
        """Whether other services may work on the same jobs."""
        return self._database.shared

    def close(self) -> None:
        """Let other processes have the folder, and the jobs that this one was at."""
        self._database.close()

    def recover(self) -> None:
        """After a start: see to what services left that stopped, and remove files of no job."""
        with self._change() as session:
            self._take_back(session)
        with _files_told():
            files = self._files()
            if self.shared:
                files = [file for file in files if _age(file) > ORPHAN_S]
        with _database_told(), self._reading() as session:
            jobs = session.scalars(select(Job)).all()
        wanted = {self._upload(job.id).name for job in jobs if job.state not in ENDED}
        wanted |= {self._result(job.id).name for job in jobs if job.state == "done"}
        with _files_told():
            for file in files:
                if file.name not in wanted:
                    file.unlink(missing_ok=True)

    def _files(self) -> list[AnyPath]:
        try:
            return [file for kind in FILES for file in self._folder.glob(f"*{kind}")]
        except FileNotFoundError:  # a bucket has no folder without a file
            return []

    def share(self, running: Mapping[UUID, Progress], at_door: Iterable[UUID]) -> set[UUID]:
        """Tell other services of this one's jobs, and see to those of one that stopped.

        Args:
            running: how far each job is that this service is at.
            at_door: jobs that it is about to begin.

        Returns:
            Those of them that it can leave: they were removed, or another has begun them.
        """
        with _database_told():
            self._database.renew()
        with self._change() as session:
            self._take_back(session)
            for job_id, progress in running.items():
                if (job := session.get(Job, job_id)) and job.state == "running":
                    session.merge(progress)
            removed = {job_id for job_id in running if session.get(Job, job_id) is None}
            begun = {
                job_id
                for job_id in at_door
                if ((job := session.get(Job, job_id)) is None or job.state != "waiting")
                and not self._database.holds(job_id)
            }
        return removed | begun

    def _take_back(self, session: Session) -> None:
        """What ran at a service that stopped waits again, or has failed."""
        for job in session.scalars(select(Job).where(Job.state == "running")):
            if not self._database.is_abandoned(session, job.id):
                continue
            if job.attempts < ATTEMPTS:
                job.state = "waiting"
            else:
                reason = JobAbandoned(
                    f"the service stopped {job.attempts} times while it worked on this job"
                )
                _end(job, "failed", problem=problem_of(reason, job.request_id).model_dump())
                session.info["gone"].append(job.id)

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
            with _files_told():
                write_whole(path, upload)
            with self._change() as session:
                self._check_waiting(session)
                self._make_room(session, len(upload))
                session.add(job)
        except BaseException:
            _discard(path)
            raise

    def find(self, job_id: UUID) -> Job | None:
        """A job."""
        with _database_told(), self._reading() as session:
            return session.get(Job, job_id)

    def oldest_waiting(self) -> Job | None:
        """The job whose turn it is."""
        with _database_told(), self._reading() as session:
            return session.scalars(
                select(Job).where(Job.state == "waiting").order_by(Job.created).limit(1)
            ).one_or_none()

    def read_upload(self, job: Job) -> bytes:
        """The picture that came with it.

        Raises:
            JobAbandoned: it is gone, or the disk cannot read it.
            StorageError: the bucket does not answer.
        """
        path = self._upload(job.id)
        try:
            with _files_told():
                return path.read_bytes()
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, FileNotFoundError):
                raise JobAbandoned("its upload is gone") from error
            if isinstance(cause, OSError) and isinstance(path, Path):
                raise JobAbandoned(f"its upload cannot be read: {cause.strerror}") from error
            raise

    def open_result(self, job: Job) -> BinaryIO:
        """Its result, which can be read even when the job is removed meanwhile.

        Raises:
            JobMissing: it was removed since the job was read.
        """
        path = self._result(job.id)
        try:
            with _files_told():
                file = path.open("rb")
                if isinstance(path, Path):
                    return file
                with file:  # of a bucket, in which it would be gone
                    copy = tempfile.TemporaryFile()  # noqa: SIM115 who asked closes it
                    try:
                        shutil.copyfileobj(file, copy)
                    except BaseException:
                        copy.close()
                        raise
                    copy.seek(0)
                    return copy
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise JobMissing(f"the result of job {job.id} is no longer there") from None
            raise

    def start(self, job_id: UUID) -> bool:
        """Note that a job is begun; false if it was removed, or another service has begun it.

        Raises:
            Busy: another service has not ended with it yet.
        """
        try:
            with self._change() as session:
                job = session.get(Job, job_id)
                if job is None or job.state != "waiting":
                    return False
                if not self._database.hold(job_id):
                    raise Busy("another service is at it still", retry_after=1)
                job.state, job.started = "running", time.time()
                job.attempts += 1
                job.progress = None
                return True
        except StorageError:  # then it is not begun, or abandoned
            self.let_go(job_id)
            raise

    def let_go(self, job_id: UUID) -> None:
        """Be no longer at a job; what notes its end does so, too."""
        with suppress(SQLAlchemyError):  # it went with its connection
            self._database.let_go(job_id)

    def finish(
        self,
        job_id: UUID,
        result: bytes,
        *,
        media_type: str,
        headers: dict[str, str],
        timings: dict[str, float],
    ) -> None:
        """Keep a result; not that of a job that was removed, or ended, meanwhile.

        Raises:
            StorageError: as :meth:`add`.
        """
        path = self._result(job_id)
        try:
            with self._change() as session:
                if wanted := self._is_unfinished(session, job_id):
                    self._make_room(session, len(result))
            if wanted:
                with _files_told():
                    write_whole(path, result)
            with self._change() as session:
                if wanted := wanted and self._is_unfinished(session, job_id):
                    self._make_room(session, len(result))
                    job = session.get_one(Job, job_id)
                    _end(job, "done", timings=timings)
                    job.media_type, job.headers = media_type, headers
                    job.result_bytes = len(result)
        except BaseException:
            if not self.shared:  # there, it may be another service's, or the answer alone was lost
                _discard(path)
            raise
        if not wanted and not self.shared:
            _discard(path)
        _discard(self._upload(job_id))
        self.let_go(job_id)

    def _is_unfinished(self, session: Session, job_id: UUID) -> bool:
        job = session.get(Job, job_id)
        return job is not None and job.state not in ENDED

    def fail(self, job_id: UUID, problem: Problem, timings: dict[str, float]) -> None:
        """Note why a job failed, unless it is gone, has ended, or is another service's now."""
        with self._change() as session:
            job = session.get(Job, job_id)
            if job and job.state == "running" and not self._database.holds(job_id):
                return
            if job and job.state not in ENDED:
                _end(job, "failed", problem=problem.model_dump(), timings=timings)
        _discard(self._upload(job_id))
        self.let_go(job_id)

    def put_back(self, *job_ids: UUID) -> None:
        """Jobs that this service is at wait again, and this attempt does not count."""
        mine = [job_id for job_id in job_ids if self._database.holds(job_id)]
        with self._change() as session:
            session.execute(
                update(Job)
                .where(Job.state == "running", Job.id.in_(mine))
                .values(state="waiting", attempts=Job.attempts - 1)
            )
        for job_id in mine:
            self.let_go(job_id)

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
        with _database_told(), self._reading() as session:
            found = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
        return {state: found.get(state, 0) for state in STATES}

    def stored_bytes(self) -> int:
        """Of all uploads and results."""
        with _database_told(), self._reading() as session:
            return _stored_bytes(session)

    @contextmanager
    def _change(self) -> Iterator[Session]:
        """A transaction; the files of what it deletes go when it is committed."""
        with _database_told():
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

    def _upload(self, job_id: UUID) -> AnyPath:
        return self._folder / f"{job_id}.upload"

    def _result(self, job_id: UUID) -> AnyPath:
        return self._folder / f"{job_id}.result"


def _open(folder: AnyPath, database: str) -> Database:
    """The database, when it is certain that the folder can be written."""
    url = postgres_url(database) if database else None
    try:
        if isinstance(folder, Path):
            folder.mkdir(parents=True, exist_ok=True)
            if url is None:
                return Sqlite(folder)
        if url is None:
            raise BadRequest(f"for jobs in {folder}, SUPERRES_JOBS_DATABASE must name a database")
        trial = folder / f"{uuid4()}.partial"
        trial.write_bytes(b"")
        trial.unlink()
        return Postgres(url)
    except (BadRequest, StorageError):
        raise
    except Exception as error:  # a bucket's library has kinds of its own
        said = getattr(error, "strerror", None) or error
        raise StorageError(
            f"the jobs' folder {folder} cannot be written: {said}; SUPERRES_JOBS names it"
        ) from error


def _end(
    job: Job,
    state: State,
    *,
    problem: dict[str, Any] | None = None,
    timings: dict[str, float] | None = None,
) -> None:
    job.state, job.ended, job.problem = state, time.time(), problem
    job.timings, job.progress = timings or {}, None
    job.upload_bytes = 0


def _stored_bytes(session: Session) -> int:
    return session.scalar(select(func.sum(Job.upload_bytes + Job.result_bytes))) or 0


def _age(file: AnyPath) -> float:
    """Seconds since it was written; none of one that is gone."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return 0


def _discard(file: AnyPath) -> None:
    with suppress(Exception):  # recover() tries again
        file.unlink()


@contextmanager
def _files_told() -> Iterator[None]:
    """Raise what the disk or the bucket complains of as :class:`StorageError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        said = "is full" if full else f"failed: {error.strerror or error}"
        raise StorageError(f"the disk for jobs {said}", retry_after=30) from error
    except Exception as error:  # a bucket's library has kinds of its own
        raise StorageError(f"the bucket for jobs failed: {error}", retry_after=30) from error


@contextmanager
def _database_told() -> Iterator[None]:
    """Raise what the database complains of as :class:`StorageError`."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        said = str(cause).strip().partition("\n")[0]  # psycopg says more than one needs to know
        raise StorageError(f"the jobs' database: {said}", retry_after=5) from error
