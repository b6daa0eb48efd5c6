import numpy as np
import pytest
from PIL import Image

from superres.arrays import RgbU8, to_float
from superres.resample import BAND, degrade, resize_bands, scaled_size, upsample


def test_sizes_round_half_up():
    assert scaled_size((1, 3), 1.5) == (2, 5)
    assert scaled_size((512, 512), 1 / 3) == (171, 171)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_whole_scales_are_pillows_bicubic_to_the_bit(chelsea: RgbU8, scale: int):
    height, width = scaled_size(chelsea.shape[:2], scale)
    pillow = Image.fromarray(chelsea).resize((width, height), Image.Resampling.BICUBIC)
    assert np.array_equal(upsample(chelsea, (height, width)), np.asarray(pillow))


def test_fractional_scales_are_pillows_bicubic_to_one_level(chelsea: RgbU8):
    height, width = scaled_size(chelsea.shape[:2], 2.7)
    pillow = Image.fromarray(chelsea).resize((width, height), Image.Resampling.BICUBIC)
    ours = upsample(chelsea, (height, width)).astype(int)
    assert np.abs(ours - np.asarray(pillow)).max() <= 1


def test_bands_are_the_whole_in_pieces(chelsea: RgbU8):
    size = scaled_size(chelsea.shape[:2], 3.3)
    bands = list(resize_bands(chelsea, size))
    assert [len(band) for band in bands] == [BAND, BAND, size[0] - 2 * BAND]
    assert np.array_equal(np.concatenate(bands), upsample(chelsea, size))


def test_columns_are_the_whole_in_pieces(chelsea: RgbU8):
    size = scaled_size(chelsea.shape[:2], 3.3)
    whole = upsample(chelsea, size)
    for columns in [(0, 1), (470, 1000), (size[1] - 7, size[1])]:
        piece = np.concatenate(list(resize_bands(chelsea, size, columns)))
        assert np.array_equal(piece, whole[:, slice(*columns)])


def test_bands_also_shrink(chelsea: RgbU8):
    size = (100, 130)
    shrunk = np.concatenate(list(resize_bands(chelsea, size))).astype(int)
    assert np.abs(shrunk - degrade(chelsea, size)).max() <= 1


def test_shrinking_is_antialiased():
    stripes = np.zeros((60, 60, 3), np.uint8)
    stripes[:, ::2] = 255
    inner = degrade(stripes, (20, 20))[5:15, 5:15]
    assert 85 <= inner.min() <= inner.max() <= 170


def test_float_agrees_with_uint8_and_stays_in_range(chelsea: RgbU8):
    size = scaled_size(chelsea.shape[:2], 3)
    as_float = upsample(to_float(chelsea), size)
    assert as_float.min() >= 0
    assert as_float.max() <= 1
    assert np.abs(as_float * 255 - upsample(chelsea, size)).max() < 1.6


def test_a_constant_stays_constant_at_the_borders_too():
    assert np.unique(upsample(np.full((7, 5, 3), 201, np.uint8), (22, 16))).tolist() == [201]
