"""Pairs of network input and HR picture, and batches of whole pictures."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from superres.arrays import RgbU8, Size, to_integer
from superres.codecs import INPUT_SUFFIXES, decode
from superres.errors import BadImage
from superres.resample import degrade, upsample

Domain = Literal["hr", "lr"]
"""Input of a network; see :class:`training.networks.Architecture`."""


@dataclass(frozen=True)
class Pair:
    """A training or validation picture: the network's input and the HR picture it should produce.

    ``plane`` is the input, padded by ``halo`` replicated pixels at each side, as in serving;
    ``hr`` is not padded. In the ``hr`` domain the plane is the bicubic enlargement, in the
    ``lr`` domain the LR picture.
    """

    plane: RgbU8
    hr: RgbU8
    halo: int

    def bicubic(self) -> RgbU8:
        """The bicubic enlargement, of the size of ``hr``."""
        height, width = (side - 2 * self.halo for side in self.plane.shape[:2])
        core = self.plane[self.halo : self.halo + height, self.halo : self.halo + width]
        return core if core.shape == self.hr.shape else upsample(core, self.hr.shape[:2])


def picture_files(folders: list[Path]) -> list[Path]:
    """The picture files directly in each folder, sorted by name.

    Raises:
        FileNotFoundError: a folder is missing or holds no picture.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}")
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in INPUT_SUFFIXES)
        if not files:
            raise FileNotFoundError(f"no pictures in {folder}")
        found += files
    return found


def dataset_name(folder: Path) -> str:
    """Name of the set in a folder: ``benchmarks/Set5/x3`` is Set5.

    >>> dataset_name(Path("benchmarks/Set5/x3")), dataset_name(Path("photos512/test"))
    ('Set5', 'photos512-test')
    """
    folder = folder.resolve()
    if re.fullmatch(r"x\d", folder.name):
        return folder.parent.name
    if folder.name in ("train", "val", "test"):
        return f"{folder.parent.name}-{folder.name}"
    return folder.name


def read_rgb(file: Path) -> RgbU8:
    """Read a picture file as RGB with 8 bits per sample.

    Raises:
        superres.errors.BadImage: the file is not a picture; the message names it.
    """
    try:
        return to_integer(decode(file.read_bytes()).rgb, np.uint8)
    except BadImage as error:
        raise type(error)(f"{file}: {error}") from error


def crop_to_multiple(hr: RgbU8, scale: int) -> RgbU8:
    """Crop the bottom and the right so that both sides are multiples of ``scale``.

    >>> crop_to_multiple(np.zeros((512, 7, 3), np.uint8), 3).shape
    (510, 6, 3)
    """
    height, width = hr.shape[:2]
    return hr[: height - height % scale, : width - width % scale]


def make_pair(
    hr: RgbU8,
    *,
    scale: int,
    halo: int,
    domain: Domain = "hr",
    keep_size: bool = False,
) -> Pair:
    """Make a pair: shrink by ``scale``, enlarge by bicubic in the ``hr`` domain, pad by the halo.

    Args:
        hr: the HR picture; it is cropped to a multiple of the scale unless ``keep_size``.
        scale: the factor to shrink by; sizes are rounded down.
        halo: replicated pixels to add at each side of the plane.
        domain: the input of the network.
        keep_size: enlarge to the original size: at x3, 512 -> 170 -> 512.

    Raises:
        ValueError: ``keep_size`` with a network of the ``lr`` domain.
    """
    if keep_size and domain == "lr":
        raise ValueError(
            "keep_size is for networks of the hr domain: others output multiples of the scale"
        )
    hr = hr if keep_size else crop_to_multiple(hr, scale)
    size: Size = hr.shape[:2]
    lr = degrade(hr, (size[0] // scale, size[1] // scale))
    plane = lr if domain == "lr" else upsample(lr, size)
    padded = np.pad(plane, ((halo, halo), (halo, halo), (0, 0)), mode="edge")
    return Pair(plane=padded, hr=hr, halo=halo)


def whole_pictures(
    pairs: list[Pair], *, batch_size: int, seed: int, first_step: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches (planes, hr) of whole pictures of one size, endlessly.

    Each picture is used once per epoch, in an order that depends only on ``seed`` and the
    epoch. An incomplete batch at the end of an epoch is dropped.

    Yields:
        [batch, h + 2 halo, w + 2 halo, 3] and [batch, h, w, 3], uint8.
    """
    steps_per_epoch = len(pairs) // batch_size
    for step in count(first_step):
        epoch, position = divmod(step, steps_per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(pairs))
        batch = [pairs[i] for i in order[position * batch_size :][:batch_size]]
        yield (
            np.stack([pair.plane for pair in batch]),
            np.stack([pair.hr for pair in batch]),
        )
