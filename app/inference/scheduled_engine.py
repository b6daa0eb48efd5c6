"""The engine of one request, whose tiles share the device with those of other requests."""

import time
from collections.abc import Mapping

import numpy as np

from app.inference.scheduler import BatchScheduler, DeviceEngine, PendingBatch
from app.service_errors import CallerGone
from superres.arrays import TileBatch
from superres.errors import DeadlineExceeded
from superres.models.card import ModelCard


class ScheduledEngine:
    """The engine of one request: its tiles go through the queue, until a deadline.

    ``queue_seconds``, ``infer_seconds`` and ``pixels`` are sums over all its calls: the seconds in
    the queue, the seconds from then until the answers, and the pixels that networks made.

    Args:
        scheduler: owner of the device.
        engine: engine that answers all tiles, even if its model is replaced meanwhile.
        seconds: time limit of the work.
        started: start of that time, by :func:`time.monotonic`; by default now.
        upscale: pixels of an answer per pixel of its tile, along a side.
        engines: by model name, those that :meth:`use` can choose.
        caller: the name of the caller, among whom the device is shared.
    """

    def __init__(
        self,
        scheduler: BatchScheduler,
        engine: DeviceEngine,
        seconds: float,
        started: float | None = None,
        *,
        upscale: int = 1,
        engines: Mapping[str, DeviceEngine] | None = None,
        caller: str = "",
    ) -> None:
        self._caller = caller
        self._scheduler = scheduler
        self._engine = engine
        self._upscale = upscale
        self._engines = engines or {}
        self.network: ModelCard | None = None
        """The last network that :meth:`use` chose."""
        self._is_network = True
        self._seconds = seconds
        self._deadline = seconds + (time.monotonic() if started is None else started)
        self._pending: PendingBatch | None = None
        self._cancelled = False
        self.queue_seconds = 0.0
        self.infer_seconds = 0.0
        self.pixels = 0

    def use(self, card: ModelCard) -> None:
        """Let the engine of that model answer the tiles from now on."""
        self._engine = self._engines[card.name]
        self._upscale = card.geometry.upscale
        self._is_network = bool(card.files)
        if card.files:
            self.network = card

    def cancel(self) -> None:
        """Cancel the work, from any thread: nobody waits for it."""
        self._cancelled = True
        if pending := self._pending:
            self._scheduler.withdraw(pending, CallerGone("the client disconnected"))

    def check(self) -> None:
        """Return if the work is still wanted.

        Raises:
            CallerGone: it was cancelled.
            DeadlineExceeded: its deadline has passed.
        """
        if self._cancelled:
            raise CallerGone("the client disconnected")
        if time.monotonic() >= self._deadline:
            raise self._deadline_exceeded()

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Queue the tiles and wait for the answers; see :class:`superres.engines.base.Engine`.

        Raises:
            CallerGone: the work was cancelled.
            DeadlineExceeded: its deadline has passed.
            EngineError: the device failed.
            NotReady: the service is stopping, or a thread of the device has ended.
        """
        started = time.monotonic()
        pending = PendingBatch(
            self._engine, tiles, started, upscale=self._upscale, caller=self._caller
        )
        self._pending = pending
        self.check()  # after `cancel` can see the batch, so that no cancellation is missed
        if not self._scheduler.run(pending, timeout=self._deadline - started):
            raise self._deadline_exceeded()
        self.queue_seconds += pending.wait_seconds
        self.infer_seconds += time.monotonic() - started - pending.wait_seconds
        answers = np.stack([pending.answers[index] for index in range(len(tiles))])
        if self._is_network:
            self.pixels += answers.size // 3
        return answers

    def _deadline_exceeded(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the request had {self._seconds:g} s; its picture was not done by then"
        )
