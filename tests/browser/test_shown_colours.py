"""A browser shows a file and what is made of it alike, whatever says what the colours mean."""

import base64
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from superres.codecs import FORMATS, decode, encode
from superres.colour_profiles import grey_profile_of, profile_of_cicp
from tests.pictures import WIDE_PROFILE, chunk, saved

pytestmark = pytest.mark.slow

DRAW = """async address => {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.width, image.height];
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const {data} = context.getImageData(0, 0, image.width, image.height);
    return [image.height, image.width, btoa(String.fromCharCode(...data))];
}"""
P3 = struct.pack(">8I", 31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000)
SRGB = struct.pack(">8I", 31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)


def ramps() -> np.ndarray:
    """Grey, red, green and blue from dark to light, and mixed colours, in bands of 8 rows."""
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8)
    rows = np.zeros((5, 64, 3), np.uint8)
    rows[0] = ramp[:, None]
    for channel in range(3):
        rows[1 + channel, :, channel] = ramp
    rows[4] = np.dstack([ramp, ramp[::-1], np.roll(ramp, 20)])[0]
    return rows.repeat(8, axis=0)


def gamma(value: int) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", value)


def cicp(*numbers: int) -> tuple[bytes, bytes]:
    return b"cICP", bytes([*numbers, 0, 1])


def iccp(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"x\0\0" + zlib.compress(profile)


def png(*chunks: tuple[bytes, bytes], grey: bool = False) -> bytes:
    samples = ramps()[..., 0] if grey else ramps()
    plain = bytes(imagecodecs.png_encode(np.ascontiguousarray(samples)))
    return plain[:33] + b"".join(chunk(*one) for one in chunks) + plain[33:]


def other(image_format: str, mode: str = "RGB", **options) -> bytes:
    return saved(Image.fromarray(ramps()).convert(mode), image_format, **options)


LINEAR_P3 = profile_of_cicp(12, 8)
FILES = {
    "png": png(),
    "png, sRGB, gAMA": png((b"sRGB", b"\0"), gamma(100_000)),
    "png, gAMA": png(gamma(100_000)),
    "png, gAMA of about sRGB": png(gamma(45_455)),
    "png, gAMA of 1.8": png(gamma(55_556)),
    "png, cHRM": png((b"cHRM", P3)),
    "png, gAMA, cHRM": png(gamma(45_455), (b"cHRM", P3)),
    "png, gAMA, cHRM of sRGB": png(gamma(45_455), (b"cHRM", SRGB)),
    "png, iCCP, gAMA": png(iccp(WIDE_PROFILE), gamma(100_000)),
    "png, cICP, iCCP": png(cicp(12, 13), iccp(WIDE_PROFILE)),
    **{f"png, cICP {one}": png(cicp(*one)) for one in ((1, 1), (9, 14), (6, 6), (1, 4), (1, 8))},
    **{f"png, cICP {one}": png(cicp(*one)) for one in ((22, 13), (12, 2), (2, 8), (7, 7), (1, 17))},
    "png, iCCP of grey": png(iccp(grey_profile_of((1.0,)))),
    "png, grey, gAMA": png(gamma(100_000), grey=True),
    "png, grey, cICP": png(cicp(9, 8), grey=True),
    "png, grey, iCCP": png(iccp(grey_profile_of((1.0,))), grey=True),
    "png, grey, iCCP of RGB": png(iccp(LINEAR_P3 or b""), grey=True),
    "jpeg": other("JPEG"),
    "jpeg, profile": other("JPEG", icc_profile=WIDE_PROFILE),
    "jpeg, profile of grey": other("JPEG", icc_profile=grey_profile_of((1.0,))),
    "jpeg, grey, profile": other("JPEG", "L", icc_profile=grey_profile_of((1.0,))),
    "jpeg, grey, profile of RGB": other("JPEG", "L", icc_profile=LINEAR_P3),
    "webp": other("WEBP", lossless=True),
    "webp, profile": other("WEBP", lossless=True, icc_profile=WIDE_PROFILE),
    "gif": other("GIF", "L"),
}


def shown(chromium: Browser, files: list[bytes]) -> list[np.ndarray]:
    """[h, w, 4] of each file, as it is drawn."""
    pictures = []
    page = chromium.new_page()
    for data in files:
        row = next(row for row in FORMATS.values() if data.startswith(row.magic))
        address = f"data:{row.media_type};base64,{base64.b64encode(data).decode()}"
        height, width, samples = page.evaluate(DRAW, address)
        pixels = np.frombuffer(base64.b64decode(samples), np.uint8)
        pictures.append(pixels.reshape(height, width, 4))
    page.close()
    return pictures


def test_chromium_shows_the_file_and_the_result_alike(chromium: Browser):
    """At scale 1; in PNG, to the rounding, and in the others, to what compression costs.

    That is much in the dark of linear samples, where a level is 13 of those that are shown.
    """
    before = shown(chromium, list(FILES.values()))
    for output_format, most in (("png", 2), ("jpeg", 8), ("webp", 16)):
        written = [encode(decode(data), output_format, 100) for data in FILES.values()]
        after = shown(chromium, written)
        for name, one, other_one in zip(FILES, before, after, strict=True):
            difference = np.abs(one.astype(int) - other_one)[2::8]  # away from the bands' edges
            worst = difference.max() if output_format == "png" else np.percentile(difference, 95)
            assert worst <= most, (name, output_format)
