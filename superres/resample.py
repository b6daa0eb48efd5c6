"""THE bicubic: for training's small pictures, the networks' input and the baseline.

Pillow's filter: a = -0.5, antialiased when shrinking, borders renormalised. Its
uint8 and float32 paths are used as they are; nothing here computes a weight.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from superres.arrays import Raster, Size

BAND = 480
"""Side of the blocks that are made in one call of Pillow, px. Their grid is fixed so that a
picture made in pieces equals the one made at once: Pillow's weights depend on the box."""
MARGIN = 16
"""Source pixels that are read around a block. The filter sees 2 of them when enlarging, and
8 when shrinking to a quarter; the rest is for what prepares them."""


def scaled_size(size: Size, scale: float) -> Size:
    """Size after enlarging: each side times ``scale``, rounded half up.

    >>> scaled_size((170, 171), 3)
    (510, 513)
    >>> scaled_size((5, 7), 1.5)
    (8, 11)
    """
    height, width = (math.floor(side * scale + 0.5) for side in size)
    return height, width


def cropped_size(size: Size, scale: float) -> Size:
    """Size of a picture before it is shrunk by ``scale``: for a whole scale, a multiple of it.

    >>> cropped_size((170, 171), 3), cropped_size((170, 171), 1.5)
    ((168, 171), (170, 171))
    """
    if not float(scale).is_integer():
        return size
    height, width = (side - side % int(scale) for side in size)
    return height, width


def degrade(hr: Raster, size: Size) -> Raster:
    """Shrink a picture to ``size``, antialiased: the LR side of every pair.

    Args:
        hr: [h, w, 3] or [h, w], uint8, or float32 in [0, 1].
        size: (height, width) of the result.
    """
    return _resize(_resize(hr, (hr.shape[0], size[1])), size)


def degrade_part(hr: Raster, size: Size, rows: tuple[int, int], columns: tuple[int, int]) -> Raster:
    """The rows and columns of ``degrade(hr, size)``, within a level; the rest is not made.

    Args:
        hr: as of :func:`degrade`; only what the part needs is read of it.
        size: (height, width) of the whole result, at least a quarter of the picture's.
        rows: first row of the part, and the one behind the last.
        columns: likewise.
    """
    if size == hr.shape[:2]:
        return hr[rows[0] : rows[1], columns[0] : columns[1]]
    return _part(hr, size, rows, columns)


def upsample(lr: Raster, size: Size) -> Raster:
    """Enlarge a picture to ``size``: the ``bicubic`` plane.

    Args:
        lr: [h, w, 3] or [h, w], uint8, or float32 in [0, 1].
        size: (height, width) of the result.
    """
    return np.concatenate(list(resize_bands(lr, size)))


def resize_bands(
    picture: np.ndarray,
    size: Size,
    columns: tuple[int, int] | None = None,
    *,
    prepare: Callable[[np.ndarray], Raster] = lambda block: block,
) -> Iterator[Raster]:
    """Yield the rows of a resized picture in bands of :data:`BAND`, top to bottom.

    Nothing larger than a band is made on the way.

    Args:
        picture: [h, w, 3] or [h, w], uint8, or float32 in [0, 1]; or what ``prepare`` takes.
        size: (height, width) of the result, at least a quarter of the picture's.
        columns: first column that is wanted, and the one behind the last; all unless given.
        prepare: makes such samples of each block that is read, :data:`MARGIN` px larger a
            side than needed, where the picture goes on.
    """
    height, width = size
    left, right = columns or (0, width)
    first = left - left % BAND
    for top in range(0, height, BAND):
        rows = (top, min(top + BAND, height))
        blocks = [
            _part(picture, size, rows, (x, min(x + BAND, width)), prepare)
            for x in range(first, right, BAND)
        ]
        yield np.concatenate(blocks, axis=1)[:, left - first : right - first]


def _part(
    picture: np.ndarray,
    size: Size,
    rows: tuple[int, int],
    columns: tuple[int, int],
    prepare: Callable[[np.ndarray], Raster] = lambda block: block,
) -> Raster:
    """Rows and columns, first and behind the last, of a picture resized to ``size``."""
    (seen_rows, top, bottom), (seen_columns, left, right) = (
        _source(part, side, length)
        for part, side, length in zip((rows, columns), size, picture.shape, strict=False)
    )
    made = (rows[1] - rows[0], columns[1] - columns[0])
    return _resize(prepare(picture[seen_rows, seen_columns]), made, (left, top, right, bottom))


def _source(part: tuple[int, int], made: int, length: int) -> tuple[slice, float, float]:
    """Along one axis: the source of a part, and where the part begins and ends in that."""
    start, end = part
    first = max(0, math.floor(start * length / made) - MARGIN)
    last = min(length, math.ceil(end * length / made) + MARGIN)
    return slice(first, last), start * (length / made) - first, end * (length / made) - first


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
