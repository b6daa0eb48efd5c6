"""Reads the body of a request: never more of it than is allowed, and only while it goes on."""

from dataclasses import dataclass, field

import anyio
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.inference.memory import Reservation
from app.service_errors import BodyTooSlow, CallerGone, MalformedRequest
from superres.errors import BodyTooLarge, UnsupportedFormat

MAX_DIGITS = 20
"""Digits of a Content-Length that are read; no body is that long."""
MAX_FIELDS = 32
"""Fields of a form, besides the picture."""
MAX_FIELD_BYTES = 4096
"""Bytes of one such field."""


@dataclass(frozen=True)
class Body:
    """A picture, and the parameters that were sent with it."""

    picture: bytes
    fields: dict[str, str] = field(default_factory=dict)
    """The other fields of a form; of those with the same name, the last."""


async def read_body(
    request: Request,
    reservation: Reservation,
    *,
    max_bytes: int,
    idle_s: float,
    bytes_per_s: float,
) -> Body:
    """Read the picture, as the multipart field ``file`` or as the whole body.

    The body has ``idle_s`` seconds to go on. Each byte that arrives adds ``1 / bytes_per_s``
    seconds, up to ``idle_s`` again. So a body may take as long as it needs, but a pause may not be
    longer than ``idle_s``, and over a longer time the rate may not be lower than ``bytes_per_s``.

    Args:
        request: the request.
        reservation: memory of the request; it grows by every byte that arrives.
        max_bytes: largest body.
        idle_s: longest time without a byte, in seconds.
        bytes_per_s: lowest rate.

    Raises:
        MalformedRequest: there is not exactly one file in the field ``file``.
        UnsupportedFormat: the media type is neither multipart nor that of an image.
        BodyTooLarge: more bytes than allowed.
        BodyTooSlow: the body paused for longer than allowed, or its rate was lower.
        Busy: more bytes than there is memory for, or other callers needed the memory.
        CallerGone: the connection was closed.
    """
    declared = request.headers.get("content-length", "")
    # Python parses no number of any length.
    length = int(declared.lstrip("0")[:MAX_DIGITS] or 0) if declared.isdecimal() else 0
    if length > max_bytes:
        raise _too_large(max_bytes, f"{length:,}")
    scope = anyio.CancelScope(deadline=anyio.current_time() + idle_s)

    async def receive() -> Message:
        message = await request.receive()
        body = message.get("body", b"")
        if reservation.bytes + len(body) > max_bytes:
            raise _too_large(max_bytes, f"over {max_bytes:,}")
        reservation.grow(len(body))
        latest = anyio.current_time() + idle_s
        scope.deadline = min(scope.deadline + len(body) / bytes_per_s, latest)
        return message

    try:
        with scope, reservation.revocable(scope.cancel):
            return await _read_picture(Request(request.scope, receive))
    except ClientDisconnect:
        raise CallerGone("the client disconnected before its body was complete") from None
    reservation.check()
    raise BodyTooSlow(
        f"a body may pause for {idle_s:g} s, and has at least {bytes_per_s:,g} bytes a second; "
        f"this one stopped or was slower after {reservation.bytes:,} bytes"
    )


def is_form(request: Request) -> bool:
    """Whether the body is a form, which can have parameters besides the picture."""
    return _media_type(request) == "multipart/form-data"


def _media_type(request: Request) -> str:
    value = request.headers.get("content-type", "application/octet-stream")
    return value.partition(";")[0].strip().lower()


async def _read_picture(request: Request) -> Body:
    if is_form(request):
        return await _read_form(request)
    media_type = _media_type(request)
    if media_type == "application/octet-stream" or media_type.startswith("image/"):
        return Body(await request.body())
    raise UnsupportedFormat(
        "the body is multipart/form-data with the field 'file', or the picture itself as "
        f"image/* or application/octet-stream; Content-Type is {media_type!r}"
    )


async def _read_form(request: Request) -> Body:
    try:
        async with request.form(
            max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        ) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                sent = ", ".join(form) or "none"
                raise MalformedRequest(
                    f"the picture is sent as a file in the field 'file'; fields sent: {sent}"
                )
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            return Body(await file.read(), fields)
    except HTTPException as error:
        raise MalformedRequest(f"the multipart body cannot be parsed: {error.detail}") from error


def _too_large(max_bytes: int, value: str) -> BodyTooLarge:
    return BodyTooLarge(f"a body has at most {max_bytes:,} bytes; this one has {value}")
