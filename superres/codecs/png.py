"""PNG: lossless, with alpha and 16 bits."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

from superres import colour, colour_profiles
from superres.codecs import pillow
from superres.codecs.format import BinaryFile
from superres.codecs.headers import png as headers
from superres.codecs.headers.exif import check_block
from superres.codecs.headers.png import PngStructure
from superres.codecs.limits import MAX_PROFILE_BYTES, MAX_XMP_BYTES, check_16_bit_samples
from superres.picture import Header, Picture

LONGEST_PROFILE = 2**20
"""Bytes of a profile that Pillow, and what is built on it, reads in a PNG."""
_SRGB_GAMMA = 1 / 2.2
_GAMMA_TOLERANCE = 0.05
"""Within it, a gamma without primaries is taken to be sRGB's, by libpng and browsers."""


def probe(file: BinaryFile, max_pixels: int) -> Header:
    """Read the header, and EXIF wherever it is; behind the pixels only if the file is whole."""
    structure = headers.read(file)
    _cicp_profile(structure)  # which refuses HDR
    with pillow.opened(PngImageFile, structure.head, structure, max_pixels) as image:
        _tell_transparency(image, structure)
        orientation = pillow.orientation(image) if image.info.get("exif") else 1
        return pillow.to_header(image, "png", bits=structure.bits, orientation=orientation)


def decode(data: bytes, max_pixels: int) -> Picture:
    """Decode a file of any depth; 16 bits are kept."""
    structure = headers.read(io.BytesIO(data))
    needed = headers.needed(data)
    left_out = [*needed.left_out]
    conversions = ["end marker added"] if needed.completed else []
    with pillow.opened(PngImageFile, needed.data, structure, max_pixels) as image:
        profile, source = _profile(structure, left_out)
        image.info["icc_profile"] = profile
        if profile is not None and source != "iCCP":
            conversions.append(f"{source} to ICC profile")
        _add_texts(image, needed.texts, left_out)
        return pillow.to_picture(
            image,
            "png",
            lambda: _read_samples(image, structure, needed.data),
            tuple(left_out),
            tuple(conversions),
        )


def encode(picture: Picture, quality: int) -> bytes:
    """Encode a picture; ``quality`` changes nothing."""
    import imagecodecs

    # Without Pillow's copy of 4 bytes a pixel. Paeth's filter with runs alone takes a third of the
    # time of level 3, and makes photographs smaller still; enlarged text, by half larger.
    png: bytes | bytearray = imagecodecs.png_encode(
        picture.channels(),
        level=1,
        strategy=imagecodecs.PNG.STRATEGY.RLE,
        filter=imagecodecs.PNG.FILTER.PAETH,
    )
    chunks = []
    if picture.icc_profile is not None:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(picture.icc_profile)))
    if picture.dpi is not None:
        horizontal, vertical = (round(value / 0.0254) for value in picture.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", horizontal, vertical, 1)))
    if picture.exif is not None:
        chunks.append((b"eXIf", picture.exif.removeprefix(b"Exif\0\0")))
    if picture.xmp is not None:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + picture.xmp))
    if not chunks:
        return bytes(png)
    view, after_header = memoryview(png), 8 + 25
    inserted = [_chunk(*one) for one in chunks]
    return b"".join([view[:after_header], *inserted, view[after_header:]])


def _read_samples(image: ImageFile, structure: PngStructure, data: bytes) -> np.ndarray:
    if structure.bits == 16:
        # Its import takes longer than decoding most pictures, and few have 16 bits.
        import imagecodecs

        samples = np.atleast_3d(imagecodecs.png_decode(data))
        check_16_bit_samples(samples)
    else:
        samples = pillow.read_8_bits(image)
    clear = _transparent_colour(structure)
    if clear is None or samples.shape[2] not in (1, 3):
        return samples
    channels = samples.shape[2]
    with_alpha = np.empty((*samples.shape[:2], channels + 1), samples.dtype)
    for top in range(0, len(samples), colour.BAND):
        rows = samples[top : top + colour.BAND]
        with_alpha[top : top + colour.BAND, :, :-1] = rows
        opaque = (rows != np.array(clear[:channels], samples.dtype)).any(axis=2)
        with_alpha[top : top + colour.BAND, :, -1] = opaque * np.iinfo(samples.dtype).max
    return with_alpha


def _transparent_colour(structure: PngStructure) -> tuple[int, ...] | None:
    """The colour that is transparent, as samples are read; None if none is.

    Pillow compares grey of 2 and 4 bits with it as it is stored, and 16 bits not at all.
    """
    body = structure.about.get(b"tRNS", b"")
    if len(body) != (2 if structure.grey else 6):
        return None
    most = 2**structure.depth - 1
    stored = struct.unpack(f">{len(body) // 2}H", body)
    return tuple((one & most) * (2**structure.bits - 1) // most for one in stored)


def _tell_transparency(image: ImageFile, structure: PngStructure) -> None:
    """Let an opened picture say that a colour is transparent, which Pillow has not been shown."""
    if _transparent_colour(structure) is not None and image.mode in ("1", "L", "I;16", "RGB"):
        image.info["transparency"] = 0


def _profile(structure: PngStructure, left_out: list[str]) -> tuple[bytes | None, str]:
    """The profile of a picture's colours, None for sRGB; and the chunk that says it.

    By the precedence of the standard's third edition: cICP, iCCP, sRGB, and gAMA with cHRM. Names
    of what cannot be used are added to ``left_out``.
    """
    about = structure.about
    if _has_cicp(structure):
        return _cicp_profile(structure), "cICP"
    if b"cICP" in about and 2 not in about[b"cICP"][:2]:  # 2 says nothing
        left_out.append("damaged cICP")
    if b"iCCP" in about:
        profile = _inflated(about[b"iCCP"].partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
        if profile is not None:
            return profile, "iCCP"
        left_out.append("damaged ICC profile")
    if b"sRGB" in about or len(about.get(b"gAMA", b"")) != 4:
        return None, "sRGB"
    return _gamma_profile(structure, left_out), "gAMA"


def _has_cicp(structure: PngStructure) -> bool:
    """Whether there is a cICP of RGB with the whole range, as PNG has it, that says something."""
    body = structure.about.get(b"cICP", b"")
    return len(body) == 4 and body[2:] == b"\0\1" and 2 not in body[:2]


def _cicp_profile(structure: PngStructure) -> bytes | None:
    """The profile that cICP says, if it does.

    Raises:
        UnsupportedFormat: colours of HDR.
    """
    if not _has_cicp(structure):
        return None
    primaries, transfer = structure.about[b"cICP"][:2]
    return colour_profiles.profile_of_cicp(primaries, transfer, grey=structure.grey)


def _gamma_profile(structure: PngStructure, left_out: list[str]) -> bytes | None:
    gamma = int.from_bytes(structure.about[b"gAMA"], "big") / 100_000
    if not 0.001 < gamma < 1000:
        left_out.append("damaged gAMA")
        return None
    chromaticities = structure.about.get(b"cHRM", b"")
    srgb = abs(gamma / _SRGB_GAMMA - 1) < _GAMMA_TOLERANCE
    if structure.grey:
        return None if srgb else colour_profiles.grey_profile_of((1 / gamma,), "gAMA")
    if len(chromaticities) == 32:
        numbers = [number / 100_000 for number in struct.unpack(">8I", chromaticities)]
        white, *primaries = zip(numbers[::2], numbers[1::2], strict=True)
        try:
            return colour_profiles.profile_of(primaries, white, (1 / gamma,), "gAMA, cHRM")
        except ValueError:
            left_out.append("damaged cHRM")
    if srgb:
        return None
    primaries = [*colour_profiles.SRGB_PRIMARIES]
    return colour_profiles.profile_of(primaries, colour_profiles.D65, (1 / gamma,), "gAMA")


def _add_texts(image: ImageFile, texts: dict[bytes, bytes], left_out: list[str]) -> None:
    """Give an opened picture the XMP and the EXIF that its file has as texts."""
    if (xmp := texts.get(headers.XMP)) is not None:
        text = _text(xmp)
        if text is None:
            left_out.append("damaged XMP")
        else:
            image.info["xmp"] = text
    if (raw := texts.get(headers.RAW_EXIF)) is not None and "exif" not in image.info:
        exif = Image.Exif()
        try:
            block = bytes.fromhex("".join((_text(raw) or b"").decode("latin-1").split("\n")[3:]))
            check_block(block)
            exif.load(block)
            exif.pop(Base.Orientation, None)  # it counts in eXIf alone
            image.info["exif"] = exif.tobytes()
        except Exception:
            left_out.append("damaged EXIF")


def _text(chunk: bytes) -> bytes | None:
    """The text of a chunk, of which the first 4 bytes are its kind; None if it is damaged."""
    kind, rest = chunk[:4], chunk[4:].partition(b"\0")[2]
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _inflated(rest[1:], MAX_XMP_BYTES)
    compressed, text = rest[:1] == b"\1", b"".join(rest[2:].split(b"\0", 2)[2:])
    return _inflated(text, MAX_XMP_BYTES) if compressed else text


def _inflated(body: bytes, most: int) -> bytes | None:
    """What a stream of zlib expands to; None if it is damaged, or more than ``most`` bytes."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(body, most + 1)
    except zlib.error:
        return None
    return data if stream.eof and len(data) <= most else None


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
