"""The status of a job: what its caller can know of it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True)
class JobStatus:
    """The status of a job; times are seconds since 1970."""

    id: UUID
    state: str
    stage: str
    """``waiting``, ``decode``, ``proof``, ``infer``, ``encode``; ``over`` when it has ended."""
    tiles_done: int
    tiles: int
    attempts: int
    created: float
    started: float | None
    ended: float | None
    timings: dict[str, float]
    """Seconds of each stage that has ended, to the millisecond."""
    problem: dict[str, Any] | None
    """Description of the error, if the job failed."""
