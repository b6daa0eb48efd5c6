import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from superres.arrays import RgbU8
from superres.evaluation.metrics import mean_scores, psnr, score, shave, ssim, to_y
from superres.models.card import Scores


def test_luma_of_primaries_is_bt601_in_studio_swing():
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert to_y(primaries)[0] == pytest.approx([81.481, 144.553, 40.966])


def test_one_level_of_error_is_48_db():
    truth = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(truth, truth + 1, data_range=255, shave=0) == pytest.approx(48.1308, abs=1e-4)


def test_errors_in_the_shaved_border_do_not_count():
    truth = np.zeros((20, 20), np.uint8)
    wrong_at_the_border = truth.copy()
    wrong_at_the_border[:3] = 9
    assert psnr(truth, wrong_at_the_border, data_range=255, shave=3) == math.inf
    assert psnr(truth, wrong_at_the_border, data_range=255, shave=2) < 60


def test_identical_pictures_score_infinity_and_one_and_json_can_say_so(coffee: RgbU8):
    scores = score(coffee, coffee, data_range=255, shave=3)
    assert scores.psnr_y == scores.psnr_rgb == math.inf
    assert scores.ssim_y == scores.ssim_rgb == pytest.approx(1)
    assert scores.as_dict()["psnr_y"] == "infinity"


def test_ssim_of_rgb_is_the_mean_of_its_channels(coffee: RgbU8):
    noisy = coffee ^ 8
    channels = [ssim(coffee[..., c], noisy[..., c], data_range=255, shave=0) for c in range(3)]
    assert ssim(coffee, noisy, data_range=255, shave=0) == pytest.approx(np.mean(channels))


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(11, 40),
    width=st.integers(11, 40),
    channels=st.sampled_from([None, 3]),
    noise=st.sampled_from([0, 1, 20, 255]),
    dtype=st.sampled_from([np.uint8, np.float64]),
)
def test_ssim_is_scikit_images(seed, height, width, channels, noise, dtype):
    random = np.random.default_rng(seed)
    shape = (height, width) if channels is None else (height, width, channels)
    truth = np.cumsum(random.normal(0, 6, shape), axis=1) + 128
    estimate = truth + random.normal(0, noise, shape)
    truth, estimate = (x.clip(0, 255).astype(dtype) for x in (truth, estimate))
    expected = structural_similarity(
        truth,
        estimate,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=None if channels is None else -1,
    )
    assert ssim(truth, estimate, data_range=255, shave=0) == pytest.approx(expected, abs=1e-6)


def test_a_set_scores_the_mean_of_its_pictures():
    one, two = Scores(30, 0.8, 29, 0.7), Scores(32, 0.9, 31, 0.8)
    mean = mean_scores([one, two])
    assert (mean.psnr_y, mean.psnr_rgb) == (31, 30)
    assert (mean.ssim_y, mean.ssim_rgb) == pytest.approx((0.85, 0.75))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda a: psnr(a, a[:-1], data_range=255, shave=0), "shapes differ"),
        (lambda a: shave(a, 6), "cannot shave 6 px from every side of 12x12 px"),
        (lambda a: ssim(a, a, data_range=255, shave=1), "at least 11 px a side"),
        (lambda a: mean_scores([]), "no pictures"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call(np.zeros((12, 12), np.uint8))
