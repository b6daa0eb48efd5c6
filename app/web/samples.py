"""The sample pictures of the page: photographs from the package scikit-image."""

from functools import cache
from typing import Literal, get_args

import numpy as np

from superres.arrays import RgbU8
from superres.codecs import Picture, encode
from superres.resample import degrade

Sample = Literal["coffee", "astronaut", "chelsea", "rocket"]
SAMPLES: tuple[Sample, ...] = get_args(Sample)
THUMBNAIL_HEIGHT = 208
"""Height in px: twice the height on the page, for dense screens."""


@cache
def read_sample(name: Sample) -> RgbU8:
    """The sample's pixels, about 1 MB; cached."""
    # Imported here: scikit-image takes a while, and many services never show a sample.
    from skimage import data

    picture = np.asarray(getattr(data, name)())
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
