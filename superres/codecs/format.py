"""One row of the table of formats."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from superres.codecs.limits import Limits
from superres.picture import Header, Picture

BinaryFile: TypeAlias = io.BytesIO | io.BufferedReader
"""An open file of bytes."""


@dataclass(frozen=True)
class Format:
    """A format of picture files: how to recognise, read and write it, and what it can hold."""

    name: str
    """Its name in the API: the parameter ``format``, and :attr:`Header.source_format`."""
    label: str
    """Its name in texts."""
    magic: tuple[bytes, ...]
    """First bytes of its files; none for a format that has :attr:`recognises`."""
    suffixes: tuple[str, ...]
    """Suffixes of its files, lower case; results get the first."""
    media_type: str
    probe: Callable[[BinaryFile, int], Header]
    """Reads the header of a file, at its start, of at most so many pixels."""
    decode: Callable[[bytes, int], Picture]
    """Decodes a file of at most so many pixels."""
    encode: Callable[[Picture, int], bytes] | None = None
    """Encodes what it can hold of a picture at a quality of 1 to 100; None if it is only read."""
    recognises: Callable[[bytes], bool] | None = None
    """Whether a file is of the format, by its first 512 bytes, where those alone do not tell that
    are the same in all files."""
    limits: Limits = field(default_factory=Limits)
    """What its files can hold."""
    lossy: bool = False
    """Whether the quality counts."""
    shown_by_browsers: bool = False
    """Whether the page asks for it."""
    imports: tuple[str, ...] = ()
    """Modules that only decoding imports, when it is first used."""
    decoder_bytes_per_pixel: int = 16
    """Bytes of memory that decoding needs at most for each pixel, at any depth that it has: what
    the decoder keeps, its picture, and the array that is made of it. ``make fuzz`` and
    tests/superres/test_decoder_memory.py measure it."""
    encoder_bytes_per_pixel: int = 0
    """Bytes of memory that its encoder needs besides the picture and the file, for each pixel."""
    encoder_bytes_per_alpha_pixel: int = 0
    """Bytes of memory that its encoder needs besides, for each pixel with alpha."""

    def is_format_of(self, head: bytes) -> bool:
        """Whether a file that begins so is of this format."""
        return self.recognises(head) if self.recognises else head.startswith(self.magic)
