"""The blocks of GIF (https://www.w3.org/Graphics/GIF/spec-gif89a.txt)."""

import re
import struct
from dataclasses import dataclass

from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, any_but_zeros
from superres.codecs.limits import (
    MAX_BLOCKS,
    MAX_SEGMENTS,
    MAX_STRAY_BYTES,
    check_header_cost,
    several_frames,
)
from superres.errors import BadImage

_BLOCK = re.compile(rb"[!,;]")
_COMMENT, _APPLICATION = 254, 255
"""Labels of extensions."""


@dataclass(frozen=True)
class GifStructure(Structure):
    """That of a GIF."""

    frame: tuple[int, int, int, int]
    """Top, left, height and width of the frame; the canvas around it is transparent."""
    ended: bool
    """Whether the trailer is there."""
    behind: bool
    """Whether there is anything behind it."""

    @property
    def covered(self) -> bool:
        """Whether the frame covers the canvas."""
        return self.frame == (0, 0, *self.size)


def read(file: BinaryFile) -> GifStructure:
    """Read the blocks: up to the pixels for the size, and up to a second frame, if there is one.

    Pillow makes the canvas large enough for the frame before anybody can ask for its size.

    Raises:
        AnimatedImage: there is a second frame.
        BadImage: damaged, or more work than is done for a header.
    """
    data = file.read()
    try:
        return _read(data)
    except (IndexError, struct.error) as error:
        raise BadImage("the picture's header is damaged: the file ends in it") from error


def _read(data: bytes) -> GifStructure:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, blocks, _ = _image(data, 13 + _palette_bytes(flags), 0)
    if at is None:
        raise BadImage("the picture's header is damaged: there is no frame")
    left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, at + 1)
    start = at + 10 + _palette_bytes(flags) + 1  # behind the number of bits
    size = max(height, top + frame_height), max(width, left + frame_width)
    if start > len(data):
        raise BadImage("the picture's header is damaged: the file ends in it")
    end, blocks = _skip(data, start, blocks)
    second, _, trailer = _image(data, end, blocks)
    if second is not None:
        raise several_frames("GIF")
    behind = trailer is not None and any_but_zeros(data, trailer + 1)
    frame = top, left, frame_height, frame_width
    return GifStructure(size, data[:start], frame, trailer is not None, behind)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 128 else 0


def _image(data: bytes, at: int, blocks: int) -> tuple[int | None, int, int | None]:
    """Where the next frame begins, or None.

    Then, how many blocks have been read by then, and where the trailer is, if it comes first.
    """
    stray = extensions = 0
    while block := _BLOCK.search(data, at):
        stray += block.start() - at
        check_header_cost("bytes between the blocks of a GIF", stray, MAX_STRAY_BYTES)
        at = block.start()
        if block[0] == b",":
            return at, blocks, None
        if block[0] == b";":
            return None, blocks, at
        extensions += 1
        check_header_cost("extensions of a GIF", extensions, MAX_SEGMENTS)
        _check_extension(data, at)
        at, blocks = _skip(data, at + 2, blocks)
    return None, blocks, None


def _check_extension(data: bytes, at: int) -> None:
    """Check that all readers agree where the extension that begins at ``at`` ends.

    Where there are no data, Pillow takes what follows for them, unless it is a comment.

    Raises:
        BadImage: the extension has no data.
    """
    label, length = data[at + 1], data[at + 2]
    first = data[at + 3 : at + 3 + length]
    empty = not length and label != _COMMENT
    loop = label == _APPLICATION and first.startswith(b"NETSCAPE2.0")
    if empty or (loop and not data[at + 3 + length]):
        raise BadImage(
            "the picture's header is damaged: readers do not agree where an extension without "
            "data ends; save it again"
        )


def _skip(data: bytes, at: int, blocks: int) -> tuple[int, int]:
    """Where a sequence of data blocks ends, and how many blocks have been read by then."""
    last = len(data)
    most = MAX_BLOCKS - blocks
    count = 0
    while at < last and (length := data[at]):
        at += length + 1
        count += 1
        if count > most:
            check_header_cost("data blocks of a GIF", blocks + count, MAX_BLOCKS)
    return at + 1, blocks + count
