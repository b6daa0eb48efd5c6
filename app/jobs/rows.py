"""The tables of jobs.

:mod:`app.jobs.schema` has the version of these tables. What is new of a job so far has a table of
its own, so that no column had to be added to another one.
"""

from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import JSON, BigInteger, ForeignKey, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship

State = Literal["waiting", "running", "done", "failed"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "failed")
ENDED: tuple[State, ...] = ("done", "failed")


class Base(MappedAsDataclass, DeclarativeBase):
    """The base class of the tables."""


class SchemaVersion(Base):
    """A single row: the version of the tables."""

    __tablename__ = "schema_version"

    version: Mapped[int] = mapped_column(primary_key=True)


class Progress(Base):
    """The progress of a running job, written by its service for the others."""

    __tablename__ = "progress"

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    stage: Mapped[str]
    tiles_done: Mapped[int]
    timings: Mapped[dict[str, float]] = mapped_column(JSON)
    """Seconds of each stage that has ended."""


class Job(Base):
    """One job, as it was when it was read; times are seconds since 1970."""

    __tablename__ = "jobs"

    owner: Mapped[str | None]
    """Name of the key of the caller, who alone may see the job; None where there are no keys."""
    request_id: Mapped[str]
    """Id of the request that submitted the job."""
    query: Mapped[dict[str, Any]] = mapped_column(JSON)
    """Parameters of the request."""
    output_format: Mapped[str]
    tiles: Mapped[int]
    deadline: Mapped[float | None]
    """Deadline that the caller set, if any."""
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
    """Media type of the result."""
    headers: Mapped[dict[str, str]] = mapped_column(JSON, default_factory=dict)
    """Metadata of the result, as the enhancement returned it."""
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    """Description of the error, if the job failed."""
    progress: Mapped[Progress | None] = relationship(
        lazy="joined", cascade="all, delete-orphan", default=None
    )
    """Progress of a running job, where several services share the jobs."""


class Submission(Base):
    """Who submitted a job, and by which key a repetition of the request is recognized."""

    __tablename__ = "submissions"
    __table_args__ = (UniqueConstraint("caller", "key"),)

    job_id: Mapped[UUID] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    caller: Mapped[str]
    """The caller: ``key NAME``, or without keys ``address ADDRESS``."""
    key: Mapped[str | None] = mapped_column(default=None)
    """The caller's ``Idempotency-Key``, if there is one."""
    fingerprint: Mapped[str] = mapped_column(default="")
    """Digest of the request, which is the same whenever it is repeated."""


class Callback(Base):
    """A request that reports the end of a job to a URL; its row ends with it, not with the job."""

    __tablename__ = "callbacks"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    url: Mapped[str]
    lane: Mapped[str]
    """The caller and the host: of each, one request at a time is sent."""
    body: Mapped[str | None] = mapped_column(default=None)
    """What is sent: the status of the job in JSON, once it has ended."""
    ended: Mapped[float | None] = mapped_column(default=None)
    """When the job ended."""
    attempts: Mapped[int] = mapped_column(default=0)
    due: Mapped[float | None] = mapped_column(default=None, index=True)
    """When it is sent next; None until the job has ended."""
