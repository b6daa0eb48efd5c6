"""Repeated submissions: the same caller, key and request are the same job."""

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.jobs.rows import Job, Submission
from app.service_errors import KeyReused


def find_submitted(session: Session, submission: Submission) -> Job | None:
    """The job that an equal submission made before, if it is still kept.

    In a transaction that writes, no other service can add one meanwhile.

    Raises:
        KeyReused: the caller used the key for another request.
    """
    if submission.key is None:
        return None
    found = session.execute(
        select(Job, Submission.fingerprint)
        .join(Submission, Submission.job_id == Job.id)
        .where(Submission.caller == submission.caller, Submission.key == submission.key)
    ).one_or_none()
    if found is None:
        return None
    job, fingerprint = found
    if fingerprint != submission.fingerprint:
        raise KeyReused(
            f"the Idempotency-Key {submission.key!r} made job {job.id} of another picture or with "
            "other parameters; use a new key for a new request"
        )
    return job


def keep_submission(session: Session, submission: Submission) -> None:
    """Keep the submission of a new job, for which :func:`find_submitted` found no other.

    An earlier version, which knew no keys, may have removed a job and left its submission.
    """
    if submission.key is not None:
        session.execute(
            delete(Submission).where(
                Submission.caller == submission.caller, Submission.key == submission.key
            )
        )
    session.add(submission)
