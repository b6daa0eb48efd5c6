"""Formats that Pillow reads: opening, header, pixels of 8 bits, metadata."""

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms
from PIL.ImageFile import ImageFile

from superres import colour_profiles, metadata
from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure
from superres.codecs.limits import MAX_EXIF_BYTES, check_input_pixels, several_frames
from superres.errors import BadImage, UnsupportedFormat
from superres.picture import Header, Picture

Opener = Callable[[io.BytesIO], ImageFile]
"""Opens a file without decoding its pixels: a class of Pillow's, or a function."""

_GREY_MODES = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B"}
_PROFILED_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16L", "I;16B"}
_CONVERTED_MODES = {
    "P": "palette to RGB",
    "PA": "palette to RGB",
    "CMYK": "CMYK to sRGB",
    "YCbCr": "YCbCr to RGB",
    "LAB": "Lab to RGB",
    "HSV": "HSV to RGB",
}


class _ImageModule:
    """``PIL.Image`` for :func:`without_pillows_limit`: without the limit on pixels."""

    def __getattr__(self, name: str) -> object:
        return getattr(Image, name)

    def _decompression_bomb_check(self, *_: object, **__: object) -> None:
        pass


def without_pillows_limit(method: Callable[..., Any]) -> Any:
    """A copy of a method of a Pillow plugin that does not look at ``Image.MAX_IMAGE_PIXELS``.

    That limit is one for the whole process, so it is not ours to change. :func:`opened` checks
    the limit that its caller gives.
    """
    function = cast(FunctionType, method)
    return FunctionType(
        function.__code__,
        function.__globals__ | {"Image": _ImageModule()},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


@contextmanager
def opened(
    opener: Opener, data: bytes, structure: Structure, max_pixels: int
) -> Iterator[ImageFile]:
    """Open a picture without decoding its pixels.

    ``Image.open`` would do the same, and check Pillow's own limit on pixels.

    Args:
        opener: opens it.
        data: the file, or its head.
        structure: of the file; the size that the picture is admitted with.
        max_pixels: most pixels accepted.

    Raises:
        BadImage: the header is damaged, or Pillow sees a picture of another size.
        ImageTooLarge: more than ``max_pixels`` pixels.
        AnimatedImage: more than one frame or page.
        UnsupportedFormat: samples of 32 bits or floats.
    """
    check_input_pixels(structure.size, max_pixels)
    try:
        image = opener(io.BytesIO(data))
    except (SyntaxError, IndexError, TypeError, struct.error) as error:
        raise BadImage("the picture's header is damaged") from error
    with image:
        # Pillow has the upright size of a TIFF, but allocates memory by the stored one.
        width, height = getattr(image, "_tile_size", image.size)
        if (height, width) != structure.size:
            raise BadImage(
                f"the picture's header is damaged: it says {structure.size[1]}x"
                f"{structure.size[0]}, and the decoder sees {width}x{height}"
            )
        # Of the other formats, the structure tells.
        if image.format == "PNG" and getattr(image, "is_animated", False):
            raise several_frames(image.format)
        if image.mode in ("I", "F"):
            raise UnsupportedFormat(
                "at most 16 bits a sample are read; this picture has 32-bit or float samples"
            )
        metadata.set_xmp_aside(image)
        yield image


def reader(
    name: str,
    opener: Opener,
    read: Callable[[BinaryFile], Structure],
) -> tuple[Callable[[BinaryFile, int], Header], Callable[[bytes, int], Picture]]:
    """How a format that has 8 bits a sample is probed and decoded.

    Args:
        name: of the format.
        opener: opens a file.
        read: reads the structure of a file.
    """

    def probe(file: BinaryFile, max_pixels: int) -> Header:
        structure = read(file)
        with opened(opener, structure.head, structure, max_pixels) as image:
            return to_header(image, name, bits=8, orientation=orientation(image))

    def decode(data: bytes, max_pixels: int) -> Picture:
        structure = read(io.BytesIO(data))
        with opened(opener, data, structure, max_pixels) as image:
            return to_picture(image, name)

    return probe, decode


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) if it cannot be read."""
    try:
        value = int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1
    return value if 1 <= value <= 8 else 1


def to_header(image: ImageFile, name: str, *, bits: int, orientation: int) -> Header:
    """The header of an opened picture whose pixels are stored in that EXIF orientation."""
    height, width = image.height, image.width
    if orientation >= 5:
        height, width = width, height
    return Header(name, (height, width), bits, image.has_transparency_data)


def to_picture(
    image: ImageFile,
    name: str,
    read_samples: Callable[[], np.ndarray] | None = None,
    left_out: tuple[str, ...] = (),
    conversions: tuple[str, ...] = (),
) -> Picture:
    """Decode an opened picture.

    Args:
        image: the opened file.
        name: of the format.
        read_samples: reads [h, w, channels] as the file stores them, where Pillow cannot: of RGB
            it keeps only the high byte; None where Pillow reads them.
        left_out: what the file has that Pillow has not been shown, by name.
        conversions: what reading the samples converts, by name.
    """
    metadata.set_xmp_aside(image)
    mode = image.mode
    converted = [_CONVERTED_MODES[mode]] if mode in _CONVERTED_MODES else []
    converted.extend(conversions)
    # Pillow turns a TIFF upright while it loads it, and forgets that it did.
    stored = orientation(image)
    dropped = [*metadata.other_metadata(image), *left_out]
    exif, xmp = None, None
    try:
        exif = metadata.read_exif(image)
    except Exception:  # as with pixels; but the picture is complete without it
        dropped.append("damaged EXIF")
    if exif is not None and len(exif) > MAX_EXIF_BYTES:  # a file with it could not be read again
        dropped.append(f"EXIF over {MAX_EXIF_BYTES:,} bytes")
        exif = None
    if read_samples is not None:
        samples, left = read_samples(), stored
    else:
        image.load()
        left = orientation(image)
        samples = read_8_bits(image)
    xmp, lost = metadata.read_xmp(image)
    dropped.extend(lost)
    if stored != 1:
        converted.append(f"orientation {stored} to upright")
    grey = samples.shape[2] < 3
    if grey:
        samples = samples[..., [0, 0, 0, 1] if samples.shape[2] == 2 else [0, 0, 0]]
    profile = image.info.get("icc_profile") if mode in _PROFILED_MODES else None
    profile, grey = checked_profile(profile, converted, dropped, grey=grey)
    return Picture(
        samples=upright(samples, left),
        grey=grey,
        icc_profile=profile,
        exif=exif,
        xmp=xmp,
        dpi=_turned(metadata.read_dpi(image), stored),
        source_format=name,
        converted=tuple(converted),
        dropped=tuple(dict.fromkeys(dropped)),
    )


def checked_profile(
    profile: bytes | None, converted: list[str], dropped: list[str], *, grey: bool
) -> tuple[bytes | None, bool]:
    """Keep the colour profile of a picture if it is one of its kind of samples.

    Args:
        profile: as the file has it.
        converted: what of the picture was converted; added to.
        dropped: what was dropped; added to.
        grey: whether the samples are grey.

    Returns:
        The profile, or None; and whether the picture stays grey: with an RGB profile it does not.
    """
    if not profile:
        return None, grey
    space = colour_profiles.colour_space(profile)
    if space not in (("RGB", "GRAY") if grey else ("RGB",)):
        dropped.append(f"ICC profile of {space}" if space else "damaged ICC profile")
        return None, grey
    if grey and space == "RGB":
        converted.append("grey to RGB, as its ICC profile")
        grey = False
    return profile, grey


def _turned(dpi: tuple[float, float] | None, orientation: int) -> tuple[float, float] | None:
    return (dpi[1], dpi[0]) if dpi is not None and orientation >= 5 else dpi


def read_8_bits(image: Image.Image) -> np.ndarray:
    """[h, w, channels] uint8 of a loaded picture: grey, grey and alpha, RGB or RGBA."""
    transparent = image.has_transparency_data
    if image.mode == "CMYK":
        image = _cmyk_to_srgb(image)
    if image.mode in _GREY_MODES:
        wanted = "LA" if transparent else "L"
    else:
        wanted = "RGBA" if transparent else "RGB"
    return np.atleast_3d(np.asarray(image if image.mode == wanted else image.convert(wanted)))


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (TIFF 6.0, tag 274), for arrays."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


def _cmyk_to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except ImageCms.PyCMSError:
            pass  # a damaged profile says nothing about the colours
        else:
            return cast(Image.Image, converted)
    return image.convert("RGB")
