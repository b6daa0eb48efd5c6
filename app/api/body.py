"""Reads the body of a request: never more of it than is allowed, and never for longer."""

import anyio
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.inference.admission import Reservation
from app.service_errors import BodyTooSlow, CallerGone, MalformedRequest
from superres.errors import BodyTooLarge, UnsupportedFormat


async def read_body(
    request: Request, reservation: Reservation, *, max_bytes: int, timeout_s: float
) -> bytes:
    """Read the picture, as the multipart field ``file`` or as the whole body.

    Args:
        request: the request.
        reservation: memory of the request; it grows by every byte that arrives.
        max_bytes: largest body.
        timeout_s: seconds in which the body has to arrive.

    Raises:
        MalformedRequest: there is not exactly one file in the field ``file``.
        UnsupportedFormat: the media type is neither multipart nor that of an image.
        BodyTooLarge: more bytes than allowed.
        BodyTooSlow: the body took longer than allowed.
        Busy: more bytes than there is memory for.
        CallerGone: the connection was closed.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes, f"{int(declared):,}")

    async def receive() -> Message:
        message = await request.receive()
        body = message.get("body", b"")
        if reservation.bytes + len(body) > max_bytes:
            raise _too_large(max_bytes, f"over {max_bytes:,}")
        reservation.grow(len(body))
        return message

    try:
        with anyio.fail_after(timeout_s):
            return await _read_picture(Request(request.scope, receive))
    except TimeoutError:
        raise BodyTooSlow(
            f"a body has {timeout_s:g} s to arrive; {reservation.bytes:,} bytes of this one did"
        ) from None
    except ClientDisconnect:
        raise CallerGone("the client disconnected before its body was complete") from None


async def _read_picture(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "application/octet-stream")
    media_type = media_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return await _read_file_field(request)
    if media_type == "application/octet-stream" or media_type.startswith("image/"):
        return await request.body()
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


def _too_large(max_bytes: int, value: str) -> BodyTooLarge:
    return BodyTooLarge(f"a body has at most {max_bytes:,} bytes; this one has {value}")
