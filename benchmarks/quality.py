"""Write the scores of the shipped models, from their cards, to docs/quality.md and the README.

    python benchmarks/quality.py

`superres-train evaluate --write-card` writes the scores to the cards. The README has shorter
tables, with one column per family and one row per set.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from superres.models.automatic_scores import Scored, all_scores
from superres.models.card import DatasetScores, ModelCard, Scores
from superres.models.registry import AUTO, DEFAULT_MODELS, read_cards

ORDER = (AUTO, "srcnn", "edsr-nano", "edsr-lite", "edsr-lite-compressed", "edsr-lite-photo")
"""Order of the families; other families follow."""
COMPRESSED = "-jpeg75"
"""Suffix of the names of sets with JPEG-compressed LR pictures."""
PAGE = """\
# Scores of the shipped models

Mean PSNR in dB and SSIM of luma, by the protocol of the published tables, from the cards of
the models; `auto` chooses one of them by the file of each LR picture. The name of a model ends
with its scale. Both methods start from the same LR
pictures; in the sets named jpeg75, these are compressed as JPEG at quality 75. The last
column counts the pictures on which the model beats bicubic. The README explains how the
scores get into the cards; `benchmarks/quality.py` writes this page from them.

"""
SHORT_TABLE = re.compile(r"^\| set \| bicubic \| (.*) \|\n(?:\|.*\n)+", re.MULTILINE)
"""A table of the README; its first line names the families."""
ROOT = Path(__file__).parent.parent


def quality_page(cards: Iterable[ModelCard]) -> str:
    """The page, with one row per model and set."""
    rows = [
        "| model | set | pictures | bicubic | model | gain, dB | wins |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, _, one in sorted(all_scores(cards), key=_place):
        gain = one.model.psnr_y - one.bicubic.psnr_y
        title = f"{one.dataset} x{one.scale:g}" if name == AUTO else one.dataset
        rows.append(
            f"| {name} | {title} | {one.pictures} | {_cell(one.bicubic)} "
            f"| {_cell(one.model)} | {gain:+.2f} | {one.wins_psnr_y} |"
        )
    return PAGE + "\n".join(rows) + "\n"


def with_tables(readme: str, cards: Iterable[ModelCard]) -> str:
    """The README with its two tables made from the cards: clean sets, then JPEG sets."""
    cards, compressed = tuple(cards), iter((False, True))

    def table(old: re.Match[str]) -> str:
        return short_table(cards, old[1].split(" | "), compressed=next(compressed))

    return SHORT_TABLE.sub(table, readme)


def short_table(cards: Iterable[ModelCard], families: list[str], *, compressed: bool) -> str:
    """A table with one row per set (JPEG sets or clean sets) and one column per family.

    Sets that only ``auto`` was scored on are left out. A cell shows the wins if the model does not
    win on all pictures.
    """
    rows = [
        f"| set | bicubic | {' | '.join(families)} |",
        "|---|---|" + "---|" * len(families),
    ]
    found: dict[tuple[float, str], dict[str, DatasetScores]] = {}
    for _, family, one in all_scores(cards):
        if family in families and one.dataset.endswith(COMPRESSED) == compressed:
            found.setdefault((one.scale, one.dataset), {})[family] = one
    for (scale, dataset), by_family in sorted(found.items(), key=lambda item: item[0][0] != 3):
        if by_family.keys() == {AUTO}:
            continue
        bicubic = _cell(next(iter(by_family.values())).bicubic)
        cells = (_short_cell(by_family.get(family)) for family in families)
        rows.append(f"| {dataset} x{scale:g} | {bicubic} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _short_cell(one: DatasetScores | None) -> str:
    if one is None:
        return "-"
    if one.wins_psnr_y == one.pictures:
        return _cell(one.model)
    return f"{_cell(one.model)}, {one.wins_psnr_y} of {one.pictures}"


def _cell(scores: Scores) -> str:
    return f"{scores.psnr_y:.2f} / {scores.ssim_y:.4f}"


def _place(one: Scored) -> tuple[int, str]:
    return ORDER.index(one.family) if one.family in ORDER else len(ORDER), one.name


def main() -> None:
    """Write both."""
    cards, readme = read_cards(DEFAULT_MODELS), ROOT / "README.md"
    (ROOT / "docs" / "quality.md").write_text(quality_page(cards))
    readme.write_text(with_tables(readme.read_text(), cards))


if __name__ == "__main__":
    main()
