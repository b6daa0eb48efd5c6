"""What the shipped models score, from their cards, as Markdown.

    python benchmarks/quality.py > docs/quality.md

The cards were filled by `superres-train evaluate --write-card`. The README has the same tables
shorter: a column a family, a row a set.
"""

from collections.abc import Iterable

from superres.card import DatasetScores, ModelCard
from superres.metrics import Scores
from superres.registry import DEFAULT_MODELS, read_cards

ORDER = ("srcnn", "srcnn-jpeg", "edsr-nano", "edsr-lite", "edsr-lite-photo")
"""Of families: each after what it came from; others follow."""
COMPRESSED = "-jpeg75"
"""How the name of a set ends whose small pictures went through JPEG."""


def full_table(cards: Iterable[ModelCard]) -> list[str]:
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
    return rows


def short_table(cards: Iterable[ModelCard], families: list[str], *, compressed: bool) -> list[str]:
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
    return rows


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
    """Print the page."""
    print("# What the shipped models score\n")
    print(
        "Mean PSNR in dB and SSIM of luma, by the protocol of the published tables, as the\n"
        "models' cards have them; a model's name ends with the scale. Both methods start from the\n"
        "same small pictures, which in the sets named jpeg75 went through JPEG at quality 75. The\n"
        "last column counts the pictures on which the model beats bicubic. The README says how\n"
        "the cards were filled; this page is made from them by `benchmarks/quality.py`.\n"
    )
    print("\n".join(full_table(read_cards(DEFAULT_MODELS))))


if __name__ == "__main__":
    main()
