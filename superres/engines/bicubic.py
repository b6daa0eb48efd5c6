"""The engine of the model ``bicubic``: it returns its tiles, and the enhancer resizes them."""

import sys
from pathlib import Path
from typing import ClassVar

import numpy as np

from superres.arrays import TileBatch
from superres.engines.base import LoadedEngine, Precision, PrecisionChoice, Signature


class BicubicEngine(LoadedEngine):
    """A network without layers. It has no files, and runs on no device."""

    FORMAT: ClassVar[str] = "bicubic"
    FOLDER: ClassVar[str] = "bicubic"
    CALLS_AT_ONCE: ClassVar[int] = sys.maxsize

    def _load(self, files: Path, device: str) -> None:
        self.device = "/CPU:0"

    def predict(self, tiles: TileBatch) -> TileBatch:
        """Return the tiles."""
        return tiles

    def _call(self, signature: Signature, tiles: np.ndarray) -> np.ndarray:
        return tiles

    def _choose_precision(self, choice: PrecisionChoice) -> Precision:
        return "float32"

    @property
    def _on_cpu(self) -> bool:
        return True
