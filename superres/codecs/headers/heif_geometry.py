"""What is shown of a coded picture of HEIF and AVIF, and how it is turned."""

import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from superres.arrays import Size
from superres.codecs.headers.isobmff import Item, damaged
from superres.errors import UnsupportedFormat


class Transform(NamedTuple):
    """A mirror image or a rotation, in the order in which the file has them."""

    kind: bytes
    """``irot``: quarter turns against the clock; ``imir``: 0 swaps top and bottom, 1 the sides."""
    value: int


class Crop(NamedTuple):
    """What is shown of a coded picture, in its pixels."""

    top: int
    left: int
    height: int
    width: int


_ORIENTATIONS = {False: (1, 8, 3, 6), True: (2, 5, 4, 7)}
"""By whether the sides are swapped first, and quarter turns against the clock after that."""


def orientation_of(turns: Iterable[Transform]) -> int:
    """What mirror images and rotations do together, as the orientation of EXIF."""
    quarters, mirrored = 0, False
    for kind, value in turns:
        if kind == b"irot":
            quarters += value
        else:  # of what was turned by q quarters, it is that of the other one turned by -q
            quarters, mirrored = (0 if value else 2) - quarters, not mirrored
    return _ORIENTATIONS[mirrored][quarters % 4]


def read_shown(item: Item, size: Size) -> tuple[Crop, tuple[Transform, ...]]:
    """What is shown of a picture of that size, and how it is turned."""
    crop: Crop | None = None
    turns: list[Transform] = []
    for kind, body in item.properties:
        if kind == b"irot":
            turns.append(Transform(kind, body[0] & 3))
        elif kind == b"imir":
            turns.append(Transform(kind, body[0] & 1))
        elif kind == b"clap":
            if crop is not None or turns:
                raise damaged("it is cropped twice, or after it is turned")
            crop = _crop(body, size)
    if len(turns) > 8:
        raise damaged("it is turned more than 8 times")
    return crop or Crop(0, 0, *size), tuple(turns)


def _crop(clap: bytes, size: Size) -> Crop:
    """The clean aperture (ISO/IEC 14496-12, 12.1.4), in whole pixels."""
    numbers = struct.unpack_from(">IIIIiIiI", clap)
    width, height, right, down = (
        Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)
    )
    left, top = ((side - part) / 2 + move for side, part, move in (
        (size[1], width, right), (size[0], height, down)
    ))  # fmt: skip
    inside = left >= 0 and top >= 0 and left + width <= size[1] and top + height <= size[0]
    if not inside or width < 1 or height < 1:
        raise damaged("it is cropped to what is outside")
    if any(one.denominator != 1 for one in (width, height, left, top)):
        raise UnsupportedFormat("HEIF cropped to parts of pixels is not read: save it again")
    return Crop(int(top), int(left), int(height), int(width))
