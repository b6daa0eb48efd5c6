"""The service's side of decoding: sends uploads to the fork server, and waits for results."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from app.decoding.forkserver import DONE, FAILED
from app.decoding.shared import Task, read_values, write_file
from superres import errors
from superres.codecs import Header, Picture
from superres.errors import BadImage, Busy, NotReady

FORK_SERVER = "app.decoding.forkserver"
"""Module of the process that forks; replaced in tests."""
MAX_PROBES = 64
"""Headers that are read at once; others wait."""
PROBE_BYTES = 2**28
"""Most bytes of memory for reading a header, besides the upload."""
PROBE_SECONDS = 0.25
"""Most seconds of processor time for reading a header; a photograph's takes a few milliseconds."""
DECODE_BYTES = 2**26
"""Most bytes of memory for decoding, besides the forecast of the request."""
DECODE_SECONDS = 5.0
"""Most seconds of processor time for decoding a picture of no pixels."""
DECODE_SECONDS_PER_MEGAPIXEL = 1.0
"""Seconds besides, for each megapixel; the slowest pictures that people send take a tenth."""
CHECK_S = 0.05
"""Seconds between two checks whether the answer is still wanted."""

logger = logging.getLogger("superres")


class Decoders:
    """Reads headers and pictures, each in a process of its own.

    A process ends when it has answered, when the task that waits for it is cancelled, and when it
    exceeds its limits on memory and processor time.
    """

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._probes = CapacityLimiter(MAX_PROBES)
        self._threads = CapacityLimiter(4)
        """Of those that copy uploads."""

    def start(self) -> None:
        """Start the fork server; it takes what it gets once it has imported the decoders."""
        self.close()
        self._control, theirs = socket.socketpair()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SUPERRES_")
        }
        # A process with several threads must not fork.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with theirs:
            self._server = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", FORK_SERVER, str(theirs.fileno())],
                env=environment | threads | path,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C ends the service, which drains first
            )

    def close(self) -> None:
        """End the fork server, and all processes that decode."""
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            self._server.wait()
        self._control = self._server = None

    async def probe(self, data: bytes, *, max_pixels: int) -> Header:
        """Read the header of a picture; see :func:`superres.codecs.probe`.

        Raises:
            BadImage: as there, or reading it takes too much time or memory.
            NotReady: the fork server has ended.
            Busy: no process can be started.
        """
        task = Task("probe", max_pixels, PROBE_BYTES + 2 * len(data), PROBE_SECONDS)
        async with self._probes:
            return Header(**await self._run(task, data, lambda: None))

    async def decode(
        self,
        data: bytes,
        header: Header,
        *,
        max_bytes: int,
        check: Callable[[], None],
        srgb: bool = False,
        strip_metadata: bool = False,
    ) -> Picture:
        """Decode a picture; see :func:`superres.codecs.decode`.

        Args:
            data: the encoded file.
            header: its header, which was checked.
            max_bytes: memory that was reserved for the picture.
            check: called often; what it raises ends the decoding.
            srgb: whether the colours are converted to sRGB.
            strip_metadata: whether EXIF and XMP are left out.

        Raises:
            BadImage: as there, or decoding it takes too much time or memory, or crashes.
            NotReady, Busy: as :meth:`probe`.
        """
        pixels = header.size[0] * header.size[1]
        seconds = DECODE_SECONDS + DECODE_SECONDS_PER_MEGAPIXEL * pixels / 1e6
        task = Task(
            "decode",
            sys.maxsize,  # the limit was checked on the header
            DECODE_BYTES + max_bytes,
            seconds,
            srgb=srgb,
            strip_metadata=strip_metadata,
        )
        return Picture(**await self._run(task, data, check))

    async def _run(self, task: Task, data: bytes, check: Callable[[], None]) -> dict[str, Any]:
        """Do a task in a process; the result's attributes."""
        ours, theirs = socket.socketpair()
        with ours:  # if it is closed before the answer, the process is killed
            with theirs:
                upload = await anyio.to_thread.run_sync(write_file, data, limiter=self._threads)
                try:
                    self._send(task, theirs, upload)
                finally:
                    os.close(upload)
            readable = False
            while not readable:
                check()
                with anyio.move_on_after(CHECK_S):
                    await anyio.wait_readable(ours)
                    readable = True
            answer, descriptors, *_ = socket.recv_fds(ours, 1, 1)
        if answer == bytes([DONE]) and descriptors:
            values = read_values(descriptors[0])
            if "error" in values:
                raise _to_error(values)
            return values
        raise _failure(task, answer)

    def _send(self, task: Task, connection: socket.socket, upload: int) -> None:
        if self._server is None or self._server.poll() is not None:
            if self._server is not None:
                logger.error("the fork server ended with %s", self._server.returncode)
            self.start()
        assert self._control is not None  # noqa: S101
        try:
            socket.send_fds(self._control, [task.to_bytes()], [connection.fileno(), upload])
        except OSError as error:
            raise NotReady(f"no picture can be read now: {error}") from error


def _to_error(values: dict[str, Any]) -> Exception:
    """The error that a process has answered with."""
    kind = getattr(errors, values["error"], None)
    if isinstance(kind, type) and issubclass(kind, BadImage):
        return kind(values["message"])
    if values["error"] == "MemoryError":
        return BadImage("the picture asks for more memory than its pixels need")
    return RuntimeError(f"{values['error']} in a process that decodes: {values['message']}")


def _failure(task: Task, answer: bytes) -> Exception:
    """The error for a task that ended without a result."""
    work = "reading its header" if task.operation == "probe" else "decoding it"
    if not answer:
        return NotReady("the process that reads pictures has ended, and is started again")
    if answer[0] == FAILED:
        return Busy("no process can be started that reads the picture")
    if answer[0] == signal.SIGPROF:
        return BadImage(
            f"{work} takes more than {task.max_seconds:.4g} s of processor time, the most for a "
            "picture of its size: save it again in a simpler form"
        )
    name = signal.Signals(answer[0]).name
    logger.warning("a process that reads a picture ended by %s: %s", name, task.operation)
    return BadImage(f"the decoder crashed while {work} ({name}): the file is damaged")
