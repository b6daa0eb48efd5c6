"""What the routes share: the models, the device's owner, and whether both are ready."""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import numpy as np

from app.api.body import Call
from app.api.schemas import DryRun
from app.heaps import trim_heaps
from app.inference.admission import Admission, Kind, Reservation
from app.inference.scheduler import Turn, Worker
from app.settings import Settings
from superres.card import ModelCard, check_files
from superres.codecs import Header, OutputFormat, Picture
from superres.engine import VIEWS, Engine, Precision, SavedModelEngine
from superres.enhancer import Enhancer
from superres.errors import NotReady, ReloadFailed, SuperresError
from superres.forecast import Forecast, forecast
from superres.registry import DEFAULT_MODEL, DEFAULT_SCALE, choose, read_cards

TRIAL = (128, 128)
"""Size of the picture by which a model is warmed up and timed."""

WATCH_S = 0.1
"""Seconds between two looks at whether there is room."""

logger = logging.getLogger("superres")
Result = TypeVar("Result")
Pace = tuple[Kind, int, float]
"""Of a kind of work: pixels, and the seconds that they took."""


class Caller(Protocol):
    """For whom work is done: a request, or a job."""

    route: str
    """What its pace is learnt by."""
    began: float
    """By :func:`time.monotonic`."""
    seconds: float
    """That it may take from then on."""
    reservation: Reservation

    def seconds_left(self) -> float:
        """Until the answer is of no more use; negative if it is not now."""

    def hung_up(self, then: Callable[[], None]) -> AbstractContextManager[None]:
        """Call ``then`` if nobody waits any more meanwhile."""


class ModelEngine(Engine, Protocol):
    """An engine that has a model, and tells how."""

    precision: Precision
    device: str


LoadEngine = Callable[[Path, ModelCard], ModelEngine]
"""Loads a model from its folder, once its files are what its card says."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is being served, and how."""

    card: ModelCard
    engine: Engine
    precision: str
    device: str

    @property
    def label(self) -> str:
        """Name and short hash, as in ``X-Model``."""
        return f"{self.card.name}@{self.card.short_hash}"


class Service:
    """Loads the models in the background, and lets requests work once they are checked.

    ``loaded`` and ``cards`` change together, between two steps of the event loop: who takes a
    card and its engine without awaiting in between has the two that belong together.

    Construction reads the cards and hashes the files, so that a models folder that is
    not what it says stops the service before it listens.

    Args:
        settings: the service's settings.
        engines: engines by model name, in place of the SavedModels: for tests.
        load_engine: loads a model where the cluster's devices have it; on this process's own
            unless given.

    Raises:
        ModelMissing: no models.
        ModelMismatch: a card or a file is not what it says.
    """

    def __init__(
        self,
        settings: Settings,
        engines: Mapping[str, Engine] | None = None,
        load_engine: LoadEngine | None = None,
    ) -> None:
        self.settings = settings
        self._given_engines = engines
        self._load_engine: LoadEngine = load_engine or partial(
            SavedModelEngine, precision=settings.precision, device=settings.device
        )
        self.cards = self._read_cards()
        self.admission = Admission(
            max_requests=settings.max_requests, max_bytes=settings.max_memory_bytes
        )
        self._worker = Worker(settings.tiles_in_flight if load_engine else None)
        self._failure: str | None = None
        self._loading = asyncio.Lock()
        self._turns: set[Turn] = set()
        self.loaded: tuple[LoadedModel, ...] = ()
        self.draining = False

    async def start(self) -> None:
        """Load the models, each served once it is; :meth:`check_ready` tells how far that is."""
        started = time.monotonic()
        try:
            async with self._loading:
                for card in sorted(self.cards, key=_asked_for_first):
                    model, paces = await _in_a_thread(partial(self._load, card))
                    self.loaded += (model,)
                    self._learn(paces)
        except Exception as error:
            self.loaded = ()  # all or none, as in a reload
            if isinstance(error, SuperresError):
                self._failure = str(error)
                logger.error("the models cannot be served: %s", error)
            else:
                self._failure = f"{type(error).__name__}: {error}"
                logger.exception("the models cannot be served")
        else:
            logger.info("ready after %.1f s", time.monotonic() - started)
        finally:
            self._letting_go = asyncio.create_task(self._let_go())

    async def reload(self) -> list[str]:
        """Load what has changed in the models folder, and let it take over, or nothing of it.

        Those that are new are loaded beside the old, checked against their cards and warmed
        up. Requests end on the model that they began with.

        Returns:
            Labels of the models that were loaded.

        Raises:
            ReloadFailed: a model is not what its card says, or there are none.
            NotReady: the service is stopping.
        """
        self._check_not_draining()
        try:
            fresh = await self._replace()
        except Exception as error:
            if isinstance(error, SuperresError):
                reason = str(error)
                logger.error("the models stay as they are: %s", reason)
            else:
                reason = f"{type(error).__name__}: {error}"
                logger.exception("the models stay as they are")
            raise ReloadFailed(f"the models stay as they are: {reason}") from error
        logger.info("reloaded: %s", ", ".join(fresh) or "nothing has changed")
        return fresh

    def close(self) -> None:
        """Stop what calls the device."""
        self._worker.close()

    def check_ready(self) -> None:
        """Return if every request can be taken on now.

        Raises:
            NotReady: models are still loading, or one of them failed; the device has
                stalled; or the service is stopping.
        """
        self.check_open()
        if len(self.loaded) < len(self.cards):
            raise NotReady(
                f"{len(self.loaded)} of {len(self.cards)} models are loaded and checked",
                retry_after=5,
            )

    def check_open(self) -> None:
        """Return if requests can be taken on for the models that are loaded.

        Raises:
            NotReady: there are none yet, or as :meth:`check_ready`.
        """
        self._check_not_draining()
        self._check_loaded()
        stalled, bound = self.stalled_seconds, self.settings.stalled_s
        if stalled > bound:
            raise NotReady(
                f"the device has stalled: its oldest tile has not moved for {stalled:.0f} s; "
                f"at most {bound:g} are allowed",
                retry_after=30,
            )

    def _check_not_draining(self) -> None:
        if self.draining:
            raise NotReady(
                "the service is draining: what it has begun is finished, and nothing new accepted",
                retry_after=5,
            )

    def _check_loaded(self) -> None:
        if self._failure is not None:
            raise NotReady(f"the models cannot be served: {self._failure}", retry_after=60)
        if not self.loaded:
            raise NotReady("the models are being loaded and checked", retry_after=5)

    def choose(self, model: str, scale: float) -> ModelCard:
        """The model that a family or a name, and a scale, ask for.

        Raises:
            ModelMissing: there is none.
        """
        return choose(self.cards, model, scale)

    def forecast(
        self,
        header: Header,
        nbytes: int,
        card: ModelCard,
        scale: float,
        output_format: OutputFormat,
        *,
        ensemble: bool = False,
    ) -> Forecast:
        """What enlarging a picture takes, within the limits on pixels and memory.

        Raises:
            ImageTooLarge: over one of them.
        """
        found = forecast(
            header,
            nbytes,
            scale,
            card.geometry,
            output_format=output_format,
            ensemble=ensemble,
            max_pixels=self.settings.max_output_pixels,
        )
        self.admission.check_fits(found.peak_bytes)
        return found

    async def wait_for_room(
        self, call: Caller, card: ModelCard, label: str, bits: int, taken: Forecast
    ) -> None:
        """Wait until :meth:`at_work`, called at once, does not raise NotReady or Busy.

        Or until the caller's time is up.
        """
        kind = (call.route, label, bits)
        alone = self.admission.seconds_alone(kind, taken.pixels)
        more = taken.peak_bytes - call.reservation.bytes
        while call.seconds_left() > 0 and (
            self._is_loading(card) or self.admission.retry_after(more, alone, call.seconds_left())
        ):
            await anyio.sleep(WATCH_S)

    @contextmanager
    def at_work(
        self, call: Caller, card: ModelCard, label: str, bits: int, taken: Forecast
    ) -> Iterator[Turn]:
        """Let a request work, if there is room; its tiles wait their turn at the device.

        Args:
            call: the request or job.
            card: the model.
            label: what answers, in a word: each goes at a pace of its own.
            bits: of the picture's samples.
            taken: what the work takes.

        Raises:
            NotReady: the model is not loaded, or was replaced since the card was chosen.
            Busy, ImageTooLarge: as :meth:`app.inference.admission.Admission.work`.
            DeadlineExceeded: the request's time is up already.
        """
        self._check_loaded()
        turn = Turn(self._worker, self._engine_of(card), call.seconds, call.began)
        turn.check()
        kind = (call.route, label, bits)
        with (
            self.admission.work(
                call.reservation, kind, taken.pixels, taken.peak_bytes, call.seconds_left()
            ),
            call.hung_up(turn.cancel),
        ):
            self._turns.add(turn)
            try:
                yield turn
            finally:
                self._turns.remove(turn)

    def report(
        self, call: Call, card: ModelCard, label: str, header: Header, taken: Forecast
    ) -> DryRun:
        """What a request would take, and whether there is room for it now.

        Raises:
            NotReady: the model is not loaded, so that nobody knows.
        """
        self._engine_of(card)
        kind = (call.route, label, header.bits)
        alone = self.admission.seconds_alone(kind, taken.pixels)
        more = taken.peak_bytes - call.reservation.bytes
        wait = self.admission.retry_after(more, alone, call.seconds_left())
        return DryRun(
            model=label,
            source_format=header.source_format,
            bits=header.bits,
            input_width=header.size[1],
            input_height=header.size[0],
            output_width=taken.output_size[1],
            output_height=taken.output_size[0],
            tiles=taken.tiles,
            peak_bytes=taken.peak_bytes,
            seconds_alone=round(alone, 3),
            seconds_expected=round(self.admission.expected_seconds(kind, taken.pixels), 3),
            accepted=wait == 0,
            retry_after=wait,
        )

    @property
    def queued_tiles(self) -> int:
        """Tiles that wait for the device."""
        return self._worker.queued_tiles

    @property
    def stalled_seconds(self) -> float:
        """How long the oldest tile has not moved."""
        return self._worker.stalled_seconds

    @property
    def done_tiles(self) -> int:
        """Tiles that the device has done."""
        return self._worker.done_tiles

    @property
    def requests(self) -> int:
        """Pictures being worked on."""
        return self.admission.at_work

    def _loaded(self, card: ModelCard) -> LoadedModel | None:
        return next((model for model in self.loaded if model.card == card), None)

    def _is_loading(self, card: ModelCard) -> bool:
        return card in self.cards and self._loaded(card) is None

    def _engine_of(self, card: ModelCard) -> Engine:
        if model := self._loaded(card):
            return model.engine
        if self._is_loading(card):
            raise NotReady(f"{card.name} is being loaded and checked", retry_after=5)
        raise NotReady(f"{card.name} has just been replaced; try again", retry_after=1)

    def _read_cards(self) -> tuple[ModelCard, ...]:
        """The cards of the models folder, whose files are what the cards say."""
        given = self._given_engines
        cards = read_cards(self.settings.models)
        cards = tuple(card for card in cards if given is None or card.name in given)
        for card in cards:
            check_files(self.settings.models / card.name, card)
        return cards

    async def _replace(self) -> list[str]:
        """Load what is in the models folder and not served yet; serve all that is there."""
        async with self._loading:
            try:
                models, paces = await _in_a_thread(self._load_changed)
                fresh = [model.label for model in models if model not in self.loaded]
                self.loaded = models
                self.cards = tuple(model.card for model in models)
                self._failure = None
                self._learn(paces)
                return fresh
            finally:
                self._letting_go = asyncio.create_task(self._let_go())

    def _learn(self, paces: list[Pace]) -> None:
        for pace in paces:
            self.admission.measured(*pace)

    async def _let_go(self) -> None:
        """Free what was replaced, once the requests that began with it have ended."""
        while {turn.engine for turn in self._turns} - {model.engine for model in self.loaded}:
            await asyncio.sleep(0.5)
        # TensorFlow's objects refer to each other, and are too few for the collector to come
        # by itself.
        gc.collect()
        trim_heaps()

    def _load_changed(self) -> tuple[tuple[LoadedModel, ...], list[Pace]]:
        """The folder's models, those that are served already as they are; and paces."""
        models: list[LoadedModel] = []
        paces: list[Pace] = []
        for card in self._read_cards():
            if served := self._loaded(card):
                models.append(served)
            else:
                model, measured = self._load(card)
                models.append(model)
                paces += measured
        return tuple(models), paces

    def _load(self, card: ModelCard) -> tuple[LoadedModel, list[Pace]]:
        """A model, checked and warmed up; and its paces."""
        if self._given_engines is not None:
            return LoadedModel(card, self._given_engines[card.name], "float32", "given"), []
        engine = self._load_engine(self.settings.models / card.name, card)
        device = engine.device.strip("/").lower()
        return LoadedModel(card, engine, engine.precision, device), _warm_up(engine, card)


def _asked_for_first(card: ModelCard) -> tuple[bool, bool, str]:
    """A key to sort by: what a request without parameters asks for comes first."""
    return card.family != DEFAULT_MODEL, card.geometry.scale != DEFAULT_SCALE, card.name


def _warm_up(engine: Engine, card: ModelCard) -> list[Pace]:
    """Enlarge a picture of either depth; gives the first requests a pace to be judged by."""
    paces: list[Pace] = []
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        started = time.monotonic()
        scale = card.geometry.scale
        Enhancer(engine, card.geometry).enhance(Picture(np.zeros((*TRIAL, 3), dtype)), scale)
        pixels = (1 + scale**2) * TRIAL[0] * TRIAL[1]
        seconds = time.monotonic() - started
        for ensemble, views in ((False, 1), (True, VIEWS)):
            kind = ("/enhance", card.label(ensemble=ensemble), bits)
            paces.append((kind, pixels, views * seconds))
    return paces


async def _in_a_thread(work: Callable[[], Result]) -> Result:
    """Do it in a thread that, unlike a pool's, does not keep the process from ending."""
    future: Future[Result] = Future()

    def run() -> None:
        future.set_running_or_notify_cancel()
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await asyncio.wrap_future(future)
