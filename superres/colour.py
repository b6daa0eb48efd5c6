"""Colours: out of a picture's own colour space, and under what is transparent."""

import numpy as np
from PIL import ImageCms

BAND = 128
"""Rows that are converted, or looked at, in one call."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (BT.601). Of the three answers of a network for a grey picture,
luma is what it is scored by."""


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


def is_grey(samples: np.ndarray) -> bool:
    """Whether all that is visible has three equal channels; most pictures of colour say so soon.

    Args:
        samples: [h, w, 3], or [h, w, 4] with alpha last, of any type.
    """
    visible = False
    for top in range(0, len(samples), BAND):
        band = samples[top : top + BAND]
        coloured = (band[..., 0] != band[..., 1]) | (band[..., 1] != band[..., 2])
        if band.shape[2] == 4:
            coloured &= band[..., 3] != 0
            visible = visible or bool(band[..., 3].any())
        if coloured.any():
            return False
    return visible or samples.shape[2] == 3


def to_grey(rgb: np.ndarray) -> np.ndarray:
    """The luma of each pixel in its three channels; what is grey already stays as it is.

    Args:
        rgb: [..., width, 3], uint8, or float32 in [0, 1].

    Returns:
        An array of the same shape and type, that cannot be written to.
    """
    integer = rgb.dtype == np.uint8
    wide = np.float32 if integer else np.float64  # exact enough that equal channels come back
    rows = rgb.reshape(-1, *rgb.shape[-2:])
    grey = np.empty(rows.shape[:2], rgb.dtype)
    for top in range(0, len(rows), BAND):  # in bands, since these numbers are wide
        red, green, blue = (
            rows[top : top + BAND, :, channel] * wide(weight) for channel, weight in enumerate(LUMA)
        )
        luma = red + green + blue
        grey[top : top + BAND] = np.rint(luma) if integer else luma
    return np.broadcast_to(grey.reshape(rgb.shape[:-1])[..., None], rgb.shape)
