"""What the routes ask for: the service, the uploaded picture, the wanted media type.

Dependencies are ``async def``, even those that only read ``request.state``: FastAPI runs the
others in the thread pool.
"""

import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Depends, Path, Request
from fastapi import Header as HttpHeader
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from app import service_errors
from app.api.body import read_body
from app.api.context import RequestContext
from app.inference.service import Service
from app.jobs.queue import JobQueue
from app.jobs.rows import Job
from app.service_errors import NotAcceptable
from app.telemetry import Stages, Telemetry
from superres import errors
from superres.codecs import Header


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


Query = TypeVar("Query", bound=BaseModel)

LONGEST_DEADLINE_MS = 10**10
"""About four months; a time is a float, which does not hold every integer."""

ServiceDependency = Annotated[Service, Depends(get_service)]
TelemetryDependency = Annotated[Telemetry, Depends(get_telemetry)]
StagesDependency = Annotated[Stages, Depends(get_stages)]


async def get_context(
    request: Request,
    service: ServiceDependency,
    deadline_ms: Annotated[
        int | None,
        HttpHeader(
            alias="X-Deadline-Ms",
            ge=1,
            le=LONGEST_DEADLINE_MS,
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
    with service.admission.reservation(sharer(request)) as reservation:
        yield RequestContext(
            request,
            reservation,
            max_seconds=service.settings.deadline_s,
            deadline_s=None if deadline_ms is None else deadline_ms / 1000,
        )


ContextDependency = Annotated[RequestContext, Depends(get_context)]


def sharer(request: Request) -> str:
    """With whom a request shares memory and device: the name of its key, or else its address.

    Of an IPv6 address, it is the network: a caller has all addresses in it.
    """
    if request.state.caller or request.client is None:
        return str(request.state.caller)
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:  # a proxy's name for it
        return request.client.host
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address.packed, 64), strict=False))


@dataclass(frozen=True)
class Upload:
    """An encoded picture and its header."""

    data: bytes
    header: Header


async def read_upload(
    request: Request, service: Service, context: RequestContext, query: Query
) -> tuple[Upload, Query]:
    """Read the body and the picture's header; the parameters are those of the query and the form.

    It is not a dependency, so that a request whose query is invalid is answered before its body
    is read.

    Args:
        request: the request.
        service: has the limits.
        context: time limit and memory of the request.
        query: parameters of the query; they come before those of the form.

    Raises:
        RequestValidationError: a field of the form is not a valid parameter.
        DeadlineExceeded: the caller's own deadline passed before the body had arrived.
        SuperresError: as :func:`app.api.body.read_body` and
            :meth:`app.decoding.decoders.Decoders.probe`.
    """
    settings = service.settings
    with context.receiving():
        body = await read_body(
            request,
            context.reservation,
            max_bytes=settings.max_body_bytes,
            idle_s=settings.idle_timeout_s,
            bytes_per_s=settings.min_bytes_per_s,
        )
    query = _with_fields(query, body.fields)
    header = await context.within_deadline(
        service.decoders.probe(body.picture, max_pixels=settings.max_input_pixels)
    )
    return Upload(body.picture, header), query


def _with_fields(query: Query, fields: dict[str, str]) -> Query:
    try:
        return type(query).model_validate(fields | query.model_dump(exclude_unset=True))
    except ValidationError as error:
        errors = [one | {"loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(errors) from None


async def get_jobs(request: Request) -> JobQueue:
    """The jobs of this app."""
    jobs: JobQueue = request.state.jobs
    return jobs


async def get_caller(request: Request) -> str | None:
    """The name of the caller's key; None if the service has no keys."""
    return request.state.caller or None


JobsDependency = Annotated[JobQueue, Depends(get_jobs)]
CallerDependency = Annotated[str | None, Depends(get_caller)]


async def find_job(
    job_id: Annotated[UUID, Path(description="As the `Location` of the job has it.")],
    jobs: JobsDependency,
    caller: CallerDependency,
) -> Job:
    """The caller's job with this id.

    Raises:
        JobMissing: no such job, or it belongs to another caller.
    """
    return await jobs.find(job_id, caller)


JobDependency = Annotated[Job, Depends(find_job)]


def upload_body(query: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI of the body that :func:`read_upload` reads, with these parameters."""
    parameters = query.model_json_schema()["properties"]
    return {
        "requestBody": {
            "required": True,
            # Pages of documentation offer the first: one file, and the query for the parameters.
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "properties": {
                            "file": {"type": "string", "format": "binary"},
                            **{name: _present(one) for name, one in parameters.items()},
                        },
                        "additionalProperties": False,
                    }
                },
                "image/*": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    }


def _present(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field that is sent: it is not null, and takes no default."""
    schema = {name: value for name, value in schema.items() if name not in ("default", "title")}
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    return schema | (kinds[0] if kinds else {})


UPLOAD_ERRORS = (
    service_errors.MalformedRequest,
    errors.BodyTooLarge,
    service_errors.BodyTooSlow,
    errors.UnsupportedFormat,
    errors.BadImage,
    errors.AnimatedImage,
    errors.ImageTooLarge,
)
"""Errors that :func:`read_upload` raises."""

ENHANCING_ERRORS = (
    service_errors.NotAcceptable,
    errors.BadRequest,
    errors.ModelMissing,
    errors.EngineError,
    errors.NotReady,
    errors.Busy,
    errors.DeadlineExceeded,
    service_errors.CallerGone,
)
"""Errors of choosing a model and a media type, and of the work itself."""


def negotiate(request: Request, offered: list[str]) -> str:
    """The offered media type that ``Accept`` prefers; among equals, the first.

    Raises:
        NotAcceptable: ``Accept`` allows none of them.
    """
    accept = ", ".join(request.headers.getlist("accept")) or "*/*"
    # Without parameters, such as the version that Prometheus asks for: what is offered has none.
    ranges = [
        (media_range.partition(";")[0], quality)
        for media_range, quality in parse_accept_header(accept, MIMEAccept)
    ]
    best = MIMEAccept(ranges).best_match(offered)
    if best is None:
        raise NotAcceptable(f"the answer can be {', '.join(offered)}; Accept is {accept!r}")
    return best
