"""Decides what runs at once, before it runs: by memory, by count and by time.

A request reserves the bytes of its body as they arrive. Once its header is known, it reserves the
peak memory of its work, until its answer is sent. The active requests share the machine about
equally, and each one measures how long it would have taken alone. From these measurements follow
the time that the next request will take, and when a refused request should come back.

Once the service is ready, everything here is called on the event loop, and nothing waits.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from superres.errors import Busy, ImageTooLarge

FIXED_PIXELS = 100_000
"""Fixed cost of any request, in pixels: a thumbnail takes time, too."""
INITIAL_SECONDS_PER_PIXEL = 0.2e-6
"""Throughput that is assumed before any request has been timed."""
THROUGHPUT_WINDOW = 20e6
"""Pixels after which the weight of an earlier measurement has fallen to 1/e."""
LONGEST_RETRY = 60
"""Largest ``Retry-After``, in seconds. Promises to callers who never come back must not add up
for ever."""


class WorkloadKey(NamedTuple):
    """Work that runs at one throughput."""

    operation: str
    """``enhance`` or ``compare``."""
    model: str
    """Name of the model, or of its ensemble."""
    bits: int
    """Bits of a sample: 8 or 16."""


class _Throughput:
    """Seconds per pixel of a request that runs alone: a decaying mean, weighted by pixels."""

    def __init__(self) -> None:
        self._seconds, self._pixels = INITIAL_SECONDS_PER_PIXEL, 1.0

    def seconds(self, pixels: int) -> float:
        return (pixels + FIXED_PIXELS) * self._seconds / self._pixels

    def record(self, pixels: int, seconds: float) -> None:
        kept = math.exp(-(pixels + FIXED_PIXELS) / THROUGHPUT_WINDOW)
        self._seconds = kept * self._seconds + seconds
        self._pixels = kept * self._pixels + pixels + FIXED_PIXELS


@dataclass(eq=False)
class _ActiveRequest:
    """A request that is being worked on."""

    seconds_alone: float
    """Seconds that the request is expected to take on an idle machine."""
    started: float
    """Virtual time at which the work began."""
    reservation: "Reservation"


class Admission:
    """The ledger of memory and work of one process.

    Work is timed on a virtual clock, as in fair queueing: it advances by 1/n seconds in a second
    while n requests are active. The virtual time between the start and the end of a request is
    the time that the request would have taken on an idle machine.

    Args:
        max_requests: largest number of active requests.
        max_bytes: memory that all requests may reserve together.
        clock: returns seconds; replaced in tests.
    """

    def __init__(
        self,
        *,
        max_requests: int,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.reserved_bytes = 0
        self._clock = clock
        self._active: list[_ActiveRequest] = []
        self._throughputs: dict[WorkloadKey, _Throughput] = defaultdict(_Throughput)
        self._virtual_time = 0.0
        self._updated_at = clock()
        self._promised_until = 0.0

    @property
    def active_requests(self) -> int:
        """Number of requests that are being worked on."""
        return len(self._active)

    @contextmanager
    def reservation(self) -> Iterator["Reservation"]:
        """The memory of one request, from the first byte of its body to the last of its answer."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            reservation.resize(0)

    def seconds_alone(self, workload: WorkloadKey, pixels: int) -> float:
        """Seconds that a request takes on an idle machine."""
        return self._throughputs[workload].seconds(pixels)

    def record(self, workload: WorkloadKey, pixels: int, seconds: float) -> None:
        """Record the seconds that a request took, or would have taken, on an idle machine."""
        self._throughputs[workload].record(pixels, seconds)

    def expected_seconds(self, workload: WorkloadKey, pixels: int) -> float:
        """Seconds that a request takes beside the active requests.

        The requests take turns. So each active request uses as much of the machine's time as it
        needs itself, but no more than the new request does.
        """
        alone = self.seconds_alone(workload, pixels)
        return alone + sum(min(left, alone) for left in self._seconds_left())

    def retry_after(self, nbytes: int, seconds: float, deadline: float) -> int:
        """Whole seconds after which a request should be accepted; 0 if it is accepted now.

        Args:
            nbytes: bytes that it will reserve, beyond those that it has reserved.
            seconds: seconds that it takes on an idle machine.
            deadline: seconds that it may take.
        """
        active = sorted(
            zip(self._seconds_left(), self._active, strict=True), key=lambda pair: pair[0]
        )
        wait = done = 0.0
        free = self.max_bytes - self.reserved_bytes
        for i in range(len(active) + 1):
            others = [left - done for left, _ in active[i:]]
            # A request that would run alone is always accepted, since only then can an estimate
            # that is wrong be corrected.
            late = others and seconds + sum(min(left, seconds) for left in others) > deadline
            if len(others) < self.max_requests and nbytes <= free and not late:
                return math.ceil(wait)
            if others:
                wait += others[0] * len(others)
                done = active[i][0]
                free += active[i][1].reservation.bytes
        return max(1, math.ceil(wait))  # bodies and answers fill the memory, not work

    @contextmanager
    def admit(
        self,
        reservation: "Reservation",
        workload: WorkloadKey,
        pixels: int,
        nbytes: int,
        deadline: float,
        *,
        done: Callable[[], int] | None = None,
    ) -> Iterator[None]:
        """Admit a request, and time its work.

        Args:
            reservation: memory of the request; it becomes ``nbytes``.
            workload: what it is timed as.
            pixels: pixels that its time is proportional to, by the forecast.
            nbytes: peak memory of the work.
            deadline: seconds that the work may take.
            done: returns the pixels that were worked on, if they can differ from ``pixels``; the
                time of none is not learnt.

        Raises:
            Busy: too many requests are active, or they have reserved too much memory, or this
                request would end too late.
            ImageTooLarge: the request would never fit.
        """
        self.check_fits(nbytes)
        seconds = self.seconds_alone(workload, pixels)
        if wait := self.retry_after(nbytes - reservation.bytes, seconds, deadline):
            raise self._busy(nbytes, wait, seconds)
        reservation.resize(nbytes)
        self._advance()
        request = _ActiveRequest(seconds, self._virtual_time, reservation)
        self._active.append(request)
        try:
            yield
            self._advance()
            if worked := done() if done else pixels:
                self.record(workload, worked, self._virtual_time - request.started)
        finally:
            self._advance()
            self._active.remove(request)

    def check_fits(self, nbytes: int) -> None:
        """Return if so much memory can ever be reserved.

        Raises:
            ImageTooLarge: it cannot.
        """
        if nbytes > self.max_bytes:
            raise ImageTooLarge(
                f"at most {self.max_bytes:,} bytes of memory are used at once; "
                f"this picture would take {nbytes:,}"
            )

    def _busy(self, nbytes: int, wait: int, seconds: float) -> Busy:
        # Each refused request is sent to a time after that of the one refused before it. Since
        # callers come back at whole seconds, no more of them share one second than can be
        # admitted at once.
        now = self._clock()
        start = max(now + wait, self._promised_until)
        duration = max(seconds, 1 / self.max_requests)
        self._promised_until = min(start + duration, now + LONGEST_RETRY)
        return Busy(
            f"at most {self.max_requests} pictures and {self.max_bytes:,} bytes of memory are "
            f"worked on at once; {self.active_requests} pictures are, {self.reserved_bytes:,} "
            f"bytes are taken, and this one needs {nbytes:,}",
            retry_after=min(math.ceil(start - now), LONGEST_RETRY),
        )

    def _seconds_left(self) -> list[float]:
        self._advance()
        # A request that takes longer than expected has not ended yet: a tenth is assumed to be
        # left.
        return [
            max(
                request.seconds_alone - (self._virtual_time - request.started),
                request.seconds_alone / 10,
            )
            for request in self._active
        ]

    def _advance(self) -> None:
        """Advance the virtual clock to the present."""
        now = self._clock()
        if self._active:
            self._virtual_time += (now - self._updated_at) / len(self._active)
        self._updated_at = now


class Reservation:
    """The memory that one request has reserved."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0

    def resize(self, nbytes: int) -> None:
        """Reserve this many bytes in all, without a check."""
        self._admission.reserved_bytes += nbytes - self.bytes
        self.bytes = nbytes

    def grow(self, nbytes: int) -> None:
        """Reserve this many more bytes.

        Raises:
            Busy: less memory is free.
        """
        admission = self._admission
        if admission.reserved_bytes + nbytes > admission.max_bytes:
            raise Busy(
                f"at most {admission.max_bytes:,} bytes of memory are used at once; "
                f"{admission.reserved_bytes:,} are taken",
                retry_after=max(1, admission.retry_after(nbytes, 0.0, math.inf)),
            )
        self.resize(self.bytes + nbytes)
