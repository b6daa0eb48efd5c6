"""ModelCard: what a model is, what it expects, how it was trained, what it scored."""

import base64
import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from superres.arrays import TilesF32, TilesU8, without_margin
from superres.errors import ModelMismatch, ModelMissing

CARD = "card.json"
FIRST_FORMAT = "savedmodel"
"""The format of cards without the field: they are from before there was another."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
TrainingPrecision = Literal["float32", "bfloat16"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tiling(_Frozen):
    """How the planes of a network are cut that cannot be tiled exactly."""

    mode: Literal["overlap", "whole"]
    """``overlap``: its answers depend on the whole picture, but little on what is beyond the halo.
    ``whole``: a plane is one tile, of at most as many pixels as the largest tile."""
    multiple: int = Field(1, ge=1, le=16)
    """Number that the sides of a plane must be multiples of, px."""
    error_levels: float = Field(0, ge=0)
    """Levels of 255 by which answers were found to depend on what is beyond the halo."""


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
    tiling: Tiling | None = None
    """None for a network that is tiled exactly, as all are that were trained here."""

    @property
    def upscale(self) -> int:
        """Output pixels per input pixel of the network, along a side."""
        return self.scale if self.domain == "lr" else 1


class Example(_Frozen):
    """A small input with the network's float32 answer: warm-up must agree with it.

    The tile is [h, w, 3] uint8, the answer [(h - 2 * margin) * upscale, (w - 2 * margin) * upscale,
    3] float32, little-endian, both in base64.
    """

    height: int = Field(ge=1, le=512)
    width: int = Field(ge=1, le=512)
    margin: int = Field(0, ge=0)
    """Pixels at each side of the tile to which there is no answer: those of the halo."""
    tile: str
    answer: str

    @model_validator(mode="after")
    def _has_an_answer(self) -> "Example":
        if 2 * self.margin >= min(self.height, self.width):
            raise ValueError(f"a margin of {self.margin} px leaves nothing of the example's tile")
        return self

    def tiles(self) -> TilesU8:
        """The input, as a batch of one."""
        data = base64.b64decode(self.tile, validate=True)
        return np.frombuffer(data, np.uint8).reshape(1, self.height, self.width, 3)

    def answers(self, upscale: int) -> TilesF32:
        """The float32 answer, as a batch of one."""
        data = base64.b64decode(self.answer, validate=True)
        return np.frombuffer(data, "<f4").reshape(self.shape(upscale)).astype(np.float32)

    def shape(self, upscale: int) -> tuple[int, int, int, int]:
        """Shape of the answer, as a batch of one."""
        height, width = ((side - 2 * self.margin) * upscale for side in (self.height, self.width))
        return 1, height, width, 3

    def without_margin(self, answers: np.ndarray, upscale: int) -> np.ndarray:
        """What an engine answers to the tile, without the margin."""
        return without_margin(answers, self.margin * upscale)


class QuantisedRecord(_Frozen):
    """What ``superres-train quantise`` measured of a model in int8, which it offers therefore."""

    pictures: int = Field(ge=1)
    """Pictures on which it was scored; it was calibrated on others."""
    dataset: str
    """Name of the set of both."""
    lost_db: dict[str, float]
    """Luma PSNR that it loses against float32, in the mean, by kind of picture."""
    gain: float
    """Times as fast as float32 it was, in processor time."""
    float_layers: int = Field(ge=0)
    """Convolutions that stay in float32."""
    answer: str
    """Its answer to the tile of the card's example: uint8, in base64."""

    def answers(self, example: Example, upscale: int) -> TilesU8:
        """That answer, as a batch of one."""
        data = base64.b64decode(self.answer, validate=True)
        return np.frombuffer(data, np.uint8).reshape(example.shape(upscale))


@dataclass(frozen=True)
class Scores:
    """How near an estimate came to the truth; PSNR in dB, SSIM at most 1."""

    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    ssim_rgb: float

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, where infinity is spelled out as a string."""
        return {
            key: "infinity" if math.isinf(value) else round(value, 6)
            for key, value in asdict(self).items()
        }


class DatasetScores(_Frozen):
    """Mean scores on one set, beside bicubic's on the same pictures."""

    dataset: str
    pictures: int = Field(ge=1)
    scale: float
    model: Scores
    bicubic: Scores
    wins_psnr_y: int = Field(ge=0)
    """Pictures on which the model's luma PSNR is above bicubic's."""


class DataRecord(_Frozen):
    """A set of pictures that a run learned from or was validated on."""

    name: str
    manifest_sha256: str
    where: str | None
    """The rows of the manifest that were taken; all of them if none."""
    pixels_sha256: str
    """Of the decoded pictures: another decoder may give other pixels."""
    pictures: int
    sources: dict[str, int]
    """Pictures by source."""
    licences: dict[str, int]
    """Pictures by licence."""


class StartRecord(_Frozen):
    """What a run began with."""

    config: str
    """Name of the config whose weights were taken."""
    config_sha256: str
    weights_sha256: str
    layers: tuple[str, ...]
    """Layers whose weights were copied; the others began with random weights."""


class SessionRecord(_Frozen):
    """Where and with what a part of a run was computed."""

    commit: str
    """``unknown`` outside a Git clone."""
    dirty: bool | None
    """Whether files that training depends on differed from the commit; none if unknown."""
    versions: dict[str, str]
    """Of Python and of the packages that decide what is computed."""
    backend: str
    machine: str
    """The processor, or the accelerator."""
    flags: tuple[str, ...]
    """Instruction sets of the processor that change speed or rounding."""
    devices: int
    sampler_version: int
    precision: TrainingPrecision | None = None
    """None in records of before it could change from part to part."""


class TrainingRecord(_Frozen):
    """How a model was trained, as ``superres-train fit`` notes it."""

    config: dict[str, Any]
    """The whole of it; ``training.config.TrainingConfig`` reads it."""
    config_sha256: str
    data: tuple[DataRecord, ...]
    validation_data: DataRecord
    started_from: StartRecord | None
    sessions: tuple[SessionRecord, ...]
    """Those parts of the run that differ in one of these facts, in order."""
    precision: TrainingPrecision
    """Of the last part."""
    steps: dict[str, int]
    """Steps done, by stage."""
    finished: bool
    seconds: float
    """Spent on steps, of all sessions."""
    waited_share: float
    """Of those seconds, the share spent waiting for data."""
    best_step: int
    """The step, counted through all stages, whose averaged weights these are."""
    validation: dict[str, Scores]
    """Mean scores of these weights, ``clean`` and ``degraded``."""
    validation_bicubic: dict[str, Scores]
    steps_sha256: str
    """Of ``steps.csv``, which has the loss of every step."""
    weights_sha256: str


class ModelCard(_Frozen):
    """``card.json``: a folder of ``models/`` is served if it agrees with its card."""

    schema_version: Literal[2] = 2
    name: Name
    family: Name
    network: str
    geometry: Geometry
    parameters: int = Field(ge=0)
    multiply_adds_per_output_pixel: int = Field(ge=0)
    format: Name = FIRST_FORMAT
    """How the network is stored: a key of :data:`superres.engines.ENGINES`."""
    files: dict[str, str]
    """SHA-256 of the network's files, by path inside their folder (``saved_model/``)."""
    more_formats: dict[Name, dict[str, str]] = Field(default_factory=dict)
    """The same network in further formats: their files, as in ``files``."""
    int8: QuantisedRecord | None = None
    """The int8 file among those of ONNX; none where it would lose too much or gain too little."""
    example: Example
    weights_sha256: str
    """Of the weights beside the SavedModel; see ``training.weights.hash_weights``."""
    training: TrainingRecord | None
    """None for an imported model."""
    legacy: dict[str, Any] | None = None
    """Where an imported model comes from, and what was found in its file."""
    reproducible: bool
    """Whether ``superres-train reproduce`` makes this model again."""
    reason: str
    """Why it does not; empty if it does."""
    draft: bool = False
    """Whether it was exported without the checks that a shipped model must pass."""
    scores: tuple[DatasetScores, ...] = ()
    checksum: str = ""
    """SHA-256 of all the rest, so that a field that was edited by hand is noticed."""

    def label(self, *, ensemble: bool = False) -> str:
        """Short name of what makes an answer: the model, or its ensemble of eight views."""
        return f"{self.name}+ensemble" if ensemble else self.name

    @property
    def formats(self) -> dict[str, dict[str, str]]:
        """Files of every format in which the network is stored."""
        return {self.format: self.files, **self.more_formats}

    @property
    def short_hash(self) -> str:
        """Twelve digits that name this model's exact bytes, in the format of ``format``.

        A further format does not change it, as it has the same weights.
        """
        listing = "\n".join(f"{path} {digest}" for path, digest in sorted(self.files.items()))
        return hashlib.sha256(listing.encode()).hexdigest()[:12]

    def sealed(self) -> "ModelCard":
        """The same with its checksum."""
        return self.model_copy(update={"checksum": self._sum()})

    @property
    def intact(self) -> bool:
        """Whether nothing changed since it was sealed."""
        return self.checksum == self._sum()

    def _sum(self) -> str:
        fields = self.model_dump(mode="json", exclude={"checksum"})
        if self.format == FIRST_FORMAT:
            # Cards from before the field have a checksum without it.
            del fields["format"]
        if not self.more_formats:  # likewise
            del fields["more_formats"]
        if self.int8 is None:
            del fields["int8"]
        if self.geometry.tiling is None:
            del fields["geometry"]["tiling"]
        if not self.example.margin:
            del fields["example"]["margin"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_card(folder: Path) -> ModelCard:
    """Read ``folder/card.json``.

    Raises:
        ModelMissing: the folder has no card.
        ModelMismatch: it is not a card, it was edited, or it is of another model than the
            folder's name.
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
    if not card.intact:
        raise ModelMismatch(
            f"{file} was edited: its checksum is not that of its fields; export the model again"
        )
    return card


def write_card(folder: Path, card: ModelCard) -> ModelCard:
    """Seal a card and write it to ``folder/card.json``, whole; the same card gives the same bytes.

    Returns:
        The card with its checksum.
    """
    sealed = card.sealed()
    partial = folder / f".{CARD}.partial"
    partial.write_text(sealed.model_dump_json(indent=2) + "\n")
    os.replace(partial, folder / CARD)
    return sealed


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by path inside it."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
