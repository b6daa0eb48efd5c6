"""What a perceptual loss buys and costs: fidelity beside sharpness, model by model.

python benchmarks/sharpness.py --model models/srcnn-x3 --model OUT/srcnn-x3-perceptual \
      --pictures photos512/test --vgg19-weights vgg19_block1-3_float32.npz
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from superres import load_model
from superres.arrays import RgbU8, to_float
from superres.evaluation.metrics import mean_scores, score, to_y
from superres.resample import upsample
from training.evaluate import read_evaluation_pairs
from training.losses import mse, vgg19_features


def main(
    model: Annotated[list[Path], typer.Option(help="A model's folder; repeat for more.")],
    pictures: Annotated[Path, typer.Option(help="Folder of HR pictures.")],
    vgg19_weights: Annotated[Path, typer.Option(help="An npz; see training.losses.")],
    scale: int = 3,
) -> None:
    """Print a Markdown table."""
    features = vgg19_features(vgg19_weights, precision="float32")
    methods = {"bicubic": upsample}
    for folder in model:
        enhancer = load_model(folder.name, models=folder.resolve().parent, precision="float32")
        methods[folder.name] = enhancer.enhance_rgb
    scores = {name: [] for name in methods}
    distances = {name: [] for name in methods}
    edges = {name: [] for name in methods}
    pairs = list(read_evaluation_pairs(pictures, scale))
    for _, hr, lr in track(pairs, console=Console(stderr=True)):
        expected = features(to_float(hr)[None])
        for name, method in methods.items():
            sr = method(lr, hr.shape[:2])
            scores[name].append(score(hr, sr, data_range=255, shave=scale))
            distances[name].append(float(mse(expected, features(to_float(sr)[None]))))
            edges[name].append(edge_energy(sr) / edge_energy(hr))
    print(f"| {pictures} x{scale} | PSNR of luma, dB | SSIM | VGG19 distance | edges |")
    print("|---|---|---|---|---|")
    for name in methods:
        mean = mean_scores(scores[name])
        print(
            f"| {name} | {mean.psnr_y:.3f} | {mean.ssim_y:.4f} | {np.mean(distances[name]):,.0f} "
            f"| {np.mean(edges[name]):.1%} |"
        )


def edge_energy(picture: RgbU8) -> float:
    """Mean length of luma's gradient: what blur takes away."""
    return float(np.hypot(*np.gradient(to_y(picture))).mean())


if __name__ == "__main__":
    typer.run(main)
