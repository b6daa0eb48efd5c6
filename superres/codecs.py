"""Bytes <-> Picture."""

import io

import numpy as np
from PIL import Image

from superres.arrays import RgbU8


def read_rgb(data: bytes) -> RgbU8:
    """Decode to RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
