"""What is let in, what is not, and when that should come back. No clock but the test's."""

import math
from contextlib import ExitStack

import pytest

from app.inference.admission import FIXED_PIXELS, LONGEST_RETRY, Admission, WorkloadKey
from app.inference.enhance import EnhanceOptions, EnhanceRequest
from superres.codecs import Header
from superres.errors import Busy, EngineError, ImageTooLarge
from superres.forecast import forecast

WORKLOAD = WorkloadKey("enhance", "srcnn-x3", 8)
PIXELS = 1_000_000 - FIXED_PIXELS


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock) -> Admission:
    """It has seen that a megapixel takes a second."""
    admission = Admission(max_requests=3, max_bytes=1000, clock=clock)
    admission.record(WORKLOAD, 100_000_000, 100.1)
    return admission


def work(admission, stack: ExitStack, *, nbytes=100, pixels=PIXELS, deadline=math.inf, caller=""):
    reservation = stack.enter_context(admission.reservation(caller))
    stack.enter_context(admission.admit(reservation, WORKLOAD, pixels, nbytes, deadline))
    return reservation


def test_as_many_as_allowed_and_then_no_more(admission):
    with ExitStack() as stack:
        for _ in range(3):
            work(admission, stack)
        with pytest.raises(Busy, match=r"at most 3 pictures .* 3 pictures are, 300 bytes"):
            work(admission, stack)
    assert (admission.active_requests, admission.reserved_bytes) == (0, 0)


def test_memory_is_a_limit_of_its_own(admission):
    with ExitStack() as stack:
        work(admission, stack, nbytes=700)
        with pytest.raises(Busy, match="700 bytes are taken, and this one needs 301"):
            work(admission, stack, nbytes=301)
        work(admission, stack, nbytes=300)


def test_what_would_never_fit_is_not_told_to_come_back(admission):
    with ExitStack() as stack, pytest.raises(ImageTooLarge, match=r"at most 1,000 bytes .* 1,001"):
        work(admission, stack, nbytes=1001)


def test_bodies_count_as_they_arrive(admission):
    with ExitStack() as stack:
        body = stack.enter_context(admission.reservation())
        body.grow(600)
        other = stack.enter_context(admission.reservation())
        with pytest.raises(Busy, match="600 are taken"):
            other.grow(401)
        other.grow(400)
    assert admission.reserved_bytes == 0


def test_the_time_that_is_expected_grows_by_those_beside(admission):
    assert admission.expected_seconds(WORKLOAD, PIXELS) == pytest.approx(1)
    with ExitStack() as stack:
        work(admission, stack, pixels=50_000_000)
        # It takes turns with the large one, and does not wait for it.
        assert admission.expected_seconds(WORKLOAD, PIXELS) == pytest.approx(2)
        assert admission.expected_seconds(WORKLOAD, 60_000_000) > 100


def test_the_pace_is_measured_as_a_share_of_the_machine(admission, clock):
    """Two at once, a second each by the estimate, take six seconds: three each, alone."""
    for _ in range(60):
        with ExitStack() as stack:
            work(admission, stack)
            work(admission, stack)
            clock.now += 6
    assert admission.seconds_alone(WORKLOAD, PIXELS) == pytest.approx(3, rel=0.05)


def test_retry_after_is_when_there_is_room(admission, clock):
    """Three seconds of work for three at once: the first is done after three."""
    with ExitStack() as others:
        with ExitStack() as first:
            work(admission, first)
            for _ in range(2):
                work(admission, others, pixels=10 * PIXELS)
            with pytest.raises(Busy) as refused:
                work(admission, others)
            assert refused.value.retry_after == 3
            clock.now += 3
        work(admission, others)


def test_retry_after_waits_for_as_much_memory_as_is_needed(admission):
    with ExitStack() as stack:
        work(admission, stack, nbytes=100)
        work(admission, stack, nbytes=800, pixels=10_000_000 - FIXED_PIXELS)
        with pytest.raises(Busy) as refused:
            work(admission, stack, nbytes=500)
        assert refused.value.retry_after == 11  # 1 + 10: both have to be done


def test_those_refused_together_are_not_told_to_come_back_together(admission):
    with ExitStack() as stack:
        for _ in range(3):
            work(admission, stack)
        waits = []
        for _ in range(100):
            with pytest.raises(Busy) as refused:
                work(admission, stack)
            waits.append(refused.value.retry_after)
    assert waits[:4] == [3, 4, 5, 6]
    assert max(waits) == LONGEST_RETRY


def test_one_that_would_be_late_beside_the_others_is_refused_but_never_alone(admission):
    with ExitStack() as stack:
        work(admission, stack, pixels=5 * PIXELS, deadline=0.5)
        with pytest.raises(Busy) as refused:
            work(admission, stack, deadline=1.5)
        assert refused.value.retry_after >= 3
        work(admission, stack, deadline=2.5)


def test_work_that_fails_teaches_nothing(admission, clock):
    before = admission.seconds_alone(WORKLOAD, PIXELS)
    stack = ExitStack()
    work(admission, stack)
    clock.now += 1000
    error = EngineError("no memory")
    stack.__exit__(EngineError, error, None)
    assert admission.seconds_alone(WORKLOAD, PIXELS) == before
    assert admission.active_requests == 0


def test_thumbnails_do_not_make_large_pictures_look_slow(admission, clock):
    """Each takes 0.1 s, which is nearly all fixed cost."""
    for _ in range(1000):
        with ExitStack() as stack:
            work(admission, stack, pixels=2000)
            clock.now += 0.1
    assert admission.seconds_alone(WORKLOAD, 50_000_000) < 60


def test_pictures_of_one_row_do_not_make_others_look_slow(admission, clock, srcnn_card):
    """The device pays for whole tiles; here a microsecond a pixel."""

    def pixels(*size: int) -> int:
        header = Header("png", size, 8)
        cost = forecast(header, 0, 3, srcnn_card.geometry)
        return EnhanceRequest(EnhanceOptions(), header, "png", srcnn_card, None, cost).pixels

    usual = admission.seconds_alone(WORKLOAD, pixels(3000, 4000))
    row = pixels(1, 30_000)
    cost = forecast(Header("png", (1, 30_000), 8), 0, 3, srcnn_card.geometry)
    for _ in range(20):
        with ExitStack() as stack:
            work(admission, stack, pixels=row)
            clock.now += 1e-6 * (cost.tiles * 64 * 512 + FIXED_PIXELS)
    assert admission.seconds_alone(WORKLOAD, pixels(3000, 4000)) == pytest.approx(usual, rel=0.05)


def test_what_is_learnt_is_what_was_done(admission, clock):
    """Half of what was forecast, in half of the time."""
    for _ in range(100):
        with ExitStack() as stack:
            reservation = stack.enter_context(admission.reservation())
            done = lambda: 500_000 - FIXED_PIXELS  # noqa: E731
            admitted = admission.admit(reservation, WORKLOAD, PIXELS, 100, math.inf, done=done)
            stack.enter_context(admitted)
            clock.now += 0.5
    assert admission.seconds_alone(WORKLOAD, PIXELS) == pytest.approx(1)


def test_a_caller_waits_for_his_own_requests_and_as_long_for_those_of_another(admission):
    with ExitStack() as stack:
        for _ in range(2):
            work(admission, stack, pixels=10 * PIXELS, caller="greedy")
        assert admission.expected_seconds(WORKLOAD, PIXELS, "other") == pytest.approx(2, rel=0.01)
        assert admission.expected_seconds(WORKLOAD, PIXELS, "greedy") == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize("greedy", [1, 2])
def test_the_throughput_is_measured_beside_the_requests_of_others(admission, clock, greedy):
    seconds = admission.seconds_alone(WORKLOAD, PIXELS)
    with ExitStack() as stack:
        for _ in range(greedy):
            work(admission, stack, pixels=1000 * PIXELS, caller="greedy")
        with ExitStack() as other:
            work(admission, other, caller="other")
            clock.now += 2 * seconds  # half of the device, however many the other has
        assert admission.seconds_alone(WORKLOAD, PIXELS) == pytest.approx(seconds, rel=0.01)


def test_a_caller_with_all_places_gets_no_more_than_half_once_another_one_came(admission, clock):
    with ExitStack() as stack:
        greedy = [ExitStack() for _ in range(3)]
        for one in greedy:
            work(admission, one, caller="greedy")
        with pytest.raises(Busy, match="of a caller an equal part while others wait"):
            work(admission, stack, caller="other")
        greedy.pop().close()
        with pytest.raises(Busy):  # of three places, two are a half
            work(admission, stack, caller="greedy")
        work(admission, stack, caller="other")
        greedy.pop().close()
        work(admission, stack, caller="greedy")
        clock.now += LONGEST_RETRY + 20
        greedy.pop().close()
        work(admission, stack, caller="greedy")


def test_a_stalled_body_makes_room_for_the_work_of_another(admission):
    given_up = []
    with ExitStack() as stack:
        for _ in range(9):
            body = stack.enter_context(admission.reservation("greedy"))
            stack.enter_context(body.revocable(lambda body=body: given_up.append(body)))
            body.grow(100)
        work(admission, stack, nbytes=450, caller="other")
        assert len(given_up) == 4
        with pytest.raises(Busy):
            work(admission, stack, nbytes=101, caller="other")
    assert admission.reserved_bytes == 0
