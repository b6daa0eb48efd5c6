"""Array aliases: what each array holds, in its type.

Pictures are height by width by channel (HWC), batches of tiles NHWC. Sizes are
``(height, width)`` everywhere; only the calls into Pillow turn them round.
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

Size: TypeAlias = tuple[int, int]
"""``(height, width)`` in pixels."""

RgbU8: TypeAlias = UInt8[np.ndarray, "height width 3"]
RgbU16: TypeAlias = UInt16[np.ndarray, "height width 3"]
RgbF32: TypeAlias = Float32[np.ndarray, "height width 3"]
"""RGB in [0, 1]."""

Rgb: TypeAlias = RgbU8 | RgbF32
"""A picture as the engines take it: uint8, or float32 in [0, 1]."""

PlaneU8: TypeAlias = UInt8[np.ndarray, "height width"]
PlaneF32: TypeAlias = Float32[np.ndarray, "height width"]
LumaF64: TypeAlias = Float64[np.ndarray, "height width"]
"""BT.601 luma in studio swing, 16 to 235, not rounded."""

TileBatch: TypeAlias = UInt8[np.ndarray, "n height width 3"] | Float32[np.ndarray, "n height width 3"]
"""Tiles as an engine takes and returns them: uint8, or float32 in [0, 1]."""
