"""Kinds of picture files: what happened to a picture, and how it was encoded last."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from superres.arrays import RgbU8
from superres.codecs import Picture, encode
from superres.evaluation.proof import to_jpeg
from training.degrade import Blur, Jpeg, Noise, Sharpen, Step

SEED = 21
"""Seed of the degradations."""


@dataclass(frozen=True)
class Kind:
    """A kind of picture file: what happened to the picture, and how it was encoded last."""

    container: Literal["png", "jpeg", "webp", "avif", "jxl"]
    quality: tuple[int, int] = (100, 100)
    """Range of the quality of the last encoding; unused for PNG."""
    steps: tuple[Step, ...] = ()
    weight: float = 1.0
    """What a file counts in the fit of the thresholds."""

    def make(self, lr: RgbU8, number: int) -> bytes:
        """Degrade a small picture, the one of that number in its set, and encode it."""
        random = np.random.default_rng([SEED, number])
        for step in self.steps:
            lr = step.apply(lr, random)
        quality = int(random.integers(*self.quality, endpoint=True))
        if self.container == "png":
            return encode(Picture(lr), "png")
        if self.container == "jpeg":
            return to_jpeg(lr, quality)
        return encode(Picture(lr), self.container, quality)


_BLUR = Blur(kind="blur", sigma=(0.8, 0.8))
SHARPEN = Sharpen(kind="sharpen", sigma=(0.8, 0.8), amount=(0.8, 0.8))
"""How the sharpened kinds are sharpened."""
SHARPENED_WEIGHT = 0.25
"""Their weight. With more, ``auto`` takes too many other pictures for sharpened ones, which the
model for these harms: ``benchmarks/sharpened_weight.py`` shows how much."""

KINDS: dict[str, Kind] = {
    "clean": Kind("png"),
    "jpeg 90": Kind("jpeg", (90, 90)),
    "jpeg 75": Kind("jpeg", (75, 75)),
    "jpeg 50": Kind("jpeg", (50, 50)),
    "jpeg 30": Kind("jpeg", (30, 30)),
    "blur 0.8, jpeg 60": Kind("jpeg", (60, 60), (_BLUR,)),
    "noise 5": Kind("png", steps=(Noise(kind="noise", sigma=(5, 5)),)),
    "chat: sharpen, jpeg 60 to 75 twice": Kind(
        "jpeg", (60, 75), (SHARPEN, Jpeg(kind="jpeg", quality=(60, 75))), weight=SHARPENED_WEIGHT
    ),
}
"""The kinds of the benchmark's table, by name."""

FITTED_KINDS: dict[str, Kind] = KINDS | {
    "jpeg 95": Kind("jpeg", (95, 95)),
    "jpeg 83": Kind("jpeg", (83, 83)),
    "jpeg 60": Kind("jpeg", (60, 60)),
    "webp 50 to 95": Kind("webp", (50, 95)),
    "avif 50 to 95": Kind("avif", (50, 95)),
    "jxl 50 to 95": Kind("jxl", (50, 95)),
    "noise 5, jpeg 75 to 95": Kind("jpeg", (75, 95), (Noise(kind="noise", sigma=(5, 5)),)),
    "grey noise 5": Kind("png", steps=(Noise(kind="noise", sigma=(5, 5), grey=1.0),)),
    "noise 2": Kind("png", steps=(Noise(kind="noise", sigma=(2, 2)),)),
    "blur 0.8": Kind("png", steps=(_BLUR,)),
    "sharpen, jpeg 92": Kind("jpeg", (92, 92), (SHARPEN,), weight=SHARPENED_WEIGHT),
    "cropped jpeg 50, saved as png": Kind(
        "png", steps=(Jpeg(kind="jpeg", quality=(50, 50), shifted=1.0),)
    ),
    "jpeg 75, saved as png": Kind("png", steps=(Jpeg(kind="jpeg", quality=(75, 75)),)),
}
"""The kinds that the thresholds are fitted on."""
JPEGS = tuple(
    name for name, kind in FITTED_KINDS.items() if kind.container == "jpeg" and not kind.steps
)
"""Those of them that were only compressed, as JPEG."""
SHARPENED_JPEGS = tuple(name for name, kind in FITTED_KINDS.items() if SHARPEN in kind.steps)
"""Those that were sharpened before."""
