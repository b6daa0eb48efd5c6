"""The tables of jobs."""

from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy import JSON, BigInteger, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship

State = Literal["waiting", "running", "done", "failed"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "failed")
ENDED: tuple[State, ...] = ("done", "failed")


class Base(MappedAsDataclass, DeclarativeBase):
    """The base class of the tables."""


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
