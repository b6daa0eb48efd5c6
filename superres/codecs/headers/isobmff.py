"""Boxes of ISO/IEC 14496-12, and the items that a HEIF or AVIF has in its meta box."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from superres.codecs.format import BinaryFile
from superres.codecs.headers import exactly
from superres.codecs.limits import (
    MAX_EXTENTS,
    MAX_ITEMS,
    MAX_META_BYTES,
    MAX_SEGMENTS,
    check_header_cost,
)
from superres.errors import BadImage

_HEADER = 8
_FILE, _IDAT = 0, 1
"""Where the data of an item are: construction methods."""


class Property(NamedTuple):
    """A property of items: the box of its kind."""

    kind: bytes
    body: bytes


class Extent(NamedTuple):
    """A part of an item's data."""

    offset: int
    length: int
    """0 for all that follows."""


@dataclass
class Item:
    """An item: a coded picture, one that is made of others, or metadata."""

    number: int
    kind: bytes = b""
    content_type: bytes = b""
    """Of an item of the kind ``mime``."""
    hidden: bool = False
    properties: list[Property] = field(default_factory=list)
    references: dict[bytes, list[int]] = field(default_factory=dict)
    """Numbers of the items that this one refers to, by the kind of reference."""
    extents: list[Extent] = field(default_factory=list)
    in_meta: bool = False
    """Whether the extents are those of ``idat``."""

    def property(self, kind: bytes) -> bytes | None:
        """The first property of that kind."""
        return next((one.body for one in self.properties if one.kind == kind), None)

    def ends_by(self, place: int) -> bool:
        """Whether all data are in the first ``place`` bytes of the file."""
        return self.in_meta or all(one.offset + one.length <= place for one in self.extents)


@dataclass(frozen=True)
class Meta:
    """The items of a file."""

    brands: tuple[bytes, ...]
    """The major brand, and those that the file is compatible with."""
    boxes: frozenset[bytes]
    """Kinds of the boxes of the file."""
    primary: int
    items: dict[int, Item]
    idat: bytes

    def pointing_to(self, number: int, reference: bytes) -> list[Item]:
        """The items that refer to that one."""
        return [one for one in self.items.values() if number in one.references.get(reference, ())]

    def data(self, file: BinaryFile, item: Item, most: int, what: str) -> bytes:
        """Read the data of an item.

        Raises:
            BadImage: there are more than ``most`` bytes, or fewer than the file says.
        """
        check_header_cost(f"bytes of {what}", sum(one.length for one in item.extents), most)
        parts = []
        for offset, length in item.extents:
            if item.in_meta:
                part = self.idat[offset:][: length or None]
            else:
                file.seek(offset)
                part = file.read(length or most + 1)
            if len(part) < length:
                raise damaged(f"its {what} is not in the file")
            parts.append(part)
        data = b"".join(parts)
        check_header_cost(f"bytes of {what}", len(data), most)
        return data


class Budget:
    """Counts what reading the structure of a file costs.

    Args:
        what: is counted.
        most: how many are read.
    """

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most, self._found = what, most, 0

    @property
    def left(self) -> int:
        """How many may still come."""
        return self._most - self._found

    def spend(self, number: int) -> None:
        """Count so many.

        Raises:
            BadImage: they are too many.
        """
        self._found += number
        check_header_cost(self._what, self._found, self._most)


def damaged(why: str) -> BadImage:
    """The error for a file whose structure is not what the format says."""
    return BadImage(f"the picture's header is damaged: {why}")


def file_boxes(file: BinaryFile) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of a file: kind, where the body begins, and where it ends.

    Raises:
        BadImage: more boxes than are read.
    """
    end = file.seek(0, 2)
    at = number = 0
    while at + _HEADER <= end:
        number += 1
        check_header_cost("boxes of a file", number, MAX_SEGMENTS)
        file.seek(at)
        length, kind = struct.unpack(">I4s", exactly(file, _HEADER))
        body = at + _HEADER
        if length == 1:
            (length,) = struct.unpack(">Q", exactly(file, 8))
            body += 8
        elif length == 0:
            length = end - at
        if length < body - at:
            raise damaged("a box is shorter than its own header")
        yield kind, body, min(at + length, end)
        at += length


def boxes(data: bytes) -> list[Property]:
    """The boxes in the body of another one.

    Raises:
        BadImage: more boxes than are read, or one that is longer than the body.
    """
    found: list[Property] = []
    at = 0
    while at + _HEADER <= len(data):
        check_header_cost("boxes in a box", len(found) + 1, MAX_ITEMS)
        length, kind = struct.unpack_from(">I4s", data, at)
        body = at + _HEADER
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, body)
            body += 8
        elif length == 0:
            length = len(data) - at
        if length < body - at or at + length > len(data):
            raise damaged(f"its box {kind!r} has a wrong length")
        found.append(Property(kind, data[body : at + length]))
        at += length
    return found


def read_meta(file: BinaryFile) -> Meta:
    """Read the items of a file.

    Raises:
        BadImage: damaged, or more work than is done for a header.
    """
    brands: tuple[bytes, ...] = ()
    kinds: set[bytes] = set()
    parts: dict[bytes, bytes] = {}
    for kind, start, end in file_boxes(file):
        if kind == b"ftyp" and not kinds:
            check_header_cost("bytes of a list of brands", end - start, 4 * MAX_SEGMENTS)
            file.seek(start)
            listed = exactly(file, end - start)
            brands = (listed[:4], *(listed[at : at + 4] for at in range(8, len(listed), 4)))
        if kind == b"meta" and kind not in kinds:
            check_header_cost("bytes of a meta box", end - start, MAX_META_BYTES)
            file.seek(start + 4)
            for part in boxes(exactly(file, max(0, end - start - 4))):
                parts.setdefault(*part)
        kinds.add(kind)
    try:
        return _read_items(brands, frozenset(kinds), parts)
    except (struct.error, IndexError) as error:
        raise damaged("a box of its items ends too soon") from error


def _read_items(
    brands: tuple[bytes, ...], kinds: frozenset[bytes], parts: dict[bytes, bytes]
) -> Meta:
    if b"meta" not in kinds:
        return Meta(brands, kinds, 0, {}, b"")
    items = {one.number: one for one in _infos(parts.get(b"iinf", bytes(6)))}
    _locate(parts.get(b"iloc", bytes(8)), items)
    _refer(parts.get(b"iref", bytes(4)), items)
    _describe(parts.get(b"iprp", b""), items)
    pitm = parts.get(b"pitm", bytes(6))
    primary = int.from_bytes(pitm[4 : 8 if pitm[0] else 6], "big")
    return Meta(brands, kinds, primary, items, parts.get(b"idat", b""))


def _infos(iinf: bytes) -> Iterator[Item]:
    start = 8 if iinf[0] else 6
    for kind, body in boxes(iinf[start:]):
        if kind != b"infe" or body[0] not in (2, 3):
            continue
        wide = body[0] == 3
        (number,) = struct.unpack_from(">I" if wide else ">H", body, 4)
        at = 4 + (4 if wide else 2) + 2
        texts = body[at + 4 :].split(b"\0", 2)
        content_type = texts[1] if body[at : at + 4] == b"mime" and len(texts) > 1 else b""
        yield Item(number, body[at : at + 4], content_type, bool(body[3] & 1))


class _Numbers:
    """Reads big-endian numbers one behind the other."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def next(self, length: int) -> int:
        """The number in the next bytes; 0 where there are none."""
        part = self._data[self.at : self.at + length]
        if len(part) != length:
            raise IndexError
        self.at += length
        return int.from_bytes(part, "big")


def _locate(iloc: bytes, items: dict[int, Item]) -> None:
    """Tell items where their data are."""
    version = iloc[0]
    sizes = iloc[4] >> 4, iloc[4] & 15, iloc[5] >> 4, iloc[5] & 15 if version else 0
    offset_size, length_size, base_size, index_size = sizes
    numbers = _Numbers(iloc, 6)
    count = numbers.next(2 if version < 2 else 4)
    check_header_cost("items", count, MAX_ITEMS)
    found = 0
    for _ in range(count):
        item = items.get(numbers.next(2 if version < 2 else 4))
        method = numbers.next(2) & 15 if version else _FILE
        elsewhere = numbers.next(2)
        base = numbers.next(base_size)
        extents = numbers.next(2)
        found += extents
        check_header_cost("extents of items", found, MAX_EXTENTS)
        read = []
        for _ in range(extents):
            numbers.next(index_size)
            offset = base + numbers.next(offset_size)
            read.append(Extent(offset, numbers.next(length_size)))
        if item is not None and not elsewhere and method in (_FILE, _IDAT) and not item.extents:
            item.extents, item.in_meta = read, method == _IDAT


def _refer(iref: bytes, items: dict[int, Item]) -> None:
    """Tell items what they refer to."""
    size = 4 if iref[0] else 2
    found = 0
    for kind, body in boxes(iref[4:]):
        numbers = _Numbers(body, 0)
        item = items.get(numbers.next(size))
        count = numbers.next(2)
        found += count
        check_header_cost("references of items", found, MAX_EXTENTS)
        others = [numbers.next(size) for _ in range(count)]
        if item is not None:
            item.references.setdefault(kind, []).extend(others)


def _describe(iprp: bytes, items: dict[int, Item]) -> None:
    """Tell items their properties."""
    parts = boxes(iprp)
    properties = boxes(next((body for kind, body in parts if kind == b"ipco"), b""))
    found = 0
    for kind, ipma in parts:
        if kind != b"ipma":
            continue
        numbers = _Numbers(ipma, 4)
        wide = ipma[3] & 1
        count = numbers.next(4)
        check_header_cost("items", count, MAX_ITEMS)
        for _ in range(count):
            item = items.get(numbers.next(4 if ipma[0] else 2))
            associations = numbers.next(1)
            found += associations
            check_header_cost("properties of items", found, MAX_EXTENTS)
            for _ in range(associations):
                index = numbers.next(2) & 0x7FFF if wide else numbers.next(1) & 0x7F
                if index > len(properties):
                    raise damaged("an item has a property that is not there")
                if item is not None and index:
                    item.properties.append(properties[index - 1])
