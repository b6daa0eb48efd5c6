"""Runs of a second or two: a small network on three small pictures."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import Progress

from superres.arrays import RgbU8
from tests.lazy import Lazy
from training.config import TrainingConfig

fit = Lazy("training.fit")
prepare = Lazy("training.prepare")

STAGES = [
    {
        "name": "stable",
        "steps": 4,
        "steps_per_validation": 4,
        "warmup_steps": 1,
        "learning_rate": 1e-3,
        "loss": {"l1": 1.0},
        "borders": "zero",
        "batch_size": 2,
        "patch_size": 24,
    },
    {
        "name": "decay",
        "steps": 4,
        "steps_per_validation": 2,
        "learning_rate": 1e-3,
        "final_learning_rate": 1e-6,
        "loss": {"mse": 1.0},
        "borders": "replicate",
        "batch_size": 2,
        "patch_size": 24,
    },
]
SMALL: dict[str, Any] = {
    "name": "small",
    "family": "small",
    "network": "edsr_2x8",
    "skip": True,
    "scale": 3,
    "optimizer": "adam",
    "ema_momentum": 0.5,
    "precision": "float32",
    "seed": 42,
    "validation": {"name": "pictures", "choose_by": "clean"},
    "data": [{"name": "pictures", "shrinks": [1.0]}],
    "stages": STAGES,
}


def small_config(*, stages: list[dict[str, Any]] | None = None, **changes: Any) -> TrainingConfig:
    """A config of eight steps by Adam in two stages; stages change one by one."""
    stages = [{}, {}] if stages is None else stages
    merged = [(STAGES[i] if i < len(STAGES) else {}) | changed for i, changed in enumerate(stages)]
    return TrainingConfig.model_validate(SMALL | {"stages": merged} | changes)


def as_toml(config: TrainingConfig) -> str:
    """The config as a file that ``load_config`` reads."""

    def value(one: Any) -> str:
        if isinstance(one, dict):
            return "{" + ", ".join(f"{key} = {value(item)}" for key, item in one.items()) + "}"
        if isinstance(one, list):
            return "[" + ", ".join(map(value, one)) + "]"
        return json.dumps(one)

    fields = config.model_dump(mode="json", exclude_none=True)
    return "".join(f"{key} = {value(one)}\n" for key, one in fields.items())


def write_pictures(root: Path, picture: RgbU8, side: int = 60) -> Path:
    """``pictures`` under a data root: three crops, and the manifest that lists them."""
    folder = root / "pictures"
    folder.mkdir(parents=True)
    rows = ["file,source,licence"]
    for i in range(3):
        Image.fromarray(picture[i * 60 :, i * 60 :][:side, :side]).save(folder / f"{i}.png")
        rows.append(f"{i}.png,scikit-image,CC0")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


def prepared(root: Path, out: Path) -> "object":
    """The pictures as a prepared set."""
    with Progress(disable=True) as progress:
        return prepare.prepare_manifest(root / "pictures" / "manifest.csv", out, progress=progress)


def train(config: TrainingConfig, pictures: object, run: Path, **options: Any) -> tuple[Any, str]:
    """Run it in this process, and return the outcome and what it showed."""
    shown = io.StringIO()
    outcome = fit.fit(
        config,
        data=[pictures],
        validation=pictures,
        run=run,
        console=Console(file=shown, width=150),
        **{"workers": 0} | options,
    )
    return outcome, shown.getvalue()
