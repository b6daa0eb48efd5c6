"""Engines: tiles in, tiles out. This is the one place that knows TensorFlow."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageFilter

from superres.arrays import TileBatch, to_float
from superres.errors import EngineError, ModelMismatch
from superres.models.card import SAVED_MODEL, Example, Geometry, ModelCard, check_files
from superres.tiling import MULTIPLE

Precision = Literal["float32", "bfloat16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16"]

BATCH = 4
"""Most tiles in one call of the network, on a GPU. On a CPU one after another is as fast, and
oneDNN keeps 0.4 MB for every number and shape of tiles that it has seen."""
TRIAL_SIDE = 256
TRIAL_CALLS = 3
"""Of each precision, for an answer of that side or a little less, to see which is faster."""
VIEWS = 8
"""Of a tile, in an ensemble: four quarter turns, each also mirrored."""
FLOAT32_TOLERANCE = 1.0
"""Levels of 255 by which warm-up may differ from the card in float32."""
LOOSE_TOLERANCE = 2.0
LOOSE_MEAN_TOLERANCE = 0.1
"""The same, largest and mean, in bfloat16 or on a GPU."""


@runtime_checkable
class Engine(Protocol):
    """A network on a device."""

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Run the network.

        Args:
            tiles: [n, h, w, 3], uint8, or float32 in [0, 1]; ``h`` and ``w`` are multiples
                of 16 and at most the card's largest tile.

        Returns:
            [n, h * upscale, w * upscale, 3], of the same type, rounded and clipped. The
            halo is still there, and is not to be used.

        Raises:
            EngineError: the device failed.
        """
        ...


class BlurEngine:
    """A fake with spatial support: a box blur as wide as a receptive field.

    Stands in for a network in tests of everything around it. Since each answer depends
    on its neighbours as far as the halo, a missing or wrong halo shows.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Blur each channel over the halo, then repeat each pixel ``upscale`` times."""
        blur = ImageFilter.BoxBlur(self.geometry.halo)
        integers = tiles if tiles.dtype == np.uint8 else np.rint(tiles * 255).astype(np.uint8)
        blurred = np.stack([np.asarray(Image.fromarray(tile).filter(blur)) for tile in integers])
        upscale = self.geometry.upscale
        answers = blurred.repeat(upscale, axis=1).repeat(upscale, axis=2)
        return answers if tiles.dtype == np.uint8 else to_float(answers)


class EnsembleEngine:
    """Geometric self-ensemble: the mean of what an engine answers to eight views of a tile.

    Timofte et al., "Seven Ways to Improve Example-Based Single Image Super Resolution" (2016),
    section 3.5: four quarter turns, each also mirrored. Eight times the work. The views of
    uint8 tiles come back rounded, which leaves an error of a tenth of a level in their mean, and
    keeps the engine's faster signature.

    Args:
        engine: what answers the views.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Answer eight views, turn them back, average; see :meth:`Engine.predict`."""
        total: np.ndarray = np.zeros(0)
        for turns in range(4):
            turned = np.rot90(tiles, turns, axes=(1, 2))
            for step in (1, -1):
                answers = self._engine.predict(np.ascontiguousarray(turned[:, :, ::step]))
                upright = np.rot90(answers[:, :, ::step], -turns, axes=(1, 2))
                if not total.size:
                    integers = tiles.dtype == np.uint8
                    total = np.zeros(upright.shape, np.uint16 if integers else np.float32)
                total += upright
        mean = total / np.float32(VIEWS)
        return np.rint(mean).astype(np.uint8) if tiles.dtype == np.uint8 else mean


class SavedModelEngine:
    """A SavedModel with the signatures ``u8_float32``, ``u8_bfloat16`` and ``f32``.

    Construction loads it, checks it against its card, chooses the precision and runs it
    once, so an engine that exists is one that works.

    Args:
        folder: the model's folder, with ``saved_model/``.
        card: its card.
        precision: of uint8 tiles; ``auto`` times both and takes the faster that agrees
            with the card. float32 tiles are always computed in float32.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``gpu:N``.

    Raises:
        ModelMismatch: the files, the signatures or the answers are not what the card says.
        EngineError: no such device.
    """

    def __init__(
        self,
        folder: Path,
        card: ModelCard,
        *,
        precision: PrecisionChoice = "auto",
        device: str = "auto",
    ) -> None:
        check_files(folder, card)
        self.card = card
        self._tf = _import_tensorflow()
        self.device = _find_device(self._tf, device)
        with self._tf.device(self.device):
            # Kept, since its variables go when it does.
            self._saved_model = self._tf.saved_model.load(str(folder / SAVED_MODEL))
        self._signatures = self._saved_model.signatures
        self._check_signatures()
        self._check_halo()
        self._check_answer("f32")
        self.precision = self._choose_precision(precision)

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Run the network, a batch of tiles at a time; see :meth:`Engine.predict`."""
        signature = "f32" if tiles.dtype == np.float32 else f"u8_{self.precision}"
        batch = 1 if self._on_cpu else BATCH
        answers = [
            self._call(signature, tiles[first : first + batch])
            for first in range(0, len(tiles), batch)
        ]
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def _call(self, signature: str, tiles: np.ndarray) -> np.ndarray:
        try:
            with self._tf.device(self.device):
                result = self._signatures[signature](tiles=self._tf.constant(tiles))
            answers: np.ndarray = result["answers"].numpy()
        except self._tf.errors.ResourceExhaustedError as error:
            # A GPU's memory is shared and its limit unknown: half the batch may fit.
            if len(tiles) == 1:
                height, width = tiles.shape[1:3]
                raise EngineError(
                    f"{self.device} is out of memory for one {height}x{width} tile"
                ) from error
            half = len(tiles) // 2
            return np.concatenate(
                [self._call(signature, tiles[:half]), self._call(signature, tiles[half:])]
            )
        except self._tf.errors.OpError as error:
            raise EngineError(f"{self.card.name} failed on {self.device}: {error}") from error
        return answers

    @property
    def _on_cpu(self) -> bool:
        return self.device == "/CPU:0"

    def _check_signatures(self) -> None:
        types = {"u8_float32": "uint8", "u8_bfloat16": "uint8", "f32": "float32"}
        for name, dtype in types.items():
            if name not in self._signatures:
                found = ", ".join(sorted(self._signatures)) or "none"
                raise ModelMismatch(f"{self.card.name}: no signature {name!r}; found {found}")
            arguments = self._signatures[name].structured_input_signature[1]
            if set(arguments) != {"tiles"} or arguments["tiles"].dtype.name != dtype:
                raise ModelMismatch(
                    f"{self.card.name}: signature {name!r} must take tiles of {dtype}, "
                    f"not {arguments}"
                )

    def _check_halo(self) -> None:
        """Answers must not depend on pixels farther away than the card's halo."""
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
        if difference * 255 > (0.01 if self._on_cpu else 0.5):
            raise ModelMismatch(
                f"{self.card.name}: the card says a halo of {halo} px, but answers depend on "
                f"pixels farther away (by {difference * 255:.2f} levels)"
            )

    def _check_answer(self, signature: str) -> None:
        example: Example = self.card.example
        try:
            tiles, expected = example.tiles(), example.answers(self.card.geometry.upscale)
        except ValueError as error:
            raise ModelMismatch(f"{self.card.name}: the card's example: {error}") from error
        answers = self._call(signature, to_float(tiles) if signature == "f32" else tiles)
        difference = np.abs(to_float(answers) - expected) * 255
        exact = signature != "u8_bfloat16" and self._on_cpu
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
        if choice != "auto":
            self._check_answer(f"u8_{choice}")
            return choice
        self._check_answer("u8_float32")
        try:
            self._check_answer("u8_bfloat16")
        except ModelMismatch:
            return "float32"
        side = min(TRIAL_SIDE // self.card.geometry.upscale, self.card.geometry.largest_tile)
        side -= side % MULTIPLE
        tiles = np.zeros((1, side, side, 3), np.uint8)

        def seconds(signature: str) -> float:
            """The least, after one call to warm up: what else the machine does only adds."""
            times = [time.perf_counter()]
            for _ in range(1 + TRIAL_CALLS):
                self._call(signature, tiles)
                times.append(time.perf_counter())
            return min(np.diff(times)[1:])

        return "bfloat16" if seconds("u8_bfloat16") < seconds("u8_float32") else "float32"


def _import_tensorflow() -> Any:
    # Its start-up chatter goes to stderr past Python's logging. Its errors do not.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # By itself it takes oneDNN's convolutions only where the processor has AVX-512; with AVX2
    # alone they are faster than its own, too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    import tensorflow

    return tensorflow


def _find_device(tf: Any, device: str) -> str:
    """TensorFlow's name of the device; a GPU is told not to take all of its memory."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Refused once an earlier engine has started the device, with growth on.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    if device == "cpu" or (device == "auto" and not gpus):
        return "/CPU:0"
    number = 0 if device == "auto" else _gpu_number(device)
    if number >= len(gpus):
        raise EngineError(f"device {device!r} was asked for; TensorFlow sees {len(gpus)} GPUs")
    return f"/GPU:{number}"


def _gpu_number(device: str) -> int:
    kind, _, number = device.partition(":")
    if kind != "gpu" or not number.isdecimal():
        raise EngineError(f"device is auto, cpu or gpu:N, not {device!r}")
    return int(number)
