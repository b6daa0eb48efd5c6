"""What the routes ask for: the service, the uploaded picture, the wanted media type.

Dependencies are ``async def``, even those that only read ``request.state``: FastAPI runs the
others in the thread pool.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import anyio
from fastapi import Depends, Request
from fastapi import Header as HttpHeader
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from app.api.body import read_body
from app.inference.admission import Reservation
from app.inference.service import Service
from app.jobs.queue import JobQueue
from app.jobs.rows import Job
from app.telemetry import Stages, Telemetry
from superres import errors
from superres.codecs import Header
from superres.errors import CallerGone, DeadlineExceeded, NotAcceptable


async def get_service(request: Request) -> Service:
    """The service of this app."""
    service: Service = request.state.service
    return service


async def get_telemetry(request: Request) -> Telemetry:
    """The metrics of this app."""
    telemetry: Telemetry = request.state.telemetry
    return telemetry


async def get_stages(telemetry: Annotated[Telemetry, Depends(get_telemetry)]) -> Stages:
    """The times of the stages of this request."""
    return Stages(telemetry)


ServiceDependency = Annotated[Service, Depends(get_service)]
TelemetryDependency = Annotated[Telemetry, Depends(get_telemetry)]
StagesDependency = Annotated[Stages, Depends(get_stages)]


class RequestContext:
    """Time limit, memory and connection of a request that works on a picture.

    Args:
        request: the request.
        reservation: memory of the request.
        max_seconds: largest time limit.
        deadline_s: time limit that the caller asks for, in seconds, if any.
    """

    def __init__(
        self,
        request: Request,
        reservation: Reservation,
        *,
        max_seconds: float,
        deadline_s: float | None,
    ) -> None:
        self.reservation = reservation
        self.requested_deadline_s = deadline_s
        self.started = time.monotonic()
        self.seconds = max_seconds if deadline_s is None else min(deadline_s, max_seconds)
        self._request = request

    def seconds_left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.started + self.seconds - time.monotonic()

    @contextmanager
    def on_disconnect(self, callback: Callable[[], None]) -> Iterator[None]:
        """Within the block, call ``callback`` if the caller closes the connection.

        The body has to be read before.
        """

        async def watch() -> None:
            while (await self._request.receive())["type"] != "http.disconnect":
                pass
            callback()

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()


async def get_context(
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
) -> AsyncIterator[RequestContext]:
    """The time limit and the memory of this request, until its answer is sent.

    Raises:
        NotReady: before the body is read, if no answer is possible anyway.
    """
    service.check_open()
    with service.admission.reservation() as reservation:
        yield RequestContext(
            request,
            reservation,
            max_seconds=service.settings.deadline_s,
            deadline_s=None if deadline_ms is None else deadline_ms / 1000,
        )


ContextDependency = Annotated[RequestContext, Depends(get_context)]


@dataclass(frozen=True)
class Upload:
    """An encoded picture and its header."""

    data: bytes
    header: Header


async def read_upload(
    request: Request, service: ServiceDependency, context: ContextDependency
) -> Upload:
    """Read the body and the picture's header.

    Raises:
        DeadlineExceeded: the deadline has passed.
        SuperresError: as :func:`app.api.body.read_body` and
            :meth:`app.decoding.decoders.Decoders.probe`.
    """
    data = await read_body(
        request,
        context.reservation,
        max_bytes=service.settings.max_body_bytes,
        timeout_s=service.settings.transfer_timeout_s,
    )
    left = max(0.0, context.seconds_left())
    with anyio.move_on_after(left) as scope, context.on_disconnect(scope.cancel):
        header = await service.decoders.probe(data, max_pixels=service.settings.max_input_pixels)
        return Upload(data, header)
    if context.seconds_left() > 0:
        raise CallerGone("the client disconnected while the header was read")
    raise DeadlineExceeded(
        f"the request had {context.seconds:g} s; its header was not read by then"
    )


UploadDependency = Annotated[Upload, Depends(read_upload)]


async def get_jobs(request: Request) -> JobQueue:
    """The jobs of this app."""
    jobs: JobQueue = request.state.jobs
    return jobs


async def get_caller(request: Request) -> str | None:
    """The name of the caller's key; None if the service has no keys."""
    return request.state.caller or None


JobsDependency = Annotated[JobQueue, Depends(get_jobs)]
CallerDependency = Annotated[str | None, Depends(get_caller)]


async def find_job(job_id: UUID, jobs: JobsDependency, caller: CallerDependency) -> Job:
    """The caller's job with this id.

    Raises:
        JobMissing: no such job, or it belongs to another caller.
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
"""OpenAPI of the body that :func:`read_upload` reads."""

UPLOAD_ERRORS = (
    errors.MalformedRequest,
    errors.BodyTooLarge,
    errors.BodyTooSlow,
    errors.UnsupportedFormat,
    errors.BadImage,
    errors.AnimatedImage,
    errors.ImageTooLarge,
)
"""Errors that :func:`read_upload` raises."""

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
"""Errors of choosing a model and a media type, and of the work itself."""


def negotiate(request: Request, offered: list[str]) -> str:
    """The offered media type that ``Accept`` prefers; among equals, the first.

    Raises:
        NotAcceptable: ``Accept`` allows none of them.
    """
    accept = ", ".join(request.headers.getlist("accept")) or "*/*"
    best = parse_accept_header(accept, MIMEAccept).best_match(offered)
    if best is None:
        raise NotAcceptable(f"the answer can be {', '.join(offered)}; Accept is {accept!r}")
    return best
