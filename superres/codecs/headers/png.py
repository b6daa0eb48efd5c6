"""The chunks of PNG (https://www.w3.org/TR/png-3/)."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, any_but_zeros, exactly
from superres.codecs.headers.exif import check_block
from superres.codecs.limits import (
    MAX_CHUNKS,
    MAX_PROFILE_BYTES,
    MAX_SEGMENT_BYTES,
    MAX_SEGMENTS,
    MAX_XMP_BYTES,
    check_header_cost,
)
from superres.errors import BadImage, UnsupportedFormat

_LONGEST = {
    b"IHDR": 13,
    b"PLTE": 768,
    b"tRNS": 256,
    b"gAMA": 4,
    b"cHRM": 32,
    b"sRGB": 1,
    b"pHYs": 9,
    b"cICP": 4,
    b"acTL": 8,
    b"fcTL": 26,
}
"""Bytes of the chunks that Pillow reads and that have no more, by the standard."""
_ONCE = {b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL"}
_COLOURS = {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"}
"""Chunks that say what the colours mean. They are read here, and not shown to a decoder."""
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_PIXELS = {b"IDAT", b"fdAT"}
XMP, RAW_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"
"""Keywords of the texts that are read."""
_READ_TEXT = (XMP + b"\0", RAW_EXIF + b"\0")
_MOST_READ_TEXTS = 4
_SHOWN = {b"IHDR", b"PLTE", b"tRNS", b"pHYs", b"eXIf", b"acTL", b"fcTL", b"IEND", *_PIXELS}
"""Chunks that a decoder is shown. It would keep all others."""
_NAMED = {**dict.fromkeys(_TEXT, "text"), b"caBX": "C2PA"}
"""Names of what is left out."""
_IPHONE = (
    "this is an iPhone-optimised PNG (CgBI), which is no PNG by the standard: revert it with "
    "Apple's pngcrush -revert-iphone-optimizations, or export it again as PNG"
)
_PALETTE = 3
"""Colour type."""
_CHECKED = {*_COLOURS, *_TEXT, b"tRNS", b"pHYs", b"eXIf", b"acTL", b"fcTL"}
"""Chunks without which viewers do where their checksums are wrong."""
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_LONGEST_KEYWORD = 80
_HEADS_BYTES = 4_096
"""Bytes that are read at a time behind the first pixels: with them, the heads of many small chunks,
or that of one."""
_END = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True)
class _Chunk:
    kind: bytes
    at: int
    """Where it begins, with its length."""
    length: int
    """Bytes of its body."""

    @property
    def end(self) -> int:
        return self.at + 12 + self.length


@dataclass(frozen=True)
class PngStructure(Structure):
    """That of a PNG."""

    bits: int
    """Bits of a sample as they are read: 8 or 16."""
    depth: int
    """Bits of a sample as they are stored: 1, 2, 4, 8 or 16."""
    grey: bool
    about: dict[bytes, bytes]
    """Bodies of the chunks that say what the colours mean, and of the tRNS of a picture without a
    palette."""


def read(file: BinaryFile) -> PngStructure:
    """Read the chunks before the pixels, and EXIF also behind them.

    Of the first part of a file, what is not there does not count.

    Raises:
        UnsupportedFormat: an iPhone's own PNG.
        BadImage: damaged, or more work than is done for a header.
    """
    head = [exactly(file, 8)]
    if head[0] != b"\x89PNG\r\n\x1a\n":
        raise BadImage("the picture's header is damaged: its first 8 bytes are not PNG's")
    total, seen, texts = 0, set[bytes](), 0
    ihdr = b""
    about: dict[bytes, bytes] = {}
    exif = False
    for number, chunk in enumerate(_chunks(file), 1):
        if chunk.kind in _PIXELS:
            if not exif:
                head.append(_late_exif(file, chunk.end, number))
            file.seek(chunk.at)
            head.append(exactly(file, 12 if chunk.kind == b"fdAT" else 8))
            break
        total += chunk.length
        check_header_cost("chunks of PNG before the pixels", number, MAX_SEGMENTS)
        check_header_cost("bytes of PNG before the pixels", total, MAX_SEGMENT_BYTES)
        if chunk.kind in _ONCE and chunk.kind in seen:
            raise BadImage(f"the picture's header is damaged: {chunk.kind.decode()} is there twice")
        if chunk.length > _LONGEST.get(chunk.kind, chunk.length):
            raise BadImage(
                f"the picture's header is damaged: {chunk.kind.decode()} has {chunk.length:,} "
                f"bytes, and {_LONGEST[chunk.kind]} at most by the standard"
            )
        seen.add(chunk.kind)
        if number == 1 and chunk.kind == b"CgBI":
            raise UnsupportedFormat(_IPHONE)
        if number == 1 and chunk.kind != b"IHDR":
            raise BadImage("the picture's header is damaged: IHDR is not its first chunk")
        if chunk.kind in _TEXT and _is_metadata(file):
            texts += 1
            check_header_cost("texts with metadata", texts, _MOST_READ_TEXTS)
            check_header_cost("bytes of XMP", chunk.length, MAX_XMP_BYTES)
            continue
        if chunk.kind == b"iCCP":
            check_header_cost("bytes of iCCP", chunk.length, MAX_PROFILE_BYTES)
        if _is_unused(chunk.kind) and chunk.kind not in _COLOURS:
            continue
        file.seek(chunk.at)
        whole = exactly(file, chunk.length + 12)
        if chunk.kind in _CHECKED and not _is_right(whole):
            continue
        if chunk.kind == b"IHDR":
            ihdr = whole[8:-4]
        elif chunk.kind == b"eXIf":
            check_block(whole[8:-4])
            exif = True
        if chunk.kind in _COLOURS or (chunk.kind == b"tRNS" and ihdr[9:10] != bytes([_PALETTE])):
            about.setdefault(chunk.kind, whole[8:-4])
        else:
            head.append(whole)
    if len(ihdr) != 13:
        raise BadImage("the picture's header is damaged: IHDR does not have 13 bytes")
    width, height, depth, colour = struct.unpack_from(">IIBB", ihdr)
    return PngStructure(
        size=(height, width),
        head=b"".join(head),
        bits=16 if depth == 16 else 8,
        depth=depth,
        grey=colour in (0, 4),
        about=about,
    )


@dataclass(frozen=True)
class Needed:
    """What decoding needs of a PNG."""

    data: bytes
    """A file of the same picture: the chunks that a decoder is shown."""
    texts: dict[bytes, bytes]
    """The chunks of text with metadata, by keyword."""
    left_out: tuple[str, ...]
    """Names of what is not in ``data``."""
    completed: bool
    """Whether the end marker was missing."""


def needed(data: bytes) -> Needed:
    """Take out what decoding needs.

    EXIF is moved before the pixels, so that it is known without decoding them.

    Compressed texts are left out so: each can be a thousand times as long as its chunk. So are
    chunks that are not critical and whose checksums are wrong, as all viewers do.

    Raises:
        BadImage: more chunks than are read, or a critical one with a wrong checksum.
    """
    view, at, number, kind = memoryview(data), 8, 0, b""
    before: list[bytes | memoryview] = [view[:8]]
    pixels: list[bytes | memoryview] = []
    exif = moved = False
    texts: dict[bytes, bytes] = {}
    left_out: dict[str, None] = {}
    keyed = data[25:26] != bytes([_PALETTE])
    while kind != b"IEND" and at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        start, at = at, at + 12 + length
        number += 1
        if number > MAX_CHUNKS:
            check_header_cost("chunks of PNG", number, MAX_CHUNKS)
        metadata = kind in _TEXT and data.startswith(_READ_TEXT, start + 8)
        if metadata:
            check_header_cost("texts with metadata", len(texts) + 1, _MOST_READ_TEXTS)
            check_header_cost("bytes of XMP", length, MAX_XMP_BYTES)
        if kind in _CHECKED and (at > len(data) or not _is_right(view[start:at])):
            left_out[_damage(kind)] = None
        elif metadata:
            keyword = data[start + 8 : start + 8 + _LONGEST_KEYWORD].partition(b"\0")[0]
            texts.setdefault(keyword, data[start + 4 : at - 4])
        elif kind in _NAMED:
            left_out[_NAMED[kind]] = None
        elif kind not in _COLOURS and not _is_unused(kind) and not (keyed and kind == b"tRNS"):
            if kind in _CRITICAL and at <= len(data) and not _is_right(view[start:at]):
                raise BadImage(f"the picture is damaged: the checksum of {kind.decode()} is wrong")
            if kind != b"eXIf":
                (pixels if pixels or kind in _PIXELS else before).append(view[start:at])
            elif not exif:
                check_block(data[start + 8 : at - 4])
                before.append(view[start:at])
                exif, moved = True, bool(pixels)
    completed = kind != b"IEND" and not (kind in _PIXELS and at > len(data))
    if completed:
        pixels.append(_END)
    elif any_but_zeros(data, at):
        left_out["data behind the picture"] = None
    pieces = [*before, *pixels]
    whole = len(pieces) == number + 1 and not completed and not moved
    return Needed(data if whole else b"".join(pieces), texts, tuple(left_out), completed)


def _late_exif(file: BinaryFile, at: int, number: int) -> bytes:
    """The first sound chunk of EXIF among those that begin there; empty without one.

    Args:
        file: the file, or its first part.
        at: where the first of the chunks is.
        number: how many are in front of it.

    Raises:
        BadImage: more chunks than are read, or more work than is done for a header.
    """
    heads, start, total = b"", at, 0
    while True:
        if at + 8 > start + len(heads):
            start = file.seek(at)
            heads = file.read(_HEADS_BYTES)
        if len(heads) < 8:
            return b""
        length, kind = struct.unpack_from(">I4s", heads, at - start)
        number += 1
        if number > MAX_CHUNKS:
            check_header_cost("chunks of PNG", number, MAX_CHUNKS)
        if kind == b"IEND":
            return b""
        if kind == b"eXIf":
            file.seek(at)
            whole = file.read(12 + length)
            total += len(whole)
            check_header_cost("bytes of EXIF behind the pixels", total, MAX_SEGMENT_BYTES)
            if len(whole) == 12 + length and _is_right(memoryview(whole)):
                check_block(whole[8:-4])
                return whole
        at += 12 + length


def _chunks(file: BinaryFile) -> Iterator[_Chunk]:
    """The chunks from here on; the body of each is skipped."""
    at = file.tell()
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        chunk = _Chunk(kind, at, length)
        yield chunk
        at = file.seek(chunk.end)


def _is_metadata(file: BinaryFile) -> bool:
    """Whether the text whose body is next has a keyword that is read."""
    return file.read(max(map(len, _READ_TEXT))).startswith(_READ_TEXT)


def _is_unused(kind: bytes) -> bool:
    """Whether decoding needs no chunk of a kind; a decoder refuses those whose names are none."""
    return kind not in _SHOWN and kind.isalpha()


def _is_right(chunk: bytes | memoryview) -> bool:
    """Whether the checksum of a whole chunk is right."""
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _damage(kind: bytes) -> str:
    return f"damaged {_NAMED.get(kind) or kind.decode('latin-1')}"
