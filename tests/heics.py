"""HEIF and AVIF files, built of items as phones and editors build them."""

import io
import struct
from dataclasses import dataclass, field

import imagecodecs
import numpy as np
import pillow_heif
from PIL import Image

from superres.arrays import RgbU8
from superres.codecs.headers.isobmff import Item, Meta, Property, read_meta
from superres.codecs.items import write

GAIN_MAP = b"urn:com:apple:photo:2020:aux:hdrgainmap"
DEPTH = b"urn:mpeg:hevc:2015:auxid:2"
MATTE = b"urn:com:apple:photo:2018:aux:portraiteffectsmatte"
ALPHA = b"urn:mpeg:hevc:2015:auxid:1"
NEEDED = (b"hvcC", b"av1C", b"ispe", b"pixi", b"clap")
"""Properties of a coded picture that are about the picture alone."""


def heic(samples: np.ndarray, quality: int = 90, **options) -> bytes:
    """A HEIC of [h, w] or [h, w, channels], of 8 bits, or of 10 that are given as 16."""
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    mode = modes[samples.shape[2] if samples.ndim == 3 else 1]
    mode += ";16" if samples.dtype == np.uint16 else ""
    height, width = samples.shape[:2]
    file = pillow_heif.from_bytes(mode, (width, height), samples.tobytes())
    out = io.BytesIO()
    file.save(out, quality=quality, **options)
    return out.getvalue()


def avif(samples: np.ndarray, **options) -> bytes:
    """An AVIF of [h, w] or [h, w, channels]; ``bitspersample`` tells what uint16 holds."""
    return bytes(imagecodecs.avif_encode(samples, **{"level": 90, "speed": 10} | options))


@dataclass
class Builder:
    """A file that is built item by item; the first is the primary one."""

    brands: tuple[bytes, ...] = (b"heic", b"mif1", b"heic")
    items: dict[int, Item] = field(default_factory=dict)
    blocks: dict[int, bytes] = field(default_factory=dict)
    primary: int = 1

    def add(
        self,
        kind: bytes,
        data: bytes = b"",
        properties: tuple[Property, ...] = (),
        content_type: bytes = b"",
        **references: list[int],
    ) -> int:
        """Add an item; its number."""
        number = len(self.items) + 1
        self.items[number] = Item(
            number,
            kind,
            content_type,
            properties=list(properties),
            references={name.encode(): others for name, others in references.items()},
        )
        self.blocks[number] = data
        return number

    def add_coded(self, file: bytes, *properties: Property, **references: list[int]) -> int:
        """Add the primary picture of a file; its number."""
        kind, data, own = coded(file)
        return self.add(kind, data, (*own, *properties), **references)

    def add_grid(self, picture: RgbU8, side: int, *properties: Property, quality: int = 90) -> int:
        """Add a grid of square tiles in front of their own; the number of the grid."""
        height, width = picture.shape[:2]
        rows, columns = -(-height // side), -(-width // side)
        grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
        number = self.add(b"grid", grid, (size(height, width), *properties))
        padded = np.pad(
            picture, ((0, rows * side - height), (0, columns * side - width), (0, 0)), "edge"
        )
        known: dict[bytes, bytes] = {}
        tiles = []
        for top in range(0, rows * side, side):
            for left in range(0, columns * side, side):
                tile = padded[top : top + side, left : left + side]
                if tile.tobytes() not in known:  # encoding takes long
                    known[tile.tobytes()] = heic(tile, quality)
                tiles.append(self.add_coded(known[tile.tobytes()]))
        self.items[number].references[b"dimg"] = tiles
        return number

    def file(self) -> bytes:
        """The file."""
        meta = Meta(self.brands, frozenset((b"meta",)), self.primary, self.items, b"")
        return write(meta, self.blocks)


def coded(file: bytes) -> tuple[bytes, bytes, tuple[Property, ...]]:
    """Kind, data and own properties of the primary picture of a file."""
    opened = io.BytesIO(file)
    meta = read_meta(opened)
    item = meta.items[meta.primary]
    data = meta.data(opened, item, len(file), "a picture")
    return item.kind, data, tuple(one for one in item.properties if one.kind in NEEDED)


def size(height: int, width: int) -> Property:
    return Property(b"ispe", struct.pack(">III", 0, width, height))


def turned(quarters: int) -> Property:
    """By quarters against the clock."""
    return Property(b"irot", bytes([quarters]))


def mirrored(axis: int) -> Property:
    """0 swaps top and bottom, 1 the sides."""
    return Property(b"imir", bytes([axis]))


def auxiliary(kind: bytes) -> Property:
    return Property(b"auxC", bytes(4) + kind + b"\0")


def profile(icc: bytes) -> Property:
    return Property(b"colr", b"prof" + icc)


def nclx(primaries: int, transfer: int, matrix: int, *, full: bool = True) -> Property:
    numbers = struct.pack(">HHHB", primaries, transfer, matrix, 0x80 * full)
    return Property(b"colr", b"nclx" + numbers)


def exif(*, orientation: int = 6, model: str = "Phone") -> bytes:
    """A block whose orientation a reader of HEIF must not apply."""
    block = Image.Exif()
    block[0x0112], block[0x0110] = orientation, model
    return block.tobytes().removeprefix(b"Exif\0\0")


def phone(picture: RgbU8, icc: bytes, side: int = 512) -> bytes:
    """A HEIC as a phone writes it: held upright, with a depth map, a gain map and a thumbnail.

    Args:
        picture: upright.
        icc: its profile.
        side: of a tile.
    """
    stored = np.ascontiguousarray(np.rot90(picture))
    small = np.ascontiguousarray(stored[::4, ::4, 1])
    file = Builder(brands=(b"heic", b"mif1", b"MiHB", b"heic"))
    grid = file.add_grid(stored, side, profile(icc), turned(3))
    file.add_coded(heic(small), auxiliary(DEPTH), auxl=[grid])
    file.add_coded(heic(small), auxiliary(GAIN_MAP), auxl=[grid])
    file.add_coded(heic(np.ascontiguousarray(stored[::8, ::8])), turned(3), thmb=[grid])
    file.add(b"Exif", bytes(4) + exif(), cdsc=[grid])
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    file.add(b"mime", xmp, content_type=b"application/rdf+xml", cdsc=[grid])
    return file.file()
