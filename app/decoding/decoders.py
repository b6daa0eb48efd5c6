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
MAX_IDLE = 4
"""Processes that are kept for the next upload, of a few megabytes each."""
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
SERVER_ENDED = 0
"""Reason for no answer, where the fork server does not say another."""

logger = logging.getLogger("superres")


class _Process:
    """A process that reads uploads, one at a time."""

    def __init__(self, control: socket.socket) -> None:
        self._connection, theirs = socket.socketpair()
        self._lifeline, servers = socket.socketpair()
        with theirs, servers:
            self._connection.setblocking(False)
            socket.send_fds(control, [b"\0"], [theirs.fileno(), servers.fileno()])

    def close(self) -> None:
        """Kill it."""
        self._lifeline.close()
        self._connection.close()

    def is_alive(self) -> bool:
        """Whether an idle process still waits for a task."""
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    async def run(
        self, task: Task, upload: int, check: Callable[[], None]
    ) -> tuple[int, int | None]:
        """Do a task: the answer, or the reason for no answer, and the descriptor of the result."""
        socket.send_fds(self._connection, [task.to_bytes()], [upload])
        readable = False
        while not readable:
            check()
            with anyio.move_on_after(CHECK_S):
                await anyio.wait_readable(self._connection)
                readable = True
        answer, descriptors, *_ = socket.recv_fds(self._connection, 1, 1)
        if answer:
            return answer[0], descriptors[0]
        await anyio.wait_readable(self._lifeline)
        reason = self._lifeline.recv(1)
        return (reason[0] if reason else SERVER_ENDED), None


class Decoders:
    """Reads headers and pictures in processes.

    A process reads one upload at a time. It is killed if the task that waits for it is cancelled,
    and if it exceeds its limits on memory and processor time.
    """

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._idle: list[_Process] = []
        self._probes = CapacityLimiter(MAX_PROBES)
        self._threads = CapacityLimiter(4)
        """Of those that copy uploads."""

    def start(self) -> None:
        """Start the fork server; it does what it gets once it has imported the decoders."""
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
        """End the fork server, and all processes that it has started."""
        while self._idle:
            self._idle.pop().close()
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
            BadImage: as there; decoding it takes too much time or memory, or crashes; or the
                picture has another size than its header says.
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
        picture = Picture(**await self._run(task, data, check))
        if picture.size != header.size:  # the limits, and the memory, were those of the header
            (height, width), (other_height, other_width) = header.size, picture.size
            raise BadImage(
                f"the picture's header says {width}x{height}, and its pixels are "
                f"{other_width}x{other_height}: open it in an image editor, and save it again"
            )
        return picture

    async def _run(self, task: Task, data: bytes, check: Callable[[], None]) -> dict[str, Any]:
        """Do a task in a process; the result's attributes."""
        upload = await anyio.to_thread.run_sync(write_file, data, limiter=self._threads)
        process: _Process | None = None
        try:
            process = self._take()
            answer, result = await process.run(task, upload, check)
            if answer == DONE and len(self._idle) < MAX_IDLE:
                self._idle.append(process)
                process = None
        except OSError as error:
            raise NotReady(f"no picture can be read now: {error}") from error
        finally:
            os.close(upload)
            if process is not None:
                process.close()
        if result is None:
            raise _failure(task, answer)
        values = read_values(result)
        if "error" in values:
            raise _to_error(values)
        return values

    def _take(self) -> _Process:
        """A process that is idle, or a new one."""
        while self._idle:
            if (process := self._idle.pop()).is_alive():
                return process
            process.close()
        if self._server is None or self._server.poll() is not None:
            if self._server is not None:
                logger.error("the fork server ended with %s", self._server.returncode)
            self.start()
        assert self._control is not None  # noqa: S101
        return _Process(self._control)


def _to_error(values: dict[str, Any]) -> Exception:
    """The error that a process has answered with."""
    kind = getattr(errors, values["error"], None)
    if isinstance(kind, type) and issubclass(kind, BadImage):
        return kind(values["message"])
    if values["error"] == "MemoryError":
        return BadImage("the picture asks for more memory than its pixels need")
    return RuntimeError(f"{values['error']} in a process that decodes: {values['message']}")


def _failure(task: Task, reason: int) -> Exception:
    """The error for a task that ended without a result."""
    work = "reading its header" if task.operation == "probe" else "decoding it"
    if reason == SERVER_ENDED:
        return NotReady("the process that reads pictures has ended, and is started again")
    if reason == FAILED:
        return Busy("no process can be started that reads the picture")
    if reason == signal.SIGPROF:
        return BadImage(
            f"{work} takes more than {task.max_seconds:.4g} s of processor time, the most for a "
            "picture of its size: save it again in a simpler form"
        )
    name = signal.Signals(reason).name
    logger.warning("a process that reads a picture ended by %s: %s", name, task.operation)
    return BadImage(f"the decoder crashed while {work} ({name}): the file is damaged")
