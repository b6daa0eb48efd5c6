"""Picture -> Picture: upsample, cut, run the engine, stitch; a few tiles at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from superres import tiling
from superres.arrays import AnyRgb, Raster, Rgb, Size, TileBatch, to_float, to_integer
from superres.codecs import MAX_OUTPUT_PIXELS, Picture
from superres.colour import bleed, is_grey, to_grey
from superres.engines.base import BATCH, Engine
from superres.engines.ensemble import EnsembleEngine
from superres.errors import ImageTooLarge
from superres.models.card import Geometry
from superres.resample import Box, resize_bands
from superres.sizing import Target, resolve

COLUMNS = 2 * BATCH
"""Tiles that are cut, and with the engine, at a time."""

Progress = Callable[[int, int], None]
"""Called with the tiles done and the tiles in all."""


@dataclass(frozen=True)
class Enhancer:
    """A network and how to cut tiles for it. Keeps nothing between calls."""

    engine: Engine
    geometry: Geometry

    def enhance(
        self,
        picture: Picture,
        target: float | Target,
        *,
        max_pixels: int = MAX_OUTPUT_PIXELS,
        progress: Progress | None = None,
    ) -> Picture:
        """Enlarge a picture, or give it the size that is asked for.

        A grey picture stays grey, also where it is stored as RGB: see
        :func:`superres.colour.is_grey`. Alpha is enlarged by bicubic, and what is wholly
        transparent takes the colour of what is visible beside it first: see
        :func:`superres.colour.bleed`.

        Args:
            picture: 8 or 16 bits a sample; the result has as many.
            target: a scale of 1 to 4, fractions too, or a size.
            max_pixels: most output pixels that are made.
            progress: called with the number of tiles done and of all tiles, as they are done.

        Raises:
            BadRequest: the target is out of range.
            ImageTooLarge: more than ``max_pixels`` output pixels.
            EngineError: the device failed.
        """
        sizing = resolve(picture.size, target, max_pixels=max_pixels)
        samples = np.empty((*sizing.size, picture.samples.shape[2]), picture.samples.dtype)
        self._enlarge(picture.samples, samples[..., :3], progress, sizing.box)
        if picture.alpha is not None:
            _resize_into(picture.alpha, samples[..., 3], sizing.box)
        return replace(picture, samples=samples)

    def ensembled(self) -> "Enhancer":
        """The same network, its answers to eight views averaged: eight times the work."""
        return replace(self, engine=EnsembleEngine(self.engine))

    def enhance_rgb(self, lr: AnyRgb, size: Size, *, progress: Progress | None = None) -> AnyRgb:
        """Enlarge RGB of uint8, uint16 or float32 in [0, 1] to ``size``, in its type.

        The network works at the scale that it was trained for. For another scale its output is
        resized: see :func:`native_size`.
        """
        sr = np.empty((*size, 3), lr.dtype)
        self._enlarge(lr, sr, progress)
        return sr

    def _enlarge(
        self, lr: np.ndarray, sr: AnyRgb, progress: Progress | None, box: Box | None = None
    ) -> None:
        """Enlarge the box of RGB, or of the RGB of RGBA, into ``sr``."""
        size, lr_size = (sr.shape[0], sr.shape[1]), (lr.shape[0], lr.shape[1])
        made = native_size(lr_size, size, self.geometry, box)
        cut = plan(made, self.geometry)
        direct = made == size and box is None
        # By the picture, and not by the tile, so that tiled equals whole.
        finish = to_grey if is_grey(lr) else _unchanged
        answers = sr if direct else np.empty((*made, 3), lr.dtype)
        done = 0
        for columns in cut.panels(COLUMNS):
            rows = _Rows(resize_bands(lr, cut.plane, cut.span(columns), prepare=_for_engine))
            for row in range(len(cut.tops)):
                tiles = tiling.extract(rows.take(cut.tile_rows(row)), cut, columns)
                made_tiles = finish(self.engine.predict(tiles))
                tiling.stitch(_like(made_tiles, lr), cut, row, answers, columns)
                done += len(columns)
                if progress is not None:
                    progress(done, cut.tiles)
        if not direct:
            _resize_into(answers, sr, box and _scaled(box, made, lr_size))


def native_size(lr_size: Size, size: Size, geometry: Geometry, box: Box | None = None) -> Size:
    """Size that a network makes of a small picture, when ``size`` of its box is asked for.

    It is the picture's times the scale that the network was trained for: at other scales its
    input looks like nothing it has learned from, and it can lose to bicubic by decibels. Only
    a few pixels more than that, which a network of the ``hr`` domain can make, it is given.

    >>> geometry = Geometry(domain="hr", scale=3, halo=7, largest_tile=512)
    >>> native_size((100, 100), (200, 200), geometry), native_size((170, 170), (512, 512), geometry)
    ((300, 300), (512, 512))
    """
    height, width = lr_size
    scale = geometry.scale
    reached = (size[0] // scale, size[1] // scale) == lr_size
    if geometry.domain == "hr" and reached and box is None:
        return size
    return height * scale, width * scale


def plan(made: Size, geometry: Geometry) -> tiling.Plan:
    """How the plane is cut that a network works on when it makes a picture of this size.

    Raises:
        ImageTooLarge: the network works on whole planes, and this one has too many pixels.
    """
    upscale = geometry.upscale
    plane = (made[0] // upscale, made[1] // upscale)
    if geometry.tiling is not None and geometry.tiling.mode == "whole":
        most = geometry.largest_tile**2
        cut = tiling.whole(plane, geometry.tiling.multiple)
        height, width = cut.tile
        if height * width > most:
            raise ImageTooLarge(
                f"this model works on whole pictures, of at most {most:,} pixels; this one has "
                f"{height * width:,} ({width}x{height}), with sides that are multiples of "
                f"{geometry.tiling.multiple}: send a smaller one, or choose another model"
            )
        return cut
    return tiling.plan(plane, largest_tile=geometry.largest_tile, halo=geometry.halo)


class _Rows:
    """A window that moves down a plane which is made in bands."""

    def __init__(self, bands: Iterator[Raster]) -> None:
        self._bands = bands
        self._window = next(bands)
        self._first = 0

    def take(self, indices: np.ndarray) -> Rgb:
        """The rows of these ascending indices; earlier rows are dropped."""
        first, last = int(indices[0]), int(indices[-1])
        while self._first + len(self._window) <= last:
            kept = self._window[max(0, first - self._first) :]
            self._first += len(self._window) - len(kept)
            self._window = np.concatenate([kept, next(self._bands)])
        return self._window[indices - self._first]


def _unchanged(samples: TileBatch) -> TileBatch:
    return samples


def _scaled(box: Box, made: Size, size: Size) -> Box:
    """The box of a picture of ``size``, in the same picture at the size ``made``."""
    down, across = made[0] / size[0], made[1] / size[1]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _resize_into(samples: np.ndarray, out: np.ndarray, box: Box | None = None) -> None:
    """Bicubic of the samples in the box, in bands, in the type of ``out``."""
    top = 0
    size = (out.shape[0], out.shape[1])
    for band in resize_bands(samples, size, box=box, prepare=_for_engine):
        out[top : top + len(band)] = _like(band, out)
        top += len(band)


def _for_engine(samples: np.ndarray) -> np.ndarray:
    """RGB or a plane as the engines take it: 16 bits as float32 in [0, 1], without alpha."""
    if samples.ndim == 3 and samples.shape[2] == 4:
        samples = bleed(samples)
    return to_float(samples) if samples.dtype == np.uint16 else samples


def _like(samples: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Samples back in the picture's type."""
    return samples if picture.dtype == np.float32 else to_integer(samples, picture.dtype)
