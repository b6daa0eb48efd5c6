"""The picture of a HEIF or AVIF (ISO/IEC 23008-12, and AV1 Image File Format)."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from superres.arrays import Size
from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, av1, hevc
from superres.codecs.headers.av1 import Coded
from superres.codecs.headers.exif import check_block
from superres.codecs.headers.heif_geometry import Crop, Transform, orientation_of, read_shown
from superres.codecs.headers.isobmff import Budget, Item, Meta, damaged, read_meta
from superres.codecs.limits import (
    MAX_CODED_PARTS,
    MAX_CROPPED_PIXELS,
    MAX_EXIF_BYTES,
    MAX_XMP_BYTES,
    several_frames,
)
from superres.colour_profiles import profile_of_cicp
from superres.errors import BadImage, UnsupportedFormat
from superres.picture import Header

HEVC, AV1 = b"hvc1", b"av01"
_GRID = b"grid"
_SEQUENCES = {b"avis", b"hevc", b"hevx", b"heim", b"heis", b"msf1"}
"""Brands of sequences of pictures."""
_STILL = {b"avif", b"heic", b"heix", b"mif1"}
_ALPHA = {
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha",
    b"urn:mpeg:hevc:2015:auxid:1",
    b"urn:mpeg:avc:2015:auxid:1",
}
_DEPTH = {
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth",
    b"urn:mpeg:hevc:2015:auxid:2",
    b"urn:mpeg:avc:2015:auxid:2",
}
_SRGB_TRANSFER = 13
_VIDEO_TRANSFERS = {1, 6, 14, 15}
"""Transfer characteristics of BT.709, BT.601 and BT.2020: in these formats, unlike in PNG, browsers
show them as those of sRGB."""
_XMP_TYPE = b"application/rdf+xml"
_LONGEST_GRID = 16


@dataclass(frozen=True)
class HeifStructure(Structure):
    """That of a HEIF or AVIF. Its ``size`` is that of the coded picture."""

    coding: bytes
    """:data:`HEVC` or :data:`AV1`."""
    bits: int
    """Of a sample, as it is coded."""
    grey: bool
    alpha: bool
    premultiplied: bool
    """Whether the colours are multiplied by alpha."""
    crop: Crop
    turns: tuple[Transform, ...]
    profile: bytes | None
    exif: bytes | None
    xmp: bytes | None
    left_out: tuple[str, ...]
    """What the file has besides, by name."""

    @property
    def shown(self) -> Size:
        """(height, width), cropped and upright."""
        quarters = sum(turn.value for turn in self.turns if turn.kind == b"irot")
        size = self.crop.height, self.crop.width
        return size[::-1] if quarters % 2 else size

    @property
    def orientation(self) -> int:
        """What :attr:`turns` do together, as the orientation of EXIF."""
        return orientation_of(self.turns)

    def to_header(self, name: str) -> Header:
        """The header of a picture that is decoded to 8 or 16 bits."""
        return Header(name, self.shown, 8 if self.bits == 8 else 16, self.alpha)


def recognises(head: bytes) -> bool:
    """Whether the main brand of a file that begins so is one of pictures that are items."""
    return head[4:8] == b"ftyp" and head[8:12] in _STILL | _SEQUENCES


def brands(head: bytes) -> set[bytes]:
    """The brands of a file that begins so, as far as they are in it."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}


def read(file: BinaryFile, *, whole: bool = True) -> HeifStructure:
    """Read the items, and of the primary one what its decoder will see.

    Args:
        file: the file.
        whole: whether all of it is there. Of the first part of a file, the data that are not there
            are not read: what its boxes say of them stands, and EXIF and XMP are left out.

    Raises:
        AnimatedImage: a sequence of pictures.
        BadImage: damaged, or more work than is done for a header.
        UnsupportedFormat: coded in a way that is not read.
    """
    meta = read_meta(file)
    if meta.brands[:1] and (
        meta.brands[0] in _SEQUENCES
        or (meta.brands[0] not in _STILL and b"moov" in meta.boxes and _SEQUENCES & {*meta.brands})
    ):
        raise several_frames("AVIF" if meta.brands[0] == b"avis" else "HEIF")
    try:
        return _read(file, meta, whole=whole)
    except (struct.error, IndexError, ZeroDivisionError) as error:
        raise damaged("a property of its picture ends too soon") from error


def _read(file: BinaryFile, meta: Meta, *, whole: bool) -> HeifStructure:
    primary = meta.items.get(meta.primary)
    if primary is None:
        raise damaged("it has no picture")
    parts = Budget("parts of coded pictures", MAX_CODED_PARTS)
    read_coded = _CodedReader(file, meta, parts, whole=whole)
    coded, coding, pixels = read_coded(primary)
    alpha = _alpha(meta, read_coded, coded.size, coding)
    crop, turns = read_shown(primary, coded.size)
    if pixels > 1.1 * crop.height * crop.width + MAX_CROPPED_PIXELS:
        raise BadImage(
            f"at most {MAX_CROPPED_PIXELS:,} pixels outside what is shown are read, besides a "
            f"tenth of it; this picture shows {crop.width}x{crop.height} of {pixels:,} pixels: "
            "save it again"
        )
    exif, xmp = _described(file, meta) if whole else (None, None)
    return HeifStructure(
        size=coded.size,
        head=b"",
        coding=coding,
        bits=coded.bits,
        grey=coded.grey,
        alpha=alpha is not None,
        premultiplied=alpha is not None and alpha.number in primary.references.get(b"prem", ()),
        crop=crop,
        turns=turns,
        profile=_profile(primary, read_coded.tile(primary), grey=coded.grey),
        exif=exif,
        xmp=xmp,
        left_out=_left_out(meta, primary, alpha),
    )


class _CodedReader:
    """Reads what a decoder makes of a picture, once for each property of a codec."""

    def __init__(self, file: BinaryFile, meta: Meta, parts: Budget, *, whole: bool) -> None:
        self._file, self._meta, self._parts = file, meta, parts
        self._end = None if whole else file.seek(0, 2)
        self._configurations: dict[bytes, tuple[Coded, int]] = {}

    def tile(self, item: Item) -> Item:
        """The first tile of a grid, or the picture itself."""
        if item.kind != _GRID:
            return item
        numbers = item.references.get(b"dimg", [])
        tile = self._meta.items.get(numbers[0]) if numbers else None
        if tile is None:
            raise damaged("it has a grid without tiles")
        return tile

    def __call__(self, item: Item) -> tuple[Coded, bytes, int]:
        """What is coded, by which codec, and the pixels of all tiles.

        Raises:
            BadImage: the parts of the file say different things.
            UnsupportedFormat: coded in a way that is not read.
        """
        if item.kind != _GRID:
            coded = self._read_picture(item)
            height, width = coded.size
            return coded, item.kind, height * width
        size, tiles = self._read_grid(item)
        found = {(self._read_picture(tile), tile.kind) for tile in tiles}
        if len(found) != 1:
            raise damaged("the tiles of its grid differ")
        ((coded, kind),) = found
        rows, columns = -(-size[0] // coded.size[0]), -(-size[1] // coded.size[1])
        if rows * columns != len(tiles):
            raise damaged(
                f"it has {len(tiles)} tiles of {coded.size[1]}x{coded.size[0]} for "
                f"{size[1]}x{size[0]} pixels"
            )
        return coded._replace(size=size), kind, len(tiles) * coded.size[0] * coded.size[1]

    def _read_grid(self, item: Item) -> tuple[Size, list[Item]]:
        body = self._meta.data(self._file, item, _LONGEST_GRID, "a grid")
        rows, columns = body[2] + 1, body[3] + 1
        width, height = struct.unpack_from(">II" if body[1] & 1 else ">HH", body, 4)
        numbers = item.references.get(b"dimg", [])
        tiles = [self._meta.items[one] for one in numbers if one in self._meta.items]
        if len(tiles) != rows * columns:
            raise damaged(f"it has {len(tiles)} tiles, and a grid of {columns}x{rows}")
        if (height, width) != _extent(item):
            raise damaged("it tells two sizes")
        return (height, width), tiles

    def _read_picture(self, item: Item) -> Coded:
        is_there = self._end is None or item.ends_by(self._end)
        if item.kind == AV1 and not is_there:
            configuration = item.property(b"av1C")
            if configuration is None:
                raise damaged("its AV1 picture has no parameters")
            coded = av1.read_configuration(configuration, _extent(item))
        elif item.kind == AV1:
            data = self._meta.data(self._file, item, 2**62, "an AV1 picture")
            coded = av1.read_still(data, self._parts)
        elif item.kind == HEVC:
            configuration = item.property(b"hvcC")
            if configuration is None:
                raise damaged("its HEVC picture has no parameters")
            if configuration not in self._configurations:
                self._configurations[configuration] = hevc.read_configuration(configuration)
            coded, length_bytes = self._configurations[configuration]
            if item.in_meta:
                raise UnsupportedFormat("HEIF with pixels among its properties is not read")
            if is_there:
                hevc.check_data(self._file, item.extents, length_bytes, self._parts)
        else:
            kind = item.kind.decode("latin-1")
            raise UnsupportedFormat(
                f"HEIF is read with HEVC or AV1 inside, alone or in a grid; this picture is of "
                f"the kind {kind!r}: save it as HEIC, AVIF or JPEG"
            )
        if coded.size != _extent(item):
            height, width = _extent(item)
            raise damaged(
                f"it says {width}x{height}, and its codec {coded.size[1]}x{coded.size[0]}"
            )
        return coded


def _extent(item: Item) -> Size:
    """The size that a picture is said to have."""
    ispe = item.property(b"ispe")
    if ispe is None:
        raise damaged("its picture has no size")
    width, height = struct.unpack_from(">II", ispe, 4)
    if not (width and height):
        raise damaged("its picture has no pixels")
    return height, width


def _alpha(
    meta: Meta,
    read_coded: Callable[[Item], tuple[Coded, bytes, int]],
    size: Size,
    coding: bytes,
) -> Item | None:
    """The item that holds the alpha of the primary one."""
    for item in meta.pointing_to(meta.primary, b"auxl"):
        if _auxiliary_type(item) in _ALPHA:
            coded, codec, _ = read_coded(item)
            if coded.size != size or codec != coding:
                raise damaged("its alpha has another size or codec than its colours")
            return item
    return None


def _auxiliary_type(item: Item) -> bytes:
    return (item.property(b"auxC") or b"")[4:].split(b"\0")[0]


def _profile(item: Item, tile: Item, *, grey: bool) -> bytes | None:
    """The ICC profile of a picture: its own, or of equal meaning; None for sRGB."""
    colours = [one.body for one in (*item.properties, *tile.properties) if one.kind == b"colr"]
    for body in colours:
        if body[:4] in (b"prof", b"rICC"):
            return body[4:]
    for body in colours:
        if body[:4] == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", body, 4)
            transfer = _SRGB_TRANSFER if transfer in _VIDEO_TRANSFERS else transfer
            return profile_of_cicp(primaries, transfer, grey=grey)
    return None


def _described(file: BinaryFile, meta: Meta) -> tuple[bytes | None, bytes | None]:
    """EXIF and XMP of the primary item."""
    exif = xmp = None
    for item in meta.pointing_to(meta.primary, b"cdsc"):
        if item.kind == b"Exif" and exif is None:
            block = meta.data(file, item, MAX_EXIF_BYTES, "EXIF")
            exif = block[4 + int.from_bytes(block[:4], "big") :]
            check_block(exif)
        elif item.kind == b"mime" and item.content_type == _XMP_TYPE and xmp is None:
            xmp = meta.data(file, item, MAX_XMP_BYTES, "XMP")
    return exif or None, xmp or None


def _left_out(meta: Meta, primary: Item, alpha: Item | None) -> tuple[str, ...]:
    """What a file has besides its primary picture, by name."""
    names: list[str] = []
    parts = {primary.number, *primary.references.get(b"dimg", ())}
    if alpha is not None:
        parts |= {alpha.number, *alpha.references.get(b"dimg", ())}
    others = [one for one in meta.items.values() if one.number not in parts]
    tiles = {number for one in others for number in one.references.get(b"dimg", ())}
    for item in others:
        if item.kind == b"tmap" or b"hdrgainmap" in _auxiliary_type(item):
            names.append("HDR gain map")
        elif _auxiliary_type(item) in _DEPTH or b"disparity" in _auxiliary_type(item):
            names.append("depth map")
        elif b"matte" in _auxiliary_type(item):
            names.append("matte")
        elif _auxiliary_type(item):
            names.append("auxiliary image")
        elif item.kind in (HEVC, AV1, _GRID, b"iovl", b"iden", b"jpeg", b"unci"):
            thumbnail = b"thmb" in item.references
            gain_map = any(one.kind == b"tmap" for one in meta.pointing_to(item.number, b"dimg"))
            if not (thumbnail or gain_map or item.number in tiles):
                names.append("further image")
    if b"mpvd" in meta.boxes or b"moov" in meta.boxes:
        names.append("video")
    return tuple(dict.fromkeys(names))
