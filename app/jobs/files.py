"""The files of jobs: an upload and a result for each, in a folder or a bucket.

All of this blocks: call it in a thread.
"""

import errno
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from app.jobs.rows import Job
from app.service_errors import JobMissing, StorageError
from superres.errors import JobAbandoned
from superres.paths import AnyPath, write_whole

UPLOAD, RESULT, PARTIAL = ".upload", ".result", ".partial"


class JobFiles:
    """Reads and writes uploads and results.

    Args:
        folder: the folder of all files.
    """

    def __init__(self, folder: AnyPath) -> None:
        self._folder = folder

    def write_upload(self, job_id: UUID, upload: bytes) -> None:
        """Write the upload of a job.

        Raises:
            StorageError: it cannot be written now.
        """
        with _storage_errors():
            write_whole(self._path(job_id, UPLOAD), upload, private=True)

    def write_result(self, job_id: UUID, result: bytes) -> None:
        """Write the result of a job.

        Raises:
            StorageError: it cannot be written now.
        """
        with _storage_errors():
            write_whole(self._path(job_id, RESULT), result, private=True)

    def read_upload(self, job: Job) -> bytes:
        """The upload of a job.

        Raises:
            JobAbandoned: the file does not exist, or the disk cannot read it.
            StorageError: the bucket does not answer.
        """
        path = self._path(job.id, UPLOAD)
        try:
            with _storage_errors():
                return path.read_bytes()
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, FileNotFoundError):
                raise JobAbandoned("its upload is gone") from error
            if isinstance(cause, OSError) and isinstance(path, Path):
                raise JobAbandoned(f"its upload cannot be read: {cause.strerror}") from error
            raise

    def open_result(self, job: Job) -> BinaryIO:
        """The result of a job, which can be read even if the job is removed meanwhile.

        Raises:
            JobMissing: the job was removed after it was read.
        """
        path = self._path(job.id, RESULT)
        try:
            with _storage_errors():
                file = path.open("rb")
                if isinstance(path, Path):
                    return file
                with file:  # a bucket's file cannot be read after it is removed
                    copy = tempfile.TemporaryFile()  # noqa: SIM115 the caller closes it
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

    def discard_upload(self, job_id: UUID) -> None:
        """Remove the upload of a job, if that is possible now; the next clean-up tries again."""
        _discard(self._path(job_id, UPLOAD))

    def discard_result(self, job_id: UUID) -> None:
        """Remove the result of a job, as :meth:`discard_upload`."""
        _discard(self._path(job_id, RESULT))

    def discard(self, job_id: UUID) -> None:
        """Remove both files of a job, as :meth:`discard_upload`."""
        self.discard_upload(job_id)
        self.discard_result(job_id)

    def paths(self, *, older_than_s: float = 0) -> list[AnyPath]:
        """The files of all jobs, and the files that were not written whole.

        Args:
            older_than_s: leave out younger files.
        """
        with _storage_errors():
            try:
                suffixes = (UPLOAD, RESULT, PARTIAL)
                files = [file for suffix in suffixes for file in self._folder.glob(f"*{suffix}")]
            except FileNotFoundError:  # a bucket's folder exists only if there are files in it
                return []
            return [file for file in files if not older_than_s or _age(file) > older_than_s]

    def clean(self, files: list[AnyPath], jobs: list[Job]) -> None:
        """Remove those of the files that no job needs.

        A job needs its upload until it has ended, and its result once it is done.
        """
        needed = {
            self._path(job.id, RESULT if job.state == "done" else UPLOAD).name
            for job in jobs
            if job.state != "failed"
        }
        with _storage_errors():
            for file in files:
                if file.name not in needed:
                    file.unlink(missing_ok=True)

    def _path(self, job_id: UUID, suffix: str) -> AnyPath:
        return self._folder / f"{job_id}{suffix}"


def _age(file: AnyPath) -> float:
    """Seconds since a file was written; 0 if it no longer exists."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return 0


def _discard(file: AnyPath) -> None:
    with suppress(Exception):
        file.unlink()


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Raise the errors of the disk or the bucket as :class:`StorageError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "is full" if full else f"failed: {error.strerror or error}"
        raise StorageError(f"the disk for jobs {reason}", retry_after=30) from error
    except Exception as error:  # a bucket's library has its own types of errors
        raise StorageError(f"the bucket for jobs failed: {error}", retry_after=30) from error
