"""Scores of the models that ``model=auto`` chooses between, on picture files of many kinds.

A file is what a caller would send: the LR side of a pair, degraded and encoded. Only photos512/val
is for fitting; the benchmarks and photos512/test are only for scores.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from superres.arrays import RgbU8
from superres.codecs import Picture, decode, encode
from superres.enhancer import Enhancer
from superres.evaluation.metrics import psnr, to_y
from superres.models.evidence import Evidence, examine
from superres.models.selection import Candidates, Rules, select
from training.degrade import Blur, Jpeg, Noise, Sharpen, Step
from training.evaluate import read_evaluation_pairs

SEED = 21
"""Seed of the degradations."""


@dataclass(frozen=True)
class Kind:
    """A kind of picture file: what happened to the picture, and how it was encoded last."""

    container: Literal["png", "jpeg", "webp"]
    quality: tuple[int, int] = (100, 100)
    """Range of the quality of the last encoding; unused for PNG."""
    steps: tuple[Step, ...] = ()

    def make(self, lr: RgbU8, random: np.random.Generator) -> bytes:
        """Degrade a small picture and encode it."""
        for step in self.steps:
            lr = step.apply(lr, random)
        quality = int(random.integers(*self.quality, endpoint=True))
        if self.container == "png":
            return encode(Picture(lr), "png")
        if self.container == "webp":
            return encode(Picture(lr), "webp", quality)
        file = io.BytesIO()
        Image.fromarray(lr).save(file, "JPEG", quality=quality)  # 4:2:0, as most writers
        return file.getvalue()


_BLUR = Blur(kind="blur", sigma=(0.8, 0.8))
_SHARPEN = Sharpen(kind="sharpen", sigma=(0.8, 0.8), amount=(0.8, 0.8))

KINDS: dict[str, Kind] = {
    "clean": Kind("png"),
    "jpeg 90": Kind("jpeg", (90, 90)),
    "jpeg 75": Kind("jpeg", (75, 75)),
    "jpeg 50": Kind("jpeg", (50, 50)),
    "jpeg 30": Kind("jpeg", (30, 30)),
    "blur 0.8, jpeg 60": Kind("jpeg", (60, 60), (_BLUR,)),
    "noise 5": Kind("png", steps=(Noise(kind="noise", sigma=(5, 5)),)),
    "chat: sharpen, jpeg 60 to 75 twice": Kind(
        "jpeg", (60, 75), (_SHARPEN, Jpeg(kind="jpeg", quality=(60, 75)))
    ),
}
"""The kinds of the benchmark's table, by name."""

FITTED_KINDS: dict[str, Kind] = KINDS | {
    "jpeg 95": Kind("jpeg", (95, 95)),
    "jpeg 83": Kind("jpeg", (83, 83)),
    "jpeg 60": Kind("jpeg", (60, 60)),
    "webp 60": Kind("webp", (60, 60)),
    "noise 2": Kind("png", steps=(Noise(kind="noise", sigma=(2, 2)),)),
    "blur 0.8": Kind("png", steps=(_BLUR,)),
    "sharpen, jpeg 92": Kind("jpeg", (92, 92), (_SHARPEN,)),
    "cropped jpeg 50, saved as png": Kind(
        "png", steps=(Jpeg(kind="jpeg", quality=(50, 50), shifted=1.0),)
    ),
    "jpeg 75, saved as png": Kind("png", steps=(Jpeg(kind="jpeg", quality=(75, 75)),)),
}
"""The kinds that the thresholds are fitted on."""


def picture_files(folder: Path, scale: int, kind: str) -> Iterator[tuple[str, RgbU8, bytes]]:
    """Yield the name, the HR picture and the LR file of each picture of a folder.

    Args:
        folder: HR pictures, or pairs, as :func:`training.evaluate.evaluate` takes them.
        scale: the scale of the pairs.
        kind: a name of :data:`FITTED_KINDS`.
    """
    pairs = read_evaluation_pairs(folder, scale, lr_jpeg=None)
    for number, (name, hr, lr) in enumerate(pairs):
        yield name, hr, FITTED_KINDS[kind].make(lr, np.random.default_rng([SEED, number]))


class StoredScores:
    """PSNR of luma of each model on each file, kept in a JSON file, since models are slow.

    Args:
        file: the JSON file; it is made by :meth:`save`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._scores: dict[str, dict[str, float]] = (
            json.loads(file.read_text()) if file.exists() else {}
        )

    def psnr(self, label: str, enhancer: Enhancer, hr: RgbU8, file: bytes, scale: int) -> float:
        """PSNR of luma, dB; computed if it is not stored.

        Args:
            label: name and hash of the model, which a new model changes.
            enhancer: the model.
            hr: the ground truth.
            file: the encoded LR picture.
            scale: the scale of the pair.
        """
        scores = self._scores.setdefault(label, {})
        key = hashlib.sha256(file + hr.tobytes()).hexdigest()[:16]
        if key not in scores:
            sr = enhancer.enhance_rgb(decode(file).rgb, (hr.shape[0], hr.shape[1]))
            scores[key] = round(psnr(to_y(hr), to_y(sr), data_range=255, shave=scale), 4)
        return scores[key]

    def save(self) -> None:
        """Write the file."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._scores))


@dataclass(frozen=True)
class Example:
    """A file, what it shows, and what each candidate scores on it."""

    name: str
    kind: str
    evidence: Evidence
    psnr: dict[str, float]
    """PSNR of luma, dB, by model name."""

    def regret(self, chosen: str) -> float:
        """How much less the chosen model scores than the best one, dB."""
        return max(self.psnr.values()) - self.psnr[chosen]

    def gain(self, chosen: str) -> float:
        """How much more the chosen model scores than bicubic, dB."""
        return self.psnr[chosen] - self.psnr["bicubic"]


def examples(
    folder: Path,
    scale: int,
    kinds: Sequence[str],
    enhancers: dict[str, Enhancer],
    stored: StoredScores,
) -> Iterator[Example]:
    """Yield an example of each picture of a folder and each kind; the scores are saved by kind.

    Args:
        folder: as :func:`picture_files`.
        scale: likewise.
        kinds: names of :data:`FITTED_KINDS`.
        enhancers: the candidates, by the label of their model: name and hash.
        stored: scores of earlier calls.
    """
    for kind in kinds:
        for name, hr, file in picture_files(folder, scale, kind):
            psnr = {
                label.partition("@")[0]: stored.psnr(label, enhancer, hr, file, scale)
                for label, enhancer in enhancers.items()
            }
            yield Example(name, kind, examine(file, decode(file)), psnr)
        stored.save()


GRIDS = {
    "jpeg_quality": np.arange(50.5, 100),
    "blockiness": np.geomspace(0.02, 2, 60),
    "noise": np.arange(0.1, 2, 0.025),
    "blurred": np.arange(0, 2, 0.05),
    "sharpened": np.arange(1.5, 4.05, 0.05),
    "detail": np.arange(0, 15, 0.25),
}
"""The values of each threshold that :func:`fit` tries."""


def fit(data: Sequence[Example], candidates: Candidates) -> Rules:
    """Find the thresholds with the least mean regret.

    From several starts, one threshold after another is set to the best value of its grid, until
    nothing changes; the best end counts.

    A decibel under bicubic counts three times: once as regret, and twice because an answer must
    not be worse than bicubic.
    """

    def cost(rules: Rules) -> float:
        chosen = [select(one.evidence, candidates, rules).card.name for one in data]
        return sum(
            one.regret(name) + 2 * max(0.0, -one.gain(name))
            for one, name in zip(data, chosen, strict=True)
        )

    def descend(rules: Rules) -> Rules:
        for _ in range(5):
            before = rules
            for name, grid in GRIDS.items():
                tried = [rules.model_copy(update={name: round(float(value), 4)}) for value in grid]
                costs = np.array([cost(one) for one in tried])
                # The middle of what is equally good is the farthest from what is worse.
                best = np.flatnonzero(costs <= costs.min() + 1e-9)
                rules = tried[best[len(best) // 2]]
            if rules == before:
                break
        return rules

    starts = (
        Rules(jpeg_quality=quality, blockiness=2, noise=0.7, blurred=0, sharpened=4, detail=5)
        for quality in (80, 87, 94)
    )
    return min(map(descend, starts), key=cost)
