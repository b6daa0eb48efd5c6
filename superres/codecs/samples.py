"""Pictures of decoders that give samples alone: what else they have, our own reader has read."""

import numpy as np
from PIL import Image

from superres import metadata
from superres.codecs.pillow import checked_profile, upright
from superres.picture import Picture


def to_picture(
    samples: np.ndarray,
    name: str,
    *,
    orientation: int = 1,
    icc_profile: bytes | None,
    exif: bytes | None,
    xmp: bytes | None,
    converted: tuple[str, ...] = (),
    left_out: tuple[str, ...] = (),
) -> Picture:
    """Make a picture of what was decoded.

    Args:
        samples: [h, w] or [h, w, channels], of grey, grey and alpha, RGB or RGBA.
        name: of the format.
        orientation: in which the samples are, as EXIF numbers it.
        icc_profile: of the samples.
        exif: a block as the file has it. Its orientation says nothing: these formats have their
            own.
        xmp: a packet as the file has it.
        converted: what decoding has converted.
        left_out: what the file has besides.
    """
    about = Image.Image()
    about.info.update({"exif": exif, "xmp": xmp} if xmp else {"exif": exif})
    metadata.set_xmp_aside(about)
    changed, dropped = [*converted], [*left_out]
    read_exif = None
    try:
        read_exif = metadata.read_exif(about)
    except Exception:  # as with pixels; but the picture is complete without it
        dropped.append("damaged EXIF")
    read_xmp, lost = metadata.read_xmp(about)
    dropped.extend(lost)
    samples = np.atleast_3d(samples)
    grey = samples.shape[2] < 3
    if grey:
        samples = samples[..., [0, 0, 0, 1] if samples.shape[2] == 2 else [0, 0, 0]]
    if orientation != 1:
        changed.append(f"orientation {orientation} to upright")
    icc_profile, grey = checked_profile(icc_profile, changed, dropped, grey=grey)
    return Picture(
        samples=upright(samples, orientation),
        grey=grey,
        icc_profile=icc_profile,
        exif=read_exif,
        xmp=read_xmp,
        source_format=name,
        converted=tuple(changed),
        dropped=tuple(dict.fromkeys(dropped)),
    )


def to_16_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """Scale samples of 9 to 16 bits to 16, in place: white stays white.

    >>> to_16_bits(np.array([0, 512, 1023], np.uint16), 10).tolist()
    [0, 32800, 65535]
    """
    low = samples >> (2 * bits - 16)
    np.left_shift(samples, 16 - bits, out=samples)
    samples |= low
    return samples


def divide_by_alpha(samples: np.ndarray) -> None:
    """Give colours back what was multiplied by alpha, the last channel, in place."""
    most = np.iinfo(samples.dtype).max
    for row in samples:  # by rows, since 32 bits a sample would be as much again, twice
        alpha = row[:, -1:].astype(np.uint32)
        colours = (row[:, :-1] * np.uint32(most) + alpha // 2) // np.maximum(alpha, 1)
        row[:, :-1] = np.minimum(colours, most)


def from_16_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    """Round samples of 16 bits to fewer, still as uint16.

    >>> from_16_bits(np.array([[0, 32800, 65535]], np.uint16), 10).tolist()
    [[0, 512, 1023]]
    """
    most = np.uint32((1 << bits) - 1)
    rounded = np.empty_like(samples)
    for row, target in zip(samples, rounded, strict=True):  # 32 bits a sample are many
        target[...] = (row * most + np.uint32(32_767)) // np.uint32(65_535)
    return rounded
