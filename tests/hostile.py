"""Picture files that were damaged on purpose, numbered: the same number, the same bytes."""

import io
import random
import struct
import zlib
from collections.abc import Sequence
from functools import cache

import imagecodecs
import numpy as np
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from superres.codecs import Picture, encode
from tests import heics
from tests.pictures import WIDE_PROFILE, chunk, plain, saved

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@cache
def seeds() -> tuple[bytes, ...]:
    """Whole files: of every format that is read, and of every kind that it has."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 31, 4), np.uint8)
    rgba = Image.fromarray(noise)
    rgb, grey, cmyk = rgba.convert("RGB"), rgba.convert("L"), rgba.convert("CMYK")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769)[0x829A] = 0.01
    about = {"exif": exif, "icc_profile": WIDE_PROFILE, "dpi": (300, 300)}
    text = PngInfo()
    text.add_itxt(
        "XML:com.adobe.xmp", '<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/>'
    )
    sixteen = noise.astype(np.uint16) * 257
    files = [
        *(saved(image, "PNG") for image in (rgba, rgb, grey, rgb.quantize(16), grey.convert("1"))),
        saved(rgb, "PNG", **about, pnginfo=text),
        *(imagecodecs.png_encode(np.ascontiguousarray(sixteen[..., :n])) for n in (2, 3, 4)),
        encode(Picture(sixteen, icc_profile=WIDE_PROFILE, xmp=b"<x/>"), "png"),
        *(saved(image, "JPEG") for image in (rgb, grey, cmyk)),
        saved(rgb, "JPEG", **about, xmp=b"<x/>", comment=b"hi"),
        saved(rgb, "JPEG", progressive=True),
        *(saved(image, "WEBP") for image in (rgb, rgba)),
        saved(rgba, "WEBP", lossless=True, **about),
        *(saved(rgb, "TIFF", compression=kind) for kind in (None, "tiff_lzw", "jpeg", "packbits")),
        *(saved(image, "TIFF", **about) for image in (rgba, cmyk)),
        *(encode(Picture(samples), "tiff") for samples in (noise[..., :3], sixteen, noise)),
        *(heics.heic(np.ascontiguousarray(noise[..., :n])) for n in (3, 4)),
        heics.heic(noise[..., 0].copy()),
        heics.heic(sixteen[..., :3]),
        heics.phone(np.tile(noise[..., :3], (3, 3, 1)), WIDE_PROFILE, 64),
        *(heics.avif(noise[..., :n]) for n in (1, 2, 3, 4)),
        heics.avif(sixteen[..., :3] >> 6, bitspersample=10),
        saved(rgba, "AVIF", **about, xmp=b"<x/>"),
        *(encode(Picture(noise[..., :n], xmp=b"<x/>"), "jxl") for n in (3, 4)),
        *(bytes(imagecodecs.jpegxl_encode(noise[..., :n], level=101)) for n in (1, 2, 3, 4)),
        bytes(imagecodecs.jpegxl_encode(sixteen[..., :3])),
        *(saved(image, "BMP") for image in (rgb, rgba, grey, rgb.quantize(4))),
        *(saved(image, "GIF") for image in (rgb, grey)),
    ]
    for options in ({"planarconfig": "separate"}, {"tile": (16, 16)}, {"byteorder": ">"}):
        out = io.BytesIO()
        planar = options.get("planarconfig") == "separate"
        samples = np.moveaxis(sixteen[..., :3], -1, 0) if planar else sixteen[..., :3]
        tifffile.imwrite(out, samples, photometric="rgb", compression="lzw", **options)
        files.append(out.getvalue())
    twelve = np.ascontiguousarray(sixteen[..., :3]) >> 4
    files.extend(
        (
            imagecodecs.jpeg8_encode(twelve, bitspersample=12),
            imagecodecs.jpeg8_encode(np.ascontiguousarray(noise[..., :3]), lossless=True),
        )
    )
    for samples in (sixteen / np.float32(65_535), (sixteen[..., :3] / 65_535).astype(np.float16)):
        out = io.BytesIO()
        tifffile.imwrite(out, samples, photometric="rgb", compression="zlib", predictor=3)
        files.append(out.getvalue())
    out = io.BytesIO()
    extra = np.dstack([sixteen, sixteen[..., 0]])
    options = {"photometric": "rgb", "extrasamples": [0, 2], "bigtiff": True, "byteorder": ">"}
    tifffile.imwrite(out, extra, **options)
    files.append(out.getvalue())
    return tuple(bytes(file) for file in files)


def mutated(number: int) -> bytes:
    """One to eight changes to one of the :func:`seeds`, or to two that are spliced."""
    return damaged(random.Random(number), seeds())


def damaged(choose: random.Random, files: Sequence[bytes]) -> bytes:
    """One to eight changes to one of these files, or to it and one of the :func:`seeds`."""
    data = bytearray(choose.choice(files))
    for _ in range(choose.randint(1, 8)):
        at = choose.randrange(len(data) + 1)
        # Headers are short, and where most harm is done.
        at = min(at, choose.randrange(200)) if choose.random() < 0.5 else at
        _change(choose, data, at)
        if not data:
            return b""
    if data.startswith(b"\x89PNG") and choose.random() < 0.8:
        data = bytearray(_with_checksums(bytes(data)))
    return bytes(data)


def _change(choose: random.Random, data: bytearray, at: int) -> None:
    kind = choose.randrange(7)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << choose.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = choose.randrange(256)
    elif kind == 2:
        number = struct.pack(choose.choice("<>") + "I", choose.choice(_EXTREMES))
        data[at : at + 4] = number[: choose.choice((1, 2, 4))]
    elif kind == 3:
        del data[at : at + choose.randrange(1, 40)]
    elif kind == 4:
        data[at:at] = choose.randbytes(choose.randrange(1, 40))
    elif kind == 5 and choose.random() < 0.3:
        del data[at:]
    elif kind == 6 and choose.random() < 0.3:
        data[at:] = choose.choice(seeds())[at:]


def _with_checksums(png: bytes) -> bytes:
    """Right checksums again, without which a decoder sees no further than the change."""
    out, at = [png[:8]], 8
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        body = png[at + 4 : at + 8 + length]
        if at + 12 + length > len(png):
            break
        out.append(png[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return b"".join(out) + png[at:]


def many_directories(number: int) -> bytes:
    """A TIFF of so many directories of one grey pixel, 114 bytes each."""
    entries = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in entries.items())
    length = len(body) + 4
    directories = (
        body + struct.pack("<I", 9 + (one + 1) * length if one + 1 < number else 0)
        for one in range(number)
    )
    return struct.pack("<2sHIB", b"II", 42, 9, 128) + b"".join(directories)


def many_chunks(number: int) -> bytes:
    """A PNG with so many empty chunks before its pixels."""
    png = plain()
    after_header = 8 + 25
    return png[:after_header] + chunk(b"teSt", b"") * number + png[after_header:]


def many_scans(number: int, side: int = 4000) -> bytes:
    """A progressive JPEG whose last scan is repeated so many times."""
    jpeg = saved(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    # Each scan has its Huffman table before it.
    start = jpeg.rindex(b"\xff\xc4")
    return jpeg[:start] + jpeg[start:-2] * (number + 1) + jpeg[-2:]
