"""What sharpened pictures should weigh in the fit of ``model=auto``.

    python benchmarks/sharpened_weight.py photos512/val

Prints a Markdown table: for each weight of the sharpened kinds, the threshold that the fit finds,
and what ``auto`` then gains over never choosing the model of sharpened pictures, in dB of luma:
on the JPEGs that were not sharpened, and on those that were. docs/selection.md says what was chosen
by it. The scores of the models are those that ``superres-train fit-selection`` keeps.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from superres.models.registry import DEFAULT_MODELS
from superres.models.selection import Candidates, Rules, select
from training.dataset import dataset_name
from training.kinds import FITTED_KINDS, JPEGS, SHARPENED_JPEGS
from training.selection import (
    FOR_SCORES,
    Example,
    StoredScores,
    examples,
    find_candidates,
    fit,
)

WEIGHTS = (1.0, 0.5, 0.25, 0.125)
NEVER = math.inf
"""A threshold that no picture exceeds."""


def main(
    data: Annotated[Path, typer.Argument(help="Folder of pictures; none for scores.")],
    scale: Annotated[list[int], typer.Option()] = [2, 3, 4],  # noqa: B006
    models: Path = DEFAULT_MODELS,
    scores: Path = Path("artefacts/selection.json"),
) -> None:
    """Print a row for each scale and weight."""
    if (dataset := dataset_name(data)) in FOR_SCORES:
        raise typer.BadParameter(f"{dataset} is only for scores: take photos512/val")
    print("| scale | weight | threshold | not sharpened, dB | sharpened, dB |")
    print("|---|---|---|---|---|")
    stored = StoredScores(scores)
    for factor in scale:
        between, loaders = find_candidates(models, factor)
        files = list(examples(data, factor, [*FITTED_KINDS], loaders, stored))
        for weight in WEIGHTS:
            rules = fit([reweighted(file, weight) for file in files], between)
            never = rules.model_copy(update={"sharpened_compressed": NEVER})
            gains = [
                f"{gain(files, kinds, between, rules) - gain(files, kinds, between, never):+.3f}"
                for kinds in (JPEGS, SHARPENED_JPEGS)
            ]
            cells = [f"x{factor}", f"{weight:g}", f"{rules.sharpened_compressed:g}", *gains]
            print(f"| {' | '.join(cells)} |", flush=True)


def reweighted(file: Example, weight: float) -> Example:
    """The file with that weight if it was sharpened."""
    return replace(file, weight=weight) if file.kind in SHARPENED_JPEGS else file


def gain(files: list[Example], kinds: tuple[str, ...], between: Candidates, rules: Rules) -> float:
    """The mean gain of ``auto`` over bicubic on the files of some kinds, dB."""
    chosen = [(one, select(one.evidence, between, rules)) for one in files if one.kind in kinds]
    return float(np.mean([one.gain(choice.card.name) for one, choice in chosen]))


if __name__ == "__main__":
    typer.run(main)
