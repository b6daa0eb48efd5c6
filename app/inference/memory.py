"""The memory that requests reserve, and each caller's share of it.

A caller may use all that is free. But while another caller waits, because it was refused, nobody
gets more than an equal share. And what a caller has beyond its share for bodies and answers on
their way is taken back, if another one needs it: how long they take is up to that caller alone.

Everything here is called on the event loop, and nothing waits.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from superres.errors import Busy

PATIENCE_S = 10
"""Seconds, after its ``Retry-After``, for which a caller that was refused counts as waiting."""


class Memory:
    """The ledger of memory of one process.

    Args:
        max_bytes: memory that all requests may reserve together.
        clock: returns seconds.
        retry_after: the seconds after which so many bytes should be free for a caller.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        clock: Callable[[], float],
        retry_after: Callable[[str, int], int],
    ) -> None:
        self.max_bytes = max_bytes
        self.reserved_bytes = 0
        self._clock = clock
        self._retry_after = retry_after
        self._held: Counter[str] = Counter()
        """Reserved bytes of each caller."""
        self._transfers: list[Reservation] = []
        """Reservations for bodies, then those for answers, that can be taken back."""
        self._waiting: dict[str, float] = {}
        """The time until which a caller counts as waiting."""

    @contextmanager
    def reservation(self, caller: str) -> Iterator["Reservation"]:
        """The memory of one request, from the first byte of its body to the last of its answer."""
        reservation = Reservation(self, caller)
        try:
            yield reservation
        finally:
            reservation.resize(0)

    def add_waiting(self, caller: str, seconds: float) -> None:
        """Note that a caller was refused, and was asked to come back after so many seconds."""
        self._waiting[caller] = self._clock() + seconds + PATIENCE_S

    def sharers(self, caller: str) -> int:
        """The number of callers that have to share with this one; 1 while no other one waits."""
        now = self._clock()
        self._waiting = {name: until for name, until in self._waiting.items() if until > now}
        if not self._waiting.keys() - {caller}:
            return 1
        return len(self._callers(caller) | self._waiting.keys())

    def is_within_share(self, reservation: "Reservation", nbytes: int) -> bool:
        """Whether a reservation may have so many bytes more.

        A caller may always have one reservation.
        """
        others = self._held[reservation.caller] - reservation.bytes
        if others <= 0:
            return True
        share = self.max_bytes // self.sharers(reservation.caller)
        return others + reservation.bytes + nbytes <= share

    def make_room(self, reservation: "Reservation", nbytes: int) -> bool:
        """Whether so many bytes are free for a reservation.

        If they are not, transfers of callers beyond their share are given up.
        """
        missing = nbytes - (self.max_bytes - self.reserved_bytes)
        if missing <= 0:
            return True
        caller = reservation.caller
        share = self.max_bytes // len(self._callers(caller))
        if self._held[caller] + nbytes > share:
            return False
        held = self._held.copy()
        given_up = []
        for transfer in sorted(self._transfers, key=lambda one: (one.answers, -one.bytes)):
            over = transfer.caller != caller and held[transfer.caller] > share
            if missing > 0 and over and transfer.bytes:
                given_up.append(transfer)
                held[transfer.caller] -= transfer.bytes
                missing -= transfer.bytes
        if missing > 0:
            return False
        for transfer in given_up:
            transfer.revoke()
        return True

    def _callers(self, caller: str) -> set[str]:
        return {name for name, held in self._held.items() if held} | {caller}


class Reservation:
    """The memory that one request has reserved.

    Args:
        memory: the ledger.
        caller: the name of the caller, to whom it is charged.
    """

    def __init__(self, memory: Memory, caller: str) -> None:
        self.caller = caller
        self.bytes = 0
        self.answers = False
        """Whether an answer is being sent, and not a body received."""
        self._memory = memory
        self._give_up: Callable[[], None] | None = None
        self._revoked = False

    def resize(self, nbytes: int) -> None:
        """Reserve this many bytes in all, without a check."""
        if self._revoked:
            return
        memory = self._memory
        memory.reserved_bytes += nbytes - self.bytes
        memory._held[self.caller] += nbytes - self.bytes
        if not memory._held[self.caller]:
            del memory._held[self.caller]
        self.bytes = nbytes

    def grow(self, nbytes: int) -> None:
        """Reserve this many more bytes.

        Raises:
            Busy: less memory is free, or other callers wait for it.
        """
        memory = self._memory
        self.check()
        if not (memory.is_within_share(self, nbytes) and memory.make_room(self, nbytes)):
            wait = max(1, memory._retry_after(self.caller, nbytes))
            memory.add_waiting(self.caller, wait)
            raise Busy(
                f"at most {memory.max_bytes:,} bytes of memory are used at once, and by a caller "
                f"an equal part while others wait; {memory.reserved_bytes:,} are taken, "
                f"{memory._held[self.caller]:,} of them by this caller",
                retry_after=wait,
            )
        self.resize(self.bytes + nbytes)

    @contextmanager
    def revocable(self, give_up: Callable[[], None], *, answers: bool = False) -> Iterator[None]:
        """Within the block, the memory can be taken back for other callers.

        Args:
            give_up: called then; it ends the transfer.
            answers: whether an answer is being sent, and not a body received.
        """
        self.answers, self._give_up = answers, give_up
        self._memory._transfers.append(self)
        try:
            yield
        finally:
            self._memory._transfers.remove(self)

    def revoke(self) -> None:
        """Take the memory back, and end the transfer."""
        self.resize(0)
        self._revoked = True
        if self._give_up is not None:
            self._give_up()

    def check(self) -> None:
        """Return if the memory has not been taken back.

        Raises:
            Busy: it has.
        """
        if self._revoked:
            raise Busy(
                "other callers needed the memory that this one had beyond its equal part; send "
                "fewer or smaller pictures at once",
                retry_after=PATIENCE_S,
            )
