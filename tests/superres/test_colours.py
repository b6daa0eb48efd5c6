"""Colour from file to file, against golden results.

The engine gives its tiles back, so that a new model changes nothing here; what the shipped
ones do to the same pictures is drawn by `make bench-colours`, to be looked at.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from superres import Enhancer
from superres.arrays import RgbU8, to_integer
from superres.codecs import Picture, conversion_notes, decode, encode, to_srgb
from superres.models.card import Geometry
from tests.pictures import WIDE_PROFILE
from tests.subjects import logo, ramp, turned, wide_gamut

GOLDEN = Path(__file__).parents[1] / "golden"
UPDATE = "SUPERRES_UPDATE_GOLDEN" in os.environ


class Bicubic:
    """An engine whose network adds nothing."""

    def predict(self, tiles):
        return tiles


ENHANCER = Enhancer(Bicubic(), Geometry(domain="hr", scale=1, halo=7, largest_tile=512))


@pytest.fixture(scope="module")
def photograph(chelsea: RgbU8) -> RgbU8:
    """80 high, 120 wide."""
    return np.ascontiguousarray(chelsea[40:200:2, 100:340:2])


def assert_golden(picture: Picture, name: str) -> None:
    """As it was when it was looked at, to one level of 255; from file to file."""
    file = GOLDEN / f"{name}.png"
    written = encode(picture, "png")
    if UPDATE:
        file.write_bytes(written)
    expected, found = decode(file.read_bytes()), decode(written)
    assert (found.icc_profile is None) == (expected.icc_profile is None)
    assert found.samples.dtype == expected.samples.dtype
    assert found.grey == expected.grey
    level = 1 if found.samples.dtype == np.uint8 else 257
    assert np.abs(found.samples.astype(int) - expected.samples).max() <= level


def test_a_wide_gamut_photograph_keeps_its_profile_and_its_reds(photograph):
    enhanced = ENHANCER.enhance(decode(wide_gamut(photograph)), 3)
    assert enhanced.icc_profile == WIDE_PROFILE
    assert enhanced.rgb[45, 60].tolist() == [255, 0, 0]
    assert_golden(enhanced, "wide-gamut-kept")


def test_a_wide_gamut_photograph_becomes_srgb_and_looks_the_same(photograph):
    kept = decode(wide_gamut(photograph))
    converted = to_srgb(kept)
    assert converted.icc_profile is None
    assert conversion_notes(converted, "png") == "converted: ICC profile to sRGB"
    # Away from the red that sRGB does not have, converting gives the first photograph back.
    difference = np.abs(converted.rgb.astype(int) - photograph)[30:]
    assert np.percentile(difference, 99) <= 3
    assert_golden(ENHANCER.enhance(converted, 3), "wide-gamut-srgb")
    # And it does not matter much whether it is converted before or after.
    after = to_srgb(ENHANCER.enhance(kept, 3)).rgb.astype(int)
    assert np.percentile(np.abs(after - ENHANCER.enhance(converted, 3).rgb), 99) <= 4


def test_a_16_bit_ramp_has_no_steps(srcnn: Enhancer):
    picture = decode(ramp())
    assert (picture.samples.dtype, picture.grey) == (np.uint16, True)
    enhanced = ENHANCER.enhance(picture, 3)
    row = enhanced.rgb[36, :, 0].astype(int)
    assert len(np.unique(row)) > 470  # of 480; 8 bits have 256
    assert (row[0], row[-1]) == (0, 65_535)
    assert np.diff(row).min() >= 0
    assert_golden(enhanced, "ramp-16-bit")
    # The network may bend it, but not quantise it.
    network = srcnn.enhance(picture, 3).rgb[36, :, 0].astype(int)
    assert len(np.unique(network)) > 400
    assert np.abs(network - row).max() < 0.03 * 65_535


def test_a_half_transparent_logo_has_no_dark_fringe(srcnn: Enhancer):
    picture = decode(logo())
    enhanced = ENHANCER.enhance(picture, 3)
    assert_golden(enhanced, "logo")
    for one in (enhanced, srcnn.enhance(picture, 3)):
        alpha = one.samples[..., 3]
        edge = one.samples[(alpha > 0) & (alpha < 70)].astype(int)
        assert len(edge) > 500
        # Orange or blue, or between: never the black that the file has where nothing is.
        assert edge[:, :3].max(axis=1).min() > 150
    # What it was: black, drawn into the edge.
    unprotected = ENHANCER.enhance(replace(picture, samples=picture.samples[..., :3]), 3)
    assert unprotected.samples[(alpha > 0) & (alpha < 70)].max(axis=1).min() < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_are_the_same_picture(photograph, orientation):
    picture = decode(turned(photograph, orientation))
    assert np.array_equal(picture.rgb, photograph)
    assert_golden(ENHANCER.enhance(picture, 2), "upright")


def test_white_stays_white_and_black_black_in_the_enlarging_and_in_every_format():
    for level in (0, 255):
        flat = Picture(np.full((40, 40, 3), level, np.uint8))
        assert np.unique(ENHANCER.enhance(flat, 3).rgb).tolist() == [level]
        for output_format in ("png", "jpeg", "webp", "tiff"):
            read = decode(encode(flat, output_format, 100)).rgb
            assert np.unique(read).tolist() == [level]
    sixteen = to_integer(np.ones((40, 40, 3), np.float32), np.uint16)
    assert np.unique(ENHANCER.enhance(Picture(sixteen), 3).rgb).tolist() == [65_535]
