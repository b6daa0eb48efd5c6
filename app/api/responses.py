"""Sends pictures: their headers, and bodies that are given up if they are not taken in time."""

import base64
import os
from collections.abc import AsyncIterator
from typing import BinaryIO

import anyio
import anyio.to_thread
from fastapi import Response
from starlette.types import Receive, Scope, Send

from app.inference.enhance import Enhanced
from superres.arrays import Size

CHUNK = 256 * 1024
"""Bytes of an answer that are handed to the connection at a time."""


class TimedResponse(Response):
    """A large body, sent as fast as the caller takes it, and given up after a time limit.

    Starlette's own response hands the whole body to the connection at once. There it would stay,
    counted by nobody, for as long as a slow caller likes.

    Args:
        content: the body.
        seconds: seconds in which the body has to be taken.
        media_type: media type of the body.
        headers: headers besides the length and the type.
    """

    def __init__(
        self, content: bytes, seconds: float, *, media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; if it is given up, uvicorn closes the connection."""
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


class TimedFileResponse(TimedResponse):
    """A :class:`TimedResponse` whose body is in a file.

    Args:
        file: open file, at its start; it is closed after the response.
        seconds, media_type, headers: as for :class:`TimedResponse`.
    """

    def __init__(
        self, file: BinaryIO, seconds: float, *, media_type: str, headers: dict[str, str]
    ) -> None:
        length = {"Content-Length": str(os.fstat(file.fileno()).st_size)}
        super().__init__(b"", seconds, media_type=media_type, headers=headers | length)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, and close the file."""
        with self._file:
            await super().__call__(scope, receive, send)

    async def _parts(self) -> AsyncIterator[bytes]:
        while part := await anyio.to_thread.run_sync(self._file.read, CHUNK):
            yield part


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
