"""Engines that tests serve in place of a network."""

import threading

import numpy as np
from PIL import Image, ImageFilter

from superres.arrays import TileBatch, to_float
from superres.engines.base import BATCH
from superres.models.card import Geometry, ModelCard

SHARPEN = ImageFilter.UnsharpMask(radius=1, percent=100, threshold=0)


class BlurEngine:
    """A fake with spatial support: a box blur as wide as a receptive field.

    Stands in for a network in tests of everything around it. Since each answer depends
    on its neighbours as far as the halo, a missing or wrong halo shows.
    """

    batch, calls_at_once = BATCH, 1

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


class SharpenEngine(BlurEngine):
    """Sharpens what bicubic made, which beats bicubic on photographs; for an upscale of 1."""

    def predict(self, tiles):
        integers = tiles if tiles.dtype == np.uint8 else np.rint(tiles * 255).astype(np.uint8)
        answers = np.stack([np.asarray(Image.fromarray(tile).filter(SHARPEN)) for tile in integers])
        return answers if tiles.dtype == np.uint8 else to_float(answers)


class HeldEngine(SharpenEngine):
    """The same, once ``go`` is set; until then every call waits."""

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card.geometry)
        self.go = threading.Event()

    def predict(self, tiles):
        self.go.wait(100)  # less than a test may take
        return super().predict(tiles)
