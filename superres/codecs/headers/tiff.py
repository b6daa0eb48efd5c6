"""The first directory of TIFF (TIFF 6.0; BigTIFF): the one reader that says what is admitted.

Pillow, libtiff and tifffile each read the directory again to decode the pixels. What two of them
could read in different ways is refused here.
"""

import struct
from dataclasses import dataclass

from PIL.ExifTags import Base

from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, exactly
from superres.codecs.headers.exif import (
    Entry,
    Marks,
    check_nested,
    check_values,
    integers,
    read_directory,
    read_marks,
)
from superres.codecs.limits import (
    MAX_PROFILE_BYTES,
    MAX_STRIPS,
    MAX_TILE_PIXELS,
    MAX_XMP_BYTES,
    check_header_cost,
    several_frames,
)
from superres.errors import BadImage, UnsupportedFormat
from superres.metadata import DESCRIPTIVE

COMPRESSIONS = {
    1: "none",
    2: "CCITT RLE",
    3: "CCITT group 3",
    4: "CCITT group 4",
    5: "LZW",
    7: "JPEG",
    8: "Deflate",
    32_773: "PackBits",
    32_946: "Deflate",
    34_925: "LZMA",
    50_000: "Zstandard",
}
"""Compressions that are read. LZMA and Zstandard are limited by what a strip decodes to."""
_JPEG = 7
_PREDICTORS = (1, 2)
_SUBSAMPLED = 6
_TILE_DEPTH, _IMAGE_DEPTH, _SAMPLE_FORMAT, _EXTRA_SAMPLES = 32_998, 32_997, 339, 338
_ONE = {
    Base.ImageWidth: None,
    Base.ImageLength: None,
    Base.Compression: 1,
    Base.PhotometricInterpretation: 0,
    Base.FillOrder: 1,
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


@dataclass(frozen=True)
class TiffStructure(Structure):
    """That of a TIFF."""

    samples: int
    """Of a pixel."""
    bits: tuple[int, ...]
    """Of each sample, or of all."""


def read(file: BinaryFile) -> TiffStructure:
    """Read the first directory.

    Raises:
        AnimatedImage: there is another.
        UnsupportedFormat: a compression or a layout that is not read.
        BadImage: damaged, or more work than is done for a header.
    """
    start = exactly(file, 8)
    if start[2:4] in (b"\0+", b"+\0"):
        if start[:4] != b"II+\0":
            raise UnsupportedFormat("BigTIFF is read in little-endian order; this one is not")
        start += exactly(file, 8)
    marks = read_marks(start)
    entries, following, twice = read_directory(file, marks, marks.first)
    if twice:
        raise BadImage("the picture's header is damaged: it has a tag twice")
    if following not in (0, marks.first):
        raise several_frames("TIFF")
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
    bits = few[Base.BitsPerSample] or (1,)
    _check_layout(one, bits)
    _check_parts(file, marks, entries, one, bits)
    size = one[Base.ImageLength], one[Base.ImageWidth]
    head = _head(file, marks, entries, one | few)
    return TiffStructure(size, head, one[Base.SamplesPerPixel], bits)


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


def _check_layout(one: dict[int, int], bits: tuple[int, ...]) -> None:
    """Return if decoders can be trusted to see nothing but the picture."""
    compression = one[Base.Compression]
    if compression not in COMPRESSIONS:
        raise UnsupportedFormat(
            f"TIFF is read with compression {', '.join(sorted({*COMPRESSIONS.values()}))}; this "
            f"picture has number {compression}: save it with Deflate or LZW"
        )
    if compression == _JPEG and max(bits) > 8:
        raise UnsupportedFormat(
            f"TIFF with JPEG is read at 8 bits a sample; this picture has {max(bits)}: save it "
            "with Deflate or LZW"
        )
    for tag, name in ((_IMAGE_DEPTH, "depth"), (_TILE_DEPTH, "depth of a tile")):
        if one[tag] != 1:
            raise UnsupportedFormat(f"TIFF is read with a {name} of 1; this one has {one[tag]:,}")
    if one[Base.Predictor] not in _PREDICTORS:
        raise UnsupportedFormat(
            f"TIFF is read with predictor 1 or 2; this picture has {one[Base.Predictor]}"
        )
    if one[Base.PlanarConfiguration] not in (1, 2):
        raise BadImage("the picture's header is damaged: its planar configuration is not 1 or 2")
    if not 1 <= one[Base.SamplesPerPixel] <= _FEW[Base.BitsPerSample]:
        raise UnsupportedFormat(
            f"1 to {_FEW[Base.BitsPerSample]} samples a pixel are read; this picture has "
            f"{one[Base.SamplesPerPixel]:,}"
        )


def _check_parts(
    file: BinaryFile,
    marks: Marks,
    entries: dict[int, Entry],
    one: dict[int, int],
    bits: tuple[int, ...],
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
    most = file.seek(0, 2) + pixels * one[Base.SamplesPerPixel] * -(-max(bits) // 8)
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
    orientation = entries.get(Base.Orientation)
    if orientation is not None and orientation.count == 1:
        tags[Base.Orientation] = integers(file, marks, orientation) or (1,)
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
