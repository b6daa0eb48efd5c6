"""The chunks of WebP (https://developers.google.com/speed/webp/docs/riff_container)."""

import struct
from dataclasses import dataclass

from superres.arrays import Size
from superres.codecs import foreign
from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, exactly
from superres.codecs.headers.exif import check_block
from superres.codecs.limits import (
    MAX_PROFILE_BYTES,
    MAX_SEGMENTS,
    MAX_XMP_BYTES,
    check_header_cost,
    several_frames,
)
from superres.errors import BadImage, UnsupportedFormat

_ALPHA, _EXIF, _ANIMATION = 0x10, 0x08, 0x02
_METADATA = {b"EXIF": "exif", b"XMP ": "xmp", b"ICCP": "icc_profile"}
_PIXELS = {b"VP8 ", b"VP8L"}


@dataclass(frozen=True)
class WebpStructure(Structure):
    """That of a WebP; nothing can open it without the pixels."""

    alpha: bool
    metadata: dict[str, bytes]
    """What it has of ``exif`` and ``xmp``."""


def read(file: BinaryFile) -> WebpStructure:
    """Read the chunks.

    Raises:
        AnimatedImage: more than one frame.
        UnsupportedFormat: a video or a sound, which also begin with RIFF.
        BadImage: damaged, or more work than is done for a header.
    """
    riff = exactly(file, 12)
    if riff[8:] != b"WEBP":
        if name := foreign.named(riff):
            raise UnsupportedFormat(name)
        raise BadImage("the picture's header is damaged: it is RIFF, but not WebP")
    end = 8 + int.from_bytes(riff[4:8], "little")
    canvas: Size | None = None
    flags = frames = 0
    image: tuple[Size, bool | None] | None = None
    alpha = False
    metadata: dict[str, bytes] = {}
    at, number = 12, 0
    while at + 8 <= end and len(start := file.read(8)) == 8:
        number += 1
        check_header_cost("chunks of WebP", number, MAX_SEGMENTS)
        kind, length = struct.unpack("<4sI", start)
        if number == 1 and kind not in {b"VP8X", *_PIXELS}:
            break
        if kind == b"VP8X" and number == 1:
            body = exactly(file, 10)
            flags = body[0]
            width, height = (int.from_bytes(body[n : n + 3], "little") + 1 for n in (4, 7))
            canvas = height, width
        elif kind == b"ALPH" and image is None:
            alpha = True
        elif kind in _PIXELS and image is None:
            image = _bitstream(kind, exactly(file, 10))
            if canvas is None:
                break  # a simple file: nothing that follows counts
        elif kind == b"ANMF":
            frames += 1
            if frames > 1:
                raise several_frames("WEBP")
        elif kind in _METADATA:
            name = _METADATA[kind]
            most = MAX_PROFILE_BYTES if name == "icc_profile" else MAX_XMP_BYTES
            check_header_cost(f"bytes of {kind.decode().strip()}", length, most)
            if name == "exif" and not flags & _EXIF:
                pass  # libwebp, which decodes the picture, does not see it
            elif name != "icc_profile" and name not in metadata:
                metadata[name] = exactly(file, length)
                if name == "exif":
                    check_block(metadata[name])
        at = file.seek(at + 8 + length + length % 2)
    if canvas is None and image is None:
        raise BadImage("the picture's header is damaged: it has no chunk of pixels")
    if canvas is not None and flags & _ANIMATION:
        return WebpStructure(canvas, b"", bool(flags & _ALPHA), metadata)
    if image is None:
        raise BadImage("the picture's header is damaged: it has no chunk of pixels")
    size, lossless_alpha = image
    if canvas is not None and canvas != size:
        raise BadImage("the picture's header is damaged: it tells two sizes")
    alpha = lossless_alpha if lossless_alpha is not None else alpha or bool(flags & _ALPHA)
    return WebpStructure(size, b"", alpha, metadata)


def _bitstream(kind: bytes, start: bytes) -> tuple[Size, bool | None]:
    """Size, and whether there is alpha, by the first bytes of the pixels; VP8 does not tell."""
    if kind == b"VP8 ":
        if start[3:6] != b"\x9d\x01\x2a":
            raise BadImage("the picture's header is damaged: its pixels do not begin as VP8 does")
        width, height = struct.unpack_from("<HH", start, 6)
        return (height & 0x3FFF, width & 0x3FFF), None
    if start[0] != 0x2F:
        raise BadImage("the picture's header is damaged: its pixels do not begin as VP8L does")
    (bits,) = struct.unpack_from("<I", start, 1)
    return ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1), bool(bits >> 28 & 1)
