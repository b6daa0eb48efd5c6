"""Picture -> Picture: upsample, cut, run the engine, stitch; one row of tiles at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from superres import tiling
from superres.arrays import AnyRgb, Raster, Rgb, Size, TileBatch, to_float, to_integer
from superres.card import Geometry
from superres.codecs import MAX_OUTPUT_PIXELS, Picture
from superres.engine import Engine
from superres.errors import BadRequest, ImageTooLarge
from superres.resample import degrade, scaled_size, upsample, upsample_bands

SMALLEST_SCALE = 1.0
LARGEST_SCALE = 4.0

Progress = Callable[[int, int], None]
"""Called with the tiles done and the tiles in all."""


def output_size(size: Size, scale: float, *, max_pixels: int = MAX_OUTPUT_PIXELS) -> Size:
    """Size of the enhanced picture: floor(side * scale + 0.5).

    Raises:
        BadRequest: the scale is out of range.
        ImageTooLarge: more than ``max_pixels`` output pixels.
    """
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise BadRequest(f"scale is {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}, not {scale:g}")
    height, width = scaled_size(size, scale)
    if height * width > max_pixels:
        raise ImageTooLarge(
            f"at most {max_pixels:,} output pixels are made; {size[1]}x{size[0]} times {scale:g} "
            f"would have {height * width:,} ({width}x{height})"
        )
    return height, width


@dataclass(frozen=True)
class Enhancer:
    """A network and how to cut tiles for it. Keeps nothing between calls."""

    engine: Engine
    geometry: Geometry

    def enhance(
        self,
        picture: Picture,
        scale: float,
        *,
        max_pixels: int = MAX_OUTPUT_PIXELS,
        progress: Progress | None = None,
    ) -> Picture:
        """Enlarge a picture; its alpha is enlarged by bicubic.

        Args:
            picture: 8 or 16 bits a sample; the result has as many.
            scale: 1 to 4, fractions too.
            max_pixels: most output pixels that are made.
            progress: told after each row of tiles.

        Raises:
            BadRequest: the scale is out of range.
            ImageTooLarge: more than ``max_pixels`` output pixels.
            EngineError: the device failed.
        """
        size = output_size(picture.size, scale, max_pixels=max_pixels)
        alpha = picture.alpha
        if alpha is not None:
            alpha = _like(upsample(_for_engine(alpha), size), alpha)
        return replace(
            picture, rgb=self.enhance_rgb(picture.rgb, size, progress=progress), alpha=alpha
        )

    def enhance_rgb(self, lr: AnyRgb, size: Size, *, progress: Progress | None = None) -> AnyRgb:
        """Enlarge RGB of uint8, uint16 or float32 in [0, 1] to ``size``, in its type.

        In the ``lr`` domain the network's own upscale is made and then shrunk to size; a
        size beyond it is reached by bicubic.
        """
        geometry = self.geometry
        plane_size = size if geometry.domain == "hr" else (lr.shape[0], lr.shape[1])
        cut = tiling.plan(plane_size, largest_tile=geometry.largest_tile, halo=geometry.halo)
        samples = _for_engine(lr)
        bands = upsample_bands(samples, size) if geometry.domain == "hr" else iter([samples])
        made = (plane_size[0] * geometry.upscale, plane_size[1] * geometry.upscale)
        sr = np.empty((*made, 3), lr.dtype)
        rows = _Rows(bands)
        for row in range(len(cut.tops)):
            strip = rows.take(cut.tile_rows(row))
            answers = self.engine.predict(tiling.extract(strip, cut))
            tiling.stitch(_like(answers, lr), cut, row, sr)
            if progress is not None:
                progress((row + 1) * len(cut.lefts), cut.tiles)
        if made == size:
            return sr
        resize = degrade if made[0] * made[1] > size[0] * size[1] else upsample
        return _like(resize(_for_engine(sr), size), lr)


class _Rows:
    """A window that moves down a plane which is made in bands."""

    def __init__(self, bands: Iterator[Raster]) -> None:
        self._bands = bands
        self._window = next(bands)
        self._first = 0

    def take(self, indices: np.ndarray) -> Rgb:
        """The rows of these ascending indices; earlier rows are let go."""
        first, last = int(indices[0]), int(indices[-1])
        while self._first + len(self._window) <= last:
            kept = self._window[max(0, first - self._first) :]
            self._first += len(self._window) - len(kept)
            self._window = np.concatenate([kept, next(self._bands)])
        return self._window[indices - self._first]


def _for_engine(samples: np.ndarray) -> np.ndarray:
    """16-bit samples as float32 in [0, 1]; the engines take the others as they are."""
    return to_float(samples) if samples.dtype == np.uint16 else samples


def _like(samples: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Samples back in the picture's type."""
    return samples if picture.dtype == np.float32 else to_integer(samples, picture.dtype)


class _Unchanged:
    """An engine that gives its tiles back as they are."""

    def predict(self, tiles: TileBatch) -> TileBatch:
        return tiles


BICUBIC = Enhancer(_Unchanged(), Geometry(domain="hr", upscale=1, halo=0, largest_tile=512))
"""Bicubic alone: the baseline, enlarged the same way as by a model."""
