"""One picture enlarged, for a request that waits or for a job."""

import base64
import hashlib
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Literal

import anyio.to_thread
import numpy as np
from anyio import CapacityLimiter
from pydantic import BaseModel, ConfigDict, Field

from app.inference.models import Service
from app.inference.scheduler import Turn
from app.telemetry import Stages, Telemetry
from superres.arrays import Size, to_integer
from superres.card import ModelCard
from superres.codecs import (
    DEFAULT_QUALITY,
    MEDIA_TYPES,
    Header,
    OutputFormat,
    Picture,
    account,
    check_output,
    decode,
    encode,
    to_srgb,
    without_metadata,
)
from superres.enhancer import BICUBIC, LARGEST_SCALE, SMALLEST_SCALE, Enhancer, Progress
from superres.errors import BadRequest
from superres.forecast import Forecast
from superres.jpeg import jpeg_settings
from superres.proof import Estimate, check_estimable, estimate
from superres.registry import DEFAULT_MODEL, DEFAULT_SCALE

BICUBIC_LABEL = "bicubic"


class EnhanceQuery(BaseModel):
    """The parameters of POST /enhance."""

    model_config = ConfigDict(extra="forbid")

    scale: float = Field(
        DEFAULT_SCALE,
        ge=SMALLEST_SCALE,
        le=LARGEST_SCALE,
        description="Output side over input side.",
    )
    model: str = Field(DEFAULT_MODEL, description="A family (`srcnn`) or a name (`srcnn-x3`).")
    format: OutputFormat | None = Field(
        None,
        description="Default: what `Accept` asks for, else the upload's own format, else png.",
    )
    quality: int = Field(DEFAULT_QUALITY, ge=1, le=100, description="For jpeg and webp.")
    icc: Literal["keep", "srgb"] = Field(
        "keep", description="The colour profile goes along, or the colours become sRGB's."
    )
    metadata: Literal["keep", "strip"] = Field(
        "keep", description="EXIF and XMP; orientation is applied and DPI kept either way."
    )
    ensemble: bool = Field(
        False,
        description="Average the model's answers to eight views of the picture, turned and "
        "mirrored: slightly better, in eight times the time.",
    )
    dry_run: bool = Field(
        False, description="Only compute what it would take, and say whether there is room now."
    )
    proof: bool = Field(
        False,
        description="Estimate the gain on this picture: it is shrunk by `scale` (1.5 and above), "
        "brought back by bicubic and by the model, and both are scored against it.",
    )
    fallback: Literal["none", "auto", "always"] = Field(
        "none",
        description="`auto`: with a proof, and bicubic's answer where it favours bicubic. "
        "`always`: bicubic's answer, to look at beside.",
    )


@dataclass(frozen=True)
class Order:
    """What is to be made of a picture: all that its header allows to be refused was let pass."""

    query: EnhanceQuery
    header: Header
    output_format: OutputFormat
    card: ModelCard
    taken: Forecast

    @property
    def label(self) -> str:
        """What answers, in a word."""
        if self.query.fallback == "always":
            return BICUBIC_LABEL
        return self.card.label(ensemble=self.query.ensemble)

    @property
    def proving(self) -> bool:
        """Whether the gain is estimated."""
        return self.query.proof or self.query.fallback == "auto"


@dataclass(frozen=True)
class Enhanced:
    """The answer: a body and its headers."""

    body: bytes
    media_type: str
    headers: dict[str, str]


def order(
    service: Service, query: EnhanceQuery, header: Header, nbytes: int, output_format: OutputFormat
) -> Order:
    """Check what is asked for.

    Args:
        service: with its models and limits.
        query: the parameters.
        header: the picture's.
        nbytes: length of its file.
        output_format: that will be written.

    Raises:
        ModelMissing: no such model.
        ImageTooLarge: more pixels or memory than there ever is.
        BadRequest: no proof at this scale, or the format cannot hold the answer.
    """
    card = service.choose(query.model, query.scale)
    taken = service.forecast(
        header, nbytes, card, query.scale, output_format, ensemble=query.ensemble
    )
    check_output(taken.output_size, output_format)
    asked = Order(query, header, output_format, card, taken)
    if asked.proving:
        check_estimable(query.scale)
    return asked


async def enhance(
    asked: Order,
    upload: bytes,
    turn: Turn,
    *,
    stages: Stages,
    telemetry: Telemetry,
    limiter: CapacityLimiter,
    progress: Progress | None = None,
) -> Enhanced:
    """Decode, enlarge and encode.

    Args:
        asked: what to make.
        upload: the picture's file.
        turn: at the device; see :meth:`app.inference.models.Service.at_work`.
        stages: the stopwatch.
        telemetry: what is counted.
        limiter: of the threads that enhance.
        progress: told the tiles done and the tiles in all, in one of those threads.

    Raises:
        BadImage: it cannot be decoded.
        CallerGone, DeadlineExceeded, EngineError, NotReady: as
            :meth:`app.inference.scheduler.Turn.predict`.
    """
    query, card = asked.query, asked.card
    notes: list[str] = []
    proof: Estimate | None = None
    model = card.label(ensemble=query.ensemble)
    made_by = f"{model}@{card.short_hash}"
    with stages.time("decode"):
        picture = await anyio.to_thread.run_sync(_decode, upload, query)
    turn.check()
    enhancer = Enhancer(turn, card.geometry)
    if query.ensemble:
        enhancer = enhancer.ensembled()
    if asked.proving:
        try:
            with stages.time("proof"):
                proof = await anyio.to_thread.run_sync(
                    _estimate, enhancer, picture, query.scale, upload, limiter=limiter
                )
            telemetry.proof_gain.labels(model).observe(proof.gain_db)
        except BadRequest as error:  # too small to be scored is still worth enlarging
            notes.append(f"no proof: {error}")
        turn.check()
    bicubic_wins = proof is not None and proof.gain_db < 0
    if query.fallback == "always" or (query.fallback == "auto" and bicubic_wins):
        enhancer, made_by = BICUBIC, BICUBIC_LABEL
        notes.append(f"bicubic, as fallback={query.fallback} asks")
    stages.current = "infer"
    started, at_device = time.perf_counter(), turn.queue_seconds + turn.infer_seconds
    enhanced = await anyio.to_thread.run_sync(
        partial(
            enhancer.enhance,
            picture,
            query.scale,
            max_pixels=sys.maxsize,  # counted on the header
            progress=progress,
        ),
        limiter=limiter,
    )
    at_device = turn.queue_seconds + turn.infer_seconds - at_device  # less the proof's
    stages.add("queue", turn.queue_seconds)
    stages.add("infer", turn.infer_seconds)
    stages.add("bicubic", time.perf_counter() - started - at_device)
    turn.check()
    with stages.time("encode"):
        body, digest = await anyio.to_thread.run_sync(
            _encode_and_digest, enhanced, asked.output_format, query.quality
        )
    telemetry.pixels.labels("input").inc(picture.size[0] * picture.size[1])
    telemetry.pixels.labels("output").inc(enhanced.size[0] * enhanced.size[1])
    headers = {
        "X-Model": made_by,
        "X-Input-Size": _width_by_height(picture.size),
        "X-Output-Size": _width_by_height(enhanced.size),
        "X-Notes": "; ".join(filter(None, [account(picture, asked.output_format), *notes])),
        "Server-Timing": stages.header(),
        "Content-Digest": f"sha-256=:{digest}:",
        "Vary": "Accept",
    }
    if proof is not None:
        headers["X-Proof-Gain-dB"] = _decibels(proof.gain_db)
        headers["X-Proof-Bicubic-dB"] = _decibels(proof.bicubic_psnr_y)
        headers["X-Proof-Model-dB"] = _decibels(proof.sr_psnr_y)
    return Enhanced(
        body,
        MEDIA_TYPES[asked.output_format],
        {name: value for name, value in headers.items() if value},
    )


def _estimate(enhancer: Enhancer, picture: Picture, scale: float, data: bytes) -> Estimate:
    rgb = to_integer(picture.rgb, np.uint8)
    return estimate(enhancer, rgb, scale, jpeg=jpeg_settings(data))


def _decode(data: bytes, query: EnhanceQuery) -> Picture:
    # Its pixels were counted on the header.
    picture = decode(data, max_pixels=sys.maxsize)
    if query.metadata == "strip":
        picture = without_metadata(picture)
    return to_srgb(picture) if query.icc == "srgb" else picture


def _encode_and_digest(
    picture: Picture, output_format: OutputFormat, quality: int
) -> tuple[bytes, str]:
    body = encode(picture, output_format, quality)
    return body, base64.b64encode(hashlib.sha256(body).digest()).decode()


def _width_by_height(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _decibels(value: float) -> str:
    """Two decimals; infinity spelled out, as in the JSON."""
    return f"{value:.2f}".replace("inf", "infinity")
