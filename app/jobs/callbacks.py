"""The rows of callbacks: which are to be sent, and when. All of this blocks: call it in a thread.

A row is taken for some seconds, in which no other service sends it. Who dies meanwhile has not
removed it, so it is sent again: at least once in all, never lost by a restart.
"""

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.jobs.rows import Callback, Job

Transaction = Callable[[], AbstractContextManager[Session]]


def note_end(session: Session, job: Job, describe_job: Callable[[Job], str]) -> None:
    """Let the callback of a job that ends now be sent, if it has one."""
    if callback := session.get(Callback, job.id):
        callback.body, callback.ended = describe_job(job), job.ended
        callback.due = job.ended


def forget_unfinished(session: Session, job_id: UUID) -> None:
    """Remove the callback of a job that is removed, unless the job has ended."""
    session.execute(delete(Callback).where(Callback.job_id == job_id, Callback.body.is_(None)))


class CallbackRepository:
    """Reads and writes the rows of callbacks.

    Args:
        read, write: transactions, as those of :class:`app.jobs.repository.JobRepository`.
    """

    def __init__(self, read: Transaction, write: Transaction) -> None:
        self._read = read
        self._write = write

    def take_due(self, busy: Collection[str], limit: int, seconds: float) -> list[Callback]:
        """The callbacks to send now, one of each lane, the oldest first.

        Args:
            busy: lanes that are at work.
            limit: most callbacks.
            seconds: time after which another service may take them.

        Raises:
            StorageError: the database does not answer.
        """
        now = time.time()
        rank = func.row_number().over(partition_by=Callback.lane, order_by=Callback.due)
        ranked = (
            select(Callback.job_id, rank.label("rank"))
            .where(Callback.due <= now, Callback.lane.not_in(busy))
            .subquery()
        )
        first = (
            select(Callback)
            .join(ranked, ranked.c.job_id == Callback.job_id)
            .where(ranked.c.rank == 1)
            .order_by(Callback.due)
            .limit(limit)
        )
        with self._read() as session:  # mostly there are none, and nobody waits for the lock
            if session.scalars(first.limit(1)).first() is None:
                return []
        with self._write() as session:
            leased = list(session.scalars(first))
            for callback in leased:
                callback.due = now + seconds
                callback.attempts += 1
        return leased

    def postpone(self, job_id: UUID, due: float) -> None:
        """Send a callback again at a time, unless it was removed."""
        with self._write() as session:
            if callback := session.get(Callback, job_id):
                callback.due = due

    def remove(self, job_id: UUID) -> None:
        """Remove a callback: it was sent, or it is given up."""
        with self._write() as session:
            session.execute(delete(Callback).where(Callback.job_id == job_id))

    def count(self) -> int:
        """Number of callbacks of jobs that have ended."""
        with self._read() as session:
            return session.scalar(select(func.count()).where(Callback.due.is_not(None))) or 0
