"""A decoded picture, and what a file's header says about one."""

from dataclasses import KW_ONLY, dataclass, replace

import numpy as np

from superres import colour
from superres.arrays import AnySamples, PlaneU8, PlaneU16, RgbU8, RgbU16, Size


@dataclass(frozen=True)
class Header:
    """What the first bytes of a file tell, before any pixel is decoded."""

    source_format: str
    size: Size
    """(height, width), upright."""
    bits: int
    """Bits of a sample: 8 or 16."""
    alpha: bool = False
    """Whether any pixel may be transparent."""
    decoder_bytes_per_pixel: int = 0
    """Bytes of memory that decoding this file needs for each pixel, where that is more than its
    format's."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright: its EXIF orientation has been applied.

    ``samples`` are [h, w, 3], or [h, w, 4] with alpha last and not premultiplied, of 8 or 16
    bits: one array, so that a large picture exists once. A grey picture has three equal
    channels and ``grey`` set, so that it can be written as grey again. ``icc_profile`` is the
    colour profile of the samples. ``exif``, ``xmp`` and ``dpi`` are as
    :mod:`superres.metadata` reads them. ``converted`` and ``dropped`` name what decoding
    converted and dropped of the file's content.
    """

    samples: AnySamples
    _: KW_ONLY
    grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    source_format: str = "png"
    converted: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    coded_bytes: int = 0
    """Bytes of the file that are this picture: see
    :func:`superres.codecs.coded_bytes.coded_bytes`. 0 for one that comes from no file."""

    @property
    def rgb(self) -> RgbU8 | RgbU16:
        """The colour channels."""
        return self.samples[..., :3]

    @property
    def alpha(self) -> PlaneU8 | PlaneU16 | None:
        """The opacity of each pixel; None if all are opaque."""
        return self.samples[..., 3] if self.samples.shape[2] == 4 else None

    @property
    def size(self) -> Size:
        """(height, width)."""
        height, width = self.samples.shape[:2]
        return height, width

    @property
    def metadata(self) -> dict[str, object]:
        """What the picture has besides its samples, by the name that users read."""
        fields = {
            "ICC profile": self.icc_profile,
            "EXIF": self.exif,
            "XMP": self.xmp,
            "DPI": self.dpi,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def channels(self) -> np.ndarray:
        """The samples that an encoder takes: contiguous, and one channel of colour if grey.

        Returns:
            [h, w] for grey, [h, w, 2] for grey with alpha, else [h, w, 3] or [h, w, 4].
        """
        samples = self.samples
        if self.grey:
            samples = samples[..., 0] if self.alpha is None else samples[..., [0, 3]]
        # A view of one pixel passes for contiguous with strides that encoders do not take.
        whole = samples.flags.owndata and samples.flags.c_contiguous
        return samples if whole else samples.copy()


def to_srgb(picture: Picture) -> Picture:
    """Convert a picture from its colour profile to sRGB, which needs no profile.

    A picture without a profile is taken to be sRGB already. A profile that cannot be used is
    dropped.
    """
    if picture.icc_profile is None:
        return picture
    try:
        samples = colour.to_srgb(picture.samples, picture.icc_profile, grey=picture.grey)
    except colour.DamagedProfile:
        dropped = (*picture.dropped, "damaged ICC profile")
        return replace(picture, icc_profile=None, dropped=dropped)
    converted = (*picture.converted, "ICC profile to sRGB")
    return replace(picture, samples=samples, icc_profile=None, converted=converted)


def without_metadata(picture: Picture) -> Picture:
    """The picture without EXIF and XMP: who took it, when, where and with what."""
    dropped = (*picture.dropped, *(name for name in picture.metadata if name in ("EXIF", "XMP")))
    return replace(picture, exif=None, xmp=None, dropped=dropped)
