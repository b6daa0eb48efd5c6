"""How many sharpened JPEGs the evidence finds, by the weight of texture.

    python benchmarks/sharpening.py photos512/train

Prints a Markdown table: for a weight of texture, the share of sharpened JPEGs that have more
sharpening (sharpness less weight times texture) than all but 2, 4 or 8 % of the JPEGs that were not
sharpened. `superres.models.selection.TEXTURE` was chosen by it on photos512/train.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from superres.codecs import decode
from superres.models.evidence import Evidence, examine
from superres.models.selection import sharpening
from training.dataset import dataset_name
from training.kinds import JPEGS, SHARPENED_JPEGS
from training.selection import picture_files

TAKEN = (0.02, 0.04, 0.08)
"""Shares of the other files that are taken for sharpened ones."""
WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)


def main(
    data: Annotated[list[Path], typer.Argument(help="Folders of pictures or of pairs.")],
    scale: int = 3,
) -> None:
    """Print a row for each weight."""
    for folder in data:
        sharpened = [one for kind in SHARPENED_JPEGS for one in evidence(folder, scale, kind)]
        others = [one for kind in JPEGS for one in evidence(folder, scale, kind)]
        heads = [f"{share:.0%} of the others" for share in TAKEN]
        print(f"| {dataset_name(folder)} x{scale}, weight | {' | '.join(heads)} |")
        print("|---|" + "---|" * len(heads))
        for weight in WEIGHTS:
            limits = np.quantile(
                [sharpening(one, weight) for one in others], [1 - share for share in TAKEN]
            )
            measured = np.array([sharpening(one, weight) for one in sharpened])
            found = [np.mean(measured > limit) for limit in limits]
            print(f"| {weight} | {' | '.join(f'{share:.0%}' for share in found)} |")


def evidence(folder: Path, scale: int, kind: str) -> list[Evidence]:
    """What the files of a kind show."""
    return [examine(file, decode(file)) for _, _, file in picture_files(folder, scale, kind)]


if __name__ == "__main__":
    typer.run(main)
