"""Camera raw inside TIFF: DNG, NEF, ARW, PEF and their like, whose first page may be a preview."""

from superres.codecs import foreign
from superres.codecs.format import BinaryFile
from superres.codecs.headers.exif import Entry, Marks, integers, read_directory
from superres.errors import UnsupportedFormat

_DNG_VERSION = 50_706
_PHOTOMETRIC, _COMPRESSION, _DIRECTORIES = 262, 259, 330
_SENSOR_TAGS = {33_421, 33_422}
"""The size and the pattern of a sensor's colour filters."""
_SENSOR = {32_803, 34_892}
"""Photometric interpretations: a sensor's colour filters, and linear raw."""
_RAW_COMPRESSIONS = {32_767, 32_769, 32_770, 34_713, 65_000, 65_535}
"""Of Sony, Epson, Samsung, Nikon, Kodak and Pentax."""
_MOST_DIRECTORIES = 16


def check_not_raw(
    file: BinaryFile, marks: Marks, entries: dict[int, Entry], pages: list[dict[int, Entry]]
) -> None:
    """Return if no page of a TIFF, and no picture inside its first one, is a sensor's data.

    Raises:
        UnsupportedFormat: one is: the first page is a preview, or no picture yet.
    """
    if _DNG_VERSION in entries:
        raise UnsupportedFormat(f"this is DNG, {foreign.RAW}")
    inner = entries.get(_DIRECTORIES)
    offsets = integers(file, marks, inner) if inner and inner.count <= _MOST_DIRECTORIES else ()
    directories = (read_directory(file, marks, at)[0] for at in offsets or () if at >= 0)
    for directory in (entries, *pages, *directories):
        kinds = (_number(file, marks, directory, tag) for tag in (_PHOTOMETRIC, _COMPRESSION))
        photometric, compression = kinds
        if (
            photometric in _SENSOR
            or compression in _RAW_COMPRESSIONS
            or _SENSOR_TAGS & directory.keys()
        ):
            raise UnsupportedFormat(f"this is {foreign.RAW}")


def _number(file: BinaryFile, marks: Marks, entries: dict[int, Entry], tag: int) -> int | None:
    entry = entries.get(tag)
    values = integers(file, marks, entry) if entry is not None and entry.count == 1 else None
    return values[0] if values else None
