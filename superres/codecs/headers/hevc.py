"""The parameter sets of HEVC (ITU-T H.265) that a HEIF's item has as its property ``hvcC``."""

import struct
from collections.abc import Iterator

from superres.codecs.format import BinaryFile
from superres.codecs.headers import exactly
from superres.codecs.headers.av1 import Coded
from superres.codecs.headers.bits import Bits
from superres.codecs.headers.isobmff import Budget, Extent, damaged
from superres.codecs.limits import MAX_SEGMENTS, check_header_cost

_VPS, _SPS, _PPS = 32, 33, 34
_LONGEST_SPS = 4096
_MOST_CUT = 64
"""Rows or columns: encoders fill up the last block, of at most 64x64."""
_GREY, _4_2_0, _4_2_2, _4_4_4 = range(4)


def read_configuration(hvcc: bytes) -> tuple[Coded, int]:
    """Read what a decoder makes of pictures with these parameters.

    Returns:
        that, and how many bytes the length of a unit has in the data of the items.

    Raises:
        BadImage: damaged, or its parameter sets say different things.
    """
    found = {_read_sps(body) for kind, body in _units(hvcc) if kind == _SPS}
    if len(found) != 1:
        raise damaged(f"it has {len(found)} sizes of HEVC pictures, and not one")
    (coded,) = found
    return coded, (hvcc[21] & 3) + 1


def check_data(file: BinaryFile, extents: list[Extent], length_bytes: int, parts: Budget) -> None:
    """Return if the data of an item bring no parameters of their own.

    Args:
        file: the file.
        extents: where the data are.
        length_bytes: bytes of the length of a unit.
        parts: what the units are counted on.

    Raises:
        BadImage: they do; or more units than are read.
    """
    number, most = 0, parts.left
    for offset, length in extents:
        at, end = offset, offset + length
        while at + length_bytes < end and number <= most:
            number += 1
            file.seek(at)
            head = exactly(file, length_bytes + 1)
            kind = head[-1] >> 1 & 63
            if kind in (_VPS, _SPS, _PPS):
                raise damaged("its HEVC data have parameters of their own")
            at += length_bytes + int.from_bytes(head[:-1], "big")
    parts.spend(number)


def _units(hvcc: bytes) -> Iterator[tuple[int, bytes]]:
    at = 23
    for _ in range(hvcc[22]):
        kind, count = hvcc[at] & 63, *struct.unpack_from(">H", hvcc, at + 1)
        at += 3
        check_header_cost("parameter sets of HEVC", count, MAX_SEGMENTS)
        for _ in range(count):
            (length,) = struct.unpack_from(">H", hvcc, at)
            at += 2
            yield kind, hvcc[at : at + length]
            at += length


def _read_sps(unit: bytes) -> Coded:
    """Read a sequence parameter set (7.3.2.2.1)."""
    bits = Bits(unit[2:_LONGEST_SPS].replace(b"\0\0\3", b"\0\0"))
    bits.next(4)
    layers = bits.next(3)
    bits.next(1 + 96)  # profile and level
    _skip_layers(bits, layers)
    bits.exponential_golomb()  # its number
    chroma = bits.exponential_golomb()
    if chroma > _4_4_4:
        raise damaged("its HEVC chroma format is unknown")
    separate = chroma == _4_4_4 and bits.flag()
    width, height = bits.exponential_golomb(), bits.exponential_golomb()
    if bits.flag():
        left, right, top, bottom = (bits.exponential_golomb() for _ in range(4))
        across = 2 if chroma in (_4_2_0, _4_2_2) else 1
        down = 2 if chroma == _4_2_0 else 1
        cut = across * (left + right), down * (top + bottom)
        if max(cut) > _MOST_CUT:
            raise damaged(f"more than {_MOST_CUT} rows or columns of its HEVC picture are cut off")
        width, height = width - cut[0], height - cut[1]
    if min(width, height) < 1:
        raise damaged("its HEVC picture has no pixels")
    depth = 8 + max(bits.exponential_golomb(), bits.exponential_golomb())
    return Coded((height, width), depth, chroma == _GREY or separate)


def _skip_layers(bits: Bits, layers: int) -> None:
    present = [(bits.flag(), bits.flag()) for _ in range(layers)]
    if layers:
        bits.next(2 * (8 - layers))
    for profile, level in present:
        bits.next(88 * profile + 8 * level)
