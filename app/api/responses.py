"""Sends pictures: their headers, and bodies that are given up if nobody takes them."""

import base64
import os
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

import anyio
import anyio.to_thread
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send
from werkzeug.http import parse_range_header

from app.api.etag import digest_etag
from app.inference.enhance import Enhanced
from app.inference.memory import Reservation
from app.service_errors import RangeNotSatisfiable
from superres.arrays import Size

CHUNK = 64 * 1024
"""Bytes of an answer that are handed to the connection at a time."""


class PatientResponse(Response):
    """A large body, sent as fast as the caller takes it, and given up after a pause.

    Starlette's own response hands the whole body to the connection at once. There it would stay,
    counted by nobody, for as long as a slow caller likes.

    Args:
        content: the body.
        idle_s: seconds in which the next part of the body has to be taken.
        reservation: memory of the body; for other callers, it can be taken back.
        status: the status.
        media_type: media type of the body.
        headers: headers besides the length and the type.
    """

    def __init__(
        self,
        content: bytes,
        idle_s: float,
        reservation: Reservation | None = None,
        *,
        status: int = 200,
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(content, status, media_type=media_type, headers=headers)
        self._idle_s = idle_s
        self._reservation = reservation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; if it is given up, uvicorn closes the connection."""
        with anyio.CancelScope() as sending, self._revocable(sending):
            sending.deadline = anyio.current_time() + self._idle_s
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async for part in self._parts():
                sending.deadline = anyio.current_time() + self._idle_s
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _revocable(self, sending: anyio.CancelScope) -> AbstractContextManager[None]:
        if self._reservation is None:
            return nullcontext()
        return self._reservation.revocable(sending.cancel, answers=True)

    async def _parts(self) -> AsyncIterator[bytes]:
        for first in range(0, len(self.body), CHUNK):
            yield bytes(self.body[first : first + CHUNK])


class PatientFileResponse(PatientResponse):
    """A :class:`PatientResponse` whose body is in a file, or in a part of it.

    Args:
        file: open file; it is closed after the response.
        idle_s, media_type, headers: as for :class:`PatientResponse`.
        request: its ``Range`` and ``If-Range`` say which part is sent.

    Raises:
        RangeNotSatisfiable: the part is not in the file.
    """

    def __init__(
        self,
        file: BinaryIO,
        idle_s: float,
        *,
        media_type: str,
        headers: dict[str, str],
        request: Request,
    ) -> None:
        size = os.fstat(file.fileno()).st_size
        headers = headers | {"Accept-Ranges": "bytes"}
        digest = headers.get("Content-Digest")
        if digest is not None:
            headers["ETag"] = digest_etag(digest)
        part = _requested_part(request, size, headers.get("ETag"))
        self._start, self._end = part or (0, size)
        if part is not None:
            headers["Content-Range"] = f"bytes {self._start}-{self._end - 1}/{size}"
            if digest is not None:  # of the whole, and not of what is sent now (RFC 9530)
                headers["Repr-Digest"] = headers.pop("Content-Digest")
        headers["Content-Length"] = str(self._end - self._start)
        super().__init__(
            b"",
            idle_s,
            status=200 if part is None else 206,
            media_type=media_type,
            headers=headers,
        )
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, and close the file."""
        with self._file:
            await super().__call__(scope, receive, send)

    async def _parts(self) -> AsyncIterator[bytes]:
        await anyio.to_thread.run_sync(self._file.seek, self._start)
        left = self._end - self._start
        while part := await anyio.to_thread.run_sync(self._file.read, min(CHUNK, left)):
            left -= len(part)
            yield part


def _requested_part(request: Request, size: int, etag: str | None) -> tuple[int, int] | None:
    """The first byte that ``Range`` asks for, and the one after the last; None for the whole.

    That is also the answer to more than one range, to one that cannot be parsed, and to an
    ``If-Range`` that is not the tag of this file.

    Raises:
        RangeNotSatisfiable: it asks for what the file does not have.
    """
    asked = parse_range_header(request.headers.get("range"))
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    if request.headers.get("if-range", etag) != etag:
        return None
    start, end = asked.ranges[0]
    if start < 0:
        start = max(0, size + start)
    if start >= size:
        raise RangeNotSatisfiable(
            f"the result has {size:,} bytes; Range is {request.headers['range'][:100]!r}", size
        )
    return start, size if end is None else min(end, size)


def enhanced_headers(enhanced: Enhanced) -> dict[str, str]:
    """The headers of an enhanced picture; those without a value are left out."""
    headers = {
        "X-Model": enhanced.made_by,
        "X-Input-Size": _width_by_height(enhanced.input_size),
        "X-Output-Size": _width_by_height(enhanced.output_size),
        "X-Notes": enhanced.notes,
        "Server-Timing": _server_timing(enhanced.timings),
        "Content-Digest": f"sha-256=:{base64.b64encode(enhanced.sha256).decode()}:",
        "Vary": "Accept",
    }
    if (proof := enhanced.proof) is not None:
        headers["X-Proof-Gain-dB"] = _decibels(proof.gain_db)
        headers["X-Proof-Bicubic-dB"] = _decibels(proof.bicubic_psnr_y)
        headers["X-Proof-Model-dB"] = _decibels(proof.sr_psnr_y)
    return {name: value for name, value in headers.items() if value}


def _server_timing(timings: dict[str, float]) -> str:
    """The value of ``Server-Timing``, in milliseconds."""
    return ", ".join(f"{stage};dur={1000 * s:.1f}" for stage, s in timings.items())


def _width_by_height(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _decibels(value: float) -> str:
    """Two decimals; infinity spelled out, as in the JSON."""
    return f"{value:.2f}".replace("inf", "infinity")
