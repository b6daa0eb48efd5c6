"""Encoded pictures: bytes <-> Picture. The bytes decide the format; a file's name never does.

:mod:`superres.codecs.table` has all formats; each has a module here.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from superres.arrays import Size
from superres.codecs import foreign
from superres.codecs.coded_bytes import coded_bytes
from superres.codecs.format import Format
from superres.codecs.limits import (
    MAX_INPUT_PIXELS,
    MAX_OUTPUT_PIXELS,
    check_output_size,
    held,
    profile_fits,
)
from superres.codecs.table import (
    FORMATS,
    INPUT_FORMATS,
    INPUT_SUFFIXES,
    MEDIA_TYPES,
    OUTPUT_FORMATS,
    OUTPUT_SUFFIXES,
    SUFFIXES,
    OutputFormat,
    in_words,
)
from superres.errors import BadImage, BadRequest, UnsupportedFormat
from superres.picture import Header, Picture, to_srgb, without_metadata

__all__ = [
    "DEFAULT_QUALITY",
    "FORMATS",
    "INPUT_FORMATS",
    "INPUT_SUFFIXES",
    "MAX_INPUT_PIXELS",
    "MAX_OUTPUT_PIXELS",
    "MEDIA_TYPES",
    "OUTPUT_FORMATS",
    "OUTPUT_SUFFIXES",
    "SUFFIXES",
    "Format",
    "Header",
    "OutputFormat",
    "Picture",
    "check_output",
    "conversion_notes",
    "decode",
    "default_output_format",
    "encode",
    "in_words",
    "is_recognised",
    "probe",
    "to_srgb",
    "without_metadata",
]

DEFAULT_QUALITY = 92


def probe(source: bytes | Path, *, max_pixels: int = MAX_INPUT_PIXELS) -> Header:
    """Read what the header of an encoded picture tells; no pixel is decoded.

    Of a file whose end is missing, EXIF is missing where it is behind the pixels, and with it an
    orientation that swaps height and width.

    Args:
        source: the encoded file, or its path; then little more than the header is read.
        max_pixels: most input pixels accepted.

    Raises:
        UnsupportedFormat, AnimatedImage, ImageTooLarge, BadImage: as :func:`decode`, as far
            as the header shows it.
        OSError: no such file.
    """
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        head = file.read(foreign.HEAD)
        file.seek(0)
        with _any_failure_is_a_bad_image():
            return _recognised(head).probe(file, max_pixels)


def decode(data: bytes, *, max_pixels: int = MAX_INPUT_PIXELS) -> Picture:
    """Decode an encoded picture in one of :data:`FORMATS`.

    Palettes, bilevel and YCbCr become RGB; CMYK becomes sRGB by its own profile where it
    has one. More than 8 bits a sample become 16, in grey and RGB.

    Args:
        data: the encoded file.
        max_pixels: most input pixels accepted; checked on the header.

    Raises:
        UnsupportedFormat: not one of these formats, or samples of 32 bits or floats.
        AnimatedImage: more than one frame or page.
        ImageTooLarge: more than ``max_pixels``.
        BadImage: empty, truncated or damaged.
    """
    with _any_failure_is_a_bad_image():
        picture = _recognised(data).decode(data, max_pixels)
        return replace(picture, coded_bytes=coded_bytes(data, picture))


def encode(picture: Picture, output_format: OutputFormat, quality: int = DEFAULT_QUALITY) -> bytes:
    """Encode a picture with all that the format holds of it; :func:`conversion_notes` names it.

    PNG and TIFF are lossless and keep alpha and 16 bits; WebP keeps alpha; AVIF keeps alpha and
    10 bits; JPEG XL keeps alpha and 16 bits, in sRGB; JPEG (4:4:4) is flattened on white.

    Args:
        picture: what to encode.
        output_format: one of :data:`OUTPUT_FORMATS`.
        quality: 1 to 100, for lossy formats.

    Raises:
        BadRequest: quality out of range.
        ImageTooLarge: a side is longer, or there are more pixels, than the format can hold.
        UnsupportedFormat: not a format that is written here.
    """
    check_output(picture.size, output_format)
    if not 1 <= quality <= 100:
        raise BadRequest(f"quality is 1 to 100, not {quality}")
    row = FORMATS[output_format]
    assert row.encode is not None  # noqa: S101
    if not profile_fits(picture, row.limits):
        picture = to_srgb(picture)
    return row.encode(held(picture, row.limits), quality)


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
    check_output_size(size, output_format, FORMATS[output_format].limits)


def default_output_format(picture: Picture | Header) -> OutputFormat:
    """Return the picture's own format where it is written here, else PNG."""
    return picture.source_format if picture.source_format in OUTPUT_FORMATS else "png"


def conversion_notes(picture: Picture, output_format: OutputFormat) -> str:
    """Say what of a file is kept, converted and dropped when its picture is encoded.

    >>> conversion_notes(Picture(np.zeros((1, 1, 4), np.uint16), dpi=(300, 300)), "jpeg")
    'kept: DPI; converted: alpha flattened on white, 16 bits rounded to 8'
    """
    limits = FORMATS[output_format].limits
    written = held(picture, limits)
    converted = [*picture.converted]
    kept = [*written.metadata]
    if picture.alpha is not None:
        if limits.alpha:
            kept.append("alpha")
        else:
            converted.append("alpha flattened on white")
    if picture.samples.dtype == np.uint16:
        if limits.bits == 16:
            kept.append("16 bits")
        else:
            converted.append(f"16 bits rounded to {limits.bits}")
    if picture.grey and not written.grey:
        converted.append("grey to RGB")
    dropped = [*picture.dropped, *(name for name in picture.metadata if name not in kept)]
    if not profile_fits(picture, limits):
        converted.append("ICC profile to sRGB")
        dropped.remove("ICC profile")
    parts = {"kept": kept, "converted": converted, "dropped": dropped}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def is_recognised(head: bytes) -> bool:
    """Whether a file that begins so is in a format that is read here, sound or damaged."""
    try:
        _recognised(head)
    except BadImage:
        return False
    return True


def _recognised(head: bytes) -> Format:
    """The format of a file, by its first bytes."""
    if not head:
        raise BadImage("the picture is empty: 0 bytes")
    for row in FORMATS.values():
        if row.is_format_of(head[: foreign.HEAD]):
            return row
    read = ", ".join(INPUT_FORMATS)
    if name := foreign.named(head):
        raise UnsupportedFormat(f"{name}; the formats that are read here are {read}")
    raise UnsupportedFormat(
        f"not a picture in a format that is read here: {read}; it begins with {head[:8]!r}"
    )


@contextmanager
def _any_failure_is_a_bad_image() -> Iterator[None]:
    # A decoder fed hostile bytes raises whatever it likes: struct.error, IndexError,
    # zlib.error, SyntaxError and more have been seen.
    try:
        yield
    except BadImage:
        raise
    except MemoryError as error:
        # What its pixels need was counted on the header: it is a length that is a lie.
        raise BadImage("the picture asks for more memory than its pixels need") from error
    except Exception as error:
        raise BadImage(f"the picture cannot be decoded: {error}") from error
