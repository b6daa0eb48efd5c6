"""ModelCard: what a model is, what it expects, how it was trained, what it scored."""

import base64
import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from superres.arrays import TilesF32, TilesU8
from superres.errors import ModelMismatch, ModelMissing
from superres.metrics import Scores

CARD = "card.json"
SAVED_MODEL = "saved_model"
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Geometry(_Frozen):
    """How a network's planes and answers relate; all that cutting tiles needs."""

    domain: Literal["hr", "lr"]
    """``hr``: works on the bicubic plane. ``lr``: on the small picture."""
    scale: int = Field(ge=1, le=4)
    """The scale it was trained for."""
    halo: int = Field(ge=0, le=200)
    """Input pixels a side that an answer depends on."""
    largest_tile: int = Field(ge=32, le=512, multiple_of=32)
    """Longest side of a tile, halo included, px."""

    @property
    def upscale(self) -> int:
        """Output pixels per input pixel of the network, along a side."""
        return self.scale if self.domain == "lr" else 1


class Example(_Frozen):
    """A small input with the network's float32 answer: warm-up must agree with it.

    The tile is [h, w, 3] uint8, the answer [h * upscale, w * upscale, 3] float32,
    little-endian, both in base64.
    """

    height: int = Field(ge=1, le=64)
    width: int = Field(ge=1, le=64)
    tile: str
    answer: str

    def tiles(self) -> TilesU8:
        """The input, as a batch of one."""
        data = base64.b64decode(self.tile, validate=True)
        return np.frombuffer(data, np.uint8).reshape(1, self.height, self.width, 3)

    def answers(self, upscale: int) -> TilesF32:
        """The float32 answer, as a batch of one."""
        shape = (1, self.height * upscale, self.width * upscale, 3)
        data = base64.b64decode(self.answer, validate=True)
        return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)


class DatasetScores(_Frozen):
    """Mean scores on one set, beside bicubic's on the same pictures."""

    dataset: str
    pictures: int = Field(ge=1)
    scale: float
    model: Scores
    bicubic: Scores
    wins_psnr_y: int = Field(ge=0)
    """Pictures on which the model's luma PSNR is above bicubic's."""


class ModelCard(_Frozen):
    """``card.json``: a folder of ``models/`` is served if it agrees with its card."""

    schema_version: Literal[1] = 1
    name: Name
    family: Name
    network: str
    geometry: Geometry
    parameters: int = Field(ge=1)
    multiply_adds_per_output_pixel: int = Field(ge=1)
    files: dict[str, str]
    """SHA-256 of every file in ``saved_model/``, by path inside it."""
    example: Example
    training: dict[str, Any]
    """Config, data, steps, time, machine and commit."""
    scores: tuple[DatasetScores, ...] = ()

    def label(self, *, ensemble: bool = False) -> str:
        """What makes an answer, in a word: the model, alone or as an ensemble of its own views."""
        return f"{self.name}+ensemble" if ensemble else self.name

    @property
    def short_hash(self) -> str:
        """Twelve digits that name this model's exact bytes."""
        listing = "\n".join(f"{path} {digest}" for path, digest in sorted(self.files.items()))
        return hashlib.sha256(listing.encode()).hexdigest()[:12]


def read_card(folder: Path) -> ModelCard:
    """Read ``folder/card.json``.

    Raises:
        ModelMissing: there is none.
        ModelMismatch: it is not a card, or it is of another model than the folder's name.
    """
    file = folder / CARD
    try:
        card = ModelCard.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise ModelMissing(f"no {CARD} in {folder}") from error
    except ValidationError as error:
        raise ModelMismatch(f"{file} is not a model card: {error}") from error
    if card.name != folder.name:
        raise ModelMismatch(f"{file} is the card of {card.name!r}, not of {folder.name!r}")
    return card


def hash_files(saved_model: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by path inside it."""
    return {
        file.relative_to(saved_model).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(saved_model.rglob("*"))
        if file.is_file()
    }


def check_files(folder: Path, card: ModelCard) -> None:
    """Check the SavedModel's files against the card.

    Raises:
        ModelMismatch: a file is missing, changed, or not on the card.
    """
    found = hash_files(folder / SAVED_MODEL)
    for path in sorted(card.files.keys() | found.keys()):
        if path not in found:
            raise ModelMismatch(f"{card.name}: {SAVED_MODEL}/{path} is on the card but missing")
        if path not in card.files:
            raise ModelMismatch(f"{card.name}: {SAVED_MODEL}/{path} is not on the card")
        if found[path] != card.files[path]:
            raise ModelMismatch(
                f"{card.name}: {SAVED_MODEL}/{path} has SHA-256 {found[path][:12]}..., "
                f"the card says {card.files[path][:12]}..."
            )
