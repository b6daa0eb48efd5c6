"""The segments of JPEG (ITU-T T.81, annex B)."""

import io
import re
import struct
from dataclasses import dataclass, field

from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, any_but_zeros, exactly
from superres.codecs.headers.exif import check_block, integers, read_directory, read_marks
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
from superres.errors import BadImage, UnsupportedFormat

_SOI, _EOI, _SOS, _DQT = 0xD8, 0xD9, 0xDA, 0xDB
_APP0, _APP1, _APP2, _APP11, _APP13 = 0xE0, 0xE1, 0xE2, 0xEB, 0xED
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15."""
_BARE = {0x01, *range(0xD0, 0xD9), 0xC8, *range(0xF0, 0xFE)}
"""Markers without a segment, as Pillow reads them."""
_SHOWN = {_APP0, _APP1, 0xEE, _DQT, *_FRAMES}
"""Segments that opening a file needs."""
_MOST_TABLE_BYTES = 16_384
_NUMBER_OF_IMAGES = 0xB001
"""Tag of the Multi-Picture Format."""
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker among a scan's data, other than a restart."""
_PROGRESSIVE = {0xC2, 0xCA}
_LOSSLESS = 0xC3
_PROCESSES = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"),
    0xCB: "lossless with arithmetic coding",
}
"""Kinds of JPEG that no decoder here reads, by their SOF."""
GAIN_MAP, FURTHER_PICTURES = "HDR gain map", "further pictures"
_CARRIED = (
    (_APP2, b"urn:iso:std:iso:ts:21496:-1\0", GAIN_MAP),
    (_APP1, b"http://ns.adobe.com/xmp/extension/\0", "extended XMP"),
    (_APP11, b"JP", "C2PA"),
)
"""What segments say is in the file, and is not taken over."""
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_GAIN_MAP = re.compile(rb"hdrgm:|HDRGainMap|hdrgainmap|urn:iso:std:iso:ts:21496")
_VIDEO = re.compile(rb"ftyp(?:isom|iso[2-9]|mp4[12]|avc1|qt  |M4V |MSNV|3gp[4-6])|MotionPhoto_Data")


@dataclass(frozen=True)
class JpegStructure(Structure):
    """That of a JPEG."""

    bits: int
    """Of a sample: 8 or 12."""
    bits_at: int
    """Where the file says so."""
    channels: int
    progressive: bool
    lossless: bool
    """Whether it has no quantisation."""
    carried: tuple[str, ...] = ()
    """Names of what else its segments say is there."""
    pictures: int = 0
    """How many pictures they say that there are besides (Multi-Picture Format)."""


@dataclass
class _Read:
    """What has been read of the segments before the first scan."""

    segments: int = 0
    total: int = 0
    exif: int = 0
    resources: int = 0
    tables: int = 0
    frame: tuple[int, bytes, int] | None = None
    """Its marker, its body, and where that is."""
    carried: dict[str, None] = field(default_factory=dict)
    pictures: int = 0

    def add(self, marker: int, body: bytes, at: int) -> None:
        """Read a segment, within the limits."""
        self.segments, self.total = self.segments + 1, self.total + len(body)
        check_header_cost("segments before the pixels", self.segments, MAX_SEGMENTS)
        check_header_cost("bytes of segments before the pixels", self.total, MAX_SEGMENT_BYTES)
        if marker in _FRAMES:
            if self.frame is not None:
                raise BadImage("the picture's header is damaged: it tells two sizes")
            _frame_size(body)
            self.frame = marker, body, at
        elif marker == _DQT:
            self.tables += len(body)
            check_header_cost("bytes of quantisation tables", self.tables, _MOST_TABLE_BYTES)
        elif marker == _APP1 and body.startswith(b"Exif\0\0"):
            self.exif += len(body)
            check_header_cost("bytes of EXIF", self.exif, MAX_EXIF_BYTES)
            check_block(body)
        elif marker == _APP13:
            self.resources += body.count(b"8BIM")
            check_header_cost("resources of Photoshop", self.resources, MAX_RESOURCES)
        elif marker == _APP2 and body.startswith(b"MPF\0"):
            self.pictures = max(self.pictures, _pictures(body[4:]) - 1)
        for kind, start, name in _CARRIED:
            if marker == kind and body.startswith(start):
                self.carried[name] = None
        if marker == _APP1 and body.startswith(_XMP) and _GAIN_MAP.search(body):
            self.carried[GAIN_MAP] = None


def read(file: BinaryFile) -> JpegStructure:
    """Read the segments before the first scan.

    Raises:
        UnsupportedFormat: a kind of JPEG, or a depth, that is not read.
        BadImage: damaged, or more work than is done for a header.
    """
    head = [exactly(file, 2)]
    read = _Read()
    stray = 0
    while True:
        marker, skipped = _marker(file, MAX_STRAY_BYTES - stray)
        stray += skipped
        if marker in _BARE or marker == _EOI:
            read.segments += 1
            check_header_cost("segments before the pixels", read.segments, MAX_SEGMENTS)
            continue
        length = exactly(file, 2)
        at = file.tell()
        body = exactly(file, max(0, int.from_bytes(length, "big") - 2))
        read.add(marker, body, at)
        if marker in _FRAMES:  # Pillow opens no other depth, and reads no pixel of this head
            head.append(bytes([0xFF, marker]) + length + b"\x08" + body[1:])
        elif marker in _SHOWN or marker == _SOS:
            head.append(bytes([0xFF, marker]) + length + body)
        if marker == _SOS:
            break
    if read.frame is None:
        raise BadImage("the picture's header is damaged: it tells no size")
    marker, body, at = read.frame
    size = _frame_size(body)
    _check_kind(marker, body)
    return JpegStructure(
        size=size,
        head=b"".join(head),
        bits=body[0],
        bits_at=at,
        channels=body[5],
        progressive=marker in _PROGRESSIVE,
        lossless=marker == _LOSSLESS,
        carried=tuple(read.carried),
        pictures=read.pictures,
    )


def _check_kind(marker: int, body: bytes) -> None:
    """Return if a decoder here reads pictures with such a frame."""
    if marker in _PROCESSES:
        raise UnsupportedFormat(
            f"JPEG is read baseline, progressive and lossless; this picture is "
            f"{_PROCESSES[marker]}: save it as baseline JPEG or as PNG"
        )
    if body[0] not in (8, 12):
        raise UnsupportedFormat(
            f"JPEG is read at 8 and 12 bits a sample; this picture has {body[0]}: save it as "
            "PNG or TIFF with 16 bits"
        )
    if body[0] == 12 and body[5] not in (1, 3):
        raise UnsupportedFormat(
            f"JPEG with 12 bits a sample is read in grey and colour, with 1 or 3 channels; this "
            f"picture has {body[5]}: save it as TIFF"
        )


def _pictures(index: bytes) -> int:
    """How many pictures an index of the Multi-Picture Format has; 1 if it cannot be read."""
    if len(index) < 8 or index[:2] not in (b"II", b"MM"):
        return 1
    marks = read_marks(index[:8])
    file = io.BytesIO(index)
    entries, _, _ = read_directory(file, marks, marks.first)
    number = entries.get(_NUMBER_OF_IMAGES)
    values = integers(file, marks, number) if number is not None and number.count == 1 else None
    return values[0] if values else 1


@dataclass(frozen=True)
class Scans:
    """What :func:`read_scans` finds."""

    end: int | None
    """Behind the end marker; None if it has no such marker."""
    complete: bool
    """Whether every coefficient of a progressive picture has its last bit."""


def read_scans(data: bytes, channels: int) -> Scans:
    """Read where a file's scans are, if it has few enough, and segments between them.

    Each scan makes the decoder go over the whole picture, however short its data is.

    Raises:
        BadImage: more scans than are decoded.
    """
    at, scans, markers = 2, 0, 0
    refined: set[tuple[int, int]] = set()
    while found := _MARKER.search(data, at):
        marker, at = found[0][1], found.end()
        markers += scans > 0
        check_header_cost("segments of a JPEG behind its first scan", markers, MAX_MARKERS)
        if marker == _EOI and scans:
            return Scans(at, True)
        if marker == _SOS:
            scans += 1
            check_header_cost("scans of a JPEG", scans, MAX_SCANS)
            refined |= _last_bits(data[at + 2 : at + 14])
        if marker not in _BARE and marker != _EOI:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return Scans(None, len(refined) == 64 * channels)


def _last_bits(scan: bytes) -> set[tuple[int, int]]:
    """The coefficients whose last bits are in a scan, with their channel."""
    count = scan[0] if scan else 0
    if len(scan) < 4 + 2 * count or not 1 <= count <= 4:
        return set()
    first, last, approximation = scan[1 + 2 * count : 4 + 2 * count]
    if approximation & 15 or last > 63:
        return set()
    channels = scan[1 : 1 + 2 * count : 2]
    return {(channel, number) for channel in channels for number in range(first, last + 1)}


def behind(data: bytes, end: int, structure: JpegStructure) -> tuple[str, ...]:
    """Name what is in a file besides its picture: by its segments, and behind its end marker."""
    names = dict.fromkeys(structure.carried)
    pictures = structure.pictures
    if any_but_zeros(data, end):
        rest = memoryview(data)[end:]
        if _VIDEO.search(rest):
            names["video"] = None
        if _GAIN_MAP.search(rest):
            names[GAIN_MAP] = None
        pictures = pictures or int(data.find(b"\xff\xd8\xff", end) >= 0)
        if not pictures and not names:
            names["data behind the picture"] = None
    if pictures > (GAIN_MAP in names):
        names[FURTHER_PICTURES] = None
    return tuple(names)


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
