"""A comparison as pictures: bicubic, the model and the truth side by side; their differences."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from superres.arrays import RgbU8, to_integer
from superres.evaluation.metrics import to_y
from superres.evaluation.proof import Comparison

PANEL = 480
"""Longest side of a panel, px; of a larger picture, the part that gained most is shown."""
AMPLIFIED = 8
"""How much brighter than the error of luma a difference map is."""
_CAPTION = 46
_GAP = 4


def draw_strip(comparison: Comparison, model: str) -> RgbU8:
    """Draw the captioned strip, at one picture pixel to the pixel."""
    part = _most_gained(comparison)
    panels = [
        (comparison.bicubic, "bicubic", comparison.bicubic_scores),
        (comparison.sr, model, comparison.sr_scores),
        (comparison.hr, "original", None),
    ]
    height, width = comparison.hr[part].shape[:2]
    column = max(width, 170)
    strip = Image.new("RGB", (3 * column + 2 * _GAP, height + _CAPTION), "white")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(15)
    for i, (picture, title, scores) in enumerate(panels):
        left = i * (column + _GAP)
        strip.paste(Image.fromarray(np.ascontiguousarray(picture[part])), (left, _CAPTION))
        draw.text((left + 4, 3), title, "black", font)
        figures = (
            f"{scores.psnr_y:.2f} dB  SSIM {scores.ssim_y:.4f}"
            if scores
            else f"x{comparison.scale:g} truth"
        )
        draw.text((left + 4, 23), figures, "dimgrey", font)
    return np.asarray(strip)


def draw_difference(hr: RgbU8, restored: RgbU8) -> RgbU8:
    """Draw how far a picture is from the truth: black where luma is equal, grey to white beyond."""
    error = np.abs(to_y(hr) - to_y(restored)) * (AMPLIFIED / 255)
    return np.repeat(to_integer(error.astype(np.float32), np.uint8)[..., None], 3, axis=2)


def _most_gained(comparison: Comparison) -> tuple[slice, slice]:
    """Where, on a coarse grid, the model took away most of bicubic's squared error."""
    hr = comparison.hr.astype(np.float32)
    gain = (
        (comparison.bicubic.astype(np.float32) - hr) ** 2
        - (comparison.sr.astype(np.float32) - hr) ** 2
    ).sum(axis=2)
    height, width = gain.shape
    tops = range(0, max(1, height - PANEL + 1), PANEL // 4)
    lefts = range(0, max(1, width - PANEL + 1), PANEL // 4)
    top, left = max(
        ((top, left) for top in tops for left in lefts),
        key=lambda corner: gain[corner[0] : corner[0] + PANEL, corner[1] : corner[1] + PANEL].sum(),
    )
    return slice(top, top + PANEL), slice(left, left + PANEL)
