"""Finds and draws the worst cases of each model family, for docs/models.

    PYTHONPATH=. .venv/bin/python benchmarks/worst_cases.py

The pictures are those of scikit-image that are in the public domain or under CC0, cropped to at
most 384 px. Each is shrunk by 3, becomes a file of each kind of `training.kinds.KINDS`, and is
enlarged by bicubic and by the family's model for x3. A family's worst cases are the lowest gains
over bicubic, in luma: of clean files, and of the other kinds. Cases in which bicubic is so near
the original that no difference can be seen (40 dB) are left out. The drawing shows where the model
is further from the original than bicubic by most. Run it again when models have changed.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from superres import Enhancer, load_model
from superres.arrays import RgbU8
from superres.codecs import Picture, decode, encode
from superres.evaluation.metrics import psnr, to_y
from superres.evaluation.proof import make_pair
from superres.models.registry import DEFAULT_MODELS, choose, read_cards
from superres.resample import upsample
from training.kinds import KINDS

FOLDER = Path(__file__).parents[1] / "docs" / "models"
PICTURES = (
    *("astronaut", "brick", "camera", "chelsea", "clock", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "retina", "rocket", "text"),
)
"""Names in `skimage.data`, whose docstrings have sources and licences."""
SCALE = 3
LARGEST = 384
INVISIBLE = 40
"""PSNR of luma, dB, from which on two pictures look the same."""
SIDE = 192
"""Side of a drawn part, px."""
GAP = 4
CAPTION = 22


@dataclass(frozen=True)
class Case:
    """One picture, enlarged by bicubic and by a model."""

    picture: str
    kind: str
    model: str
    original: RgbU8
    plain: RgbU8
    enhanced: RgbU8

    @property
    def scores(self) -> tuple[float, float]:
        """PSNR of luma of bicubic and of the model, dB."""
        truth = to_y(self.original)
        plain, enhanced = (
            psnr(truth, to_y(one), data_range=255, shave=SCALE)
            for one in (self.plain, self.enhanced)
        )
        return plain, enhanced

    @property
    def gain(self) -> float:
        """Of the model over bicubic, dB; below 0 it is worse."""
        plain, enhanced = self.scores
        return enhanced - plain


def main() -> None:
    """Write a drawing for each family, and the figures of all."""
    found = {}
    cards = read_cards(DEFAULT_MODELS)
    for family in sorted({card.family for card in cards}):
        card = choose(cards, family, SCALE)
        model = card.name
        enhancer = load_model(model, device="cpu", precision="float32")
        cases = [case(enhancer, model, name, kind) for name in PICTURES for kind in KINDS]
        seen = [one for one in cases if one.scores[0] < INVISIBLE]
        worst = [
            min((one for one in seen if one.kind == "clean"), key=lambda one: one.gain),
            min((one for one in seen if one.kind != "clean"), key=lambda one: one.gain),
        ]
        rows = np.concatenate([drawn(one) for one in worst])
        (FOLDER / f"{family}.webp").write_bytes(encode(Picture(rows), "webp", 85))
        found[family] = {"hash": card.short_hash, "cases": [figures(one) for one in worst]}
        print(family, found[family])
    (FOLDER / "worst.json").write_text(json.dumps(found, indent=1) + "\n")


def case(enhancer: Enhancer, model: str, name: str, kind: str) -> Case:
    """Make a file of that kind of a shrunken picture, and enlarge it."""
    original, small = make_pair(picture(name), SCALE)
    file = decode(KINDS[kind].make(small, PICTURES.index(name)))
    enhanced = enhancer.enhance(file, SCALE).rgb
    plain = upsample(file.rgb, original.shape[:2])
    return Case(name, kind, model, original, plain, enhanced)


def picture(name: str) -> RgbU8:
    """The middle of a picture, as RGB."""
    whole = np.asarray(getattr(data, name)())
    rgb = np.repeat(whole[..., None], 3, axis=2) if whole.ndim == 2 else whole
    top, left = (max(0, (side - LARGEST) // 2) for side in rgb.shape[:2])
    return np.ascontiguousarray(rgb[top : top + LARGEST, left : left + LARGEST])


def figures(one: Case) -> dict[str, object]:
    """What the page says about a case."""
    plain, enhanced = one.scores
    return {
        "picture": one.picture,
        "kind": one.kind,
        "scale": SCALE,
        "model": one.model,
        "bicubic": round(plain, 2),
        "psnr": round(enhanced, 2),
        "gain": round(one.gain, 2),
    }


def drawn(one: Case) -> RgbU8:
    """The part where the model lost most to bicubic: bicubic, the model and the original."""
    top, left = most_lost(one)
    titles = ("bicubic", one.model, f"original: {one.picture}")
    row = Image.new("RGB", (3 * SIDE + 2 * GAP, SIDE + CAPTION + GAP), "white")
    draw, font = ImageDraw.Draw(row), ImageFont.load_default(12)
    panels = (one.plain, one.enhanced, one.original)
    for i, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        x = i * (SIDE + GAP)
        part = np.ascontiguousarray(panel[top : top + SIDE, left : left + SIDE])
        row.paste(Image.fromarray(part), (x, CAPTION))
        draw.text((x + 3, 4), title, "black", font)
    return np.asarray(row)


def most_lost(one: Case) -> tuple[int, int]:
    """Top left corner of that part, on a coarse grid."""
    truth = to_y(one.original)
    lost = (to_y(one.enhanced) - truth) ** 2 - (to_y(one.plain) - truth) ** 2
    height, width = lost.shape
    step = SIDE // 4
    corners = [
        (top, left)
        for top in range(0, max(1, height - SIDE + 1), step)
        for left in range(0, max(1, width - SIDE + 1), step)
    ]
    return max(corners, key=lambda at: lost[at[0] : at[0] + SIDE, at[1] : at[1] + SIDE].sum())


if __name__ == "__main__":
    main()
