"""What each lever of a training recipe gives: short runs that differ in one thing.

    python benchmarks/levers.py srcnn --data-root DATA
    python benchmarks/levers.py upstream --data-root DATA

Every run is from scratch, on the same pictures in the same order, in one stage whose learning rate
falls over its own steps. Prints a Markdown table.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from superres.arrays import to_float
from superres.models.card import Scores, TrainingRecord
from training.config import LossConfig, TrainingConfig, load_config
from training.fit import fit
from training.prepared import PreparedSet
from training.reproduce import Sets, prepare_sets
from training.validation import held_out_pairs
from training.weights import read_record, trained_network

Changes = dict[str, Any]
STAGE = "stage"
"""Key of the changes to the stage; the others are to the config."""

# A short run forgets sooner than the shipped 0.999 does.
SRCNN: Changes = {"ema_momentum": 0.99, STAGE: {"final_learning_rate": 1e-6}}
SRCNN_LEVERS: dict[str, Changes] = {
    "Adam at 1e-3 in place of SOAP": {"optimizer": "adam", STAGE: {"learning_rate": 1e-3}},
    "pixels from 0 to 1, not centred": {"centred": False},
    "L1 in place of MSE": {STAGE: {"loss": LossConfig(l1=1)}},
    "no global skip": {"skip": False},
    "zeros beyond the border": {STAGE: {"borders": "zero"}},
    "no average of the weights": {"ema_momentum": 0.0},
    "learning rate held": {STAGE: {"final_learning_rate": None}},
    "photos512 only": {"data": slice(1, 2)},
    "patches of 96 px: three times the work": {STAGE: {"patch_size": 96}},
    "batches of 64: four times the work": {STAGE: {"batch_size": 64}},
    "four times the steps": {"times": 4},
}

# The upstream recipe on patches, so that a run takes minutes; its VGG19 term, whose
# gradient the sigmoid rounds to zero, is left out.
UPSTREAM: Changes = {
    "keep_size": False,
    STAGE: {
        "loss": LossConfig(mse=0.8, ssim=0.1, sigmoid=True),
        "whole_pictures": False,
        "batch_size": 16,
        "patch_size": 48,
        "patience": None,
    },
}
UPSTREAM_LEVERS: dict[str, Changes] = {
    "without its sigmoid": {STAGE: {"loss": LossConfig(mse=0.8, ssim=0.1)}},
    "without its SSIM term": {STAGE: {"loss": LossConfig(mse=0.8, sigmoid=True)}},
    "without its MSE term": {STAGE: {"loss": LossConfig(ssim=0.1)}},
    "MSE alone": {STAGE: {"loss": LossConfig(mse=1)}},
    "a global skip": {"skip": True},
    "the edge repeated beyond the border": {STAGE: {"borders": "replicate"}},
    "its notebook's learning rate, 1e-3": {STAGE: {"learning_rate": 1e-3}},
    "a global skip, MSE alone, the edge repeated": {
        "skip": True,
        STAGE: {"loss": LossConfig(mse=1), "borders": "replicate"},
    },
}


def main(
    recipe: Annotated[Literal["srcnn", "upstream"], typer.Argument(help="Which table to make.")],
    data_root: Annotated[Path, typer.Option(envvar="SUPERRES_TRAINING_DATA")],
    runs: Annotated[Path, typer.Option(help="Where prepared sets are kept.")] = Path("runs"),
    steps: Annotated[int, typer.Option(help="Of a run.")] = 2000,
) -> None:
    """Train the recipe and each of its variants, and print what validation says."""
    name, base, levers = (
        ("srcnn-x3", SRCNN, SRCNN_LEVERS)
        if recipe == "srcnn"
        else ("upstream", UPSTREAM, UPSTREAM_LEVERS)
    )
    sets = prepare_sets(load_config(name), data_root, runs)
    print(f"| {steps} steps of {name} | PSNR of luma | RGB | SSIM, RGB | dead | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    for label, changes in track(
        {"the recipe": {}, **levers}.items(), console=Console(stderr=True), description=name
    ):
        record, dead = train(load_config(name), [base, changes], sets, steps)
        if label == "the recipe":
            print(f"| bicubic | {_figures(record.validation_bicubic['clean'])} | | |")
        figures = _figures(record.validation["clean"])
        print(f"| {label} | {figures} | {dead} | {record.seconds:.0f} |", flush=True)


def train(
    config: TrainingConfig, changes: list[Changes], sets: Sets, steps: int
) -> tuple[TrainingRecord, str]:
    """Train with these changes; the run's record, and its dead filters by layer."""
    values = config.model_dump()
    stage = values["stages"][0]
    chosen = slice(None)
    for change in changes:
        rest = dict(change)
        stage |= rest.pop(STAGE, {})
        chosen = rest.pop("data", chosen)
        steps *= rest.pop("times", 1)
        values |= rest
    values["data"] = values["data"][chosen]
    values["stages"] = [stage | {"steps": steps, "steps_per_validation": steps}]
    values["validation"]["choose_by"] = "clean"
    keras.utils.clear_session()  # else every run's network and optimizer stay in memory
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fit(
            TrainingConfig.model_validate(values),
            data=sets.data[chosen],
            validation=sets.validation,
            run=run,
            console=Console(stderr=True, quiet=True),
        )
        return read_record(run), count_dead_filters(run, config.scale, sets.validation)


def count_dead_filters(run: Path, scale: int, pictures: PreparedSet) -> str:
    """Filters that are on at under a thousandth of the pixels of ten pictures, by layer."""
    network = trained_network(run)
    hidden = [network.get_layer(name).output for name in ("patches", "mapping")]
    activations = keras.Model(network.input, hidden)
    active: list[list[np.ndarray]] = [[], []]
    for pair in held_out_pairs(
        pictures, scale=scale, halo=0, domain="hr", degraded=False, count=10
    ):
        for layer, answers in enumerate(activations(to_float(pair.plane)[None])):
            active[layer].append((np.asarray(answers) > 0).mean(axis=(0, 1, 2)))
    counts = [np.mean(layer, axis=0) for layer in active]
    return ", ".join(f"{(count < 1e-3).sum()} of {len(count)}" for count in counts)


def _figures(scores: Scores) -> str:
    return f"{scores.psnr_y:.3f} | {scores.psnr_rgb:.3f} | {scores.ssim_rgb:.4f}"


if __name__ == "__main__":
    typer.run(main)
