"""Bytes <-> Picture. The bytes decide the format; a file's name never does."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from superres import colour, metadata
from superres.arrays import AnySamples, PlaneU8, PlaneU16, RgbU8, RgbU16, Size, to_integer
from superres.errors import AnimatedImage, BadImage, BadRequest, ImageTooLarge, UnsupportedFormat

OutputFormat = Literal["png", "jpeg", "webp", "tiff"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
MEDIA_TYPES: dict[OutputFormat, str] = {name: f"image/{name}" for name in OUTPUT_FORMATS}
SUFFIXES: dict[OutputFormat, str] = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}

INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
INPUT_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
MAX_INPUT_PIXELS = 64_000_000
MAX_OUTPUT_PIXELS = 256_000_000
DEFAULT_QUALITY = 92

_HEAD = 32
"""Bytes: as far as a PNG's depth."""
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF8")
_LONGEST_SIDE: dict[OutputFormat, int] = {"jpeg": 65_535, "webp": 16_383}
_MOST_PIXELS: dict[OutputFormat, int] = {"webp": 200_000_000}
"""VP8 has 512 KiB for how each block of 16x16 is predicted; a little beyond this they are full."""
_GREY_MODES = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B"}
_PROFILED_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16L", "I;16B"}
_CONVERTED_MODES = {
    "P": "palette to RGB",
    "PA": "palette to RGB",
    "CMYK": "CMYK to sRGB",
    "YCbCr": "YCbCr to RGB",
    "LAB": "Lab to RGB",
    "HSV": "HSV to RGB",
}
_LONGEST_JPEG_SEGMENT = 65_000
"""Bytes of EXIF or XMP that fit one, with its heading."""

# Pillow's own guard has one limit for the whole process, and warns below it. Ours is
# checked on the header, before any pixel is decoded, and names the limit.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Header:
    """What the first bytes of a file tell, before any pixel is decoded."""

    source_format: str
    size: Size
    """(height, width), upright."""
    bits: int
    """A sample: 8 or 16."""
    alpha: bool = False
    """Whether anything of it may be transparent."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright: its EXIF orientation has been applied.

    ``samples`` are [h, w, 3], or [h, w, 4] with alpha last and not premultiplied, of 8 or 16
    bits: one array, so that a large picture exists once. A grey picture has three equal
    channels and ``grey`` set, so that it can be written as grey again. ``icc_profile`` is the
    profile that it is to be shown by. ``exif``, ``xmp`` and ``dpi`` are as
    :mod:`superres.metadata` reads them. ``converted`` and ``dropped`` tell, in words, what
    became of the file's content on the way here.
    """

    samples: AnySamples
    _: KW_ONLY
    grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    source_format: str = "png"
    converted: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def rgb(self) -> RgbU8 | RgbU16:
        """The colours."""
        return self.samples[..., :3]

    @property
    def alpha(self) -> PlaneU8 | PlaneU16 | None:
        """How much of each pixel is there; None if all of all is."""
        return self.samples[..., 3] if self.samples.shape[2] == 4 else None

    @property
    def size(self) -> Size:
        """(height, width)."""
        height, width = self.samples.shape[:2]
        return height, width


def read_header(source: bytes | Path, *, max_pixels: int = MAX_INPUT_PIXELS) -> Header:
    """Read what the first bytes of an encoded picture tell; no pixel is decoded.

    Args:
        source: the encoded file, or its path; then little more than the header is read of it.
        max_pixels: most input pixels accepted.

    Raises:
        UnsupportedFormat, AnimatedImage, ImageTooLarge, BadImage: as :func:`decode`, as far
            as the header shows it.
        OSError: no such file.
    """
    with _opened(source, max_pixels) as (image, head):
        height, width = image.height, image.width
        # TIFF's size is upright already, and PNG's EXIF may stand behind the pixels.
        exif = image.info.get("exif") if image.format == "PNG" else True
        if exif and image.format != "TIFF" and _orientation(image) >= 5:
            height, width = width, height
        return Header(
            _source_format(image),
            (height, width),
            16 if _has_16_bits(image, head) else 8,
            image.has_transparency_data,
        )


def decode(data: bytes, *, max_pixels: int = MAX_INPUT_PIXELS) -> Picture:
    """Decode an encoded picture: PNG, JPEG, WebP, TIFF, BMP or a still GIF.

    Palettes, bilevel and YCbCr become RGB; CMYK becomes sRGB by its own profile where it
    has one. 16 bits a sample are kept for PNG and TIFF, in grey and RGB.

    Args:
        data: the encoded file.
        max_pixels: most input pixels accepted; checked on the header.

    Raises:
        UnsupportedFormat: not one of these formats, or samples of 32 bits or floats.
        AnimatedImage: more than one frame or page.
        ImageTooLarge: more than ``max_pixels``.
        BadImage: empty, truncated or damaged.
    """
    with _opened(data, max_pixels) as (image, _):
        return _read(image, data)


def to_srgb(picture: Picture) -> Picture:
    """Convert a picture out of its colour profile into sRGB, which needs none.

    Without a profile it is taken to be sRGB already. A profile that cannot be used is
    dropped.
    """
    if picture.icc_profile is None:
        return picture
    try:
        samples = colour.to_srgb(picture.samples, picture.icc_profile, grey=picture.grey)
    except colour.DamagedProfile:
        dropped = (*picture.dropped, "damaged ICC profile")
        return replace(picture, icc_profile=None, dropped=dropped)
    converted = (*picture.converted, "ICC profile to sRGB")
    return replace(picture, samples=samples, icc_profile=None, converted=converted)


def without_metadata(picture: Picture) -> Picture:
    """The picture without EXIF and XMP: who took it, when, where and with what."""
    dropped = (*picture.dropped, *(name for name in _carried(picture) if name in ("EXIF", "XMP")))
    return replace(picture, exif=None, xmp=None, dropped=dropped)


def encode(picture: Picture, output_format: OutputFormat, quality: int = DEFAULT_QUALITY) -> bytes:
    """Encode a picture with all that the format holds of it; :func:`account` tells what.

    PNG and TIFF are lossless and keep alpha and 16 bits; WebP keeps alpha; JPEG (4:4:4)
    is flattened on white.

    Args:
        picture: what to encode.
        output_format: one of :data:`OUTPUT_FORMATS`.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        BadRequest: quality out of range.
        ImageTooLarge: a side is longer, or there are more pixels, than the format can hold.
        UnsupportedFormat: not a format that is written here.
    """
    check_output(picture.size, output_format)
    if not 1 <= quality <= 100:
        raise BadRequest(f"quality is 1 to 100, not {quality}")
    picture = _as_held(picture, output_format)
    if output_format == "png":
        return _encode_png(picture)
    if output_format == "tiff":
        return _encode_tiff(picture)
    if output_format == "webp":
        return _encode_webp(picture, quality)
    out = io.BytesIO()
    _to_pillow(picture).save(
        out,
        output_format,
        quality=quality,
        subsampling=0,
        icc_profile=picture.icc_profile or b"",
        exif=picture.exif or b"",
        xmp=picture.xmp or b"",
        dpi=picture.dpi or (0, 0),
    )
    return out.getvalue()


def check_output(size: Size, output_format: OutputFormat) -> None:
    """Return if the format can hold a picture of that size.

    Raises:
        ImageTooLarge: a side is longer, or there are more pixels, than the format can hold.
        UnsupportedFormat: not a format that is written here.
    """
    if output_format not in OUTPUT_FORMATS:
        raise UnsupportedFormat(
            f"format {output_format!r} is not written here: choose {', '.join(OUTPUT_FORMATS)}"
        )
    longest = _LONGEST_SIDE.get(output_format)
    if longest is not None and max(size) > longest:
        raise ImageTooLarge(
            f"{output_format} holds at most {longest} px a side; the output has {max(size)}"
        )
    most, pixels = _MOST_PIXELS.get(output_format), size[0] * size[1]
    if most is not None and pixels > most:
        raise ImageTooLarge(
            f"{output_format} holds at most {most:,} pixels; the output has {pixels:,} "
            f"({size[1]}x{size[0]})"
        )


def default_output_format(picture: Picture | Header) -> OutputFormat:
    """Return the picture's own format where it is written here, else PNG."""
    return picture.source_format if picture.source_format in OUTPUT_FORMATS else "png"


def account(picture: Picture, output_format: OutputFormat) -> str:
    """What of a file is kept, converted and dropped when its picture is encoded, in words.

    >>> account(Picture(np.zeros((1, 1, 4), np.uint16), dpi=(300, 300)), "jpeg")
    'kept: DPI; converted: alpha flattened on white, 16 bits rounded to 8'
    """
    held = _as_held(picture, output_format)
    converted = [*picture.converted]
    kept = [*_carried(held)]
    if picture.alpha is not None:
        if output_format == "jpeg":
            converted.append("alpha flattened on white")
        else:
            kept.append("alpha")
    if picture.samples.dtype == np.uint16:
        if output_format in ("jpeg", "webp"):
            converted.append("16 bits rounded to 8")
        else:
            kept.append("16 bits")
    if picture.grey and not _written_grey(picture, output_format):
        converted.append("grey to RGB")
    dropped = [*picture.dropped, *(name for name in _carried(picture) if name not in kept)]
    parts = {"kept": kept, "converted": converted, "dropped": dropped}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def _carried(picture: Picture) -> dict[str, object]:
    """What a picture has besides its samples, by name."""
    fields = {
        "ICC profile": picture.icc_profile,
        "EXIF": picture.exif,
        "XMP": picture.xmp,
        "DPI": picture.dpi,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _as_held(picture: Picture, output_format: OutputFormat) -> Picture:
    """The picture less what the format, as it is written here, cannot hold besides samples."""
    exif, xmp, dpi = picture.exif, picture.xmp, picture.dpi
    if output_format == "jpeg":
        exif, xmp = (
            None if block is not None and len(block) > _LONGEST_JPEG_SEGMENT else block
            for block in (exif, xmp)
        )
    if output_format == "webp":
        dpi = None
    return replace(picture, exif=exif, xmp=xmp, dpi=dpi)


def _written_grey(picture: Picture, output_format: OutputFormat) -> bool:
    if not picture.grey or output_format == "webp":
        return False
    # Few programs read a TIFF of grey with alpha at 16 bits; Pillow does not.
    both = picture.alpha is not None and picture.samples.dtype == np.uint16
    return not (output_format == "tiff" and both)


@contextmanager
def _opened(source: bytes | Path, max_pixels: int) -> Iterator[tuple[Image.Image, bytes]]:
    """Open an encoded picture, refuse what is not read, and make any failure a BadImage.

    Yields:
        The picture, not decoded, and the first bytes of its file.
    """
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        head = file.read(_HEAD)
        file.seek(0)
        with _bad_if_it_fails(head), Image.open(file, formats=INPUT_FORMATS) as image:
            _refuse_what_cannot_be_read(image, max_pixels)
            yield image, head


@contextmanager
def _bad_if_it_fails(head: bytes) -> Iterator[None]:
    if not head:
        raise BadImage("the picture is empty: 0 bytes")
    # A decoder fed hostile bytes raises whatever it likes: struct.error, IndexError,
    # zlib.error, SyntaxError and more have been seen.
    try:
        yield
    except BadImage:
        raise
    except MemoryError as error:
        # What its pixels need was counted on the header: it is a length that is a lie.
        raise BadImage("the picture asks for more memory than its pixels need") from error
    except UnidentifiedImageError as error:
        if head.startswith(_MAGIC):
            raise BadImage("the picture's header is damaged") from error
        raise UnsupportedFormat(
            f"not a picture in a format that is read here: {', '.join(INPUT_FORMATS)}; "
            f"it begins with {head[:8]!r}"
        ) from error
    except Exception as error:
        raise BadImage(f"the picture cannot be decoded: {error}") from error


def _refuse_what_cannot_be_read(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"at most {max_pixels:,} input pixels are accepted; "
            f"this picture has {width * height:,} ({width}x{height})"
        )
    # A phone's MPO is a JPEG with previews behind it; the first frame is the photograph.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        frames = getattr(image, "n_frames", 2)
        raise AnimatedImage(
            f"one frame is accepted; this {image.format} has {frames}: animated and "
            "multi-page files are not enhanced"
        )
    if image.mode in ("I", "F"):
        raise UnsupportedFormat(
            "at most 16 bits a sample are read; this picture has 32-bit or float samples"
        )


def _source_format(image: Image.Image) -> str:
    return "jpeg" if image.format == "MPO" else str(image.format).lower()


def _has_16_bits(image: Image.Image, head: bytes) -> bool:
    if image.format == "PNG":
        return head[24] == 16
    return image.format == "TIFF" and 16 in image.tag_v2.get(258, ())  # type: ignore[attr-defined]


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; upright if what is said cannot be read."""
    try:
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _read(image: Image.Image, data: bytes) -> Picture:
    mode = image.mode
    if image.format == "PNG":
        image.load()  # what it says of itself may stand behind the pixels
    converted = [_CONVERTED_MODES[mode]] if mode in _CONVERTED_MODES else []
    # Pillow turns a TIFF upright while it loads it, and forgets that it did.
    stored = _orientation(image)
    dropped = [*metadata.other_metadata(image)]
    exif = xmp = None
    try:
        exif, xmp = metadata.read_exif(image), metadata.read_xmp(image)
    except Exception:  # as with pixels; but a picture is whole without it
        dropped.append("damaged EXIF")
    if _has_16_bits(image, data):
        samples, orientation = _read_16_bit(image, data), stored
    else:
        image.load()
        orientation = _orientation(image)
        samples = _read_8_bit(image)
    if stored != 1:
        converted.append(f"orientation {stored} to upright")
    grey = samples.shape[2] < 3
    if grey:
        samples = samples[..., [0, 0, 0, 1] if samples.shape[2] == 2 else [0, 0, 0]]
    icc_profile = image.info.get("icc_profile") if mode in _PROFILED_MODES else None
    return Picture(
        samples=_upright(samples, orientation),
        grey=grey,
        icc_profile=icc_profile or None,
        exif=exif,
        xmp=xmp,
        dpi=_turned(metadata.read_dpi(image), stored),
        source_format=_source_format(image),
        converted=tuple(converted),
        dropped=tuple(dropped),
    )


def _turned(dpi: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    return (dpi[1], dpi[0]) if dpi is not None and orientation >= 5 else dpi


def _read_8_bit(image: Image.Image) -> np.ndarray:
    """[h, w, channels] uint8 of a loaded picture: grey, grey and alpha, RGB or RGBA."""
    transparent = image.has_transparency_data
    if image.mode == "CMYK":
        image = _cmyk_to_srgb(image)
    if image.mode in _GREY_MODES:
        wanted = "LA" if transparent else "L"
    else:
        wanted = "RGBA" if transparent else "RGB"
    return np.atleast_3d(np.asarray(image if image.mode == wanted else image.convert(wanted)))


def _read_16_bit(image: Image.Image, data: bytes) -> np.ndarray:
    """[h, w, channels] uint16, as stored: Pillow keeps but the high byte of RGB."""
    extra: tuple[int, ...] = ()
    # Their import takes longer than decoding most pictures, and few have 16 bits.
    if image.format == "PNG":
        import imagecodecs

        samples = np.atleast_3d(imagecodecs.png_decode(data))
    else:
        import tifffile

        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = cast(tifffile.TiffPage, tiff.pages[0])
            samples = np.asarray(page.asarray())
            if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and samples.ndim == 3:
                samples = np.moveaxis(samples, 0, -1)
            samples = np.atleast_3d(samples)
            extra = tuple(page.extrasamples)
            if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
                samples = 65_535 - samples
            elif page.photometric not in (
                tifffile.PHOTOMETRIC.MINISBLACK,
                tifffile.PHOTOMETRIC.RGB,
            ):
                kind = tifffile.PHOTOMETRIC(page.photometric).name
                raise UnsupportedFormat(f"16-bit TIFF is read in grey and RGB, not {kind}")
    if samples.dtype != np.uint16 or samples.shape[2] > 4:
        raise UnsupportedFormat(
            f"at most 4 channels of unsigned 16-bit samples are read; "
            f"this picture has {samples.shape[2]} of {samples.dtype}"
        )
    if extra[:1] == (0,):  # not said to be alpha: Pillow leaves it out, too
        samples = samples[..., : -len(extra)]
    elif extra[:1] == (1,):  # alpha that the colours are multiplied by
        _divide_by_alpha(samples)
    return samples


def _divide_by_alpha(samples: np.ndarray) -> None:
    """Give colours back what was multiplied by alpha, the last channel, in place."""
    for row in samples:  # by rows, since 32 bits a sample would be as much again, twice
        alpha = row[:, -1:].astype(np.uint32)
        colours = (row[:, :-1] * np.uint32(65_535) + alpha // 2) // np.maximum(alpha, 1)
        row[:, :-1] = np.minimum(colours, 65_535)


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (TIFF 6.0, tag 274), for arrays."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


def _cmyk_to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except ImageCms.PyCMSError:
            pass  # a damaged profile says nothing about the colours
        else:
            return cast(Image.Image, converted)
    return image.convert("RGB")


def _to_pillow(picture: Picture) -> Image.Image:
    """A picture of 8 bits, flattened on white."""
    image = Image.fromarray(to_integer(_channels(picture, picture.grey), np.uint8))
    if picture.alpha is None:
        return image
    white = Image.new("L" if picture.grey else "RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _channels(picture: Picture, grey: bool) -> np.ndarray:
    """[h, w] or [h, w, n], n = 2, 3 or 4, contiguous: what is written."""
    samples = picture.samples
    if grey:
        samples = samples[..., 0] if picture.alpha is None else samples[..., [0, 3]]
    # A view of one pixel passes for contiguous with strides that encoders do not take.
    whole = samples.flags.owndata and samples.flags.c_contiguous
    return samples if whole else samples.copy()


def _encode_png(picture: Picture) -> bytes:
    import imagecodecs

    # Without Pillow's copy of 4 bytes a pixel. Paeth's filter with runs alone takes a third of the
    # time of level 3, and makes photographs smaller still; enlarged text, by half larger.
    png: bytes | bytearray = imagecodecs.png_encode(
        _channels(picture, picture.grey),
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
    inserted = [_png_chunk(*one) for one in chunks]
    return b"".join([view[:after_header], *inserted, view[after_header:]])


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _encode_webp(picture: Picture, quality: int) -> bytes:
    import imagecodecs

    samples = to_integer(_channels(picture, grey=False), np.uint8)
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
    chunks = {name: _riff_chunk(name, block) for name, block in about.items() if block}
    if not chunks:
        return bytes(webp)
    pixels = memoryview(webp)[12:]
    # Where alpha made libwebp write this chunk itself, another takes its place.
    alpha = bytes(pixels[:4]) == b"VP8X"
    flags = 0x10 * alpha + sum({b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}[one] for one in chunks)
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in reversed(picture.size))
    body: list[bytes | memoryview] = [
        b"WEBP",
        _riff_chunk(b"VP8X", struct.pack("<I", flags) + canvas),
        chunks.get(b"ICCP", b""),
        pixels[18 if alpha else 0 :],
        chunks.get(b"EXIF", b""),
        chunks.get(b"XMP ", b""),
    ]
    return b"".join([b"RIFF", struct.pack("<I", sum(map(len, body))), *body])


def _riff_chunk(name: bytes, block: bytes) -> bytes:
    return name + struct.pack("<I", len(block)) + block + b"\0" * (len(block) % 2)


def _encode_tiff(picture: Picture) -> bytes:
    import tifffile

    grey = _written_grey(picture, "tiff")
    samples = _channels(picture, grey)
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
        photometric="minisblack" if grey else "rgb",
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
