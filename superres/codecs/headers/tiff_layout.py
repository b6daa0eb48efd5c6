"""How the samples of a TIFF are stored, and which of these ways are read."""

from dataclasses import dataclass

from superres.errors import BadImage, UnsupportedFormat

COMPRESSIONS = {
    1: "none",
    2: "CCITT RLE",
    3: "CCITT group 3",
    4: "CCITT group 4",
    5: "LZW",
    7: "JPEG",
    8: "Deflate",
    32_773: "PackBits",
    32_946: "Deflate",
    34_925: "LZMA",
    50_000: "Zstandard",
}
"""Compressions that are read. LZMA and Zstandard are limited by what a strip decodes to."""
_OTHER_COMPRESSIONS = {
    6: "old-style JPEG",
    9: "JBIG",
    10: "JBIG",
    32_766: "NeXT",
    32_809: "ThunderScan",
    32_908: "PixarFilm",
    32_909: "PixarLog",
    33_003: "JPEG 2000",
    33_004: "JPEG 2000",
    33_005: "JPEG 2000",
    34_661: "JBIG",
    34_676: "SGI Log",
    34_677: "SGI Log",
    34_712: "JPEG 2000",
    34_887: "LERC",
    34_892: "JPEG",
    34_933: "PNG",
    34_934: "JPEG XR",
    50_001: "WebP",
    50_002: "JPEG XL",
    52_546: "JPEG XL",
}
"""Names of others: their own headers would say a second time what the picture is."""
_JPEG, _CCITT = 7, (2, 3, 4)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, _PALETTE, CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, _PALETTE: 1, CMYK: 4, _YCBCR: 3, _LAB: 3}
"""Samples of a pixel's colour, by photometric interpretation."""
_OTHER_COLOURS = {
    4: "a transparency mask",
    9: "ICC Lab",
    10: "ITU Lab",
    32_844: "LogL (HDR)",
    32_845: "LogLuv (HDR)",
}
_UNSIGNED, FLOAT = 1, 3
_KINDS = {
    2: "signed integers",
    FLOAT: "floats",
    4: "undefined samples",
    5: "complex integers",
    6: "complex floats",
}
"""By SampleFormat."""
_ASSOCIATED, _UNASSOCIATED = 1, 2
"""Alpha that the colours are multiplied by, and alpha that they are not."""
_MOST_SAMPLES = 6


@dataclass(frozen=True)
class Layout:
    """How the samples are stored."""

    photometric: int
    bits: int
    """Of each sample."""
    sample_format: int
    """:data:`FLOAT`, or another."""
    samples: int
    """Of a pixel."""
    extra: tuple[int, ...]
    """What the samples besides the colour are, as ExtraSamples says it."""
    compression: int
    big_endian: bool
    big: bool
    """Whether it is a BigTIFF."""

    @property
    def colours(self) -> int:
        """Samples of a pixel's colour."""
        return _COLOURS[self.photometric]

    @property
    def alpha(self) -> int | None:
        """Which sample is alpha; None if none is."""
        alphas = (n for n, kind in enumerate(self.extra) if kind in (_ASSOCIATED, _UNASSOCIATED))
        return next((self.colours + n for n in alphas), None)

    @property
    def premultiplied(self) -> bool:
        """Whether the colours are multiplied by alpha."""
        return self.alpha is not None and self.extra[self.alpha - self.colours] == _ASSOCIATED

    @property
    def unread(self) -> int:
        """How many samples of a pixel are left out."""
        return len(self.extra) - (self.alpha is not None)

    @property
    def read_bits(self) -> int:
        """Bits of a sample as it is read: 8 or 16."""
        return 8 if self.bits <= 8 else 16

    @property
    def pillow(self) -> bool:
        """Whether Pillow reads the samples as they are meant; else tifffile does."""
        # Of a big-endian BigTIFF, it takes the mark for that of a small one.
        plain = self.bits <= 8 and self.sample_format != FLOAT and not self.extra
        return not (self.big and self.big_endian) and (
            plain or self.compression in (_JPEG, *_CCITT)
        )

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes of memory that decoding needs at most, where Pillow does not read the samples.

        Those of the file in one strip, and those of the picture; the strip before its byte order,
        or the prediction of floats, is changed; a copy of what is read, if that is not all, or not
        as it is stored.
        """
        stored = self.samples * -(-self.bits // 8)
        floats = self.sample_format == FLOAT
        channels = self.colours + (self.alpha is not None)
        copied = 2 * channels if floats or self.unread else 0
        cmyk = 20 if self.photometric == CMYK else 0
        changed = stored if floats or self.big_endian else 0
        return 2 * stored + changed + copied + cmyk + 8


def check_compression(compression: int, predictor: int, layout: Layout) -> None:
    """Return if a compression is one that is read.

    Raises:
        UnsupportedFormat: it is not.
    """
    if compression not in COMPRESSIONS:
        name = _OTHER_COMPRESSIONS.get(compression, f"number {compression}")
        raise UnsupportedFormat(
            f"TIFF is read with compression {', '.join(sorted({*COMPRESSIONS.values()}))}; this "
            f"picture has {name}: save it with Deflate or LZW"
        )
    if compression == _JPEG and layout.bits > 8:
        raise UnsupportedFormat(
            f"TIFF with JPEG is read at 8 bits a sample; this picture has {layout.bits}: save it "
            "with Deflate or LZW"
        )
    if predictor not in ((1, 2, 3) if layout.sample_format == FLOAT else (1, 2)):
        raise UnsupportedFormat(
            f"TIFF is read with predictor 1 or 2, and 3 for floats; this picture has {predictor}: "
            "save it with Deflate or LZW"
        )


def read_layout(
    *,
    photometric: int,
    bits: tuple[int, ...],
    formats: tuple[int, ...],
    samples: int,
    extra: tuple[int, ...] | None,
    compression: int,
    big_endian: bool,
    big: bool,
) -> Layout:
    """Check what the tags say together, and return the layout.

    Raises:
        UnsupportedFormat: samples that are not read, by what they are.
        BadImage: tags that contradict each other.
    """
    if not 1 <= samples <= _MOST_SAMPLES:
        raise UnsupportedFormat(
            f"1 to {_MOST_SAMPLES} samples a pixel are read; this picture has {samples:,}"
        )
    if photometric in _OTHER_COLOURS or photometric not in _COLOURS:
        name = _OTHER_COLOURS.get(photometric, f"photometric interpretation {photometric}")
        raise UnsupportedFormat(
            f"TIFF is read in grey, RGB, CMYK, YCbCr, Lab of 8 bits and palettes; this picture is "
            f"{name}: convert it to RGB"
        )
    if len({*bits}) > 1 or len({*formats}) > 1:
        raise UnsupportedFormat(
            f"TIFF is read with equal samples; this picture has samples of {bits} bits: save it "
            "with 8 or 16 bits"
        )
    colours = _COLOURS[photometric]
    if samples < colours:
        raise BadImage(
            f"the picture's header is damaged: it has {samples} samples a pixel, and its colours "
            f"need {colours}"
        )
    besides = samples - colours
    if extra is None:  # not said: alpha, as all readers take it
        extra = (_UNASSOCIATED, *[0] * (besides - 1)) if besides else ()
    layout = Layout(
        photometric=photometric,
        bits=bits[0],
        sample_format=formats[0] if formats else _UNSIGNED,
        samples=samples,
        extra=(*extra, *[0] * besides)[:besides],
        compression=compression,
        big_endian=big_endian,
        big=big,
    )
    _check_samples(layout)
    return layout


def _check_samples(layout: Layout) -> None:
    bits, photometric = layout.bits, layout.photometric
    kind = _KINDS.get(layout.sample_format, "unsigned integers")
    if layout.sample_format == FLOAT:
        read = bits in (16, 32)
    else:
        read = layout.sample_format == _UNSIGNED and (bits in (1, 2, 4) or 8 <= bits <= 16)
    if not read:
        raise UnsupportedFormat(
            f"TIFF is read with unsigned integers of 1, 2, 4 and 8 to 16 bits, and floats of 16 "
            f"and 32; this picture has {kind} of {bits}: save it with 8 or 16 bits"
        )
    if bits > 8 and photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        name = {CMYK: "CMYK", _YCBCR: "YCbCr", _LAB: "Lab"}.get(photometric, "a palette")
        raise UnsupportedFormat(
            f"TIFF with more than 8 bits a sample is read in grey and RGB; this picture is {name} "
            f"of {bits} bits: convert it to RGB"
        )
    if not layout.pillow and photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK):
        what = "extra samples" if layout.extra else "BigTIFF in big-endian order"
        name = {_YCBCR: "YCbCr", _LAB: "Lab"}.get(photometric, "a palette")
        raise UnsupportedFormat(
            f"TIFF with {what} is read in grey, RGB and CMYK; this picture is {name}: convert it "
            "to RGB"
        )
