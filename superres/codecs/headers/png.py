"""The chunks of PNG (https://www.w3.org/TR/png-3/)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, exactly
from superres.codecs.headers.exif import check_block
from superres.codecs.limits import (
    MAX_CHUNKS,
    MAX_SEGMENT_BYTES,
    MAX_SEGMENTS,
    MAX_XMP_BYTES,
    check_header_cost,
)
from superres.errors import BadImage

_LONGEST = {
    b"IHDR": 13,
    b"PLTE": 768,
    b"tRNS": 256,
    b"gAMA": 4,
    b"cHRM": 32,
    b"sRGB": 1,
    b"pHYs": 9,
    b"acTL": 8,
    b"fcTL": 26,
}
"""Bytes of the chunks that Pillow reads and that have no more, by the standard."""
_ONCE = {b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL"}
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_PIXELS = {b"IDAT", b"fdAT"}
_READ_TEXT = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
"""Keywords of the texts that are read."""
_MOST_READ_TEXTS = 4
_KNOWN = {*_LONGEST, b"iCCP", b"eXIf", b"IEND", *_PIXELS}
"""Chunks that decoding uses. Others are not shown to a decoder, which would keep them all."""


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


def read(file: BinaryFile) -> PngStructure:
    """Read the chunks before the pixels.

    Raises:
        BadImage: damaged, or more work than is done for a header.
    """
    head = [exactly(file, 8)]
    if head[0] != b"\x89PNG\r\n\x1a\n":
        raise BadImage("the picture's header is damaged: its first 8 bytes are not PNG's")
    total, seen, texts = 0, set[bytes](), 0
    ihdr = b""
    for number, chunk in enumerate(_chunks(file), 1):
        if chunk.kind in _PIXELS:
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
        if number == 1 and chunk.kind != b"IHDR":
            raise BadImage("the picture's header is damaged: IHDR is not its first chunk")
        if chunk.kind in _TEXT and _is_metadata(file):
            texts += 1
            check_header_cost("texts with metadata", texts, _MOST_READ_TEXTS)
            check_header_cost("bytes of XMP", chunk.length, MAX_XMP_BYTES)
        elif _is_unused(chunk.kind):
            continue
        file.seek(chunk.at)
        whole = exactly(file, chunk.length + 12)
        head.append(whole)
        if chunk.kind == b"IHDR":
            ihdr = whole[8:-4]
        elif chunk.kind == b"eXIf":
            check_block(whole[8:-4])
    if len(ihdr) != 13:
        raise BadImage("the picture's header is damaged: IHDR does not have 13 bytes")
    width, height, depth = struct.unpack_from(">IIB", ihdr)
    return PngStructure((height, width), b"".join(head), 16 if depth == 16 else 8)


def needed(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The file without the chunks that decoding does not need, and the names of what they are.

    Compressed texts are left out so: each can be a thousand times as long as its chunk.

    Raises:
        BadImage: more chunks than are read.
    """
    kept = [(0, 8)]
    at, number, texts, left_out = 8, 0, 0, set[bytes]()
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        number += 1
        if number > MAX_CHUNKS:
            check_header_cost("chunks of PNG", number, MAX_CHUNKS)
        if kind in _TEXT and data.startswith(_READ_TEXT, at + 8):
            texts += 1
            check_header_cost("texts with metadata", texts, _MOST_READ_TEXTS)
            check_header_cost("bytes of XMP", length, MAX_XMP_BYTES)
        elif _is_unused(kind):
            left_out.add(kind)
            kept.append((end, end))
        kept[-1] = (kept[-1][0], end)
        at = end
        if kind == b"IEND":
            break
    if not left_out:
        return data, ()
    view = memoryview(data)
    pieces = b"".join(view[start:end] for start, end in kept)
    return pieces, ("text",) if left_out & _TEXT else ()


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
    return kind not in _KNOWN and kind.isalpha()
