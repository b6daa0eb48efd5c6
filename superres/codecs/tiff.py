"""TIFF: lossless, with alpha and 16 bits."""

import io
import struct
from dataclasses import replace
from typing import Any, TypeAlias, cast

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2, TiffImageFile

from superres.codecs import pillow
from superres.codecs.format import BinaryFile
from superres.codecs.headers import tiff as headers
from superres.codecs.headers.tiff import TiffStructure
from superres.codecs.headers.tiff_layout import CMYK, FLOAT, RGB, WHITE_IS_ZERO, Layout
from superres.errors import BadImage, UnsupportedFormat
from superres.metadata import DESCRIPTIVE, RESOLUTION, as_stored
from superres.picture import Header, Picture

MAGIC = tuple(PREFIXES)
"""TIFF and BigTIFF, in both byte orders, and with the marks swapped, as some programs write."""
DECODER_BYTES_PER_PIXEL = 21
"""At 16 bits, with alpha, in one strip: the strip, and the picture, before and after prediction."""


_LAYOUT_TAGS = (
    Base.PhotometricInterpretation,
    Base.BitsPerSample,
    Base.SamplesPerPixel,
    Base.ExtraSamples,
    Base.FillOrder,
)
_INTEGERS = (("H", 0, 2**16 - 1), ("I", 0, 2**32 - 1), ("i", -(2**31), 2**31 - 1))
"""Types of whole numbers, with the least and the largest."""
_Tag: TypeAlias = tuple[int, str, int, object, bool]
"""Code, type, count and value of a tag, and whether it is for the first page alone."""


class _Tiff(TiffImageFile):
    load_prepare = pillow.without_pillows_limit(TiffImageFile.load_prepare)

    def _setup(self) -> None:
        try:
            super()._setup()
        except SyntaxError as error:
            tags = {tag: self.tag_v2.get(tag) for tag in _LAYOUT_TAGS}
            told = ", ".join(f"{tag.name} {value}" for tag, value in tags.items() if value)
            raise UnsupportedFormat(
                f"a TIFF with {told} is not read: save it with 8 or 16 bits, in grey or RGB"
            ) from error
        if not {Base.XResolution, Base.YResolution} <= self.tag_v2.keys():
            self.info.pop("dpi", None)  # Pillow says 1 where the file says nothing


class _Described(TiffImageFile):
    """A TIFF that is opened for its metadata, however its samples are stored."""

    def _setup(self) -> None:
        tags = self.tag_v2
        width, height = tags[Base.ImageWidth], tags[Base.ImageLength]
        self._tile_size = width, height
        self._size = (height, width) if tags.get(Base.Orientation, 1) >= 5 else (width, height)
        photometric = tags.get(Base.PhotometricInterpretation, 0)
        self._mode = {CMYK: "CMYK", RGB: "RGB"}.get(photometric, "L")
        self.tile = []
        self.palette = None
        resolution = tags.get(Base.XResolution), tags.get(Base.YResolution)
        per_inch = {2: 1, 3: 2.54}.get(tags.get(Base.ResolutionUnit, 2))
        if all(resolution) and per_inch is not None:
            self.info["dpi"] = tuple(float(value or 0) * per_inch for value in resolution)
        if Base.InterColorProfile in tags:
            self.info["icc_profile"] = tags[Base.InterColorProfile]


def probe(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header; Pillow gives the upright size."""
    structure = headers.read(file)
    layout = structure.layout
    opener = _Tiff if layout.pillow else _Described
    with pillow.opened(opener, structure.head, structure, max_pixels) as image:
        header = pillow.to_header(image, "tiff", bits=layout.read_bits, orientation=1)
    if layout.pillow:
        return header
    needed = layout.bytes_per_pixel
    return replace(
        header,
        alpha=layout.alpha is not None,
        decoder_bytes_per_pixel=needed if needed > DECODER_BYTES_PER_PIXEL else 0,
    )


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode a file; more than 8 bits become 16, in grey and RGB."""
    structure = headers.read(io.BytesIO(data))
    layout = structure.layout
    left_out = structure.left_out
    if layout.unread:
        left_out += (f"{layout.unread} extra sample{'s' if layout.unread > 1 else ''}",)
    if layout.pillow:
        with pillow.opened(_Tiff, data, structure, max_pixels) as image:
            return pillow.to_picture(image, "tiff", None, left_out)
    kind = "float" if layout.sample_format == FLOAT else ""
    stored_as_read = layout.bits == layout.read_bits and not kind
    conversions = () if stored_as_read else (f"{kind or layout.bits} bits to {layout.read_bits}",)
    if kind:
        conversions = (f"float{layout.bits} to 16 bits",)
    with pillow.opened(_Described, structure.described or data, structure, max_pixels) as image:
        profile = image.info.get("icc_profile")
        return pillow.to_picture(
            image, "tiff", lambda: _read_samples(data, structure, profile), left_out, conversions
        )


def encode(picture: Picture, quality: int) -> bytes:
    """Encode a picture; ``quality`` changes nothing."""
    import tifffile

    samples = picture.channels()
    exif = Image.Exif()
    exif.load(picture.exif or b"")
    tags = [_tag(tag, exif[tag]) for tag in DESCRIPTIVE - RESOLUTION & exif.keys()]
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
            directory[inner] = as_stored(value)
        out.write(directory.tobytes(offset))
        out.seek(entry)
        out.write(struct.pack("<HHII", tag, 4, 1, offset))
    return out.getvalue()


def _tag(tag: int, value: object) -> _Tag:
    """A tag of EXIF's first directory as tifffile takes it, in the type that such values have."""
    if isinstance(value, str):
        return int(tag), "s", 0, value.encode("latin-1"), True  # its own bytes
    if isinstance(value, bytes):
        return int(tag), "B", len(value), value, True
    numbers = value if isinstance(value, tuple) else (value,)
    whole = all(isinstance(number, int) for number in numbers)
    fitting = (form for form, low, high in _INTEGERS if low <= min(numbers) <= max(numbers) <= high)
    form = next(fitting, None) if whole else None
    if form is None:
        return int(tag), "d", len(numbers), tuple(map(float, numbers)), True
    return int(tag), form, len(numbers), numbers, True


def _read_samples(data: bytes, structure: TiffStructure, profile: bytes | None) -> np.ndarray:
    """[h, w, channels] uint8 or uint16: grey or RGB, and alpha."""
    # Its import takes longer than decoding most pictures, and few are read so.
    import tifffile

    layout = structure.layout
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = cast(tifffile.TiffPage, tiff.pages[0])
        _check_page(page, structure)
        samples = np.asarray(page.asarray())
        separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    if separate and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, -1)
    samples = np.atleast_3d(samples)
    wanted = [*range(layout.colours), *([] if layout.alpha is None else [layout.alpha])]
    if len(wanted) < samples.shape[2]:
        samples = samples[..., wanted]
    samples = _integers(samples, layout)
    if layout.photometric == WHITE_IS_ZERO:
        colours = samples[..., :1]
        np.subtract(np.iinfo(samples.dtype).max, colours, out=colours)
    if layout.premultiplied:
        _divide_by_alpha(samples)
    return _from_cmyk(samples, profile) if layout.photometric == CMYK else samples


def _integers(samples: np.ndarray, layout: Layout) -> np.ndarray:
    """Samples of any depth, as uint8 or uint16.

    Raises:
        UnsupportedFormat: floats below 0, or above 1: nobody says what is white.
    """
    if layout.sample_format == FLOAT:
        low, high = samples.min(), samples.max()
        if not (low >= 0 and high <= 1):
            raise UnsupportedFormat(
                f"floats from 0 to 1 are read; this TIFF has {low:g} to {high:g}: scale them, or "
                "save it with 16 bits"
            )
        scaled = np.empty(samples.shape, np.uint16)
        for row, out in zip(samples, scaled, strict=True):
            out[:] = np.rint(row.astype(np.float32) * np.float32(65_535))
        return scaled
    samples = samples.astype(np.uint8 if layout.bits <= 8 else np.uint16, copy=False)
    samples = samples if samples.flags.writeable else samples.copy()
    if layout.bits < 8:
        samples *= 255 // (2**layout.bits - 1)
    elif 8 < layout.bits < 16:
        for row in samples:  # the highest bits again below the lowest, so that white is white
            row[:] = row << (16 - layout.bits) | row >> (2 * layout.bits - 16)
    return samples


def _from_cmyk(samples: np.ndarray, profile: bytes | None) -> np.ndarray:
    """CMYK, with or without alpha, as sRGB."""
    image = Image.fromarray(np.ascontiguousarray(samples[..., :4]), "CMYK")
    image.info["icc_profile"] = profile
    rgb = pillow.read_8_bits(image)
    return rgb if samples.shape[2] == 4 else np.dstack([rgb, samples[..., 4]])


def _check_page(page: Any, structure: TiffStructure) -> None:
    """Return if tifffile sees the picture that was admitted."""
    (height, width), layout = structure.size, structure.layout
    seen = page.imagelength, page.imagewidth, page.imagedepth, page.samplesperpixel
    admitted = height, width, 1, layout.samples
    item = page.dtype.itemsize if page.dtype is not None else 0
    bits = page.bitspersample, page.nbytes
    if seen != admitted or bits != (layout.bits, item * height * width * layout.samples):
        raise BadImage(
            f"the picture's header is damaged: it says {width}x{height} of {layout.samples} "
            f"samples, and the decoder sees a shape of {page.shape}"
        )


def _divide_by_alpha(samples: np.ndarray) -> None:
    """Give colours back what was multiplied by alpha, the last channel, in place."""
    most = np.uint32(np.iinfo(samples.dtype).max)
    for row in samples:  # by rows, since 32 bits a sample would be as much again, twice
        alpha = row[:, -1:].astype(np.uint32)
        colours = (row[:, :-1] * most + alpha // 2) // np.maximum(alpha, 1)
        row[:, :-1] = np.minimum(colours, most)
