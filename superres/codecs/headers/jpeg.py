"""The segments of JPEG (ITU-T T.81, annex B)."""

import re
import struct

from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, exactly
from superres.codecs.headers.exif import check_block
from superres.codecs.limits import (
    MAX_EXIF_BYTES,
    MAX_MARKERS,
    MAX_RESOURCES,
    MAX_SCANS,
    MAX_SEGMENT_BYTES,
    MAX_SEGMENTS,
    MAX_STRAY_BYTES,
    check_header_cost,
)
from superres.errors import BadImage

_SOI, _EOI, _SOS, _DQT, _APP0, _APP1, _APP13 = 0xD8, 0xD9, 0xDA, 0xDB, 0xE0, 0xE1, 0xED
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15."""
_BARE = {0x01, *range(0xD0, 0xD9), 0xC8, *range(0xF0, 0xFE)}
"""Markers without a segment, as Pillow reads them."""
_SHOWN = {_APP0, _APP1, 0xEE, _DQT, *_FRAMES}
"""Segments that opening a file needs."""
_MOST_TABLE_BYTES = 16_384
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker among a scan's data, other than a restart."""


def read(file: BinaryFile) -> Structure:
    """Read the segments before the first scan.

    Raises:
        BadImage: damaged, or more work than is done for a header.
    """
    head = [exactly(file, 2)]
    segments = total = stray = exif = resources = tables = 0
    size = None
    while True:
        marker, skipped = _marker(file, MAX_STRAY_BYTES - stray)
        stray += skipped
        if marker in _BARE or marker == _EOI:
            segments += 1
            check_header_cost("segments before the pixels", segments, MAX_SEGMENTS)
            continue
        length = exactly(file, 2)
        body = exactly(file, max(0, int.from_bytes(length, "big") - 2))
        segments, total = segments + 1, total + len(body)
        check_header_cost("segments before the pixels", segments, MAX_SEGMENTS)
        check_header_cost("bytes of segments before the pixels", total, MAX_SEGMENT_BYTES)
        if marker in _FRAMES:
            if size is not None:
                raise BadImage("the picture's header is damaged: it tells two sizes")
            size = _frame_size(body)
        elif marker == _DQT:
            tables += len(body)
            check_header_cost("bytes of quantisation tables", tables, _MOST_TABLE_BYTES)
        elif marker == _APP1 and body.startswith(b"Exif\0\0"):
            exif += len(body)
            check_header_cost("bytes of EXIF", exif, MAX_EXIF_BYTES)
            check_block(body)
        elif marker == _APP13:
            resources += body.count(b"8BIM")
            check_header_cost("resources of Photoshop", resources, MAX_RESOURCES)
        if marker in _SHOWN or marker == _SOS:
            head.append(bytes([0xFF, marker]) + length + body)
        if marker == _SOS:
            break
    if size is None:
        raise BadImage("the picture's header is damaged: it tells no size")
    return Structure(size, b"".join(head))


def check_scans(data: bytes) -> None:
    """Return if a file has few enough scans, and segments between them.

    Each scan makes the decoder go over the whole picture, however short its data is.

    Raises:
        BadImage: more scans than are decoded.
    """
    at, scans, markers = 2, 0, 0
    while found := _MARKER.search(data, at):
        marker, at = found[0][1], found.end()
        markers += scans > 0
        check_header_cost("segments of a JPEG behind its first scan", markers, MAX_MARKERS)
        if marker == _EOI and scans:
            break
        if marker not in _BARE and marker != _EOI:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
        if marker == _SOS:
            scans += 1
            check_header_cost("scans of a JPEG", scans, MAX_SCANS)


def _marker(file: BinaryFile, most: int) -> tuple[int, int]:
    """The next marker, and how many bytes before it belong to no segment."""
    stray = 0
    previous = b""
    while True:
        byte = exactly(file, 1)
        if previous == b"\xff" and byte not in (b"\x00", b"\xff"):
            return byte[0], stray - 1
        previous = byte
        stray += 1
        if stray > most + 1:
            check_header_cost("stray bytes of a JPEG", MAX_STRAY_BYTES + 1, MAX_STRAY_BYTES)


def _frame_size(body: bytes) -> tuple[int, int]:
    if len(body) < 6 or len(body) != 6 + 3 * body[5]:
        raise BadImage("the picture's header is damaged: its frame has another length")
    height, width = struct.unpack_from(">HH", body, 1)
    return height, width
