"""The memory of requests: never more than there is, and an equal share for who waits."""

from contextlib import ExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.inference.memory import PATIENCE_S, Memory, Reservation
from superres.errors import Busy

MB = 2**20


class Ledger:
    """A :class:`Memory` of 100 MB, whose clock stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.stack = ExitStack()
        self.given_up: list[Reservation] = []
        self.memory = Memory(100 * MB, clock=lambda: self.now, retry_after=lambda *_: 1)

    def begin(self, caller: str, *, answers: bool | None = None) -> Reservation:
        """A reservation; unless ``answers`` is None, for a transfer that can be given up."""
        reservation = self.stack.enter_context(self.memory.reservation(caller))
        if answers is not None:
            self.stack.enter_context(
                reservation.revocable(lambda: self.given_up.append(reservation), answers=answers)
            )
        return reservation

    def held(self, caller: str) -> int:
        return self.memory._held[caller]


def test_a_caller_alone_may_use_all_of_it():
    ledger = Ledger()
    for _ in range(10):
        ledger.begin("a").grow(10 * MB)
    with pytest.raises(Busy, match="at most 104,857,600 bytes"):
        ledger.begin("a").grow(1)
    ledger.stack.close()
    assert ledger.memory.reserved_bytes == 0


@pytest.mark.parametrize("answers", [False, True])
def test_stalled_transfers_beyond_a_share_are_given_up_for_another_caller(answers):
    ledger = Ledger()
    for _ in range(20):
        ledger.begin("greedy", answers=answers).grow(5 * MB)
    for _ in range(100):
        with suppress(Busy):
            ledger.begin("other").grow(MB)
    assert ledger.held("other") >= 45 * MB
    assert ledger.held("greedy") >= 45 * MB
    assert len(ledger.given_up) == 10
    with pytest.raises(Busy, match="other callers needed the memory"):
        ledger.given_up[0].grow(1)
    ledger.stack.close()
    assert ledger.memory.reserved_bytes == ledger.held("greedy") == 0


def test_bodies_are_given_up_before_answers_and_work_never():
    ledger = Ledger()
    work, answer, body = (ledger.begin("a", answers=answers) for answers in (None, True, False))
    for reservation in (work, answer, body):
        reservation.grow(33 * MB)
    ledger.begin("b").grow(30 * MB)
    assert ledger.given_up == [body]
    ledger.begin("b").grow(15 * MB)
    assert ledger.given_up == [body, answer]
    with pytest.raises(Busy):  # the rest is at work
        ledger.begin("c").grow(60 * MB)
    assert work.bytes == 33 * MB


def test_nobody_gets_more_than_a_share_while_another_caller_waits():
    ledger = Ledger()
    held = [ledger.begin("greedy") for _ in range(10)]  # at work: it cannot be given up
    for reservation in held:
        reservation.grow(10 * MB)
    with pytest.raises(Busy):
        ledger.begin("other").grow(10 * MB)
    for reservation in held[:3]:
        reservation.resize(0)
    with pytest.raises(Busy):  # though there is room
        ledger.begin("greedy").grow(MB)
    ledger.begin("other").grow(30 * MB)
    ledger.now += 1 + PATIENCE_S + 1  # the other has not come back
    for reservation in held[3:5]:
        reservation.resize(0)
    ledger.begin("greedy").grow(20 * MB)


def test_a_caller_who_waits_for_himself_has_all_of_it():
    ledger = Ledger()
    first = ledger.begin("a")
    first.grow(90 * MB)
    with pytest.raises(Busy):
        ledger.begin("a").grow(20 * MB)
    first.resize(70 * MB)
    ledger.begin("a").grow(20 * MB)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["begin", "body", "answer", "grow", "grow", "grow", "end", "tick"]),
            st.integers(0, 60),
        ),
        max_size=60,
    )
)
def test_the_ledger_is_true_whatever_callers_do(steps):
    ledger, mine = Ledger(), {"a": [], "b": [], "c": []}
    memory = ledger.memory
    for caller, what, amount in steps:
        own = mine[caller]
        if what in ("begin", "body", "answer"):
            kind = None if what == "begin" else what == "answer"
            own.append(ledger.begin(caller, answers=kind))
        elif what == "tick":
            ledger.now += amount
        elif own:
            one = own[amount % len(own)]
            if what == "end":
                one.resize(0)
                continue
            shares = {name: ledger.held(name) for name in mine}
            given_up = len(ledger.given_up)
            try:
                one.grow(amount * MB)
            except Busy:
                assert len(ledger.given_up) == given_up  # not in vain
            for victim in ledger.given_up[given_up:]:
                # Nobody loses what is within a third, the smallest share that there can be.
                assert shares[victim.caller] > memory.max_bytes // 3
                assert victim.caller != caller
            assert len(ledger.given_up) == len(set(ledger.given_up))
        assert memory.reserved_bytes == sum(one.bytes for every in mine.values() for one in every)
        assert 0 <= memory.reserved_bytes <= memory.max_bytes
        for name, every in mine.items():
            assert ledger.held(name) == sum(one.bytes for one in every)
    ledger.stack.close()
    assert memory.reserved_bytes == 0
    assert not memory._transfers
    assert not memory._held
