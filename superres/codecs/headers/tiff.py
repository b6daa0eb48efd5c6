"""The first directory of TIFF (TIFF 6.0; BigTIFF): the one reader that says what is admitted.

Pillow, libtiff and tifffile each read the directory again to decode the pixels. What two of them
could read in different ways is refused here.
"""

import struct
from dataclasses import dataclass
from typing import TypeAlias

from PIL.ExifTags import Base

from superres.codecs import foreign
from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, exactly
from superres.codecs.headers.camera_raw import check_not_raw
from superres.codecs.headers.exif import (
    NESTED,
    Entry,
    Marks,
    check_nested,
    check_values,
    classic,
    integers,
    read_directory,
    read_marks,
)
from superres.codecs.headers.tiff_layout import Layout, check_compression, read_layout
from superres.codecs.limits import (
    MAX_PAGES,
    MAX_PROFILE_BYTES,
    MAX_STRIPS,
    MAX_TILE_PIXELS,
    MAX_XMP_BYTES,
    check_header_cost,
    several_frames,
)
from superres.errors import BadImage, UnsupportedFormat
from superres.metadata import DESCRIPTIVE

_TILE_DEPTH, _IMAGE_DEPTH, _SAMPLE_FORMAT, _EXTRA_SAMPLES = 32_998, 32_997, 339, 338
_NEW_SUBFILE, _SUBFILE = 254, 255
_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType."""
_ONE = {
    Base.ImageWidth: None,
    Base.ImageLength: None,
    Base.Compression: 1,
    Base.PhotometricInterpretation: 0,
    Base.FillOrder: 1,
    Base.Orientation: 1,
    Base.SamplesPerPixel: 1,
    Base.RowsPerStrip: 2**32 - 1,
    Base.PlanarConfiguration: 1,
    Base.Predictor: 1,
    Base.TileWidth: 0,
    Base.TileLength: 0,
    _IMAGE_DEPTH: 1,
    _TILE_DEPTH: 1,
}
"""Tags of one number that decoders use -> what it is where it is not there; None if it must be."""
_FEW = {Base.BitsPerSample: 6, _EXTRA_SAMPLES: 6, _SAMPLE_FORMAT: 6}
"""Tags of a few numbers -> the most that there may be: Pillow reads 6 samples a pixel."""
_UNSIGNED = {3, 4, 16}
"""Types that all decoders read as the same number."""
_LONGEST_PALETTE = 3 * 256
_DESCRIBED: set[int] = {
    *DESCRIPTIVE,
    Base.ImageWidth,
    Base.ImageLength,
    Base.PhotometricInterpretation,
    Base.Orientation,
    Base.XMLPacket,
    Base.InterColorProfile,
    Base.IPTCNAA,
    Base.ImageResources,
    *NESTED,
}
"""Tags of the metadata."""


Page: TypeAlias = tuple[dict[int, Entry], tuple[str, ...]]
"""Entries of a directory, and what it is if it is no picture."""


@dataclass(frozen=True)
class TiffStructure(Structure):
    """That of a TIFF."""

    layout: Layout
    left_out: tuple[str, ...]
    """Names of the pages that are no pictures."""
    described: bytes | None
    """A TIFF of the same metadata that Pillow reads, if it does not read this one."""


def read(file: BinaryFile) -> TiffStructure:
    """Read the first directory, and what the others are.

    Raises:
        AnimatedImage: another one is a further picture.
        UnsupportedFormat: camera raw; a compression or a layout that is not read.
        BadImage: damaged, or more work than is done for a header.
    """
    start = file.read(16)
    file.seek(0)
    if name := foreign.named(start):
        raise UnsupportedFormat(name)
    exactly(file, 8)
    big = start[:4] in (b"II+\0", b"MM\0+")
    if big and start[4:8] not in (b"\x08\0\0\0", b"\0\x08\0\0"):
        raise BadImage("the picture's header is damaged: offsets of BigTIFF have 8 bytes")
    marks = read_marks(start, big)
    entries, following, twice = read_directory(file, marks, marks.first)
    if twice:
        raise BadImage("the picture's header is damaged: it has a tag twice")
    pages = _pages(file, marks, following)
    check_not_raw(file, marks, entries, [one for one, _ in pages])
    left_out = _check_pages(file, marks, entries, pages)
    check_values({tag: one for tag, one in entries.items() if tag in DESCRIPTIVE})
    check_nested(file, marks, entries)
    for tag, most, name in (
        (Base.XMLPacket, MAX_XMP_BYTES, "XMP"),
        (Base.InterColorProfile, MAX_PROFILE_BYTES, "colour profile"),
    ):
        if tag in entries:
            check_header_cost(f"bytes of {name}", entries[tag].length, most)
    one = {tag: _one(file, marks, entries, tag) for tag in _ONE}
    few = {tag: _few(file, marks, entries, tag) for tag in _FEW}
    layout = _layout(one, few, marks, _EXTRA_SAMPLES in entries)
    _check_parts(file, marks, entries, one, layout.bits)
    size = one[Base.ImageLength], one[Base.ImageWidth]
    head = _head(file, marks, entries, one | few)
    described = (
        classic(file, marks, entries, _DESCRIBED) if layout.big and layout.big_endian else None
    )
    return TiffStructure(size, head, layout, left_out, described)


def _pages(file: BinaryFile, marks: Marks, following: int) -> list[Page]:
    """The directories behind the first, with what is no picture in each: nothing for a picture.

    Ends with the first that is a picture.
    """
    pages: list[Page] = []
    seen = {0, marks.first}
    while following not in seen and len(pages) <= MAX_PAGES:
        seen.add(following)
        entries, following, _ = read_directory(file, marks, following)
        pages.append((entries, _not_a_picture(file, marks, entries)))
        if not pages[-1][1]:
            break
    check_header_cost("pages of a TIFF", len(pages), MAX_PAGES)
    return pages


def _not_a_picture(file: BinaryFile, marks: Marks, entries: dict[int, Entry]) -> tuple[str, ...]:
    """What a page is, if it is not a picture of its own: a reduced copy of one, or a mask."""
    found = []
    for tag in (_NEW_SUBFILE, _SUBFILE):
        entry = entries.get(tag)
        values = integers(file, marks, entry) if entry is not None and entry.count == 1 else None
        found.append(values[0] if values else 0)
    new, old = found
    reduced = ("thumbnail",) if new & _REDUCED or old == 2 else ()
    return ("mask",) if new & _MASK else reduced


def _check_pages(
    file: BinaryFile,
    marks: Marks,
    entries: dict[int, Entry],
    pages: list[Page],
) -> tuple[str, ...]:
    """Return the names of further pages, if they are no pictures of their own.

    Raises:
        AnimatedImage: one is.
        UnsupportedFormat: one is, and the first is a reduced copy, or a mask, of it.
    """
    picture = next((one for one, what in pages if not what), None)
    first = _not_a_picture(file, marks, entries)
    if picture is not None and first:
        raise UnsupportedFormat(
            f"the picture of a TIFF is read from its first page; that of this one is a {first[0]}: "
            "save it with the picture as the first page"
        )
    if picture is not None:
        raise several_frames("TIFF")
    return tuple(dict.fromkeys(name for _, what in pages for name in what))


def _one(file: BinaryFile, marks: Marks, entries: dict[int, Entry], tag: int) -> int:
    if (entry := entries.get(tag)) is None:
        if (default := _ONE[tag]) is None:
            raise BadImage("the picture's header is damaged: it tells no size")
        return default
    values = integers(file, marks, entry) if entry.count == 1 and entry.kind in _UNSIGNED else None
    if not values or values[0] >= 2**32:
        raise BadImage(f"the picture's header is damaged: tag {tag} is not one number")
    return values[0]


def _few(file: BinaryFile, marks: Marks, entries: dict[int, Entry], tag: int) -> tuple[int, ...]:
    if (entry := entries.get(tag)) is None:
        return ()
    if entry.count > _FEW[tag]:
        raise UnsupportedFormat(
            f"at most {_FEW[tag]} samples a pixel are read; tag {tag} of this picture has "
            f"{entry.count:,} values"
        )
    values = integers(file, marks, entry) if entry.kind in _UNSIGNED else None
    if not values or max(values) >= 2**16:
        raise BadImage(f"the picture's header is damaged: tag {tag} has no numbers")
    return values


def _layout(
    one: dict[int, int], few: dict[int, tuple[int, ...]], marks: Marks, says_extra: bool
) -> Layout:
    """Check that decoders can be trusted to see nothing but the picture, and return its layout."""
    layout = read_layout(
        photometric=one[Base.PhotometricInterpretation],
        bits=few[Base.BitsPerSample] or (1,),
        formats=few[_SAMPLE_FORMAT],
        samples=one[Base.SamplesPerPixel],
        extra=few[_EXTRA_SAMPLES] if says_extra else None,
        compression=one[Base.Compression],
        big_endian=marks.order == ">",
        big=marks.big,
    )
    check_compression(one[Base.Compression], one[Base.Predictor], layout)
    for tag, name in ((_IMAGE_DEPTH, "depth"), (_TILE_DEPTH, "depth of a tile")):
        if one[tag] != 1:
            raise UnsupportedFormat(f"TIFF is read with a {name} of 1; this one has {one[tag]:,}")
    if one[Base.PlanarConfiguration] not in (1, 2):
        raise BadImage("the picture's header is damaged: its planar configuration is not 1 or 2")
    if not layout.pillow and one[Base.FillOrder] != 1:
        raise UnsupportedFormat(
            f"TIFF with extra samples, floats or more than 8 bits is read with fill order 1; this "
            f"one has {one[Base.FillOrder]}: save it again"
        )
    return layout


def _check_parts(
    file: BinaryFile,
    marks: Marks,
    entries: dict[int, Entry],
    one: dict[int, int],
    bits: int,
) -> None:
    """Return if the strips or tiles are those of the picture, and together as long as it."""
    height, width = one[Base.ImageLength], one[Base.ImageWidth]
    tiled = Base.TileWidth in entries or Base.TileLength in entries or Base.TileOffsets in entries
    if tiled:
        part = one[Base.TileLength], one[Base.TileWidth]
        offsets, lengths, other = Base.TileOffsets, Base.TileByteCounts, Base.StripOffsets
    else:
        part = min(one[Base.RowsPerStrip], max(height, 1)), max(width, 1)
        offsets, lengths, other = Base.StripOffsets, Base.StripByteCounts, Base.TileOffsets
    if offsets not in entries or other in entries or 0 in part:
        raise BadImage("the picture's header is damaged: it has neither strips nor tiles, or both")
    pixels = height * width
    if tiled and part[0] * part[1] > max(MAX_TILE_PIXELS, pixels + pixels // 4):
        raise UnsupportedFormat(
            f"tiles of at most {MAX_TILE_PIXELS:,} pixels are read in a picture of "
            f"{width}x{height}; this one has tiles of {part[1]}x{part[0]}: save it in strips"
        )
    planes = one[Base.SamplesPerPixel] if one[Base.PlanarConfiguration] == 2 else 1
    parts = -(-height // part[0]) * -(-width // part[1]) * planes
    named = "tiles of a TIFF" if tiled else "strips of a TIFF"
    check_header_cost(named, max(parts, entries[offsets].count), MAX_STRIPS)
    if (entry := entries.get(lengths)) is None:
        return
    check_header_cost(named, entry.count, MAX_STRIPS)
    total = sum(integers(file, marks, entry) or ())
    # Parts that share their bytes would be read again and again.
    most = file.seek(0, 2) + pixels * one[Base.SamplesPerPixel] * -(-bits // 8)
    check_header_cost("bytes of strips or tiles in a file and picture like these", total, most)


def _head(
    file: BinaryFile,
    marks: Marks,
    entries: dict[int, Entry],
    values: dict[int, int | tuple[int, ...]],
) -> bytes:
    """A TIFF with the tags that decide how the pixels are read, and one strip, which is empty."""
    tags: dict[int, tuple[int, ...]] = {}
    for tag, value in values.items():
        if tag in entries and tag not in (Base.TileWidth, Base.TileLength):
            tags[tag] = value if isinstance(value, tuple) else (value,)
    tags |= {Base.StripOffsets: (8,), Base.RowsPerStrip: tags[Base.ImageLength]}
    tags |= {Base.StripByteCounts: (0,)}
    palette = entries.get(Base.ColorMap)
    if palette is not None and palette.count <= _LONGEST_PALETTE and palette.kind == 3:
        tags[Base.ColorMap] = integers(file, marks, palette) or ()
    behind = 8 + 2 + 12 * len(tags) + 4
    table, far = [struct.pack(marks.order + "H", len(tags))], b""
    for tag, numbers in sorted(tags.items()):
        form = "H" if all(0 <= number < 2**16 for number in numbers) else "I"
        data = struct.pack(f"{marks.order}{len(numbers)}{form}", *numbers)
        if len(data) > 4:
            place = struct.pack(marks.order + "I", behind + len(far))
            far += data
        else:
            place = data.ljust(4, b"\0")
        kind = 3 if form == "H" else 4
        table.append(struct.pack(marks.order + "HHI", tag, kind, len(numbers)) + place)
    start = b"II*\0" if marks.order == "<" else b"MM\0*"
    return b"".join([start, struct.pack(marks.order + "I", 8), *table, bytes(4), far])
