"""How many bytes of a file are the picture that is shown."""

import io

from superres.codecs.headers import isobmff
from superres.picture import Picture

_JXL_METADATA = {b"Exif", b"xml ", b"jumb", b"brob"}
"""Boxes of a JPEG XL with metadata, the last in compressed form."""


def coded_bytes(data: bytes, picture: Picture) -> int:
    """Size of a file without its metadata and without the further pictures that it has.

    Args:
        data: the file.
        picture: the same, decoded.
    """
    if picture.source_format in ("avif", "heif"):
        further = _bytes_of_further_items(data) + len(picture.icc_profile or b"")
    elif picture.source_format == "jxl":
        boxes = isobmff.file_boxes(io.BytesIO(data)) if data.startswith(bytes(3)) else ()
        further = sum(end - start for kind, start, end in boxes if kind in _JXL_METADATA)
    else:
        blocks = (picture.exif, picture.icc_profile, picture.xmp)
        further = sum(len(block) for block in blocks if block)
    return max(0, len(data) - further)


def _bytes_of_further_items(data: bytes) -> int:
    """Bytes of the items that are not shown: metadata, thumbnails, depth and gain maps, alpha."""
    meta = isobmff.read_meta(io.BytesIO(data))
    primary = meta.items.get(meta.primary)
    if primary is None:
        return 0
    shown = {primary.number, *primary.references.get(b"dimg", ())}
    return sum(
        extent.length
        for item in meta.items.values()
        if item.number not in shown
        for extent in item.extents
    )
