"""Colours under what is transparent; conversion between profiles is tested with the codecs."""

import numpy as np
import pytest

from superres.colour import bleed


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_hidden_pixels_take_the_colour_of_the_nearest_visible_one(dtype):
    samples = np.zeros((3, 6, 4), dtype)
    samples[:, :2] = (200, 10, 10, 255)
    samples[:, 5] = (10, 200, 10, 1)
    filled = bleed(samples)
    assert filled[1, :, 0].tolist() == [200, 200, 200, 200, 10, 10]
    assert filled[1, :, 1].tolist() == [10, 10, 10, 10, 200, 200]


@pytest.mark.parametrize("alpha", [0, 255])
def test_where_nothing_or_all_is_visible_colours_stay_as_they_are(alpha):
    samples = np.random.default_rng(0).integers(0, 256, (5, 5, 4), np.uint8)
    samples[..., 3] = alpha
    assert np.array_equal(bleed(samples), samples[..., :3])
