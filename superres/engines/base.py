"""What an engine is, and the checks that every model passes when it is loaded."""

import contextlib
import math
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from superres.arrays import TileBatch, to_float
from superres.errors import EngineError, ModelMismatch
from superres.models.card import ModelCard, hash_files
from superres.tiling import plan

Precision = Literal["float32", "bfloat16", "int8"]
PrecisionChoice = Literal["auto", "float32", "bfloat16", "int8"]
Signature = Literal["u8_float32", "u8_bfloat16", "u8_int8", "f32"]
"""Type of the tiles, and for uint8 the precision of the computation."""
Runtime = Literal["auto", "tensorflow", "onnxruntime"]
"""What runs the networks; ``auto`` takes the fastest that is installed."""
U8_SIGNATURES: dict[Precision, Signature] = {
    "float32": "u8_float32",
    "bfloat16": "u8_bfloat16",
    "int8": "u8_int8",
}

BATCH = 4
"""Most tiles in one call of the network, on a GPU. On a CPU single tiles are as fast, and oneDNN
keeps 0.4 MB for every number and shape of tiles that it has seen."""
TRIAL_SIDE = 128
"""Side of the answer by whose tile each precision is timed, px."""
TRIAL_CALLS = 5
"""Timed calls of each precision."""
FLOAT32_TOLERANCE = 1.0
"""Levels of 255 by which the example's answer may differ from the card in float32."""
LOOSE_TOLERANCE = 2.0
LOOSE_MEAN_TOLERANCE = 0.1
"""The same, largest and mean, in bfloat16 or int8, or on a GPU."""
INT8_GAIN = 1.3
"""Times as fast as the other precisions that int8 must be where ``auto`` takes it."""


@runtime_checkable
class Engine(Protocol):
    """A network on a device."""

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Run the network.

        Args:
            tiles: [n, h, w, 3], uint8, or float32 in [0, 1]; ``h`` and ``w`` are more than twice
                the card's halo, and at most its largest tile.

        Returns:
            [n, h * upscale, w * upscale, 3], of the same type, rounded and clipped. What is
            there of the halo is not to be used: it may be anything, such as zeros.

        Raises:
            EngineError: the device failed.
        """
        ...


class LoadedEngine(ABC):
    """An engine that loads a model from its folder and checks it against its card.

    Construction checks the files' hashes, loads them, checks the halo and the example's answer,
    and chooses the precision, so an engine that exists is one that works. A subclass
    says how files of one format are loaded and run; the checks are the same for all.

    Args:
        folder: the model's folder.
        card: its card.
        precision: of uint8 tiles; ``auto`` times those that agree with the card and takes the
            fastest, int8 only if it is :data:`INT8_GAIN` times as fast. ``int8`` is float32 for
            a model that does not offer it. float32 tiles are always computed in float32.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``gpu:N``.

    Raises:
        ModelMismatch: the files or the answers are not what the card says.
        EngineError: no such device, or it does not compute in that precision.
    """

    FORMAT: ClassVar[str]
    """The format that it loads, by the name that cards use."""
    FOLDER: ClassVar[str]
    """Name of the folder, in a model's folder, that has the files of that format."""
    PACKAGE: ClassVar[str] = ""
    """The Python package of its runtime; empty if it needs none."""
    INSTALL: ClassVar[str] = ""
    """What brings that package."""
    CALLS_AT_ONCE: ClassVar[int] = 1
    """Calls, each of one tile, that a CPU makes at once. All of them use all cores; another one
    has work for those that finish their part of an operation before the others."""

    device: str
    """The device, by the runtime's name for it; :meth:`_load` sets it."""

    def __init__(
        self,
        folder: Path,
        card: ModelCard,
        *,
        precision: PrecisionChoice = "auto",
        device: str = "auto",
    ) -> None:
        self.check_files(folder, card)
        self.card = card
        self._load(folder / self.FOLDER, device)
        self._check_halo()
        self._check_example("f32")
        self.precision = self._choose_precision(precision)

    @abstractmethod
    def _load(self, files: Path, device: str) -> None:
        """Load the network from the folder ``files`` to the device, and set ``self.device``.

        Raises:
            ModelMismatch: the files do not have what an engine needs.
            EngineError: no such device.
        """

    @abstractmethod
    def _call(self, signature: Signature, tiles: np.ndarray) -> np.ndarray:
        """Run the network once, as :meth:`Engine.predict`.

        Raises:
            EngineError: the device failed.
        """

    @property
    @abstractmethod
    def _on_cpu(self) -> bool:
        """Whether the device is a CPU. Others may compute a little differently for each shape."""

    @property
    def _precisions(self) -> tuple[Precision, ...]:
        """What it can compute uint8 tiles in; float32 comes first."""
        return ("float32",)

    @property
    def batch(self) -> int:
        """Most tiles in one call of the network."""
        return 1 if self._on_cpu else BATCH

    @property
    def calls_at_once(self) -> int:
        """Calls of the network that are made at once."""
        return self.CALLS_AT_ONCE if self._on_cpu else 1

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Run the network, a batch of tiles at a time; see :meth:`Engine.predict`."""
        signature = "f32" if tiles.dtype == np.float32 else U8_SIGNATURES[self.precision]
        batches = [tiles[first : first + self.batch] for first in range(0, len(tiles), self.batch)]
        if len(batches) == 1:
            return self._call(signature, tiles)
        if self.calls_at_once > 1:
            with ThreadPoolExecutor(self.calls_at_once) as threads:
                return np.concatenate([*threads.map(partial(self._call, signature), batches)])
        return np.concatenate([self._call(signature, one) for one in batches])

    @classmethod
    def check_files(cls, folder: Path, card: ModelCard) -> None:
        """Check the files of a model's folder against the hashes of its card.

        Raises:
            ModelMismatch: a file is missing, changed, or not on the card.
        """
        found, listed = hash_files(folder / cls.FOLDER), card.formats[cls.FORMAT]
        for path in sorted(listed.keys() | found.keys()):
            if path not in found:
                raise ModelMismatch(f"{card.name}: {cls.FOLDER}/{path} is on the card but missing")
            if path not in listed:
                raise ModelMismatch(f"{card.name}: {cls.FOLDER}/{path} is not on the card")
            if found[path] != listed[path]:
                raise ModelMismatch(
                    f"{card.name}: {cls.FOLDER}/{path} has SHA-256 {found[path][:12]}..., "
                    f"the card says {listed[path][:12]}..."
                )

    def _check_halo(self) -> None:
        """Answers must not depend on pixels farther away than the card's halo.

        Those of a network that is not tiled exactly may, by as much as its card says.
        """
        halo, upscale = self.card.geometry.halo, self.card.geometry.upscale
        core = 16
        seen = core + 2 * halo
        wide = np.random.default_rng(0).random((1, 3 * seen, 3 * seen, 3), np.float32)
        narrow = wide[:, seen : 2 * seen, seen : 2 * seen]
        inner = slice(halo * upscale, (halo + core) * upscale)
        outer = slice((seen + halo) * upscale, (seen + halo + core) * upscale)
        expected = self._call("f32", wide)
        if expected.shape[1] != 3 * seen * upscale:
            raise ModelMismatch(
                f"{self.card.name}: the card says upscale {upscale}; a plane of {3 * seen} px "
                f"came back as {expected.shape[1]}"
            )
        difference = np.abs(
            expected[:, outer, outer] - self._call("f32", narrow)[:, inner, inner]
        ).max()
        # A GPU may choose another algorithm, and TF32, for another shape.
        allowed = 0.01 if self._on_cpu else 0.5
        if tiling := self.card.geometry.tiling:
            allowed = math.inf if tiling.mode == "whole" else allowed + tiling.error_levels
        if difference * 255 > allowed:
            raise ModelMismatch(
                f"{self.card.name}: the card says a halo of {halo} px, but answers depend on "
                f"pixels farther away (by {difference * 255:.2f} levels)"
            )

    def _check_example(self, signature: Signature) -> None:
        example, upscale = self.card.example, self.card.geometry.upscale
        try:
            tiles, expected = example.tiles(), example.answers(upscale)
            if signature == "u8_int8" and self.card.int8 is not None:
                expected = to_float(self.card.int8.answers(example, upscale))
        except ValueError as error:
            raise ModelMismatch(f"{self.card.name}: the card's example: {error}") from error
        answers = self._call(signature, to_float(tiles) if signature == "f32" else tiles)
        answers = example.without_margin(answers, upscale)
        difference = np.abs(to_float(answers) - expected) * 255
        exact = signature in ("u8_float32", "f32") and self._on_cpu
        largest = FLOAT32_TOLERANCE if exact else LOOSE_TOLERANCE
        mean = FLOAT32_TOLERANCE if exact else LOOSE_MEAN_TOLERANCE
        # uint8 answers are rounded; what that alone does to the mean is allowed for.
        rounding = 0.0 if signature == "f32" else 0.25
        if difference.max() > largest or difference.mean() > mean + rounding:
            raise ModelMismatch(
                f"{self.card.name}: {signature} differs from the card's example by up to "
                f"{difference.max():.2f} levels, {difference.mean():.3f} in the mean; "
                f"at most {largest:g} and {mean:g} are allowed"
            )

    def _choose_precision(self, choice: PrecisionChoice) -> Precision:
        if choice == "int8" and self.card.int8 is None:
            choice = "float32"
        if choice != "auto":
            if choice not in self._precisions:
                raise EngineError(
                    f"{self.PACKAGE} computes in {' or '.join(self._precisions)} on this "
                    f"{self.device.strip('/')}, not in {choice}: set the precision to auto, or "
                    "take another runtime"
                )
            self._check_example(U8_SIGNATURES[choice])
            return choice
        self._check_example("u8_float32")
        agreeing: list[Precision] = ["float32"]
        for other in self._precisions[1:]:
            with contextlib.suppress(ModelMismatch):
                self._check_example(U8_SIGNATURES[other])
                agreeing.append(other)
        if len(agreeing) == 1:
            return "float32"
        geometry = self.card.geometry
        small = TRIAL_SIDE // geometry.upscale
        tile = plan((small, small), largest_tile=geometry.largest_tile, halo=geometry.halo).tile
        tiles = np.zeros((1, *tile, 3), np.uint8)

        # In turn, since a busy machine is slower at one time than at another; and the least of each
        # after one call to warm up, since what else the machine does only adds.
        seconds: dict[Precision, list[float]] = {precision: [] for precision in agreeing}
        for _ in range(1 + TRIAL_CALLS):
            for precision, times in seconds.items():
                began = time.perf_counter()
                self._call(U8_SIGNATURES[precision], tiles)
                times.append(time.perf_counter() - began)
        cost = {precision: min(times[1:]) for precision, times in seconds.items()}
        if "int8" in cost:
            cost["int8"] *= INT8_GAIN  # since it loses some quality
        return min(agreeing, key=cost.__getitem__)


def gpu_number(device: str) -> int:
    """The number in the setting ``gpu:N``.

    Raises:
        EngineError: it is no such setting.
    """
    kind, _, number = device.partition(":")
    if kind != "gpu" or not number.isdecimal():
        raise EngineError(f"device is auto, cpu or gpu:N, not {device!r}")
    return int(number)
