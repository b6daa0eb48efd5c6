"""PSNR and SSIM by the protocol of the published super-resolution tables.

Per picture: the estimate rounded to uint8, both turned to BT.601 luma in studio
swing, ``scale`` pixels shaved from every side, PSNR with peak 255, SSIM with an
11x11 Gaussian window. A table's figure is the mean over pictures.
"""

import math
from dataclasses import asdict

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from superres.arrays import LumaF64, RgbU8
from superres.models.card import Scores

SSIM_WINDOW = 11
"""Side of the Gaussian window, px: the smallest plane that SSIM is defined on."""
_SSIM_WEIGHTS = np.exp(-((np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) ** 2) / (2 * 1.5**2))
_SSIM_WEIGHTS /= _SSIM_WEIGHTS.sum()


def to_y(rgb: RgbU8) -> LumaF64:
    """Return BT.601 luma in studio swing, as MATLAB's ``rgb2ycbcr`` defines it.

    Args:
        rgb: picture, uint8, 0 to 255.

    Returns:
        Luma from 16 to 235, float64, not rounded.

    >>> to_y(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)).round(3).tolist()
    [[16.0, 235.0]]
    """
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    luma: LumaF64 = rgb.astype(np.float64) @ weights + 16.0
    return luma


def shave(picture: np.ndarray, border: int) -> np.ndarray:
    """Cut ``border`` pixels from every side of an [h, w] or [h, w, c] array.

    Raises:
        ValueError: nothing would be left.

    >>> shave(np.zeros((9, 7)), 3).shape
    (3, 1)
    """
    height, width = picture.shape[:2]
    if border < 0 or 2 * border >= min(height, width):
        raise ValueError(f"cannot shave {border} px from every side of {height}x{width} px")
    return picture[border : height - border, border : width - border]


def psnr(reference: np.ndarray, estimate: np.ndarray, *, data_range: float, shave: int) -> float:
    """Peak signal-to-noise ratio in dB, over all elements at once.

    Args:
        reference: ground truth, [h, w] or [h, w, c].
        estimate: same shape.
        data_range: peak value: 255 for uint8 and for luma.
        shave: pixels left out at every side.

    Returns:
        dB; infinity for identical pictures.

    Raises:
        ValueError: shapes differ, or nothing is left after shaving.

    >>> a = np.zeros((4, 4)); psnr(a, a + 255, data_range=255, shave=0)
    0.0
    >>> psnr(a, a, data_range=255, shave=1)
    inf
    """
    reference, estimate = _shaved_pair(reference, estimate, shave)
    error = float(np.mean((reference.astype(np.float64) - estimate.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def ssim(reference: np.ndarray, estimate: np.ndarray, *, data_range: float, shave: int) -> float:
    """Structural similarity (Wang et al., 2004), as scikit-image computes it.

    Gaussian window of 11x11, sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03: the variant
    of the published tables. The mean is over the windows that lie inside the picture, and on
    [h, w, 3] also over the channels.

    Args:
        reference: ground truth, [h, w] or [h, w, 3].
        estimate: same shape.
        data_range: peak value: 255 for uint8 and for luma.
        shave: pixels left out at every side.

    Raises:
        ValueError: shapes differ, or less than 11 px a side is left after shaving.

    >>> a = np.full((11, 11), 100.0); round(ssim(a, a + 100, data_range=255, shave=0), 4)
    0.8
    """
    reference, estimate = _shaved_pair(reference, estimate, shave)
    if min(reference.shape[:2]) < SSIM_WINDOW:
        height, width = reference.shape[:2]
        raise ValueError(
            f"SSIM needs at least {SSIM_WINDOW} px a side after shaving, not {height}x{width} px"
        )
    if reference.ndim == 2:
        return _ssim_of_plane(reference, estimate, data_range)
    channels = range(reference.shape[2])
    return float(
        np.mean([_ssim_of_plane(reference[..., c], estimate[..., c], data_range) for c in channels])
    )


def score(reference: RgbU8, estimate: RgbU8, *, data_range: float, shave: int) -> Scores:
    """Score a uint8 picture against the truth, on luma and on RGB.

    Raises:
        ValueError: as :func:`psnr` and :func:`ssim`.
    """
    reference_y, estimate_y = to_y(reference), to_y(estimate)
    return Scores(
        psnr_y=psnr(reference_y, estimate_y, data_range=data_range, shave=shave),
        ssim_y=ssim(reference_y, estimate_y, data_range=data_range, shave=shave),
        psnr_rgb=psnr(reference, estimate, data_range=data_range, shave=shave),
        ssim_rgb=ssim(reference, estimate, data_range=data_range, shave=shave),
    )


def mean_scores(scores: list[Scores]) -> Scores:
    """Mean of each figure over pictures, as the published tables take it.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError("no pictures were scored")
    return Scores(
        **{key: float(np.mean([getattr(s, key) for s in scores])) for key in asdict(scores[0])}
    )


def _shaved_pair(
    reference: np.ndarray, estimate: np.ndarray, border: int
) -> tuple[np.ndarray, np.ndarray]:
    if reference.shape != estimate.shape:
        raise ValueError(f"shapes differ: reference {reference.shape}, estimate {estimate.shape}")
    return shave(reference, border), shave(estimate, border)


def _ssim_of_plane(reference: np.ndarray, estimate: np.ndarray, data_range: float) -> float:
    x, y = reference.astype(np.float64), estimate.astype(np.float64)
    mean_x, mean_y = _window_means(x), _window_means(y)
    variances = _window_means(x * x) - mean_x**2 + _window_means(y * y) - mean_y**2
    covariance = _window_means(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (variances + c2)))


def _window_means(plane: np.ndarray) -> np.ndarray:
    """Weighted mean of every window inside a plane: [h, w] -> [h - 10, w - 10]."""
    for axis in (0, 1):
        plane = sliding_window_view(plane, SSIM_WINDOW, axis) @ _SSIM_WEIGHTS
    return plane
