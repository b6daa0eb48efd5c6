"""The shipped sample pictures: photographs that scikit-image's wheel carries."""

from functools import cache
from typing import Literal, get_args

import numpy as np

from superres.arrays import RgbU8
from superres.codecs import Picture, encode
from superres.resample import degrade

Sample = Literal["coffee", "astronaut", "chelsea", "rocket"]
SAMPLES: tuple[Sample, ...] = get_args(Sample)
THUMBNAIL_HEIGHT = 208
"""px: twice what the page shows, for dense screens."""


@cache
def read_sample(name: Sample) -> RgbU8:
    """The sample's pixels; about 1 MB each, kept."""
    # scikit-image takes a while to import, and many services never show a sample.
    from skimage import data

    picture = np.asarray(getattr(data, name)())
    picture.setflags(write=False)
    return picture


@cache
def encode_sample(name: Sample, thumbnail: bool) -> bytes:
    """The sample as PNG; as a thumbnail, :data:`THUMBNAIL_HEIGHT` high."""
    picture = read_sample(name)
    if thumbnail:
        height, width = picture.shape[:2]
        picture = degrade(picture, (THUMBNAIL_HEIGHT, round(width * THUMBNAIL_HEIGHT / height)))
    return encode(Picture(picture), "png")
