"""Scores a model against bicubic on a picture that is taken as the truth.

:func:`compare` is for looking: it keeps the pictures and takes every score.
:func:`estimate` is for asking, before a picture is enlarged, what the model will gain on it.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from superres.arrays import RgbU8
from superres.codecs.jpeg import JpegSettings
from superres.enhancer import Enhancer
from superres.errors import BadRequest
from superres.evaluation.metrics import SSIM_WINDOW, score, shave, to_y
from superres.models.card import Scores
from superres.resample import BAND, cropped_size, degrade, scaled_size, upsample
from superres.sizing import LARGEST_SCALE

FALLBACK = "bicubic, as fallback=auto asks"
"""Note on a result for which an estimate favours bicubic."""
SMALLEST_ESTIMATED_SCALE = 1.5
"""Below it, a shrunken copy says little of the picture itself."""


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
        return _gain(self.sr_scores.psnr_y, self.bicubic_scores.psnr_y)


@dataclass(frozen=True)
class Estimate:
    """What a picture's own shrunken copy says of a model; PSNR of luma, dB."""

    bicubic_psnr_y: float
    sr_psnr_y: float

    @property
    def gain_db(self) -> float:
        """Of the model over bicubic; 0 where both are perfect."""
        return _gain(self.sr_psnr_y, self.bicubic_psnr_y)


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
    hr, lr = make_pair(hr, scale)
    return compare_pair(enhancer, hr, lr, scale)


def make_pair(hr: RgbU8, scale: float) -> tuple[RgbU8, RgbU8]:
    """The truth, for a whole scale cropped to a multiple of it, and its shrunken copy.

    Args:
        hr: the truth, uint8.
        scale: over 1, to 4.

    Raises:
        BadRequest: the scale is out of range, or the picture too small to be scored.
    """
    if not 1 < scale <= LARGEST_SCALE:
        raise BadRequest(f"scale is over 1, to {LARGEST_SCALE:g}, not {scale:g}")
    hr = _scorable(hr, scale)
    return hr, _shrunken(hr, scale)


def to_jpeg(rgb: RgbU8, quality: int) -> bytes:
    """Compress a picture as most programs do: with 4:2:0 chroma.

    Args:
        rgb: the picture.
        quality: 1 to 100.
    """
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return file.getvalue()


def check_estimable(scale: float) -> None:
    """Return if :func:`estimate` says anything at this scale.

    Raises:
        BadRequest: the scale is out of range.
    """
    if not SMALLEST_ESTIMATED_SCALE <= scale <= LARGEST_SCALE:
        raise BadRequest(
            f"a proof needs a scale of {SMALLEST_ESTIMATED_SCALE:g} to {LARGEST_SCALE:g}, "
            f"not {scale:g}"
        )


def estimate(
    enhancer: Enhancer, picture: RgbU8, scale: float, *, jpeg: JpegSettings | None = None
) -> Estimate:
    """Estimate what the model will gain on a picture that is to be enlarged by ``scale``.

    The picture stands in for the larger one that nobody has: it is shrunk by ``scale``,
    brought back by bicubic and by the model, and both are scored against it. The network
    works on 1 / scale**2 of the pixels that enlarging the picture takes.

    Args:
        enhancer: the model.
        picture: what is to be enlarged, uint8; for a whole scale it is first cropped to a
            multiple of it.
        scale: 1.5 to 4.
        jpeg: how the picture was compressed, if it was. Shrinking takes the artefacts away that
            the model will meet when it enlarges the picture; so the shrunken copy is
            compressed the same way.

    Raises:
        BadRequest: the scale is out of range, or the picture too small to be scored.
    """
    check_estimable(scale)
    hr = _scorable(picture, scale)
    lr = _shrunken(hr, scale)
    if jpeg is not None:
        lr = jpeg.apply(lr)
    size = (hr.shape[0], hr.shape[1])
    border = math.ceil(scale)
    return Estimate(
        bicubic_psnr_y=_psnr_y(hr, upsample(lr, size), border),
        sr_psnr_y=_psnr_y(hr, enhancer.enhance_rgb(lr, size), border),
    )


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


def _scorable(hr: RgbU8, scale: float) -> RgbU8:
    """The picture, for a whole scale cropped to a multiple of it, if it can be scored."""
    smallest = SSIM_WINDOW + 2 * math.ceil(scale)
    height, width = cropped_size((hr.shape[0], hr.shape[1]), scale)
    hr = hr[:height, :width]
    if min(height, width) < smallest:
        raise BadRequest(
            f"a comparison at scale {scale:g} needs at least {smallest} px a side; "
            f"the picture has {width}x{height}"
        )
    return hr


def _shrunken(hr: RgbU8, scale: float) -> RgbU8:
    return degrade(hr, scaled_size((hr.shape[0], hr.shape[1]), 1 / scale))


def _gain(sr_psnr_y: float, bicubic_psnr_y: float) -> float:
    # Infinity less infinity is no number.
    return 0.0 if sr_psnr_y == bicubic_psnr_y else sr_psnr_y - bicubic_psnr_y


def _psnr_y(reference: RgbU8, restored: RgbU8, border: int) -> float:
    """PSNR of luma, dB, as in :mod:`superres.evaluation.metrics`; one band of rows at a time."""
    reference, restored = shave(reference, border), shave(restored, border)
    squares = sum(
        float(np.sum((to_y(reference[top : top + BAND]) - to_y(restored[top : top + BAND])) ** 2))
        for top in range(0, len(reference), BAND)
    )
    error = squares / (reference.shape[0] * reference.shape[1])
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
