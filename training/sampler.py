"""Batches of random crops from prepared sets, prefetched by other processes.

Every crop is shrunk and degraded separately: shrunk pictures are not stored, and no two crops have
the same noise or block grid.
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
"""Changes when the same arguments give another batch."""
_CLEAN_REACH = 4
"""Margin around a region of the LR picture that bicubic needs, px."""
_RECEIVED = 2
"""Batches that are queued in the training process."""
_BUFFERS = 2
"""Batches that each worker keeps in shared memory."""

Batch: TypeAlias = tuple[TilesU8, TilesU8]
"""Planes and HR patches."""


class SamplerFailed(RuntimeError):
    """A batch cannot be made; the message says why."""


@dataclass(frozen=True)
class Sampling:
    """Settings that a batch depends on, apart from pictures, seed and step."""

    scale: int
    domain: Literal["hr", "lr"]
    """Input of the network; see :class:`training.networks.Architecture`."""
    halo: int
    """Pixels at each side of a plane beyond the part that corresponds to the HR patch."""
    patch_size: int
    """Side of the HR patch, px; a multiple of the scale."""
    batch_size: int
    shrinks: tuple[tuple[float, ...], ...]
    """Factors to shrink pictures by, for each set; one is drawn for each crop. 1 keeps the size."""
    shuffle_channels: bool = False
    """Whether to permute the colour channels of each crop at random."""
    degradations: Degradations | None = None
    """Degradations of LR pictures; None for clean ones."""

    def __post_init__(self) -> None:
        if self.patch_size % self.scale:
            raise ValueError(
                f"patch_size must be a multiple of the scale ({self.scale}), not {self.patch_size}"
            )

    @property
    def upscale(self) -> int:
        """HR pixels per plane pixel, along a side."""
        return self.scale if self.domain == "lr" else 1

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of the planes and of the HR patches of a batch."""
        side = self.patch_size // self.upscale + 2 * self.halo
        return (self.batch_size, side, side, 3), (self.batch_size, *[self.patch_size] * 2, 3)

    @property
    def bytes_of_a_batch(self) -> int:
        """Size of the planes and HR patches of a batch, bytes."""
        return sum(map(math.prod, self.shapes))


def batch(sets: Sequence[PreparedSet], sampling: Sampling, seed: int, step: int) -> Batch:
    """Make a batch (planes, hr) of random crops, flipped and rotated.

    A batch depends only on the arguments. Pictures are drawn with a probability proportional to
    their area, from those that are large enough at one of their set's factors. Planes replicate
    the picture's edge. With a halo, crops that overlap an edge by up to a quarter are moved to the
    edge. Channels are permuted, and pictures rotated, before they are degraded.

    Returns:
        Planes [batch, side, side, 3] with side = patch / upscale + 2 halo, and HR patches
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
    """Iterates endlessly over batches from a step on, which other processes prefetch.

    This is a context manager: the processes end with it, and with the process that started them.
    Each process prefetches :data:`_BUFFERS` batches, and a thread :data:`_RECEIVED` more.
    ``waited`` is the time that the iteration waited for batches, s.
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
            # Only the worker keeps this end, so that each process notices when the other dies.
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
            # If it is making a batch, the thread then reads the end of its pipe.
            process.terminate()
        while self._thread.is_alive():
            with suppress(queue.Empty):  # The thread may wait for room in the queue.
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
        for number in count():
            received = self._receive(*reversed(divmod(number, self._workers)))
            if self._closed.is_set():
                return
            self._received.put(received)
            if isinstance(received, SamplerFailed):
                return

    def _receive(self, worker: int, number: int) -> Batch | SamplerFailed:
        pipe = self._pipes[worker]
        try:
            message = pipe.recv()
            if message is not None:
                return SamplerFailed(message)
            buffer = self._buffers[worker][number % _BUFFERS]
            planes, truths = _views(buffer, self._arguments[1])
            received = planes.copy(), truths.copy()
            pipe.send(None)
        except (EOFError, OSError):  # The process died.
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
    """Write every ``stride``-th batch to the next buffer, until the reader closes the pipe.

    Batches do not go through the pipe, because the reader would need the GIL for every 64 KiB.
    """
    # The training process handles Ctrl-C, and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for number in count():
            made = batch(sets, sampling, seed, first_step + number * stride)
            if number >= len(buffers):
                pipe.recv()  # Wait until the reader has copied the last batch of this buffer.
            for view, array in zip(
                _views(buffers[number % len(buffers)], sampling), made, strict=True
            ):
                view[:] = array
            pipe.send(None)
    except (EOFError, ConnectionError):
        return
    except Exception:
        pipe.send(traceback.format_exc())


def _views(buffer: Any, sampling: Sampling) -> Batch:
    """Views of the planes and HR patches in a buffer."""
    flat = np.frombuffer(buffer, np.uint8)
    planes, truths = sampling.shapes
    end = math.prod(planes)
    return flat[:end].reshape(planes), flat[end:].reshape(truths)


def _large_enough(one: PreparedSet, shrinks: tuple[float, ...], sampling: Sampling) -> np.ndarray:
    """Whether a patch fits into the picture shrunk by each factor: [pictures, shrinks]."""
    shortest = one.sizes.min(axis=1)[:, None] * np.array(shrinks)
    return np.floor(shortest + 0.5) // sampling.scale * sampling.scale >= sampling.patch_size


def _crop(
    picture: RgbU8, shrink: float, sampling: Sampling, random: np.random.Generator
) -> tuple[RgbU8, RgbU8]:
    """Make the plane and the HR patch of a random crop."""
    scale, upscale, halo = sampling.scale, sampling.upscale, sampling.halo
    whole = scaled_size(picture.shape[:2], shrink)
    lr_size = np.array(whole) // scale
    plane_size = lr_size * scale // upscale
    side = sampling.patch_size // upscale
    # Without this, the outermost pixels of a picture would occur in almost no crop.
    over = side // 4 if halo else 0
    free = plane_size - side
    start = np.clip(random.integers(-over, free + 1 + over), 0, free)
    rotations, mirrored = int(random.integers(4)), bool(random.integers(2))
    order = random.permutation(3) if sampling.shuffle_channels else [0, 1, 2]
    degradations = sampling.degradations
    if degradations is not None and random.random() < degradations.clean:
        degradations = None

    # The region of the LR picture to compute: the crop plus a margin, clipped to the picture.
    # A random margin gives random offsets of block grids.
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
        rotated_size = size[::-1] if rotations % 2 else size
        rotated = _rotated(region, rotations, mirrored)
        lr = shrink_and_degrade(rotated, rotated_size, degradations, random)
        lr = _rotated_back(lr, rotations, mirrored)
    plane = lr if sampling.domain == "lr" else upsample(lr, region.shape[:2])

    origin = first * scale // upscale
    at = np.arange(-halo, side + halo)[:, None] + start
    at_rows, at_columns = (np.clip(at, 0, plane_size - 1) - origin).T
    top, left = start * upscale - first * scale
    hr = region[top : top + sampling.patch_size, left : left + sampling.patch_size]
    return (
        _rotated(plane[np.ix_(at_rows, at_columns)], rotations, mirrored),
        _rotated(hr, rotations, mirrored),
    )


def _rotated(rgb: RgbU8, rotations: int, mirrored: bool) -> RgbU8:
    return np.rot90(rgb[:, ::-1] if mirrored else rgb, rotations)


def _rotated_back(rgb: RgbU8, rotations: int, mirrored: bool) -> RgbU8:
    upright = np.rot90(rgb, -rotations)
    return upright[:, ::-1] if mirrored else upright
