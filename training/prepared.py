"""A prepared set: the pixels of many pictures in one file, to be mapped into memory.

A set is a folder of two files. ``pixels.bin`` has every picture's rows, uint8 RGB, one picture
after another; ``set.json`` says where each begins, and where it comes from.
"""

from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from superres.arrays import RgbU8

FORMAT_VERSION = 1
PIXELS = "pixels.bin"
DESCRIPTION = "set.json"


class PreparedPicture(BaseModel):
    """A picture of a prepared set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """Path beside the manifest."""
    sha256: str
    """Hash of that file."""
    height: int
    width: int
    offset: int
    """Byte of ``pixels.bin`` at which the first row begins."""
    source: str
    licence: str

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels."""
        return self.height * self.width * 3


class SetDescription(BaseModel):
    """What ``set.json`` holds; it is written when all pixels are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    name: str
    """The folder that the manifest lies in."""
    manifest_sha256: str
    where: str | None
    """The rows of the manifest that were taken, such as ``split=train``; all if none."""
    pixels_sha256: str
    """Hash of ``pixels.bin``: decoders of another version may decode other pixels."""
    sources: dict[str, int]
    """Pictures by source."""
    licences: dict[str, int]
    """Pictures by licence."""
    pictures: tuple[PreparedPicture, ...]


class PreparedSet:
    """A prepared set, open for reading. A copy in another process maps the same file again."""

    def __init__(self, folder: Path, description: SetDescription) -> None:
        self.folder = folder
        self.description = description
        self._pixels = np.memmap(folder / PIXELS, np.uint8, mode="r")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the set of a folder.

        Raises:
            FileNotFoundError: no set, or one that is not finished.
            ValueError: a set of another format, or ``pixels.bin`` is of another size.
        """
        file = folder / DESCRIPTION
        if not file.exists():
            raise FileNotFoundError(
                f"no prepared set in {folder}: make it with superres-train prepare manifest"
            )
        description = SetDescription.model_validate_json(file.read_text())
        if description.format_version != FORMAT_VERSION:
            raise ValueError(
                f"{folder} has format {description.format_version}; {FORMAT_VERSION} is read"
            )
        expected = sum(picture.nbytes for picture in description.pictures)
        if (found := (folder / PIXELS).stat().st_size) != expected:
            raise ValueError(f"{folder / PIXELS} has {found:,} bytes; {expected:,} were expected")
        return cls(folder, description)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.folder, self.description)

    def __len__(self) -> int:
        return len(self.description.pictures)

    def __getitem__(self, index: int) -> RgbU8:
        """A picture, as a view of the file."""
        picture = self.description.pictures[index]
        pixels = self._pixels[picture.offset : picture.offset + picture.nbytes]
        return pixels.reshape(picture.height, picture.width, 3)

    @cached_property
    def sizes(self) -> np.ndarray:
        """[n, 2]: height and width of each picture."""
        return np.array([(p.height, p.width) for p in self.description.pictures], np.int64)
