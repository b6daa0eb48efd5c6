"""Compares bicubic and a model on a picture that is taken as the truth."""

from dataclasses import dataclass, replace

import anyio.to_thread
from anyio import CapacityLimiter

from app.decoding.decoders import Decoders
from app.inference.admission import WorkloadKey
from app.inference.scheduled_engine import ScheduledEngine
from app.inference.service import Service
from superres.arrays import RgbU8
from superres.codecs import Header, decode
from superres.enhancer import Enhancer
from superres.evaluation.proof import Comparison, compare_pair, make_pair, to_jpeg, to_truth
from superres.forecast import Forecast, forecast_comparison
from superres.models.card import ModelCard
from superres.models.evidence import examine
from superres.models.registry import AUTO
from superres.models.selection import Candidates, select


@dataclass(frozen=True)
class CompareRequest:
    """A picture to compare bicubic and a model on."""

    header: Header
    card: ModelCard
    """The model; the dearest of the candidates, if there are any."""
    candidates: Candidates | None
    """With ``auto`` and ``jpeg``, the models between which the shrunken copy decides."""
    scale: float
    ensemble: bool
    jpeg: int | None
    """JPEG quality that the shrunken copy is compressed at; None for no compression."""
    cost: Forecast

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """Cards of all models that may be used."""
        return (self.card,) if self.candidates is None else self.candidates.cards

    @property
    def label(self) -> str:
        """Name of the model, or of its ensemble."""
        return self.card.label(ensemble=self.ensemble)

    @property
    def workload(self) -> WorkloadKey:
        """Key by which the time of the work is forecast."""
        return self.workload_of(self.card)

    def workload_of(self, card: ModelCard) -> WorkloadKey:
        """Key by which the work is timed if that model is used."""
        return WorkloadKey("compare", card.label(ensemble=self.ensemble), self.header.bits)

    @property
    def pixels(self) -> int:
        """Pixels that the work's time is proportional to."""
        return self.cost.engine_pixels


@dataclass(frozen=True)
class Compared:
    """A comparison, and how it was made."""

    comparison: Comparison
    label: str
    """Name of the model, or of its ensemble."""
    reason: str
    """Why ``auto`` chose the model; empty where it chose none."""


def prepare_comparison(
    service: Service,
    header: Header,
    nbytes: int,
    *,
    model: str,
    scale: float,
    ensemble: bool,
    jpeg: int | None,
) -> CompareRequest:
    """Choose the model and forecast the cost.

    Args:
        service: has the models.
        header: header of the picture.
        nbytes: length of its file.
        model: family or name.
        scale: scale by which the picture is shrunk.
        ensemble: whether the model answers eight views of each tile.
        jpeg: JPEG quality that the shrunken copy is compressed at; None for no compression.

    Raises:
        ModelMissing: there is no such model.
    """
    candidates = service.candidates(scale) if model == AUTO and jpeg is not None else None
    card = candidates.dearest if candidates else service.choose(model, scale)
    cost = forecast_comparison(header, nbytes, scale, card.geometry, ensemble=ensemble)
    return CompareRequest(header, card, candidates, scale, ensemble, jpeg, cost)


async def compare_picture(
    request: CompareRequest,
    truth: RgbU8 | bytes,
    engine: ScheduledEngine,
    *,
    decoders: Decoders,
    limiter: CapacityLimiter,
) -> Compared:
    """Shrink a picture, bring it back by both methods, and score them.

    Args:
        request: what to compare.
        truth: the picture, or its file.
        engine: engine that was admitted for the request.
        decoders: decode the file.
        limiter: limits the threads that enhance.

    Raises:
        BadImage: the file cannot be decoded.
        BadRequest: the picture is too small.
        CallerGone, DeadlineExceeded, EngineError, NotReady: as
            :meth:`app.inference.scheduled_engine.ScheduledEngine.predict`.
    """
    if isinstance(truth, bytes):
        picture = await decoders.decode(
            truth, request.header, max_bytes=request.cost.peak_bytes, check=engine.check
        )
        truth = await anyio.to_thread.run_sync(to_truth, picture)
        engine.check()
    compared = await anyio.to_thread.run_sync(_compare, request, truth, engine, limiter=limiter)
    engine.check()
    return compared


def _compare(request: CompareRequest, truth: RgbU8, engine: ScheduledEngine) -> Compared:
    reason = ""
    hr, lr = make_pair(truth, request.scale)
    if request.jpeg is not None:
        file = to_jpeg(lr, request.jpeg)
        picture = decode(file)
        lr = picture.rgb
        if request.candidates is not None:
            card, reason = select(examine(file, picture), request.candidates)
            request = replace(request, card=card)
            engine.use(card)
    enhancer = Enhancer(engine, request.card.geometry)
    if request.ensemble:
        enhancer = enhancer.ensembled()
    return Compared(compare_pair(enhancer, hr, lr, request.scale), request.label, reason)
