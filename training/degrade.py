"""Degradations that LR pictures get from cameras, chat applications and web pages.

Every step takes and returns uint8, because real programs exchange pictures as 8-bit files.
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
"""Filters of Pillow; :func:`resize` implements ``area``."""
REACH = 8
"""Margin around a region, px, outside which pixels have almost no effect on the degraded region."""
GRID = 16
"""Side of the blocks of a JPEG with 4:2:0 chroma, px; also the number of possible grid offsets."""
_BLUR_PAD = 8
_NARROWEST = 0.1
"""Standard deviation, px, at which the sampled Gaussian is a single 1 between zeros."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class _Step(BaseModel):
    """A degradation step. Values are drawn uniformly from its ranges (lowest, highest)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: Probability = 1.0
    """Probability that the step is applied."""

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name, value in self:
            if isinstance(value, tuple) and isinstance(value[0], int | float):
                low, high = value
                if low > high:
                    raise ValueError(f"{name} must be (lowest, highest), not {value}")
        return self


PositiveRange = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
SigmaRange = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
Quality = Annotated[int, Field(ge=1, le=100)]


class Blur(_Step):
    """A Gaussian blur, as from a lens that is out of focus or a camera that moves."""

    kind: Literal["blur"]
    sigma: SigmaRange
    """Standard deviation, px."""
    anisotropic: Probability = 0.0
    """Probability that the two axes get separate deviations and a random angle."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Blur a picture."""
        along = random.uniform(*self.sigma)
        across, angle = along, 0.0
        if random.random() < self.anisotropic:
            across, angle = random.uniform(*self.sigma), random.uniform(0, math.pi)
        return _to_u8(gaussian_blur(rgb, along, across, angle))


class Resize(_Step):
    """Resize by one filter and back by another, as applications do."""

    kind: Literal["resize"]
    factor: PositiveRange
    """Factor of the intermediate size, drawn log-uniformly."""
    shrink_filters: tuple[Filter, ...] = Field(min_length=1)
    """Filters to draw from for shrinking."""
    enlarge_filters: tuple[Literal["bilinear", "bicubic", "lanczos"], ...] = Field(min_length=1)
    """Filters to draw from for enlarging; ``area`` would produce blocks."""

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
    """Gaussian noise with the same deviation everywhere."""

    kind: Literal["noise"]
    sigma: SigmaRange
    """Standard deviation, levels of 255."""
    grey: Probability = 0.0
    """Probability that the noise is the same on all channels."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Add noise to a picture."""
        sigma = np.float32(random.uniform(*self.sigma))
        channels = 1 if random.random() < self.grey else 3
        noise = random.standard_normal((*rgb.shape[:2], channels), np.float32)
        return _to_u8(rgb + sigma * noise)


class ShotNoise(_Step):
    """Poisson noise, as from few photons: its deviation, in levels, grows with brightness."""

    kind: Literal["shot_noise"]
    photons: PositiveRange
    """Photons per pixel at white, drawn log-uniformly; fewer photons give more noise."""
    grey: Probability = 0.0
    """Probability that the noise is the same on all channels, at the level of the luma."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Add noise to a picture."""
        level = np.float32(_log_uniform(self.photons, random) / 255)
        grey = random.random() < self.grey
        mean = (rgb @ _LUMA)[..., None] if grey else rgb
        noise = random.poisson(mean * level).astype(np.float32) / level - mean
        return _to_u8(rgb + noise)


class Sharpen(_Step):
    """An unsharp mask, as phones apply it: edges overshoot on each side."""

    kind: Literal["sharpen"]
    sigma: SigmaRange
    """Standard deviation of the blurred picture that is subtracted, px."""
    amount: SigmaRange
    """Factor of the difference from the blurred picture, which is added."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Sharpen a picture."""
        sigma, amount = random.uniform(*self.sigma), np.float32(random.uniform(*self.amount))
        return _to_u8(rgb + amount * (rgb - gaussian_blur(rgb, sigma, sigma, 0.0)))


class _Compression(_Step):
    quality: tuple[Quality, Quality]
    shifted: Probability = 0.0
    """Probability that the block grid is not aligned with the picture's corner, as in a picture
    that was cropped afterwards."""

    def apply(self, rgb: RgbU8, random: np.random.Generator) -> RgbU8:
        """Encode a picture, and decode it."""
        quality = int(random.integers(*self.quality, endpoint=True))
        top, left = random.integers(GRID, size=2) if random.random() < self.shifted else (0, 0)
        framed = np.pad(rgb, ((top, 0), (left, 0), (0, 0)), mode="symmetric") if top + left else rgb
        decoded = self._through_file(np.ascontiguousarray(framed), quality, random)
        return decoded[top:, left:]

    def _through_file(self, rgb: RgbU8, quality: int, random: np.random.Generator) -> RgbU8:
        raise NotImplementedError


class Jpeg(_Compression):
    """JPEG compression."""

    kind: Literal["jpeg"]
    chroma_420: Probability = 1.0
    """Probability that chroma has half the resolution (4:2:0) instead of all of it (4:4:4)."""

    def _through_file(self, rgb: RgbU8, quality: int, random: np.random.Generator) -> RgbU8:
        subsampling = "420" if random.random() < self.chroma_420 else "444"
        data = imagecodecs.jpeg8_encode(rgb, level=quality, subsampling=subsampling)
        return imagecodecs.jpeg8_decode(data)


class Webp(_Compression):
    """Lossy WebP compression."""

    kind: Literal["webp"]

    def _through_file(self, rgb: RgbU8, quality: int, random: np.random.Generator) -> RgbU8:
        data = imagecodecs.webp_encode(rgb, level=quality, lossless=False, method=0)
        return imagecodecs.webp_decode(data)


Step = Annotated[
    Blur | Resize | Noise | ShotNoise | Sharpen | Jpeg | Webp, Field(discriminator="kind")
]


class Degradations(BaseModel):
    """Degradations of LR pictures, drawn independently for each crop. Part of a config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clean: Probability = 0.0
    """Share of crops without degradations; they are shrunk by :func:`superres.resample.degrade`."""
    shrink_filters: tuple[Filter, ...] = Field(("bicubic",), min_length=1)
    """Filters to draw from for shrinking the other crops."""
    steps: tuple[Step, ...] = Field(min_length=1)
    """Steps in the order in which they are applied; a kind may occur several times."""


def load_degradations(file: Path) -> Degradations:
    """Read the table ``[degradations]`` of a TOML file, such as a config.

    Raises:
        ValueError: there is no such table, or a value or a key is not allowed.
    """
    tables = tomllib.loads(file.read_text())
    if "degradations" not in tables:
        raise ValueError(f"{file} has no table [degradations]")
    return Degradations.model_validate(tables["degradations"])


def shrink_and_degrade(
    hr: RgbU8, size: Size, degradations: Degradations, random: np.random.Generator
) -> RgbU8:
    """Shrink a picture to ``size`` and degrade it, to get the LR side of a degraded pair."""
    lr = resize(hr, size, _one_of(degradations.shrink_filters, random))
    return degrade_lr(lr, degradations, random)


def degrade_lr(lr: RgbU8, degradations: Degradations, random: np.random.Generator) -> RgbU8:
    """Apply the steps to an LR picture, each with its probability and random values.

    Block grids begin at the top left, and blurs replicate the edge. To degrade a region as if it
    were inside a larger picture, extend it by :data:`REACH` pixels at each side, and by a random
    number below :data:`GRID` at the top and the left.
    """
    for step in degradations.steps:
        if random.random() < step.probability:
            lr = step.apply(lr, random)
    return lr


def resize(rgb: RgbU8, size: Size, chosen: Filter) -> RgbU8:
    """Resize a picture to (height, width), with antialiasing when shrinking.

    ``area`` is the mean over the area that an output pixel covers. Pillow's box filter is not
    used, because it includes or excludes whole pixels: unless the factor is an integer, this moves
    edges by up to half a pixel.
    """
    if chosen != "area":
        return np.asarray(Image.fromarray(rgb).resize(size[::-1], FILTERS[chosen]))
    rows = _area_means(rgb, size[0])
    return _to_u8(_area_means(rows.swapaxes(0, 1), size[1]).swapaxes(0, 1))


def _area_means(samples: np.ndarray, made: int) -> np.ndarray:
    """Divide the first axis into ``made`` equal parts, and compute the mean of each."""
    length = samples.shape[0]
    sums = np.cumsum(np.concatenate([samples[:1] * 0.0, samples]), axis=0)
    edges = np.arange(made + 1) * (length / made)
    whole = np.minimum(edges.astype(int), length - 1)
    up_to_edges = sums[whole] + (edges - whole)[:, None, None] * samples[whole]
    return np.diff(up_to_edges, axis=0) * (made / length)


def gaussian_blur(rgb: RgbU8, along: float, across: float, angle: float) -> np.ndarray:
    """Blur by a Gaussian, with replicated edges.

    Args:
        rgb: the picture.
        along: standard deviation along the first axis of the Gaussian, px.
        across: standard deviation along the second axis, px.
        angle: angle of the first axis from the horizontal, radians.

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
    # The kernel is centred at the origin, with wrap-around, as the FFT requires.
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
