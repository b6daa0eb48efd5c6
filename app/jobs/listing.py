"""Pages of a caller's jobs, the newest first."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, and_, or_, select

from app.jobs.rows import Job, State, Submission
from superres.errors import BadRequest

_CURSOR = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)-([0-9a-f]{32})")


@dataclass(frozen=True)
class JobSelection:
    """Which jobs are on a page.

    Args:
        owner: name of the caller's key; None where there are no keys.
        caller: as in :class:`app.jobs.rows.Submission`; without keys, it decides instead.
        states: of the jobs; without any, all.
        cursor: where the page begins, as the page before has it; empty for the first page.
        limit: most jobs on the page.
    """

    owner: str | None
    caller: str
    states: Sequence[State]
    cursor: str
    limit: int

    def statement(self) -> Select[Job]:
        """The query for these jobs, and for one more if there are more.

        Raises:
            BadRequest: the cursor is not one of a page.
        """
        jobs = select(Job).where(Job.owner == self.owner)
        if self.owner is None:  # everybody's, and so only those from the caller's address
            jobs = jobs.join(Submission, Submission.job_id == Job.id)
            jobs = jobs.where(Submission.caller == self.caller)
        if self.states:
            jobs = jobs.where(Job.state.in_(self.states))
        if self.cursor:
            created, job_id = _parse_cursor(self.cursor)
            earlier = and_(Job.created == created, Job.id < job_id)
            jobs = jobs.where(or_(Job.created < created, earlier))
        return jobs.order_by(Job.created.desc(), Job.id.desc()).limit(self.limit + 1)


@dataclass(frozen=True)
class JobPage:
    """A page of jobs."""

    jobs: list[Job]
    cursor: str | None
    """Of the next page; None on the last one."""


def make_page(found: list[Job], limit: int) -> JobPage:
    """The page of the jobs that :meth:`JobSelection.statement` found."""
    jobs = found[:limit]
    more = len(found) > limit
    return JobPage(jobs, f"{jobs[-1].created!r}-{jobs[-1].id.hex}" if more else None)


def _parse_cursor(cursor: str) -> tuple[float, UUID]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise BadRequest(
            f"cursor: it is the `cursor` of the page before, not {cursor[:100]!r}; without one, "
            "the list begins with the newest job"
        )
    return float(match[1]), UUID(match[2])
