"""Batches of crops from prepared sets, made ahead by other processes.

Every crop is shrunk, and degraded, for itself: of a picture no shrunk copy is kept, and no two
crops have the same noise or grid of blocks.
"""

import math
import multiprocessing
import queue
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from superres.arrays import RgbU8, TilesU8
from superres.resample import degrade, degrade_part, scaled_size, upsample
from training.degrade import GRID, REACH, Degradations, shrink_and_degrade
from training.prepared import PreparedSet

SAMPLER_VERSION = 1
"""Another one where the same arguments make another batch."""
_CLEAN_REACH = 4
"""Pixels of the small picture around a part that decide what bicubic makes of it."""
_RECEIVED = 2
"""Batches that wait in the process that trains."""
_BUFFERS = 2
"""Batches that wait in the memory that a worker shares with it."""

Batch: TypeAlias = tuple[TilesU8, TilesU8]
"""Planes and HR."""


class SamplerFailed(RuntimeError):
    """No batch can be made; the message says why."""


@dataclass(frozen=True)
class Sampling:
    """What a batch depends on besides pictures, seed and step."""

    scale: int
    domain: Literal["hr", "lr"]
    """Whether the network works on the bicubic plane or on the small picture."""
    halo: int
    """Pixels a side by which planes are larger than what the network makes of them."""
    patch_size: int
    """Side of the HR patch, px; a multiple of the scale."""
    batch_size: int
    shrinks: tuple[tuple[float, ...], ...]
    """For each set, the factors of which one is drawn for each crop; 1 is the picture itself."""
    shuffle_channels: bool = False
    """Whether a crop's red, green and blue change places at random."""
    degradations: Degradations | None = None
    """What small pictures go through; nothing unless given."""

    def __post_init__(self) -> None:
        if self.patch_size % self.scale:
            raise ValueError(
                f"patch_size is a multiple of the scale ({self.scale}), not {self.patch_size}"
            )

    @property
    def upscale(self) -> int:
        """Pixels of HR per pixel of the plane, along a side."""
        return self.scale if self.domain == "lr" else 1

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of a batch's planes and HR."""
        side = self.patch_size // self.upscale + 2 * self.halo
        return (self.batch_size, side, side, 3), (self.batch_size, *[self.patch_size] * 2, 3)

    @property
    def bytes_of_a_batch(self) -> int:
        """Of both."""
        return sum(map(math.prod, self.shapes))


def batch(sets: Sequence[PreparedSet], sampling: Sampling, seed: int, step: int) -> Batch:
    """Make (planes, hr) of random crops, flipped and turned.

    A batch depends on the arguments alone. A picture is drawn as often as its area says, of those
    that are large enough at one of their set's factors. Beyond a picture's edge, planes repeat it;
    where they have a halo, a crop that would reach over an edge by up to a quarter is moved back
    to it. Channels change places, and pictures are turned, before they are degraded.

    Returns:
        [batch, side, side, 3], side being patch / upscale + 2 halo, and
        [batch, patch, patch, 3].

    Raises:
        SamplerFailed: no picture is large enough.
    """
    random = np.random.default_rng([seed, step])
    allowed = [
        _large_enough(one, shrinks, sampling)
        for one, shrinks in zip(sets, sampling.shrinks, strict=True)
    ]
    odds = np.concatenate(
        [one.sizes.prod(axis=1) * fits.any(axis=1) for one, fits in zip(sets, allowed, strict=True)]
    ).astype(np.float64)
    if not odds.any():
        raise SamplerFailed(f"no picture is large enough for a patch of {sampling.patch_size} px")
    first_of_set = np.cumsum([0, *(len(one) for one in sets)])
    crops = []
    for index in random.choice(len(odds), sampling.batch_size, p=odds / odds.sum()):
        chosen = int(np.searchsorted(first_of_set, index, side="right")) - 1
        within = int(index - first_of_set[chosen])
        factors = np.flatnonzero(allowed[chosen][within])
        shrink = sampling.shrinks[chosen][factors[random.integers(len(factors))]]
        crops.append(_crop(sets[chosen][within], shrink, sampling, random))
    planes, truths = zip(*crops, strict=True)
    return np.stack(planes), np.stack(truths)


class Prefetch:
    """Iterates over batches from a step on, without end; other processes make them ahead.

    A context manager: the processes end with it, and with the process that started them. Each keeps
    :data:`_BUFFERS` batches ready, and a thread :data:`_RECEIVED` more. ``waited`` is how many
    seconds the iteration waited for batches.
    """

    def __init__(
        self,
        sets: Sequence[PreparedSet],
        sampling: Sampling,
        *,
        seed: int,
        first_step: int = 0,
        workers: int = 1,
    ) -> None:
        self._arguments = (tuple(sets), sampling, seed)
        self._first_step = first_step
        self._workers = workers
        self._received: queue.Queue[Batch | SamplerFailed] = queue.Queue(_RECEIVED)
        self._closed = threading.Event()
        self.waited = 0.0

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._processes, self._pipes, self._buffers = [], [], []
        sampling = self._arguments[1]
        for number in range(self._workers):
            ours, theirs = context.Pipe()
            buffers = [context.RawArray("B", sampling.bytes_of_a_batch) for _ in range(_BUFFERS)]
            process = context.Process(
                target=_work,
                args=(theirs, buffers, *self._arguments, self._first_step + number, self._workers),
                daemon=True,
            )
            process.start()
            # Now only the worker has that end: a dead one is noticed; if we are, it notices.
            theirs.close()
            self._buffers.append(buffers)
            self._processes.append(process)
            self._pipes.append(ours)
        self._thread = threading.Thread(target=self._receive_all, name="batches", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        for process in self._processes:
            # It may be in the middle of a batch; the thread then reads the end of its pipe.
            process.terminate()
        while self._thread.is_alive():
            with suppress(queue.Empty):  # It may wait for room.
                self._received.get(timeout=0.05)
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join()
            process.close()
            pipe.close()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        started = time.perf_counter()
        received = self._received.get()
        self.waited += time.perf_counter() - started
        if isinstance(received, SamplerFailed):
            raise received
        return received

    def _receive_all(self) -> None:
        for turn in count():
            received = self._receive(*reversed(divmod(turn, self._workers)))
            if self._closed.is_set():
                return
            self._received.put(received)
            if isinstance(received, SamplerFailed):
                return

    def _receive(self, worker: int, turn: int) -> Batch | SamplerFailed:
        pipe = self._pipes[worker]
        try:
            message = pipe.recv()
            if message is not None:
                return SamplerFailed(message)
            buffer = self._buffers[worker][turn % _BUFFERS]
            planes, truths = _views(buffer, self._arguments[1])
            received = planes.copy(), truths.copy()
            pipe.send(None)
        except (EOFError, OSError):  # It died.
            self._processes[worker].join()
            return SamplerFailed(
                "a process that makes batches ended with exit status "
                f"{self._processes[worker].exitcode}"
            )
        return received


def _work(
    pipe: Connection,
    buffers: list[Any],
    sets: tuple[PreparedSet, ...],
    sampling: Sampling,
    seed: int,
    first_step: int,
    stride: int,
) -> None:
    """Put every ``stride``-th batch into the next buffer, until nobody reads any more.

    Through a pipe, a thread that reads batches would wait for Python's lock at every 64 KiB.
    """
    # Ctrl-C is for the process that trains; it ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for turn in count():
            made = batch(sets, sampling, seed, first_step + turn * stride)
            if turn >= len(buffers):
                pipe.recv()  # The buffer's last batch has been read.
            for view, array in zip(
                _views(buffers[turn % len(buffers)], sampling), made, strict=True
            ):
                view[:] = array
            pipe.send(None)
    except (EOFError, ConnectionError):
        return
    except Exception:
        pipe.send(traceback.format_exc())


def _views(buffer: Any, sampling: Sampling) -> Batch:
    """Planes and HR of the batch in a buffer."""
    flat = np.frombuffer(buffer, np.uint8)
    planes, truths = sampling.shapes
    end = math.prod(planes)
    return flat[:end].reshape(planes), flat[end:].reshape(truths)


def _large_enough(one: PreparedSet, shrinks: tuple[float, ...], sampling: Sampling) -> np.ndarray:
    """[pictures, shrinks]: whether a patch fits into the shrunk picture."""
    shortest = one.sizes.min(axis=1)[:, None] * np.array(shrinks)
    return np.floor(shortest + 0.5) // sampling.scale * sampling.scale >= sampling.patch_size


def _crop(
    picture: RgbU8, shrink: float, sampling: Sampling, random: np.random.Generator
) -> tuple[RgbU8, RgbU8]:
    """Plane and HR of a crop at random."""
    scale, upscale, halo = sampling.scale, sampling.upscale, sampling.halo
    whole = scaled_size(picture.shape[:2], shrink)
    lr_size = np.array(whole) // scale
    plane_size = lr_size * scale // upscale
    side = sampling.patch_size // upscale
    # Or a picture's outermost pixels, in one place of all, would hardly ever be seen.
    over = side // 4 if halo else 0
    free = plane_size - side
    start = np.clip(random.integers(-over, free + 1 + over), 0, free)
    turns, mirrored = int(random.integers(4)), bool(random.integers(2))
    order = random.permutation(3) if sampling.shuffle_channels else [0, 1, 2]
    degradations = sampling.degradations
    if degradations is not None and random.random() < degradations.clean:
        degradations = None

    # The part of the small picture that is made: more than is seen, as far as the picture goes.
    # Its corner at random puts grids of blocks anywhere.
    before = after = np.full(2, _CLEAN_REACH)
    if degradations is not None:
        before, after = REACH + random.integers(GRID, size=(2, 2))
    first = np.maximum((start - halo) * upscale // scale - before, 0)
    last = np.minimum(-(-(start + side + halo) * upscale // scale) + after, lr_size)
    rows, columns = ((int(a) * scale, int(b) * scale) for a, b in zip(first, last, strict=True))
    region = degrade_part(picture, whole, rows, columns)
    if sampling.shuffle_channels:
        region = region[..., order]
    size = (region.shape[0] // scale, region.shape[1] // scale)
    if degradations is None:
        lr = degrade(region, size)
    else:
        turned_size = size[::-1] if turns % 2 else size
        turned = _turned(region, turns, mirrored)
        lr = shrink_and_degrade(turned, turned_size, degradations, random)
        lr = _turned_back(lr, turns, mirrored)
    plane = lr if sampling.domain == "lr" else upsample(lr, region.shape[:2])

    origin = first * scale // upscale
    at = np.arange(-halo, side + halo)[:, None] + start
    at_rows, at_columns = (np.clip(at, 0, plane_size - 1) - origin).T
    top, left = start * upscale - first * scale
    hr = region[top : top + sampling.patch_size, left : left + sampling.patch_size]
    return (
        _turned(plane[np.ix_(at_rows, at_columns)], turns, mirrored),
        _turned(hr, turns, mirrored),
    )


def _turned(rgb: RgbU8, turns: int, mirrored: bool) -> RgbU8:
    return np.rot90(rgb[:, ::-1] if mirrored else rgb, turns)


def _turned_back(rgb: RgbU8, turns: int, mirrored: bool) -> RgbU8:
    upright = np.rot90(rgb, -turns)
    return upright[:, ::-1] if mirrored else upright
