"""Scores a served model beside bicubic on folders of pictures, by the published protocol."""

import re
from dataclasses import dataclass
from pathlib import Path

from superres.card import DatasetScores
from superres.enhancer import Enhancer
from superres.metrics import Scores, mean_scores
from superres.proof import Comparison, compare, compare_pair
from training.dataset import crop_to_multiple, picture_files, read_rgb


@dataclass(frozen=True)
class PictureScores:
    """One picture's scores."""

    file: str
    model: Scores
    bicubic: Scores


def evaluate(enhancer: Enhancer, folder: Path, scale: int) -> list[PictureScores]:
    """Score every picture of a folder.

    The folder holds HR pictures, which are cropped to a multiple of the scale and shrunk
    here; or pairs named ``*_hr.*`` and ``*_lr.*``, whose LR side is used as it is.

    Raises:
        FileNotFoundError: no pictures, or an HR picture of a folder of pairs without its LR.
        ValueError: a pair's sizes do not differ by the scale.
    """
    files = picture_files([folder])
    lr_of = {file.stem.removesuffix("_lr"): file for file in files if file.stem.endswith("_lr")}
    scores = []
    for file in files:
        if file in lr_of.values():
            continue
        hr = read_rgb(file)
        if lr_of:
            name = file.stem.removesuffix("_hr")
            if name not in lr_of:
                raise FileNotFoundError(f"{file} has no {name}_lr beside it")
            lr = read_rgb(lr_of[name])
            hr = crop_to_multiple(hr, scale)
            if (lr.shape[0] * scale, lr.shape[1] * scale) != hr.shape[:2]:
                raise ValueError(
                    f"{lr_of[name]} is {lr.shape[1]}x{lr.shape[0]} and {file.name} "
                    f"{hr.shape[1]}x{hr.shape[0]}: not a pair at scale {scale}"
                )
            compared: Comparison = compare_pair(enhancer, hr, lr, scale)
        else:
            compared = compare(enhancer, hr, scale)
        scores.append(PictureScores(file.name, compared.sr_scores, compared.bicubic_scores))
    return scores


def summarise(dataset: str, scale: int, scores: list[PictureScores]) -> DatasetScores:
    """Mean over pictures, as the published tables take it."""
    return DatasetScores(
        dataset=dataset,
        pictures=len(scores),
        scale=scale,
        model=mean_scores([one.model for one in scores]),
        bicubic=mean_scores([one.bicubic for one in scores]),
        wins_psnr_y=sum(one.model.psnr_y > one.bicubic.psnr_y for one in scores),
    )


def dataset_name(folder: Path) -> str:
    """Name of a set by its folder: ``benchmarks/Set5/x3`` is Set5.

    >>> dataset_name(Path("benchmarks/Set5/x3")), dataset_name(Path("photos512/test"))
    ('Set5', 'photos512-test')
    """
    folder = folder.resolve()
    if re.fullmatch(r"x\d", folder.name):
        return folder.parent.name
    if folder.name in ("train", "val", "test"):
        return f"{folder.parent.name}-{folder.name}"
    return folder.name
