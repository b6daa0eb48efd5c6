"""Array aliases (what each array holds, in its type) and the one rounding.

Pictures are height by width by channel (HWC), batches of tiles NHWC. Axes are named for
the reader; the underscore keeps jaxtyping from binding the name over a call. Sizes are
``(height, width)`` everywhere; only the calls into Pillow turn them round.
"""

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

Size: TypeAlias = tuple[int, int]
"""``(height, width)`` in pixels."""

RgbU8: TypeAlias = UInt8[np.ndarray, "_height _width 3"]
RgbU16: TypeAlias = UInt16[np.ndarray, "_height _width 3"]
RgbaU8: TypeAlias = UInt8[np.ndarray, "_height _width 4"]
RgbaU16: TypeAlias = UInt16[np.ndarray, "_height _width 4"]
AnySamples: TypeAlias = RgbU8 | RgbU16 | RgbaU8 | RgbaU16
"""A picture's samples: RGB, with alpha or without."""
RgbF32: TypeAlias = Float32[np.ndarray, "_height _width 3"]
"""RGB in [0, 1]."""
Rgb: TypeAlias = RgbU8 | RgbF32
"""RGB as the engines take it."""
AnyRgb: TypeAlias = RgbU8 | RgbU16 | RgbF32
PlaneU8: TypeAlias = UInt8[np.ndarray, "_height _width"]
PlaneU16: TypeAlias = UInt16[np.ndarray, "_height _width"]
PlaneF32: TypeAlias = Float32[np.ndarray, "_height _width"]
"""One channel in [0, 1]."""
Raster: TypeAlias = RgbU8 | RgbF32 | PlaneU8 | PlaneF32
"""RGB or one channel."""
LumaF64: TypeAlias = Float64[np.ndarray, "_height _width"]
"""BT.601 luma in studio swing, 16 to 235, not rounded."""

TilesU8: TypeAlias = UInt8[np.ndarray, "_n _height _width 3"]
TilesF32: TypeAlias = Float32[np.ndarray, "_n _height _width 3"]
TilesU16: TypeAlias = UInt16[np.ndarray, "_n _height _width 3"]
TileBatch: TypeAlias = TilesU8 | TilesF32
"""Tiles as an engine takes and returns them: uint8, or float32 in [0, 1]."""


def without_margin(batch: np.ndarray, margin: int) -> np.ndarray:
    """[n, h, w, c] without so many pixels at each side."""
    height, width = batch.shape[1:3]
    return batch[:, margin : height - margin, margin : width - margin]


def to_float(samples: np.ndarray) -> np.ndarray:
    """Integer samples as float32 in [0, 1]; float32 samples as they are."""
    if samples.dtype == np.float32:
        return samples
    return samples / np.float32(np.iinfo(samples.dtype).max)


def to_integer(samples: np.ndarray, dtype: Any) -> np.ndarray:
    """Round samples in [0, 1] to an integer type: half to even, then clip.

    The engines' graphs do the same. Samples of that type already come back as they are.

    >>> to_integer(np.float32([-0.1, 0.5, 1.5]), np.uint8).tolist()
    [0, 128, 255]
    """
    if samples.dtype == dtype:
        return samples
    peak = np.iinfo(dtype).max
    return np.rint(to_float(samples) * np.float32(peak)).clip(0, peak).astype(dtype)
