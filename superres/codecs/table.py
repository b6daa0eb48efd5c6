"""The one table of formats.

Everything that depends on the formats reads it: decoding and encoding, the page, ``Accept``, the
command, the documentation. A new format is a module beside this one and a row here; one that is
written also has its name in :data:`OutputFormat`.
"""

from typing import Literal

from superres.codecs import avif, gif_bmp, heif, jpeg, jxl, png, tiff, webp
from superres.codecs.format import Format
from superres.codecs.limits import Limits

OutputFormat = Literal["png", "jpeg", "webp", "avif", "jxl", "tiff"]
"""Names of the formats that are written."""

FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format(
            name="png",
            label="PNG",
            magic=(b"\x89PNG",),
            suffixes=(".png",),
            media_type="image/png",
            probe=png.probe,
            decode=png.decode,
            encode=png.encode,
            limits=Limits(longest_profile=png.LONGEST_PROFILE),
            shown_by_browsers=True,
        ),
        Format(
            name="jpeg",
            label="JPEG",
            magic=(jpeg.MAGIC,),
            suffixes=(".jpg", ".jpeg"),
            media_type="image/jpeg",
            probe=jpeg.probe,
            decode=jpeg.decode,
            encode=jpeg.encode,
            limits=Limits(
                longest_side=jpeg.LONGEST_SIDE,
                longest_metadata=jpeg.LONGEST_SEGMENT,
                alpha=False,
                bits=8,
            ),
            lossy=True,
            shown_by_browsers=True,
        ),
        Format(
            name="webp",
            label="WebP",
            magic=(b"RIFF",),
            suffixes=(".webp",),
            media_type="image/webp",
            probe=webp.probe,
            decode=webp.decode,
            encode=webp.encode,
            limits=Limits(
                longest_side=webp.LONGEST_SIDE,
                most_pixels=webp.MOST_PIXELS,
                bits=8,
                grey=False,
                dpi=False,
            ),
            lossy=True,
            shown_by_browsers=True,
            decoder_bytes_per_pixel=webp.DECODER_BYTES_PER_PIXEL,
            encoder_bytes_per_alpha_pixel=webp.ENCODER_BYTES_PER_ALPHA_PIXEL,
        ),
        Format(
            name="avif",
            label="AVIF",
            magic=(),
            suffixes=(".avif",),
            media_type="image/avif",
            probe=avif.probe,
            decode=avif.decode,
            encode=avif.encode,
            recognises=avif.recognises,
            limits=Limits(longest_side=avif.LONGEST_SIDE, bits=avif.BITS, dpi=False),
            lossy=True,
            shown_by_browsers=True,
            decoder_bytes_per_pixel=avif.DECODER_BYTES_PER_PIXEL,
            encoder_bytes_per_pixel=avif.ENCODER_BYTES_PER_PIXEL,
        ),
        Format(
            name="jxl",
            label="JPEG XL",
            magic=jxl.MAGIC,
            suffixes=(".jxl",),
            media_type="image/jxl",
            probe=jxl.probe,
            decode=jxl.decode,
            encode=jxl.encode,
            # The library writes a profile where no other reads it.
            limits=Limits(longest_profile=0, dpi=False),
            lossy=True,
            decoder_bytes_per_pixel=jxl.DECODER_BYTES_PER_PIXEL,
            encoder_bytes_per_pixel=jxl.ENCODER_BYTES_PER_PIXEL,
        ),
        Format(
            name="heif",
            label="HEIC",
            magic=(),
            suffixes=(".heic", ".heif", ".hif"),
            media_type="image/heic",
            probe=heif.probe,
            decode=heif.decode,
            recognises=heif.recognises,
            imports=("pi_heif",),
            decoder_bytes_per_pixel=heif.DECODER_BYTES_PER_PIXEL,
        ),
        Format(
            name="tiff",
            label="TIFF",
            magic=tiff.MAGIC,
            suffixes=(".tif", ".tiff"),
            media_type="image/tiff",
            probe=tiff.probe,
            decode=tiff.decode,
            encode=tiff.encode,
            # Few programs read a TIFF of grey with alpha at 16 bits; Pillow does not.
            limits=Limits(grey_alpha_16_bits=False),
            decoder_bytes_per_pixel=tiff.DECODER_BYTES_PER_PIXEL,
        ),
        Format(
            name="bmp",
            label="BMP",
            magic=(b"BM",),
            suffixes=(".bmp",),
            media_type="image/bmp",
            probe=gif_bmp.probe_bmp,
            decode=gif_bmp.decode_bmp,
        ),
        Format(
            name="gif",
            label="still GIF",
            magic=(b"GIF8",),
            suffixes=(".gif",),
            media_type="image/gif",
            probe=gif_bmp.probe_gif,
            decode=gif_bmp.decode_gif,
        ),
    )
}
"""All formats, by name. All are read; those with an encoder are written."""

_WRITTEN: dict[OutputFormat, Format] = {
    row.name: row  # type: ignore[misc]  # a test compares OutputFormat with the table
    for row in FORMATS.values()
    if row.encode is not None
}
OUTPUT_FORMATS: tuple[OutputFormat, ...] = tuple(_WRITTEN)
MEDIA_TYPES: dict[OutputFormat, str] = {name: row.media_type for name, row in _WRITTEN.items()}
SUFFIXES: dict[OutputFormat, str] = {name: row.suffixes[0] for name, row in _WRITTEN.items()}
"""The suffix that a result gets, by format."""
OUTPUT_SUFFIXES: dict[str, OutputFormat] = {
    suffix: name for name, row in _WRITTEN.items() for suffix in row.suffixes
}
"""The format that a result has, by the suffix that a user gives it."""

INPUT_FORMATS = tuple(name.upper() for name in FORMATS)
INPUT_SUFFIXES = {suffix for row in FORMATS.values() for suffix in row.suffixes}


def in_words(conjunction: str, *, lossy: bool = False) -> str:
    """List the formats that are read, or the lossy ones that are written, for a text.

    >>> in_words("and", lossy=True)
    'JPEG, WebP, AVIF and JPEG XL'
    """
    *first, last = (row.label for row in FORMATS.values() if row.lossy or not lossy)
    return f"{', '.join(first)} {conjunction} {last}" if first else last
