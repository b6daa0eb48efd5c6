"""Colours: out of a picture's own colour space, and under what is transparent."""

import numpy as np
from PIL import ImageCms

BAND = 512
"""Rows that are converted in one call."""


class DamagedProfile(Exception):
    """An ICC profile that cannot be used; what to do then is the caller's choice."""


def to_srgb(samples: np.ndarray, icc_profile: bytes, *, grey: bool) -> np.ndarray:
    """Convert samples to sRGB by relative colorimetry's perceptual default (Little CMS).

    Args:
        samples: [h, w, 3] or [h, w, 4] with alpha, which is kept; uint8 or uint16.
        icc_profile: of RGB; of grey if ``grey``.
        grey: the channels are equal, and stay so.

    Returns:
        A new array like ``samples``.

    Raises:
        DamagedProfile: it is no profile of such samples.
    """
    # Its import takes longer than decoding most pictures, and few are converted.
    import imagecodecs

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    converted = samples.copy()
    # At 16 bits its optimisation is a table of few colours, which is up to 4 levels of 255 off.
    flags = imagecodecs.CMS.FLAGS.NOOPTIMIZE if samples.dtype == np.uint16 else None
    try:
        for top in range(0, len(samples), BAND):
            rows = samples[top : top + BAND]
            converted[top : top + BAND, :, :3] = imagecodecs.cms_transform(
                np.ascontiguousarray(rows[..., 0] if grey else rows[..., :3]),
                icc_profile,
                srgb,
                colorspace="gray" if grey else "rgb",
                outcolorspace="rgb",
                flags=flags,
            )
    except imagecodecs.CmsError as error:
        raise DamagedProfile(str(error)) from error
    if grey:
        converted[..., :3] = converted[..., 1:2]
    return converted


def bleed(samples: np.ndarray) -> np.ndarray:
    """Give wholly transparent pixels the colour of the visible one that is nearest.

    What a file has there is arbitrary, often black, and enlarging would draw it into the
    edge of what is visible: a dark fringe.

    Args:
        samples: [h, w, 4], of any type, alpha last and not premultiplied.

    Returns:
        [h, w, 3]; the colours as they are where all or nothing is transparent.
    """
    colours, hidden = samples[..., :3], samples[..., 3] == 0
    if not hidden.any() or hidden.all():
        return colours
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return colours[tuple(nearest)]
