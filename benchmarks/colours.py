"""Draw what the shipped model makes of the pictures of `tests/subjects.py`: to be looked at.

Each is shown as a browser shows it, on a checkerboard: as it is (enlarged without a filter),
and as it comes back. `make bench-colours`.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from superres import load_model
from superres.codecs import Picture, decode, encode, to_srgb
from tests.subjects import logo, ramp, turned, wide_gamut

SIDE = 300
"""Height of each, px."""


def shown(picture: Picture) -> Image.Image:
    """As it looks in sRGB, on a checkerboard."""
    image = Image.open(io.BytesIO(encode(to_srgb(picture), "png")))
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = image.convert("RGBA").resize(
        (round(SIDE * image.width / image.height), SIDE), Image.Resampling.NEAREST
    )
    y, x = np.mgrid[: image.height, : image.width] // 12
    board = Image.fromarray(np.where((x + y) % 2, 255, 225).astype(np.uint8)).convert("RGBA")
    return Image.alpha_composite(board, image).convert("RGB")


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    photograph = np.ascontiguousarray(np.asarray(data.chelsea())[40:200:2, 100:340:2])
    enhancer = load_model("srcnn", scale=3)
    rows = []
    for name, upload in (
        ("wide gamut, profile kept", wide_gamut(photograph)),
        ("16-bit ramp", ramp()),
        ("logo, half transparent", logo()),
        ("orientation 6", turned(photograph, 6)),
    ):
        before = decode(upload)
        rows.append((name, [shown(before), shown(enhancer.enhance(before, 3))]))
        if before.icc_profile is not None:
            converted = enhancer.enhance(to_srgb(before), 3)
            rows.append(("the same, icc=srgb", [shown(before), shown(converted)]))
    rows = [
        (name, [one.crop((0, 0, min(one.width, 600), SIDE)) for one in pair]) for name, pair in rows
    ]
    sheet = Image.new("RGB", (2 * 600 + 10, len(rows) * (SIDE + 24)), "white")
    for i, (name, pair) in enumerate(rows):
        top = i * (SIDE + 24)
        ImageDraw.Draw(sheet).text((4, top + 4), f"{name}: as sent, and by 3", fill="black")
        for j, one in enumerate(pair):
            sheet.paste(one, (j * 610, top + 22))
    sheet.save(out, quality=90)


if __name__ == "__main__":
    main()
