"""AVIF: read and written lossy at 8 and 10 bits, with alpha."""

import io

import numpy as np
from PIL import AvifImagePlugin, Image

from superres.codecs import items, samples
from superres.codecs.format import BinaryFile
from superres.codecs.headers import heif as headers
from superres.codecs.headers.heif import HeifStructure
from superres.codecs.limits import check_input_pixels
from superres.errors import BadImage
from superres.picture import Header, Picture

LONGEST_SIDE = 65_536
SPEED = 9
"""Of libaom, 0 to 10; benchmarks/encoders.py compares them."""
DECODER_BYTES_PER_PIXEL = 28
ENCODER_BYTES_PER_PIXEL = 50
BITS = 10
"""Of what is written from 16: profiles of AVIF, and most that shows it, have no more."""
LOSSLESS = 100
"""The quality at which samples are kept as they are."""
_QUALITIES = (1, 60, 80, 92, 100), (1, 53, 68, 86, LOSSLESS)
"""Of JPEG, and libavif's own at which SSIM is the same; benchmarks/encoders.py finds them."""


def recognises(head: bytes) -> bool:
    """Whether a file that begins so is an AVIF, or a HEIF that says to be one, too."""
    own = {b"avif", b"avis"} & headers.brands(head)
    return headers.recognises(head) and bool(own) and not head[8:12].startswith(b"he")


def probe(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header, which the first part of a file is enough for if its boxes are in it."""
    structure = headers.read(file, whole=False)
    check_input_pixels(structure.shown, max_pixels)
    return structure.to_header("avif")


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode the primary picture; more than 8 bits become 16."""
    structure = headers.read(io.BytesIO(data))
    check_input_pixels(structure.shown, max_pixels)
    return to_picture(data, structure, "avif")


def to_picture(data: bytes, structure: HeifStructure, name: str) -> Picture:
    """Decode the primary picture of a file with this structure."""
    # Its import takes longer than decoding most pictures.
    import imagecodecs

    if structure.coding != headers.AV1:
        raise BadImage("the picture is called AVIF, but is not coded in AV1: rename it to .heic")
    if not recognises(data[:256]):  # libavif wants the brand; the decoded items are the same
        data = data[:8] + b"avif" + data[12:]
    decoded = np.atleast_3d(imagecodecs.avif_decode(data, index=0, numthreads=1))
    channels = (1 if structure.grey else 3) + structure.alpha
    if decoded.shape != (*structure.size, channels):
        raise BadImage(
            f"the picture's header is damaged: it says {structure.size[1]}x{structure.size[0]} "
            f"of {channels} channels, and the decoder sees a shape of {decoded.shape}"
        )
    if structure.bits > 8:
        decoded = samples.to_16_bits(decoded, structure.bits)
    top, left, height, width = structure.crop
    return samples.to_picture(
        decoded[top : top + height, left : left + width],
        name,
        orientation=structure.orientation,
        icc_profile=structure.profile,
        exif=structure.exif,
        xmp=structure.xmp,
        left_out=structure.left_out,
    )


def encode(picture: Picture, quality: int) -> bytes:
    """Encode a picture: 16 bits at 10. At 100, and grey that Pillow has not, it loses no more."""
    own = round(float(np.interp(quality, *_QUALITIES)))
    pillow_has = picture.samples.dtype == np.uint8 and (not picture.grey or picture.alpha is None)
    # Its best quality has YCbCr of 8 bits, which is up to 3 levels off.
    if pillow_has and (own < LOSSLESS or picture.grey):
        out = io.BytesIO()
        assert AvifImagePlugin.SUPPORTED  # noqa: S101  and its import registers the encoder
        Image.fromarray(picture.channels()).save(
            out,
            "AVIF",
            quality=own,
            speed=SPEED,
            subsampling="4:0:0" if picture.grey else "4:4:4",
            max_threads=1,
            icc_profile=picture.icc_profile,
            exif=picture.exif or b"",
            xmp=picture.xmp or b"",
        )
        return out.getvalue()
    return _encode_exactly(picture, own)


def _encode_exactly(picture: Picture, quality: int) -> bytes:
    """Encode a picture that Pillow's encoder cannot hold: RGB below 100 in YCbCr, else as it is."""
    import imagecodecs

    channels = picture.channels()
    deep = channels.dtype == np.uint16
    if deep:
        channels = samples.from_16_bits(channels, BITS)
    primaries, transfer = (
        imagecodecs.AVIF.COLOR_PRIMARIES,
        imagecodecs.AVIF.TRANSFER_CHARACTERISTICS,
    )
    avif = imagecodecs.avif_encode(
        channels,
        level=quality,
        speed=SPEED,
        bitspersample=BITS if deep else 8,
        pixelformat="yuv444",
        primaries=primaries.BT709,
        transfer=transfer.SRGB,
        numthreads=1,
    )
    return items.with_metadata(bytes(avif), picture)
