"""What each lever of a training recipe gives: short runs that differ in one thing.

    python benchmarks/levers.py srcnn  --data photos512/train --data General100 --data T91 \
      --validation photos512/val
    python benchmarks/levers.py upstream --data photos512/train --validation photos512/val

Every run is from scratch, on the same pictures in the same order, with its own cosine
schedule over its own steps. Prints a Markdown table.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from superres.arrays import to_float
from training.config import LossConfig, TrainingConfig, load_config
from training.dataset import picture_files, read_pairs
from training.fit import RECORD, fit, trained_network

Changes = dict[str, Any]

# A short run forgets sooner than the shipped 0.999 does.
SRCNN: Changes = {"ema_momentum": 0.99, "patience": 1000}
SRCNN_LEVERS: dict[str, Changes] = {
    "Adam at 1e-3 in place of SOAP": {"optimizer": "adam", "learning_rate": 1e-3},
    "pixels from 0 to 1, not centred": {"centred": False},
    "L1 in place of MSE": {"loss": LossConfig(l1=1)},
    "no global skip": {"skip": False},
    "zeros beyond the border": {"borders": "zero"},
    "no average of the weights": {"ema_momentum": 0.0},
    "learning rate held": {"final_learning_rate": 3e-3},
    "pictures at their own size only": {"shrinks": (1.0,)},
    "photos512 only": {"data": 1},
    "patches of 96 px: three times the work": {"patch_size": 96},
    "batches of 64: four times the work": {"batch_size": 64},
    "four times the steps": {"steps": 4.0},
}

# The upstream recipe on patches, so that a run takes minutes; its VGG19 term, whose
# gradient the sigmoid rounds to zero, is left out.
UPSTREAM: Changes = {
    "loss": LossConfig(mse=0.8, ssim=0.1, sigmoid=True),
    "batch_size": 16,
    "patch_size": 48,
    "keep_size": False,
    "patience": 1000,
    "choose_by": "psnr_y",
    "precision": "bfloat16",
}
UPSTREAM_LEVERS: dict[str, Changes] = {
    "without its sigmoid": {"loss": LossConfig(mse=0.8, ssim=0.1)},
    "without its SSIM term": {"loss": LossConfig(mse=0.8, sigmoid=True)},
    "without its MSE term": {"loss": LossConfig(ssim=0.1)},
    "MSE alone": {"loss": LossConfig(mse=1)},
    "a global skip": {"skip": True},
    "the edge repeated beyond the border": {"borders": "replicate"},
    "its notebook's learning rate, 1e-3": {"learning_rate": 1e-3, "final_learning_rate": 1e-3},
    "a global skip, MSE alone, the edge repeated": {
        "skip": True,
        "loss": LossConfig(mse=1),
        "borders": "replicate",
    },
}


def main(
    recipe: Annotated[Literal["srcnn", "upstream"], typer.Argument(help="Which table to make.")],
    data: Annotated[list[Path], typer.Option(help="Folder of HR pictures; repeat for more.")],
    validation: Annotated[Path, typer.Option(help="Folder of HR pictures.")],
    steps: Annotated[int, typer.Option(help="Of a run.")] = 2000,
) -> None:
    """Train the recipe and each of its variants, and print what validation says."""
    name, base, levers = (
        ("srcnn-x3", SRCNN, SRCNN_LEVERS)
        if recipe == "srcnn"
        else ("upstream", UPSTREAM, UPSTREAM_LEVERS)
    )
    print(f"| {steps} steps of {name} | PSNR of luma | RGB | SSIM, RGB | dead | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    for label, changes in track(
        {"the recipe": {}, **levers}.items(), console=Console(stderr=True), description=name
    ):
        record, dead = train(load_config(name), base | changes, data, validation, steps)
        ours, bicubic = record["validation"], record["validation_bicubic"]
        if label == "the recipe":
            print(f"| bicubic | {_figures(bicubic)} | | |")
        print(f"| {label} | {_figures(ours)} | {dead} | {record['seconds']} |", flush=True)


def train(
    config: TrainingConfig, changes: Changes, data: list[Path], validation: Path, steps: int
) -> tuple[dict[str, Any], str]:
    """Train with these changes; the run's record, and its dead filters by layer."""
    changes = dict(changes)
    data = data[: changes.pop("data", len(data))]
    steps = round(steps * changes.pop("steps", 1.0))
    short = TrainingConfig.model_validate(
        config.model_dump() | changes | {"steps": steps, "steps_per_validation": steps}
    )
    keras.utils.clear_session()  # else every run's network and optimizer stay in memory
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fit(
            short,
            data=data,
            validation=[validation],
            run=run,
            resume=False,
            console=Console(stderr=True, quiet=True),
        )
        dead = count_dead_filters(run, config.scale, validation)
        return json.loads((run / RECORD).read_text()), dead


def count_dead_filters(run: Path, scale: int, pictures: Path) -> str:
    """Filters that are on at under a thousandth of the pixels of ten pictures, by layer."""
    network = trained_network(run)
    hidden = [network.get_layer(name).output for name in ("patches", "mapping")]
    activations = keras.Model(network.input, hidden)
    active: list[list[np.ndarray]] = [[], []]
    pairs = read_pairs([pictures], scale=scale, halo=0, shrinks=(1.0,), smallest=16)
    for pair in pairs[:: max(1, len(picture_files([pictures])) // 10)]:
        for layer, answers in enumerate(activations(to_float(pair.plane)[None])):
            active[layer].append((np.asarray(answers) > 0).mean(axis=(0, 1, 2)))
    counts = [np.mean(layer, axis=0) for layer in active]
    return ", ".join(f"{(count < 1e-3).sum()} of {len(count)}" for count in counts)


def _figures(scores: dict[str, float]) -> str:
    return f"{scores['psnr_y']:.3f} | {scores['psnr_rgb']:.3f} | {scores['ssim_rgb']:.4f}"


if __name__ == "__main__":
    typer.run(main)
