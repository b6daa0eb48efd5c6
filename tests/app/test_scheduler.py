"""The scheduler of the device: fairness, batches, and what happens when things go wrong."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from app.inference.scheduled_engine import ScheduledEngine
from app.inference.scheduler import CATCH_UP_S, BatchScheduler, DeviceEngine
from app.service_errors import CallerGone
from superres.engines.base import BATCH
from superres.errors import DeadlineExceeded, EngineError, NotReady

PATIENCE_S = 60
"""That a test waits for what should happen at once, on a machine that has much else to do."""


class Recorder:
    """An engine that adds one, says which tiles came together, and starts when told."""

    batch, calls_at_once = BATCH, 1

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.calls = 0
        self.go = threading.Event()
        self.failure: Exception | None = None

    def predict(self, tiles):
        self.calls += 1
        self.go.wait(PATIENCE_S)
        self.batches.append([int(tile[0, 0, 0]) for tile in tiles])
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return tiles + np.uint8(1)


@pytest.fixture
def engine() -> Recorder:
    return Recorder()


@pytest.fixture
def scheduler(engine):
    scheduler = BatchScheduler(threads=3)
    yield scheduler
    engine.go.set()
    scheduler.close()


def tiles(*values: int, side: int = 32) -> np.ndarray:
    return np.stack([np.full((side, side, 3), value, np.uint8) for value in values])


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def predict(
    scheduler: BatchScheduler,
    engine: DeviceEngine,
    batch: np.ndarray,
    seconds: float = PATIENCE_S,
    caller: str = "",
):
    return ScheduledEngine(scheduler, engine, seconds, caller=caller).predict(batch)


class Twin:
    """Another model: the same engine, under another identity."""

    batch, calls_at_once = BATCH, 1

    def __init__(self, engine: DeviceEngine) -> None:
        self.predict = engine.predict


def test_answers_come_back_in_order(scheduler, engine):
    engine.go.set()
    assert np.array_equal(predict(scheduler, engine, tiles(*range(11))), tiles(*range(1, 12)))
    assert max(len(batch) for batch in engine.batches) == BATCH


def test_requests_take_turns_and_share_batches(scheduler, engine):
    """A thumbnail that comes after a panorama is in the next batch but one."""
    with ThreadPoolExecutor(3) as callers:
        first = callers.submit(predict, scheduler, engine, tiles(1))  # holds the device
        wait_for(lambda: engine.calls == 1)
        panorama = callers.submit(predict, scheduler, engine, tiles(*range(10, 22)))
        wait_for(lambda: scheduler.queued_tiles == 12)
        thumbnail = callers.submit(predict, scheduler, engine, tiles(99))
        wait_for(lambda: scheduler.queued_tiles == 13)
        engine.go.set()
        assert np.array_equal(first.result(), tiles(2))
        assert np.array_equal(thumbnail.result(), tiles(100))
        assert np.array_equal(panorama.result(), tiles(*range(11, 23)))
    assert engine.batches[1] == [10, 99, 11, 12]


@pytest.mark.parametrize(
    ("model", "other"),
    [(None, tiles(2, side=64)), (None, tiles(2) / np.float32(1)), (Twin, tiles(2))],
)
def test_tiles_of_another_shape_type_or_model_run_apart(scheduler, engine, model, other):
    with ThreadPoolExecutor(3) as callers:
        callers.submit(predict, scheduler, engine, tiles(0))
        wait_for(lambda: engine.calls == 1)
        one = callers.submit(predict, scheduler, engine, tiles(1))
        wait_for(lambda: scheduler.queued_tiles == 1)
        two = callers.submit(predict, scheduler, model(engine) if model else engine, other)
        wait_for(lambda: scheduler.queued_tiles == 2)
        engine.go.set()
        assert one.result()[0, 0, 0, 0] == 2
        assert two.result()[0, 0, 0, 0] == 3
    assert engine.batches == [[0], [1], [2]]


def test_a_failed_batch_fails_its_requests_and_no_other(scheduler, engine):
    engine.go.set()
    engine.failure = EngineError("no memory")
    with pytest.raises(EngineError, match="no memory"):
        predict(scheduler, engine, tiles(*range(9)))
    assert scheduler.queued_tiles == 0
    assert predict(scheduler, engine, tiles(5))[0, 0, 0, 0] == 6


WRONG_ANSWERS = {
    "one too few": lambda answers: answers[1:],
    "one too many": lambda answers: np.concatenate([answers, answers[:1]]),
    "none": lambda answers: answers[:0],
    "nothing": lambda answers: None,
    "a list": list,
    "another size": lambda answers: answers[:, 1:],
    "another upscale": lambda answers: answers.repeat(2, axis=1).repeat(2, axis=2),
    "one channel": lambda answers: answers[..., :1],
    "another type": lambda answers: answers.astype(np.float32),
}


class Wrong:
    """An engine whose answers are not what was agreed."""

    batch, calls_at_once = BATCH, 1

    def __init__(self, change) -> None:
        self.change = change

    def predict(self, tiles):
        return self.change(tiles)


class Raising:
    batch, calls_at_once = BATCH, 1

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def predict(self, tiles):
        raise self.error


@pytest.mark.parametrize(
    "wrong",
    [
        *(pytest.param(Wrong(change), id=name) for name, change in WRONG_ANSWERS.items()),
        *(
            pytest.param(Raising(error), id=type(error).__name__)
            for error in (
                ValueError("x"),
                MemoryError(),
                SystemExit(1),
                KeyboardInterrupt(),
                GeneratorExit(),
                StopIteration(),
                BaseException("x"),
            )
        ),
    ],
)
def test_an_engine_that_breaks_its_contract_fails_its_requests_and_no_other(
    scheduler, engine, wrong
):
    engine.go.set()
    for count in (1, 2, BATCH, BATCH + 1):
        with pytest.raises(EngineError, match=r"the engine answered tiles of uint8|the device fai"):
            predict(scheduler, wrong, tiles(*range(count)))
        assert predict(scheduler, engine, tiles(5))[0, 0, 0, 0] == 6
    assert scheduler.alive
    assert scheduler.queued_tiles == 0
    wait_for(lambda: scheduler.stalled_seconds == 0)


def test_a_thread_that_ends_is_told_and_nobody_waits_for_it(engine, monkeypatch):
    """By a defect of the scheduler itself, which is injected."""
    scheduler = BatchScheduler(threads=1)
    with ThreadPoolExecutor(2) as callers:
        held = callers.submit(predict, scheduler, engine, tiles(1))
        wait_for(lambda: engine.calls == 1)
        waiting = callers.submit(predict, scheduler, engine, tiles(2))
        wait_for(lambda: scheduler.queued_tiles == 1)
        assert scheduler.alive
        monkeypatch.setattr(scheduler, "_next_batch", lambda: 1 / 0)
        engine.go.set()
        assert held.result()[0, 0, 0, 0] == 2
        with pytest.raises(NotReady, match="a thread of the device has ended"):
            waiting.result()
    wait_for(lambda: not scheduler.alive)
    with pytest.raises(NotReady, match="a thread of the device has ended"):
        predict(scheduler, engine, tiles(3))


def test_past_the_deadline_the_rest_of_the_tiles_is_not_computed(scheduler, engine):
    with pytest.raises(DeadlineExceeded, match=r"had 0\.5 s;"):
        predict(scheduler, engine, tiles(*range(9)), seconds=0.5)
    assert scheduler.queued_tiles == 0
    engine.go.set()
    assert predict(scheduler, engine, tiles(50))[0, 0, 0, 0] == 51
    # None at all, where the device's thread did not run in that half second.
    assert engine.batches in ([[0, 1, 2, 3], [50]], [[50]])


def test_a_caller_who_hangs_up_takes_the_rest_of_the_tiles_along(scheduler, engine):
    scheduled = ScheduledEngine(scheduler, engine, PATIENCE_S)
    with ThreadPoolExecutor(1) as callers:
        gone = callers.submit(scheduled.predict, tiles(*range(9)))
        wait_for(lambda: engine.calls == 1)
        scheduled.cancel()
        with pytest.raises(CallerGone, match="disconnected"):
            gone.result(PATIENCE_S)
        assert not engine.batches  # the device is still at its first tiles
    with pytest.raises(CallerGone):
        scheduled.predict(tiles(1))
    engine.go.set()
    assert predict(scheduler, engine, tiles(50))[0, 0, 0, 0] == 51
    assert engine.batches == [[0, 1, 2, 3], [50]]


def test_closing_tells_those_who_wait(scheduler, engine):
    with ThreadPoolExecutor(2) as callers:
        held = callers.submit(predict, scheduler, engine, tiles(1))
        wait_for(lambda: engine.calls == 1)
        waiting = callers.submit(predict, scheduler, engine, tiles(2))
        wait_for(lambda: scheduler.queued_tiles == 1)
        closer = threading.Thread(target=scheduler.close)
        closer.start()
        with pytest.raises(NotReady, match="stopping"):
            waiting.result()
        engine.go.set()
        assert held.result()[0, 0, 0, 0] == 2
        closer.join()
    with pytest.raises(NotReady, match="stopping"):
        predict(scheduler, engine, tiles(3))


def test_a_device_that_hangs_is_told_by_its_oldest_tile_and_does_not_keep_the_scheduler(
    scheduler, engine
):
    assert scheduler.stalled_seconds == 0
    with ThreadPoolExecutor(1) as callers:
        held = callers.submit(predict, scheduler, engine, tiles(1))
        wait_for(lambda: engine.calls == 1)
        wait_for(lambda: scheduler.stalled_seconds > 0.1)
        scheduler.close(0.1)
        assert not engine.batches  # the device still hangs
        engine.go.set()
        held.result()
    wait_for(lambda: scheduler.stalled_seconds == 0)


class Devices:
    """Three, each with a tile of its own before any answers; then the last answers first."""

    batch, calls_at_once = 1, 3

    def __init__(self) -> None:
        self.running = self.most = 0
        self._together = threading.Barrier(3)
        self._answered = [threading.Event() for _ in range(6)]
        self._lock = threading.Lock()

    def predict(self, tiles):
        (number,) = tiles[:, 0, 0, 0]  # one tile a call
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self._together.wait(PATIENCE_S)
        if number % 3 < 2:
            assert self._answered[number + 1].wait(PATIENCE_S)
        with self._lock:
            self.running -= 1
        self._answered[number].set()
        return tiles + np.uint8(1)


class Failing:
    """Of which the device with tile 5 is lost."""

    batch, calls_at_once = 1, 3

    def predict(self, tiles):
        if 5 in tiles[:, 0, 0, 0]:
            raise EngineError("a device is lost")
        return tiles + np.uint8(1)


def test_where_there_are_several_devices_a_pictures_tiles_are_with_them_at_once():
    devices, scheduler = Devices(), BatchScheduler(threads=5)
    assert np.array_equal(predict(scheduler, devices, tiles(*range(6))), tiles(*range(1, 7)))
    assert (devices.most, scheduler.done_tiles) == (3, 6)
    wait_for(lambda: scheduler.stalled_seconds == 0)
    with pytest.raises(EngineError, match="lost"):
        predict(scheduler, Failing(), tiles(0, 5, 1, 2))
    assert scheduler.queued_tiles == 0
    scheduler.close()


def test_an_engine_gets_no_more_calls_at_once_than_it_takes_whatever_waits_behind(engine):
    """The tiles of another engine, which takes more, wait for their turn too."""
    scheduler, other = BatchScheduler(threads=3), Recorder()
    other.calls_at_once = 3
    with ThreadPoolExecutor(5) as callers:
        first = callers.submit(predict, scheduler, other, tiles(0), caller="a")
        wait_for(lambda: other.calls == 1)
        waiting = callers.submit(predict, scheduler, engine, tiles(1), caller="b")
        wait_for(lambda: scheduler.queued_tiles == 1)
        behind = callers.submit(predict, scheduler, other, tiles(2), caller="a")
        wait_for(lambda: scheduler.queued_tiles == 2)
        with pytest.raises(TimeoutError):
            waiting.result(0.1)
        assert (other.calls, engine.calls) == (1, 0)
        other.go.set()
        assert first.result()[0, 0, 0, 0] == 1
        wait_for(lambda: engine.calls == 1)
        with pytest.raises(TimeoutError):
            behind.result(0.1)
        assert (other.calls, engine.calls) == (1, 1)
        engine.go.set()
        assert waiting.result()[0, 0, 0, 0] == 2
        assert behind.result()[0, 0, 0, 0] == 3
    scheduler.close()


def test_what_waits_first_for_its_engine_and_is_withdrawn_lets_the_next_ones_go(engine):
    scheduler, other = BatchScheduler(threads=3), Recorder()
    other.calls_at_once = 3
    with ThreadPoolExecutor(3) as callers:
        callers.submit(predict, scheduler, other, tiles(0), caller="a")
        wait_for(lambda: other.calls == 1)
        first = callers.submit(predict, scheduler, engine, tiles(1), 0.5, caller="b")
        wait_for(lambda: scheduler.queued_tiles == 1)
        callers.submit(predict, scheduler, other, tiles(2), caller="a")
        with pytest.raises(DeadlineExceeded):
            first.result()
        wait_for(lambda: other.calls == 2)
        assert not other.batches  # the first one still runs
        other.go.set()
    scheduler.close()


class Costly:
    """A device on which a tile takes as many milliseconds as its first sample says."""

    def __init__(self, batch: int, calls_at_once: int) -> None:
        self.batch, self.calls_at_once = batch, calls_at_once
        self.seconds = {"greedy": 0.0, "other": 0.0}

    def predict(self, tiles):
        for tile in tiles:
            started = time.monotonic()
            time.sleep(tile[0, 0, 0] / 1000)
            name = "greedy" if tile[0, 0, 1] else "other"
            self.seconds[name] += time.monotonic() - started
        return tiles


@pytest.mark.parametrize(
    ("calls_at_once", "batch", "greedy_ms", "other_ms"),
    [(1, BATCH, 2, 2), (1, BATCH, 6, 2), (1, BATCH, 2, 6), (3, 1, 6, 2)],
)
def test_a_caller_with_many_requests_leaves_another_its_half_of_the_device(
    calls_at_once, batch, greedy_ms, other_ms
):
    """Also where the tiles of one take longer, and where there are several devices."""
    scheduler, device = BatchScheduler(threads=3), Costly(batch, calls_at_once)
    over = threading.Event()

    def call(caller: str, milliseconds: int) -> None:
        batch = tiles(*[milliseconds] * 4, side=milliseconds)  # those of one shape take as long
        batch[:, 0, 0, 1] = caller == "greedy"
        while not over.is_set():
            predict(scheduler, device, batch, caller=caller)

    with ThreadPoolExecutor(16) as pool:
        try:
            calls = [pool.submit(call, "greedy", greedy_ms) for _ in range(12)]
            wait_for(lambda: device.seconds["greedy"] > 0.05)
            calls += [pool.submit(call, "other", other_ms) for _ in range(4)]
            before = dict(device.seconds)
            wait_for(lambda: sum(device.seconds.values()) > sum(before.values()) + 1)
            got = {name: device.seconds[name] - before[name] for name in before}
        finally:
            over.set()
            for one in calls:
                one.result(PATIENCE_S)
            scheduler.close()
    assert 0.4 <= got["other"] / sum(got.values()) <= 0.6


def test_a_caller_who_was_away_takes_no_more_than_it_may_catch_up(scheduler, engine):
    engine.go.set()
    predict(scheduler, engine, tiles(1), caller="a")
    used = scheduler._used["a"]
    for caller, seconds in (("b", 0.9 * CATCH_UP_S), ("c", 1.1 * CATCH_UP_S)):
        scheduler._least_used = used + seconds
        predict(scheduler, engine, tiles(1), caller=caller)
        assert ("a" in scheduler._used) == (seconds < CATCH_UP_S)
        assert scheduler._used[caller] >= used + seconds
