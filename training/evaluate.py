"""Scores of a served model and of bicubic on folders of pictures, by the published protocol."""

import csv
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.table import Table

from superres.arrays import RgbU8
from superres.automatic import AutomaticEnhancer
from superres.codecs import Picture, decode, encode
from superres.enhancer import Enhancer
from superres.evaluation.metrics import mean_scores
from superres.evaluation.proof import Comparison, compare_pair
from superres.evaluation.strip import draw_strip
from superres.models.card import DatasetScores, Scores
from superres.resample import degrade
from training.dataset import (
    crop_to_multiple,
    dataset_name,
    picture_files,
    read_rgb,
)
from training.kinds import Kind

Protocol = Literal["published", "upstream"]

JPEG_QUALITY = 75
"""JPEG quality of the LR pictures in the JPEG rows: Pillow's default, with 4:2:0 chroma."""


@dataclass(frozen=True)
class PictureScores:
    """Scores of one picture."""

    file: str
    model: Scores
    bicubic: Scores

    @property
    def gain_db(self) -> float:
        """Gain in luma PSNR over bicubic, dB; 0 where both reproduce the picture exactly."""
        if self.model.psnr_y == self.bicubic.psnr_y:
            return 0.0  # infinity minus infinity is NaN
        return self.model.psnr_y - self.bicubic.psnr_y


@dataclass(frozen=True)
class Evaluation:
    """All scores of a model on one set."""

    dataset: str
    scale: int
    pictures: tuple[PictureScores, ...]

    def wins(self, figure: str) -> int:
        """Number of pictures on which the model scores higher than bicubic."""
        return sum(
            getattr(one.model, figure) > getattr(one.bicubic, figure) for one in self.pictures
        )

    def summarise(self) -> DatasetScores:
        """Means over pictures, as in the published tables."""
        return DatasetScores(
            dataset=self.dataset,
            pictures=len(self.pictures),
            scale=self.scale,
            model=mean_scores([one.model for one in self.pictures]),
            bicubic=mean_scores([one.bicubic for one in self.pictures]),
            wins_psnr_y=self.wins("psnr_y"),
        )


def evaluate(
    enhancer: Enhancer | AutomaticEnhancer,
    folder: Path,
    scale: int,
    *,
    lr_jpeg: int | None = None,
    kind: tuple[str, Kind] | None = None,
    protocol: Protocol = "published",
) -> Evaluation:
    """Score every picture of a folder.

    The folder holds HR pictures, which are cropped to a multiple of the scale and shrunk;
    or pairs named ``*_hr.*`` and ``*_lr.*``, whose LR side is used unchanged.

    Args:
        enhancer: the model, or what chooses one for the file of each LR picture: a PNG, or a JPEG
            with ``lr_jpeg``, or as ``kind`` makes it.
        folder: the folder of pictures.
        scale: the scale of the pairs.
        lr_jpeg: JPEG quality to compress the LR side with; None for no compression.
        kind: name and kind of the files that the LR pictures become, instead of ``lr_jpeg``.
        protocol: ``published`` as in :mod:`superres.evaluation.metrics`; ``upstream`` as in the
            project that this one is based on: HR pictures are not cropped (512 -> 170 -> 512), and
            nothing is shaved.

    Raises:
        FileNotFoundError: there are no pictures, or an HR picture in a folder of pairs has no LR
            picture.
        ValueError: the sizes of a pair do not match the scale.
    """
    scores = []
    keep_size = protocol == "upstream"
    made = kind[1] if kind else _kind_of(lr_jpeg)
    for name, compared in compare_pictures(enhancer, folder, scale, made, keep_size=keep_size):
        scores.append(PictureScores(name, compared.sr_scores, compared.bicubic_scores))
    suffix = "" if lr_jpeg is None else f"-jpeg{lr_jpeg}"
    if kind:
        suffix = "-" + re.sub("[^a-z0-9.]+", "-", kind[0])
    return Evaluation(dataset_name(folder) + suffix, scale, tuple(scores))


def _kind_of(lr_jpeg: int | None) -> Kind:
    return Kind("png") if lr_jpeg is None else Kind("jpeg", (lr_jpeg, lr_jpeg))


def compare_pictures(
    enhancer: Enhancer | AutomaticEnhancer,
    folder: Path,
    scale: int,
    kind: Kind,
    *,
    keep_size: bool = False,
    only: Collection[str] | None = None,
) -> Iterator[tuple[str, Comparison]]:
    """Yield the name and the comparison of each picture that :func:`evaluate` scores.

    ``only`` names the pictures that are wanted; by default all are.
    """
    pairs = read_evaluation_pairs(folder, scale, keep_size=keep_size)
    for number, (name, hr, lr) in enumerate(pairs):
        if only is not None and name not in only:
            continue
        file = kind.make(lr, number)
        picture = decode(file)
        chosen = enhancer
        if isinstance(chosen, AutomaticEnhancer):
            chosen = chosen.enhancer(chosen.choose(file, picture).card)
        shave = 0 if keep_size else None
        yield name, compare_pair(chosen, hr, picture.rgb, scale, shave=shave)


def read_evaluation_pairs(
    folder: Path, scale: int, *, keep_size: bool = False
) -> Iterator[tuple[str, RgbU8, RgbU8]]:
    """Yield the name, HR and LR picture of each pair of a folder; the LR picture is clean."""
    files = picture_files([folder])
    lr_of = {file.stem.removesuffix("_lr"): file for file in files if file.stem.endswith("_lr")}
    for file in files:
        if file in lr_of.values():
            continue
        hr = read_rgb(file)
        if not keep_size:
            hr = crop_to_multiple(hr, scale)
        lr_size = (hr.shape[0] // scale, hr.shape[1] // scale)
        if not lr_of:
            lr = degrade(hr, lr_size)
        else:
            name = file.stem.removesuffix("_hr")
            if name not in lr_of:
                raise FileNotFoundError(f"{file} has no {name}_lr beside it")
            lr = read_rgb(lr_of[name])
            if lr.shape[:2] != lr_size:
                raise ValueError(
                    f"{lr_of[name]} is {lr.shape[1]}x{lr.shape[0]} and {file.name} "
                    f"{hr.shape[1]}x{hr.shape[0]}: not a pair at scale {scale}"
                )
        yield file.name, hr, lr


def upstream_table(model: str, evaluation: Evaluation) -> Table:
    """Table in the form of the upstream project: RGB, average and range over pictures."""
    table = Table(
        title=f"{evaluation.dataset} at x{evaluation.scale}, {len(evaluation.pictures)} pictures, "
        "RGB: average (range)"
    )
    for column in ("method", "PSNR, dB", "SSIM", "MSE"):
        table.add_column(column)
    for method, attribute in (("bicubic", "bicubic"), (model, "model")):
        scores = [getattr(one, attribute) for one in evaluation.pictures]
        psnr = np.array([one.psnr_rgb for one in scores])
        figures = (
            (psnr, 2),
            (np.array([one.ssim_rgb for one in scores]), 4),
            (10 ** (-psnr / 10), 6),
        )
        table.add_row(method, *(_average_and_range(values, digits) for values, digits in figures))
    wins = (str(evaluation.wins(figure)) for figure in ("psnr_rgb", "ssim_rgb"))
    table.add_row("pictures won", *wins)
    return table


def _average_and_range(values: np.ndarray, digits: int) -> str:
    return f"{values.mean():.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})"


def write_report(
    evaluations: list[tuple[Path, int | None, Evaluation]],
    enhancer: Enhancer | AutomaticEnhancer,
    model: str,
    out: Path,
) -> None:
    """Write a CSV file, a bar chart, and three strips per set.

    The strips show the pictures with the smallest, the median and the largest gain.

    Args:
        evaluations: evaluations, each with its folder and the JPEG quality of its LR side.
        enhancer: the model that makes the strips.
        model: the name of the model.
        out: the folder to write to; it is created if it does not exist.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        figures = tuple(asdict(evaluations[0][2].pictures[0].model))
        writer.writerow(["dataset", "scale", "file", "method", *figures])
        for _, _, evaluation in evaluations:
            for one in evaluation.pictures:
                for method, scores in ((model, one.model), ("bicubic", one.bicubic)):
                    about = (evaluation.dataset, evaluation.scale, one.file, method)
                    writer.writerow([*about, *scores.as_dict().values()])
    _draw_chart([evaluation for _, _, evaluation in evaluations], model, out / "gains.png")
    for folder, lr_jpeg, evaluation in evaluations:
        ranked = sorted(evaluation.pictures, key=lambda one: one.gain_db)
        chosen = {
            ranked[0].file: "worst",
            ranked[len(ranked) // 2].file: "median",
            ranked[-1].file: "best",
        }
        kind = _kind_of(lr_jpeg)
        for name, compared in compare_pictures(
            enhancer, folder, evaluation.scale, kind, only=chosen
        ):
            strip = draw_strip(compared, model)
            file_name = f"{evaluation.dataset}-{chosen[name]}-{Path(name).stem}.png"
            (out / file_name).write_bytes(encode(Picture(strip), "png"))


def _draw_chart(evaluations: list[Evaluation], model: str, file: Path) -> None:
    # matplotlib is slow to import, and only reports need it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.2 * len(evaluations)), layout="constrained")
    for axes, evaluation in zip(
        figure.subplots(len(evaluations), squeeze=False)[:, 0], evaluations, strict=True
    ):
        gains = sorted(one.gain_db for one in evaluation.pictures)
        axes.bar(range(len(gains)), gains, color=["C0" if gain > 0 else "C3" for gain in gains])
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_title(f"{evaluation.dataset} x{evaluation.scale}", loc="left", fontsize=10)
        axes.set_ylabel("gain, dB")
        axes.set_xticks([])
    figure.suptitle(f"Luma PSNR of {model} over bicubic, picture by picture")
    figure.savefig(file, dpi=120)
