"""Makes the crops beside the kinds of pictures on the page: plain enlarging left, the model right.

Run it again when models change: ``PYTHONPATH=. .venv/bin/python benchmarks/page_crops.py``.
"""

from collections.abc import Callable

import numpy as np

from app.web import STATIC
from app.web.kinds import KINDS
from app.web.samples import Sample, read_sample
from superres import load_model
from superres.arrays import RgbU8, to_integer
from superres.codecs import Picture, decode, encode
from superres.models.bicubic import BICUBIC
from training.kinds import SHARPEN

SCALE = 3
SIDE = 144
"""Side of a crop, px: twice its side on the page, for dense screens."""


def leave(crop: RgbU8) -> RgbU8:
    """As it is."""
    return crop


def compress(crop: RgbU8) -> RgbU8:
    """As a chat does."""
    return to_integer(decode(encode(Picture(crop), "jpeg", 40)).rgb, np.uint8)


def sharpen(crop: RgbU8) -> RgbU8:
    """As a phone does, before a chat compresses it."""
    return compress(SHARPEN.apply(crop, np.random.default_rng(0)))


def add_noise(crop: RgbU8) -> RgbU8:
    """As a camera does in poor light."""
    noise = 9 * np.random.default_rng(0).standard_normal(crop.shape)
    return np.rint(crop + noise).clip(0, 255).astype(np.uint8)


CROPS: dict[str, tuple[Sample, tuple[int, int], Callable[[RgbU8], RgbU8], str]] = {
    "auto": ("chelsea", (60, 105), compress, KINDS["compressed"]),
    "clean": ("astronaut", (70, 180), leave, KINDS["clean"]),
    "compressed": ("astronaut", (70, 200), compress, KINDS["compressed"]),
    "sharpened": ("astronaut", (70, 200), sharpen, KINDS["sharpened"]),
    "noisy": ("astronaut", (10, 200), add_noise, KINDS["noisy"]),
    "fast": ("rocket", (240, 300), leave, KINDS["fast"]),
    "plain": ("rocket", (230, 290), leave, BICUBIC.family),
}
"""Kind -> sample, top left corner of the crop, what is done to it, family of the model."""


def main() -> None:
    """Write a WebP for each kind."""
    folder = STATIC / "kinds"
    folder.mkdir(exist_ok=True)
    for kind, (sample, (top, left), spoil, model) in CROPS.items():
        side = SIDE // SCALE
        crop = np.ascontiguousarray(read_sample(sample)[top : top + side, left : left + side])
        picture = Picture(halves(spoil(crop), model))
        (folder / f"{kind}.webp").write_bytes(encode(picture, "webp", 90))


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
