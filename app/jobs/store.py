"""Keeps jobs: their rows in a database, and their files in a folder.

A job exists once its row is committed. Its upload is on the disk before that, and its result is on
the disk before the row says that the job is done. So each row is true whenever the service stops,
and files without a row can be removed. All of this blocks: call it in a thread.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from app.jobs.callbacks import CallbackRepository
from app.jobs.databases import open_database
from app.jobs.files import JobFiles
from app.jobs.idempotency import find_submitted
from app.jobs.listing import JobPage, JobSelection, make_page
from app.jobs.repository import JobRepository
from app.jobs.rows import Callback, Job, Submission
from superres.paths import to_path

ORPHAN_S = 3600.0
"""Age in seconds from which a file without a row is removed, where services share the jobs.

The row of a younger file may be on its way, from another service.
"""


class JobStore:
    """The jobs of one service, or of several that are given the same database and folder.

    Args:
        folder: of the files, and of the database if no other is given; created if necessary.
        database: URL of a PostgreSQL database; with it, the folder may be a bucket's URL.
        max_waiting: most jobs that wait.
        max_bytes: most bytes of all uploads and results.
        describe_error: makes the description of a failure, from the error and the request's id.
        describe_job: makes what a callback says of a job that has ended.

    Raises:
        BadRequest: services cannot share this database, or a bucket is given without one.
        StorageError: another process has the folder, it cannot be written, or the database does
            not answer.
    """

    def __init__(
        self,
        folder: Path | str,
        database: str = "",
        *,
        max_waiting: int,
        max_bytes: int,
        describe_error: Callable[[Exception, str], dict[str, Any]],
        describe_job: Callable[[Job], str],
    ) -> None:
        path = to_path(str(folder))
        self.files = JobFiles(path)
        self.rows = JobRepository(
            open_database(path, database),
            max_waiting=max_waiting,
            max_bytes=max_bytes,
            describe_error=describe_error,
            describe_job=describe_job,
            discard_files=self.files.discard,
        )
        self.callbacks = CallbackRepository(self.rows.reading, self.rows.writing)

    def close(self) -> None:
        """Release the folder, and this service's claims on jobs."""
        self.rows.close()

    def recover(self) -> None:
        """After a start: requeue or fail the jobs of services that stopped; clean the folder."""
        self.rows.requeue_abandoned()
        # Files first: a file that is listed and has no row then is not one that is being added.
        files = self.files.paths(older_than_s=ORPHAN_S if self.rows.shared else 0)
        self.files.clean(files, self.rows.all())

    def add(
        self,
        job: Job,
        upload: bytes,
        submission: Submission | None = None,
        callback: Callback | None = None,
    ) -> Job:
        """Keep a job: when this returns, it is on the disk.

        Args:
            job: the job.
            upload: file of the picture.
            submission: who submits it, and by which key.
            callback: what is sent when it has ended, if anything.

        Returns:
            The job; if an equal submission made one before, that one, and nothing is kept.

        Raises:
            Busy: too many jobs wait.
            StorageError: there is no room, or the job cannot be written.
            KeyReused: the caller used the key for another request.
        """
        # A repetition is answered also where there is no room for a new job.
        if submission:
            with self.rows.reading() as session:
                if earlier := find_submitted(session, submission):
                    return earlier
        # Nothing is written of a job that is refused.
        self.rows.make_room_for_job(job.owner, len(upload))
        try:
            self.files.write_upload(job.id, upload)
            added = self.rows.add(job, submission, callback)
        except BaseException:
            self.files.discard_upload(job.id)
            raise
        if added is not job:  # another request with the same key was quicker
            self.files.discard_upload(job.id)
        return added

    def page(self, selection: JobSelection) -> JobPage:
        """A page of a caller's jobs.

        Raises:
            BadRequest: the cursor is not one of a page.
        """
        statement = selection.statement()
        with self.rows.reading() as session:
            return make_page(list(session.scalars(statement)), selection.limit)

    def finish(
        self,
        job_id: UUID,
        result: bytes,
        *,
        media_type: str,
        headers: dict[str, str],
        timings: dict[str, float],
    ) -> None:
        """Keep a result, unless its job was removed, or has ended, meanwhile.

        Raises:
            StorageError: as :meth:`add`.
        """
        done = False
        try:
            if self.rows.make_room_for_result(job_id, len(result)):
                self.files.write_result(job_id, result)
                done = self.rows.finish(
                    job_id,
                    len(result),
                    media_type=media_type,
                    headers=headers,
                    timings=timings,
                )
        finally:
            # Where services share the jobs, the file may be another service's result; or the commit
            # succeeded, and only the database's answer was lost.
            if not done and not self.rows.shared:
                self.files.discard_result(job_id)
        self.files.discard_upload(job_id)
        self.rows.release(job_id)

    def fail(self, job_id: UUID, error: Exception, timings: dict[str, float]) -> None:
        """Note why a job failed, unless it was removed, has ended, or another service runs it."""
        if self.rows.fail(job_id, error, timings):
            self.files.discard_upload(job_id)
            self.rows.release(job_id)
