"""The structure of picture files, read under limits before a decoder sees them.

One module a format. Each tells the size that the file is admitted with; a decoder that sees
another size is stopped before it allocates memory. Reading takes at most as much work as
:mod:`superres.codecs.limits` allows, for any file.
"""

from dataclasses import dataclass

from superres.arrays import Size
from superres.codecs.format import BinaryFile
from superres.errors import BadImage


@dataclass(frozen=True)
class Structure:
    """What the structure of a file says of its picture."""

    size: Size
    """(height, width) as the file stores it."""
    head: bytes
    """A file of the same picture that ends where the pixels begin, without what is not needed to
    open it."""


def exactly(file: BinaryFile, length: int) -> bytes:
    """Read so many bytes.

    Raises:
        BadImage: the file ends before.
    """
    data = file.read(length)
    if len(data) != length:
        raise BadImage("the picture's header is damaged: the file ends in it")
    return data


def any_but_zeros(data: bytes, start: int) -> bool:
    """Whether there is anything but zeros behind a place; encoders fill sectors with those."""
    return data.count(0, start) < len(data) - start
