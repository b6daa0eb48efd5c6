"""JPEG: lossy; how a file was compressed, and the same compression of another picture."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin

from superres.arrays import RgbU8, to_integer
from superres.codecs import pillow
from superres.codecs.headers import jpeg as headers
from superres.picture import Picture

MAGIC = b"\xff\xd8\xff"
LONGEST_SIDE = 65_535
LONGEST_SEGMENT = 65_000
"""Bytes of EXIF or XMP that fit one, with its heading."""

# A phone's MPO is a JPEG with previews behind it; the first frame is the photograph.
probe, decode = pillow.reader(
    "jpeg", JpegImagePlugin.JpegImageFile, headers.read, headers.check_scans
)


def encode(picture: Picture, quality: int) -> bytes:
    """Encode a picture at 4:4:4, flattened on white and rounded to 8 bits."""
    out = io.BytesIO()
    _flattened(picture).save(
        out,
        "jpeg",
        quality=quality,
        subsampling=0,
        icc_profile=picture.icc_profile or b"",
        exif=picture.exif or b"",
        xmp=picture.xmp or b"",
        dpi=picture.dpi or (0, 0),
    )
    return out.getvalue()


def _flattened(picture: Picture) -> Image.Image:
    image = Image.fromarray(to_integer(picture.channels(), np.uint8))
    if picture.alpha is None:
        return image
    white = Image.new("L" if picture.grey else "RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


@dataclass(frozen=True)
class JpegSettings:
    """What decides a JPEG's artefacts."""

    tables: tuple[tuple[int, ...], ...]
    """Quantisation tables of 64 steps, luma's first."""
    subsampling: int
    """Of chroma, by Pillow's numbers: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0; -1 is another."""

    def apply(self, rgb: RgbU8) -> RgbU8:
        """Compress a picture with these settings, and decompress it."""
        out = io.BytesIO()
        options: dict[str, Any] = {"qtables": [list(table) for table in self.tables]}
        if self.subsampling >= 0:
            options["subsampling"] = self.subsampling
        Image.fromarray(rgb).save(out, "JPEG", **options)
        out.seek(0)
        with JpegImagePlugin.JpegImageFile(out) as image:
            return np.asarray(image)


def jpeg_settings(data: bytes) -> JpegSettings | None:
    """Read the settings from the header of an encoded picture; None where it is not a JPEG."""
    if not data.startswith(MAGIC):
        return None
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
        return JpegSettings(
            tables=tuple(tuple(table) for _, table in sorted(image.quantization.items())),
            subsampling=JpegImagePlugin.get_sampling(image),
        )
