"""Decides what runs at once, before it runs: by memory, by count and by time.

A request reserves the bytes of its body as they arrive. Once its header is known, it reserves the
peak memory of its work, until its answer is sent. The callers with active requests share the
machine about equally, and so do the requests of one caller. Each request measures how long it
would have taken alone. From these measurements follow the time that the next request will take,
and when a refused request should come back.

Once the service is ready, everything here is called on the event loop, and nothing waits.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from app.inference.memory import Memory, Reservation
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
    """Virtual time of its caller at which the work began."""
    reservation: Reservation

    @property
    def caller(self) -> str:
        """The caller whose request it is."""
        return self.reservation.caller


class Admission:
    """The ledger of memory and work of one process.

    Work is timed on virtual clocks, as in fair queueing, one for each caller: while n callers have
    active requests, and this one has m, its clock advances by 1/(n m) seconds in a second. The
    virtual time between the start and the end of a request is the time that the request would
    have taken on an idle machine.

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
        self._memory = Memory(
            max_bytes,
            clock=clock,
            retry_after=lambda caller, nbytes: self.retry_after(
                nbytes, 0.0, math.inf, caller=caller
            ),
        )
        self._clock = clock
        self._active: list[_ActiveRequest] = []
        self._throughputs: dict[WorkloadKey, _Throughput] = defaultdict(_Throughput)
        self._virtual_times: dict[str, float] = defaultdict(float)
        """Of the callers with active requests."""
        self._updated_at = clock()
        self._promised_until = 0.0

    @property
    def active_requests(self) -> int:
        """Number of requests that are being worked on."""
        return len(self._active)

    @property
    def max_bytes(self) -> int:
        """Memory that all requests may reserve together."""
        return self._memory.max_bytes

    @property
    def reserved_bytes(self) -> int:
        """Memory that all requests have reserved together."""
        return self._memory.reserved_bytes

    def reservation(self, caller: str = "") -> AbstractContextManager[Reservation]:
        """The memory of one request of a caller; see :meth:`Memory.reservation`."""
        return self._memory.reservation(caller)

    def seconds_alone(self, workload: WorkloadKey, pixels: int) -> float:
        """Seconds that a request takes on an idle machine."""
        return self._throughputs[workload].seconds(pixels)

    def record(self, workload: WorkloadKey, pixels: int, seconds: float) -> None:
        """Record the seconds that a request took, or would have taken, on an idle machine."""
        self._throughputs[workload].record(pixels, seconds)

    def expected_seconds(self, workload: WorkloadKey, pixels: int, caller: str = "") -> float:
        """Seconds that a request takes beside the active requests."""
        alone = self.seconds_alone(workload, pixels)
        left = zip(self._seconds_left(), self._active, strict=True)
        return _seconds_beside(alone, caller, [(one, request.caller) for one, request in left])

    def retry_after(
        self,
        nbytes: int,
        seconds: float,
        deadline: float,
        *,
        caller: str = "",
        free: float | None = None,
    ) -> int:
        """Whole seconds after which a request should be accepted; 0 if it is accepted now.

        Args:
            nbytes: bytes that it will reserve, beyond those that it has reserved.
            seconds: seconds that it takes on an idle machine.
            deadline: seconds that it may take.
            caller: whose request it is.
            free: bytes that can be reserved now, if they are not those that nobody has reserved.
        """
        active = sorted(
            zip(self._seconds_left(), self._active, strict=True), key=lambda pair: pair[0]
        )
        slots = math.ceil(self.max_requests / self._memory.sharers(caller))
        wait = done = 0.0
        free = self.max_bytes - self.reserved_bytes if free is None else free
        for i in range(len(active) + 1):
            others = [(left - done, request.caller) for left, request in active[i:]]
            own = sum(other == caller for _, other in others)
            # A request that would run alone is always accepted, since only then can an estimate
            # that is wrong be corrected.
            late = others and _seconds_beside(seconds, caller, others) > deadline
            room = len(others) < self.max_requests and own < slots and nbytes <= free
            if room and not late:
                return math.ceil(wait)
            if others:
                wait += others[0][0] * len(others)
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
        done_by: Callable[[], WorkloadKey] | None = None,
    ) -> Iterator[None]:
        """Admit a request, and time its work.

        Args:
            reservation: memory of the request; it becomes ``nbytes``.
            workload: what its time is forecast as.
            pixels: pixels that its time is proportional to, by the forecast.
            nbytes: peak memory of the work.
            deadline: seconds that the work may take.
            done: returns the pixels that were worked on, if they can differ from ``pixels``; the
                time of none is not learnt.
            done_by: returns what it is timed as, if it can differ from ``workload``.

        Raises:
            Busy: too many requests are active, or they have reserved too much memory, or this
                request would end too late, or its caller has an equal share and others wait.
            ImageTooLarge: the request would never fit.
        """
        self.check_fits(nbytes)
        reservation.check()
        seconds, caller = self.seconds_alone(workload, pixels), reservation.caller
        more = nbytes - reservation.bytes
        if (
            self.retry_after(more, seconds, deadline, caller=caller, free=math.inf)
            or not self._memory.is_within_share(reservation, more)
            or not self._memory.make_room(reservation, more)
        ):
            wait = max(1, self.retry_after(more, seconds, deadline, caller=caller))
            raise self._busy(reservation, nbytes, wait, seconds)
        reservation.resize(nbytes)
        self._advance()
        request = _ActiveRequest(seconds, self._virtual_times[caller], reservation)
        self._active.append(request)
        try:
            yield
            self._advance()
            if worked := done() if done else pixels:
                timed_as = done_by() if done_by else workload
                self.record(timed_as, worked, self._virtual_times[caller] - request.started)
        finally:
            self._advance()
            self._active.remove(request)
            if all(other.caller != caller for other in self._active):
                del self._virtual_times[caller]

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

    def _busy(self, reservation: Reservation, nbytes: int, wait: int, seconds: float) -> Busy:
        # Each refused request is sent to a time after that of the one refused before it. Since
        # callers come back at whole seconds, no more of them share one second than can be
        # admitted at once.
        now = self._clock()
        start = max(now + wait, self._promised_until)
        duration = max(seconds, 1 / self.max_requests)
        self._promised_until = min(start + duration, now + LONGEST_RETRY)
        retry_after = min(math.ceil(start - now), LONGEST_RETRY)
        self._memory.add_waiting(reservation.caller, retry_after)
        return Busy(
            f"at most {self.max_requests} pictures and {self.max_bytes:,} bytes of memory are "
            "worked on at once, and of a caller an equal part while others wait; "
            f"{self.active_requests} pictures are, {self.reserved_bytes:,} "
            f"bytes are taken, and this one needs {nbytes:,}",
            retry_after=retry_after,
        )

    def _seconds_left(self) -> list[float]:
        self._advance()
        # A request that takes longer than expected has not ended yet: a tenth is assumed to be
        # left.
        return [
            max(
                request.seconds_alone - (self._virtual_times[request.caller] - request.started),
                request.seconds_alone / 10,
            )
            for request in self._active
        ]

    def _advance(self) -> None:
        """Advance the virtual clocks to the present."""
        now = self._clock()
        active = Counter(request.caller for request in self._active)
        for caller, requests in active.items():
            self._virtual_times[caller] += (now - self._updated_at) / (len(active) * requests)
        self._updated_at = now


def _seconds_beside(seconds: float, caller: str, others: list[tuple[float, str]]) -> float:
    """Seconds that a request takes beside others.

    The requests of a caller take turns. So each other one uses as much of the machine's time as it
    needs itself, but no more than the new request does. So do the callers.

    Args:
        seconds: seconds that it takes on an idle machine.
        caller: whose request it is.
        others: the same of the others.
    """
    own = seconds
    left: dict[str, float] = defaultdict(float)
    for other_seconds, other in others:
        if other == caller:
            own += min(other_seconds, seconds)
        else:
            left[other] += other_seconds
    return own + sum(min(total, own) for total in left.values())
