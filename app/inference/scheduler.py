"""The owner of the device: it queues the tiles of all requests and batches them fairly.

Each request has a :class:`ScheduledEngine`, an Engine of its own, whose ``predict`` queues tiles
and waits for the answers. Threads take tiles from the queue: of the caller that has used the
device least, one from each of its requests in turn. So a thumbnail does not wait behind a panorama,
and a caller with one request not behind another one's dozen. They run tiles of one model and shape
as one batch on the real engine, and as many batches at once as it takes: a GPU one, a CPU several,
and on a cluster, where an engine stands for many devices, one for each device or more.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from structlog.contextvars import get_contextvars

from superres.arrays import TileBatch
from superres.engines.base import Engine
from superres.errors import EngineError, NotReady, SuperresError

THREAD_ENDED = "a thread of the device has ended; the service has to be started again"

logger = logging.getLogger("superres")

CATCH_UP_S = 1.0
"""Seconds of batches that a caller gets back, of what it left to others while it had no tiles in
the queue: a request queues the tiles of a few rows, and works on the answers before the next."""


class DeviceEngine(Engine, Protocol):
    """An engine that runs a model itself, for the scheduler."""

    @property
    def batch(self) -> int:
        """Most tiles in a call of ``predict``."""

    @property
    def calls_at_once(self) -> int:
        """Most calls of ``predict`` at once, those of other engines on the device included."""


@dataclass(eq=False)
class PendingBatch:
    """The tiles of one call of ``predict``, and their answers."""

    engine: DeviceEngine
    tiles: TileBatch
    queued_at: float
    upscale: int = 1
    """Pixels of an answer per pixel of its tile, along a side."""
    answers: dict[int, np.ndarray] = field(default_factory=dict)
    """Answers so far, by the index of the tile."""
    dispatched: int = 0
    """Number of tiles that have left the queue."""
    wait_seconds: float = 0.0
    """Seconds until the first tile left the queue."""
    error: SuperresError | None = None
    caller: str = ""
    request_id: str = field(default_factory=lambda: get_contextvars().get("request_id", ""))
    done: threading.Event = field(default_factory=threading.Event)

    def is_compatible(self, other: "PendingBatch") -> bool:
        """Whether tiles of both can run as one batch."""
        return (
            self.engine is other.engine
            and self.tiles.shape[1:] == other.tiles.shape[1:]
            and self.tiles.dtype == other.tiles.dtype
        )


class BatchScheduler:
    """Owns the device: its threads alone call the engines.

    Args:
        threads: most batches that the engines have at once, if they take so many.
    """

    def __init__(self, threads: int) -> None:
        self._queue: deque[PendingBatch] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._running: list[DeviceEngine] = []
        """The engine of each batch that is being worked on."""
        self._progressed_at = time.monotonic()
        self._used: dict[str, float] = {}
        """Seconds of the device that each caller has used, beginning at those of the others."""
        self._least_used = 0.0
        """Those of the caller whose tile left the queue last, before that tile."""
        self._tile_seconds = 0.001
        """Seconds of a tile in the last batch."""
        self.done_tiles = 0
        """Number of tiles that have been answered."""
        self._threads = [
            threading.Thread(target=self._run, name="device", daemon=True) for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether every thread runs, unless the scheduler is closed."""
        return self._closed or all(thread.is_alive() for thread in self._threads)

    @property
    def queued_tiles(self) -> int:
        """Number of tiles that wait for the device."""
        with self._changed:
            return sum(len(pending.tiles) - pending.dispatched for pending in self._queue)

    @property
    def stalled_seconds(self) -> float:
        """Seconds since the device made progress; 0 if it has nothing to do."""
        with self._changed:
            busy = self._running or bool(self._queue)
            return time.monotonic() - self._progressed_at if busy else 0.0

    def close(self, seconds: float = 3) -> None:
        """Stop the threads; all calls that still wait raise NotReady.

        Args:
            seconds: time limit for the last batch; a device that hangs is left alone.
        """
        with self._changed:
            self._closed = True
            for pending in self._queue:
                pending.error = NotReady("the service is stopping")
                pending.done.set()
            self._queue.clear()
            self._changed.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0, until - time.monotonic()))

    def run(self, pending: PendingBatch, *, timeout: float) -> bool:
        """Queue tiles and wait until all are answered; False on a timeout.

        Raises:
            CallerGone: they were withdrawn.
            EngineError: the device failed.
            NotReady: the service is stopping, or a thread of the device has ended.
        """
        with self._changed:
            if self._closed:
                raise NotReady("the service is stopping")
            if not self.alive:
                raise NotReady(THREAD_ENDED, retry_after=30)
            if pending.error is not None:
                raise pending.error
            if not (self._running or self._queue):
                self._progressed_at = time.monotonic()
            self._add_caller(pending.caller)
            self._queue.append(pending)
            self._changed.notify_all()
        if not pending.done.wait(timeout):
            self.withdraw(pending)
            return False
        if pending.error is not None:
            raise pending.error
        return True

    def withdraw(self, pending: PendingBatch, error: SuperresError | None = None) -> None:
        """Remove tiles that still wait from the queue; an error is raised in :meth:`run`."""
        with self._changed:
            if pending in self._queue:
                self._queue.remove(pending)
                self._changed.notify_all()  # the next one may fit
            if error is not None:
                pending.error = error
                pending.done.set()

    def _run(self) -> None:
        # Each batch is run in a call of its own, so that no local variable keeps an engine alive
        # while the thread waits for the next batch.
        try:
            while self._run_batch():
                pass
        except BaseException:  # no engine's: what these raise is the answer to their requests
            logger.critical(THREAD_ENDED, exc_info=True)
            with self._changed:
                waiting = list(self._queue)
            self._fail(waiting, NotReady(THREAD_ENDED, retry_after=30))

    def _run_batch(self) -> bool:
        """Wait for a batch and run it; False when the scheduler is closed."""
        batch, expected = self._next_batch()
        if not batch:
            return False
        owners = [pending for pending, _ in batch]
        engine = owners[0].engine
        started = time.monotonic()
        try:
            tiles = np.concatenate([pending.tiles[index : index + 1] for pending, index in batch])
            answers = engine.predict(tiles)
            _check_answers(answers, tiles, owners[0].upscale)
        except SuperresError as error:
            self._fail(owners, error)
        except BaseException:  # whatever it is, the thread goes on
            requests = sorted({pending.request_id for pending in owners})
            logger.exception("the engine failed", extra={"requests": requests})
            self._fail(
                owners, EngineError("the device failed in an unforeseen way; the log says how")
            )
        else:
            seconds = (time.monotonic() - started) / len(batch)
            with self._changed:
                self.done_tiles += len(batch)
                self._tile_seconds = seconds
                for pending in owners:
                    if pending.caller in self._used:
                        self._used[pending.caller] += seconds - expected
            for (pending, index), answer in zip(batch, answers, strict=True):
                pending.answers[index] = answer
                if len(pending.answers) == len(pending.tiles):
                    pending.done.set()
        with self._changed:
            self._running.remove(engine)
            self._progressed_at = time.monotonic()
            self._changed.notify_all()
        return True

    def _next_batch(self) -> tuple[list[tuple[PendingBatch, int]], float]:
        """Wait for tiles, and take compatible ones, up to a full batch; none when closed.

        Returns:
            The owner and the index of each tile, and the seconds that each is expected to take.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._next_fits())
            batch: list[tuple[PendingBatch, int]] = []
            while not batch or len(batch) < batch[0][0].engine.batch:
                pending = self._pop_compatible(batch[0][0] if batch else None)
                if pending is None:
                    break
                if pending.dispatched == 0:
                    pending.wait_seconds = time.monotonic() - pending.queued_at
                batch.append((pending, pending.dispatched))
                pending.dispatched += 1
                if pending.dispatched < len(pending.tiles):
                    self._queue.append(pending)
            if batch:
                self._running.append(batch[0][0].engine)
            return batch, self._tile_seconds

    def _next_fits(self) -> bool:
        """Whether a tile waits, and its engine and those that run take another batch beside them.

        If they do not, those behind wait too, also for other engines: nothing overtakes it.
        """
        if not self._queue:
            return False
        engines = [*self._running, self._first(self._queue).engine]
        return len(engines) <= min(engine.calls_at_once for engine in engines)

    def _first(self, entries: Iterable[PendingBatch]) -> PendingBatch:
        return min(entries, key=lambda one: self._used[one.caller])

    def _pop_compatible(self, other: PendingBatch | None) -> PendingBatch | None:
        """Remove an entry that is compatible with ``other``, if given, from the queue.

        It is the first one of the caller that has used the device least.
        """
        candidates = [one for one in self._queue if other is None or one.is_compatible(other)]
        if not candidates:
            return None
        pending = self._first(candidates)
        self._queue.remove(pending)
        self._least_used = self._used[pending.caller]
        self._used[pending.caller] += self._tile_seconds  # until it has been measured
        return pending

    def _add_caller(self, caller: str) -> None:
        """Let a caller take part, and forget those who have left too much to the others."""
        floor = self._least_used - CATCH_UP_S
        queued = {pending.caller for pending in self._queue}
        self._used = {
            name: used for name, used in self._used.items() if used > floor or name in queued
        }
        self._used.setdefault(caller, self._least_used)

    def _fail(self, owners: list[PendingBatch], error: SuperresError) -> None:
        for pending in owners:
            self.withdraw(pending, error)


def _check_answers(answers: Any, tiles: TileBatch, upscale: int) -> None:
    """Return if there is an answer to each tile, of the right size and type.

    Raises:
        EngineError: an answer is missing, or one too many, or it has another shape or type.
    """
    count, height, width, channels = tiles.shape
    shape = (count, height * upscale, width * upscale, channels)
    is_array = isinstance(answers, np.ndarray)
    if not (is_array and answers.shape == shape and answers.dtype == tiles.dtype):
        found = f"{answers.dtype} {answers.shape}" if is_array else type(answers).__name__
        raise EngineError(
            f"the engine answered tiles of {tiles.dtype} {tiles.shape} with {found}, "
            f"not with {tiles.dtype} {shape}"
        )
