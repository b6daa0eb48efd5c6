"""The models that the service has loaded: loading, checking, warming up and replacing them."""

import asyncio
import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

import superres.engines
from app.inference.admission import Admission, WorkloadKey
from app.settings import Settings
from superres.codecs import Header, Picture
from superres.engines.base import Engine, Precision
from superres.engines.ensemble import VIEWS
from superres.enhancer import Enhancer
from superres.errors import NotReady, ReloadFailed, SuperresError
from superres.forecast import forecast
from superres.models.card import ModelCard
from superres.models.registry import DEFAULT_MODEL, DEFAULT_SCALE, read_cards

WARM_UP_SIZE = (128, 128)
"""Size of the picture by which a model is warmed up and timed."""

logger = logging.getLogger("superres")
Result = TypeVar("Result")


class ModelEngine(Engine, Protocol):
    """An engine that runs a model, with the precision and the device that it uses."""

    precision: Precision
    device: str


LoadEngine = Callable[[Path, ModelCard], ModelEngine]
"""Loads a model from its folder, whose files have been checked against its card."""


class _Measurement(NamedTuple):
    """Time of a warm-up, as :meth:`app.inference.admission.Admission.record` takes it."""

    workload: WorkloadKey
    pixels: int
    seconds: float


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is served, with its engine."""

    card: ModelCard
    engine: Engine
    precision: str
    device: str

    @property
    def label(self) -> str:
        """Name and short hash, as in ``X-Model``."""
        return f"{self.card.name}@{self.card.short_hash}"


class Models:
    """Loads the models in the background, serves each once it is checked, and replaces them.

    ``loaded`` and ``cards`` change together, between two steps of the event loop. Code that takes
    a card and its engine without an ``await`` between gets two that belong together.

    Construction reads the cards and hashes the files, so that a models folder that does not match
    its cards stops the service before it listens.

    Args:
        settings: settings of the service.
        admission: gets the times of the warm-ups.
        engines: engines by model name, instead of those of the models folder; for tests.
        load_engine: loads a model on the devices of a cluster; by default a model is loaded on
            the device of this process.

    Raises:
        ModelMissing: there are no models.
        ModelMismatch: a card or a file does not match.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        engines: Mapping[str, Engine] | None = None,
        load_engine: LoadEngine | None = None,
    ) -> None:
        self._folder = settings.models
        self._admission = admission
        self._given_engines = engines
        self._load_engine: LoadEngine = load_engine or partial(
            superres.engines.load_engine, precision=settings.precision, device=settings.device
        )
        self.cards = self._read_cards()
        self.loaded: tuple[LoadedModel, ...] = ()
        self._failure: str | None = None
        self._loading = asyncio.Lock()
        self._leased: list[Engine] = []
        """Engines in use, one entry for each piece of work."""

    async def load(self) -> None:
        """Load all models, and serve each as soon as it is loaded."""
        started = time.monotonic()
        try:
            async with self._loading:
                for card in sorted(self.cards, key=_load_order):
                    model, measurements = await _run_in_thread(partial(self._load, card))
                    self.loaded += (model,)
                    self._record(measurements)
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
            self._releasing = asyncio.create_task(self._release_replaced())

    async def reload(self) -> list[str]:
        """Load what has changed in the models folder, and serve all of it, or nothing of it.

        Changed models are loaded beside the old ones, checked against their cards and warmed up.
        Requests end on the model that they began with.

        Returns:
            Labels of the models that were loaded.

        Raises:
            ReloadFailed: a model does not match its card, or there are no models.
        """
        try:
            changed = await self._replace()
        except Exception as error:
            if isinstance(error, SuperresError):
                reason = str(error)
                logger.error("the models stay as they are: %s", reason)
            else:
                reason = f"{type(error).__name__}: {error}"
                logger.exception("the models stay as they are")
            raise ReloadFailed(f"the models stay as they are: {reason}") from error
        logger.info("reloaded: %s", ", ".join(changed) or "nothing has changed")
        return changed

    def check_any(self) -> None:
        """Return if a model is served.

        Raises:
            NotReady: none is.
        """
        if self._failure is not None:
            raise NotReady(f"the models cannot be served: {self._failure}", retry_after=60)
        if not self.loaded:
            raise NotReady("the models are being loaded and checked", retry_after=5)

    def check_all(self) -> None:
        """Return if all models are served.

        Raises:
            NotReady: one of them is not.
        """
        self.check_any()
        if len(self.loaded) < len(self.cards):
            raise NotReady(
                f"{len(self.loaded)} of {len(self.cards)} models are loaded and checked",
                retry_after=5,
            )

    def is_loading(self, card: ModelCard) -> bool:
        """Whether a model is still to be loaded."""
        return card in self.cards and self._find(card) is None

    def engine(self, card: ModelCard) -> Engine:
        """The engine of a model.

        Raises:
            NotReady: the model is not loaded, or it was replaced since the card was chosen.
        """
        if model := self._find(card):
            return model.engine
        if self.is_loading(card):
            raise NotReady(f"{card.name} is being loaded and checked", retry_after=5)
        raise NotReady(f"{card.name} has just been replaced; try again", retry_after=1)

    @contextmanager
    def lease(self, card: ModelCard) -> Iterator[Engine]:
        """The engine of a model, which keeps its memory until the block ends.

        Raises:
            NotReady: as :meth:`engine`.
        """
        self.check_any()
        engine = self.engine(card)
        self._leased.append(engine)
        try:
            yield engine
        finally:
            self._leased.remove(engine)

    def _find(self, card: ModelCard) -> LoadedModel | None:
        return next((model for model in self.loaded if model.card == card), None)

    def _read_cards(self) -> tuple[ModelCard, ...]:
        """Read the cards of the models folder, and check its files against them."""
        given = self._given_engines
        cards = read_cards(self._folder)
        cards = tuple(card for card in cards if given is None or card.name in given)
        for card in cards:
            superres.engines.check_files(self._folder / card.name, card)
        return cards

    async def _replace(self) -> list[str]:
        """Load the models of the folder that are not served yet; serve all of the folder."""
        async with self._loading:
            try:
                models, measurements = await _run_in_thread(self._load_changed)
                changed = [model.label for model in models if model not in self.loaded]
                self.loaded = models
                self.cards = tuple(model.card for model in models)
                self._failure = None
                self._record(measurements)
                return changed
            finally:
                self._releasing = asyncio.create_task(self._release_replaced())

    def _record(self, measurements: list[_Measurement]) -> None:
        for measurement in measurements:
            self._admission.record(*measurement)

    async def _release_replaced(self) -> None:
        """Free the memory of replaced models, once the work that began with them has ended."""
        while set(self._leased) - {model.engine for model in self.loaded}:
            await asyncio.sleep(0.5)
        # TensorFlow's objects refer to each other. They are too few for Python to start the
        # collector by itself.
        gc.collect()
        _trim_malloc()

    def _load_changed(self) -> tuple[tuple[LoadedModel, ...], list[_Measurement]]:
        """Load the models of the folder; those that are served already are taken over."""
        models: list[LoadedModel] = []
        measurements: list[_Measurement] = []
        for card in self._read_cards():
            if served := self._find(card):
                models.append(served)
            else:
                model, measured = self._load(card)
                models.append(model)
                measurements += measured
        return tuple(models), measurements

    def _load(self, card: ModelCard) -> tuple[LoadedModel, list[_Measurement]]:
        """Load, check, warm up and time a model."""
        if self._given_engines is not None:
            return LoadedModel(card, self._given_engines[card.name], "float32", "given"), []
        engine = self._load_engine(self._folder / card.name, card)
        device = engine.device.strip("/").lower()
        return LoadedModel(card, engine, engine.precision, device), _warm_up(engine, card)


def _load_order(card: ModelCard) -> tuple[bool, bool, str]:
    """Sort key: the model of a request without parameters comes first."""
    return card.family != DEFAULT_MODEL, card.geometry.scale != DEFAULT_SCALE, card.name


def _warm_up(engine: Engine, card: ModelCard) -> list[_Measurement]:
    """Enlarge a picture of 8 bits and one of 16; the times predict those of the first requests."""
    measurements: list[_Measurement] = []
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        started = time.monotonic()
        scale = card.geometry.scale
        picture = Picture(np.zeros((*WARM_UP_SIZE, 3), dtype))
        Enhancer(engine, card.geometry).enhance(picture, scale)
        seconds = time.monotonic() - started
        cost = forecast(Header("png", picture.size, bits), 0, scale, card.geometry)
        for ensemble, views in ((False, 1), (True, VIEWS)):
            workload = WorkloadKey("enhance", card.label(ensemble=ensemble), bits)
            measurements.append(_Measurement(workload, views * cost.engine_pixels, views * seconds))
    return measurements


def _trim_malloc() -> None:
    """Return glibc's free memory to the system; with another C library, do nothing."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


async def _run_in_thread(work: Callable[[], Result]) -> Result:
    """Run in a daemon thread. Unlike a thread of a pool, it does not delay the process's end."""
    future: Future[Result] = Future()

    def run() -> None:
        future.set_running_or_notify_cancel()
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await asyncio.wrap_future(future)
