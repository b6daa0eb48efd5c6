"""How a JPEG was compressed, and what the same does to another picture."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

from superres.arrays import RgbU8


@dataclass(frozen=True)
class JpegSettings:
    """What decides a JPEG's artefacts."""

    tables: tuple[tuple[int, ...], ...]
    """Quantisation tables of 64 steps, luma's first."""
    subsampling: int
    """Of chroma, by Pillow's numbers: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0; -1 is another."""

    def apply(self, rgb: RgbU8) -> RgbU8:
        """Compress a picture so, and decompress it."""
        out = io.BytesIO()
        options: dict[str, Any] = {"qtables": [list(table) for table in self.tables]}
        if self.subsampling >= 0:
            options["subsampling"] = self.subsampling
        Image.fromarray(rgb).save(out, "JPEG", **options)
        with Image.open(out) as image:
            return np.asarray(image)


def jpeg_settings(data: bytes) -> JpegSettings | None:
    """Read an encoded picture's settings off its header; none where it is no JPEG."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        return JpegSettings(
            tables=tuple(tuple(table) for _, table in sorted(image.quantization.items())),
            subsampling=JpegImagePlugin.get_sampling(image),
        )
