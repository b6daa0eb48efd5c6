"""Pictures as libvips reads them: it shares no decoder and no code with this project.

It needs Debian's libvips42, or another libvips that reads HEIC, AVIF and JPEG XL; the wheels of
pyvips-binary read neither HEIC nor JPEG XL. It runs in a process of its own, since two versions of
libheif in one crash.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from tests.needs import unavailable

NEEDED = ("jpegload", "pngload", "webpload", "tiffload", "gifload", "heifload", "jxlload")
"""libvips has these where it was built with the library for the format."""


@dataclass(frozen=True)
class Shown:
    """A picture as it is shown: upright, in sRGB, from 0 to 255."""

    rgb: np.ndarray
    """[h, w, 3]."""
    alpha: np.ndarray | None
    """[h, w]."""
    on_white: np.ndarray
    """[h, w, 3], laid on white in the picture's own colours."""
    grey: bool
    """Whether it is stored as grey."""
    bits: int
    """Of a sample: 8, or 16 for more."""
    profile: bytes | None
    turned: bool
    """Whether its EXIF says that it is to be turned."""
    dpi: bool
    """Whether it says how large a pixel is: other than 1 mm."""


class Vips:
    """libvips, in a process."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def shown(self, files: Iterable[bytes]) -> list[Shown]:
        """Read files.

        Raises:
            ValueError: libvips does not read one.
        """
        return list(self._pool.map(_shown, files, chunksize=16))

    def jxl(self, samples: np.ndarray, profile: bytes | None) -> bytes:
        """A lossless JPEG XL of [h, w, channels] of uint8 or uint16, with a profile."""
        return self._pool.submit(_jxl, samples, profile).result()

    def cmyk_profile(self) -> bytes:
        """The profile of CMYK that libvips has."""
        return self._pool.submit(_cmyk_profile).result()


@contextmanager
def running() -> Iterator[Vips]:
    """libvips, with all formats; without it, see `unavailable`."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        if missing := pool.submit(_missing).result():
            unavailable(missing)
        yield Vips(pool)


def _missing() -> str:
    os.environ["VIPS_CONCURRENCY"] = "1"  # small pictures; threads cost more than they gain
    try:
        import pyvips
    except (ImportError, OSError) as error:  # cffi's, without the library
        return f"libvips is not installed (Debian's libvips42): {error}"
    pyvips.cache_set_max(0)
    without = [name for name in NEEDED if not pyvips.type_find("VipsOperation", name)]
    return f"libvips was built without {', '.join(without)}" if without else ""


def _shown(data: bytes) -> Shown:
    import pyvips

    try:
        return _read(pyvips.Image.new_from_buffer(data, ""))
    except pyvips.Error as error:
        raise ValueError(f"libvips does not read it: {error}") from error


def _read(image: Any) -> Shown:
    fields = image.get_fields()
    profile = image.get("icc-profile-data") if "icc-profile-data" in fields else None
    turned = "orientation" in fields and image.get("orientation") != 1
    deep = image.format == "ushort"
    upright = image.autorot()
    grey_profile = profile is not None and profile[16:20] == b"GRAY"
    if grey_profile and image.get("vips-loader").startswith("heif"):  # libheif gives RGB
        upright = upright[0].bandjoin(upright[3]) if upright.hasalpha() else upright[0]
        upright = upright.copy(interpretation="grey16" if deep else "b-w")
    colours = upright.bands - upright.hasalpha()
    rgb = on_white = _srgb(upright[:colours], profile)
    alpha = None
    if upright.hasalpha():
        flat = upright.flatten(background=[65_535 if deep else 255] * colours)
        on_white = _srgb(flat, profile)
        alpha = _levels(upright[colours])[..., 0]
    return Shown(
        rgb=rgb,
        alpha=alpha,
        on_white=on_white,
        grey=colours == 1,
        bits=16 if deep else 8,
        profile=profile,
        turned=turned,
        dpi=abs(image.xres - 1) > 0.01,
    )


def _srgb(image: Any, profile: bytes | None) -> np.ndarray:
    space = None if profile is None else profile[16:20].strip()
    if space == {1: b"GRAY", 3: b"RGB", 4: b"CMYK"}[image.bands]:
        if image.format == "uchar":  # so that the same colours are converted alike at any depth
            deep = {1: "grey16", 3: "rgb16", 4: "cmyk"}[image.bands]
            image = (image * 257).cast("ushort").copy(interpretation=deep)
        # Of CMYK, black is that of the paper: browsers, too, make it black.
        image = image.icc_transform(
            "srgb", embedded=True, intent="perceptual", black_point_compensation=True, depth=16
        )
    levels = _levels(image)
    return levels if image.bands == 3 else levels.repeat(3, axis=2)


def _levels(image: Any) -> np.ndarray:
    """[h, w, bands] from 0 to 255."""
    kind = {"uchar": np.uint8, "ushort": np.uint16}[image.format]
    samples = np.frombuffer(image.write_to_memory(), kind)
    levels = samples.astype(np.float32) * np.float32(255 / np.iinfo(kind).max)
    return levels.reshape(image.height, image.width, image.bands)


def _jxl(samples: np.ndarray, profile: bytes | None) -> bytes:
    import pyvips

    height, width, channels = samples.shape
    deep = samples.dtype == np.uint16
    image = pyvips.Image.new_from_memory(
        samples.tobytes(), width, height, channels, "ushort" if deep else "uchar"
    )
    grey, rgb = ("grey16", "rgb16") if deep else ("b-w", "srgb")
    image = image.copy(interpretation=grey if channels < 3 else rgb)
    if profile is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return bytes(image.jxlsave_buffer(lossless=True))


def _cmyk_profile() -> bytes:
    import pyvips

    return bytes(pyvips.Operation.call("profile_load", "cmyk"))
