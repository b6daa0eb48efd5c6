"""What a file says of its picture besides the pixels: EXIF, XMP, resolution.

Read so that it is still true of an upright and larger picture: what says how the file
stored its pixels (orientation, sizes, strips, thumbnails) is left behind.
"""

import math
from collections.abc import Mapping

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from superres import xmp

_SUBJECT_AREA = 0x9214
DESCRIPTIVE = {
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.XResolution,
    Base.YResolution,
    Base.ResolutionUnit,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.Copyright,
    Base.Rating,
    Base.XPTitle,
    Base.XPComment,
    Base.XPAuthor,
    Base.XPKeywords,
    Base.XPSubject,
}
"""Tags of EXIF's first directory that are about the photograph, not about its storage."""
RESOLUTION = {Base.XResolution, Base.YResolution, Base.ResolutionUnit}
"""Those of them that say how large it is on paper."""
_STORAGE = {
    Base.ComponentsConfiguration,
    Base.CompressedBitsPerPixel,
    Base.ExifImageWidth,
    Base.ExifImageHeight,
    Base.ExifInteroperabilityOffset,
    Base.FocalPlaneXResolution,
    Base.FocalPlaneYResolution,
    Base.FocalPlaneResolutionUnit,
    Base.SubjectLocation,
    _SUBJECT_AREA,
}
"""Tags of its second directory that are about the storage, or places among the pixels."""
_PACKET = "XMP packet"
"""Where an opened picture's XMP is put aside in its ``info``."""


def read_exif(image: Image.Image) -> bytes | None:
    """The EXIF block of an opened picture, in the form that JPEG holds; None if none.

    Only tags about the photograph are taken over: the :data:`DESCRIPTIVE` ones, how it was
    taken, and where. The thumbnail is not.
    """
    source = image.getexif()
    exif = Image.Exif()
    for tag in DESCRIPTIVE & source.keys():
        exif[tag] = as_stored(source[tag])
    for ifd in (IFD.Exif, IFD.GPSInfo):
        tags: Mapping[int, object] = source.get_ifd(ifd)
        exif.get_ifd(ifd).update({tag: as_stored(tags[tag]) for tag in tags if tag not in _STORAGE})
    described = set(exif) - RESOLUTION
    # An empty block of GPS says no more than its version.
    told = set(exif.get_ifd(IFD.Exif)) | set(exif.get_ifd(IFD.GPSInfo)) - {GPS.GPSVersionID}
    return exif.tobytes() if described or told else None


def as_stored(value: object) -> object:
    """A text's own bytes: Pillow reads them as Latin-1, and would write "?" for most."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("latin-1")
    return value


def set_xmp_aside(image: Image.Image) -> None:
    """Put the XMP of an opened picture where Pillow does not see it.

    Pillow would turn the picture by an orientation that XMP alone has, and no viewer does that.
    """
    for name in ("xmp", "XML:com.adobe.xmp"):
        if packet := image.info.pop(name, None):
            image.info[_PACKET] = packet


def read_xmp(image: Image.Image) -> tuple[bytes | None, tuple[str, ...]]:
    """Read the XMP packet of an opened picture; None if it has none, or nothing in it is true.

    Returns:
        the packet, without the properties that :func:`superres.xmp.filtered` cuts out; and, by
        name, what is dropped with them.
    """
    set_xmp_aside(image)
    packet = image.info.get(_PACKET)
    if not packet:
        return None, ()
    try:
        left = xmp.filtered(packet.encode() if isinstance(packet, str) else bytes(packet))
    except xmp.DamagedXmp:
        return None, ("damaged XMP",)
    about_the_file = left.stale and not left.claims
    return left.packet, (*left.claims, *(("XMP about the file",) if about_the_file else ()))


def read_dpi(image: Image.Image) -> tuple[float, float] | None:
    """Pixels per inch, (horizontal, vertical), of an opened picture; None if unsaid."""
    try:
        horizontal, vertical = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    sane = all(math.isfinite(value) and 1 <= value <= 65_535 for value in (horizontal, vertical))
    return (horizontal, vertical) if sane else None


def other_metadata(image: Image.Image) -> tuple[str, ...]:
    """What an opened picture carries that is not taken over, by name."""
    found = {
        "comment": "comment" in image.info,
        "IPTC": "photoshop" in image.info,
        "text": bool(getattr(image, "text", {}).keys() - {"XML:com.adobe.xmp"}),
    }
    return tuple(name for name, there in found.items() if there)
