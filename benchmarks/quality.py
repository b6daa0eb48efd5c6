"""Write the scores of the shipped models, from their cards, to docs/quality.md and the README.

    python benchmarks/quality.py

`superres-train evaluate --write-card` writes the scores to the cards. `make docs` makes further
tables from them.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from superres.models.automatic_scores import Scored, all_scores
from superres.models.card import DatasetScores, ModelCard, Scores
from superres.models.registry import AUTO, DEFAULT_MODELS, read_cards
from superres.models.selection import automatic_families

ORDER = (
    *(AUTO, "srcnn", "edsr-nano", "edsr-lite"),
    *("edsr-lite-compressed", "edsr-lite-sharpened", "edsr-lite-photo"),
)
"""Order of the families; other families follow."""
COMPRESSED = "-jpeg75"
"""Suffix of the names of sets with JPEG-compressed LR pictures."""
SETS = ("Set5", "Set14", "BSD100", "photos512-test")
"""The sets that the README counts."""
PAGE = """\
# Scores of the shipped models

Mean PSNR in dB and SSIM of luma, by the protocol of the published tables, from the cards of
the models; `auto` chooses one of them by the file of each LR picture. The name of a model ends
with its scale. Both methods start from the same LR
pictures; in the sets named jpeg75, these are compressed as JPEG at quality 75. The last
column counts the pictures on which the model beats bicubic. [Train](how-to/train.md#score-a-model)
explains how the scores get into the cards; `benchmarks/quality.py` writes this page from them.

"""
CLAIMS = re.compile(
    r"(?<=<!-- claims of the cards: benchmarks/quality.py writes them -->\n).*?"
    r"(?=<!-- end of the claims of the cards -->)",
    re.DOTALL,
)
"""The part of the README that the cards decide."""
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


def with_claims(readme: str, cards: Iterable[ModelCard]) -> str:
    """The README with what it says about quality made from the cards."""
    cards = tuple(cards)
    clean, *_ = automatic_families(cards)
    at_3 = [one for one in all_scores(cards) if one.scores.scale == 3]
    set5 = {one.family: one.scores for one in at_3 if one.scores.dataset == "Set5"}
    auto, srcnn = set5[AUTO], set5["srcnn"]
    text = f"""\
- **Sharper.** On Set5 at x3 it reaches {auto.model.psnr_y:.2f} dB (PSNR of luma), \
where bicubic has {auto.bicubic.psnr_y:.2f} dB and SRCNN {srcnn.model.psnr_y:.2f} dB.
  On four sets it beats bicubic on {_wins(at_3, AUTO)}
  ([Quality and its limits](docs/explanation/quality.md)).
- **Compressed pictures, too.** After JPEG of quality 75, it beats bicubic on \
{_wins(at_3, AUTO, COMPRESSED)} of these sets;
  the network for clean pictures alone does so on {_wins(at_3, clean, COMPRESSED)}
  ([How the model is chosen](docs/explanation/model-choice.md)).
"""
    return CLAIMS.sub(text, readme)


def _wins(scored: Iterable[Scored], family: str, suffix: str = "") -> str:
    """Pictures of the sets of ``SETS`` on which a family beats bicubic, of all of them."""
    names = {name + suffix for name in SETS}
    found = [one.scores for one in scored if one.family == family]
    of_sets = [one for one in found if one.dataset in names]
    wins, pictures = (sum(one.wins_psnr_y for one in of_sets), sum(one.pictures for one in of_sets))
    return f"{wins} of {pictures} pictures"


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
    readme.write_text(with_claims(readme.read_text(), cards))


if __name__ == "__main__":
    main()
