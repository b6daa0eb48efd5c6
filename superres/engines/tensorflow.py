"""The engine of SavedModels. This is the one place that imports TensorFlow."""

import contextlib
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from superres.engines.base import LoadedEngine, Precision, Signature, gpu_number
from superres.errors import EngineError, ModelMismatch

SAVED_MODEL = "saved_model"
"""Folder of the SavedModel in a model's folder."""


class SavedModelEngine(LoadedEngine):
    """A SavedModel with the signatures ``u8_float32``, ``u8_bfloat16`` and ``f32``.

    One without them, or with other types, is a ``ModelMismatch``. Each signature takes ``tiles``
    and returns ``answers``.
    """

    FORMAT: ClassVar[str] = "savedmodel"
    FOLDER: ClassVar[str] = SAVED_MODEL
    PACKAGE: ClassVar[str] = "tensorflow"
    INSTALL: ClassVar[str] = (
        "pip install tensorflow-cpu, or 'tensorflow[and-cuda]' for a GPU, and never both"
    )
    CALLS_AT_ONCE: ClassVar[int] = 3
    """The most of all engines: the service has as many threads."""

    def _load(self, files: Path, device: str) -> None:
        self._tf = _import_tensorflow()
        self.device = _find_device(self._tf, device)
        with self._tf.device(self.device):
            # Kept, since its variables go when it does.
            self._saved_model = self._tf.saved_model.load(str(files))
        self._signatures = self._saved_model.signatures
        self._check_signatures()

    def _call(self, signature: Signature, tiles: np.ndarray) -> np.ndarray:
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

    @property
    def _precisions(self) -> tuple[Precision, ...]:
        return ("float32", "bfloat16")

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


def _import_tensorflow() -> Any:
    # Its start-up chatter goes to stderr past Python's logging. Its errors do not.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # By itself it takes oneDNN's convolutions only where the processor has AVX-512; with AVX2
    # alone they are faster than its own, too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        raise EngineError(
            f"this model needs TensorFlow ({error}): {SavedModelEngine.INSTALL}"
        ) from error
    return tensorflow


def _find_device(tf: Any, device: str) -> str:
    """Return TensorFlow's name of the device. A GPU's memory is set to grow on demand."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Refused once an earlier engine has started the device, with growth on.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    if device == "cpu" or (device == "auto" and not gpus):
        return "/CPU:0"
    number = 0 if device == "auto" else gpu_number(device)
    if number >= len(gpus):
        raise EngineError(f"device {device!r} was asked for; TensorFlow sees {len(gpus)} GPUs")
    return f"/GPU:{number}"
