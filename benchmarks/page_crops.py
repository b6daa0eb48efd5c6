"""Makes the crops beside the kinds of pictures on the page: plain enlarging left, the model right.

Run it again when models change: ``PYTHONPATH=. .venv/bin/python benchmarks/page_crops.py``.
"""

import numpy as np

from app.web import STATIC
from app.web.samples import Sample, read_sample
from superres import load_model
from superres.arrays import RgbU8
from superres.codecs import Picture, decode, encode
from superres.models.registry import DEFAULT_MODELS, read_cards

SCALE = 3
SIDE = 144
"""Side of a crop, px: twice its side on the page, for dense screens."""
CROPS: dict[str, tuple[Sample, tuple[int, int], int | None, tuple[str, ...]]] = {
    "auto": ("chelsea", (60, 105), 60, ("edsr-lite-photo",)),
    "clean": ("astronaut", (70, 180), None, ("edsr-lite",)),
    "photo": ("chelsea", (75, 205), 25, ("edsr-lite-photo", "edsr-lite-compressed")),
    "fast": ("coffee", (60, 255), None, ("edsr-nano",)),
    "plain": ("rocket", (230, 290), None, ()),
}
"""Kind -> sample, top left corner of the crop, quality of its JPEG, families of which the first
that there is makes it."""


def main() -> None:
    """Write a WebP for each kind."""
    families = {card.family for card in read_cards(DEFAULT_MODELS)}
    folder = STATIC / "kinds"
    folder.mkdir(exist_ok=True)
    for kind, (sample, (top, left), quality, suited) in CROPS.items():
        side = SIDE // SCALE
        crop = np.ascontiguousarray(read_sample(sample)[top : top + side, left : left + side])
        if quality is not None:
            crop = decode(encode(Picture(crop), "jpeg", quality)).rgb
        model = next((name for name in suited if name in families), "bicubic")
        (folder / f"{kind}.webp").write_bytes(encode(Picture(halves(crop, model)), "webp", 90))


def halves(crop: RgbU8, model: str) -> RgbU8:
    """The crop enlarged plainly, with the right half of what the model makes."""
    plain = load_model("bicubic", scale=SCALE, device="cpu").enhance(Picture(crop), SCALE).rgb
    enhanced = load_model(model, scale=SCALE, device="cpu").enhance(Picture(crop), SCALE).rgb
    both = plain.copy()
    both[:, SIDE // 2 :] = enhanced[:, SIDE // 2 :]
    both[:, SIDE // 2 - 1] = 255
    return both


if __name__ == "__main__":
    main()
