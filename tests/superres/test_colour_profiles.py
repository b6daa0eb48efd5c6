"""Profiles mean what their numbers say, by Little CMS."""

import imagecodecs
import numpy as np
import pytest

from superres.arrays import to_integer
from superres.colour import to_srgb
from superres.colour_profiles import (
    D65,
    SRGB_PRIMARIES,
    SRGB_TRANSFER,
    colour_space,
    grey_profile_of,
    profile_of,
    profile_of_cicp,
    rgb_profile_of_grey,
)
from superres.errors import UnsupportedFormat
from tests.pictures import SRGB_PROFILE

RAMP = np.linspace(0, 1, 33)
COLOURS = np.random.default_rng(0).random((1, 500, 3))
SRGB_OF_P3 = np.array(
    [[1.2249402, -0.2249402, 0], [-0.0420570, 1.0420570, 0], [-0.0196376, -0.0786361, 1.0982736]]
)
"""From linear Display P3 to linear sRGB (CSS Color 4, its sample code)."""


def srgb_encoded(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def light(stored: np.ndarray, transfer: tuple[float, ...]) -> np.ndarray:
    if len(transfer) == 1:
        return stored ** transfer[0]
    g, a, b, c, d = transfer
    return np.where(stored >= d, (a * stored + b) ** g, c * stored)


def through_lcms(stored: np.ndarray, profile: bytes) -> np.ndarray:
    """To sRGB, in levels of 255."""
    levels = to_integer(stored.astype(np.float32), np.uint16)
    grey = levels.ndim == 2
    samples = np.dstack([levels] * 3) if grey else levels
    return to_srgb(samples, profile, grey=grey) / 257


@pytest.mark.parametrize("transfer", [(1.0,), (1.8,), (2.2,), SRGB_TRANSFER])
def test_a_transfer_function_is_what_its_formula_says(transfer):
    expected = 255 * srgb_encoded(light(RAMP, transfer))
    grey = through_lcms(RAMP[None, :], grey_profile_of(transfer))
    assert np.abs(grey[0, :, 1] - expected).max() < 0.5
    equal = np.repeat(RAMP[None, :, None], 3, axis=2)
    rgb = through_lcms(equal, profile_of(SRGB_PRIMARIES, D65, transfer))
    assert np.abs(rgb[0] - expected[:, None]).max() < 0.5


def test_display_p3_is_converted_as_its_matrices_say():
    profile = profile_of_cicp(12, 13)
    assert profile is not None
    linear = light(COLOURS, SRGB_TRANSFER) @ SRGB_OF_P3.T
    inside = ((linear >= 0) & (linear <= 1)).all(axis=2)
    difference = np.abs(through_lcms(COLOURS, profile) - 255 * srgb_encoded(linear))[inside]
    assert inside.sum() > 200
    assert difference.max() < 0.8


@pytest.mark.parametrize(
    ("primaries", "transfer"),
    [
        *((primaries, 13) for primaries in (1, 4, 5, 6, 7, 8, 9, 11, 12, 22)),
        *((9, transfer) for transfer in (1, 4, 5, 6, 7, 8, 11, 12, 14, 15, 17)),
    ],
)
def test_white_is_white_and_black_is_black_by_every_code_point(primaries, transfer):
    profile = profile_of_cicp(primaries, transfer)
    assert (profile is None) == ((primaries, transfer) == (1, 13))
    if profile is not None:
        ends = through_lcms(np.array([[[0.0] * 3, [1.0] * 3]]), profile)[0]
        assert np.abs(ends - [[0] * 3, [255] * 3]).max() < 0.6
        assert colour_space(profile) == "RGB"
    grey = profile_of_cicp(primaries, transfer, grey=True)
    assert (grey is None) == (transfer == 13)
    assert grey is None or colour_space(grey) == "GRAY"


def test_what_is_unspecified_is_as_in_srgb():
    assert profile_of_cicp(2, 2) is None
    assert profile_of_cicp(12, 2) == profile_of_cicp(12, 13)
    assert profile_of_cicp(2, 8) == profile_of_cicp(1, 8)


@pytest.mark.parametrize(
    ("primaries", "transfer", "named"),
    [
        (9, 16, r"PQ \(HDR\)"),
        (9, 18, r"HLG \(HDR\)"),
        (1, 9, "logarithmic"),
        (1, 99, "99"),
        (77, 13, "77"),
    ],
)
def test_hdr_and_unknown_code_points_are_refused_by_name(primaries, transfer, named):
    with pytest.raises(UnsupportedFormat, match=named):
        profile_of_cicp(primaries, transfer)


@pytest.mark.parametrize(
    ("primaries", "white"),
    [
        (((0.64, 0.0), (0.3, 0.6), (0.15, 0.06)), D65),
        (((0.1, 0.1), (0.2, 0.2), (0.3, 0.3)), D65),
        (SRGB_PRIMARIES, (0.3, 0.0)),
        (((0.64, -0.1), (0.3, 0.6), (0.15, 0.06)), D65),
    ],
)
def test_colours_that_cannot_be_mixed_are_refused(primaries, white):
    with pytest.raises(ValueError, match=r"have a y above 0|on one line"):
        profile_of(primaries, white, (2.2,))


@pytest.mark.parametrize(
    "profile",
    [grey_profile_of((1.8,)), imagecodecs.cms_profile("gray", gamma=1.8)],
    ids=["own", "Little CMS"],
)
def test_a_grey_profile_as_rgb_shows_equal_channels_the_same(profile):
    as_rgb = rgb_profile_of_grey(profile)
    assert as_rgb is not None
    grey = through_lcms(RAMP[None, :], profile)
    rgb = through_lcms(np.repeat(RAMP[None, :, None], 3, axis=2), as_rgb)
    assert np.abs(grey - rgb).max() < 0.5
    assert rgb_profile_of_grey(SRGB_PROFILE) is None


def test_damaged_profiles_have_no_colour_space():
    assert colour_space(b"") is None
    assert colour_space(bytes(500)) is None
    assert colour_space(SRGB_PROFILE) == "RGB"
    assert rgb_profile_of_grey(bytes(140)) is None
    for cut in range(0, 300, 7):
        rgb_profile_of_grey(grey_profile_of((1.8,))[:cut])
