"""The JSON of the service that its client reads. The docstrings are part of the OpenAPI."""

import math
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from superres.evaluation.proof import Comparison
from superres.models.card import ModelCard, Scores

PROBLEM_TYPE = "urn:superres:problem:"
"""Beginning of a problem's ``type``."""


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
    notes: str = Field("", description="Why `auto` chose the model.")

    @classmethod
    def of(cls, comparison: Comparison, model: str, notes: str = "") -> "ComparisonReport":
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
            notes=notes,
        )


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


class JobList(BaseModel):
    """A page of jobs, the newest first."""

    jobs: list[JobReport]
    cursor: str | None = Field(description="Where the next page begins; null on the last one.")


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "infinity" if value > 0 else "-infinity"
