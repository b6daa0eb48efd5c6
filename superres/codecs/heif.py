"""HEIF, as HEIC of phones: read by libheif and libde265, and not written."""

import io

import numpy as np

from superres.codecs import avif, samples
from superres.codecs.format import BinaryFile
from superres.codecs.headers import heif as headers
from superres.codecs.headers.heif import HeifStructure
from superres.codecs.limits import check_input_pixels
from superres.errors import BadImage, UnsupportedFormat
from superres.picture import Header, Picture

DECODER_BYTES_PER_PIXEL = 24


def recognises(head: bytes) -> bool:
    """Whether a file that begins so is a HEIF, and no AVIF."""
    return headers.recognises(head) and not avif.recognises(head)


def probe(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header, which the first part of a file is enough for if its boxes are in it."""
    structure = headers.read(file, whole=False)
    check_input_pixels(structure.shown, max_pixels)
    return structure.to_header("heif")


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode the primary picture; more than 8 bits become 16."""
    structure = headers.read(io.BytesIO(data))
    check_input_pixels(structure.shown, max_pixels)
    if structure.coding == headers.AV1:
        return avif.to_picture(data, structure, "heif")
    decoded = _decode(data, structure)
    if structure.bits > 8:
        decoded = samples.to_16_bits(decoded, structure.bits)
    if structure.premultiplied:
        samples.divide_by_alpha(decoded)
    if structure.grey and decoded.ndim == 3:  # libheif has no grey with alpha
        decoded = decoded[..., [0, -1]]
    turned = structure.orientation
    return samples.to_picture(
        decoded,
        "heif",
        icc_profile=structure.profile,
        exif=structure.exif,
        xmp=structure.xmp,
        converted=(f"orientation {turned} to upright",) if turned != 1 else (),
        left_out=structure.left_out,
    )


def _decode(data: bytes, structure: HeifStructure) -> np.ndarray:
    """The samples as libheif gives them, cropped and upright: [h, w] or [h, w, channels]."""
    # Its import takes longer than decoding a small picture, and most are of other formats.
    import pi_heif

    # By default it starts four threads, each with tiles of its own.
    pi_heif.options.DECODE_THREADS = 1
    file = pi_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    image = file[file.primary_index]
    width, height = image.size
    mode, _, depth = image.mode.partition(";")
    seen = (height, width), int(depth or 8), "A" in mode.upper()
    admitted = structure.shown, structure.bits, structure.alpha
    if seen != admitted:
        raise BadImage(
            "the picture's header is damaged: it says "
            f"{admitted[0][1]}x{admitted[0][0]} of {admitted[1]} bits, and the decoder sees "
            f"{width}x{height} in mode {image.mode}"
        )
    try:
        decoded = np.asarray(image)
    except RuntimeError as error:
        raise UnsupportedFormat(f"libheif does not read this HEIF: {error}") from error
    return decoded.copy() if not decoded.flags.writeable else decoded
