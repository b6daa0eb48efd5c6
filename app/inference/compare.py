"""Compares bicubic and a model on a picture that is taken as the truth."""

from dataclasses import dataclass
from functools import partial

import anyio.to_thread
import numpy as np
from anyio import CapacityLimiter

from app.decoding.decoders import Decoders
from app.inference.admission import WorkloadKey
from app.inference.scheduled_engine import ScheduledEngine
from app.inference.service import Service
from superres.arrays import RgbU8, to_integer
from superres.codecs import Header
from superres.enhancer import Enhancer
from superres.evaluation.proof import Comparison, compare
from superres.forecast import Forecast, forecast_comparison
from superres.models.card import ModelCard


@dataclass(frozen=True)
class CompareRequest:
    """A picture to compare bicubic and a model on."""

    header: Header
    card: ModelCard
    scale: float
    ensemble: bool
    cost: Forecast

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """Card of the model, as the only one."""
        return (self.card,)

    @property
    def label(self) -> str:
        """Name of the model, or of its ensemble."""
        return self.card.label(ensemble=self.ensemble)

    @property
    def workload(self) -> WorkloadKey:
        """Key by which the work is timed."""
        return WorkloadKey("compare", self.label, self.header.bits)

    @property
    def pixels(self) -> int:
        """Pixels that the work's time is proportional to."""
        return self.cost.engine_pixels


def prepare_comparison(
    service: Service, header: Header, nbytes: int, *, model: str, scale: float, ensemble: bool
) -> CompareRequest:
    """Choose the model and forecast the cost.

    Args:
        service: has the models.
        header: header of the picture.
        nbytes: length of its file.
        model: family or name.
        scale: scale by which the picture is shrunk.
        ensemble: whether the model answers eight views of each tile.

    Raises:
        ModelMissing: there is no such model.
    """
    card = service.choose(model, scale)
    cost = forecast_comparison(header, nbytes, scale, card.geometry, ensemble=ensemble)
    return CompareRequest(header, card, scale, ensemble, cost)


async def compare_picture(
    request: CompareRequest,
    truth: RgbU8 | bytes,
    engine: ScheduledEngine,
    *,
    decoders: Decoders,
    limiter: CapacityLimiter,
) -> Comparison:
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
        truth = await anyio.to_thread.run_sync(to_integer, picture.rgb, np.uint8)
        engine.check()
    enhancer = Enhancer(engine, request.card.geometry)
    if request.ensemble:
        enhancer = enhancer.ensembled()
    comparison = await anyio.to_thread.run_sync(
        partial(compare, enhancer, truth, request.scale), limiter=limiter
    )
    engine.check()
    return comparison
