"""What the routes ask for: the service, the uploaded picture, the wanted media type."""

from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from app.service import Service
from app.telemetry import Stages, Telemetry
from superres import errors
from superres.codecs import Picture, decode
from superres.errors import BodyTooLarge, MalformedRequest, NotAcceptable, UnsupportedFormat
from superres.jpeg import jpeg_settings


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


async def read_picture(
    request: Request, service: ServiceDependency, stages: StagesDependency
) -> Picture:
    """Read the body, never more of it than allowed, and decode it in a thread.

    Raises:
        MalformedRequest: not one file in the field ``file``.
        BodyTooLarge: more bytes than allowed.
        UnsupportedFormat: neither multipart nor an image's media type, or no picture.
        BadImage: as :func:`superres.codecs.decode`.
        NotReady: before the body is read, if the answer could not be made anyway.
    """
    service.check_ready()
    data = await _read_body(request, service.settings.max_body_bytes)
    with stages.time("decode"):
        picture = await anyio.to_thread.run_sync(
            lambda: decode(data, max_pixels=service.settings.max_input_pixels)
        )
    # Only a proof asks how the picture was compressed; the bytes are not kept for it.
    request.state.jpeg = jpeg_settings(data)
    return picture


PictureDependency = Annotated[Picture, Depends(read_picture)]

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
"""The OpenAPI of a body that :func:`read_picture` reads."""

UPLOAD_ERRORS = (
    errors.MalformedRequest,
    errors.BodyTooLarge,
    errors.UnsupportedFormat,
    errors.BadImage,
    errors.AnimatedImage,
    errors.ImageTooLarge,
)
"""What :func:`read_picture` raises, besides :class:`superres.errors.NotReady`."""

ENHANCING_ERRORS = (
    errors.NotAcceptable,
    errors.BadRequest,
    errors.ModelMissing,
    errors.EngineError,
    errors.NotReady,
    errors.Busy,
    errors.DeadlineExceeded,
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


async def _read_body(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes, f"{int(declared):,}")
    bounded = _bounded(request, max_bytes)
    media_type = request.headers.get("content-type", "application/octet-stream")
    media_type = media_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return await _read_file_field(bounded)
    if media_type == "application/octet-stream" or media_type.startswith("image/"):
        return await bounded.body()
    raise UnsupportedFormat(
        "the body is multipart/form-data with the field 'file', or the picture itself as "
        f"image/* or application/octet-stream; Content-Type is {media_type!r}"
    )


async def _read_file_field(request: Request) -> bytes:
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                fields = ", ".join(form) or "none"
                raise MalformedRequest(
                    f"the picture is sent as a file in the field 'file'; fields sent: {fields}"
                )
            return await file.read()
    except HTTPException as error:
        raise MalformedRequest(f"the multipart body cannot be parsed: {error.detail}") from error


def _bounded(request: Request, max_bytes: int) -> Request:
    """The same request, whose body ends in an error once it is too long."""
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise _too_large(max_bytes, f"over {max_bytes:,}")
        return message

    return Request(request.scope, receive)


def _too_large(max_bytes: int, value: str) -> BodyTooLarge:
    return BodyTooLarge(f"a body has at most {max_bytes:,} bytes; this one has {value}")
