"""The JSON of the service, as pydantic models. Their docstrings are part of the OpenAPI."""

import math
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from app.jobs.status import JobStatus
from superres.evaluation.proof import Comparison
from superres.models.card import Geometry, ModelCard, Scores


class Problem(BaseModel):
    """RFC 9457. ``type`` is stable: branch on it, not on the text."""

    type: str = Field(examples=["urn:superres:problem:image-too-large"])
    title: str
    status: int
    detail: str = Field(description="What was wrong, with the limit and the value.")
    request_id: str = Field(description="As in the header X-Request-ID, and in the log.")


class Quality(BaseModel):
    """PSNR in dB, on luma and on RGB, and SSIM. A perfect PSNR is the string `infinity`."""

    psnr_y: float | str
    ssim_y: float
    psnr_rgb: float | str
    ssim_rgb: float

    @classmethod
    def of(cls, scores: Scores) -> "Quality":
        """The same figures, fit for JSON."""
        return cls(**scores.as_dict())


class DatasetQuality(BaseModel):
    """Means over one set, beside bicubic's on the same pictures."""

    dataset: str
    scale: float
    pictures: int
    model: Quality
    bicubic: Quality
    wins_psnr_y: int = Field(description="Pictures on which the model beats bicubic.")


class ModelQuality(BaseModel):
    """What a model scored on every set."""

    model: str
    scores: list[DatasetQuality]

    @classmethod
    def of(cls, card: ModelCard) -> "ModelQuality":
        """As the card has it."""
        return cls(
            model=card.name,
            scores=[
                DatasetQuality(
                    dataset=one.dataset,
                    scale=one.scale,
                    pictures=one.pictures,
                    model=Quality.of(one.model),
                    bicubic=Quality.of(one.bicubic),
                    wins_psnr_y=one.wins_psnr_y,
                )
                for one in card.scores
            ],
        )


class QualityReport(BaseModel):
    """The quality of all models, from their cards."""

    models: list[ModelQuality]


class ModelReport(BaseModel):
    """A model's card, less its example and its files."""

    name: str
    family: str
    network: str
    scale: int = Field(description="The scale it was trained for.")
    geometry: Geometry
    parameters: int
    multiply_adds_per_output_pixel: int
    hash: str = Field(description="Names the model's exact bytes.")
    training: dict[str, Any] = Field(description="How it was trained, as far as is known.")
    reproducible: bool = Field(description="Whether a command of this project makes it again.")
    quality: ModelQuality

    @classmethod
    def of(cls, card: ModelCard) -> "ModelReport":
        """As the card has it."""
        return cls(
            name=card.name,
            family=card.family,
            network=card.network,
            scale=card.geometry.scale,
            geometry=card.geometry,
            parameters=card.parameters,
            multiply_adds_per_output_pixel=card.multiply_adds_per_output_pixel,
            hash=card.short_hash,
            training=card.training.model_dump(mode="json") if card.training else card.legacy or {},
            reproducible=card.reproducible,
            quality=ModelQuality.of(card),
        )


class ModelList(BaseModel):
    """The models that are served."""

    models: list[ModelReport]


class ComparisonReport(BaseModel):
    """How near bicubic and a model came to a picture, from its shrunken copy."""

    model: str
    scale: float
    width: int
    height: int
    bicubic: Quality
    sr: Quality
    gain_db: float | str = Field(
        description="Luma PSNR of the model over bicubic's; `infinity` or `-infinity` where one "
        "of them is perfect."
    )

    @classmethod
    def of(cls, comparison: Comparison, model: str) -> "ComparisonReport":
        """The figures of a comparison."""
        height, width = comparison.hr.shape[:2]
        return cls(
            model=model,
            scale=comparison.scale,
            width=width,
            height=height,
            bicubic=Quality.of(comparison.bicubic_scores),
            sr=Quality.of(comparison.sr_scores),
            gain_db=_number(round(comparison.gain_db, 6)),
        )


class DryRun(BaseModel):
    """What a request would take, computed from the picture's header, and whether it may now."""

    model: str
    notes: str = Field(description="With `model=auto`, why it would choose this model.")
    source_format: str
    bits: int = Field(description="A sample: 8 or 16.")
    input_width: int
    input_height: int
    output_width: int
    output_height: int
    tiles: int
    peak_bytes: int = Field(description="Memory at most, encoded bodies included.")
    seconds_alone: float = Field(description="Work, by what was measured of late.")
    seconds_expected: float = Field(description="The same, beside the requests at work now.")
    accepted: bool = Field(description="Whether it would be let in now.")
    retry_after: int = Field(description="If not, seconds after which it should be; else 0.")


class JobProgress(BaseModel):
    """How far a job is."""

    stage: str = Field(
        description="`waiting`, `decode`, `proof`, `infer`, `encode`; `over` when it has ended."
    )
    tiles_done: int
    tiles: int


class JobReport(BaseModel):
    """A picture that is being enhanced, or was, or will be."""

    id: UUID
    state: Literal["waiting", "running", "done", "failed"]
    progress: JobProgress
    attempts: int = Field(
        description="Times that it was begun; above 1, the service stopped meanwhile."
    )
    created: datetime
    started: datetime | None
    ended: datetime | None
    timings: dict[str, float] = Field(
        description="Seconds that each stage took, of those that are over: waiting, and those of "
        "Server-Timing."
    )
    problem: Problem | None = Field(description="Why it failed.")
    result: str | None = Field(description="Where the picture is, once it is done.")

    @classmethod
    def of(cls, status: JobStatus) -> "JobReport":
        """The same status, fit for JSON."""
        return cls(
            id=status.id,
            state=status.state,
            progress=JobProgress(
                stage=status.stage, tiles_done=status.tiles_done, tiles=status.tiles
            ),
            attempts=status.attempts,
            created=_datetime(status.created),
            started=_datetime(status.started),
            ended=_datetime(status.ended),
            timings=status.timings,
            problem=status.problem,
            result=f"/jobs/{status.id}/result" if status.state == "done" else None,
        )


def _datetime(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "infinity" if value > 0 else "-infinity"


class Health(BaseModel):
    """The event loop is alive."""

    status: str = Field(examples=["ok"])


class ReadyModel(BaseModel):
    """A model that is loaded, warmed up and checked."""

    name: str
    hash: str
    precision: str
    device: str


class Readiness(BaseModel):
    """The service can enhance pictures."""

    status: str = Field(examples=["ready"])
    models: list[ReadyModel]


class Reloaded(BaseModel):
    """The models have been read again."""

    fresh: list[str] = Field(
        description="Those that were loaded, as in `X-Model`; the others have not changed.",
        examples=[["srcnn-x3@0123456789ab"]],
    )
    models: list[ReadyModel]


class Version(BaseModel):
    """What is running."""

    version: str
    commit: str
    python: str
    models: dict[str, str] = Field(description="Short hash of each model, by name.")
