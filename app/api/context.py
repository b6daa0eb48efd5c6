"""What a request that works on a picture has: time, memory and a connection."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio
from fastapi import Request

from app.inference.memory import Reservation
from app.service_errors import CallerGone
from superres.errors import DeadlineExceeded

Result = TypeVar("Result")


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
        self._max_seconds = max_seconds
        self._request = request

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Within the block, the body is received, which only the caller's own deadline limits.

        Raises:
            DeadlineExceeded: the caller's deadline has passed.
        """
        seconds = math.inf if self.requested_deadline_s is None else self.requested_deadline_s
        with anyio.move_on_after(seconds - (time.monotonic() - self.started)) as scope:
            yield
        if scope.cancelled_caught:
            raise DeadlineExceeded(
                f"the request had {seconds:g} s; its body had not arrived by then"
            )
        now = time.monotonic()
        if self.started + seconds > now + self._max_seconds:
            self.started, self.seconds = now, self._max_seconds
        else:
            self.seconds = seconds

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

    async def within_deadline(self, work: Awaitable[Result]) -> Result:
        """Await what comes before the work; it is cancelled when nobody waits for it any more.

        The body has to be read before.

        Raises:
            CallerGone: the caller closed the connection.
            DeadlineExceeded: the deadline has passed.
        """
        gone = anyio.Event()

        def leave() -> None:
            gone.set()
            scope.cancel()

        left = max(0.0, self.seconds_left())
        with anyio.move_on_after(left) as scope, self.on_disconnect(leave):
            return await work
        if gone.is_set():
            raise CallerGone("the client disconnected before the work was begun")
        raise DeadlineExceeded(f"the request had {self.seconds:g} s; it was not begun by then")
