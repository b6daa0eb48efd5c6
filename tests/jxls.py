"""JPEG XL files whose header is written bit by bit, or whose boxes lie."""

import io
import struct
from functools import cache
from random import Random

import imagecodecs

from superres.codecs.headers import jxl as headers
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

    def data(self) -> bytes:
        return b"\xff\x0a" + self._number.to_bytes(self.length // 8 + 64, "little")


class _Counter(headers._Bits):
    read = 0

    def next(self, length: int) -> int:
        self.read += length
        return super().next(length)


def turned(data: bytes, orientation: int) -> bytes:
    """A codestream without a profile, and with this orientation besides: a field is inserted.

    Args:
        data: as imagecodecs writes it: its header has neither defaults alone, nor further fields.
        orientation: as EXIF numbers it.
    """
    counter = _Counter(data[2:])
    headers._read_size(counter)
    size_bits = counter.read
    counter = _Counter(data[2:])
    if headers._read_codestream(counter).grey:
        counter.enumerated()  # the rendering intent, where colours are not as usual
    colours_end = counter.read
    end = colours_end + 3  # no extensions; transforms as usual
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
