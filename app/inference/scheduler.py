"""The device's owner: queues the tiles of all requests and batches them in turn.

Each request gets a :class:`Turn`, an Engine of its own, whose ``predict`` puts tiles in
the queue and waits. One thread takes them, a tile a request and round again, so that a
thumbnail does not wait behind a panorama, and runs tiles of one model and shape as one
batch on the real engine. Where the devices are those of a cluster, a few threads do, each
a tile at a time, so that one picture's tiles spread over them.
"""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from structlog.contextvars import get_contextvars

from superres.arrays import TileBatch
from superres.engine import BATCH, Engine
from superres.errors import CallerGone, DeadlineExceeded, EngineError, NotReady, SuperresError

logger = logging.getLogger("superres")


@dataclass(eq=False)
class _Ticket:
    """One ``predict`` in the queue."""

    engine: Engine
    tiles: TileBatch
    queued_at: float
    answers: dict[int, np.ndarray] = field(default_factory=dict)
    """By the tile's number."""
    taken: int = 0
    waited: float = 0.0
    """Seconds until its first tile was taken."""
    error: SuperresError | None = None
    request_id: str = field(default_factory=lambda: get_contextvars().get("request_id", ""))
    done: threading.Event = field(default_factory=threading.Event)

    def may_share(self, other: "_Ticket") -> bool:
        """Whether tiles of both can be one batch."""
        return (
            self.engine is other.engine
            and self.tiles.shape[1:] == other.tiles.shape[1:]
            and self.tiles.dtype == other.tiles.dtype
        )


class Worker:
    """Owns the device: what calls its engines, with one batch in flight.

    Args:
        tiles_in_flight: of engines that are many devices, the tiles that are with them at once,
            one a call; none for a device that does one thing at a time.
    """

    def __init__(self, tiles_in_flight: int | None = None) -> None:
        self._queue: deque[_Ticket] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._most = BATCH if tiles_in_flight is None else 1
        self._running = 0
        """Batches that are with an engine."""
        self._moved_at = time.monotonic()
        self.done_tiles = 0
        """Tiles that have been answered."""
        self._threads = [
            threading.Thread(target=self._run, name="device", daemon=True)
            for _ in range(tiles_in_flight or 1)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued_tiles(self) -> int:
        """Tiles that wait for the device."""
        with self._changed:
            return sum(len(ticket.tiles) - ticket.taken for ticket in self._queue)

    @property
    def stalled_seconds(self) -> float:
        """How long the oldest tile has not moved; 0 where there is none."""
        with self._changed:
            at_work = self._running or bool(self._queue)
            return time.monotonic() - self._moved_at if at_work else 0.0

    def close(self, seconds: float = 3) -> None:
        """Stop; what still waits is told so.

        Args:
            seconds: that the last batch may take; a device that hangs is left alone.
        """
        with self._changed:
            self._closed = True
            for ticket in self._queue:
                ticket.error = NotReady("the service is stopping")
                ticket.done.set()
            self._queue.clear()
            self._changed.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0, until - time.monotonic()))

    def answer(self, ticket: _Ticket, *, timeout: float) -> bool:
        """Queue a ticket and wait until it is answered; false if that took too long.

        Raises:
            CallerGone: it was withdrawn.
            EngineError: the device failed.
            NotReady: the service is stopping.
        """
        with self._changed:
            if self._closed:
                raise NotReady("the service is stopping")
            if ticket.error is not None:
                raise ticket.error
            if not (self._running or self._queue):
                self._moved_at = time.monotonic()
            self._queue.append(ticket)
            self._changed.notify_all()
        if not ticket.done.wait(timeout):
            self.withdraw(ticket)
            return False
        if ticket.error is not None:
            raise ticket.error
        return True

    def withdraw(self, ticket: _Ticket, error: SuperresError | None = None) -> None:
        """Take what is left of a ticket out of the queue; an error wakes who waits for it."""
        with self._changed:
            if ticket in self._queue:
                self._queue.remove(ticket)
            if error is not None:
                ticket.error = error
                ticket.done.set()

    def _run(self) -> None:
        # A call for each batch, so that nothing holds on to an engine while the next is awaited.
        while self._run_batch():
            with self._changed:
                self._running -= 1
                self._moved_at = time.monotonic()

    def _run_batch(self) -> bool:
        """Wait for a batch and answer it; false when closed."""
        batch = self._next_batch()
        if not batch:
            return False
        tickets = [ticket for ticket, _ in batch]
        try:
            answers = tickets[0].engine.predict(
                np.stack([ticket.tiles[index] for ticket, index in batch])
            )
        except SuperresError as error:
            self._fail(tickets, error)
        except Exception:
            requests = sorted({ticket.request_id for ticket in tickets})
            logger.exception("the engine failed", extra={"requests": requests})
            self._fail(
                tickets, EngineError("the device failed in an unforeseen way; the log says how")
            )
        else:
            with self._changed:
                self.done_tiles += len(batch)
            for (ticket, index), answer in zip(batch, answers, strict=True):
                ticket.answers[index] = answer
                if len(ticket.answers) == len(ticket.tiles):
                    ticket.done.set()
        return True

    def _next_batch(self) -> list[tuple[_Ticket, int]]:
        """Wait for tiles, and take up to a batch that can run together; none when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._running += bool(self._queue)
            batch: list[tuple[_Ticket, int]] = []
            while len(batch) < self._most:
                ticket = self._next_ticket(batch[0][0] if batch else None)
                if ticket is None:
                    break
                if ticket.taken == 0:
                    ticket.waited = time.monotonic() - ticket.queued_at
                batch.append((ticket, ticket.taken))
                ticket.taken += 1
                if ticket.taken < len(ticket.tiles):
                    self._queue.append(ticket)
            return batch

    def _next_ticket(self, other: _Ticket | None) -> _Ticket | None:
        """Take the longest-waiting ticket out of the queue, or the first that fits the other."""
        for position, ticket in enumerate(self._queue):
            if other is None or ticket.may_share(other):
                del self._queue[position]
                return ticket
        return None

    def _fail(self, tickets: list[_Ticket], error: SuperresError) -> None:
        for ticket in tickets:
            self.withdraw(ticket, error)


class Turn:
    """One request's engine: its tiles go through the queue, until its time is up.

    ``queue_seconds`` and ``infer_seconds`` add up what its tiles waited and took.

    Args:
        worker: the device's owner.
        engine: that answers all of them, whatever is loaded meanwhile.
        seconds: after which the work is given up.
        since: when they began, by :func:`time.monotonic`; now unless given.
    """

    def __init__(
        self, worker: Worker, engine: Engine, seconds: float, since: float | None = None
    ) -> None:
        self._worker = worker
        self.engine = engine
        self._seconds = seconds
        self._deadline = seconds + (time.monotonic() if since is None else since)
        self._ticket: _Ticket | None = None
        self._gone = False
        self.queue_seconds = 0.0
        self.infer_seconds = 0.0

    def cancel(self) -> None:
        """Give the work up, from any thread: nobody waits for it."""
        self._gone = True
        if ticket := self._ticket:
            self._worker.withdraw(ticket, CallerGone("the caller hung up"))

    def check(self) -> None:
        """Return if the work is still wanted.

        Raises:
            CallerGone: it was cancelled.
            DeadlineExceeded: the request's time is up.
        """
        if self._gone:
            raise CallerGone("the caller hung up")
        if time.monotonic() >= self._deadline:
            raise self._late()

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Queue the tiles and wait for the answers; see :meth:`superres.engine.Engine.predict`.

        Raises:
            CallerGone: the work was cancelled.
            DeadlineExceeded: the request's time is up.
            EngineError: the device failed.
            NotReady: the service is stopping.
        """
        started = time.monotonic()
        ticket = _Ticket(self.engine, tiles, started)
        self._ticket = ticket
        self.check()  # after the ticket can be seen, so that no cancelling is missed
        if not self._worker.answer(ticket, timeout=self._deadline - started):
            raise self._late()
        self.queue_seconds += ticket.waited
        self.infer_seconds += time.monotonic() - started - ticket.waited
        return np.stack([ticket.answers[index] for index in range(len(tiles))])

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the request had {self._seconds:g} s; its picture was not done by then"
        )
