"""JPEG XL files whose header is written bit by bit, or whose boxes lie."""

import base64
import io
import struct
from functools import cache
from random import Random

import imagecodecs
import numpy as np

from superres.arrays import Size
from superres.codecs.headers import jxl as headers
from superres.codecs.headers import jxl_frames as frames
from superres.codecs.headers.isobmff import file_boxes


class Bits:
    """Writes numbers, the lowest bit of a byte first."""

    def __init__(self) -> None:
        self._number = self.length = 0

    def put(self, *numbers: tuple[int, int]) -> "Bits":
        """Write numbers, each with its count of bits."""
        for number, length in numbers:
            self._number |= number << self.length
            self.length += length
        return self

    def align(self) -> "Bits":
        """Go on at the next whole byte."""
        self.length = -(-self.length // 8) * 8
        return self

    def whole(self) -> bytes:
        """The bytes that were written."""
        return self._number.to_bytes(-(-self.length // 8), "little")

    def data(self) -> bytes:
        return b"\xff\x0a" + self._number.to_bytes(self.length // 8 + 64, "little")


def turned(data: bytes, orientation: int) -> bytes:
    """A codestream without a profile, and with this orientation besides: a field is inserted.

    Args:
        data: as imagecodecs writes it: its header has neither defaults alone, nor further fields.
        orientation: as EXIF numbers it.
    """
    reader = headers.Bits(data[2:])
    headers._read_size(reader)
    size_bits = reader.at
    end = headers._read_codestream(headers.Bits(data[2:])).end
    colours_end = end - 3  # no extensions; transforms as usual
    bits = int.from_bytes(data[2:], "little")
    assert not bits >> size_bits & 3
    new = Bits()
    new.put((bits & (1 << size_bits) - 1, size_bits), (0, 1), (1, 1), (orientation - 1, 3), (0, 3))
    start = size_bits + 2
    new.put((bits >> start & (1 << colours_end - start) - 1, colours_end - start))
    new.put((1, 1), (bits >> colours_end & 7, 3))  # tones as usual
    return new.data()[: 2 + -(-new.length // 8)] + data[2 + -(-end // 8) :]


_KINDS = (b"Exif", b"xml ", b"brob", b"prof", b"jumb", b"jbrd", b"jxlp", b"jxlc", b"free")


def with_lying_boxes(choose: Random, data: bytes) -> bytes:
    """A file in boxes to which others are added that say to be longer than they are, or expand."""
    parts, begin = [], 0
    for kind, _, end in file_boxes(io.BytesIO(data)):
        parts.append(data[begin:end])
        if kind not in (b"JXL ", b"ftyp") and choose.random() < 0.5:
            parts.append(_lying_box(choose))
        begin = end
    return b"".join([*parts, _lying_box(choose)])


def _lying_box(choose: Random) -> bytes:
    kind, body = choose.choice(_KINDS), choose.randbytes(choose.randrange(40))
    if kind == b"brob":
        body = choose.choice(_KINDS) + _expanding()
    length = choose.choice((len(body) + 8, len(body) + 8, 0, 50_000_000, 2**30, 2**31, 2**40))
    if length < 2**32:
        return struct.pack(">I4s", length, kind) + body
    return struct.pack(">I4sQ", 1, kind, length) + body


@cache
def _expanding() -> bytes:
    return bytes(imagecodecs.brotli_encode(bytes(40_000_000), level=1))


WITH_PROFILE = base64.b64decode(
    "/wpYMBDCW8OAhHkAVDWMydmi5nVsD318sQ9Rw0KLuEJLkHnqI+x5MuhiYThtJISdK2znkhitnZDRaLR0Bq8rDEDW"
    "0dYZAX7iuWpmrLJECmsABvxfWFrxK4ehrhOLLCt5KAQoWpvKSqeZ6vLO+kvOKzeQZR3fAEdfYXNlU09R6bAAa2fL"
    "AE1lS0tZc6i9Vg5Ap2mcoQI81dt//52nfBrvBNovpP/+u2+o//7brwjucqHAj3MH/UJ6f/333393EBQMGzMosjlQ"
    "6Q8ay4VRcy/zKzPz12dHUWVbvtwAdS2BUdng0CsUVhLEaMJcDggCAQBcAEsYixUA1Iwx6CIvEAHAIpFsCyTg9AUO"
)
"""16x12 pixels of (200, 60, 60) with ``tests.pictures.WIDE_PROFILE``, by cjxl 0.7 without loss."""


class _Flags(headers.Bits):
    """Notes where flags are."""

    def __init__(self, data: bytes, at: int) -> None:
        super().__init__(data, at)
        self.places: list[int] = []

    def flag(self) -> bool:
        self.places.append(self.at)
        return super().flag()


def layer(
    data: bytes, canvas: Size, *, kept_as: int | None = None, drawn: bool = True
) -> tuple[bytes, bytes]:
    """The header of a picture, and the only frame of another one as a layer in its corner.

    Args:
        data: as imagecodecs writes it, without alpha, of 256 to 2,048 pixels a side.
        canvas: (height, width) of the new picture.
        kept_as: the number under which later layers find it; None if it is the last.
        drawn: whether the canvas is kept, and not the layer; so it is if the layer is smaller.
    """
    data = data[2:]
    number = int.from_bytes(data, "little")

    def copied(start: int, end: int) -> tuple[int, int]:
        return number >> start & (1 << end - start) - 1, end - start

    reader = headers.Bits(data)
    size = headers._read_size(reader)
    structure = headers._read_codestream(headers.Bits(data))
    header = Bits().put((0, 1), (2, 2), (canvas[0] - 1, 18), (0, 3), (2, 2), (canvas[1] - 1, 18))
    header.put(copied(reader.at, structure.end))
    start = -(-structure.end // 8) * 8
    flags = _Flags(data, start)
    _, coding = frames._read_header(flags, structure, size)
    crop, is_last = flags.places[2 + (not structure.xyb) :][:2]
    end = flags.at + 1  # with that of an order of its own, which only larger ones have
    frame = Bits().put(copied(start, crop), (1, 1), (0, 10), (0, 10))
    frame.put(*(part for side in reversed(size) for part in ((1, 2), (side - 256, 11))))
    covers = size[0] >= canvas[0] and size[1] >= canvas[1]
    frame.put(copied(crop + 1, is_last))
    if not covers:
        frame.put((0, 2))  # what it is drawn on
    frame.put((kept_as is None, 1))
    if kept_as is not None:
        frame.put((kept_as, 2))
        if covers:
            frame.put((not drawn, 1))
    frame.put(copied(is_last + 1, end))
    assert frames._end(flags, frames.Frame(size, last=True), coding) == len(data)
    return b"\xff\x0a" + header.whole(), frame.whole() + data[-(-end // 8) :]


def with_layers(choose: Random, most: int) -> bytes:
    """A picture with up to so many layers, of any size, kept anywhere."""
    canvas = choose.choice((20, *_SIDES)), choose.choice((20, *_SIDES))
    lossy, grey = choose.random() < 0.5, choose.random() < 0.5
    sides = _SIDES if choose.random() < 0.5 else [min(_SIDES)]

    def one(kept_as: int | None) -> tuple[bytes, bytes]:
        data = _flat(choose.choice(sides), choose.choice(sides), lossy=lossy, grey=grey)
        return layer(data, canvas, kept_as=kept_as, drawn=choose.random() < 0.5)

    layers = [one(choose.randrange(4))[1] for _ in range(choose.randrange(most))]
    header, last = one(None)
    return header + b"".join(layers) + last


_SIDES = (300, 900, 1800)


@cache
def _flat(height: int, width: int, *, lossy: bool, grey: bool) -> bytes:
    samples = np.full((height, width) if grey else (height, width, 3), 90, np.uint8)
    return bytes(imagecodecs.jpegxl_encode(samples, level=80 if lossy else 101, effort=1))
