"""TIFF: lossless, with alpha and 16 bits."""

import io
import struct
from functools import partial
from typing import Any, cast

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2, TiffImageFile

from superres.codecs import pillow
from superres.codecs.format import BinaryFile
from superres.codecs.headers import tiff as headers
from superres.codecs.headers.tiff import TiffStructure
from superres.codecs.limits import check_16_bit_samples
from superres.errors import BadImage, UnsupportedFormat
from superres.picture import Header, Picture

MAGIC = tuple(PREFIXES)
"""TIFF and BigTIFF, in both byte orders, and with the marks swapped, as some programs write."""
DECODER_BYTES_PER_PIXEL = 21
"""At 16 bits, with alpha, in one strip: the strip, and the picture, before and after prediction."""


class _Tiff(TiffImageFile):
    load_prepare = pillow.without_pillows_limit(TiffImageFile.load_prepare)


def probe(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header; Pillow gives the upright size."""
    structure = headers.read(file)
    with pillow.opened(_Tiff, structure.head, structure, max_pixels) as image:
        bits = 16 if 16 in structure.bits else 8
        return pillow.to_header(image, "tiff", bits=bits, orientation=1)


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode a file; 16 bits are kept, in grey and RGB."""
    structure = headers.read(io.BytesIO(data))
    with pillow.opened(_Tiff, data, structure, max_pixels) as image:
        sixteen = 16 in structure.bits
        read_16_bits = partial(_read_16_bits, data, structure) if sixteen else None
        return pillow.to_picture(image, "tiff", read_16_bits)


def encode(picture: Picture, quality: int) -> bytes:
    """Encode a picture; ``quality`` changes nothing."""
    import tifffile

    samples = picture.channels()
    exif = Image.Exif()
    exif.load(picture.exif or b"")
    tags: list[tuple[int, str, int, object, bool]] = [
        (tag, "s", 0, text.encode("latin-1"), True)  # its own bytes
        for tag, text in exif.items()
        if isinstance(text, str)
    ]
    if picture.xmp is not None:
        tags.append((int(Base.XMLPacket), "B", len(picture.xmp), picture.xmp, True))
    directories = [tag for tag in (IFD.Exif, IFD.GPSInfo) if exif.get_ifd(tag)]
    # tifffile writes no directory inside another: they go to the end, and the entries that
    # point to them stand in for others, one code lower, until it is known where that is.
    tags.extend((tag - 1, "I", 1, 0, True) for tag in directories)
    out = io.BytesIO()
    tifffile.imwrite(
        out,
        samples,
        byteorder="<",
        photometric="minisblack" if picture.grey else "rgb",
        planarconfig="contig" if samples.ndim == 3 else None,
        extrasamples=["unassalpha"] if picture.alpha is not None else None,
        compression="adobe_deflate",
        predictor=True,
        iccprofile=picture.icc_profile,
        resolution=picture.dpi,
        resolutionunit=None if picture.dpi is None else "inch",
        extratags=tags,
        software=False,
        metadata=None,
    )
    out.seek(0)
    with tifffile.TiffFile(out) as tiff:
        entries = {tag: tiff.pages.first.tags[tag - 1].offset for tag in directories}
    for tag, entry in entries.items():
        offset = out.seek(0, io.SEEK_END)
        directory = ImageFileDirectory_v2(group=tag)
        for inner, value in exif.get_ifd(tag).items():
            directory[inner] = value
        out.write(directory.tobytes(offset))
        out.seek(entry)
        out.write(struct.pack("<HHII", tag, 4, 1, offset))
    return out.getvalue()


def _read_16_bits(data: bytes, structure: TiffStructure) -> np.ndarray:
    # Its import takes longer than decoding most pictures, and few have 16 bits.
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = cast(tifffile.TiffPage, tiff.pages[0])
        _check_page(page, structure)
        samples = np.asarray(page.asarray())
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, -1)
        samples = np.atleast_3d(samples)
        extra = tuple(page.extrasamples)
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            samples = 65_535 - samples
        elif page.photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
            kind = tifffile.PHOTOMETRIC(page.photometric).name
            raise UnsupportedFormat(f"16-bit TIFF is read in grey and RGB, not {kind}")
    check_16_bit_samples(samples)
    if extra[:1] == (0,):  # not said to be alpha: Pillow leaves it out, too
        samples = samples[..., : -len(extra)]
    elif extra[:1] == (1,):  # alpha that the colours are multiplied by
        _divide_by_alpha(samples)
    return samples


def _check_page(page: Any, structure: TiffStructure) -> None:
    """Return if tifffile sees the picture that was admitted."""
    height, width = structure.size
    seen = page.imagelength, page.imagewidth, page.imagedepth, page.samplesperpixel
    admitted = height, width, 1, structure.samples
    if seen != admitted or page.nbytes != 2 * height * width * structure.samples:
        raise BadImage(
            f"the picture's header is damaged: it says {width}x{height} of {structure.samples} "
            f"samples, and the decoder sees a shape of {page.shape}"
        )


def _divide_by_alpha(samples: np.ndarray) -> None:
    """Give colours back what was multiplied by alpha, the last channel, in place."""
    for row in samples:  # by rows, since 32 bits a sample would be as much again, twice
        alpha = row[:, -1:].astype(np.uint32)
        colours = (row[:, :-1] * np.uint32(65_535) + alpha // 2) // np.maximum(alpha, 1)
        row[:, :-1] = np.minimum(colours, 65_535)
