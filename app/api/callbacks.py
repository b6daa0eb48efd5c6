"""The parameter ``callback`` of a job."""

from typing import Annotated

from pydantic import Field

from app.jobs.queue import JobQueue
from superres.errors import BadRequest

CallbackUrl = Annotated[
    str | None,
    Field(
        description="With `Prefer: respond-async`: a URL that gets the job's status by `POST` when "
        "it has ended, signed as Standard Webhooks has it; of a host that the operator allows.",
    ),
]


def check_callback(jobs: JobQueue, url: str | None, *, as_job: bool) -> None:
    """Return if there is no callback, or if it may be called.

    Raises:
        BadRequest: it may not, or the answer is not a job.
    """
    if url is None:
        return
    if not as_job:
        raise BadRequest(
            "callback: it reports the end of a job, and this request asks for none; send "
            "'Prefer: respond-async', too"
        )
    jobs.check_callback(url)
