"""Cutting a plane into tiles for a network, and putting the answers together.

Pure geometry. A plane is cut into *cores*, which cover it without overlap. A *tile* is
a core with a halo of neighbouring pixels around it; where the plane ends, its edge
pixels are repeated. All tiles of a plane have one shape, whose sides are among a few, so that
few shapes ever reach the network. An answer's halo is cut off and its core kept: nothing is
blended, and the seams are exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from superres.arrays import AnyRgb, Rgb, Size, TileBatch, TilesU16

MULTIPLE = 16
"""The largest tile's side is a multiple of this, px; and most others are."""
SIDES = (512, 480, 448, 416, 400, 384, 352, 320, 272, 240, 208, 160, 128, 64)
"""Tile sides that are used, besides the largest tile, px. A network is prepared for each shape
when it is first seen, and keeps memory for it, so they are few."""
CORES = (384, 256, 128)
"""Sides of cores, px, whose tiles are used too: planes often are multiples of these."""


@dataclass(frozen=True)
class Plan:
    """How one plane is cut.

    ``tops`` and ``lefts`` are where the cores' rows and columns begin; each core ends
    where the next begins, the last at the plane's end.
    """

    plane: Size
    tile: Size
    halo: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return len(self.tops) * len(self.lefts)

    def core_rows(self, row: int) -> tuple[int, int]:
        """First row of the plane in this row of cores, and the first beyond it."""
        return self.tops[row], (*self.tops, self.plane[0])[row + 1]

    def tile_rows(self, row: int) -> np.ndarray:
        """Rows of the plane that this row of tiles sees, top to bottom, edges repeated."""
        return _seen(self.tops[row], self.tile[0], self.halo, self.plane[0])

    def tile_columns(self, column: int) -> np.ndarray:
        """Columns of the plane that this column of tiles sees, edges repeated."""
        return _seen(self.lefts[column], self.tile[1], self.halo, self.plane[1])

    def panels(self, columns: int) -> Iterator[range]:
        """Columns of tiles that are worked on together, at most so many, left to right."""
        for first in range(0, len(self.lefts), columns):
            yield range(first, min(first + columns, len(self.lefts)))

    def span(self, columns: range) -> tuple[int, int]:
        """First of the plane's columns that these columns of tiles see, and the one behind."""
        first, last = self.tile_columns(columns[0])[0], self.tile_columns(columns[-1])[-1]
        return int(first), int(last) + 1


def plan(plane: Size, *, largest_tile: int, halo: int) -> Plan:
    """Cut a plane into tiles of at most ``largest_tile`` a side, halo included.

    Per axis, the tile side is the one of :data:`SIDES` and of those around :data:`CORES` for which
    the tiles together have the fewest pixels; among equals, the largest, since fewer tiles waste
    less halo. Some networks need their tiles on a grid of up to 16 px, of which the halo is a
    multiple: then so are all these sides, and the tiles are on the grid.

    Args:
        plane: (height, width) of the network's input plane, px.
        largest_tile: longest tile side, px; a multiple of 16.
        halo: pixels that the network sees beyond each side of what it answers.

    Raises:
        ValueError: the tile has no room for a core, or its side is not a multiple of 16.

    >>> cut = plan((600, 100), largest_tile=512, halo=7)
    >>> cut.tile, cut.tops, cut.lefts
    ((320, 128), (0, 306), (0,))
    """
    if largest_tile % MULTIPLE or largest_tile <= 2 * halo:
        raise ValueError(
            f"the largest tile is a multiple of {MULTIPLE} px over {2 * halo} (twice the halo), "
            f"not {largest_tile}"
        )
    (tile_height, tops), (tile_width, lefts) = (_cut(n, largest_tile, halo) for n in plane)
    return Plan(plane, (tile_height, tile_width), halo, tops, lefts)


def whole(plane: Size, multiple: int) -> Plan:
    """A plane as one tile, whose sides are extended to a multiple.

    >>> whole((30, 45), 4)
    Plan(plane=(30, 45), tile=(32, 48), halo=0, tops=(0,), lefts=(0,))
    """
    height, width = (-(-side // multiple) * multiple for side in plane)
    return Plan(plane, (height, width), 0, (0,), (0,))


def extract(strip: Rgb, cut: Plan, columns: range) -> TileBatch:
    """Cut neighbours of one row of tiles out of the plane's rows ``cut.tile_rows(row)``.

    Args:
        strip: [tile height, width of ``cut.span(columns)``, 3].
        cut: the plane's plan.
        columns: which columns of tiles.

    Returns:
        [columns, tile height, tile width, 3], left to right.
    """
    (left, _), width = cut.span(columns), cut.tile[1]
    tiles = np.empty((len(columns), len(strip), width, 3), strip.dtype)
    for tile, column in zip(tiles, columns, strict=True):
        first = cut.lefts[column] - cut.halo
        # By index, as tile_rows does, a pixel at a time would be copied.
        begins, ends = max(-first, 0), min(width, cut.plane[1] - first)
        tile[:, begins:ends] = strip[:, first + begins - left : first + ends - left]
        tile[:, :begins] = tile[:, begins : begins + 1]
        tile[:, ends:] = tile[:, ends - 1 : ends]
    return tiles


def stitch(answers: TileBatch | TilesU16, cut: Plan, row: int, out: AnyRgb, columns: range) -> None:
    """Write the cores of one row of answers to where they belong in ``out``.

    Args:
        answers: [columns, tile height * n, tile width * n, 3], n being the upscale.
        cut: the plane's plan.
        row: which row of tiles this is.
        out: [plane height * n, plane width * n, 3], written in place.
        columns: which columns of tiles.
    """
    upscale = answers.shape[1] // cut.tile[0]
    halo = cut.halo * upscale
    top, bottom = (edge * upscale for edge in cut.core_rows(row))
    edges = (*cut.lefts, cut.plane[1])
    for answer, column in zip(answers, columns, strict=True):
        left, right = (edge * upscale for edge in edges[column : column + 2])
        out[top:bottom, left:right] = answer[halo : halo + bottom - top, halo : halo + right - left]


def _cut(length: int, largest_tile: int, halo: int) -> tuple[int, tuple[int, ...]]:
    """Tile side along one axis, and where the cores begin."""
    known = sorted({*SIDES, *(core + 2 * halo for core in CORES)}, reverse=True)
    sides = [largest_tile, *(side for side in known if 2 * halo < side < largest_tile)]
    side = min(sides, key=lambda side: side * -(-length // (side - 2 * halo)))
    return side, tuple(range(0, length, side - 2 * halo))


def _seen(start: int, side: int, halo: int, length: int) -> np.ndarray:
    """Indices that a tile sees along one axis; beyond the plane, the edge repeats."""
    return np.arange(start - halo, start - halo + side).clip(0, length - 1)
