"""Write what the shipped models score, from their cards, into docs/quality.md and the README.

    python benchmarks/quality.py

The cards were filled by `superres-train evaluate --write-card`. The README's tables are the
shorter: a column a family, a row a set.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from superres.models.card import DatasetScores, ModelCard, Scores
from superres.models.registry import DEFAULT_MODELS, read_cards

ORDER = ("srcnn", "srcnn-jpeg", "edsr-nano", "edsr-lite", "edsr-lite-photo")
"""Of families: each after what it came from; others follow."""
COMPRESSED = "-jpeg75"
"""How the name of a set ends whose small pictures went through JPEG."""
PAGE = """\
# What the shipped models score

Mean PSNR in dB and SSIM of luma, by the protocol of the published tables, as the
models' cards have them; a model's name ends with the scale. Both methods start from the
same small pictures, which in the sets named jpeg75 went through JPEG at quality 75. The
last column counts the pictures on which the model beats bicubic. The README says how
the cards were filled; this page is made from them by `benchmarks/quality.py`.

"""
SHORT_TABLE = re.compile(r"^\| set \| bicubic \| (.*) \|\n(?:\|.*\n)+", re.MULTILINE)
"""A table of the README; its first line names the families."""
ROOT = Path(__file__).parent.parent


def quality_page(cards: Iterable[ModelCard]) -> str:
    """A row a model and set, with the pictures on which the model has more PSNR of luma."""
    rows = [
        "| model | set | pictures | bicubic | model | gain, dB | wins |",
        "|---|---|---|---|---|---|---|",
    ]
    for card in sorted(cards, key=_place):
        for one in card.scores:
            gain = one.model.psnr_y - one.bicubic.psnr_y
            rows.append(
                f"| {card.name} | {one.dataset} | {one.pictures} | {_cell(one.bicubic)} "
                f"| {_cell(one.model)} | {gain:+.2f} | {one.wins_psnr_y} |"
            )
    return PAGE + "\n".join(rows) + "\n"


def with_tables(readme: str, cards: Iterable[ModelCard]) -> str:
    """The README with its tables as the cards have them: first the clean sets, then JPEG's."""
    cards, compressed = tuple(cards), iter((False, True))

    def table(old: re.Match[str]) -> str:
        return short_table(cards, old[1].split(" | "), compressed=next(compressed))

    return SHORT_TABLE.sub(table, readme)


def short_table(cards: Iterable[ModelCard], families: list[str], *, compressed: bool) -> str:
    """A row a set, those that went through JPEG or the others; a column a family.

    A cell tells the wins where they are not all.
    """
    rows = [
        f"| set | bicubic | {' | '.join(families)} |",
        "|---|---|" + "---|" * len(families),
    ]
    found: dict[tuple[float, str], dict[str, DatasetScores]] = {}
    for card in cards:
        for one in card.scores:
            if card.family in families and one.dataset.endswith(COMPRESSED) == compressed:
                found.setdefault((one.scale, one.dataset), {})[card.family] = one
    for (scale, dataset), by_family in sorted(found.items(), key=lambda item: item[0][0] != 3):
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


def _place(card: ModelCard) -> tuple[int, str]:
    return ORDER.index(card.family) if card.family in ORDER else len(ORDER), card.name


def main() -> None:
    """Write both."""
    cards, readme = read_cards(DEFAULT_MODELS), ROOT / "README.md"
    (ROOT / "docs" / "quality.md").write_text(quality_page(cards))
    readme.write_text(with_tables(readme.read_text(), cards))


if __name__ == "__main__":
    main()
