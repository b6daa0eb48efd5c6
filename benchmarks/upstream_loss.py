"""What each term of the upstream project's loss asks of a picture.

    python benchmarks/upstream_loss.py --pictures photos512/val --test photos512/test \
      --run runs/upstream-no-vgg19 --vgg19-weights vgg19_block1-3_float32.npz \
      --plot docs/upstream-loss.png

For bicubic, for srcnn-x3 and for the upstream recipe's own run: the terms, the slope of the
sigmoid at each, and the length of each term's gradient at the picture, as the loss weighs it.
Then what zeros beyond the border cost the two networks, and the upstream project's own table
for the run, whose network sees zeros there as it did in training.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tensorflow as tf
import typer
from matplotlib.figure import Figure
from rich.console import Console

from superres.arrays import RgbU8, to_float, to_integer
from superres.evaluation.metrics import mean_scores, score
from superres.models.registry import DEFAULT_MODELS
from training.config import LossConfig, load_config
from training.dataset import dataset_name, make_pair, picture_files, read_rgb
from training.evaluate import Evaluation, PictureScores, upstream_table
from training.losses import build_loss
from training.weights import trained_network

TERMS = ("mse", "ssim", "vgg19")
HALO = 7
"""What SRCNN 9-3-5 sees beyond a pixel, px."""

Estimate = Callable[[RgbU8], np.ndarray]
"""From a bicubic plane, uint8, to the network's picture, float32 in [0, 1]."""


def main(
    pictures: Annotated[Path, typer.Option(help="Folder of HR pictures.")],
    test: Annotated[Path, typer.Option(help="Another one, for the table.")],
    run: Annotated[Path, typer.Option(help="Folder of the upstream config's run.")],
    vgg19_weights: Annotated[Path, typer.Option(help="An npz; see training.losses.")],
    plot: Annotated[Path, typer.Option(help="The PNG to write.")],
    count: Annotated[int, typer.Option(help="Pictures, evenly through the folder.")] = 12,
) -> None:
    """Print three tables, and draw the first."""
    files = picture_files([pictures])
    pairs = [
        make_pair(read_rgb(file), scale=3, halo=0) for file in files[:: max(1, len(files) // count)]
    ]
    upstream = trained_network(run)
    shipped = trained_network(DEFAULT_MODELS / "srcnn-x3")

    def by_upstream(plane: RgbU8) -> np.ndarray:
        return np.asarray(upstream(to_float(plane)[None]))[0]

    def by_srcnn_x3(plane: RgbU8) -> np.ndarray:
        return np.asarray(shipped(to_float(plane)[None]))[0]

    weights = load_config("upstream").stages[0].loss
    losses = {
        term: build_loss(
            LossConfig(**{term: 1.0}), vgg19_weights=vgg19_weights, precision="float32"
        )
        for term in TERMS
    }
    measured = {}
    print("| estimate | term | value | slope of the sigmoid | weighted gradient | share |")
    print("|---|---|---|---|---|---|")
    for name, estimate in (
        ("bicubic", to_float),
        ("srcnn-x3", partial(with_edge_repeated, by_srcnn_x3)),
        ("upstream", by_upstream),
    ):
        values, gradients = measure(
            losses, weights, [(pair.hr, estimate(pair.plane)) for pair in pairs]
        )
        measured[name] = (values, gradients)
        total = sum(gradients.values())
        for term in TERMS:
            slope = "" if term == "ssim" else f"{sigmoid_slope(values[term]):.3g}"
            print(
                f"| {name} | {term} | {values[term]:.4g} | {slope} "
                f"| {gradients[term]:.3g} | {gradients[term] / total:.1%} |"
            )
    draw(measured, plot)

    print("\n| PSNR of luma, dB | the edge repeated | zeros | cost |")
    print("|---|---|---|---|")
    for name, network in (("srcnn-x3", by_srcnn_x3), ("upstream", by_upstream)):
        repeated, zeros = (
            mean_scores(
                [
                    score(pair.hr, to_integer(how(pair.plane), np.uint8), data_range=255, shave=3)
                    for pair in pairs
                ]
            ).psnr_y
            for how in (partial(with_edge_repeated, network), network)
        )
        print(f"| {name} | {repeated:.3f} | {zeros:.3f} | {repeated - zeros:.3f} |")

    compared = []
    for file in picture_files([test]):
        pair = make_pair(read_rgb(file), scale=3, halo=0, keep_size=True)
        scores = (
            score(pair.hr, estimate, data_range=255, shave=0)
            for estimate in (to_integer(by_upstream(pair.plane), np.uint8), pair.plane)
        )
        compared.append(PictureScores(file.name, *scores))
    evaluation = Evaluation(dataset_name(test), 3, tuple(compared))
    Console(width=120).print(upstream_table(run.name, evaluation))


def with_edge_repeated(network: Estimate, plane: RgbU8) -> np.ndarray:
    """The network's picture, where it saw the plane's edge repeated instead of zeros."""
    halo = HALO
    wide = np.pad(plane, ((halo, halo), (halo, halo), (0, 0)), mode="edge")
    return network(wide)[halo:-halo, halo:-halo]


def sigmoid_slope(value: float) -> float:
    """Derivative of the sigmoid, as float32 gives it to training."""
    squashed = tf.sigmoid(np.float32(value))
    return float(squashed * (1 - squashed))


def measure(
    losses: dict[str, Callable], weights: LossConfig, pictures: list[tuple[RgbU8, np.ndarray]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Mean value of each term, and mean length of its gradient as the upstream loss weighs it."""
    values: dict[str, list[float]] = {term: [] for term in TERMS}
    gradients: dict[str, list[float]] = {term: [] for term in TERMS}
    for hr, estimate in pictures:
        truth = tf.constant(to_float(hr)[None])
        for term in TERMS:
            squash = tf.identity if term == "ssim" else tf.sigmoid
            picture = tf.constant(estimate[None])
            with tf.GradientTape() as tape:
                tape.watch(picture)
                value = losses[term](truth, picture)
                weighted = getattr(weights, term) * squash(value)
            gradients[term].append(float(tf.norm(tape.gradient(weighted, picture))))
            values[term].append(float(value))
    return (
        {term: float(np.mean(values[term])) for term in TERMS},
        {term: float(np.mean(gradients[term])) for term in TERMS},
    )


def draw(measured: dict[str, tuple[dict[str, float], dict[str, float]]], file: Path) -> None:
    """The sigmoid's slope where each term lies, and each term's pull."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    values = np.logspace(-4, 5, 400)
    squashed = 1 / (1 + np.exp(-values))
    left.semilogx(values, squashed * (1 - squashed), color="black")
    for term, colour in (("mse", "C0"), ("vgg19", "C3")):
        found = [terms[term] for terms, _ in measured.values()]
        left.axvspan(min(found) * 0.9, max(found) * 1.1, color=colour, alpha=0.4, label=term)
    left.set_xlabel("value of the term")
    left.set_ylabel("slope of the sigmoid there")
    left.legend(loc="center left")
    places = np.arange(len(measured))
    for i, term in enumerate(TERMS):
        pulls = [gradients[term] for _, gradients in measured.values()]
        right.bar(places + (i - 1) * 0.27, pulls, width=0.25, label=term, color=f"C{(0, 1, 3)[i]}")
    right.set_xticks(places, list(measured))
    right.set_ylabel("length of the weighted gradient")
    right.margins(y=0.25)  # room for the legend
    right.legend(loc="upper center", ncols=len(TERMS))
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    typer.run(main)
