"""The header of BMP."""

import struct

from superres.codecs.format import BinaryFile
from superres.codecs.headers import Structure, exactly
from superres.errors import BadImage

_HEADERS = (12, 40, 52, 56, 64, 108, 124)
"""Bytes of the headers of Windows and OS/2."""
_RLE = (1, 2)
_MASKS_BYTES = 16
_PALETTE_BYTES = 4 * 65_536
"""The longest palette that Pillow reads."""


def read(file: BinaryFile) -> Structure:
    """Read the header, and the palette.

    Raises:
        BadImage: damaged, or its compressed pixels are longer than any encoder makes them.
    """
    start = exactly(file, 18)
    (length,) = struct.unpack_from("<I", start, 14)
    if length not in _HEADERS:
        raise BadImage(
            f"the picture's header is damaged: it has {length:,} bytes, and BMP's have "
            f"{', '.join(map(str, _HEADERS))}"
        )
    header = exactly(file, length - 4)
    if length == 12:
        width, height = struct.unpack_from("<HH", header)
        compression = 0
    else:
        width, height = struct.unpack_from("<Ii", header)
        # Upside down, as Pillow has it: by the highest byte alone.
        height = -height if header[7] == 0xFF else height & 0xFFFFFFFF
        (compression,) = struct.unpack_from("<I", header, 12)
    head = start + header + file.read(_MASKS_BYTES + _PALETTE_BYTES)
    if compression in _RLE:
        _check_compressed(file, start, width, height)
    return Structure((height, width), head)


def _check_compressed(file: BinaryFile, start: bytes, width: int, height: int) -> None:
    """Pillow decodes runs in Python: what follows the last pixel would be read as well."""
    most = 4 * width * height + 4 * height + 1024
    (offset,) = struct.unpack_from("<I", start, 10)
    found = file.seek(0, 2) - offset
    if found > most:
        raise BadImage(
            f"at most {most:,} bytes of runs are read for {width}x{height} pixels; this BMP has "
            f"{found:,}: save it without compression"
        )
