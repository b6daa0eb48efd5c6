"""WebP: read as it is, written lossy, with alpha."""

import io
import struct

import numpy as np
from PIL import Image
from PIL.WebPImagePlugin import WebPImageFile

from superres.arrays import to_integer
from superres.codecs import pillow
from superres.codecs.format import BinaryFile
from superres.codecs.headers import webp as headers
from superres.codecs.limits import check_input_pixels
from superres.errors import ImageTooLarge
from superres.picture import Header, Picture

LONGEST_SIDE = 16_383
MOST_PIXELS = 200_000_000
"""VP8 has 512 KiB for how each block of 16x16 is predicted; a little beyond this they are full."""
DECODER_BYTES_PER_PIXEL = 23
"""Two canvases, and two copies of the picture, of 4 bytes a pixel each, beside the array."""
ENCODER_BYTES_PER_ALPHA_PIXEL = 30
"""libwebp compresses alpha without loss, by the whole plane and tables of where each of its pixels
has been seen before."""


class _WebP(WebPImageFile):
    _open = pillow.without_pillows_limit(WebPImageFile._open)


def probe(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header, which Pillow could not without a copy of the file and two of the canvas."""
    structure = headers.read(file)
    check_input_pixels(structure.size, max_pixels)
    image = Image.Image()
    image.info["exif"] = structure.metadata.get("exif")  # XMP, too, could turn it
    height, width = structure.size
    if pillow.orientation(image) >= 5:
        height, width = width, height
    return Header("webp", (height, width), 8, structure.alpha)


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode a file."""
    structure = headers.read(io.BytesIO(data))
    with pillow.opened(_WebP, data, structure, max_pixels) as image:
        return pillow.to_picture(image, "webp")


def encode(picture: Picture, quality: int) -> bytes:
    """Encode a picture.

    Raises:
        ImageTooLarge: it has more detail than VP8 can hold.
    """
    import imagecodecs

    samples = to_integer(picture.channels(), np.uint8)
    try:
        # Pillow would copy the picture twice, at 4 bytes a pixel. Beyond method 2, libwebp keeps
        # every coefficient until the end, and that takes more than the picture itself.
        webp = imagecodecs.webp_encode(samples, level=quality, lossless=False, method=2)
    except imagecodecs.WebpError as error:
        height, width = picture.size
        if "OVERFLOW" in str(error):
            raise ImageTooLarge(
                f"webp cannot hold so much detail in {width}x{height} pixels"
            ) from error
        raise
    exif = picture.exif and picture.exif.removeprefix(b"Exif\0\0")
    about = {b"ICCP": picture.icc_profile, b"EXIF": exif, b"XMP ": picture.xmp}
    chunks = {name: _chunk(name, block) for name, block in about.items() if block}
    if not chunks:
        return bytes(webp)
    pixels = memoryview(webp)[12:]
    # Where alpha made libwebp write this chunk itself, another takes its place.
    alpha = bytes(pixels[:4]) == b"VP8X"
    flags = 0x10 * alpha + sum({b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}[one] for one in chunks)
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in reversed(picture.size))
    body: list[bytes | memoryview] = [
        b"WEBP",
        _chunk(b"VP8X", struct.pack("<I", flags) + canvas),
        chunks.get(b"ICCP", b""),
        pixels[18 if alpha else 0 :],
        chunks.get(b"EXIF", b""),
        chunks.get(b"XMP ", b""),
    ]
    return b"".join([b"RIFF", struct.pack("<I", sum(map(len, body))), *body])


def is_lossy(data: bytes) -> bool:
    """Whether a file is a WebP whose pixels are stored with loss."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    at = 12
    while at + 8 <= len(data):
        name, (length,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8 "
        at += 8 + length + length % 2
    return False


def _chunk(name: bytes, block: bytes) -> bytes:
    return name + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)
