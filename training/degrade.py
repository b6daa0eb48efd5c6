"""What a small picture goes through on its way to us: a phone, a chat, a web page.

Every step takes and returns uint8, as the programs between which a picture travels do.
"""

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import imagecodecs
import numpy as np
import scipy.fft
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from superres.arrays import RgbU8, Size, to_integer

Probability = Annotated[float, Field(ge=0, le=1)]
Filter = Literal["area", "bilinear", "bicubic", "lanczos"]
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's; see :func:`resize` for ``area``."""
REACH = 8
"""Pixels around a part of a picture that decide nearly all of what becomes of it."""
GRID = 16
"""Side of the blocks of a JPEG with 4:2:0 chroma, px: their grid can begin in as many places."""
_BLUR_PAD = 8
_NARROWEST = 0.1
"""Standard deviation, px, at which a Gaussian's samples are 1 and zeros."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class _Step(BaseModel):
    """A step; its ranges, lowest and highest, are drawn from uniformly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Probability = 1.0
    """How often a picture goes through it."""

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name, value in self:
            if isinstance(value, tuple) and isinstance(value[0], int | float):
                low, high = value
                if low > high:
                    raise ValueError(f"{name} goes from the lowest to the highest, not {value}")
        return self


PositiveRange = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
SigmaRange = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
Quality = Annotated[int, Field(ge=1, le=100)]


class Blur(_Step):
    """A Gaussian blur, as of a lens out of focus or a moved camera."""

    kind: Literal["blur"]
    sigma: SigmaRange
    """Standard deviation, px."""
    anisotropic: Probability = 0.0
    """How often the deviations along two axes are drawn each, and the axes' angle too."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Blur a picture."""
        along = random.uniform(*self.sigma)
        across, angle = along, 0.0
        if random.random() < self.anisotropic:
            across, angle = random.uniform(*self.sigma), random.uniform(0, math.pi)
        return _to_u8(gaussian_blur(rgb, along, across, angle))


class Resize(_Step):
    """Resize by one filter and back by another, as apps do."""

    kind: Literal["resize"]
    factor: PositiveRange
    """Of the sides on the way, drawn evenly on a scale of logarithms."""
    shrink_filters: tuple[Filter, ...] = Field(min_length=1)
    """One of these shrinks."""
    enlarge_filters: tuple[Literal["bilinear", "bicubic", "lanczos"], ...] = Field(min_length=1)
    """One of these enlarges; ``area`` would make blocks."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Resize a picture and back."""
        height, width = rgb.shape[:2]
        factor = _log_uniform(self.factor, random)
        between = (max(1, round(height * factor)), max(1, round(width * factor)))
        shrink = _one_of(self.shrink_filters, random)
        enlarge = _one_of(self.enlarge_filters, random)
        there, back = (shrink, enlarge) if factor < 1 else (enlarge, shrink)
        return resize(resize(rgb, between, there), (height, width), back)


class Noise(_Step):
    """Gaussian noise, the same everywhere."""

    kind: Literal["noise"]
    sigma: SigmaRange
    """Standard deviation, levels of 255."""
    grey: Probability = 0.0
    """How often the noise is the same on all channels."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Add noise to a picture."""
        sigma = np.float32(random.uniform(*self.sigma))
        channels = 1 if random.random() < self.grey else 3
        noise = random.standard_normal((*rgb.shape[:2], channels), np.float32)
        return _to_u8(rgb + sigma * noise)


class ShotNoise(_Step):
    """Poisson noise, as of few photons: bright parts have more of it, in levels."""

    kind: Literal["shot_noise"]
    photons: PositiveRange
    """At white, drawn evenly on a scale of logarithms; the fewer, the noisier."""
    grey: Probability = 0.0
    """How often the noise is the same on all channels, as much as the luma has."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Count photons in a picture."""
        level = np.float32(_log_uniform(self.photons, random) / 255)
        grey = random.random() < self.grey
        mean = (rgb @ _LUMA)[..., None] if grey else rgb
        noise = random.poisson(mean * level).astype(np.float32) / level - mean
        return _to_u8(rgb + noise)


class Sharpen(_Step):
    """An unsharp mask, as phones apply it: edges get a seam on each side."""

    kind: Literal["sharpen"]
    sigma: SigmaRange
    """Standard deviation of the blur that is taken away, px."""
    amount: SigmaRange
    """Of the difference to the blurred picture that is added."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Sharpen a picture."""
        sigma, amount = random.uniform(*self.sigma), np.float32(random.uniform(*self.amount))
        return _to_u8(rgb + amount * (rgb - gaussian_blur(rgb, sigma, sigma, 0.0)))


class _Compression(_Step):
    quality: tuple[Quality, Quality]
    shifted: Probability = 0.0
    """How often the grid of blocks begins elsewhere than at the picture's corner, as where a
    picture was cropped afterwards."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Put a picture through a file."""
        quality = int(random.integers(*self.quality, endpoint=True))
        top, left = random.integers(GRID, size=2) if random.random() < self.shifted else (0, 0)
        framed = np.pad(rgb, ((top, 0), (left, 0), (0, 0)), mode="symmetric") if top + left else rgb
        decoded = self._through_file(np.ascontiguousarray(framed), quality, random)
        return decoded[top:, left:]

    def _through_file(self, rgb: RgbU8, quality: int, random: np.random.Generator) -> RgbU8:
        raise NotImplementedError


class Jpeg(_Compression):
    """A JPEG file."""

    kind: Literal["jpeg"]
    chroma_420: Probability = 1.0
    """How often chroma has half the resolution (4:2:0); else it has all (4:4:4)."""

    def _through_file(self, rgb: RgbU8, quality: int, random: np.random.Generator) -> RgbU8:
        subsampling = "420" if random.random() < self.chroma_420 else "444"
        data = imagecodecs.jpeg8_encode(rgb, level=quality, subsampling=subsampling)
        return imagecodecs.jpeg8_decode(data)


class Webp(_Compression):
    """A lossy WebP file."""

    kind: Literal["webp"]

    def _through_file(self, rgb: RgbU8, quality: int, random: np.random.Generator) -> RgbU8:
        data = imagecodecs.webp_encode(rgb, level=quality, lossless=False, method=0)
        return imagecodecs.webp_decode(data)


Step = Annotated[
    Blur | Resize | Noise | ShotNoise | Sharpen | Jpeg | Webp, Field(discriminator="kind")
]


class Degradations(BaseModel):
    """What small pictures go through, drawn anew for each crop. A part of a config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clean: Probability = 0.0
    """Share of the crops that go through nothing: they are shrunk by THE bicubic."""
    shrink_filters: tuple[Filter, ...] = Field(("bicubic",), min_length=1)
    """Another crop is shrunk by one of these."""
    steps: tuple[Step, ...] = Field(min_length=1)
    """In this order; a kind may come again."""


def load_degradations(file: Path) -> Degradations:
    """Read the table ``degradations`` of a TOML file, which may be a config.

    Raises:
        ValueError: no such table, or a value or a key that is not allowed.
    """
    tables = tomllib.loads(file.read_text())
    if "degradations" not in tables:
        raise ValueError(f"{file} has no table [degradations]")
    return Degradations.model_validate(tables["degradations"])


def shrink_and_degrade(
    hr: RgbU8, size: Size, degradations: Degradations, random: np.random.Generator
) -> RgbU8:
    """The LR side of a pair that is not clean: a picture shrunk to ``size`` and degraded."""
    lr = resize(hr, size, _one_of(degradations.shrink_filters, random))
    return degrade_lr(lr, degradations, random)


def degrade_lr(lr: RgbU8, degradations: Degradations, random: np.random.Generator) -> RgbU8:
    """Put a small picture through the steps, each as often and as much as is drawn.

    Grids of blocks begin at the picture's top left, and blurs see its edge repeated, so that a
    part of a picture needs :data:`REACH` more pixels a side, and at random up to :data:`GRID`
    more at the top and left.
    """
    for step in degradations.steps:
        if random.random() < step.probability:
            lr = step.apply(lr, random)
    return lr


def resize(rgb: RgbU8, size: Size, chosen: Filter) -> RgbU8:
    """Resize a picture to (height, width), antialiased when shrinking.

    ``area`` is the mean over the area that a pixel covers. (Pillow's box takes or leaves whole
    pixels, which moves edges by up to half a pixel unless the factor is a whole number.)
    """
    if chosen != "area":
        return np.asarray(Image.fromarray(rgb).resize(size[::-1], FILTERS[chosen]))
    rows = _area_means(rgb, size[0])
    return _to_u8(_area_means(rows.swapaxes(0, 1), size[1]).swapaxes(0, 1))


def _area_means(samples: np.ndarray, made: int) -> np.ndarray:
    """Divide the first axis into ``made`` equal parts, and take the mean over each."""
    length = samples.shape[0]
    sums = np.cumsum(np.concatenate([samples[:1] * 0.0, samples]), axis=0)
    edges = np.arange(made + 1) * (length / made)
    whole = np.minimum(edges.astype(int), length - 1)
    up_to_edges = sums[whole] + (edges - whole)[:, None, None] * samples[whole]
    return np.diff(up_to_edges, axis=0) * (made / length)


def gaussian_blur(rgb: RgbU8, along: float, across: float, angle: float) -> np.ndarray:
    """Blur by a Gaussian; beyond the picture's edges, these repeat.

    Args:
        rgb: the picture.
        along: standard deviation along the first axis of the Gaussian, px.
        across: likewise, along the second axis.
        angle: of the first axis, from the horizontal, radians.

    Returns:
        [h, w, 3], float32, levels of 255.
    """
    height, width = rgb.shape[:2]
    sides = [scipy.fft.next_fast_len(side + 2 * _BLUR_PAD, real=True) for side in (height, width)]
    pads = [
        (_BLUR_PAD, made - side - _BLUR_PAD)
        for made, side in zip(sides, (height, width), strict=True)
    ]
    padded = np.pad(rgb, (*pads, (0, 0)), mode="edge").astype(np.float32)
    # The kernel lies around the origin of a picture that goes on at its other side.
    y, x = (scipy.fft.fftfreq(side, 1 / side).astype(np.float32) for side in sides)
    x, y = np.meshgrid(x, y)
    first = (x * math.cos(angle) + y * math.sin(angle)) / max(along, _NARROWEST)
    second = (y * math.cos(angle) - x * math.sin(angle)) / max(across, _NARROWEST)
    kernel = np.exp(-(first**2 + second**2) / 2)
    transfer = scipy.fft.rfft2(kernel / kernel.sum())[..., None]
    spectrum = scipy.fft.rfft2(padded, axes=(0, 1)) * transfer
    blurred = scipy.fft.irfft2(spectrum, s=sides, axes=(0, 1))
    return blurred[_BLUR_PAD:, _BLUR_PAD:][:height, :width]


def _to_u8(levels: np.ndarray) -> RgbU8:
    return to_integer(levels.astype(np.float32) / np.float32(255), np.uint8)


def _one_of(choices: Sequence[Filter], random: np.random.Generator) -> Filter:
    return choices[int(random.integers(len(choices)))]


def _log_uniform(bounds: tuple[float, float], random: np.random.Generator) -> float:
    return math.exp(random.uniform(math.log(bounds[0]), math.log(bounds[1])))
