"""Enlarges one picture, for a request that waits or for a job."""

import hashlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter

from app.decoding.decoders import Decoders
from app.inference.admission import WorkloadKey
from app.inference.memory import Reservation
from app.inference.scheduled_engine import ScheduledEngine
from app.inference.service import Service
from app.telemetry import Stages, Telemetry
from superres.arrays import Size
from superres.codecs import (
    Header,
    OutputFormat,
    Picture,
    check_output,
    conversion_notes,
    encode,
)
from superres.enhancer import Enhancer, Progress
from superres.errors import BadRequest, Busy, ImageTooLarge
from superres.evaluation.proof import FALLBACK, Estimate, check_estimable, estimate_file
from superres.forecast import Forecast, forecast_decoding
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard
from superres.models.evidence import examine
from superres.models.registry import AUTO, DEFAULT_MODEL
from superres.models.selection import Candidates, Selection, select
from superres.parameters import Parameters
from superres.provenance import with_provenance, without_damaged_xmp
from superres.sizing import SHRUNK, Sizing, resolve


class EnhanceOptions(Parameters):
    """The parameters, with the model that the service takes where the caller names none."""

    model: str = DEFAULT_MODEL

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "EnhanceOptions":
        """The options among ``values``; other keys are ignored.

        ``fallback=always`` is what ``model=bicubic`` was before bicubic became a model.
        """
        if values.get("fallback") == "always":
            values = {**values, "model": BICUBIC.name, "fallback": "none"}
        known = {name: values[name] for name in cls.model_fields if name in values}
        return cls.model_validate(known)


@dataclass(frozen=True)
class EnhanceRequest:
    """A picture to enhance. It has passed every check that needs no more than its header."""

    options: EnhanceOptions
    header: Header
    output_format: OutputFormat
    card: ModelCard
    """The model; the dearest of the candidates, if there are any."""
    candidates: Candidates | None
    """With ``auto``, the models between which the decoded picture decides."""
    cost: Forecast
    """The cost with ``card``."""
    provenance: bool = False
    """Whether the result tells what made it."""

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """Cards of all models that may be used."""
        cards = (self.card,) if self.candidates is None else self.candidates.cards
        if self.options.fallback == "auto" and BICUBIC not in cards:
            cards = (*cards, BICUBIC)
        return cards

    @property
    def label(self) -> str:
        """Name of the model, by which the work is timed."""
        return self.card.label(ensemble=self.options.ensemble)

    @property
    def workload(self) -> WorkloadKey:
        """Key by which the time of the work is forecast."""
        return self.workload_of(self.card)

    def workload_of(self, card: ModelCard) -> WorkloadKey:
        """Key by which the work is timed if that model is used."""
        ensemble = self.options.ensemble
        return WorkloadKey("enhance", card.label(ensemble=ensemble), self.header.bits)

    @property
    def pixels(self) -> int:
        """Pixels that the work's time is proportional to."""
        return self.cost.engine_pixels + (self.cost.proof_pixels if self.wants_proof else 0)

    @property
    def wants_proof(self) -> bool:
        """Whether the gain over bicubic is estimated."""
        return self.options.wants_proof

    @property
    def tells_provenance(self) -> bool:
        """Whether the result's XMP tells what made it, unless that is bicubic."""
        return self.provenance and self.options.metadata == "keep"

    @property
    def sizing(self) -> Sizing:
        """How the picture gets its size, which has been checked."""
        return resolve(self.header.size, self.options.target, max_pixels=sys.maxsize)


@dataclass(frozen=True)
class Enhanced:
    """An enhanced picture, encoded, and facts about it."""

    body: bytes
    output_format: OutputFormat
    made_by: str
    """Name and short hash of the model."""
    input_size: Size
    output_size: Size
    notes: str
    """What was kept, converted and dropped of the file, and why this model was chosen."""
    sha256: bytes
    """Digest of the body."""
    timings: dict[str, float]
    """Seconds of each stage."""
    proof: Estimate | None


def prepare_request(
    service: Service,
    options: EnhanceOptions,
    header: Header,
    nbytes: int,
    output_format: OutputFormat,
) -> EnhanceRequest:
    """Choose the model, forecast the cost, and check both against the limits.

    Args:
        service: has the models and the limits.
        options: how the picture is enhanced.
        header: header of the picture.
        nbytes: length of its file.
        output_format: format of the result.

    Raises:
        ModelMissing: there is no such model.
        ImageTooLarge: over the limit on pixels or on memory.
        BadRequest: the size is out of range or contradicts itself, no proof is possible at this
            scale, or the format cannot hold the result.
    """
    sizing = resolve(header.size, options.target, max_pixels=service.settings.max_output_pixels)
    automatic = options.model == AUTO and not sizing.shrinks
    candidates = service.candidates(sizing.scale) if automatic else None
    card = candidates.dearest if candidates else service.choose(options.model, sizing.scale)
    if sizing.shrinks:
        card = BICUBIC
    cost = service.forecast(
        header, nbytes, card, options.target, output_format, ensemble=options.ensemble
    )
    check_output(cost.output_size, output_format)
    provenance = service.settings.provenance
    request = EnhanceRequest(options, header, output_format, card, candidates, cost, provenance)
    if request.wants_proof:
        check_estimable(sizing.scale)
    return request


async def enhance_picture(
    request: EnhanceRequest,
    upload: bytes,
    engine: ScheduledEngine,
    *,
    decoders: Decoders,
    stages: Stages,
    telemetry: Telemetry,
    limiter: CapacityLimiter,
    progress: Progress | None = None,
) -> Enhanced:
    """Decode, enlarge and encode a picture.

    Args:
        request: what to make.
        upload: file of the picture.
        engine: engine that was admitted for the request.
        decoders: decode the picture.
        stages: times the stages.
        telemetry: counts pixels and proofs.
        limiter: limits the threads that enhance.
        progress: called with the number of tiles done and of all tiles, in one of those threads.

    Raises:
        BadImage: the picture cannot be decoded.
        CallerGone, DeadlineExceeded, EngineError, NotReady: as
            :meth:`app.inference.scheduled_engine.ScheduledEngine.predict`.
    """
    options, card, sizing = request.options, request.card, request.sizing
    notes: list[str] = [SHRUNK] if sizing.shrinks else []
    proof: Estimate | None = None
    with stages.time("decode"):
        picture = await decoders.decode(
            upload,
            request.header,
            max_bytes=request.cost.peak_bytes,
            check=engine.check,
            srgb=options.icc == "srgb",
            strip_metadata=options.metadata == "strip",
        )
        if request.tells_provenance:
            picture = without_damaged_xmp(picture)
        if request.candidates is not None:
            selection = await anyio.to_thread.run_sync(_select, upload, picture, request.candidates)
            card = selection.card
            notes.append(selection.reason)
    engine.check()
    engine.use(card)
    enhancer = _enhancer(engine, card, options)
    if request.wants_proof:
        try:
            with stages.time("proof"):
                proof = await anyio.to_thread.run_sync(
                    estimate_file, enhancer, picture, sizing.scale, upload, limiter=limiter
                )
            label = card.label(ensemble=options.ensemble)
            telemetry.proof_gain.labels(label).observe(proof.gain_db)
        except BadRequest as error:  # a picture that is too small to score is enlarged all the same
            notes.append(f"no proof: {error}")
        engine.check()
    if options.fallback == "auto" and proof is not None and proof.gain_db < 0:
        card = BICUBIC
        engine.use(card)
        enhancer = _enhancer(engine, card, options)
        notes.append(FALLBACK)
    stages.current = "infer"
    # The proof's calls of the engine are not part of these stages.
    queue_before, infer_before = engine.queue_seconds, engine.infer_seconds
    started = time.perf_counter()
    enhanced = await anyio.to_thread.run_sync(
        partial(
            enhancer.enhance,
            picture,
            options.target,
            max_pixels=sys.maxsize,  # the limit was checked on the header
            progress=progress,
        ),
        limiter=limiter,
    )
    seconds = time.perf_counter() - started
    queue, infer = engine.queue_seconds - queue_before, engine.infer_seconds - infer_before
    stages.add("queue", queue)
    stages.add("infer", infer)
    stages.add("bicubic", seconds - queue - infer)
    engine.check()
    made_by = f"{card.label(ensemble=options.ensemble)}@{card.short_hash}"
    if request.tells_provenance and card != BICUBIC:
        enhanced, note = with_provenance(enhanced, made_by, request.output_format)
        notes.append(note)
    with stages.time("encode"):
        body, digest = await anyio.to_thread.run_sync(
            _encode_and_digest, enhanced, request.output_format, options.quality
        )
    telemetry.pixels.labels("input").inc(picture.size[0] * picture.size[1])
    telemetry.pixels.labels("output").inc(enhanced.size[0] * enhanced.size[1])
    return Enhanced(
        body=body,
        output_format=request.output_format,
        made_by=made_by,
        input_size=picture.size,
        output_size=enhanced.size,
        notes="; ".join(filter(None, [conversion_notes(picture, request.output_format), *notes])),
        sha256=digest,
        timings=dict(stages.seconds),
        proof=proof,
    )


async def preview(
    service: Service, request: EnhanceRequest, upload: bytes, reservation: Reservation
) -> tuple[EnhanceRequest, str]:
    """Choose the model of a request as :func:`enhance_picture` does, and make nothing.

    Args:
        service: has the models and the limits.
        request: what would be made.
        upload: file of the picture.
        reservation: memory of the request, which grows to that of decoding the picture.

    Returns:
        The request with the chosen model, and why it was chosen. Without memory to decode the
        picture now, the request as it is.

    Raises:
        BadImage: the picture cannot be decoded.
    """
    if request.candidates is None:
        return request, SHRUNK if request.sizing.shrinks else ""
    header = request.header
    needed = forecast_decoding(header, len(upload))
    async with service.previews:
        try:
            reservation.grow(max(0, needed - reservation.bytes))
        except (Busy, ImageTooLarge):
            return (
                request,
                "the choice needs the decoded picture, and there is no memory for it now",
            )
        picture = await service.decoders.decode(
            upload,
            header,
            max_bytes=needed,
            check=lambda: None,
            srgb=request.options.icc == "srgb",
        )
    selection = await anyio.to_thread.run_sync(_select, upload, picture, request.candidates)
    options = request.options.model_copy(update={"model": selection.card.name})
    chosen = prepare_request(service, options, header, len(upload), request.output_format)
    return chosen, selection.reason


def _select(upload: bytes, picture: Picture, candidates: Candidates) -> Selection:
    return select(examine(upload, picture), candidates)


def _enhancer(engine: ScheduledEngine, card: ModelCard, options: EnhanceOptions) -> Enhancer:
    enhancer = Enhancer(engine, card.geometry)
    return enhancer.ensembled() if options.ensemble else enhancer


def _encode_and_digest(
    picture: Picture, output_format: OutputFormat, quality: int
) -> tuple[bytes, bytes]:
    body = encode(picture, output_format, quality)
    return body, hashlib.sha256(body).digest()
