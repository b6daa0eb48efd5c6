"""The frames of a JPEG XL (ISO/IEC 18181-1, annex F): how large each is, and where it ends."""

from collections.abc import Iterator
from typing import NamedTuple

from superres.arrays import Size
from superres.codecs.headers.jxl import Bits, JxlStructure
from superres.codecs.headers.jxl_entropy import skip_permutation

_REGULAR, _DC, _REFERENCE, _SKIPPED = range(4)
_REPLACE, _ADD, _BLEND, _ALPHA_ADD, _MULTIPLY = range(5)
_USES_DC_FRAME = 32
_CROPS = ((0, 8), (256, 11), (2304, 14), (18_688, 30))
_SECTIONS = ((0, 10), (1024, 14), (17_408, 22), (4_211_712, 30))
_BLOCK = 8
_PLACES = 4


class Frame(NamedTuple):
    """A frame: the picture or a layer of it, or what other frames take parts of."""

    size: Size
    """(height, width) in pixels of the picture, as it is decoded."""
    last: bool
    kept_as: int | None = None
    """Where later frames find it: four places for pictures, and four for smaller ones."""
    drawn: bool = True
    """Whether what is kept is the canvas that it is drawn on, and not the frame."""


class _Coding(NamedTuple):
    """How a frame is divided into sections."""

    modular: bool
    group_shift: int
    subsampling: tuple[int, int]
    """Of chroma at most, down and across, as powers of two."""
    upsampling: int
    passes: int


def frames(codestream: bytes, structure: JxlStructure, start: int) -> Iterator[Frame]:
    """Read the headers of the frames.

    Args:
        codestream: all of it, from its signature on.
        structure: of its header.
        start: the byte at which the first frame begins.

    Raises:
        BadImage: damaged.
    """
    if structure.preview is not None:
        bits = Bits(codestream, 8 * start)
        start = _end(bits, *_read_header(bits, structure, structure.preview))
    frame = None
    while frame is None or not frame.last:
        bits = Bits(codestream, 8 * start)
        frame, coding = _read_header(bits, structure, structure.size)
        yield frame  # before its table is read, whose length its size tells
        if not frame.last:
            start = _end(bits, frame, coding)


def _read_header(bits: Bits, structure: JxlStructure, canvas: Size) -> tuple[Frame, _Coding]:
    if bits.flag():  # all as usual
        return Frame(canvas, last=True), _Coding(False, 1, (0, 0), 1, 1)
    kind, modular, flags = bits.next(2), bits.flag(), bits.long()
    ycbcr = not structure.xyb and bits.flag()
    subsampling, upsampling = (0, 0), 1
    if not flags & _USES_DC_FRAME:
        if ycbcr:
            modes = [bits.next(2) for _ in range(3)]
            subsampling = (
                int(any(one in (1, 3) for one in modes)),
                int(not {1, 2}.isdisjoint(modes)),
            )
        upsampling = 1 << bits.next(2)
        bits.next(2 * structure.channels)
    group_shift = 1
    if modular:
        group_shift = bits.next(2)
    elif structure.xyb:
        bits.next(6)
    passes = _read_passes(bits) if kind != _REFERENCE else 1
    level = bits.next(2) + 1 if kind == _DC else 0
    size, partial = _read_crop(bits, kind, canvas) if kind != _DC else (canvas, False)
    replaces, last, kept_as, drawn = False, False, None, kind in (_REGULAR, _SKIPPED)
    if kind in (_REGULAR, _SKIPPED):
        replaces = _read_blending(bits, structure.channels, partial=partial) == _REPLACE
        for _ in range(structure.channels):
            _read_blending(bits, structure.channels, partial=partial)
        last = bits.flag()
    if kind != _DC and not last:
        kept_as = bits.next(2)
        if kind == _REFERENCE or (replaces and not partial):
            drawn = not bits.flag() and drawn
    bits.skip_name()
    _skip_filters(bits, modular=modular)
    bits.skip_extensions()
    height, width = (-(-side // (1 << 3 * level)) for side in size)
    if kind == _DC:
        kept_as = _PLACES + level - 1
    return (
        Frame((height, width), last, kept_as, drawn),
        _Coding(modular, group_shift, subsampling, upsampling, passes),
    )


def _read_passes(bits: Bits) -> int:
    passes = bits.choice((1, 0), (2, 0), (3, 0), (4, 3))
    if passes > 1:
        smaller = bits.choice((0, 0), (1, 0), (2, 0), (3, 1))
        bits.next(2 * (passes - 1) + 2 * smaller)
        for _ in range(smaller):
            bits.choice((0, 0), (1, 0), (2, 0), (0, 3))
    return passes


def _read_crop(bits: Bits, kind: int, canvas: Size) -> tuple[Size, bool]:
    """(height, width), and whether some of the canvas is outside."""
    if not bits.flag():
        return canvas, False
    left = top = 0
    if kind != _REFERENCE:
        left, top = _signed(bits.choice(*_CROPS)), _signed(bits.choice(*_CROPS))
    width, height = bits.choice(*_CROPS), bits.choice(*_CROPS)
    covers = left <= 0 and top <= 0 and left + width >= canvas[1] and top + height >= canvas[0]
    return (height, width), kind != _REFERENCE and not covers


def _signed(number: int) -> int:
    return -(number + 1) // 2 if number & 1 else number // 2


def _read_blending(bits: Bits, channels: int, *, partial: bool) -> int:
    mode = bits.choice((_REPLACE, 0), (_ADD, 0), (_BLEND, 0), (_ALPHA_ADD, 2))
    by_alpha = channels > 0 and mode in (_BLEND, _ALPHA_ADD)
    if by_alpha:
        bits.choice((0, 0), (1, 0), (2, 0), (3, 3))
    if by_alpha or mode == _MULTIPLY:
        bits.next(1)
    if mode != _REPLACE or partial:
        bits.next(2)
    return mode


def _skip_filters(bits: Bits, *, modular: bool) -> None:
    if bits.flag():  # as usual
        return
    if bits.flag() and bits.flag():  # Gaborish, with weights of its own
        bits.skip_halves(6)
    if bits.next(2):  # preserves edges
        if not modular and bits.flag():
            bits.skip_halves(8)
        if bits.flag():
            bits.skip_halves(5)
        if bits.flag():
            bits.skip_halves(3 if modular else 4)
        if modular:
            bits.skip_halves(1)
    bits.skip_extensions()


def _end(bits: Bits, frame: Frame, coding: _Coding) -> int:
    """The byte behind a frame: its sections have the lengths that its table says."""
    group = 128 << coding.group_shift
    groups = dc_groups = 1
    for side, subsampled in zip(frame.size, coding.subsampling, strict=True):
        coded = -(-side // coding.upsampling)
        blocks = -(-coded // (_BLOCK << subsampled)) << subsampled
        groups *= -(-coded // group)
        dc_groups *= -(-blocks // group)
    sections = groups * coding.passes
    if sections > 1:
        sections += 2 + dc_groups
    bits.check(12 * sections)  # of which each takes as many at least
    if bits.flag():
        skip_permutation(bits, sections)
    bits.align()
    total = sum(bits.choice(*_SECTIONS) for _ in range(sections))
    return bits.align() + total
