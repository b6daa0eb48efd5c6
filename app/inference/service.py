"""What requests and jobs use: the models, the device and the admission, behind one object."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import anyio
from anyio import CapacityLimiter

from app.decoding.decoders import Decoders
from app.inference.admission import Admission, WorkloadKey
from app.inference.memory import Reservation
from app.inference.models import LoadEngine, Models
from app.inference.scheduled_engine import ScheduledEngine
from app.inference.scheduler import THREAD_ENDED, BatchScheduler, DeviceEngine
from app.settings import Settings
from superres.codecs import Header, OutputFormat
from superres.engines.tensorflow import SavedModelEngine
from superres.errors import NotReady
from superres.forecast import Forecast, forecast
from superres.models.card import ModelCard
from superres.models.registry import AUTO, choose
from superres.models.selection import Candidates, candidates
from superres.sizing import Target

ADMISSION_POLL_S = 0.1
"""Seconds between two checks whether a job can be admitted."""


class WorkContext(Protocol):
    """Time limit, memory and caller of work: of a request or of a job."""

    started: float
    """Start of the work's time, by :func:`time.monotonic`."""
    seconds: float
    """Time limit of the work, in seconds."""
    reservation: Reservation

    def seconds_left(self) -> float:
        """Seconds until the deadline; negative after it."""

    def on_disconnect(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        """Within the block, call ``callback`` if nobody waits for the answer any more."""


class ModelRequest(Protocol):
    """Work that is asked of one model, or of one of several."""

    @property
    def card(self) -> ModelCard:
        """Card of the model; of several, of the dearest."""

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """Cards of all models that the work may use."""

    @property
    def workload(self) -> WorkloadKey:
        """Key by which the time of the work is forecast."""

    def workload_of(self, card: ModelCard) -> WorkloadKey:
        """Key by which the work is timed if that model is used."""

    @property
    def cost(self) -> Forecast:
        """Pixels, tiles and memory of the work."""

    @property
    def pixels(self) -> int:
        """Pixels that the work's time is proportional to."""


@dataclass(frozen=True)
class AdmissionForecast:
    """Expected time of a request, and whether it would be admitted now."""

    seconds_alone: float
    """Seconds of the work on an idle machine."""
    seconds_expected: float
    """Seconds of the work beside the active requests."""
    retry_after: int
    """Seconds after which the request should be admitted; 0 if it would be admitted now."""


class Service:
    """The models and the device of one process, and the admission to them.

    Args:
        settings, engines, load_engine: see :class:`app.inference.models.Models`.

    Raises:
        ModelMissing, ModelMismatch: as :class:`app.inference.models.Models`.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Mapping[str, DeviceEngine] | None = None,
        load_engine: LoadEngine | None = None,
    ) -> None:
        self.settings = settings
        self.admission = Admission(
            max_requests=settings.max_requests, max_bytes=settings.max_memory_bytes
        )
        self.models = Models(settings, self.admission, engines, load_engine)
        self.decoders = Decoders()
        self._scheduler = BatchScheduler(
            threads=settings.tiles_in_flight if load_engine else SavedModelEngine.CALLS_AT_ONCE
        )
        self.previews = CapacityLimiter(settings.max_requests)
        """Limits the pictures that are decoded for dry runs, which are not admitted."""
        self.draining = False

    async def start(self) -> None:
        """Start the decoders and load the models.

        :meth:`check_ready` says whether this is done.
        """
        self.decoders.start()
        await self.models.load()

    async def reload(self) -> list[str]:
        """Replace the models; see :meth:`app.inference.models.Models.reload`.

        Raises:
            ReloadFailed: as there.
            NotReady: the service is draining.
        """
        self._check_not_draining()
        return await self.models.reload()

    def close(self) -> None:
        """Stop the threads that call the device, and the processes that decode."""
        self._scheduler.close()
        self.decoders.close()

    def check_ready(self) -> None:
        """Return if requests for the default model at x3 can be accepted now.

        Raises:
            NotReady: models are still loading, or one of them failed; the device has
                stalled, or a thread of it has ended; or the service is draining.
        """
        self.check_open()
        self.models.check_default()

    def check_open(self) -> None:
        """Return if requests for the models that are loaded can be accepted now.

        Raises:
            NotReady: no model is loaded, or as :meth:`check_ready`.
        """
        self._check_not_draining()
        self.models.check_any()
        if not self._scheduler.alive:
            raise NotReady(THREAD_ENDED, retry_after=30)
        stalled, bound = self.stalled_seconds, self.settings.stalled_s
        if stalled > bound:
            raise NotReady(
                f"the device has stalled: no tile has been done for {stalled:.0f} s; "
                f"at most {bound:g} are allowed",
                retry_after=30,
            )

    def _check_not_draining(self) -> None:
        if self.draining:
            raise NotReady(
                "the service is draining: what it has begun is finished, and nothing new accepted",
                retry_after=5,
            )

    def choose(self, model: str, scale: float) -> ModelCard:
        """Choose the model for a family or a name, and a scale.

        For ``auto``, that is the model for clean pictures.

        Raises:
            ModelMissing: no such model.
        """
        if model == AUTO:
            return self.candidates(scale).clean
        return choose(self.models.cards, model, scale)

    def candidates(self, scale: float) -> Candidates:
        """The models between which ``auto`` chooses at a scale."""
        return candidates(self.models.cards, scale)

    def forecast(
        self,
        header: Header,
        nbytes: int,
        card: ModelCard,
        target: Target,
        output_format: OutputFormat,
        *,
        ensemble: bool = False,
    ) -> Forecast:
        """Compute what enlarging a picture takes, and check it against the limits.

        Raises:
            BadRequest: the target is out of range.
            ImageTooLarge: over the limit on pixels or on memory.
        """
        cost = forecast(
            header,
            nbytes,
            target,
            card.geometry,
            output_format=output_format,
            ensemble=ensemble,
            max_pixels=self.settings.max_output_pixels,
        )
        self.admission.check_fits(cost.peak_bytes)
        return cost

    def forecast_admission(self, request: ModelRequest, context: WorkContext) -> AdmissionForecast:
        """Forecast the time of a request, and whether it would be admitted now.

        Raises:
            NotReady: the model is not loaded, so that its speed is not known.
        """
        for card in request.cards:
            self.models.engine(card)
        workload, pixels = request.workload, request.pixels
        return AdmissionForecast(
            seconds_alone=self.admission.seconds_alone(workload, pixels),
            seconds_expected=self.admission.expected_seconds(
                workload, pixels, context.reservation.caller
            ),
            retry_after=self._retry_after(request, context),
        )

    async def wait_for_admission(self, request: ModelRequest, context: WorkContext) -> None:
        """Wait until the models are loaded and :meth:`admit`, called at once, raises no Busy.

        Also returns when the deadline has passed, after a load that has begun. A model that was
        replaced in the meantime is left to :meth:`admit`.

        Raises:
            EngineError: a model cannot be loaded.
        """
        while context.seconds_left() > 0:
            # Each time: while the service starts, this loads nothing.
            await self.models.require(*request.cards)
            loading = any(map(self.models.is_loading, request.cards))
            if not (loading or self._retry_after(request, context)):
                return
            await anyio.sleep(ADMISSION_POLL_S)

    @contextmanager
    def admit(self, request: ModelRequest, context: WorkContext) -> Iterator[ScheduledEngine]:
        """Admit a request; its engine shares the device with the other requests.

        The engine is that of the request's card, until :meth:`ScheduledEngine.use` chooses another
        one of its cards.

        Raises:
            NotReady: the model is not loaded, or was replaced since the card was chosen.
            Busy, ImageTooLarge: as :meth:`app.inference.admission.Admission.admit`.
            DeadlineExceeded: the deadline has passed already.
        """
        with ExitStack() as leases:
            engines = {
                card.name: leases.enter_context(self.models.lease(card)) for card in request.cards
            }
            scheduled = ScheduledEngine(
                self._scheduler,
                engines[request.card.name],
                context.seconds,
                context.started,
                upscale=request.card.geometry.upscale,
                engines=engines,
                caller=context.reservation.caller,
            )
            scheduled.check()
            with (
                self.admission.admit(
                    context.reservation,
                    request.workload,
                    request.pixels,
                    request.cost.peak_bytes,
                    context.seconds_left(),
                    # What the network really made: bicubic may be chosen instead of it.
                    done=lambda: scheduled.pixels if request.card.files else request.pixels,
                    done_by=lambda: request.workload_of(scheduled.network or request.card),
                ),
                context.on_disconnect(scheduled.cancel),
            ):
                yield scheduled

    def _retry_after(self, request: ModelRequest, context: WorkContext) -> int:
        return self.admission.retry_after(
            request.cost.peak_bytes - context.reservation.bytes,
            self.admission.seconds_alone(request.workload, request.pixels),
            context.seconds_left(),
            caller=context.reservation.caller,
        )

    @property
    def queued_tiles(self) -> int:
        """Number of tiles that wait for the device."""
        return self._scheduler.queued_tiles

    @property
    def stalled_seconds(self) -> float:
        """Seconds since the device made progress; 0 if it has nothing to do."""
        return self._scheduler.stalled_seconds

    @property
    def done_tiles(self) -> int:
        """Number of tiles that the device has done."""
        return self._scheduler.done_tiles
