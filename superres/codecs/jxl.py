"""JPEG XL: read and written lossy, with alpha and 16 bits."""

import io
import struct
from typing import Any

from superres.codecs import samples
from superres.codecs.format import BinaryFile
from superres.codecs.headers import jxl as headers
from superres.codecs.headers.isobmff import file_boxes
from superres.codecs.limits import MAX_EXIF_BYTES, MAX_XMP_BYTES, check_input_pixels
from superres.errors import BadImage
from superres.picture import Header, Picture

MAGIC = (headers.CODESTREAM, headers.CONTAINER)
EFFORT = "Cheetah"
"""The name of libjxl's effort, 4 of 9; benchmarks/encoders.py compares them."""
_COMPRESSED = {b"Exif": ("damaged EXIF", MAX_EXIF_BYTES), b"xml ": ("damaged XMP", MAX_XMP_BYTES)}
"""By the kind of a compressed box, its name where it cannot be read, and its most bytes."""
DECODER_BYTES_PER_PIXEL = 60
ENCODER_BYTES_PER_PIXEL = 45


def probe(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header."""
    structure = headers.read(file)
    check_input_pixels(structure.size, max_pixels)
    bits = 16 if structure.floats or structure.bits > 8 else 8
    return Header("jxl", structure.shown, bits, structure.alpha)


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode a file; more than 8 bits, and floats from 0 to 1, become 16."""
    structure = headers.read(io.BytesIO(data))
    check_input_pixels(structure.size, max_pixels)
    deep = structure.floats or structure.bits > 8
    data, lost = _decompressed(data)
    about, decoded = _called("decode_to_numpy", data, dtype="uint16" if deep else "uint8")
    channels = (1 if structure.grey else 3) + structure.alpha
    if decoded.shape != (*structure.shown, channels):
        height, width = structure.shown
        raise BadImage(
            f"the picture's header is damaged: it says {width}x{height} of {channels} channels, "
            f"and the decoder sees a shape of {decoded.shape}"
        )
    if structure.premultiplied:
        samples.divide_by_alpha(decoded)
    turned = structure.orientation
    converted = [f"orientation {turned} to upright"] if turned != 1 else []
    if structure.floats:
        converted.append("floats to 16 bits")
    return samples.to_picture(
        decoded,
        "jxl",
        icc_profile=None if structure.plain else about.icc,
        exif=about.exif,
        xmp=about.xmp,
        converted=tuple(converted),
        left_out=(*structure.left_out, *lost),
    )


def _decompressed(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A file whose compressed EXIF and XMP are boxes like others, and what of them is lost.

    The decoder would decompress any box, and a kilobyte of it may become gigabytes.
    """
    if not data.startswith(headers.CONTAINER):
        return data, ()
    parts: list[bytes] = []
    lost: list[str] = []
    begin = 0
    for kind, at, end in file_boxes(io.BytesIO(data)):
        if kind == b"brob":
            name, longest = _COMPRESSED.get(data[at : at + 4], ("compressed data", 0))
            box = _decompressed_box(data[at:end], longest) if longest else None
            if box is None or name in lost:
                lost.append(name)
            else:
                parts.append(box)
        else:
            parts.append(data[begin:end])
        begin = end
    return b"".join(parts), tuple(dict.fromkeys(lost))


def _decompressed_box(body: bytes, longest: int) -> bytes | None:
    """The box in a compressed one; None if it is damaged or longer than that."""
    # Its import takes longer than decoding most pictures, and few have such boxes.
    import imagecodecs

    try:
        plain = imagecodecs.brotli_decode(body[4:], out=longest)
    except imagecodecs.BrotliError:
        return None
    return struct.pack(">I4s", 8 + len(plain), body[:4]) + plain


def encode(picture: Picture, quality: int) -> bytes:
    """Encode a picture."""
    exif = picture.exif and picture.exif.removeprefix(b"Exif\0\0")
    jxl: bytes = _called(
        "encode_from_numpy",
        picture.channels(),
        quality=distance(quality),
        speed=EFFORT,
        exif=exif,
        xmp=picture.xmp,
        icc=picture.icc_profile,
    )
    return jxl


def distance(quality: int) -> float:
    """The distance of libjxl for a quality of 1 to 100: its own scale, which follows that of JPEG.

    >>> [round(distance(quality), 2) for quality in (100, 92, 90, 30)]
    [0.1, 0.82, 1.0, 6.4]
    """
    if quality >= 30:
        return 0.1 + 0.09 * (100 - quality)
    return 53 / 3000 * quality**2 - 23 / 20 * quality + 25


def _called(name: str, *arguments: Any, **options: Any) -> Any:
    """What a function of the library returns, computed in this thread alone."""
    # Its import takes as long as decoding a small picture, and most are of other formats.
    import pyjpegxl

    pyjpegxl.set_num_threads(1)
    if "speed" in options:
        options["speed"] = getattr(pyjpegxl.EncoderSpeed, options["speed"])
    return getattr(pyjpegxl, name)(*arguments, **options)
