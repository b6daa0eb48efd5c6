"""Scores a model against bicubic on a picture that is taken as the truth.

:func:`compare` is for looking: it keeps the pictures and takes every score.
:func:`estimate` is for asking, before a picture is enlarged, what the model will gain on it.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from superres.arrays import RgbU8, to_integer
from superres.codecs.jpeg import JpegSettings, jpeg_settings
from superres.colour import bleed
from superres.enhancer import Enhancer
from superres.errors import BadRequest
from superres.evaluation.metrics import SSIM_WINDOW, score, shave, to_y
from superres.models.card import Scores
from superres.picture import Picture
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


def to_truth(picture: Picture) -> RgbU8:
    """The picture as a ground truth.

    What is wholly transparent gets the colours that the network would get for it
    (:func:`superres.colour.bleed`), and not those of the file, which nobody sees.
    """
    if picture.alpha is None:
        return to_integer(picture.rgb, np.uint8)
    return to_integer(bleed(picture.samples), np.uint8)


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


def estimate_file(enhancer: Enhancer, picture: Picture, scale: float, content: bytes) -> Estimate:
    """Estimate what the model will gain on the picture of a file: see :func:`estimate`.

    What is wholly transparent is not scored.

    Args:
        enhancer: the model.
        picture: the decoded picture.
        scale: 1.5 to 4.
        content: its file.

    Raises:
        BadRequest: as there, or nothing of the picture is visible.
    """
    visible = None if picture.alpha is None or picture.alpha.all() else picture.alpha != 0
    jpeg = jpeg_settings(content)
    return estimate(enhancer, to_truth(picture), scale, jpeg=jpeg, visible=visible)


def estimate(
    enhancer: Enhancer,
    picture: RgbU8,
    scale: float,
    *,
    jpeg: JpegSettings | None = None,
    visible: np.ndarray | None = None,
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
        visible: [h, w], whether a pixel is scored; None to score all.

    Raises:
        BadRequest: the scale is out of range, or the picture too small to be scored, or nothing of
            it is visible.
    """
    check_estimable(scale)
    hr = _scorable(picture, scale)
    border = math.ceil(scale)
    if visible is not None:
        visible = shave(visible[: hr.shape[0], : hr.shape[1]], border)
        if not visible.any():
            raise BadRequest("a comparison needs visible pixels; this picture is transparent")
    lr = _shrunken(hr, scale)
    if jpeg is not None:
        lr = jpeg.apply(lr)
    size = (hr.shape[0], hr.shape[1])
    return Estimate(
        bicubic_psnr_y=_psnr_y(hr, upsample(lr, size), border, visible),
        sr_psnr_y=_psnr_y(hr, enhancer.enhance_rgb(lr, size), border, visible),
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


def _psnr_y(reference: RgbU8, restored: RgbU8, border: int, visible: np.ndarray | None) -> float:
    """PSNR of luma, dB, as in :mod:`superres.evaluation.metrics`; one band of rows at a time.

    ``visible`` is without the border; where it is given, the other pixels do not count.
    """
    reference, restored = shave(reference, border), shave(restored, border)
    total = 0.0
    for top in range(0, len(reference), BAND):
        rows = slice(top, top + BAND)
        squares = (to_y(reference[rows]) - to_y(restored[rows])) ** 2
        total += float(np.sum(squares if visible is None else squares[visible[rows]]))
    pixels = reference.shape[0] * reference.shape[1] if visible is None else int(visible.sum())
    error = total / pixels
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
