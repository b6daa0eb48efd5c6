"""PNG: lossless, with alpha and 16 bits."""

import io
import struct
import zlib
from functools import partial

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from superres.codecs import pillow
from superres.codecs.format import BinaryFile
from superres.codecs.headers import png as headers
from superres.codecs.limits import check_16_bit_samples
from superres.picture import Header, Picture


def probe(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header; EXIF only where it stands before the pixels."""
    structure = headers.read(file)
    with pillow.opened(PngImageFile, structure.head, structure, max_pixels) as image:
        orientation = pillow.orientation(image) if image.info.get("exif") else 1
        return pillow.to_header(image, "png", bits=structure.bits, orientation=orientation)


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode a file of any depth; 16 bits are kept."""
    structure = headers.read(io.BytesIO(data))
    data, left_out = headers.needed(data)
    with pillow.opened(PngImageFile, data, structure, max_pixels) as image:
        image.load()  # its metadata may stand behind the pixels
        read_16_bits = partial(_read_16_bits, data) if structure.bits == 16 else None
        return pillow.to_picture(image, "png", read_16_bits, left_out)


def encode(picture: Picture, quality: int) -> bytes:
    """Encode a picture; ``quality`` changes nothing."""
    import imagecodecs

    # Without Pillow's copy of 4 bytes a pixel. Paeth's filter with runs alone takes a third of the
    # time of level 3, and makes photographs smaller still; enlarged text, by half larger.
    png: bytes | bytearray = imagecodecs.png_encode(
        picture.channels(),
        level=1,
        strategy=imagecodecs.PNG.STRATEGY.RLE,
        filter=imagecodecs.PNG.FILTER.PAETH,
    )
    chunks = []
    if picture.icc_profile is not None:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(picture.icc_profile)))
    if picture.dpi is not None:
        horizontal, vertical = (round(value / 0.0254) for value in picture.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", horizontal, vertical, 1)))
    if picture.exif is not None:
        chunks.append((b"eXIf", picture.exif.removeprefix(b"Exif\0\0")))
    if picture.xmp is not None:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + picture.xmp))
    if not chunks:
        return bytes(png)
    view, after_header = memoryview(png), 8 + 25
    inserted = [_chunk(*one) for one in chunks]
    return b"".join([view[:after_header], *inserted, view[after_header:]])


def _read_16_bits(data: bytes) -> np.ndarray:
    # Its import takes longer than decoding most pictures, and few have 16 bits.
    import imagecodecs

    samples = np.atleast_3d(imagecodecs.png_decode(data))
    check_16_bit_samples(samples)
    return samples


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
