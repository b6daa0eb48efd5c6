"""Decides what runs at once, before it runs: by memory, by count and by time.

A request reserves the bytes of its body as they arrive, then, once its header is known, the
memory that its work will peak at, until its answer is sent. The requests at work share the
machine about equally, and how long one would have taken alone is measured on each: from that
follow the time that the next one will take, and when a refused one should come back.

Once the service is ready, everything here is called on the event loop, and nothing waits.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from superres.errors import Busy, ImageTooLarge

FIXED_PIXELS = 100_000
"""What any request costs, in pixels: a thumbnail is not made in no time."""
FIRST_GUESS = 0.2e-6
"""Seconds a pixel, before any has been timed."""
MEMORY_OF_PACE = 20e6
"""Pixels after which an earlier measurement counts a third."""
LONGEST_RETRY = 60
"""Seconds; what was promised to callers who never came back should not grow for ever."""

Kind = tuple[str, str, int]
"""Route, model (or its ensemble) and bits a sample: what goes at one pace."""


class _Pace:
    """Seconds a pixel, alone on the machine: of late, the larger pictures counting more."""

    def __init__(self) -> None:
        self._seconds, self._pixels = FIRST_GUESS, 1.0

    def seconds(self, pixels: int) -> float:
        return (pixels + FIXED_PIXELS) * self._seconds / self._pixels

    def measured(self, pixels: int, seconds: float) -> None:
        kept = math.exp(-(pixels + FIXED_PIXELS) / MEMORY_OF_PACE)
        self._seconds = kept * self._seconds + seconds
        self._pixels = kept * self._pixels + pixels + FIXED_PIXELS


@dataclass(eq=False)
class _Job:
    """A request at work."""

    seconds: float
    """That it should take, alone."""
    began: float
    """On the clock that shows each job's share of the machine."""
    reservation: "Reservation"


class Admission:
    """The ledger of one process.

    Args:
        max_requests: requests at work at once.
        max_bytes: memory that all requests may hold together.
        clock: seconds; for tests.
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
        self._jobs: list[_Job] = []
        self._paces: dict[Kind, _Pace] = defaultdict(_Pace)
        self._share = 0.0
        self._share_at = clock()
        self._promised_until = 0.0

    @property
    def at_work(self) -> int:
        """Requests at work."""
        return len(self._jobs)

    @contextmanager
    def reservation(self) -> Iterator["Reservation"]:
        """What a request holds from its first byte to the last of its answer."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            reservation.hold(0)

    def seconds_alone(self, kind: Kind, pixels: int) -> float:
        """How long a request takes with the machine to itself."""
        return self._paces[kind].seconds(pixels)

    def measured(self, kind: Kind, pixels: int, seconds: float) -> None:
        """Learn how long a request took, or would have taken, alone."""
        self._paces[kind].measured(pixels, seconds)

    def expected_seconds(self, kind: Kind, pixels: int) -> float:
        """How long a request takes beside those at work now.

        Each of them takes as much of the machine's time as it needs itself, but no more than
        the request does: they take turns.
        """
        alone = self.seconds_alone(kind, pixels)
        return alone + sum(min(left, alone) for left in self._seconds_left())

    def retry_after(self, nbytes: int, seconds: float, deadline: float) -> int:
        """Whole seconds after which such a request should be accepted; 0 if it is now.

        Args:
            nbytes: that it will hold, beyond what it does.
            seconds: that it takes alone.
            deadline: seconds that it may take.
        """
        jobs = sorted(zip(self._seconds_left(), self._jobs, strict=True), key=lambda one: one[0])
        wait = done = 0.0
        free = self.max_bytes - self.reserved_bytes
        for i in range(len(jobs) + 1):
            others = [left - done for left, _ in jobs[i:]]
            # Alone it is always let in: an estimate that is wrong has to be found out.
            late = others and seconds + sum(min(left, seconds) for left in others) > deadline
            if len(others) < self.max_requests and nbytes <= free and not late:
                return math.ceil(wait)
            if others:
                wait += others[0] * len(others)
                done = jobs[i][0]
                free += jobs[i][1].reservation.bytes
        return max(1, math.ceil(wait))  # bodies and answers are in the way, not work

    @contextmanager
    def work(
        self, reservation: "Reservation", kind: Kind, pixels: int, nbytes: int, deadline: float
    ) -> Iterator[None]:
        """Let a request work, and time it.

        Args:
            reservation: the request's; it will hold ``nbytes``.
            kind: of the work.
            pixels: of input and output.
            nbytes: its peak.
            deadline: seconds in which it has to be done.

        Raises:
            Busy: too many are at work, or they hold too much memory, or it would be late.
            ImageTooLarge: it would never fit.
        """
        self.check_fits(nbytes)
        seconds = self.seconds_alone(kind, pixels)
        if wait := self.retry_after(nbytes - reservation.bytes, seconds, deadline):
            raise self._busy(nbytes, wait, seconds)
        reservation.hold(nbytes)
        self._advance()
        job = _Job(seconds, self._share, reservation)
        self._jobs.append(job)
        try:
            yield
            self._advance()
            self.measured(kind, pixels, self._share - job.began)
        finally:
            self._advance()
            self._jobs.remove(job)

    def check_fits(self, nbytes: int) -> None:
        """Return if so much memory can ever be held.

        Raises:
            ImageTooLarge: it cannot.
        """
        if nbytes > self.max_bytes:
            raise ImageTooLarge(
                f"at most {self.max_bytes:,} bytes of memory are used at once; "
                f"this picture would take {nbytes:,}"
            )

    def _busy(self, nbytes: int, wait: int, seconds: float) -> Busy:
        # One refused after another is told to come after it, not with it; and since they come
        # at whole seconds, no more are told the same one than can be let in at once.
        now = self._clock()
        start = max(now + wait, self._promised_until)
        taken = max(seconds, 1 / self.max_requests)
        self._promised_until = min(start + taken, now + LONGEST_RETRY)
        return Busy(
            f"at most {self.max_requests} pictures and {self.max_bytes:,} bytes of memory are "
            f"worked on at once; {self.at_work} pictures are, {self.reserved_bytes:,} bytes are "
            f"taken, and this one needs {nbytes:,}",
            retry_after=min(math.ceil(start - now), LONGEST_RETRY),
        )

    def _seconds_left(self) -> list[float]:
        self._advance()
        # One that takes longer than it should is not done for that.
        return [
            max(job.seconds - (self._share - job.began), job.seconds / 10) for job in self._jobs
        ]

    def _advance(self) -> None:
        """Move the clock that shows each job's share of the machine up to now."""
        now = self._clock()
        if self._jobs:
            self._share += (now - self._share_at) / len(self._jobs)
        self._share_at = now


class Reservation:
    """The memory that one request holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0

    def hold(self, nbytes: int) -> None:
        """Hold so much from now on."""
        self._admission.reserved_bytes += nbytes - self.bytes
        self.bytes = nbytes

    def grow(self, nbytes: int) -> None:
        """Hold so much more.

        Raises:
            Busy: there is not so much left.
        """
        admission = self._admission
        if admission.reserved_bytes + nbytes > admission.max_bytes:
            raise Busy(
                f"at most {admission.max_bytes:,} bytes of memory are used at once; "
                f"{admission.reserved_bytes:,} are taken",
                retry_after=max(1, admission.retry_after(nbytes, 0.0, math.inf)),
            )
        self.hold(self.bytes + nbytes)
