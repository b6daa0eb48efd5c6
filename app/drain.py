"""The end of a process: requests in flight finish, or are answered 503.

After SIGTERM the service still listens: it answers new requests with 503, and ``/readyz`` says why,
until the work in flight is done or ``SUPERRES_DRAIN_S`` is over. Then it closes the socket. Only a
client that connects at that moment is refused by the kernel.
"""

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import to_response
from app.inference.service import Service
from superres.errors import NotReady

LAST_ANSWERS_S = 5
"""Seconds, after the bound, in which answers under way may still be taken."""
LINGER_S = 0.5
"""Seconds in which who connected just before the end is still answered, and in which the rest of
a body is taken that nobody wants: to close before it is there would cut the answer, too."""
END_S = 12.0
"""Seconds, after the bound, in which the process ends, also if a thread of it does not."""

logger = logging.getLogger("superres")


@dataclass(eq=False)
class _Exchange:
    """A request that is not answered yet, or not wholly."""

    scope: Scope
    receive: Receive
    send: Send
    body_is_whole: bool = False
    started: bool = False
    refused: bool = False


class Drain:
    """Knows what is in flight.

    Args:
        service: it stops accepting work when the end begins.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._exchanges: set[_Exchange] = set()

    @property
    def in_flight(self) -> int:
        """Requests that are not wholly answered."""
        return len(self._exchanges)

    @property
    def draining(self) -> bool:
        """Whether the end has begun."""
        return self._service.draining

    @property
    def failed(self) -> bool:
        """Whether the service could not start: there will never be a model to serve."""
        return self._service.models.failure is not None

    def begin(self) -> float:
        """Accept no more work; the seconds that what is in flight may take."""
        self._service.draining = True
        return self._service.settings.drain_s

    async def finish(self, given_up: Callable[[], bool] = lambda: False) -> None:
        """Accept no more work; return when what is in flight is done, or refused.

        Args:
            given_up: whether it is not waited for any longer.
        """
        until = time.monotonic() + self.begin()
        logger.info("stopping: %d requests in flight", self.in_flight)
        while self.in_flight and time.monotonic() < until and not given_up():
            await asyncio.sleep(0.05)
        await self.refuse_the_rest()

    async def refuse_the_rest(self) -> None:
        """Answer 503 to all whose answer has not begun.

        Their work stops as it does when the client disconnects.
        """
        rest = [one for one in self._exchanges if not one.started]
        if rest:
            logger.warning("%d requests were not done in time, and are refused", len(rest))
        for exchange in rest:
            exchange.started = exchange.refused = True
            response = to_response(
                Request(exchange.scope),
                NotReady("the service stopped before this was done; try again", retry_after=5),
            )
            response.headers["Connection"] = "close"
            await response(exchange.scope, exchange.receive, exchange.send)

    async def follow(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a request, and know of it until it is answered."""
        exchange = _Exchange(scope, receive, send)

        async def receive_and_note() -> Message:
            message = await receive()
            exchange.body_is_whole = not message.get("more_body", False)
            return message

        async def send_unless_refused(message: Message) -> None:
            if exchange.refused:
                return
            if message["type"] == "http.response.start":
                exchange.started = True
                if self.draining:
                    MutableHeaders(scope=message)["Connection"] = "close"
                if b"expect" not in dict(scope["headers"]):  # who expects a word sends no body yet
                    with anyio.move_on_after(LINGER_S):
                        while not exchange.body_is_whole:
                            await receive_and_note()
            await send(message)

        self._exchanges.add(exchange)
        try:
            await app(scope, receive_and_note, send_unless_refused)
        finally:
            self._exchanges.remove(exchange)


class DrainMiddleware:
    """Has a :class:`Drain` follow every request."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._drain.follow(self._app, scope, receive, send)


class Server(uvicorn.Server):
    """Uvicorn's, but it goes on listening while what is in flight is finished.

    Args:
        config: uvicorn's.
        drain: the app's, as ``app.state.drain``.
        end_s: seconds, after the bound, in which the process is to end; by default it ends when
            its threads have ended.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, *, end_s: float | None = None) -> None:
        super().__init__(config)
        self._drain = drain
        self._end_s = end_s

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop: also if no model can be served, so that whoever runs this notices."""
        return await super().on_tick(counter) or self._drain.failed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is in flight, refuse the rest, and only then close."""
        await self._drain.finish(lambda: self.force_exit)
        if self._end_s is not None:
            _end_process_after(self._end_s)
        for server in self.servers:
            server.close()
        if self.server_state.connections:
            await asyncio.sleep(LINGER_S)
        await super().shutdown(sockets)


def serve(app: ASGIApp, drain: Drain, *, host: str, port: int, end_s: float | None = None) -> None:
    """Serve until SIGTERM or SIGINT; a second SIGINT does not wait.

    The arguments are those of :class:`Server` and of uvicorn.

    Raises:
        SystemExit: the service could not start; the log says why.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        timeout_graceful_shutdown=LAST_ANSWERS_S,
        log_config=None,
        access_log=False,  # the middleware's line says more, and no query
    )
    Server(config, drain, end_s=end_s).run()
    if drain.failed:
        raise SystemExit(1)


def _end_process_after(seconds: float) -> None:
    """End the process by then; what is on the disk is whole at every moment.

    Without this, Python would wait for each thread, such as one that encodes a large picture.
    """

    def end() -> None:
        logger.warning("a thread still works after %g s: the process ends without it", seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
