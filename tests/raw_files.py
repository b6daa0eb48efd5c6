"""PNG, TIFF and BMP built byte by byte, in every depth that they have, which no encoder does."""

import struct
import zlib

import numpy as np
from PIL import Image

from tests.pictures import chunk


def exif(orientation: int) -> Image.Exif:
    """A block with something to keep."""
    block = Image.Exif()
    block[0x010F], block[0x0112] = "Camera", orientation
    return block


def png(
    samples: np.ndarray,
    bits: int,
    colour_type: int,
    *chunks: tuple[bytes, bytes],
) -> bytes:
    """A PNG with these chunks before its pixels."""
    height, width, _channels = samples.shape
    rows = packed(samples, bits).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def packed(samples: np.ndarray, bits: int) -> np.ndarray:
    """The bytes of samples, each row of its own, the highest bit first."""
    wide = np.ascontiguousarray(samples, ">u2").view(np.uint8).reshape(*samples.shape, 2)
    every = np.unpackbits(wide, axis=-1)[..., 16 - bits :]
    return np.packbits(every.reshape(len(samples), -1), axis=1)


def tiff(
    samples: np.ndarray,
    bits: int,
    photometric: int,
    orientation: int,
    *,
    icc: bytes | None = None,
    extra: int | None = None,
    palette: np.ndarray | None = None,
) -> bytes:
    """A TIFF in one strip; of floats, if its samples are that.

    Args:
        samples: [h, w, channels].
        bits: of a sample.
        photometric: as PhotometricInterpretation numbers it.
        orientation: as EXIF numbers it.
        icc: a profile.
        extra: what the last channel is, as ExtraSamples numbers it.
        palette: [colours, 3] of 8 bits.
    """
    height, width, channels = samples.shape
    floats = samples.dtype.kind == "f"
    if floats or bits == 16:
        strip = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    else:
        strip = packed(samples, bits).tobytes()
    tags: dict[int, tuple[int, bytes]] = {
        256: (4, struct.pack("<I", width)),
        257: (4, struct.pack("<I", height)),
        258: (3, struct.pack("<H", bits) * channels),
        259: (3, struct.pack("<H", 1)),
        262: (3, struct.pack("<H", photometric)),
        271: (2, b"Camera\0"),
        273: (4, struct.pack("<I", 8)),
        274: (3, struct.pack("<H", orientation)),
        277: (3, struct.pack("<H", channels)),
        278: (4, struct.pack("<I", height)),
        279: (4, struct.pack("<I", len(strip))),
    }
    if palette is not None:
        table = np.zeros((2**bits, 3), "<u2")
        table[: len(palette)] = palette.astype(np.uint16) * 257
        tags[320] = (3, table.T.tobytes())
    if extra is not None:
        tags[338] = (3, struct.pack("<H", extra))
    if floats:
        tags[339] = (3, struct.pack("<H", 3) * channels)
    if icc is not None:
        tags[34675] = (7, icc)
    after = 8 + len(strip) + len(strip) % 2
    entries, data = b"", b""
    end = after + 2 + 12 * len(tags) + 4
    for tag, (kind, value) in sorted(tags.items()):
        count = len(value) // {2: 1, 3: 2, 4: 4, 7: 1}[kind]
        place = value.ljust(4, b"\0")
        if len(value) > 4:
            place = struct.pack("<I", end + len(data))
            data += value + bytes(len(value) % 2)
        entries += struct.pack("<HHI", tag, kind, count) + place
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", after) + strip.ljust(after - 8, b"\0") + directory + data


def deep_png(stored: np.ndarray, grey: bool, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits of [h, w, 3 or 4] from 0 to 1: what libvips reads in the place of others."""
    alpha = stored.shape[2] == 4
    order = ([0, 3] if alpha else [0]) if grey else list(range(stored.shape[2]))
    samples = np.rint(stored[..., order] * 65_535).astype(np.uint16)
    return png(samples, 16, 2 * (not grey) + 4 * alpha, *chunks)


def iccp(icc: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
    return () if icc is None else ((b"iCCP", b"x\0\0" + zlib.compress(icc)),)


def exif_chunk(orientation: int) -> tuple[bytes, bytes]:
    return b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0")


def bmp_with_alpha(samples: np.ndarray) -> bytes:
    """A BMP whose header names a mask of alpha (BITMAPV4HEADER); in the older one there is none."""
    height, width = samples.shape[:2]
    pixels = np.ascontiguousarray(samples[::-1, :, [2, 1, 0, 3]]).tobytes()
    masks = 0xFF0000, 0xFF00, 0xFF, 0xFF000000
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header += struct.pack("<4I4s", *masks, b"BGRs") + bytes(48)
    return b"BM" + struct.pack("<IHHI", 122 + len(pixels), 0, 0, 122) + header + pixels
