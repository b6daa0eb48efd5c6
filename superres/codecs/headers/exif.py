"""Directories of TIFF, which EXIF consists of: their entries, and what reading them costs."""

import io
import struct
from dataclasses import dataclass

from PIL.ExifTags import IFD

from superres.codecs.format import BinaryFile
from superres.codecs.limits import (
    MAX_DIRECTORY_ENTRIES,
    MAX_DIRECTORY_VALUES,
    MAX_EXIF_BYTES,
    check_header_cost,
)

_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""How :mod:`struct` unpacks integers, by type."""
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BYTES |= {16: 8, 17: 8, 18: 8}
"""Bytes of one value, by type."""
_TEXT = {1, 2, 6, 7}
"""Types whose values are bytes, which cost next to nothing each."""
_CLASSIC = set(range(1, 14))
"""Types of a TIFF."""
_LONG = {16, 17, 18}
"""Types of 8 bytes, which only a BigTIFF has."""
NESTED = (IFD.Exif, IFD.GPSInfo, IFD.Interop)
"""Directories inside others that are read."""


@dataclass(frozen=True)
class Entry:
    """An entry of a directory."""

    kind: int
    count: int
    raw: bytes
    """The value, or where it is, if it is longer than this."""

    @property
    def length(self) -> int:
        """Bytes of the value; 0 for a type that nobody knows."""
        return self.count * _BYTES.get(self.kind, 0)


@dataclass(frozen=True)
class Marks:
    """The first bytes of a TIFF: how all its numbers are written."""

    order: str
    """``<`` or ``>``, as :mod:`struct` names it."""
    big: bool
    """Whether it is a BigTIFF."""
    first: int
    """Where the first directory is."""

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry of a directory."""
        return 20 if self.big else 12


def read_marks(head: bytes, big: bool | None = None) -> Marks:
    """Read the first 8 bytes of a TIFF, or 16 of a BigTIFF.

    Args:
        head: those bytes.
        big: whether it is a BigTIFF; None to see that as Pillow does, which reads EXIF.

    Raises:
        struct.error: there are fewer.
    """
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:3] == b"+" if big is None else big
    (first,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
    return Marks(order, big, first)


def read_directory(
    file: BinaryFile, marks: Marks, offset: int
) -> tuple[dict[int, Entry], int, bool]:
    """Read the entries of a directory, but no value outside it.

    Returns:
        the entries by tag, the first of each; where the next directory is, 0 for none; and
        whether a tag is there twice.

    Raises:
        BadImage: more entries than are read.
    """
    if offset >= 2**63:
        return {}, 0, False
    file.seek(offset)
    count = _number(file, marks.order + ("Q" if marks.big else "H"))
    # Where the file ends first, there are no more than it holds.
    table = file.read((min(count, MAX_DIRECTORY_ENTRIES + 1)) * marks.entry_bytes)
    check_header_cost(
        "entries of a directory", len(table) // marks.entry_bytes, MAX_DIRECTORY_ENTRIES
    )
    form = marks.order + ("HHQ8s" if marks.big else "HHI4s")
    entries: dict[int, Entry] = {}
    found = 0
    for at in range(0, len(table) - marks.entry_bytes + 1, marks.entry_bytes):
        tag, kind, values, raw = struct.unpack_from(form, table, at)
        entries.setdefault(tag, Entry(kind, values, raw))
        found += 1
    return entries, _number(file, marks.order + ("Q" if marks.big else "I")), found > len(entries)


def integers(file: BinaryFile, marks: Marks, entry: Entry) -> tuple[int, ...] | None:
    """The values of an entry; None if they are not integers, or not in the file."""
    if entry.kind not in _FORMATS or (data := value(file, marks, entry)) is None:
        return None
    return struct.unpack(f"{marks.order}{entry.count}{_FORMATS[entry.kind]}", data)


def value(file: BinaryFile, marks: Marks, entry: Entry) -> bytes | None:
    """The bytes of an entry's value; None if they are not in the file."""
    data = entry.raw
    if entry.length > len(data):
        offset = _offset(marks, entry)
        if offset >= 2**63:
            return None
        file.seek(offset)
        data = file.read(entry.length)
    return data[: entry.length] if len(data) >= entry.length else None


def check_nested(file: BinaryFile, marks: Marks, entries: dict[int, Entry]) -> None:
    """Return if the directories of EXIF and GPS inside another are no work to read.

    Raises:
        BadImage: more entries, or values, than are read.
    """
    for tag in NESTED:
        if (pointer := entries.get(tag)) is None:
            continue
        check_values({tag: pointer})
        if not (offsets := integers(file, marks, pointer)) or offsets[0] < 0:
            continue
        inner, _, _ = read_directory(file, marks, offsets[0])
        check_values(inner)
        if tag == IFD.Exif:
            interop = {int(tag): inner[tag] for tag in (IFD.Interop,) if tag in inner}
            check_nested(file, marks, interop)


def check_values(entries: dict[int, Entry]) -> None:
    """Return if these entries have few enough numbers.

    Raises:
        BadImage: more values than are read.
    """
    values = sum(entry.count for entry in entries.values() if entry.kind not in _TEXT)
    check_header_cost("values in a directory", values, MAX_DIRECTORY_VALUES)


def check_block(block: bytes) -> None:
    """Return if an EXIF block is no work to read; a damaged one may be.

    Raises:
        BadImage: it is too long, or has more entries or values than are read.
    """
    check_header_cost("bytes of EXIF", len(block), MAX_EXIF_BYTES)
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    try:
        marks = read_marks(block[:16])
    except struct.error:
        return
    file = io.BytesIO(block)
    entries, _, _ = read_directory(file, marks, marks.first)
    check_nested(file, marks, entries)


def classic(file: BinaryFile, marks: Marks, entries: dict[int, Entry], tags: set[int]) -> bytes:
    """A TIFF, not a BigTIFF, with these tags, and the directories of EXIF and GPS, of another."""
    start = b"II*\0" if marks.order == "<" else b"MM\0*"
    return start + struct.pack(marks.order + "I", 8) + _classic(file, marks, entries, tags, 8)


def _classic(
    file: BinaryFile, marks: Marks, entries: dict[int, Entry], tags: set[int] | None, at: int
) -> bytes:
    """A directory that begins at ``at``, with what it points to behind it."""
    kept = {tag: one for tag, one in sorted(entries.items()) if tags is None or tag in tags}
    behind = at + 2 + 12 * len(kept) + 4
    table, far, count = b"", b"", 0
    for tag, entry in kept.items():
        kind, number, data = entry.kind, entry.count, value(file, marks, entry)
        if tag in NESTED and tags is not None:
            offsets = integers(file, marks, entry)
            inner = read_directory(file, marks, offsets[0])[0] if offsets else {}
            place = behind + len(far)
            far += _classic(file, marks, inner, None, place)
            kind, number, data = 4, 1, struct.pack(marks.order + "I", place)
        elif kind in _LONG:
            numbers = integers(file, marks, entry) or ()
            data = b"".join(struct.pack(marks.order + "I", one & 0xFFFFFFFF) for one in numbers)
            kind = 4
        if data is None or kind not in _CLASSIC:
            continue
        if len(data) > 4:
            stored = struct.pack(marks.order + "I", behind + len(far))
            far += data + bytes(len(data) % 2)
        else:
            stored = data.ljust(4, b"\0")
        table += struct.pack(marks.order + "HHI", tag, kind, number) + stored
        count += 1
    unused = bytes(12 * (len(kept) - count))
    return struct.pack(marks.order + "H", count) + table + bytes(4) + unused + far


def _offset(marks: Marks, entry: Entry) -> int:
    offset: int = struct.unpack_from(marks.order + ("Q" if marks.big else "I"), entry.raw)[0]
    return offset


def _number(file: BinaryFile, form: str) -> int:
    """The next number; 0 where the file ends."""
    data = file.read(struct.calcsize(form))
    return struct.unpack(form, data)[0] if len(data) == struct.calcsize(form) else 0
