"""The boxes of JPEG XL (ISO/IEC 18181-2), and the header of its codestream (18181-1)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from superres.arrays import Size
from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, exactly
from superres.codecs.headers.isobmff import damaged, file_boxes
from superres.codecs.limits import check_header_cost, several_frames
from superres.colour_profiles import profile_of_cicp
from superres.errors import UnsupportedFormat

CODESTREAM = b"\xff\x0a"
CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_HEADER_BYTES = 4096
"""More than the header of a codestream has, unless names of channels are long."""
_RGB, _GREY, _XYB = 0, 1, 2
_D65, _SRGB, _CUSTOM = 1, 1, 2
_SRGB_TRANSFER = 13
_ALPHA, _DEPTH, _SPOT, _MASK, _BLACK, _CFA, _THERMAL = range(7)
_NAMES = {_DEPTH: "depth map", _SPOT: "spot colour", _MASK: "selection mask", _THERMAL: "thermal"}
_MOST_CHANNELS = 16


@dataclass(frozen=True)
class JxlStructure(Structure):
    """That of a JPEG XL. Its ``size`` is that of the codestream, before it is turned upright.

    Its ``head`` is how the codestream begins.
    """

    end: int = field(compare=False)
    """In bits: where the profile of the codestream begins, or its first frame."""
    orientation: int = 1
    """As EXIF numbers it."""
    bits: int = 8
    """Of a sample, as it is coded."""
    floats: bool = False
    grey: bool = False
    alpha: bool = False
    premultiplied: bool = False
    plain: bool = True
    """Whether it is sRGB, which needs no profile."""
    left_out: tuple[str, ...] = ()
    """Further channels, by name."""
    channels: int = 0
    """Besides the colours."""
    xyb: bool = True
    """Whether the colours are coded as XYB."""
    profiled: bool = False
    """Whether the codestream has an ICC profile."""
    preview: Size | None = None
    """(height, width) of a small picture before the others."""

    @property
    def shown(self) -> Size:
        """(height, width), upright."""
        return self.size[::-1] if self.orientation >= 5 else self.size


class Bits:
    """Reads numbers one behind the other, the lowest bit of a byte first (18181-1, annex B)."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at
        """In bits."""

    def check(self, length: int) -> None:
        """Raise BadImage if so many are not there."""
        if self.at + length > 8 * len(self._data):
            raise damaged("its codestream ends in a header")

    def next(self, length: int) -> int:
        self.check(length)
        end = self.at + length
        number = int.from_bytes(self._data[self.at // 8 : -(-end // 8)], "little")
        number = number >> self.at % 8 & (1 << length) - 1
        self.at = end
        return number

    def align(self) -> int:
        """Go on at the next whole byte, and return which one that is."""
        self.at = -(-self.at // 8) * 8
        return self.at // 8

    def flag(self) -> bool:
        return bool(self.next(1))

    def choice(self, *distributions: tuple[int, int]) -> int:
        """U32: a number in so many bits, added to another, by the choice of the next two bits."""
        added, length = distributions[self.next(2)]
        return added + self.next(length)

    def enumerated(self) -> int:
        return self.choice((0, 0), (1, 0), (2, 4), (18, 6))

    def long(self) -> int:
        """U64."""
        kind = self.next(2)
        if kind < 3:
            return (0, 1, 17)[kind] + self.next(4 * kind)
        number, shift = self.next(12), 12
        while self.flag():
            length = 8 if shift < 60 else 4
            number |= self.next(length) << shift
            shift += length
            if length == 4:
                break
        return number

    def skip_halves(self, count: int) -> None:
        """F16: what it is does not matter here."""
        self.at += 16 * count

    def skip_extensions(self) -> None:
        """What later versions of the standard may add."""
        present = self.long()
        lengths = [self.long() for number in range(64) if present >> number & 1]
        self.at += sum(lengths)

    def skip_name(self) -> None:
        length = self.choice((0, 0), (0, 4), (16, 5), (48, 10))
        self.at += 8 * length


def read(file: BinaryFile) -> JxlStructure:
    """Read the boxes, and the header of the codestream.

    Raises:
        AnimatedImage: a sequence of frames.
        BadImage: damaged, or more work than is done for a header.
        UnsupportedFormat: HDR, or samples that are not read.
    """
    head = file.read(len(CONTAINER))
    file.seek(0)
    start = file.read(_HEADER_BYTES) if head != CONTAINER else _codestream(file)
    if start[:2] != CODESTREAM:
        raise damaged("its codestream does not begin as JPEG XL does")
    structure = _read_codestream(Bits(start, 8 * len(CODESTREAM)))
    return replace(structure, head=start)


def _codestream(file: BinaryFile) -> bytes:
    """How the codestream in the boxes begins."""
    start = b""
    for at, end in codestream_parts(file):
        file.seek(at)
        start += exactly(file, min(end - at, _HEADER_BYTES))
        if len(start) >= _HEADER_BYTES:
            break
    if not start:
        raise damaged("it has no codestream")
    return start


def codestream_parts(file: BinaryFile) -> Iterator[tuple[int, int]]:
    """Where the parts of the codestream in the boxes begin and end: one ``jxlc``, or ``jxlp``."""
    whole = True
    for kind, at, end in file_boxes(file):
        if kind == b"jxlc" and whole:
            yield at, end
            return
        if kind == b"jxlp":
            whole = False
            file.seek(at)
            (number,) = struct.unpack(">I", exactly(file, 4))
            if at + 4 < end:
                yield at + 4, end
            if number >> 31:  # the last
                return


def _read_codestream(bits: Bits) -> JxlStructure:
    size = _read_size(bits)
    if bits.flag():  # all as usual
        _skip_transforms(bits, xyb=True)
        return JxlStructure(size, b"", bits.at)
    orientation, preview, grey, plain, profiled = 1, None, False, True, False
    further = bits.flag()
    if further:
        orientation = bits.next(3) + 1
        if bits.flag():  # the size that is shown where nothing else is known
            _read_size(bits)
        if bits.flag():
            preview = _read_preview(bits)
        if bits.flag():
            raise several_frames("JPEG XL")
    floats, depth = _read_depth(bits)
    bits.next(1)  # modular, in 16 bits
    channels = bits.choice((0, 0), (1, 0), (2, 4), (1, 12))
    check_header_cost("further channels of JPEG XL", channels, _MOST_CHANNELS)
    found = [_read_channel(bits) for _ in range(channels)]
    xyb = bits.flag()
    if not bits.flag():
        profiled, grey, plain = _read_colours(bits)
    kinds = [kind for kind, _ in found]
    if _BLACK in kinds or _CFA in kinds:
        raise UnsupportedFormat(
            "JPEG XL is read in grey and RGB; this one is of CMYK, or of a camera's raw data"
        )
    alphas = [associated for kind, associated in found if kind == _ALPHA]
    others = tuple(_NAMES.get(kind, "further channel") for kind in kinds if kind != _ALPHA)
    if further and not bits.flag():  # how light it is
        bits.skip_halves(3)
        bits.next(1)
    bits.skip_extensions()
    _skip_transforms(bits, xyb=xyb)
    return JxlStructure(
        size,
        b"",
        bits.at,
        orientation=orientation,
        bits=depth,
        floats=floats,
        grey=grey,
        alpha=bool(alphas),
        premultiplied=any(alphas[:1]),
        plain=plain,
        left_out=others,
        channels=channels,
        xyb=xyb,
        profiled=profiled,
        preview=preview,
    )


def _read_size(bits: Bits) -> Size:
    lengths = ((1, 9), (1, 13), (1, 18), (1, 30))
    small = bits.flag()
    height = 8 * (bits.next(5) + 1) if small else bits.choice(*lengths)
    ratio = bits.next(3)
    if ratio:
        across, down = _RATIOS[ratio - 1]
        return height, height * across // down
    return height, 8 * (bits.next(5) + 1) if small else bits.choice(*lengths)


def _read_preview(bits: Bits) -> Size:
    lengths = ((1, 6), (65, 8), (321, 10), (1345, 12))
    eighths = ((16, 0), (32, 0), (1, 5), (33, 9))
    unit, distributions = (8, eighths) if bits.flag() else (1, lengths)
    height = unit * bits.choice(*distributions)
    ratio = bits.next(3)
    if ratio:
        across, down = _RATIOS[ratio - 1]
        return height, height * across // down
    return height, unit * bits.choice(*distributions)


def _read_depth(bits: Bits) -> tuple[bool, int]:
    if bits.flag():
        depth = bits.choice((32, 0), (16, 0), (24, 0), (1, 6))
        bits.next(4)
        return True, depth
    depth = bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
    if depth > 16:
        raise UnsupportedFormat(
            f"JPEG XL of at most 16 bits a sample is read; this one has {depth}"
        )
    return False, depth


def _read_channel(bits: Bits) -> tuple[int, bool]:
    """The kind of a further channel, and whether colours are multiplied by it."""
    if bits.flag():
        return _ALPHA, False
    kind = bits.enumerated()
    _read_depth(bits)
    bits.choice((0, 0), (3, 0), (4, 0), (1, 3))
    length = bits.choice((0, 0), (0, 4), (16, 5), (48, 10))
    check_header_cost("bytes of a channel's name", length, _HEADER_BYTES // _MOST_CHANNELS)
    bits.next(8 * length)
    associated = kind == _ALPHA and bits.flag()
    if kind == _SPOT:
        bits.next(4 * 16)
    elif kind == _CFA:
        bits.choice((1, 0), (0, 2), (3, 4), (19, 8))
    return kind, associated


def _read_colours(bits: Bits) -> tuple[bool, bool, bool]:
    """Whether there is a profile, whether there is grey alone, and whether it is sRGB.

    Raises:
        UnsupportedFormat: HDR.
    """
    profiled = bits.flag()
    space = bits.enumerated()
    grey = space == _GREY
    if profiled:
        return True, grey, False
    if space == _XYB:
        raise UnsupportedFormat("JPEG XL is read in grey and RGB; this one is shown in XYB")
    white = bits.enumerated()
    if white == _CUSTOM:
        _skip_chromaticity(bits)
    primaries = _SRGB
    if not grey:
        primaries = bits.enumerated()
        if primaries == _CUSTOM:
            for _ in range(3):
                _skip_chromaticity(bits)
    transfer = None
    if bits.flag():
        bits.next(24)  # a gamma, which sRGB has not
    else:
        transfer = bits.enumerated()
        if transfer in (16, 18):
            profile_of_cicp(1, transfer)  # says why not
    bits.enumerated()  # how colours are rendered
    return False, grey, (white, primaries, transfer) == (_D65, _SRGB, _SRGB_TRANSFER)


def _skip_chromaticity(bits: Bits) -> None:
    for _ in range(2):
        bits.choice((0, 19), (524_288, 19), (1_048_576, 20), (2_097_152, 21))


def _skip_transforms(bits: Bits, *, xyb: bool) -> None:
    """How colours become XYB, and how samples are enlarged."""
    if bits.flag():  # as usual
        return
    if xyb and not bits.flag():
        bits.skip_halves(16)
    kernels = bits.next(3)
    bits.skip_halves(sum(length for n, length in enumerate((15, 55, 210)) if kernels >> n & 1))
