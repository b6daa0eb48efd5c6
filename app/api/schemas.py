"""The JSON of the service that its client does not read: see :mod:`superres.schemas`.

The docstrings are part of the OpenAPI.
"""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from app.jobs.status import JobStatus
from superres.models.card import Geometry, ModelCard
from superres.schemas import JobProgress, JobReport, ModelQuality


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
    """The models of the models folder, and bicubic; ``/readyz`` names those that are loaded."""

    models: list[ModelReport]


class DryRun(BaseModel):
    """What a request would take, and whether it would be admitted now.

    With ``model=auto`` the picture is decoded to choose the model; else its header is enough.
    """

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
    accepted: bool = Field(description="Whether it would be admitted now.")
    retry_after: int = Field(description="If not, seconds after which it should be; else 0.")


def job_report(status: JobStatus) -> JobReport:
    """The same status, fit for JSON."""
    return JobReport(
        id=status.id,
        state=status.state,
        progress=JobProgress(stage=status.stage, tiles_done=status.tiles_done, tiles=status.tiles),
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
        description="Those that were loaded now, as in `X-Model`. A changed model that is not in "
        "use is loaded at its next use.",
        examples=[["srcnn-x3@0123456789ab"]],
    )
    models: list[ReadyModel]


class Version(BaseModel):
    """What is running."""

    version: str
    commit: str
    python: str
    models: dict[str, str] = Field(description="Short hash of each model, by name.")
