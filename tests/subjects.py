"""Pictures whose colours are easily lost on the way: files, as a camera or an editor has them."""

import io

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageFilter

from superres.arrays import RgbU8
from superres.codecs import Picture, encode
from superres.models.evidence import Evidence
from tests.pictures import SRGB_PROFILE, WIDE_PROFILE, saved

STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera stores an upright picture, by the orientation that it then writes."""


def wide_gamut(photograph: RgbU8) -> bytes:
    """A photograph in wide primaries, with their profile and a red that sRGB does not have."""
    image = Image.fromarray(photograph)
    wide = ImageCms.profileToProfile(image, io.BytesIO(SRGB_PROFILE), io.BytesIO(WIDE_PROFILE))
    assert wide is not None
    ImageDraw.Draw(wide).rectangle((5, 5, 35, 25), fill=(255, 0, 0))
    return saved(wide, "PNG", icc_profile=WIDE_PROFILE)


def ramp() -> bytes:
    """Grey from black to white in steps that 8 bits do not have."""
    row = np.rint(np.linspace(0, 65_535, 160)).astype(np.uint16)
    return encode(Picture(np.tile(row[None, :, None], (24, 1, 3)), grey=True), "png")


def logo() -> bytes:
    """A disc that fades out, on nothing that is black."""
    colours = Image.new("RGB", (96, 96))
    ImageDraw.Draw(colours).ellipse((10, 10, 85, 85), fill=(230, 120, 20))
    ImageDraw.Draw(colours).rectangle((40, 20, 55, 75), fill=(20, 60, 200))
    mask = Image.new("L", (96, 96))
    ImageDraw.Draw(mask).ellipse((10, 10, 85, 85), fill=255)
    alpha = np.asarray(mask.filter(ImageFilter.GaussianBlur(1))) * np.linspace(1, 0.3, 96)
    seen = np.where(np.asarray(mask) > 0, alpha, 0)
    colours.putalpha(Image.fromarray(seen.astype(np.uint8)))
    return saved(colours, "PNG")


def turned(photograph: RgbU8, orientation: int) -> bytes:
    """A photograph as a camera stores it that was held so."""
    image = Image.fromarray(photograph)
    if orientation in STORED_AS:
        image = image.transpose(STORED_AS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, "PNG", exif=exif)


CLEAN = Evidence(
    jpeg_quality=None,
    coded_as="",
    bits_per_pixel=12.0,
    few_colours=False,
    blockiness=0.02,
    noise=0.3,
    colour_noise=0.2,
    detail=15.0,
    sharpness=1.8,
    texture=0.2,
)
"""What the file of a clean photograph shows."""
