"""THE bicubic: for training's small pictures, the networks' input and the baseline.

Pillow's filter: a = -0.5, antialiased when shrinking, borders renormalised. Its
uint8 and float32 paths are used as they are; nothing here computes a weight.
"""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

from superres.arrays import Raster, Size

BAND = 480
"""Output rows of one vertical pass. The grid is fixed so that a picture made band by
band equals the one made at once: Pillow's weights depend on the rows asked for."""


def scaled_size(size: Size, scale: float) -> Size:
    """Size after enlarging: each side times ``scale``, rounded half up.

    >>> scaled_size((170, 171), 3)
    (510, 513)
    >>> scaled_size((5, 7), 1.5)
    (8, 11)
    """
    height, width = (math.floor(side * scale + 0.5) for side in size)
    return height, width


def degrade(hr: Raster, size: Size) -> Raster:
    """Shrink a picture to ``size``, antialiased: the LR side of every pair.

    Args:
        hr: [h, w, 3] or [h, w], uint8, or float32 in [0, 1].
        size: (height, width) of the result.
    """
    return _resize(_resize(hr, (hr.shape[0], size[1])), size)


def upsample(lr: Raster, size: Size) -> Raster:
    """Enlarge a picture to ``size``: the ``bicubic`` plane.

    Args:
        lr: [h, w, 3] or [h, w], uint8, or float32 in [0, 1].
        size: (height, width) of the result.
    """
    return np.concatenate(list(upsample_bands(lr, size)))


def upsample_bands(lr: Raster, size: Size) -> Iterator[Raster]:
    """Yield the rows of :func:`upsample` in bands of :data:`BAND`, top to bottom.

    The horizontal pass is made at once, on ``lr``'s rows; the vertical one a band at
    a time, so that the enlarged plane never has to exist as a whole.
    """
    height, width = size
    wide = _resize(lr, (lr.shape[0], width))
    rows_per_row = lr.shape[0] / height
    for top in range(0, height, BAND):
        bottom = min(top + BAND, height)
        yield _resize(
            wide, (bottom - top, width), box=(0, top * rows_per_row, width, bottom * rows_per_row)
        )


def _resize(
    picture: Raster, size: Size, box: tuple[float, float, float, float] | None = None
) -> Raster:
    """One Pillow call, or one a channel: Pillow has no float RGB."""
    if box is None and picture.shape[:2] == size:
        return picture
    if picture.dtype == np.float32 and picture.ndim == 3:
        return np.stack([_resize(picture[..., c], size, box) for c in range(3)], axis=-1)
    height, width = size
    resized = np.asarray(
        Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC, box=box)
    )
    # Bicubic overshoots; Pillow clips uint8 itself.
    return resized.clip(0, 1) if picture.dtype == np.float32 else resized
