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
picture made in pieces equals the one made at once: Pillow's weights depend on the box. Blocks are
smaller where a picture shrinks to less than a quarter, so that their source stays as small."""
MARGIN = 16
"""Source pixels that are read around a block. The filter sees 2 of them when enlarging, and
8 when shrinking to a quarter; the rest is for what prepares them."""
Box = tuple[float, float, float, float]
"""Part of a picture, px: left, top, right, bottom."""


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
    box: Box | None = None,
    prepare: Callable[[np.ndarray], Raster] = lambda block: block,
) -> Iterator[Raster]:
    """Yield the rows of a resized picture in bands of at most :data:`BAND`, top to bottom.

    Nothing larger than a band is made on the way.

    Args:
        picture: [h, w, 3] or [h, w], uint8, or float32 in [0, 1]; or what ``prepare`` takes.
        size: (height, width) of the result.
        columns: first column that is wanted, and the one behind the last; all unless given.
        box: the part of the picture that the result shows; all unless given.
        prepare: makes such samples of each block that is read, :data:`MARGIN` px larger a
            side than needed, where the picture goes on.
    """
    height, width = size
    x0, y0, x1, y1 = box or (0, 0, picture.shape[1], picture.shape[0])
    high, wide = _band((y1 - y0) / height), _band((x1 - x0) / width)
    left, right = columns or (0, width)
    first = left - left % wide
    for top in range(0, height, high):
        rows = (top, min(top + high, height))
        blocks = [
            _part(picture, size, rows, (x, min(x + wide, width)), prepare, box)
            for x in range(first, right, wide)
        ]
        yield np.concatenate(blocks, axis=1)[:, left - first : right - first]


def _band(shrinking: float) -> int:
    """Side of the blocks of a picture that is so many times smaller than its source."""
    return BAND if shrinking <= 4 else max(2, math.floor(4 * BAND / shrinking))


def _part(
    picture: np.ndarray,
    size: Size,
    rows: tuple[int, int],
    columns: tuple[int, int],
    prepare: Callable[[np.ndarray], Raster] = lambda block: block,
    box: Box | None = None,
) -> Raster:
    """Rows and columns, first and behind the last, of a picture's box resized to ``size``."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = box or (0, 0, width, height)
    seen_rows, top, bottom = _source(rows, size[0], height, y0, y1 - y0)
    seen_columns, left, right = _source(columns, size[1], width, x0, x1 - x0)
    made = (rows[1] - rows[0], columns[1] - columns[0])
    return _resize(prepare(picture[seen_rows, seen_columns]), made, (left, top, right, bottom))


def _source(
    part: tuple[int, int], made: int, length: int, origin: float, shown: float
) -> tuple[slice, float, float]:
    """Along one axis: the source of a part, and where the part begins and ends in that.

    Args:
        part: first pixel of the part, and the one behind the last.
        made: pixels of the result.
        length: pixels of the source.
        origin: where the box begins in the source.
        shown: length of the box.
    """
    start, end = part
    margin = max(MARGIN, math.ceil(2 * shown / made) + MARGIN // 2)
    first = max(0, math.floor(origin + start * shown / made) - margin)
    last = min(length, math.ceil(origin + end * shown / made) + margin)
    begins, ends = (origin + edge * (shown / made) - first for edge in part)
    return slice(first, last), begins, min(ends, last - first)  # rounding can put it beyond


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
