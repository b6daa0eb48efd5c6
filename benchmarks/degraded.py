"""What models gain over bicubic on pictures as people have them, by kind of degradation.

    python benchmarks/degraded.py --data-root DATA --model edsr-lite-photo-x3 --model srcnn-x3

The pictures are those that choose the weights of a run: photos512/val through the fixed list of
:data:`training.validation.HELD_OUT`. Prints a Markdown table of mean PSNR of luma.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from superres import load_model
from superres.evaluation.proof import compare_pair
from superres.models.card import read_card
from superres.models.registry import DEFAULT_MODELS
from training.config import load_config
from training.prepared import PreparedSet
from training.reproduce import prepare_sets
from training.validation import HELD_OUT, held_out_pairs

RECIPE = "edsr-lite-photo-x3"
"""The config whose validation set is used."""


def main(
    data_root: Annotated[Path, typer.Option(envvar="SUPERRES_TRAINING_DATA")],
    model: Annotated[list[str], typer.Option(help="A shipped model; repeat for more.")],
    runs: Annotated[Path, typer.Option(help="Where prepared sets are kept.")] = Path("runs"),
) -> None:
    """Print the gains in dB, the pictures on which a model beats bicubic, and the worst of them."""
    validation = prepare_sets(load_config(RECIPE), data_root, runs).validation
    gains = {name: _gains(name, validation) for name in model}
    print(f"| gain over bicubic, dB | {' | '.join(model)} |")
    print("|---|" + "---|" * len(model))
    for kind in ("clean", "degraded"):
        print(f"| {kind} | {' | '.join(f'{one[kind].mean():+.2f}' for one in gains.values())} |")
    for index, name in enumerate(HELD_OUT):
        cells = [f"{one['degraded'][index :: len(HELD_OUT)].mean():+.2f}" for one in gains.values()]
        print(f"| {name} | {' | '.join(cells)} |")
    for label, of in (("worst, clean", "clean"), ("worst, degraded", "degraded")):
        print(f"| {label} | {' | '.join(f'{one[of].min():+.2f}' for one in gains.values())} |")
    for label, of in (("wins, clean", "clean"), ("wins, degraded", "degraded")):
        cells = [f"{(one[of] > 0).sum()} of {len(one[of])}" for one in gains.values()]
        print(f"| {label} | {' | '.join(cells)} |")


def _gains(name: str, validation: PreparedSet) -> dict[str, np.ndarray]:
    """PSNR of luma beyond bicubic's, for each clean and each degraded picture."""
    scale = int(read_card(DEFAULT_MODELS / name).geometry.scale)
    enhancer = load_model(name, precision="float32")
    found = {}
    for kind in ("clean", "degraded"):
        pairs = held_out_pairs(
            validation, scale=scale, halo=0, domain="lr", degraded=kind == "degraded"
        )
        compared = [compare_pair(enhancer, pair.hr, pair.plane, scale) for pair in pairs]
        found[kind] = np.array(
            [one.sr_scores.psnr_y - one.bicubic_scores.psnr_y for one in compared]
        )
    Console(stderr=True).print(f"{name} is scored")
    return found


if __name__ == "__main__":
    typer.run(main)
