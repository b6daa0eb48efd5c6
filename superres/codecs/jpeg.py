"""JPEG: lossy; how a file was compressed, and the same compression of another picture."""

import hashlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, JpegImagePlugin
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile

from superres.arrays import RgbU8, to_integer
from superres.codecs import pillow
from superres.codecs.format import BinaryFile
from superres.codecs.headers import jpeg as headers
from superres.codecs.headers.jpeg import JpegStructure, Scans
from superres.codecs.limits import check_16_bit_samples, check_input_pixels
from superres.errors import BadImage
from superres.picture import Header, Picture

MAGIC = b"\xff\xd8\xff"
LONGEST_SIDE = 65_535
LONGEST_SEGMENT = 65_000
"""Bytes of EXIF or XMP that fit one, with its heading."""
_NO_MARKER = bytes(37 * number % 251 for number in range(1, 100))
_OTHER_DATA = _NO_MARKER + b"".join(bytes([0xFF, 0xD0 + n]) + _NO_MARKER for n in range(8))
"""Data for a scan, also behind each restart marker: a decoder may wait for one of them."""


class _Jpeg(JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        by_jfif = "dpi" in self.info
        super()._read_dpi_from_exif()
        if by_jfif or self.info.get("dpi") != (72, 72):
            return
        try:
            told = self.getexif().get(Base.XResolution)
        except Exception:  # of a damaged block, the picture's reader tells
            told = None
        if told != 72:  # Pillow says 72 where the file says nothing
            del self.info["dpi"]


def probe(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header."""
    structure = headers.read(file)
    with pillow.opened(_Jpeg, structure.head, structure, max_pixels) as image:
        bits = 8 if structure.bits == 8 else 16
        orientation = pillow.orientation(image)
        return pillow.to_header(image, "jpeg", bits=bits, orientation=orientation)


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode a file; 12 bits become 16.

    A phone's MPO is a JPEG with previews behind it; the first picture is the photograph.
    """
    structure = headers.read(io.BytesIO(data))
    check_input_pixels(structure.size, max_pixels)
    scans = headers.read_scans(data, structure.channels)
    end, conversions = scans.end, []
    if end is None:
        data = _with_end(data, structure, scans)
        end = len(data)
        conversions.append("end marker added")
    left_out = headers.behind(data, end, structure)
    if structure.bits == 8:
        with pillow.opened(_Jpeg, data, structure, max_pixels) as image:
            return pillow.to_picture(image, "jpeg", None, left_out, tuple(conversions))
    conversions.append("12 bits to 16")
    at = structure.bits_at  # Pillow opens no other depth, and decodes no pixel here
    shown = b"".join([memoryview(data)[:at], b"\x08", memoryview(data)[at + 1 :]])
    with pillow.opened(_Jpeg, shown, structure, max_pixels) as image:
        return pillow.to_picture(
            image, "jpeg", lambda: _read_12_bits(data), left_out, tuple(conversions)
        )


def _read_12_bits(data: bytes) -> np.ndarray:
    # Its import takes longer than decoding most pictures, and few have 12 bits.
    import imagecodecs

    samples = np.atleast_3d(imagecodecs.jpeg8_decode(data))
    check_16_bit_samples(samples)
    for rows in samples:
        rows[:] = rows << 4 | rows >> 8
    return samples


def _with_end(data: bytes, structure: JpegStructure, scans: Scans) -> bytes:
    """A file whose end marker is missing, with one, if no pixel is missing as well.

    Decoders make up what is missing, and do not say so. But they ignore what is behind the last
    pixel: only where some are missing, other data there changes the picture.

    Raises:
        BadImage: the file ends among its pixels.
    """
    ended, changed = (data + tail + b"\xff\xd9" for tail in (b"", _OTHER_DATA))
    scans_missing = structure.progressive and not scans.complete
    if scans_missing or _digest(ended, structure) != _digest(changed, structure):
        raise BadImage("the picture is damaged: the file ends among its pixels")
    return ended


def _digest(data: bytes, structure: JpegStructure) -> bytes:
    if structure.bits == 12:
        samples = _read_12_bits(data)
    else:
        with JpegImageFile(io.BytesIO(data)) as image:
            samples = np.asarray(image)
    return hashlib.blake2b(np.ascontiguousarray(samples).data).digest()


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
    """Quantisation tables of 64 steps, one for each of the first three components: luma's first."""
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
        with JpegImageFile(out) as image:
            return np.asarray(image)


def jpeg_settings(data: bytes) -> JpegSettings | None:
    """Read the settings from the header of an encoded picture.

    Returns:
        None where it is no JPEG of 8 bits, or one without loss.

    Raises:
        BadImage: the header is damaged.
    """
    if not data.startswith(MAGIC):
        return None
    structure = headers.read(io.BytesIO(data))
    if structure.bits != 8 or structure.lossless:
        return None
    with JpegImageFile(io.BytesIO(structure.head)) as image:
        tables = image.quantization
        used = [number for _, _, _, number in image.layer[:3]]
        if used[0] not in tables:
            return None
        return JpegSettings(
            # One that is missing follows between the scans.
            tables=tuple(tuple(tables.get(number, tables[used[0]])) for number in used),
            subsampling=JpegImagePlugin.get_sampling(image),
        )
