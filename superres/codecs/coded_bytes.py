"""How many bytes of a file are the picture that is shown."""

import io

from superres.codecs.headers import isobmff
from superres.picture import Picture

_JXL_OTHER_BOXES = {b"Exif", b"xml ", b"jumb", b"brob", b"jhgm", b"jbrd"}
"""Boxes of a JPEG XL that are not the picture: metadata, plain or compressed, a gain map, and what
restores the JPEG that it was made of."""
_HEIF_OTHER_BOXES = {b"mpvd", b"moov"}
"""Boxes of a HEIF with a video, or with its description."""
_ICC = (b"prof", b"rICC")
"""First bytes of a property ``colr`` that contains a profile."""


def coded_bytes(data: bytes, picture: Picture) -> int:
    """Size of a file without its metadata; of HEIF, AVIF and JPEG XL, also without other pictures.

    Args:
        data: the file.
        picture: the same, decoded, with its metadata.
    """
    if picture.source_format in ("avif", "heif"):
        others = _bytes_of_boxes(data, _HEIF_OTHER_BOXES) + _bytes_of_further_items(data)
    elif picture.source_format == "jxl":
        in_boxes = data.startswith(bytes(3))
        others = _bytes_of_boxes(data, _JXL_OTHER_BOXES) if in_boxes else 0
    else:
        blocks = (picture.exif, picture.icc_profile, picture.xmp)
        others = sum(len(block) for block in blocks if block)
    return max(0, len(data) - others)


def _bytes_of_boxes(data: bytes, kinds: set[bytes]) -> int:
    boxes = isobmff.file_boxes(io.BytesIO(data))
    return sum(end - start for kind, start, end in boxes if kind in kinds)


def _bytes_of_further_items(data: bytes) -> int:
    """Bytes of metadata, thumbnails, maps of depth and gain, and opacity."""
    meta = isobmff.read_meta(io.BytesIO(data))
    primary = meta.items.get(meta.primary)
    if primary is None:
        return 0
    colours = [body for kind, body in primary.properties if kind == b"colr"]
    shown = {primary.number, *primary.references.get(b"dimg", ())}
    return sum(len(body) for body in colours if body.startswith(_ICC)) + sum(
        extent.length
        for item in meta.items.values()
        if item.number not in shown
        for extent in item.extents
    )
