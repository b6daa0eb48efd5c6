"""One call as it comes and goes: its body, its time, its caller, and its answer."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import anyio.to_thread
from fastapi import Request, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app.inference.admission import Reservation
from app.settings import Settings
from superres.errors import (
    BodyTooLarge,
    BodyTooSlow,
    CallerGone,
    MalformedRequest,
    UnsupportedFormat,
)

CHUNK = 256 * 1024
"""Bytes of an answer that are handed to the connection at a time."""


class Call:
    """A request that works on a picture.

    Args:
        request: the request.
        settings: with its limits.
        reservation: the memory that it holds.
        deadline_s: seconds that the caller waits, if it said so.
    """

    def __init__(
        self,
        request: Request,
        settings: Settings,
        reservation: Reservation,
        deadline_s: float | None = None,
    ) -> None:
        self.reservation = reservation
        self.asked_s = deadline_s
        self.route = request.url.path
        self._request = request
        self._settings = settings
        self.began = time.monotonic()
        self.seconds = min(deadline_s or settings.deadline_s, settings.deadline_s)

    def seconds_left(self) -> float:
        """Until the answer is of no more use; negative if it is not now."""
        return self.began + self.seconds - time.monotonic()

    async def read_body(self) -> bytes:
        """Read the picture, as the multipart field ``file`` or as the whole body.

        Never more of it is read than is allowed and there is memory for, and not for longer.

        Raises:
            MalformedRequest: not one file in the field ``file``.
            UnsupportedFormat: neither multipart nor an image's media type.
            BodyTooLarge: more bytes than allowed.
            BodyTooSlow: it took longer than allowed.
            Busy: more bytes than there is memory for.
            CallerGone: the connection was closed.
        """
        max_bytes = self._settings.max_body_bytes
        declared = self._request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise _too_large(max_bytes, f"{int(declared):,}")
        seconds = self._settings.transfer_timeout_s
        bounded = Request(self._request.scope, self._receive)
        try:
            with anyio.fail_after(seconds):
                return await _read(bounded)
        except TimeoutError:
            raise BodyTooSlow(
                f"a body has {seconds:g} s to arrive; {self.reservation.bytes:,} bytes of this "
                "one did"
            ) from None
        except ClientDisconnect:
            raise CallerGone("the caller hung up before the body was whole") from None

    @contextmanager
    def hung_up(self, then: Callable[[], None]) -> Iterator[None]:
        """Call ``then`` if the caller closes the connection meanwhile. The body has been read."""

        async def watch() -> None:
            while (await self._request.receive())["type"] != "http.disconnect":
                pass
            then()

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _receive(self) -> Message:
        message = await self._request.receive()
        body = message.get("body", b"")
        max_bytes = self._settings.max_body_bytes
        if self.reservation.bytes + len(body) > max_bytes:
            raise _too_large(max_bytes, f"over {max_bytes:,}")
        self.reservation.grow(len(body))
        return message


class Answer(Response):
    """A large body, sent no faster than it is taken, and given up if it is not taken in time.

    Starlette's own hands the whole to the connection at once, where it would stay, counted by
    nobody, for as long as a slow caller likes.

    Args:
        content: the body.
        seconds: in which it has to be taken.
        media_type: of the body.
        headers: besides its length and type.
    """

    def __init__(
        self, content: bytes, seconds: float, *, media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; uvicorn closes the connection of one that is not sent whole."""
        with anyio.move_on_after(self._seconds):
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async for part in self._parts():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _parts(self) -> AsyncIterator[bytes]:
        for first in range(0, len(self.body), CHUNK):
            yield bytes(self.body[first : first + CHUNK])


class FileAnswer(Answer):
    """An :class:`Answer` whose body is in a file.

    Args:
        file: open, at its start; it is closed when it is sent.
        seconds, media_type, headers: as there.
    """

    def __init__(
        self, file: BinaryIO, seconds: float, *, media_type: str, headers: dict[str, str]
    ) -> None:
        length = {"Content-Length": str(os.fstat(file.fileno()).st_size)}
        super().__init__(b"", seconds, media_type=media_type, headers=headers | length)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and close the file."""
        with self._file:
            await super().__call__(scope, receive, send)

    async def _parts(self) -> AsyncIterator[bytes]:
        while part := await anyio.to_thread.run_sync(self._file.read, CHUNK):
            yield part


async def _read(request: Request) -> bytes:
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
