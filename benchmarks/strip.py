"""Draws the strip at the top of the README: bicubic, `auto` and the original, of a photograph.

    PYTHONPATH=. .venv/bin/python benchmarks/strip.py

The photograph is shrunk by 3 and enlarged again, as `superres compare` does. The captions have the
scores of the whole photograph. Run it again when models have changed.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from app.web.samples import read_sample
from superres import load_model
from superres.arrays import RgbU8
from superres.codecs import Picture, encode
from superres.evaluation.proof import compare
from superres.models.registry import DEFAULT_MODELS, read_cards
from superres.models.selection import automatic_families

OUT = Path(__file__).parents[1] / "docs" / "strip.webp"
SAMPLE, SCALE = "astronaut", 3
TOP, LEFT, SIDE = 40, 110, 236
"""The part that is drawn, px."""
GAP, CAPTION = 4, 22


def main() -> None:
    """Write the strip."""
    clean = automatic_families(read_cards(DEFAULT_MODELS))[0]  # the small copy is a clean picture
    enhancer = load_model(clean, scale=SCALE, device="cpu", precision="float32")
    comparison = compare(enhancer, read_sample(SAMPLE), SCALE)
    bicubic, model = comparison.bicubic_scores.psnr_y, comparison.sr_scores.psnr_y
    strip = draw(
        {
            f"bicubic: {bicubic:.2f} dB": comparison.bicubic,
            f"superres: {model:.2f} dB": comparison.sr,
            "the original": comparison.hr,
        }
    )
    OUT.write_bytes(encode(Picture(strip), "webp", 90))
    print(f"bicubic {bicubic:.2f} dB, superres {model:.2f} dB")


def draw(panels: dict[str, RgbU8]) -> RgbU8:
    """The part of each picture below its caption, side by side."""
    strip = Image.new("RGB", (len(panels) * (SIDE + GAP) - GAP, SIDE + CAPTION), "white")
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(14)
    for i, (caption, picture) in enumerate(panels.items()):
        part = np.ascontiguousarray(picture[TOP : TOP + SIDE, LEFT : LEFT + SIDE])
        strip.paste(Image.fromarray(part), (i * (SIDE + GAP), CAPTION))
        pen.text((i * (SIDE + GAP) + 2, 3), caption, "black", font)
    return np.asarray(strip)


if __name__ == "__main__":
    main()
