"""What the pages say about models, from their cards and from ``docs/models/worst.json``."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from benchmarks.quality import COMPRESSED, ORDER, short_table
from docsite.markdown import table
from superres.models.automatic_scores import all_scores
from superres.models.card import DataRecord, DatasetScores, ModelCard
from superres.models.registry import AUTO, DEFAULT_MODELS, choose, read_cards
from superres.models.selection import automatic_families
from training.evaluate import JPEG_QUALITY
from training.kinds import KINDS

WORST = Path(__file__).parents[1] / "docs" / "models" / "worst.json"
"""The worst cases of each family, as ``benchmarks/worst_cases.py`` found them."""
WORST_SCALE = 3

TIMES = {"srcnn_935": ("1", "1"), "edsr_5x32": ("0.32", "0.34"), "edsr_12x32": ("0.71", "0.74")}
"""By network, its time at x3 for two sizes over that of SRCNN, by ``benchmarks/pareto.py``."""
SCORED = ("Set5", "BSD100")
"""The sets in the table of times and scores."""


@cache
def cards() -> tuple[ModelCard, ...]:
    """The cards of the shipped models."""
    return read_cards(DEFAULT_MODELS)


def families() -> list[str]:
    """The families, in the order of the tables of scores; further ones follow by name."""
    found = {card.family for card in cards()}
    known = [family for family in ORDER if family in found]
    return known + sorted(found.difference(known))


def list_of_families() -> str:
    """A row for each family, with a link to its page and its mean gains at x3."""
    rows = []
    for family in families():
        of_family = _of(family)
        rows.append(
            [
                f"[{family}](../models/{family}.md)",
                ", ".join(f"x{card.geometry.scale}" for card in of_family),
                ", ".join(f"{n:,}" for n in sorted({card.parameters for card in of_family})),
                _gain(family, "Set14", 3),
                _gain(family, "Set14-jpeg75", 3),
            ]
        )
    head = ["family", "scales", "weights", "gain on Set14 x3, dB", "with JPEG 75, dB"]
    return table(head, rows)


def scores(kind: str) -> str:
    """The table of all families, of ``clean`` sets or of sets with ``compressed`` LR pictures."""
    compressed = {"clean": False, "compressed": True}[kind]
    return short_table(cards(), [AUTO, *families()], compressed=compressed).strip()


def gains(scale: str) -> str:
    """Mean gains of ``auto`` over bicubic and its wins, by kind of file and by set."""
    found = {
        one.dataset: one
        for _, family, one in all_scores(cards())
        if family == AUTO and one.scale == float(scale)
    }
    suffixes = {kind: _suffix(kind) for kind in KINDS}
    sets = [name for name in found if not name.endswith(tuple(filter(None, suffixes.values())))]
    rows = [
        [kind, *(_gain_and_wins(found.get(name + suffix)) for name in sets)]
        for kind, suffix in suffixes.items()
    ]
    return table(["pictures that are enlarged", *sets], rows)


def choice() -> str:
    """Which family ``auto`` chooses for what a file shows."""
    clean, compressed, sharpened, photo, plain = automatic_families(cards())
    rows = [
        ["at most 32 colours, as pixel art", plain],
        [
            "compression, and little detail without blur: little but artefacts could be sharpened",
            plain,
        ],
        ["noise that detail does not hide; blur", photo],
        ["sharpening beyond a threshold", sharpened],
        [
            "else a JPEG below a quality, by its quantisation tables; a lossy WebP, an AVIF, a "
            "HEIC or a JPEG XL of few bits per pixel; the blocks of a JPEG, wherever they begin, "
            "also in a PNG",
            compressed,
        ],
        ["none of these", clean],
    ]
    return table(["the file shows", "chosen"], [[shows, f"`{name}`"] for shows, name in rows])


def costs() -> str:
    """Time and quality of each family at x3, and of bicubic."""
    rows = [["bicubic", "0.07", "0.08", *_psnrs(cards(), "bicubic")]]
    for family in families():
        of_family = [card for card in _of(family) if card.geometry.scale == 3]
        for card in of_family:
            rows.append([family, *TIMES.get(card.network, ("-", "-")), *_psnrs([card], "model")])
    return table(["family", "512x512", "1200x900", *SCORED], rows)


def facts(family: str) -> str:
    """Sizes of a family's models, and whether they can be made again."""
    rows = [
        [
            card.name,
            card.network,
            f"{card.parameters:,}",
            f"{card.multiply_adds_per_output_pixel:,}",
            {"lr": "the picture", "hr": "the picture, enlarged by bicubic"}[card.geometry.domain],
            str(card.geometry.halo),
            _int8(card),
            "yes" if card.reproducible else f"no: {card.reason}",
        ]
        for card in _of(family)
    ]
    head = ["model", "network", "weights", "multiply-adds per output pixel", "input", "halo, px"]
    return table([*head, "int8", "can be made again"], rows)


def family_scores(family: str) -> str:
    """All scores of a family, beside bicubic's."""
    rows = [
        [
            card.name,
            one.dataset,
            *(f"{by.psnr_y:.2f} / {by.ssim_y:.4f}" for by in (one.bicubic, one.model)),
            f"{one.model.psnr_y - one.bicubic.psnr_y:+.2f}",
            f"{one.wins_psnr_y} of {one.pictures}",
        ]
        for card in _of(family)
        for one in card.scores
    ]
    return table(["model", "set", "bicubic", "model", "gain, dB", "wins"], rows)


def data(family: str) -> str:
    """The pictures that a family learned from: sets, licences, and what it began with."""
    lines = []
    for card in _of(family):
        assert card.training is not None  # noqa: S101  imported models are not shipped
        start = card.training.started_from
        sets = ", ".join(f"{one.name} ({one.pictures} pictures)" for one in card.training.data)
        made_by = card.training.config["name"]
        begun = f", beginning with what `{start.config}` makes" if start else ""
        machines = " and ".join(dict.fromkeys(one.machine for one in card.training.sessions))
        hours = f"{card.training.seconds / 3600:.2f} hours on {machines}"
        lines.append(f"- `{card.name}`, by the config `{made_by}`: {sets}{begun}; {hours}.")
    licences: Counter[str] = Counter()
    for one in _largest_data(family):
        licences.update(one.licences)
    if not licences:
        return "\n".join(lines)
    rows = [[licence, str(count)] for licence, count in licences.most_common()]
    return "\n".join(
        [*lines, "", table(["licence of the pictures, and where it is", "pictures"], rows)]
    )


def worst(family: str) -> str:
    """A caption for each worst case of a family."""
    lines = [
        f"{i}. `{one['picture']}`, as “{one['kind']}”, x{one['scale']}: {one['gain']:+.2f} dB "
        f"(bicubic {one['bicubic']:.2f} dB, `{one['model']}` {one['psnr']:.2f} dB)"
        for i, one in enumerate(_worst_cases()[family]["cases"], start=1)
    ]
    return "\n".join(lines)


def without_worst_cases() -> list[str]:
    """Families whose worst cases were not looked for with the weights that are shipped."""
    found = _worst_cases()
    return [
        family
        for family in families()
        if found.get(family, {}).get("hash") != choose(cards(), family, WORST_SCALE).short_hash
    ]


def _worst_cases() -> dict[str, dict[str, Any]]:
    cases: dict[str, dict[str, Any]] = json.loads(WORST.read_text())
    return cases


def _int8(card: ModelCard) -> str:
    if card.int8 is None:
        return "no"
    lost = max(card.int8.lost_db.values())
    return f"loses {lost:.2f} dB, {card.int8.gain:.1f} times as fast"


def _suffix(kind: str) -> str:
    """What ``training.evaluate`` adds to the name of a set of that kind."""
    if kind == "clean":
        return ""
    if kind == f"jpeg {JPEG_QUALITY}":
        return COMPRESSED
    return "-" + re.sub("[^a-z0-9.]+", "-", kind)


def _of(family: str) -> list[ModelCard]:
    return [card for card in cards() if card.family == family]


def _largest_data(family: str) -> tuple[DataRecord, ...]:
    """The sets of that model of a family which learned from the most pictures."""
    records = [card.training.data for card in _of(family) if card.training]
    return max(records, key=lambda sets: sum(one.pictures for one in sets), default=())


def _psnrs(cards: Iterable[ModelCard], of: Literal["model", "bicubic"]) -> list[str]:
    """PSNR of luma at x3 on the sets of ``SCORED``."""
    found = {
        one.dataset: f"{getattr(one, of).psnr_y:.2f}"
        for card in cards
        for one in card.scores
        if one.scale == 3
    }
    return [found.get(name, "-") for name in SCORED]


def _gain(family: str, dataset: str, scale: int) -> str:
    for _, of, one in all_scores(cards()):
        if (of, one.dataset, one.scale) == (family, dataset, scale):
            return f"{one.model.psnr_y - one.bicubic.psnr_y:+.2f}"
    return "-"


def _gain_and_wins(one: DatasetScores | None) -> str:
    if one is None:
        return "-"
    gain = f"{one.model.psnr_y - one.bicubic.psnr_y:+.2f}"
    return (
        gain if one.wins_psnr_y == one.pictures else f"{gain}, {one.wins_psnr_y} of {one.pictures}"
    )
