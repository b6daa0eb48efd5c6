"""The sequence header and the frame of a still AV1 picture (AV1 Bitstream, section 5)."""

from typing import NamedTuple

from superres.arrays import Size
from superres.codecs.headers.bits import Bits
from superres.codecs.headers.isobmff import Budget, damaged
from superres.errors import UnsupportedFormat

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY_FRAME = 0
_LONGEST_HEADER = 256
"""Bytes; what is read of one ends before."""


class Coded(NamedTuple):
    """What a codec's parameters say of a coded picture."""

    size: Size
    bits: int
    grey: bool


class _Sequence(NamedTuple):
    """What is needed of a sequence header to read how the frame begins."""

    coded: Coded
    reduced: bool
    timed: bool
    """Whether frames have times of their own."""
    selects_tools: bool
    """Whether each frame says if it has tools for drawn content."""
    tools: bool
    selects_integers: bool
    identifier_bits: int


def read_still(data: bytes, parts: Budget) -> Coded:
    """Read what a decoder makes of the data of an item: one key frame, of the sequence's size.

    Args:
        data: the data.
        parts: what the parts of the data are counted on.

    Raises:
        BadImage: damaged, or its parts say different things.
        UnsupportedFormat: several frames or layers.
    """
    sequence: _Sequence | None = None
    frames = at = number = 0
    most = parts.left
    while at < len(data) and number <= most:
        number += 1
        header = data[at]
        at += 1 + (header >> 2 & 1)
        if header >> 1 & 1:
            if at < len(data) and data[at] < 128:
                length, at = data[at], at + 1
            else:
                length, at = _length(data, at)
        else:
            length = len(data) - at
        kind, start = header >> 3 & 15, data[at : at + min(length, _LONGEST_HEADER)]
        if kind == _SEQUENCE:
            found = _read_sequence(Bits(start))
            if sequence is not None and found != sequence:
                raise damaged("it has two sequence headers")
            sequence = found
        elif kind in (_FRAME_HEADER, _FRAME):
            frames += 1
            if sequence is None:
                raise damaged("its frame comes before its sequence header")
            _check_frame(Bits(start), sequence)
        at += length
    parts.spend(number)
    if frames > 1:
        raise UnsupportedFormat(
            "AVIF of one layer is read; this one has several, for a preview: save it without"
        )
    if sequence is None or not frames:
        raise damaged("it has no AV1 frame")
    return sequence.coded


def read_configuration(av1c: bytes, size: Size) -> Coded:
    """What a configuration record says of a picture of that size, without the data of its item.

    Raises:
        IndexError: it ends too soon.
    """
    flags = av1c[2]
    depth = 8 if not flags & 64 else 12 if flags & 32 else 10
    return Coded(size, depth, bool(flags & 16))


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A number in LEB128, and where it ends."""
    number = 0
    for place in range(8):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at
    raise damaged("a part of its AV1 picture has no length")


def _read_sequence(bits: Bits) -> _Sequence:
    profile = bits.next(3)
    bits.next(1)  # still_picture
    reduced = bits.flag()
    timed = False
    if reduced:
        bits.next(5)  # level
    else:
        timed = _skip_operating_points(bits)
    width_bits, height_bits = bits.next(4) + 1, bits.next(4) + 1
    width, height = bits.next(width_bits) + 1, bits.next(height_bits) + 1
    identifier_bits = 0
    if not reduced and bits.flag():
        delta = bits.next(4) + 2
        identifier_bits = bits.next(3) + delta + 1
    bits.next(3)  # large superblocks, filters
    selects_tools = tools = selects_integers = True
    if not reduced:
        bits.next(4)  # prediction between frames
        ordered = bits.flag()
        if ordered:
            bits.next(2)
        selects_tools = bits.flag()
        tools = selects_tools or bits.flag()
        if tools:
            selects_integers = bits.flag()
            if not selects_integers:
                bits.next(1)
        if ordered:
            bits.next(3)
    bits.next(3)  # super-resolution, filters
    high = bits.flag()
    depth = 12 if high and profile == 2 and bits.flag() else 10 if high else 8
    grey = profile != 1 and bits.flag()
    return _Sequence(
        Coded((height, width), depth, grey),
        reduced,
        timed,
        selects_tools,
        tools,
        selects_integers,
        identifier_bits,
    )


def _skip_operating_points(bits: Bits) -> bool:
    """Read on to the size; whether frames have times of their own."""
    model_bits, timed = 0, False
    if bits.flag():  # timing
        bits.next(64)
        equal = bits.flag()
        if equal:
            bits.exponential_golomb()
        if bits.flag():
            model_bits = bits.next(5) + 1
            bits.next(42)
            timed = not equal
    delays = bits.flag()
    for _ in range(bits.next(5) + 1):
        bits.next(12)
        if bits.next(5) > 7:
            bits.next(1)
        if model_bits and bits.flag():
            bits.next(2 * model_bits + 1)
        if delays and bits.flag():
            bits.next(4)
    return timed


def _check_frame(bits: Bits, sequence: _Sequence) -> None:
    """Return if a frame is a key frame that is shown, and as large as the sequence says."""
    if sequence.reduced:
        return  # what it is goes without saying
    if bits.flag():
        raise damaged("its frame shows another one")
    if bits.next(2) != _KEY_FRAME or not bits.flag():
        raise UnsupportedFormat("AVIF of one key frame is read; this one has other frames")
    if sequence.timed:
        raise UnsupportedFormat("AVIF without times of frames is read; this one has such")
    bits.next(1)  # disable_cdf_update
    tools = bits.flag() if sequence.selects_tools else sequence.tools
    if tools and sequence.selects_integers:
        bits.next(1)
    bits.next(sequence.identifier_bits)
    if bits.flag():
        raise damaged("its frame has another size than its sequence")
