"""Writes HEIF and AVIF: items with their properties and data, as ISO/IEC 23008-12 has them."""

import io
import struct
from collections.abc import Sequence
from dataclasses import replace

from superres.codecs.headers.isobmff import Item, Meta, Property, read_meta
from superres.picture import Picture

_ESSENTIAL = {b"av1C", b"hvcC", b"clap", b"irot", b"imir", b"a1op", b"lsel"}
"""Properties without which a reader must not show the item."""
_ENTRY = struct.Struct(">HHHII")
"""Of iloc: an item of one part."""


def with_metadata(data: bytes, picture: Picture) -> bytes:
    """The file with the ICC profile, EXIF and XMP of a picture."""
    file = io.BytesIO(data)
    meta = read_meta(file)
    blocks = {one.number: meta.data(file, one, len(data), "an item") for one in meta.items.values()}
    items = list(meta.items.values())
    primary = meta.items[meta.primary]
    if picture.icc_profile is not None:
        primary.properties.append(Property(b"colr", b"prof" + picture.icc_profile))
    described = {b"cdsc": [primary.number]}
    number = max(blocks)
    if picture.exif is not None:
        number += 1
        items.append(Item(number, b"Exif", hidden=True, references=described))
        blocks[number] = bytes(4) + picture.exif.removeprefix(b"Exif\0\0")
    if picture.xmp is not None:
        number += 1
        kind = b"application/rdf+xml"
        items.append(Item(number, b"mime", kind, hidden=True, references=described))
        blocks[number] = picture.xmp
    return write(replace(meta, items={one.number: one for one in items}), blocks)


def write(meta: Meta, blocks: dict[int, bytes]) -> bytes:
    """Write a file.

    Args:
        meta: its items; where their data are is not read.
        blocks: the data of each, by its number.
    """
    items = list(meta.items.values())
    major, *compatible = meta.brands
    ftyp = box(b"ftyp", major + bytes(4) + b"".join(compatible))
    before = len(ftyp) + len(_meta(meta, items, blocks, 0)) + 8
    mdat = box(b"mdat", b"".join(blocks[one.number] for one in items))
    return ftyp + _meta(meta, items, blocks, before) + mdat


def _meta(meta: Meta, items: Sequence[Item], blocks: dict[int, bytes], start: int) -> bytes:
    """The meta box of a file whose first item's data begin there."""
    entries = []
    for one in items:
        length = len(blocks[one.number])
        entries.append(_ENTRY.pack(one.number, 0, 1, start, length))
        start += length
    infos = [
        full_box(
            b"infe",
            struct.pack(">HH4s", one.number, 0, one.kind)
            + b"\0"
            + (one.content_type + b"\0" if one.kind == b"mime" else b""),
            version=2,
            flags=int(one.hidden),
        )
        for one in items
    ]
    references = [
        box(kind, struct.pack(f">HH{len(others)}H", one.number, len(others), *others))
        for one in items
        for kind, others in one.references.items()
    ]
    parts = [
        full_box(b"hdlr", bytes(4) + b"pict" + bytes(13)),
        full_box(b"pitm", struct.pack(">H", meta.primary)),
        full_box(b"iloc", struct.pack(">HH", 0x4400, len(items)) + b"".join(entries)),
        full_box(b"iinf", struct.pack(">H", len(items)) + b"".join(infos)),
        full_box(b"iref", b"".join(references)) if references else b"",
        _properties(items),
    ]
    return full_box(b"meta", b"".join(parts))


def _properties(items: Sequence[Item]) -> bytes:
    known = list(dict.fromkeys(one for item in items for one in item.properties))
    described = [item for item in items if item.properties]
    associations = struct.pack(">I", len(described))
    for item in described:
        associations += struct.pack(">HB", item.number, len(item.properties))
        for one in item.properties:
            index = known.index(one) + 1
            associations += struct.pack(">H", index | 0x8000 * (one.kind in _ESSENTIAL))
    contents = b"".join(box(one.kind, one.body) for one in known)
    return box(b"iprp", box(b"ipco", contents) + full_box(b"ipma", associations, flags=1))


def box(kind: bytes, body: bytes) -> bytes:
    """A box."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, body: bytes, version: int = 0, flags: int = 0) -> bytes:
    """A box with a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags) + body)
