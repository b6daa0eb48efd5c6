import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from scipy import ndimage

from superres.arrays import RgbU8
from superres.resample import degrade
from tests.pictures import encoded
from training import degrade as module
from training.degrade import (
    REACH,
    Degradations,
    degrade_lr,
    gaussian_blur,
    load_degradations,
    resize,
    shrink_and_degrade,
)

SHIPPED = Path(module.__file__).with_name("degradations.toml")
GREY = np.full((128, 128, 3), 128, np.uint8)


def degraded(rgb: RgbU8, *steps: dict[str, Any], seed: int = 0) -> RgbU8:
    degradations = Degradations.model_validate({"steps": steps})
    return degrade_lr(rgb, degradations, np.random.default_rng(seed))


def jpeg(quality: int, **changes: Any) -> dict[str, Any]:
    return {"kind": "jpeg", "quality": (quality, quality), **changes}


def error(rgb: RgbU8, other: RgbU8) -> np.ndarray:
    return rgb.astype(np.float64) - other


def spread(rgb: np.ndarray) -> tuple[float, float, float]:
    """Variances along x and y, and covariance, of a picture of one bright spot."""
    weights = rgb[..., 0] / rgb[..., 0].sum()
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
    x, y = x - (weights * x).sum(), y - (weights * y).sum()
    return (weights * x * x).sum(), (weights * y * y).sum(), (weights * x * y).sum()


def test_a_round_blur_is_a_gaussian_of_its_deviation(chelsea: RgbU8):
    part = chelsea[100:161, 100:187]
    expected = ndimage.gaussian_filter(part.astype(np.float64), (1.3, 1.3, 0), mode="nearest")
    assert np.abs(gaussian_blur(part, 1.3, 1.3, 0.0) - expected).max() < 0.5
    blurred = degraded(part, {"kind": "blur", "sigma": (1.3, 1.3)})
    assert np.abs(blurred - expected).max() <= 1


def test_an_anisotropic_blur_has_two_deviations_and_an_angle():
    spot = np.zeros((41, 41, 3), np.uint8)
    spot[20, 20] = 255
    assert spread(gaussian_blur(spot, 1.6, 0.8, 0.0)) == pytest.approx((2.56, 0.64, 0), abs=0.01)
    turned = spread(gaussian_blur(spot, 1.6, 0.8, math.pi / 4))
    mean, half = (2.56 + 0.64) / 2, (2.56 - 0.64) / 2
    assert turned == pytest.approx((mean, mean, half), abs=0.01)


def test_a_blur_of_nothing_changes_nothing(chelsea: RgbU8):
    assert np.array_equal(degraded(chelsea, {"kind": "blur", "sigma": (0, 0)}), chelsea)


def test_blurs_are_anisotropic_as_often_as_is_said():
    spot = np.zeros((41, 41, 3), np.uint8)
    spot[20, 20] = 255
    step = {"kind": "blur", "sigma": (1.0, 1.6), "anisotropic": 0.5}
    blurred = [degraded(spot, step, seed=seed) for seed in range(60)]
    round_ones = [np.abs(one.astype(int) - one.swapaxes(0, 1)).max() == 0 for one in blurred]
    assert 15 < sum(round_ones) < 45


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_noise_has_its_deviation_and_the_same_on_all_channels_if_grey(grey: float):
    noise = error(degraded(GREY, {"kind": "noise", "sigma": (6, 6), "grey": grey}), GREY)
    assert noise.std() == pytest.approx(6, rel=0.03)
    assert abs(noise.mean()) < 0.15
    correlation = np.corrcoef(noise[..., 0].ravel(), noise[..., 2].ravel())[0, 1]
    assert correlation == pytest.approx(grey, abs=0.05)


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_shot_noise_grows_with_the_root_of_the_light(grey: float):
    step = {"kind": "shot_noise", "photons": (400, 400), "grey": grey}
    for level in (32, 128, 200):
        flat = np.full_like(GREY, level)
        noise = error(degraded(flat, step), flat)
        # n photons vary by their root; white is 400 of them.
        assert noise.std() == pytest.approx(math.sqrt(level * 255 / 400), rel=0.04)
        assert abs(noise.mean()) < 0.3
        assert np.corrcoef(noise[..., 0].ravel(), noise[..., 2].ravel())[0, 1] == pytest.approx(
            grey, abs=0.05
        )


def test_sharpening_leaves_a_seam_on_both_sides_of_an_edge():
    edge = np.full((20, 40, 3), 80, np.uint8)
    edge[:, 20:] = 160
    sharp = degraded(edge, {"kind": "sharpen", "sigma": (1, 1), "amount": (0.8, 0.8)})
    assert sharp[10, 19, 0] < 70
    assert sharp[10, 20, 0] > 170
    assert np.array_equal(sharp[:, :12], edge[:, :12])


@pytest.mark.parametrize(("chroma_420", "subsampling"), [(1.0, 2), (0.0, 0)])
def test_jpeg_is_what_pillow_would_write(chelsea: RgbU8, chroma_420: float, subsampling: int):
    part = chelsea[100:164, 200:290]
    data = encoded(part, "JPEG", quality=40, subsampling=subsampling)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image)
    other = degraded(part, jpeg(40, chroma_420=1 - chroma_420))
    ours = error(degraded(part, jpeg(40, chroma_420=chroma_420)), expected)
    assert np.abs(ours).mean() < 0.1 * np.abs(error(other, expected)).mean()


def grid_phase(rgb: RgbU8) -> int:
    """Columns from the left at which a grid of blocks of 8 begins, by the steps between blocks."""
    luma = rgb.astype(np.float64).mean(axis=2)
    steps = np.abs(np.diff(luma, axis=1)).mean(axis=0)
    return (int(np.argmax([steps[phase::8].mean() for phase in range(8)])) + 1) % 8


def test_a_shifted_grid_begins_anywhere_and_the_picture_stays_where_it_is(chelsea: RgbU8):
    part = chelsea[60:200, 100:300]
    assert grid_phase(degraded(part, jpeg(8))) == 0
    shifted = [degraded(part, jpeg(8, shifted=1.0), seed=seed) for seed in range(40)]
    assert {grid_phase(one) for one in shifted} == set(range(8))
    assert all(one.shape == part.shape for one in shifted)
    losses = [np.square(error(one, part)).mean() for one in shifted]
    assert max(losses) < 1.3 * min(losses)


def test_the_lower_the_quality_the_further_from_the_picture(chelsea: RgbU8):
    part = chelsea[100:164, 200:290]
    for kind in ("jpeg", "webp"):
        losses = [
            np.square(error(degraded(part, {"kind": kind, "quality": (q, q)}), part)).mean()
            for q in (95, 60, 20)
        ]
        assert 0 < losses[0] < 0.7 * losses[1] < 0.5 * losses[2]


@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_a_resize_keeps_size_and_place(factor: float):
    spot = np.zeros((40, 60, 3), np.uint8)
    spot[17:22, 30:36] = 255
    step = {
        "kind": "resize",
        "factor": (factor, factor),
        "shrink_filters": ("area", "bilinear", "bicubic", "lanczos"),
        "enlarge_filters": ("bilinear", "bicubic", "lanczos"),
    }
    results = {degraded(spot, step, seed=seed).tobytes() for seed in range(60)}
    assert len(results) == 12  # pairs of filters
    for result in results:
        rgb = np.frombuffer(result, np.uint8).reshape(spot.shape).astype(np.float64)[..., 0]
        y, x = np.mgrid[:40, :60]
        centre = ((rgb * y).sum() / rgb.sum(), (rgb * x).sum() / rgb.sum())
        assert centre == pytest.approx((19, 32.5), abs=0.3)


def test_area_is_the_mean_over_what_a_pixel_covers(chelsea: RgbU8):
    made = resize(chelsea, (200, 451), "area")
    # Two new rows of three old ones: all of one, and half of that between them.
    first = (chelsea[0::3].astype(int) * 2 + chelsea[1::3]) / 3
    second = (chelsea[1::3] + chelsea[2::3].astype(int) * 2) / 3
    assert np.abs(made[0::2] - first).max() <= 0.51
    assert np.abs(made[1::2] - second).max() <= 0.51


def test_steps_follow_each_other_as_the_config_orders_them():
    noise, blur = {"kind": "noise", "sigma": (9, 9)}, {"kind": "blur", "sigma": (1.2, 1.2)}
    assert degraded(GREY, noise, blur).std() < 3
    assert degraded(GREY, blur, noise).std() > 8


def test_each_step_is_taken_as_often_as_its_probability_says():
    step = {"kind": "noise", "sigma": (5, 5), "probability": 0.3}
    degradations = Degradations.model_validate({"steps": [step]})
    random = np.random.default_rng(1)
    changed = [degrade_lr(GREY[:8, :8], degradations, random).std() > 0 for _ in range(400)]
    assert 90 < sum(changed) < 150


def test_pictures_are_shrunk_by_one_of_the_filters(chelsea: RgbU8):
    size, seen = (100, 150), set()
    degradations = Degradations.model_validate(
        {
            "shrink_filters": ("bicubic", "area"),
            "steps": [{"kind": "noise", "sigma": (0, 0)}],
        }
    )
    for seed in range(10):
        lr = shrink_and_degrade(chelsea[:, :450], size, degradations, np.random.default_rng(seed))
        seen.add(lr.tobytes())
    means = chelsea[:, :450].reshape(100, 3, 150, 3, 3).mean(axis=(1, 3))
    bicubic = degrade(chelsea[:, :450], size)
    assert len(seen) == 2
    assert bicubic.tobytes() in seen
    (other,) = (np.frombuffer(one, np.uint8) for one in seen if one != bicubic.tobytes())
    assert np.abs(other.reshape(means.shape) - means).max() <= 1


@pytest.mark.parametrize(
    "step",
    [
        {"kind": "blur", "sigma": (1.6, 1.6)},
        {"kind": "sharpen", "sigma": (1.5, 1.5), "amount": (1, 1)},
    ],
    ids=["blur", "sharpen"],
)
def test_a_part_comes_out_as_in_the_whole_picture_but_near_its_edge(chelsea: RgbU8, step: dict):
    whole = degraded(chelsea, step)[50:120, 60:140]
    part = degraded(chelsea[50:120, 60:140], step)
    inner = slice(REACH, -REACH)
    assert np.abs(error(whole, part))[inner, inner].max() <= 1


def test_the_shipped_degradations_are_all_kinds_and_leave_some_crops_clean():
    shipped = load_degradations(SHIPPED)
    assert shipped.clean == 0.15
    kinds = {step.kind for step in shipped.steps}
    assert kinds == {"blur", "noise", "shot_noise", "resize", "sharpen", "jpeg", "webp"}
    assert Degradations.model_validate_json(shipped.model_dump_json()) == shipped


def config(**changes: Any) -> Callable[[], Degradations]:
    blur = {"kind": "blur", "sigma": (0.5, 1)}
    return lambda: Degradations.model_validate({"steps": [blur], **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": [{"kind": "smear"}]}, "smear"),
        ({"steps": [{"kind": "blur", "sigma": (0, 1), "angle": 3}]}, "angle"),
        ({"steps": [{"kind": "blur", "sigma": (1.6, 0.2)}]}, r"must be \(lowest, highest\)"),
        ({"steps": [{"kind": "blur", "sigma": (-1, 0.2)}]}, "greater than or equal to 0"),
        ({"steps": [{"kind": "jpeg", "quality": (30, 101)}]}, "less than or equal to 100"),
        ({"shrink_filters": ["nearest"]}, "'bicubic' or 'lanczos'"),
        ({"steps": []}, "at least 1"),
        ({"clean": 1.2}, "less than or equal to 1"),
        ({"cleen": 0.3}, "cleen"),
    ],
)
def test_a_config_that_is_not_allowed_is_refused(changes: dict[str, Any], message: str):
    assert config()().clean == 0
    with pytest.raises(ValidationError, match=message):
        config(**changes)()


def test_a_file_without_degradations_is_refused(tmp_path: Path):
    (tmp_path / "clean.toml").write_text('name = "clean"')
    with pytest.raises(ValueError, match=r"clean\.toml has no table \[degradations\]"):
        load_degradations(tmp_path / "clean.toml")
