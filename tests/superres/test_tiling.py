import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superres.tiling import MULTIPLE, extract, plan, stitch

sides = st.integers(1, 5000)
halos = st.integers(0, 40)
largest = st.integers(8, 32).map(lambda n: n * MULTIPLE)


@settings(deadline=None)
@given(height=sides, width=sides, largest_tile=largest, halo=halos)
def test_cores_cover_the_plane_once_and_tiles_keep_the_rules(height, width, largest_tile, halo):
    cut = plan((height, width), largest_tile=largest_tile, halo=halo)
    grid = math.gcd(halo, MULTIPLE)
    for side in cut.tile:
        assert side <= largest_tile
        assert side % 2 == 0
        assert (side - 2 * halo) % grid == 0
    for starts, length, side in zip((cut.tops, cut.lefts), (height, width), cut.tile, strict=True):
        cores = np.diff([*starts, length])
        assert starts[0] == 0
        assert cores.min() > 0
        assert cores.max() <= side - 2 * halo


@settings(deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 600),
    upscale=st.integers(1, 3),
    columns=st.integers(1, 4),
)
def test_extracting_and_stitching_gives_the_plane_back(height, width, upscale, columns):
    plane = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    cut = plan((height, width), largest_tile=96, halo=9)
    out = np.empty((height * upscale, width * upscale, 3), np.uint8)
    for panel, row in product(cut.panels(columns), range(len(cut.tops))):
        strip = plane[cut.tile_rows(row), slice(*cut.span(panel))]
        tiles = extract(strip, cut, panel)
        assert tiles.shape == (len(panel), *cut.tile, 3)
        stitch(tiles.repeat(upscale, 1).repeat(upscale, 2), cut, row, out, panel)
    assert np.array_equal(out, plane.repeat(upscale, 0).repeat(upscale, 1))


def test_beyond_the_plane_the_edge_is_repeated():
    plane = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    cut = plan((4, 4), largest_tile=32, halo=2)
    tile = extract(plane[cut.tile_rows(0)], cut, range(1))[0]
    assert np.array_equal(tile[:8, :8], np.pad(plane, ((2, 2), (2, 2), (0, 0)), mode="edge"))


@pytest.mark.parametrize(
    ("plane", "halo", "waste"),
    [
        ((3000, 4000), 7, 0.10),
        ((1000, 1000), 7, 0.12),
        ((768, 768), 7, 0.08),
        ((600, 600), 7, 0.25),
        ((256, 256), 26, 0.45),
        ((256, 256), 12, 0.20),
        ((171, 171), 26, 1.00),
        ((300, 400), 26, 0.42),
    ],
)
def test_halo_and_padding_waste_little(plane, halo, waste):
    cut = plan(plane, largest_tile=512, halo=halo)
    seen = cut.tiles * cut.tile[0] * cut.tile[1]
    assert seen / (plane[0] * plane[1]) - 1 <= waste


@pytest.mark.parametrize("largest_tile", [100, 32])
def test_a_tile_without_room_or_of_an_odd_side_is_refused(largest_tile):
    with pytest.raises(ValueError, match=f"multiple of 16 px over 40 .*not {largest_tile}"):
        plan((10, 10), largest_tile=largest_tile, halo=20)
