"""/jobs: pictures that are enhanced in the background."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, ConfigDict, Field

from app import service_errors
from app.api.callers import CallerIdDependency
from app.api.dependencies import (
    CallerDependency,
    JobDependency,
    JobsDependency,
    ServiceDependency,
)
from app.api.etag import digest_etag, is_known, not_modified
from app.api.responses import PatientFileResponse
from app.api.routes.enhance import ENHANCED, NOT_MODIFIED
from app.api.schemas import job_report
from app.errors import answer_with, declare
from app.jobs.listing import JobSelection
from app.jobs.rows import State
from app.jobs.status import JobStatus
from superres import errors
from superres.schemas import JobList, JobReport, Problem

ACCESS = "key"
router = APIRouter()

PART = ENHANCED | {
    "description": "The part of it that `Range` asks for.",
    "headers": {
        "Content-Range": {
            "description": "The part, and the length of the whole.",
            "schema": {"type": "string"},
        }
    },
}


class JobsQuery(BaseModel):
    """The parameters of GET /jobs."""

    model_config = ConfigDict(extra="forbid")

    state: list[State] = Field([], description="Only jobs in these states.")
    limit: int = Field(20, ge=1, le=100, description="Most jobs on a page.")
    cursor: str = Field("", description="The `cursor` of the page before; empty for the first.")


JOB_ERRORS = (service_errors.JobMissing, errors.BadRequest, service_errors.StorageError)


@router.get(
    "/jobs",
    responses=declare(errors.BadRequest, service_errors.StorageError),
    summary="Your jobs, the newest first",
)
async def list_jobs(
    query: Annotated[JobsQuery, Query()],
    jobs: JobsDependency,
    owner: CallerDependency,
    caller: CallerIdDependency,
) -> JobList:
    """Those of the caller's key; of a service without keys, those from the caller's address."""
    page = await jobs.page(
        JobSelection(owner, caller, states=query.state, cursor=query.cursor, limit=query.limit)
    )
    return JobList(
        jobs=[job_report(jobs.status(job)) for job in page.jobs],
        cursor=page.cursor,
    )


@router.get("/jobs/{job_id}", responses=declare(*JOB_ERRORS), summary="How far a job is")
async def read_job(job: JobDependency, jobs: JobsDependency) -> JobReport:
    """Made by `POST /enhance` with `Prefer: respond-async`."""
    return job_report(jobs.status(job))


async def watch_job(
    job: JobDependency, jobs: JobsDependency
) -> AsyncIterator[AsyncIterator[JobStatus]]:
    """The statuses of the caller's job, while the answer is sent."""
    with jobs.watch(job) as statuses:
        yield statuses


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    responses=declare(*JOB_ERRORS, errors.Busy),
    summary="How far a job is, as it goes",
)
async def job_events(
    statuses: Annotated[AsyncIterator[JobStatus], Depends(watch_job)],
) -> AsyncIterable[JobReport]:
    """What `GET /jobs/{job_id}` answers, whenever it has changed, until the job has ended."""
    async for status in statuses:
        yield job_report(status)


@router.get(
    "/jobs/{job_id}/result",
    response_class=Response,
    responses={
        200: ENHANCED | {"description": "The enhanced picture, as `POST /enhance` answers."},
        206: PART,
        304: NOT_MODIFIED,
        **declare(
            *JOB_ERRORS,
            service_errors.JobUnfinished,
            service_errors.RangeNotSatisfiable,
            errors.JobAbandoned,
            errors.UnsupportedFormat,
            errors.BadImage,
            errors.AnimatedImage,
            errors.ImageTooLarge,
            errors.ModelMissing,
            errors.EngineError,
            errors.DeadlineExceeded,
            errors.ModelError,
        ),
    },
    summary="What a job made",
)
async def job_result(
    request: Request, job: JobDependency, jobs: JobsDependency, service: ServiceDependency
) -> Response:
    """The very answer that the request would have had; of a job that failed, its problem.

    `Range`, with the `ETag` as `If-Range`, continues a transfer that was interrupted.
    """
    if job.problem is not None:
        return answer_with(request, Problem.model_validate(job.problem))
    if job.state == "done":
        etag = digest_etag(job.headers["Content-Digest"])
        if is_known(request, etag):
            return not_modified(etag)
    file = await jobs.open_result(job)
    try:
        return PatientFileResponse(
            file,
            service.settings.idle_timeout_s,
            media_type=job.media_type or "",
            headers=job.headers,
            request=request,
        )
    except service_errors.RangeNotSatisfiable:
        file.close()
        raise


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    responses=declare(*JOB_ERRORS, service_errors.CrossOrigin),
    summary="Cancel a job, or forget it",
)
async def delete_job(job: JobDependency, jobs: JobsDependency) -> None:
    """What is being made is given up between two tiles; a result is removed."""
    await jobs.remove(job)
