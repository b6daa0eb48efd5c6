"""Picture files built by their structure: random ones, and ones that cost much to read.

:func:`honest` encodes a picture; :func:`lying` changes what such a file says of its size and
layout; :data:`COSTLY` has one file for each way that is known to make a reader work.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from superres.codecs.headers import jxl as jxl_headers
from superres.codecs.headers.isobmff import Property
from tests import heics
from tests.pictures import chunk, saved

MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "16"),
    "jpeg": ("L", "RGB", "CMYK", "12"),
    "webp": ("RGB", "RGBA"),
    "avif": ("L", "RGB", "RGBA", "16"),
    "jxl": ("L", "LA", "RGB", "RGBA", "16"),
    "heif": ("L", "RGB", "RGBA", "16", "grid"),
    "tiff": ("1", "L", "P", "RGB", "RGBA", "CMYK", "16", "float", "extra"),
    "bmp": ("1", "L", "P", "RGB", "RGBA"),
    "gif": ("L", "P", "framed"),
}


def honest(choose: Random, name: str, most_pixels: int) -> bytes:
    """A file of that format, of random size and layout."""
    width = round(most_pixels ** choose.choice((0.1, 0.3, 0.5, 0.5, 0.5, 0.5, 0.7)))
    height = max(1, min(most_pixels // width, 16_000))
    width = min(width, 16_000)
    mode = choose.choice(MODES[name])
    if name in ("heif", "avif", "jxl"):
        return _new(choose, name, mode, (height, width))
    if mode in _DEEP:
        return _DEEP[mode](choose, name, (height, width))
    if mode == "framed":
        return _framed(choose, (height, width))
    image = Image.linear_gradient("L").resize((width, height))
    bands = Image.merge("RGB", (image, image.rotate(180), image))
    image = image.convert(mode) if mode in ("1", "L", "LA") else bands.convert(mode)
    if mode == "RGBA":
        image.putalpha(100)
    return saved(image, {"jpeg": "JPEG"}.get(name, name.upper()), **_options(choose, name, mode))


def _options(choose: Random, name: str, mode: str) -> dict:
    if name == "png":
        transparency = {"P": 3, "L": 3, "1": 0, "RGB": (1, 2, 3)}.get(mode)
        clear = transparency is not None and choose.random() < 0.5
        return {"compress_level": 1} | ({"transparency": transparency} if clear else {})
    if name == "jpeg":
        return {"progressive": choose.random() < 0.5, "subsampling": choose.randrange(3)}
    if name == "webp":
        return {"lossless": choose.random() < 0.5, "method": 0}
    if name == "gif" and mode == "P":
        return {"transparency": 3, "disposal": choose.randrange(4)}
    if name == "tiff":
        kinds = ("group4",) if mode == "1" else (None, "tiff_lzw", "packbits", "zstd")
        kinds += ("jpeg",) if mode in ("L", "RGB") else ()
        return {"compression": choose.choice(kinds)}
    return {}


def _twelve(choose: Random, name: str, size: tuple[int, int]) -> bytes:
    channels = choose.choice((1, 3))
    row = np.linspace(0, 4095, size[1] * channels).astype(np.uint16)
    samples = np.tile(row, (size[0], 1)).reshape(*size, channels)
    return bytes(imagecodecs.jpeg8_encode(samples, bitspersample=12, optimize=True))


def _framed(choose: Random, size: tuple[int, int]) -> bytes:
    """A GIF whose frame is a quarter of its canvas."""
    height, width = size
    data = bytearray(saved(Image.new("L", (-(-width // 2), -(-height // 2)), 9), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def _float(choose: Random, name: str, size: tuple[int, int]) -> bytes:
    channels, dtype = choose.choice((1, 3, 4)), choose.choice((np.float16, np.float32))
    row = np.linspace(0, 1, size[1] * channels).astype(dtype)
    shape = (*size, channels) if channels > 1 else size
    return _tiff(choose, np.tile(row, (size[0], 1)).reshape(shape), (1, 3))


def _extra(choose: Random, name: str, size: tuple[int, int]) -> bytes:
    """With samples besides the colour, or in a big-endian BigTIFF; CMYK with alpha."""
    dtype = choose.choice((np.uint8, np.uint16))
    cmyk = dtype is np.uint8 and choose.random() < 0.3
    channels = choose.choice((4, 5, 6))
    row = np.linspace(0, np.iinfo(dtype).max, size[1] * channels).astype(dtype)
    samples = np.tile(row, (size[0], 1)).reshape(*size, channels)
    colours = 4 if cmyk else 3
    kinds = [choose.choice((0, 1, 2)) for _ in range(channels - colours)]
    options: dict = {"extrasamples": kinds, "photometric": "separated" if cmyk else "rgb"}
    return _tiff(choose, samples, (1, 2), **options, **choose.choice(_BIG))


_BIG = ({}, {"bigtiff": True, "byteorder": ">"})


def _tiff(
    choose: Random, samples: np.ndarray, predictors: tuple[int, ...], **options: object
) -> bytes:
    if "photometric" not in options:
        options["photometric"] = "rgb" if samples.ndim == 3 else "minisblack"
    compression = choose.choice((None, "zlib", "lzw"))
    options["compression"] = compression
    options["planarconfig"] = "contig" if samples.ndim == 3 else None
    if compression is not None:
        options["predictor"] = choose.choice(predictors)
    out = io.BytesIO()
    rows: dict = choose.choice(({}, {"rowsperstrip": samples.shape[0]}, {"tile": (256, 256)}))
    tifffile.imwrite(out, samples, **options, **rows)
    return out.getvalue()


def _sixteen(choose: Random, name: str, size: tuple[int, int]) -> bytes:
    channels = choose.randint(1, 4)
    row = np.linspace(0, 65_535, size[1] * channels).astype(np.uint16)
    samples = np.tile(row, (size[0], 1)).reshape(*size, channels)
    if name == "png":
        return bytes(imagecodecs.png_encode(samples, level=1))
    if channels in (1, 2):
        samples = samples[..., 0]
    options: dict = {"photometric": "rgb" if samples.ndim == 3 else "minisblack"}
    options["compression"] = choose.choice((None, "zlib", "lzw", "packbits"))
    options["predictor"] = options["compression"] in ("zlib", "lzw")
    if samples.ndim == 3 and choose.random() < 0.3:
        samples, options["planarconfig"] = np.moveaxis(samples, -1, 0), "separate"
    options |= choose.choice(({}, {"rowsperstrip": size[0]}, {"tile": (256, 256)}))
    out = io.BytesIO()
    tifffile.imwrite(out, samples, **options)
    return out.getvalue()


def _new(choose: Random, name: str, mode: str, size: tuple[int, int]) -> bytes:
    """A file whose encoder takes arrays."""
    height, width = size
    if name == "heif":  # as far as its encoder goes
        height, width = (min(max(side, 32), 8_000) for side in size)
    row = np.linspace(0, 1023 if mode == "16" else 255, width)
    samples = np.tile(row, (height, 1)).astype(np.uint16 if mode == "16" else np.uint8)
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "grid": 3}.get(mode) or choose.choice(
        (1, 3, 4)
    )
    samples = np.dstack([samples] * channels) if channels > 1 else samples
    if name == "jxl":
        lossless = {"level": 101 if choose.random() < 0.3 else 80}
        depth = {"bitspersample": 10} if mode == "16" else {}
        return bytes(imagecodecs.jpegxl_encode(samples, effort=3, **lossless, **depth))
    if name == "avif":
        return heics.avif(samples, bitspersample=10 if mode == "16" else 8)
    turns = [heics.turned(choose.randrange(4)), heics.mirrored(choose.randrange(2))]
    if mode != "grid":
        return heics.heic(samples << 6 if mode == "16" else samples)
    file = heics.Builder()
    side = choose.choice((64, 256)) if min(size) > 256 else 64
    file.add_grid(samples, side, *choose.sample(turns, choose.randrange(3)))
    return file.file()


_DEEP = {"16": _sixteen, "12": _twelve, "float": _float, "extra": _extra}

_NUMBERS = (0, 1, 2, 3, 7, 8, 16, 255, 1000, 4000, 65_535, 65_536, 150_000, 2**31, 2**32 - 1)


def lying(choose: Random, name: str, data: bytes) -> bytes:
    """The file, with a few numbers of its header replaced."""
    changed = bytearray(data)
    for _ in range(choose.randint(1, 3)):
        _LIES[name](choose, changed)
    if name == "png":
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    return bytes(changed)


def _put(choose: Random, data: bytearray, fields: Iterable[tuple[int, str]]) -> None:
    at, form = choose.choice(tuple(fields))
    number = choose.choice(_NUMBERS) % 256 ** struct.calcsize(form)
    if at + struct.calcsize(form) <= len(data):
        struct.pack_into(form, data, at, number)


def _lie_tiff(choose: Random, data: bytearray) -> None:
    """One entry of the first directory becomes another, or gets another number."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (first,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, first)
    entry = first + (8 if big else 2) + (20 if big else 12) * choose.randrange(count)
    if big:
        _put(choose, data, ((entry, order + "H"), (entry + 4, order + "Q"), (entry + 12, "B")))
        return
    if choose.random() < 0.5:
        tags = (256, 257, 258, 259, 262, 277, 278, 284, 317, 322, 323, 338, 339, 32_997, 32_998)
        struct.pack_into(order + "HHI", data, entry, choose.choice(tags), choose.choice((3, 4)), 1)
    _put(choose, data, ((entry + 8, order + "I"), (entry + 8, order + "H")))


def _lie_jpeg(choose: Random, data: bytearray) -> None:
    at = max(data.find(frame) for frame in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2"))
    _put(
        choose, data, ((at + 4, "B"), (at + 5, ">H"), (at + 7, ">H"), (at + 9, "B"), (at + 11, "B"))
    )


def _lie_items(choose: Random, data: bytearray) -> None:
    """A number of a property, or of the parameters of the codec, becomes another."""
    fields = [(data.find(b"ispe") + 8, ">I"), (data.find(b"ispe") + 12, ">I")]
    fields += [(data.find(b"iloc") + 8 + choose.randrange(40), "B")]
    for kind, length in ((b"hvcC", 100), (b"av1C", 4), (b"ipma", 20), (b"irot", 1), (b"mdat", 40)):
        if (at := data.find(kind)) >= 0:
            fields.append((at + 4 + choose.randrange(length), choose.choice(("B", ">H", ">I"))))
    _put(choose, data, fields)


_LIES: dict[str, Callable[[Random, bytearray], None]] = {
    "png": lambda choose, data: _put(
        choose, data, ((16, ">I"), (20, ">I"), (24, "B"), (25, "B"), (28, "B"))
    ),
    "jpeg": _lie_jpeg,
    "webp": lambda choose, data: _put(
        choose, data, ((4, "<I"), (16, "<I"), (20, "B"), (24, "<H"), (26, "<H"), (27, "<H"))
    ),
    "avif": _lie_items,
    "heif": _lie_items,
    "jxl": lambda choose, data: _put(choose, data, ((choose.randrange(2, 24), "B"),)),
    "tiff": _lie_tiff,
    "bmp": lambda choose, data: _put(
        choose,
        data,
        ((10, "<I"), (14, "<I"), (18, "<I"), (22, "<I"), (28, "<H"), (30, "<I"), (46, "<I")),
    ),
    "gif": lambda choose, data: _put(
        choose, data, ((6, "<H"), (8, "<H"), (10, "B"), (data.find(b",") + 5, "<H"))
    ),
}


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 4x4 with these chunks before its pixels."""
    ihdr = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    pixels = (b"IDAT", zlib.compress(bytes(5 * 4)))
    every = ((b"IHDR", ihdr), *chunks, pixels, (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in every)


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg(*segments: bytes) -> bytes:
    """A JPEG of 8x8 with these segments before all others."""
    return b"\xff\xd8" + b"".join(segments) + saved(Image.new("L", (8, 8)), "JPEG")[2:]


def scans(count: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A progressive JPEG with so many scans; all but the first few repeat the last, in short."""
    data = saved(Image.new("L", size), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    head = data[last : last + 2 + struct.unpack_from(">H", data, last + 2)[0]]
    missing = count - data.count(b"\xff\xda")
    return data[:-2] + (head + b"\x00") * missing + b"\xff\xd9"


def webp(
    *chunks: tuple[bytes, bytes],
    before: Iterable[tuple[bytes, bytes]] = (),
    flags: int = 0x0C,
    size: tuple[int, int] = (4, 4),
) -> bytes:
    """A WebP of (height, width) with these chunks behind and before its pixels."""
    height, width = size
    pixels = saved(Image.new("RGB", (width, height)), "WEBP")[12:]
    about = struct.pack("<4sIIHBHB", b"VP8X", 10, flags, width - 1, 0, height - 1, 0)
    first, last = (b"".join(_riff_chunk(*one) for one in some) for some in (before, chunks))
    body = b"WEBP" + about + first + pixels + last
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _riff_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body + bytes(len(body) % 2)


def gif(
    before: bytes = b"", pixels: bytes = b"\x02\x02\x44\x01\x00", behind: bytes = b";"
) -> bytes:
    """A GIF of 1x1."""
    return b"GIF89a\1\0\1\0\x80\0\0" + bytes(6) + before + b",\0\0\0\0\1\0\1\0\0" + pixels + behind


Tag = tuple[int, tuple[int, ...]]
"""Type and values."""
_FORMS = {1: "B", 3: "H", 4: "I", 5: "Q"}


def tiff(tags: dict[int, Tag] | None = None, *, following: int = 0, behind: bytes = b"") -> bytes:
    """A TIFF of 4x4 grey pixels, with other tags or other values of them."""
    entries: dict[int, Tag] = {256: (3, (4,)), 257: (3, (4,)), 258: (3, (8,)), 262: (3, (1,))}
    entries |= {273: (4, (8,)), 279: (4, (16,))} | (tags or {})
    first = 8 + 16
    far = first + 2 + 12 * len(entries) + 4
    table, values = b"", b""
    for tag, (kind, numbers) in sorted(entries.items()):
        data = struct.pack(f"<{len(numbers)}{_FORMS[kind]}", *numbers)
        place = data.ljust(4, b"\0")
        if len(data) > 4:
            place = struct.pack("<I", far + len(values))
            values += data
        table += struct.pack("<HHI", tag, kind, len(numbers)) + place
    start = b"II*\0" + struct.pack("<I", first) + bytes(range(16))
    directory = struct.pack("<H", len(entries)) + table + struct.pack("<I", following)
    return start + directory + values + behind


def directories(count: int) -> bytes:
    """A TIFF of so many pages, all of the same pixels."""
    page = struct.pack("<H", 1) + struct.pack("<HHII", 256, 3, 1, 4)
    start = len(tiff())
    pages = (page + struct.pack("<I", start + 18 * (n + 1)) for n in range(count))
    return tiff(following=start, behind=b"".join(pages))


def _exif(entries: int) -> bytes:
    table = b"".join(struct.pack("<HHII", tag, 3, 1, 1) for tag in range(entries))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", entries) + table + bytes(4)


def _bmp_runs(length: int) -> bytes:
    data = bytearray(saved(Image.new("L", (4, 4)).convert("P"), "BMP"))
    data[30:34] = struct.pack("<I", 1)
    return bytes(data[:1078]) + b"\1\0" * (length // 2)


_NOISE = np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8)


def _heif(
    data: bytes = b"",
    kind: bytes = b"uri ",
    *,
    items: int = 1,
    like: bytes | None = None,
    **options: Any,
) -> bytes:
    """A HEIF with so many more items, or whose first one has other data."""
    file = heics.Builder(brands=(b"avif",) if like and b"av01" in like else (b"heic",))
    file.add_coded(like or heics.heic(_NOISE))
    if like:
        file.blocks[1] = data
    else:
        for _ in range(items):
            file.add(kind, data, **options)
    return file.file()


def _replaced(data: bytes, kind: bytes, offset: int, body: bytes) -> bytes:
    """A file whose box of that kind, and its meta box, have this behind so many bytes."""
    at = data.index(kind) - 4
    (length,) = struct.unpack_from(">I", data, at)
    new = data[at + 4 : at + 4 + offset] + body
    meta = data.index(b"meta") - 4
    (whole,) = struct.unpack_from(">I", data, meta)
    grown = struct.pack(">I", whole + len(new) + 4 - length)
    box = struct.pack(">I", len(new) + 4) + new
    return data[:meta] + grown + data[meta + 4 : at] + box + data[at + length :]


COSTLY: dict[str, tuple[Callable[[], bytes], str]] = {
    "png, empty chunks": (lambda: png(*[(b"teSt", b"")] * 100_000), "chunks of PNG"),
    "png, texts that expand": (
        lambda: png(*[(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))] * 900),
        "",  # read, but not expanded
    ),
    "png, XMP that expands": (
        lambda: png(
            *[(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(10**6)))] * 900
        ),
        "texts with metadata",
    ),
    "png, profiles": (lambda: png(*[(b"iCCP", b"a\0\0")] * 900), "iCCP is there twice"),
    "png, a long cHRM": (lambda: png((b"cHRM", bytes(8_000_000))), "cHRM has 8,000,000 bytes"),
    "png, long chunks": (lambda: png(*[(b"teSt", bytes(10**6))] * 40), "bytes of PNG before"),
    "png, empty chunks behind the pixels": (
        lambda: png((b"IDAT", b""), *[(b"teSt", b"")] * 100_000),
        "at most 50,000 chunks",
    ),
    "png, damaged EXIF behind the pixels": (
        lambda: png((b"IDAT", b""), *[(b"eXIf", bytes(10**6))] * 40).replace(
            chunk(b"eXIf", bytes(10**6))[-4:], b"\1\1\1\1"
        ),
        "bytes of EXIF behind",
    ),
    "png, empty IDAT": (lambda: png(*[(b"IDAT", b"")] * 60_000), "at most 50,000 chunks"),
    "jpeg, comments": (lambda: jpeg(*[segment(0xFE, b"")] * 300_000), "segments before"),
    "jpeg, stray bytes": (lambda: jpeg(segment(0xFE, b""), bytes(5_000_000)), "stray bytes"),
    "jpeg, fill bytes": (lambda: jpeg(b"\xff" * 5_000_000), "stray bytes"),
    "jpeg, long segments": (lambda: jpeg(*[segment(0xE5, bytes(65_000))] * 600), "bytes of seg"),
    "jpeg, EXIF in parts": (
        lambda: jpeg(*[segment(0xE1, b"Exif\0\0" + bytes(60_000))] * 300),
        "bytes of EXIF",
    ),
    "jpeg, entries of EXIF": (lambda: jpeg(segment(0xE1, _exif(5_000))), "entries of a directory"),
    "jpeg, resources": (
        lambda: jpeg(*[segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\0\0\0\0\0\0\0" * 5_000)] * 50),
        "resources of Photoshop",
    ),
    "jpeg, tables": (
        lambda: jpeg(*[segment(0xDB, (b"\0" + b"\1" * 64) * 1_000)] * 50),
        "quantisation tables",
    ),
    "jpeg, scans": (lambda: scans(150), "at most 100 scans"),
    "jpeg, tables between scans": (
        lambda: scans(4)[:-2] + segment(0xDD, bytes(2)) * 50_000 + b"\xff\xd9",
        "behind its first scan",
    ),
    "webp, chunks": (lambda: webp(*[(b"teSt", b"")] * 300_000), "chunks of WebP"),
    "webp, XMP": (lambda: webp((b"XMP ", bytes(30_000_000))), "bytes of XMP"),
    "webp, entries of EXIF": (lambda: webp((b"EXIF", _exif(60_000))), "entries of a directory"),
    "webp, frames": (
        lambda: webp(*[(b"ANMF", bytes(24))] * 100_000),
        "this WEBP has more than one",
    ),
    "gif, blocks": (lambda: gif(pixels=b"\x02" + b"\1\0" * 2_000_000 + b"\0"), "data blocks"),
    "gif, comments": (lambda: gif(b"!\xfe\1a\0" * 1_000_000), "extensions of a GIF"),
    "gif, empty extensions": (lambda: gif(b"!\xff\0" * 1_000_000), "an extension without data"),
    "gif, stray bytes": (lambda: gif(behind=bytes(5_000_000)), ""),
    "gif, stray bytes before": (lambda: gif(bytes(5_000_000)), "between the blocks"),
    "gif, frames": (
        lambda: gif(behind=gif()[19:-1] * 300_000),
        "this GIF has more than one",
    ),
    "tiff, directories": (lambda: directories(100_000), "this TIFF has more than one"),
    "tiff, entries": (
        lambda: tiff(dict.fromkeys(range(33_000, 43_000), (3, (1,)))),
        "entries of a directory",
    ),
    "tiff, values": (
        lambda: tiff({270: (5, (1,) * 200_000)}),
        "values in a directory",
    ),
    "tiff, values of EXIF": (
        lambda: (
            tiff({34_665: (4, (222,)), 65_000: (3, (1,))})[:222].ljust(222, b"\0")
            + struct.pack("<HHHII", 1, 33_434, 5, 200_000, 240)
            + bytes(4 + 1_600_000)
        ),
        "values in a directory",
    ),
    "tiff, XMP": (lambda: tiff({700: (1, (32,) * 8_400_000)}), "bytes of XMP"),
    "tiff, strips": (lambda: tiff({273: (4, (8,) * 2_000_000)}), "strips of a TIFF"),
    "tiff, rows": (
        lambda: tiff({256: (3, (1,)), 257: (4, (3_000_000,)), 278: (3, (1,))}),
        "strips",
    ),
    "tiff, strips that are one": (
        lambda: tiff(
            {257: (3, (900,)), 278: (3, (1,)), 273: (4, (8,) * 900), 279: (4, (900_000,) * 900)},
            behind=bytes(900_000),
        ),
        "bytes of strips or tiles",
    ),
    "heif, boxes": (lambda: heics.phone(_NOISE, b"", 64) + b"\0\0\0\x08free" * 300_000, "boxes of"),
    "heif, items": (lambda: _heif(kind=b"uri ", items=5_000), "boxes in a box"),
    "heif, references": (lambda: _heif(thmb=[1] * 30_000), "references of items"),
    "heif, extents": (
        lambda: _replaced(_heif(), b"iloc", 16, struct.pack(">H", 50_000) + bytes(400_000)),
        "extents of items",
    ),
    "heif, XMP": (
        lambda: _heif(bytes(9_000_000), b"mime", content_type=b"application/rdf+xml", cdsc=[1]),
        "bytes of XMP",
    ),
    "heif, entries of EXIF": (
        lambda: _heif(bytes(4) + _exif(60_000)[6:], b"Exif", cdsc=[1]),
        "entries of a directory",
    ),
    "heif, a long meta box": (
        lambda: _heif(properties=(Property(b"free", bytes(20_000_000)),)),
        "bytes of a meta box",
    ),
    "heif, units": (
        lambda: _heif(b"\0\0\0\2\x26\1" * 60_000, like=heics.heic(_NOISE)),
        "parts of coded pictures",
    ),
    "avif, parts": (
        lambda: _heif(b"\x12\0" * 300_000, like=heics.avif(_NOISE)),
        "parts of coded pictures",
    ),
    "jxl, boxes": (
        lambda: jxl_headers.CONTAINER + b"\0\0\0\x08free" * 300_000,
        "boxes of a file",
    ),
    "jxl, channels": (
        # 8x8; 8 bits; 4,000 channels.
        lambda: b"\xff\x0a" + (1 | 1 << 6 | 3 << 15 | 3_999 << 17).to_bytes(500_000, "little"),
        "further channels of JPEG XL",
    ),
    "bmp, a long header": (
        lambda: saved(Image.new("L", (4, 4)), "BMP")[:14] + b"\xff" * 8_000_000,
        "4,294,967,295 bytes, and BMP's have",
    ),
    "bmp, runs": (lambda: _bmp_runs(4_000_000), "bytes of runs are read for 4x4"),
}
"""Name -> how to build it, and what the error says; nothing, if it is only decoded."""
