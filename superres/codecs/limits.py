"""What is refused: before a picture is decoded, and before one is encoded."""

from dataclasses import dataclass, replace

import numpy as np

from superres.arrays import Size
from superres.colour_profiles import colour_space, rgb_profile_of_grey
from superres.errors import AnimatedImage, BadImage, ImageTooLarge, UnsupportedFormat
from superres.picture import Picture

MAX_INPUT_PIXELS = 64_000_000
MAX_OUTPUT_PIXELS = 256_000_000

MAX_SEGMENTS = 1_000
"""Segments of a JPEG before its first scan, chunks of a PNG before its pixels, chunks of a WebP,
extensions of a GIF in a row."""
MAX_SEGMENT_BYTES = 32 * 2**20
"""Bytes that they have together, in a JPEG and a PNG; and of EXIF behind the pixels of a PNG."""
MAX_STRAY_BYTES = 4_096
"""Bytes between the segments of a JPEG, or the blocks of a GIF, that belong to none."""
MAX_CHUNKS = 50_000
"""Chunks of a whole PNG. Encoders write at least 4 KiB of pixels into one."""
MAX_BLOCKS = 400_000
"""Data blocks of a GIF. Encoders fill their 255 bytes."""
MAX_SCANS = 100
"""Scans of a JPEG: each takes the time of a picture, even if it is empty. Encoders write about 10;
libtiff's own limit, for JPEG inside TIFF, is 100."""
MAX_MARKERS = 10_000
"""Segments of a JPEG behind its first scan."""
MAX_RESOURCES = 10_000
"""Photoshop's resources in a JPEG."""
MAX_DIRECTORY_ENTRIES = 1_000
"""Of a directory of TIFF or EXIF."""
MAX_DIRECTORY_VALUES = 10_000
"""Numbers that those entries have together; bytes and texts are not counted."""
MAX_PAGES = 100
"""Pages of a TIFF behind the first; those that are read are thumbnails and masks."""
MAX_STRIPS = 100_000
"""Strips or tiles of a TIFF."""
MAX_TILE_PIXELS = 2**20
"""Pixels of a tile of a TIFF that is larger than the picture."""
MAX_META_BYTES = 16 * 2**20
"""Bytes that describe the items of a HEIF or AVIF, colour profiles among them."""
MAX_ITEMS = 2_000
"""Items of a HEIF or AVIF. Each tile is one: a picture of 200 megapixels has 800."""
MAX_EXTENTS = 20_000
"""Parts that the items have together, and references and properties."""
MAX_CODED_PARTS = 5_000
"""Units of HEVC, or of AV1, that all coded pictures of a file have together."""
MAX_CROPPED_PIXELS = 2**20
"""Pixels that a HEIF or AVIF may have outside what is shown, besides a tenth of it."""
MAX_EXIF_BYTES = 2**20
MAX_XMP_BYTES = 8 * 2**20
MAX_PROFILE_BYTES = 8 * 2**20
MAX_CODED_PROFILE_BYTES = 3 * 2**20
"""Of the profile inside the codestream of a JPEG XL, which may be much longer than it is coded."""
MAX_LAYERS = 50
"""Frames of a JPEG XL: each may take the time of a picture."""


@dataclass(frozen=True)
class Limits:
    """What a format, as it is written here, can hold."""

    longest_side: int | None = None
    """Pixels; None if no picture is too long."""
    most_pixels: int | None = None
    """Pixels; None if no picture has too many."""
    longest_metadata: int | None = None
    """Bytes of EXIF, and of XMP; None if no block is too long."""
    longest_profile: int | None = None
    """Bytes of a colour profile; None if none is too long. Of a picture with a longer one, the
    colours are converted to sRGB."""
    alpha: bool = True
    """Whether it holds alpha; else the picture is flattened on white."""
    bits: int = 16
    """Most bits of a sample."""
    grey: bool = True
    """Whether it holds grey; else grey is written as RGB."""
    grey_alpha_16_bits: bool = True
    """Whether it holds grey with alpha at 16 bits; else that is written as RGB."""
    dpi: bool = True
    """Whether it holds the resolution."""


def check_input_pixels(size: Size, max_pixels: int) -> None:
    """Return if a picture of that size may be decoded.

    Raises:
        ImageTooLarge: it has more pixels than ``max_pixels``.
    """
    height, width = size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"at most {max_pixels:,} input pixels are accepted; "
            f"this picture has {width * height:,} ({width}x{height})"
        )


def several_frames(label: str) -> AnimatedImage:
    """The error for a file of that format; nothing counts its frames, which may take long."""
    return AnimatedImage(
        f"one frame is accepted; this {label} has more than one: animated and "
        "multi-page files are not enhanced; save one frame or page as a picture of its own"
    )


def check_header_cost(what: str, found: int, most: int) -> None:
    """Return if the structure of a file stays within a limit on what reading it may cost.

    Raises:
        BadImage: more than ``most``.
    """
    if found > most:
        raise BadImage(
            f"at most {most:,} {what} are read; this picture has {found:,} or more: "
            "open it in an image editor, and save it again without what it does not need"
        )


def check_16_bit_samples(samples: np.ndarray) -> None:
    """Return if [h, w, channels] are samples that a :class:`Picture` can hold.

    Raises:
        UnsupportedFormat: more than 4 channels, or not unsigned 16-bit integers.
    """
    if samples.dtype != np.uint16 or samples.shape[2] > 4:
        raise UnsupportedFormat(
            f"at most 4 channels of unsigned 16-bit samples are read; "
            f"this picture has {samples.shape[2]} of {samples.dtype}"
        )


def check_output_size(size: Size, name: str, limits: Limits) -> None:
    """Return if the format of that name can hold a picture of that size.

    Raises:
        ImageTooLarge: a side is too long, or there are too many pixels.
    """
    longest, most, pixels = limits.longest_side, limits.most_pixels, size[0] * size[1]
    if longest is not None and max(size) > longest:
        raise ImageTooLarge(f"{name} holds at most {longest} px a side; the output has {max(size)}")
    if most is not None and pixels > most:
        raise ImageTooLarge(
            f"{name} holds at most {most:,} pixels; the output has {pixels:,} ({size[1]}x{size[0]})"
        )


def profile_fits(picture: Picture, limits: Limits) -> bool:
    """Whether a format holds the colour profile of a picture, if it has one."""
    longest, profile = limits.longest_profile, picture.icc_profile
    return profile is None or longest is None or len(profile) <= longest


def held(picture: Picture, limits: Limits) -> Picture:
    """The picture without the metadata, and without the mark of grey, that a format cannot hold.

    Its profile is one of its kind of samples, grey or RGB.

    Alpha and 16 bits are still there: the encoder flattens and rounds, without a copy of the
    whole picture where it can.
    """
    longest = limits.longest_metadata
    exif, xmp = (
        None if block is not None and longest is not None and len(block) > longest else block
        for block in (picture.exif, picture.xmp)
    )
    grey_alpha_16_bits = picture.alpha is not None and picture.samples.dtype == np.uint16
    grey = picture.grey and limits.grey and (limits.grey_alpha_16_bits or not grey_alpha_16_bits)
    profile = picture.icc_profile if profile_fits(picture, limits) else None
    space = None if profile is None else colour_space(profile)
    if profile is not None and space == "RGB":
        grey = False  # no reader expects its profile on grey pixels
    elif profile is not None and space == "GRAY" and not grey:
        # Likewise. The equal channels of grey look the same by the profile that is made of it.
        profile = rgb_profile_of_grey(profile) if picture.grey else None
    return replace(
        picture,
        exif=exif,
        xmp=xmp,
        icc_profile=profile,
        dpi=picture.dpi if limits.dpi else None,
        grey=grey,
    )
