"""The shipped sample pictures: photographs that scikit-image's wheel carries."""

from functools import cache
from typing import Literal, get_args

import numpy as np

from superres.arrays import RgbU8

Sample = Literal["coffee", "astronaut", "chelsea", "rocket"]
SAMPLES: tuple[Sample, ...] = get_args(Sample)


@cache
def read_sample(name: Sample) -> RgbU8:
    """The sample's pixels; about 1 MB each, kept."""
    # scikit-image takes a while to import, and many services never show a sample.
    from skimage import data

    picture = np.asarray(getattr(data, name)())
    picture.setflags(write=False)
    return picture
