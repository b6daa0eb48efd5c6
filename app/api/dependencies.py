"""What the routes ask for: the service, the uploaded picture, the wanted media type."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import anyio.to_thread
from fastapi import Depends, Request
from fastapi import Header as HttpHeader
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from app.api.body import Call
from app.inference.models import Service
from app.jobs import Jobs
from app.store import Job
from app.telemetry import Stages, Telemetry
from superres import errors
from superres.codecs import Header, read_header
from superres.errors import NotAcceptable


def get_service(request: Request) -> Service:
    """The service of this app."""
    service: Service = request.state.service
    return service


def get_telemetry(request: Request) -> Telemetry:
    """The metrics of this app."""
    telemetry: Telemetry = request.state.telemetry
    return telemetry


def get_stages(telemetry: Annotated[Telemetry, Depends(get_telemetry)]) -> Stages:
    """A stopwatch for this request."""
    return Stages(telemetry)


ServiceDependency = Annotated[Service, Depends(get_service)]
TelemetryDependency = Annotated[Telemetry, Depends(get_telemetry)]
StagesDependency = Annotated[Stages, Depends(get_stages)]


async def get_call(
    request: Request,
    service: ServiceDependency,
    deadline_ms: Annotated[
        int | None,
        HttpHeader(
            alias="X-Deadline-Ms",
            ge=1,
            description="Milliseconds, from now, after which the answer is of no more use to "
            "the caller; the server has a maximum of its own.",
        ),
    ] = None,
) -> AsyncIterator[Call]:
    """This request's time and memory, held until its answer is sent.

    Raises:
        NotReady: before the body is read, if the answer could not be made anyway.
    """
    service.check_open()
    with service.admission.reservation() as reservation:
        seconds = None if deadline_ms is None else deadline_ms / 1000
        yield Call(request, service.settings, reservation, seconds)


CallDependency = Annotated[Call, Depends(get_call)]


@dataclass(frozen=True)
class Upload:
    """An encoded picture, and what its first bytes tell."""

    data: bytes
    header: Header


async def read_upload(service: ServiceDependency, call: CallDependency) -> Upload:
    """Read the body, never more of it than allowed, and the picture's header.

    Raises:
        SuperresError: as :meth:`app.api.body.Call.read_body` and
            :func:`superres.codecs.read_header`.
    """
    data = await call.read_body()
    header = await anyio.to_thread.run_sync(
        lambda: read_header(data, max_pixels=service.settings.max_input_pixels)
    )
    return Upload(data, header)


UploadDependency = Annotated[Upload, Depends(read_upload)]


def get_jobs(request: Request) -> Jobs:
    """The jobs of this app."""
    jobs: Jobs = request.state.jobs
    return jobs


def get_caller(request: Request) -> str | None:
    """Who calls: the name of the key, where there are keys."""
    return request.state.caller or None


JobsDependency = Annotated[Jobs, Depends(get_jobs)]
CallerDependency = Annotated[str | None, Depends(get_caller)]


async def find_job(job_id: UUID, jobs: JobsDependency, caller: CallerDependency) -> Job:
    """The caller's job of this id.

    Raises:
        JobMissing: there is none, or it is somebody else's.
    """
    return await jobs.find(job_id, caller)


JobDependency = Annotated[Job, Depends(find_job)]

UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
"""The OpenAPI of a body that :func:`read_upload` reads."""

UPLOAD_ERRORS = (
    errors.MalformedRequest,
    errors.BodyTooLarge,
    errors.BodyTooSlow,
    errors.UnsupportedFormat,
    errors.BadImage,
    errors.AnimatedImage,
    errors.ImageTooLarge,
)
"""What :func:`read_upload` raises."""

ENHANCING_ERRORS = (
    errors.NotAcceptable,
    errors.BadRequest,
    errors.ModelMissing,
    errors.EngineError,
    errors.NotReady,
    errors.Busy,
    errors.DeadlineExceeded,
    errors.CallerGone,
)
"""What choosing a model and a form of answer, and the work itself, raise."""


def negotiate(request: Request, offered: list[str]) -> str:
    """The media type that the caller's Accept likes best; of equals, the first offered.

    Raises:
        NotAcceptable: none of those offered.
    """
    accept = ", ".join(request.headers.getlist("accept")) or "*/*"
    best = parse_accept_header(accept, MIMEAccept).best_match(offered)
    if best is None:
        raise NotAcceptable(f"the answer can be {', '.join(offered)}; Accept is {accept!r}")
    return best
