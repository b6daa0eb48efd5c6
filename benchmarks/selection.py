"""How well ``model=auto`` chooses, on files of the kinds that people have.

    python benchmarks/selection.py photos512/val
    python benchmarks/selection.py Set5/x3 Set14/x3 BSD100/x3 photos512/test

Prints a Markdown table. The scores of the models are kept in a file, so that a table with other
thresholds takes seconds. "Regret" is how much less PSNR of luma the choice has than the better of
the clean and the photo model, and below 0 where the models for compressed and for sharpened
pictures are better than both; a choice is "right" if nothing of the clean model, the photo model
and bicubic is better by more than 0.005 dB.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from superres.models.registry import DEFAULT_MODELS
from superres.models.selection import Candidates, select
from training.dataset import dataset_name
from training.kinds import FITTED_KINDS, KINDS
from training.selection import Example, StoredScores, examples, find_candidates

COLUMNS = (
    *("files", "auto, dB", "clean", "photo", "compressed", "sharpened"),
    *("not under", "worst, dB", "regret, dB", "right"),
)
"""The first figures are gains over bicubic; "not under" counts the files where ``auto``'s is 0 or
more, and "worst" is its least."""
TOLERANCE = 0.005


def main(
    data: Annotated[list[Path], typer.Argument(help="Folders of pictures or of pairs.")],
    scale: int = 3,
    all_kinds: Annotated[
        bool, typer.Option("--all-kinds", help="Also the kinds that are only for fitting.")
    ] = False,
    models: Path = DEFAULT_MODELS,
    scores: Path = Path("artefacts/selection.json"),
) -> None:
    """Print a row for each kind of file."""
    between, loaders = find_candidates(models, scale)
    stored = StoredScores(scores)
    kinds = [*(FITTED_KINDS if all_kinds else KINDS)]
    found = {folder: list(examples(folder, scale, kinds, loaders, stored)) for folder in data}
    for folder, rows in found.items():
        print(f"| {dataset_name(folder)} x{scale} | {' | '.join(COLUMNS)} |")
        print("|---|" + "---|" * len(COLUMNS))
        for kind in kinds:
            print(row(kind, [one for one in rows if one.kind == kind], between))
        print(row("all", rows, between), end="\n\n")


def row(title: str, files: list[Example], between: Candidates) -> str:
    """Figures of ``auto`` on some files, as a row of the table."""
    assert between.photo is not None
    models = (between.clean.name, between.photo.name)
    others = [one.name if one else None for one in (between.compressed, between.sharpened)]
    chosen = [select(one.evidence, between).card.name for one in files]
    gains = np.array([one.gain(name) for one, name in zip(files, chosen, strict=True)])
    better = np.array([max(one.gain(name) for name in models) for one in files])
    right = gains >= np.maximum(better, 0) - TOLERANCE
    cells = [
        str(len(files)),
        f"{gains.mean():+.2f}",
        *(
            f"{np.mean([one.gain(name) for one in files]):+.2f}" if name else "-"
            for name in (*models, *others)
        ),
        f"{np.sum(gains >= 0)}",
        f"{gains.min():+.2f}",
        f"{np.mean(better - gains):+.3f}",
        f"{np.mean(right):.0%}",
    ]
    return f"| {title} | {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
