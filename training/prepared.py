"""Prepared sets: the pixels of many pictures in one memory-mapped file.

A set is a folder of two files. ``pixels.bin`` contains the uint8 RGB rows of one picture after
another; ``set.json`` gives the offset, the source and the licence of each.
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
    """Path relative to the manifest's folder."""
    sha256: str
    """Hash of the file."""
    height: int
    width: int
    offset: int
    """Offset of the first row in ``pixels.bin``, bytes."""
    source: str
    licence: str

    @property
    def nbytes(self) -> int:
        """Size of the pixels, bytes."""
        return self.height * self.width * 3


class SetDescription(BaseModel):
    """Contents of ``set.json``, which is written after all pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    name: str
    """Name of the manifest's folder."""
    manifest_sha256: str
    where: str | None
    """Rows of the manifest that were used, such as ``split=train``; None for all."""
    pixels_sha256: str
    """Hash of ``pixels.bin``; another version of a decoder may give other pixels."""
    sources: dict[str, int]
    """Number of pictures by source."""
    licences: dict[str, int]
    """Number of pictures by licence."""
    pictures: tuple[PreparedPicture, ...]


class PreparedSet:
    """A prepared set, open for reading. A pickled copy maps the same file."""

    def __init__(self, folder: Path, description: SetDescription) -> None:
        self.folder = folder
        self.description = description
        self._pixels = np.memmap(folder / PIXELS, np.uint8, mode="r")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the set of a folder.

        Raises:
            FileNotFoundError: there is no finished set.
            ValueError: the format version or the size of ``pixels.bin`` is wrong.
        """
        file = folder / DESCRIPTION
        if not file.exists():
            raise FileNotFoundError(
                f"no prepared set in {folder}: make it with superres-train prepare manifest"
            )
        description = SetDescription.model_validate_json(file.read_text())
        if description.format_version != FORMAT_VERSION:
            raise ValueError(
                f"{folder} has format {description.format_version}; it must be {FORMAT_VERSION}"
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
        """A picture, as a read-only view of the file."""
        picture = self.description.pictures[index]
        pixels = self._pixels[picture.offset : picture.offset + picture.nbytes]
        return pixels.reshape(picture.height, picture.width, 3)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Height and width of each picture, px: [n, 2]."""
        return np.array([(p.height, p.width) for p in self.description.pictures], np.int64)
