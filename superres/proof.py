"""Scores a model against bicubic on a picture that is taken as the truth."""

import math
from dataclasses import dataclass

import numpy as np

from superres.arrays import RgbU8
from superres.enhancer import LARGEST_SCALE, Enhancer
from superres.errors import BadRequest
from superres.metrics import SSIM_WINDOW, Scores, score
from superres.resample import degrade, scaled_size, upsample


@dataclass(frozen=True)
class Comparison:
    """The truth, and how near two methods came to it from its shrunken copy."""

    scale: float
    hr: RgbU8
    bicubic: RgbU8
    sr: RgbU8
    bicubic_scores: Scores
    sr_scores: Scores

    @property
    def gain_db(self) -> float:
        """Luma PSNR of the model over bicubic's; 0 where both are perfect."""
        if self.sr_scores.psnr_y == self.bicubic_scores.psnr_y:
            return 0.0
        return self.sr_scores.psnr_y - self.bicubic_scores.psnr_y


def compare(enhancer: Enhancer, hr: RgbU8, scale: float) -> Comparison:
    """Shrink a picture by ``scale``, bring it back by bicubic and by the model.

    For a whole scale the picture is first cropped to a multiple of it.

    Args:
        enhancer: the model.
        hr: the truth, uint8.
        scale: over 1, to 4.

    Raises:
        BadRequest: the scale is out of range, or the picture too small to be scored.
    """
    if not 1 < scale <= LARGEST_SCALE:
        raise BadRequest(f"scale is over 1, to {LARGEST_SCALE:g}, not {scale:g}")
    smallest = SSIM_WINDOW + 2 * math.ceil(scale)
    height, width = hr.shape[:2]
    if float(scale).is_integer():
        height, width = (side - side % int(scale) for side in (height, width))
        hr = hr[:height, :width]
    if min(height, width) < smallest:
        raise BadRequest(
            f"a comparison at scale {scale:g} needs at least {smallest} px a side; "
            f"the picture has {width}x{height}"
        )
    return compare_pair(enhancer, hr, degrade(hr, scaled_size((height, width), 1 / scale)), scale)


def compare_pair(
    enhancer: Enhancer, hr: RgbU8, lr: RgbU8, scale: float, *, shave: int | None = None
) -> Comparison:
    """Enlarge ``lr`` to ``hr``'s size by bicubic and by the model, and score both.

    ``shave`` pixels are left out at every side; ``scale``, rounded up, unless given.
    """
    size = (hr.shape[0], hr.shape[1])
    bicubic = upsample(lr, size)
    sr = enhancer.enhance_rgb(lr, size)
    shave = math.ceil(scale) if shave is None else shave
    return Comparison(
        scale=scale,
        hr=np.ascontiguousarray(hr),
        bicubic=bicubic,
        sr=sr,
        bicubic_scores=score(hr, bicubic, data_range=255, shave=shave),
        sr_scores=score(hr, sr, data_range=255, shave=shave),
    )
