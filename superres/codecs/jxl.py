"""JPEG XL: read and written lossy, with alpha and 16 bits."""

import io
from typing import Any, NamedTuple

from superres.codecs import samples
from superres.codecs.format import BinaryFile
from superres.codecs.headers import jxl as headers
from superres.codecs.headers import jxl_frames as frames
from superres.codecs.headers.isobmff import file_boxes
from superres.codecs.headers.jxl import JxlStructure
from superres.codecs.limits import (
    MAX_CODED_PROFILE_BYTES,
    MAX_EXIF_BYTES,
    MAX_LAYERS,
    MAX_XMP_BYTES,
    check_header_cost,
    check_input_pixels,
)
from superres.errors import BadImage, UnsupportedFormat
from superres.picture import Header, Picture

MAGIC = (headers.CODESTREAM, headers.CONTAINER)
EFFORT = "Cheetah"
"""The name of libjxl's effort, 4 of 9; benchmarks/encoders.py compares them."""
_METADATA = {b"Exif": ("damaged EXIF", MAX_EXIF_BYTES), b"xml ": ("damaged XMP", MAX_XMP_BYTES)}
"""By the kind of a box, its name where it cannot be read, and its most bytes."""
_FRAME_BYTES = 34
"""Of a pixel of a frame while it is decoded and drawn, at most, where others are kept."""
_SPARE_BYTES = 12 * 2**20
"""For a small picture, whose frames may be larger than it is: less than any forecast has."""
_TIFFS = (b"II*\0", b"MM\0*")
"""How EXIF begins if its box does not say where, as some encoders write it."""
DECODER_BYTES_PER_PIXEL = 60
ENCODER_BYTES_PER_PIXEL = 45


def probe(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header."""
    structure = headers.read(file)
    check_input_pixels(structure.size, max_pixels)
    bits = 16 if structure.floats or structure.bits > 8 else 8
    needed = _bytes_per_pixel(structure)
    return Header(
        "jxl",
        structure.shown,
        bits,
        structure.alpha,
        decoder_bytes_per_pixel=needed if needed > DECODER_BYTES_PER_PIXEL else 0,
    )


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode a file; more than 8 bits, and floats from 0 to 1, become 16."""
    structure = headers.read(io.BytesIO(data))
    check_input_pixels(structure.size, max_pixels)
    deep = structure.floats or structure.bits > 8
    contents = _read_boxes(data)
    _check_frames(contents.codestream, structure)
    about, decoded = _called(
        "decode_to_numpy", contents.codestream, dtype="uint16" if deep else "uint8"
    )
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
        exif=contents.exif,
        xmp=contents.xmp,
        converted=tuple(converted),
        left_out=(*structure.left_out, *contents.lost),
    )


def _bytes_per_pixel(structure: JxlStructure) -> int:
    """What the decoder may take for a pixel: more if there are layers, kept for later ones."""
    places = 0
    if structure.profiled:
        places = 2  # what is behind the profile is not known yet: one layer on another
    else:
        try:
            first = next(frames.frames(structure.head, structure, -(-structure.end // 8)))
        except BadImage:
            first = None
        if first is None or not first.last:
            places = 5  # as many as there are, and what replaces one
    return max(DECODER_BYTES_PER_PIXEL, _FRAME_BYTES + places * _kept_bytes(structure))


def _kept_bytes(structure: JxlStructure) -> int:
    """Of a pixel of a frame that is kept for others: floats."""
    return 4 * (3 + structure.channels)


def _check_frames(codestream: bytes, structure: JxlStructure) -> None:
    """Stop before the decoder takes more for the frames than was forecast for the picture.

    Raises:
        BadImage: damaged.
        UnsupportedFormat: too many layers, or too large ones.
    """
    canvas = structure.size[0] * structure.size[1]
    most = _bytes_per_pixel(structure) * canvas + _SPARE_BYTES
    start = _end_of_profile(codestream, structure) if structure.profiled else structure.end
    kept: dict[int, int] = {}
    for number, frame in enumerate(frames.frames(codestream, structure, -(-start // 8)), 1):
        if number > MAX_LAYERS:
            raise UnsupportedFormat(
                f"JPEG XL of at most {MAX_LAYERS} layers is read; this one has more: save it flat"
            )
        pixels = frame.size[0] * frame.size[1]
        needed = _FRAME_BYTES * pixels + sum(kept.values())
        if frame.kept_as is not None:
            kept[frame.kept_as] = _kept_bytes(structure) * (canvas if frame.drawn else pixels)
            needed += kept[frame.kept_as]
        if needed > most:
            height, width = frame.size
            raise UnsupportedFormat(
                f"this JPEG XL of {structure.size[1]}x{structure.size[0]} has a layer of "
                f"{width}x{height} that takes {needed:,} bytes with those it is drawn on, and at "
                f"most {most:,} are taken for a picture of its size: save it flat"
            )


def _end_of_profile(codestream: bytes, structure: JxlStructure) -> int:
    """In bits: it is entropy-coded, and the library finds out how long it is."""
    bits = headers.Bits(codestream, structure.end)
    length = bits.long()
    check_header_cost("bytes of the profile of a JPEG XL", length, MAX_CODED_PROFILE_BYTES)
    # A byte takes less than four on the average, even in the worst code that there is.
    first, last = -(-bits.at // 8), min(len(codestream), bits.at // 8 + 4 * length + 8_192)
    whole = _has_profile(codestream[:last])
    while whole and first < last:
        middle = (first + last) // 2
        if _has_profile(codestream[:middle]):
            last = middle
        else:
            first = middle + 1
    if not whole:
        raise BadImage("the picture's header is damaged: the profile of its codestream has no end")
    return 8 * first


def _has_profile(codestream: bytes) -> bool:
    try:
        return _called("probe", codestream).icc is not None
    except RuntimeError:
        return False


class _Contents(NamedTuple):
    """What the boxes of a file have."""

    codestream: bytes
    exif: bytes | None = None
    xmp: bytes | None = None
    lost: tuple[str, ...] = ()
    """What cannot be read, by name."""


def _read_boxes(data: bytes) -> _Contents:
    """Take a file apart, so that the decoder sees the codestream alone.

    It would take as much memory as a box says that it is long, however short the file is, and would
    decompress any box, of which a kilobyte may become gigabytes.
    """
    if not data.startswith(headers.CONTAINER):
        return _Contents(data)
    file = io.BytesIO(data)
    parts = [data[at:end] for at, end in headers.codestream_parts(file)]
    found: dict[bytes, bytes] = {}
    lost: list[str] = []
    for kind, at, end in file_boxes(file):
        inner = data[at : at + 4] if kind == b"brob" else kind
        if inner not in _METADATA:
            lost += ["compressed data"] * (kind == b"brob")
            continue
        name, longest = _METADATA[inner]
        if kind == b"brob":
            body = _decompressed(data[at + 4 : end], longest)
        else:
            body = data[at:end] if end - at <= longest else None
        if body is None:
            lost.append(name)
        else:
            found.setdefault(inner, body)
    exif = found.get(b"Exif", b"")
    if exif[:4] not in _TIFFS:
        exif = exif[4 + int.from_bytes(exif[:4], "big") :]
    xmp = found.get(b"xml ")
    return _Contents(b"".join(parts), exif or None, xmp or None, tuple(dict.fromkeys(lost)))


def _decompressed(data: bytes, longest: int) -> bytes | None:
    """The body of a compressed box; None if it is damaged or longer than that."""
    # Its import takes longer than decoding most pictures, and few have such boxes.
    import imagecodecs

    try:
        return bytes(imagecodecs.brotli_decode(data, out=longest))
    except imagecodecs.BrotliError:
        return None


def encode(picture: Picture, quality: int) -> bytes:
    """Encode a picture."""
    # The library leaves out where in the box the TIFF begins.
    exif = picture.exif and bytes(4) + picture.exif.removeprefix(b"Exif\0\0")
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
