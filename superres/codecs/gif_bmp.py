"""GIF and BMP: formats that are read, and not written."""

import io
from dataclasses import replace

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile

from superres.codecs import pillow
from superres.codecs.format import BinaryFile
from superres.codecs.headers import bmp, gif
from superres.codecs.headers.gif import GifStructure
from superres.picture import Header, Picture


class _Gif(GifImageFile):
    _seek = pillow.without_pillows_limit(GifImageFile._seek)


def probe_gif(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header."""
    structure = gif.read(file)
    with pillow.opened(_Gif, structure.head, structure, max_pixels) as image:
        header = pillow.to_header(image, "gif", bits=8, orientation=1)
        return replace(header, alpha=header.alpha or not structure.covered)


def decode_gif(data: bytes, max_pixels: int) -> Picture:
    """Decode a file of one frame; the canvas around it is transparent."""
    structure = gif.read(io.BytesIO(data))
    conversions = () if structure.ended else ("end marker added",)
    left_out = ("data behind the picture",) if structure.behind else ()
    with pillow.opened(_Gif, data, structure, max_pixels) as image:
        picture = pillow.to_picture(image, "gif", None, left_out, conversions)
    if structure.covered:
        return picture
    return replace(picture, samples=_inside_frame(picture.samples, structure))


def _inside_frame(samples: np.ndarray, structure: GifStructure) -> np.ndarray:
    """The samples with alpha, of which only the frame is opaque."""
    top, left, height, width = structure.frame
    inside = slice(top, top + height), slice(left, left + width)
    with_alpha = np.zeros((*structure.size, 4), np.uint8)
    with_alpha[..., :3] = samples[..., :3]
    with_alpha[inside][..., 3] = samples[inside][..., 3] if samples.shape[2] == 4 else 255
    return with_alpha


probe_bmp, decode_bmp = pillow.reader("bmp", BmpImageFile, bmp.read)
