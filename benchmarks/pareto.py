"""What each model's quality costs: milliseconds against PSNR.

    python benchmarks/pareto.py --data Set5/x3 --data BSD100/x3 --plot docs/pareto.png

Times are of the served path, from a picture to a picture, and are measured in turn, round by
round, so that a machine whose speed drifts favours none.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.figure import Figure

from superres import Enhancer, load_model
from superres.arrays import Size
from superres.codecs import Picture
from superres.engines import load_engine
from superres.engines.ensemble import EnsembleEngine
from superres.models.registry import DEFAULT_MODELS, read_cards
from training.dataset import dataset_name
from training.evaluate import evaluate

BASE = "srcnn"
"""Family whose time the others are compared with."""
SIZES = ((512, 512), (900, 1200))
"""Of the pictures that are timed, before they are enlarged: how they are cut into tiles differs."""


@dataclass(frozen=True)
class Point:
    """One method, measured."""

    name: str
    milliseconds: float
    """Per output megapixel of the last size."""
    ratios: tuple[float, ...]
    """Of its time to the base's, median of the rounds, a size an element."""
    psnr: tuple[float, ...]
    """Of luma, a set an element."""


def main(
    data: Annotated[list[Path], typer.Option(help="Folder of pairs; repeat for more.")],
    plot: Annotated[Path, typer.Option(help="The PNG to write.")],
    scale: int = 3,
    ensemble: Annotated[list[str], typer.Option(help="Family that is also run as one.")] = [  # noqa: B006
        "edsr-lite"
    ],
    rounds: int = 5,
) -> None:
    """Print a Markdown table, and draw it."""
    methods = {"bicubic": load_model("bicubic")}
    for card in read_cards(DEFAULT_MODELS):
        if card.geometry.scale != scale:
            continue
        enhancer = Enhancer(load_engine(DEFAULT_MODELS / card.name, card), card.geometry)
        methods[card.family] = enhancer
        if card.family in ensemble:
            methods[f"{card.family}, ensemble"] = Enhancer(
                EnsembleEngine(enhancer.engine), card.geometry
            )
    seconds = [time_methods(methods, size, scale, rounds) for size in SIZES]
    megapixels = scale**2 * np.prod(SIZES[-1]) / 1e6
    points = []
    for name, method in methods.items():
        psnr = tuple(evaluate(method, folder, scale).summarise().model.psnr_y for folder in data)
        ratios = (statistics.median(np.divide(of_size[name], of_size[BASE])) for of_size in seconds)
        milliseconds = 1000 * statistics.median(seconds[-1][name]) / megapixels
        points.append(Point(name, milliseconds, tuple(ratios), psnr))
    names = [dataset_name(folder) for folder in data]
    sizes = [f"times {BASE}, {width}x{height}" for height, width in SIZES]
    print(f"| x{scale}, {os.cpu_count()} cores | {' | '.join([*sizes, *names])} |")
    print("|---|" + "---|" * len([*sizes, *names]))
    for point in points:
        cells = [f"{figure:.2f}" for figure in (*point.ratios, *point.psnr)]
        print(f"| {point.name} | {' | '.join(cells)} |")
    draw(points, names, plot)


def time_methods(
    methods: dict[str, Enhancer], size: Size, scale: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each method in each round, for one picture."""
    picture = Picture(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    calls = {name: partial(method.enhance, picture, scale) for name, method in methods.items()}
    return in_turn(calls, rounds)


def in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def draw(points: list[Point], sets: list[str], file: Path) -> None:
    """A panel a set: time to the right, quality up."""
    figure = Figure(figsize=(4 * len(sets) + 2, 3.6), layout="constrained")
    for index, (name, axes) in enumerate(
        zip(sets, np.atleast_1d(figure.subplots(1, len(sets))), strict=True)
    ):
        for point in points:
            axes.plot(point.milliseconds, point.psnr[index], "o", label=point.name)
        axes.set_xscale("log")
        axes.set_xlabel("ms per output megapixel")
        axes.set_ylabel("PSNR of luma, dB")
        axes.set_title(name, loc="left", fontsize=10)
        axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right", fontsize=9)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    typer.run(main)
