"""Image files that several tests send, as bytes."""

import io
import struct
import zlib

import imagecodecs
from PIL import Image, ImageCms

from superres.arrays import RgbU8

SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDE_PROFILE = imagecodecs.cms_profile(
    "rgb",
    whitepoint=[0.3127, 0.3290, 1],
    primaries=[0.68, 0.32, 1, 0.265, 0.69, 1, 0.15, 0.06, 1],
    gamma=2.2,
)
"""The primaries of Display P3, wider than sRGB's."""


def encoded(rgb: RgbU8, image_format: str = "PNG", **options) -> bytes:
    return saved(Image.fromarray(rgb), image_format, **options)


def saved(image: Image.Image, image_format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, image_format, **options)
    return out.getvalue()


def plain(width: int = 20, height: int = 10) -> bytes:
    """A PNG of one colour."""
    return saved(Image.new("RGB", (width, height), "teal"), "PNG")


def animated(image_format: str) -> bytes:
    """Three frames, or pages."""
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "green", "blue")]
    return saved(frames[0], image_format, save_all=True, append_images=frames[1:])


def bomb() -> bytes:
    """A PNG that promises 40,000 x 40,000 px of nothing, in 45 bytes."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
