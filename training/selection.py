"""Scores of the models that ``model=auto`` chooses between, on picture files of many kinds.

A file is what a caller would send: the LR side of a pair, degraded and encoded. Only photos512/val
is for fitting; the benchmarks and photos512/test are only for scores.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from superres import load_model
from superres.arrays import RgbU8
from superres.codecs import decode
from superres.engines.base import PrecisionChoice
from superres.enhancer import Enhancer
from superres.evaluation.metrics import psnr, to_y
from superres.models.evidence import Evidence, examine
from superres.models.registry import all_cards
from superres.models.selection import Candidates, Rules, candidates, parse_rules, select
from training.dataset import dataset_name
from training.evaluate import read_evaluation_pairs
from training.kinds import FITTED_KINDS

FOR_SCORES = ("Set5", "Set14", "BSD100", "photos512-test")
"""Sets that nothing is fitted on."""


def picture_files(folder: Path, scale: int, kind: str) -> Iterator[tuple[str, RgbU8, bytes]]:
    """Yield the name, the HR picture and the LR file of each picture of a folder.

    Args:
        folder: HR pictures, or pairs, as :func:`training.evaluate.evaluate` takes them.
        scale: the scale of the pairs.
        kind: a name of :data:`training.kinds.FITTED_KINDS`.
    """
    pairs = read_evaluation_pairs(folder, scale)
    for number, (name, hr, lr) in enumerate(pairs):
        yield name, hr, FITTED_KINDS[kind].make(lr, number)


LoadModel = Callable[[], Enhancer]


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

    def psnr(self, label: str, load: LoadModel, hr: RgbU8, file: bytes, scale: int) -> float:
        """PSNR of luma, dB; computed if it is not stored.

        Args:
            label: name and hash of the model, which a new model changes.
            load: loads the model.
            hr: the ground truth.
            file: the encoded LR picture.
            scale: the scale of the pair.
        """
        scores = self._scores.setdefault(label, {})
        key = hashlib.sha256(file + hr.tobytes()).hexdigest()[:16]
        if key not in scores:
            sr = load().enhance_rgb(decode(file).rgb, (hr.shape[0], hr.shape[1]))
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
    weight: float = 1.0
    """As that of its kind."""

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
    loaders: dict[str, LoadModel],
    stored: StoredScores,
) -> Iterator[Example]:
    """Yield an example of each picture of a folder and each kind; the scores are saved by kind.

    Args:
        folder: as :func:`picture_files`.
        scale: likewise.
        kinds: names of :data:`training.kinds.FITTED_KINDS`.
        loaders: the candidates, by the label of their model: name and hash.
        stored: scores of earlier calls.
    """
    for kind in kinds:
        for name, hr, file in picture_files(folder, scale, kind):
            psnr = {
                label.partition("@")[0]: stored.psnr(label, load, hr, file, scale)
                for label, load in loaders.items()
            }
            evidence = examine(file, decode(file))
            yield Example(name, kind, evidence, psnr, FITTED_KINDS[kind].weight)
        stored.save()


GRIDS = {
    "light": np.arange(0, 12, 0.1),
    "light_bits": np.arange(0, 4, 0.05),
    "blockiness": np.geomspace(0.005, 0.5, 60),
    "noise": np.arange(0.1, 4, 0.05),
    "colour_noise": np.arange(0.1, 3, 0.025),
    "blurred": np.arange(0, 2, 0.05),
    "sharpened": np.arange(0, 4.05, 0.05),
    "noise_compressed": np.arange(0.1, 4, 0.05),
    "blurred_compressed": np.arange(0, 2, 0.05),
    "sharpened_compressed": np.arange(0, 4.05, 0.05),
    "detail": np.arange(0, 15, 0.25),
}
"""The values of each threshold that :func:`fit` tries."""
ABOUT_AS_GOOD = 0.01
"""Share by which the cost of a threshold may be higher than that of the best: a few files of a
thousand, which another set of pictures would not have."""


def fit(data: Sequence[Example], candidates: Candidates) -> Rules:
    """Find thresholds of about the least mean regret, weighted by the kinds of the files.

    From several starts, one threshold after another is set to the best value of its grid, until
    nothing changes; the best end counts. Of the values that are about as good, the one in the
    middle is set, since it is the farthest from what is worse.

    A decibel under bicubic counts three times: once as regret, and twice because an answer must
    not be worse than bicubic.
    """

    def cost(rules: Rules) -> float:
        chosen = [select(one.evidence, candidates, rules).card.name for one in data]
        return sum(
            one.weight * (one.regret(name) + 2 * max(0.0, -one.gain(name)))
            for one, name in zip(data, chosen, strict=True)
        )

    def descend(rules: Rules) -> Rules:
        for _ in range(5):
            before = rules
            for name, grid in GRIDS.items():
                tried = [rules.model_copy(update={name: round(float(value), 4)}) for value in grid]
                costs = np.array([cost(one) for one in tried])
                best = np.flatnonzero(costs <= costs.min() * (1 + ABOUT_AS_GOOD) + 1e-9)
                rules = tried[best[len(best) // 2]]
            if rules == before:
                break
        return rules

    starts = (
        Rules(
            light=1,
            light_bits=0.5,
            blockiness=0.5,
            noise=2,
            colour_noise=0.7,
            blurred=0,
            sharpened=4,
            noise_compressed=2,
            blurred_compressed=0,
            sharpened_compressed=sharpness,
            detail=detail,
        )
        for sharpness in (2, 4)
        for detail in (0, 5)
    )
    return min(map(descend, starts), key=cost)


def find_candidates(
    models: Path, scale: int, precision: PrecisionChoice = "auto"
) -> tuple[Candidates, dict[str, LoadModel]]:
    """Find the models that ``auto`` chooses between at a scale.

    Returns:
        The candidates; and by the label of each model what loads it, once, when it is called.

    Raises:
        ValueError: a family has no model at the scale, so that there is nothing to choose.
    """
    between = candidates(all_cards(models), scale)
    if between.photo is None or len(between.cards) < 3:
        names = ", ".join(card.name for card in between.cards)
        raise ValueError(f"x{scale}: there must be a clean and a photo model; there are {names}")
    return between, {
        f"{card.name}@{card.short_hash}": cache(
            partial(load_model, card.name, scale=scale, models=models, precision=precision)
        )
        for card in between.cards
    }


def fit_scale(folder: Path, scale: int, models: Path, stored: StoredScores) -> tuple[Rules, str]:
    """Fit the thresholds of a scale.

    Args:
        folder: HR pictures, none of which is for scores.
        scale: the scale.
        models: the models folder.
        stored: scores of earlier calls.

    Returns:
        The thresholds, and a note of what they were fitted on.

    Raises:
        ValueError: the pictures are for scores, or a model is missing.
    """
    dataset = dataset_name(folder)
    if dataset in FOR_SCORES:
        raise ValueError(f"{dataset} is only for scores: fit on photos512/val")
    between, loaders = find_candidates(models, scale)
    data = list(examples(folder, scale, [*FITTED_KINDS], loaders, stored))
    rules = fit(data, between)
    chosen = [select(one.evidence, between, rules).card.name for one in data]
    regret = np.mean([one.regret(name) for one, name in zip(data, chosen, strict=True)])
    losses = sum(one.gain(name) < 0 for one, name in zip(data, chosen, strict=True))
    note = (
        f"Fitted on {len(data)} files of {dataset}, for {', '.join([*loaders][:-1])}:\n"
        f"mean regret {regret:.3f} dB; {losses} files under bicubic."
    )
    return rules, note


def write_rules(file: Path, fitted: dict[int, tuple[Rules, str]]) -> None:
    """Write the thresholds of each scale, and what they were fitted on.

    Scales that were not fitted stay as they are in the file.
    """
    tables = {scale: (rules, "") for scale, rules in parse_rules(file.read_text()).items()} | fitted
    notes = _notes(file) | {scale: note for scale, (_, note) in fitted.items()}
    lines = ["# Written by superres-train fit-selection."]
    for scale, (rules, _) in sorted(tables.items()):
        lines += ["", *(f"# {line}" for line in notes.get(scale, "").splitlines())]
        lines += [f"[scale.{scale}]"]
        lines += [f"{name} = {value:g}" for name, value in rules.model_dump().items()]
    file.write_text("\n".join(lines) + "\n")


def _notes(file: Path) -> dict[int, str]:
    """The comment above the table of each scale."""
    found = re.findall(r"((?:^# .*\n)+)^\[scale\.(\d)\]", file.read_text(), re.MULTILINE)
    return {int(scale): re.sub("^# ", "", note, flags=re.MULTILINE) for note, scale in found}
