"""The sample pictures of the page: photographs of ``photographs/``; its README has the sources."""

from functools import cache
from pathlib import Path
from typing import Literal, get_args

from superres.arrays import RgbU8, to_integer
from superres.codecs import Picture, decode, encode
from superres.resample import degrade

Sample = Literal["coffee", "astronaut", "chelsea", "rocket"]
SAMPLES: tuple[Sample, ...] = get_args(Sample)
THUMBNAIL_HEIGHT = 208
"""Height in px: twice the height on the page, for dense screens."""
_FOLDER = Path(__file__).with_name("photographs")


@cache
def read_sample(name: Sample) -> RgbU8:
    """The sample's pixels, about 1 MB; cached."""
    picture = to_integer(decode((_FOLDER / f"{name}.jpg").read_bytes()).rgb, "uint8")
    picture.setflags(write=False)
    return picture


@cache
def encode_sample(name: Sample, thumbnail: bool) -> bytes:
    """The sample as PNG; a thumbnail is :data:`THUMBNAIL_HEIGHT` px high."""
    picture = read_sample(name)
    if thumbnail:
        height, width = picture.shape[:2]
        picture = degrade(picture, (THUMBNAIL_HEIGHT, round(width * THUMBNAIL_HEIGHT / height)))
    return encode(Picture(picture), "png")
