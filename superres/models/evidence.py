"""What a picture file shows of its own history: compression, noise, how soft it is.

What is wholly transparent has colours that nobody sees, often black: they are not measured.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np

from superres.arrays import to_integer
from superres.codecs import FORMATS, jpeg, webp
from superres.picture import Picture

WINDOW = 128
"""Side of the windows that are measured, px; a multiple of :data:`BLOCK`."""
WINDOWS = 4
"""Most windows along a side: a large picture is measured in 16 windows."""
EDGE = 4
"""Pixels to each side of an edge that tell whether it is one of texture."""
BLOCK = 8
"""Side of the blocks of JPEG, px."""
STEEPEST = 0.05
"""Share of the steps of luma that tell how sharp its edges are."""
HALO = 0.1
"""Height of a halo at one side of an edge, relative to the edge, that counts as one."""
MOST_COLOURS = 32
"""Most colours of a picture that was drawn pixel by pixel."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FINEST_STEPS = 28
"""Steps of a luma table, the finest first, that tell its quality: the others reach their limit of
255 at low qualities."""
_FINEST_SUM = 676
"""Their sum in the table of Annex K of the JPEG standard, which libjpeg scales by the quality."""


@dataclass(frozen=True)
class Evidence:
    """What a file shows of its own history."""

    jpeg_quality: float | None
    """Quality of the luma table on libjpeg's scale, 1 to 100; None where it is not a JPEG."""
    coded_as: str
    """The label of another lossy format, as ``AVIF``; empty if the file is of none. A photograph
    that such a file holds without loss has many bits; a drawing may have few."""
    bits_per_pixel: float
    """Bits of the file for a visible pixel, counted without its metadata and other pictures."""
    few_colours: bool
    """Whether there are at most :data:`MOST_COLOURS`."""
    blockiness: float
    """How much larger the steps of luma are at the borders of blocks of 8 px, wherever these
    begin, than their neighbours; relative to both."""
    noise: float
    """Deviation of the noise of luma in the smoothest tenth of the picture, levels of 255."""
    colour_noise: float
    """The same of the differences between the channels, where texture, which is alike in all of
    them, hides no noise. 0 in a grey picture, and little after JPEG, which smooths colours."""
    detail: float
    """Root mean square of the steps of luma from pixel to pixel, levels of 255."""
    sharpness: float
    """Mean square of the differences between neighbouring steps, over that of the steps, both
    where these are steepest: 0 in a ramp, about 2 at an edge of one step, 4 where each step undoes
    the one before."""
    texture: float
    """How far values fall back behind the steepest steps, as in texture: the median of the sum of
    both sides, relative to the step, less the share of the steps where both sides do, as halos of
    sharpening do. 0 at edges of one step; texture is sharp without having been sharpened."""


def examine(data: bytes, picture: Picture) -> Evidence:
    """Gather the evidence of a file.

    Args:
        data: the encoded file.
        picture: the same, decoded; a large one is measured in 16 windows.
    """
    visible = _visible(picture)
    windows, seen = _windows(picture.rgb, visible)
    blocks = None if seen is None else _visible_blocks(seen)
    luma = windows @ _LUMA
    steps = [_steps(luma, seen), _steps(luma.swapaxes(1, 2), _turned(seen))]
    detail = math.sqrt(sum(_mean_square(one.measured) for one in steps) / 2)
    pixels = math.prod(picture.size) if visible is None else np.count_nonzero(visible)
    return Evidence(
        jpeg_quality=_jpeg_quality(data),
        coded_as=_coded_as(data, picture),
        bits_per_pixel=8 * picture.coded_bytes / max(1, pixels),
        few_colours=_few_colours(windows, seen),
        blockiness=sum(map(_blockiness, steps)) / 2,
        noise=_noise(luma, blocks),
        colour_noise=_colour_noise(windows, blocks),
        detail=detail,
        sharpness=_mean_of_any(map(_sharpness, steps)),
        texture=_mean_of_any(map(_texture, steps)),
    )


@dataclass(frozen=True)
class _Steps:
    """The steps of luma from pixel to pixel in one direction."""

    luma: np.ndarray
    """[n, rows, columns + 1]."""
    seen: np.ndarray | None
    """Whether a pixel is visible; None if all are."""
    all: np.ndarray
    """[n, rows, columns]."""
    sizes: np.ndarray
    """The same without signs."""
    measured: np.ndarray
    """Those sizes that are between visible pixels, in any shape."""

    def visible(self, count: int) -> np.ndarray | None:
        """Whether so many steps in a row are all between visible pixels; None if all steps are.

        Returns:
            [n, rows, columns + 1 - count], by the first of them.
        """
        return None if self.seen is None else _in_a_row(self.seen, count + 1)


def _steps(luma: np.ndarray, seen: np.ndarray | None) -> _Steps:
    steps = np.diff(luma, axis=2)
    sizes = np.abs(steps)
    measured = sizes if seen is None else sizes[_in_a_row(seen, 2)]
    return _Steps(luma, seen, steps, sizes, measured)


def _turned(seen: np.ndarray | None) -> np.ndarray | None:
    return None if seen is None else np.ascontiguousarray(seen.swapaxes(1, 2))


def _in_a_row(seen: np.ndarray, count: int) -> np.ndarray:
    """Whether so many pixels in a row are all visible: [n, rows, columns + 1 - count]."""
    columns = max(0, seen.shape[-1] + 1 - count)
    all_seen = seen[..., :columns].copy()
    for at in range(1, count):
        all_seen &= seen[..., at : at + columns]
    return all_seen


def _jpeg_quality(data: bytes) -> float | None:
    """The quality at which libjpeg's luma table is about the same."""
    settings = jpeg.jpeg_settings(data)
    if settings is None:
        return None
    steps = sorted(settings.tables[0])[:_FINEST_STEPS]
    if steps[-1] == 1:  # libjpeg has no smaller step
        return 100.0
    percent = 100 * sum(steps) / _FINEST_SUM
    return (200 - percent) / 2 if percent <= 100 else 5000 / percent


def _coded_as(data: bytes, picture: Picture) -> str:
    """The label of the file's format, if it is lossy and not JPEG."""
    if picture.source_format == "webp":
        return FORMATS["webp"].label if webp.is_lossy(data) else ""
    if picture.source_format in ("avif", "heif", "jxl"):
        return FORMATS[picture.source_format].label
    return ""


def _mean_of_any(directions: Iterable[float | None]) -> float:
    """The mean of the directions that have something to measure; along stripes there is nothing."""
    found = [one for one in directions if one is not None]
    return sum(found) / len(found) if found else 0.0


def _mean_square(values: np.ndarray) -> float:
    return float(np.mean(values**2)) if values.size else 0.0


def _visible(picture: Picture) -> np.ndarray | None:
    """Whether each pixel is visible, [h, w]; None if all are."""
    if picture.alpha is None or picture.alpha.all():
        return None
    return picture.alpha != 0


def _windows(rgb: np.ndarray, visible: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Cut windows from a picture.

    Args:
        rgb: [h, w, 3], uint8 or uint16.
        visible: [h, w]; None if all pixels are.

    Returns:
        [n, h, w, 3] uint8, with corners on one grid of blocks: spread evenly, over what is visible.
        And [n, h, w]: whether a pixel is visible; None if all are.
    """
    tops, lefts = (_starts(side) for side in rgb.shape[:2])
    places = product(tops, lefts) if visible is None else _places(visible)
    parts = [(slice(y, y + WINDOW), slice(x, x + WINDOW)) for y, x in places]
    windows = to_integer(np.stack([rgb[part] for part in parts]), np.uint8)
    return windows, None if visible is None else np.stack([visible[part] for part in parts])


def _starts(side: int) -> list[int]:
    """Where the windows begin along a side."""
    count = min(WINDOWS, max(1, side // WINDOW))
    last = max(0, side - WINDOW) // BLOCK
    return [BLOCK * (last * number // max(1, count - 1)) for number in range(count)]


def _places(visible: np.ndarray) -> list[tuple[int, int]]:
    """Where the windows begin in a picture of which a part is hidden: where most is visible."""
    tops, lefts = (
        (*range(0, last, WINDOW), last)
        for last in (max(0, side - WINDOW) // BLOCK * BLOCK for side in visible.shape)
    )
    places = list(product(tops, lefts))
    counts = np.array(
        [np.count_nonzero(visible[y : y + WINDOW, x : x + WINDOW]) for y, x in places]
    )
    most = np.flatnonzero(counts >= counts.max() / 2)
    count = min(most.size, math.prod(len(_starts(side)) for side in visible.shape))
    return [places[at] for at in most[np.arange(count) * (most.size - 1) // max(1, count - 1)]]


def _few_colours(windows: np.ndarray, seen: np.ndarray | None) -> bool:
    flat = windows.reshape(-1, 3).astype(np.uint32)
    colours = (flat[:, 0] << 16) | (flat[:, 1] << 8) | flat[:, 2]
    if seen is not None:
        colours = colours[seen.ravel()]
    # Sorting all pixels of a photograph takes longer than all the rest, and few tell.
    few = np.unique(colours[:: max(1, len(colours) // 2048)]).size <= MOST_COLOURS
    return bool(few and np.unique(colours).size <= MOST_COLOURS)


def _blockiness(steps: _Steps) -> float:
    """The evidence of one direction."""
    sizes = np.minimum(steps.sizes, 12)  # an edge of the picture is not the edge of a block
    step, neighbours = sizes[..., 1:-1], (sizes[..., :-2] + sizes[..., 2:]) / 2
    if step.shape[-1] < 2 * BLOCK or not step.shape[-2]:
        return 0.0
    excess = (step - neighbours) / (step + neighbours + 1)
    visible = steps.visible(3)
    means = []
    for phase in range(BLOCK):
        values = excess[..., phase::BLOCK]
        if visible is not None:
            values = values[visible[..., phase::BLOCK]]
        if not values.size:
            return 0.0
        means.append(float(values.mean()))
    means.sort()
    return means[-1] - means[BLOCK // 2]


def _sharpness(steps: _Steps) -> float | None:
    """The evidence of one direction, at the steepest :data:`STEEPEST` of its steps, if any."""
    sizes = steps.sizes
    if sizes.shape[-1] < 2 or not steps.measured.size:
        return None
    before, after = steps.all[..., :-1], steps.all[..., 1:]
    steep = np.maximum(sizes[..., :-1], sizes[..., 1:]) >= _least_of_steepest(steps.measured)
    if (visible := steps.visible(2)) is not None:
        steep &= visible
    before, after = before[steep], after[steep]
    mean_square = (_mean_square(before) + _mean_square(after)) / 2
    return _mean_square(after - before) / mean_square if mean_square else None


def _least_of_steepest(sizes: np.ndarray) -> np.floating:
    """The size of the least of the steepest steps."""
    at = int((1 - STEEPEST) * sizes.size)
    return np.partition(sizes, at, axis=None)[at]  # np.quantile takes ten times as long


def _texture(steps: _Steps) -> float | None:
    """The evidence of one direction, at the steps that are steeper than both neighbours, if any."""
    sizes = steps.sizes
    if sizes.shape[-1] <= 2 * EDGE or not steps.measured.size:
        return None
    here, left, right = sizes[..., EDGE:-EDGE], sizes[..., EDGE - 1 :], sizes[..., EDGE + 1 :]
    last = here.shape[-1]
    edges = (here >= left[..., :last]) & (here >= right[..., :last])
    edges &= here >= max(_least_of_steepest(steps.measured), 1)
    window, row, column = np.nonzero(edges)
    column += EDGE
    # Four values to each side of an edge, which rises.
    around = window[:, None], row[:, None], column[:, None] + np.arange(1 - EDGE, EDGE + 1)
    values = steps.luma[around]
    values *= np.sign(steps.all[window, row, column])[:, None]
    if steps.seen is not None:
        values = values[steps.seen[around].all(axis=1)]
    if not len(values):
        return None
    below, above = values[:, :EDGE], values[:, EDGE:]
    low, high = below[:, -2:].min(axis=1), above[:, :2].max(axis=1)
    height = high - low
    both = (high - above[:, -1] > HALO * height) & (below[:, 0] - low > HALO * height)
    back = (high - above[:, -2:].mean(axis=1) + below[:, :2].mean(axis=1) - low) / height
    return float(np.median(back) - both.mean())


def _colour_noise(windows: np.ndarray, visible: np.ndarray | None) -> float:
    """The smaller of the evidence of two differences, at the level of one channel."""
    red, green, blue = (windows[..., channel].astype(np.int16) for channel in range(3))
    return min(_noise(red - green, visible), _noise(blue - green, visible)) / math.sqrt(2)


def _noise(values: np.ndarray, visible: np.ndarray | None) -> float:
    """The 10th percentile of what blocks of 8x8 px show; of the visible ones, unless all are.

    J. Immerkaer, "Fast Noise Variance Estimation" (1996): a kernel that gives 0 wherever the values
    are a plane, so that most of what is left is noise. The percentile leaves texture out.
    """
    across = values[:, :, :-2] - 2 * values[:, :, 1:-1] + values[:, :, 2:]
    kernel = np.abs(across[:, :-2] - 2 * across[:, 1:-1] + across[:, 2:])
    rows, columns = (side // BLOCK for side in kernel.shape[1:])
    if not rows or not columns:
        return 0.0
    blocks = kernel[:, : rows * BLOCK, : columns * BLOCK]
    means = blocks.reshape(-1, rows, BLOCK, columns, BLOCK).mean(axis=2, dtype=np.float32).mean(-1)
    if visible is not None:
        means = means[visible]
    if not means.size:
        return 0.0
    return float(np.percentile(means, 10)) * math.sqrt(math.pi / 2) / 6


def _visible_blocks(seen: np.ndarray) -> np.ndarray:
    """[n, rows, columns]: whether all pixels are visible that the kernel sees in a block."""
    across = _in_a_row(seen, BLOCK + 2)[..., ::BLOCK]
    return _in_a_row(across.swapaxes(1, 2), BLOCK + 2)[..., ::BLOCK].swapaxes(1, 2)
