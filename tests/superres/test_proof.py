import numpy as np
import pytest

from superres import Enhancer
from superres.arrays import RgbU8
from superres.card import Geometry
from superres.engine import BlurEngine
from superres.errors import BadRequest
from superres.proof import compare
from superres.strip import PANEL, draw_strip


def test_the_model_comes_nearer_to_a_photograph_than_bicubic(srcnn: Enhancer, coffee: RgbU8):
    comparison = compare(srcnn, coffee, 3)
    assert comparison.hr.shape == (399, 600, 3)
    assert comparison.gain_db > 0.5
    assert comparison.sr_scores.ssim_y > comparison.bicubic_scores.ssim_y


def test_an_engine_that_only_blurs_loses_and_it_shows(coffee: RgbU8):
    geometry = Geometry(domain="hr", upscale=1, halo=3, largest_tile=256)
    assert compare(Enhancer(BlurEngine(geometry), geometry), coffee, 2).gain_db < -1


def test_fractional_scales_keep_the_whole_picture(srcnn: Enhancer, chelsea: RgbU8):
    assert compare(srcnn, chelsea, 2.5).sr.shape == chelsea.shape


def test_equal_scores_are_no_gain_even_at_infinity(srcnn: Enhancer):
    assert compare(srcnn, np.zeros((60, 60, 3), np.uint8), 3).gain_db == 0


@pytest.mark.parametrize(
    ("size", "scale", "says"),
    [
        ((40, 16), 3, r"at least 17 px a side; the picture has 15x39"),
        ((40, 40), 1, "scale is over 1, to 4, not 1"),
        ((40, 40), 5, "not 5"),
    ],
)
def test_what_cannot_be_compared_is_refused(srcnn: Enhancer, size, scale, says):
    with pytest.raises(BadRequest, match=says):
        compare(srcnn, np.zeros((*size, 3), np.uint8), scale)


def test_a_strip_shows_three_panels_of_a_bounded_size(srcnn: Enhancer, coffee: RgbU8):
    strip = draw_strip(compare(srcnn, coffee, 3), "srcnn")
    original = strip[-399:, -PANEL:]
    assert strip.shape[1] <= 3 * PANEL + 20
    assert any(np.array_equal(original, coffee[:399, left:][:, :PANEL]) for left in (0, 120))
