"""The models that the service has loaded: loading, checking, warming up and replacing them."""

import asyncio
import ctypes
import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import superres.engines
from app.inference.admission import Admission
from app.inference.scheduler import DeviceEngine
from app.inference.startup import Measurement, default_cards, preloaded_cards, warm_up
from app.service_errors import ReloadFailed
from app.settings import Settings
from superres.engines.base import Precision
from superres.errors import EngineError, NotReady, SuperresError
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard
from superres.models.registry import read_cards

logger = logging.getLogger("superres")
Result = TypeVar("Result")
LOAD_AGAIN_S = 60.0
"""Seconds in which a model that could not be loaded is not tried again."""


class ModelEngine(DeviceEngine, Protocol):
    """An engine for the scheduler, with the precision and the device that it uses."""

    precision: Precision
    device: str


LoadEngine = Callable[[Path, ModelCard], ModelEngine]
"""Loads a model from its folder, whose files have been checked against its card."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is served, with its engine."""

    card: ModelCard
    engine: DeviceEngine
    precision: str
    device: str

    @property
    def label(self) -> str:
        """Name and short hash, as in ``X-Model``."""
        return f"{self.card.name}@{self.card.short_hash}"


class Models:
    """Loads the models in the background, serves each once it is checked, and replaces them.

    Those that the default needs at x3 are loaded first; the service is ready when they are. Then
    follow those of ``SUPERRES_PRELOAD``. Any other model is loaded by :meth:`require`, at its first
    use, once for all who wait for it. One load runs at a time.

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
        ModelMissing: there are no models, or not one that the settings name.
        ModelMismatch: a card or a file does not match.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        engines: Mapping[str, DeviceEngine] | None = None,
        load_engine: LoadEngine | None = None,
    ) -> None:
        self._folder = settings.models
        self._default = settings.default_model
        self._preload = settings.preload
        self._admission = admission
        self._given_engines = engines
        self._load_engine: LoadEngine = load_engine or partial(
            superres.engines.load_engine,
            precision=settings.precision,
            device=settings.device,
            runtime=settings.runtime,
        )
        self.cards = self._read_cards()
        self.loaded: tuple[LoadedModel, ...] = ()
        self.failure: str | None = None
        """Why the service could not start, until a reload mends it."""
        self._started = False
        self._loading = asyncio.Lock()
        self._first_uses: dict[str, asyncio.Task[None]] = {}
        """Loads by :meth:`require` that go on, by the model's name."""
        self._failures: dict[str, tuple[float, str]] = {}
        """When and why such a load failed, by the model's name."""
        self._leased: list[DeviceEngine] = []
        """Engines in use, one entry for each piece of work."""

    async def load(self) -> None:
        """Load the default's models at x3, then those to preload; serve each once it is loaded."""
        started = time.monotonic()
        try:
            async with self._loading:
                for card in default_cards(self._default, self.cards):
                    await self._load_one(card)
        except Exception as error:
            self.loaded = ()  # all or none, as in a reload
            if isinstance(error, SuperresError):
                self.failure = str(error)
                logger.error("the models cannot be served: %s", error)
            else:
                self.failure = f"{type(error).__name__}: {error}"
                logger.exception("the models cannot be served")
        else:
            logger.info("ready after %.1f s", time.monotonic() - started)
            self._started = True
            for card in preloaded_cards(self._preload, self.cards):
                with suppress(EngineError):  # it has been logged
                    await self.require(card)
        finally:
            self._releasing = asyncio.create_task(self._release_replaced())

    async def require(self, *cards: ModelCard) -> bool:
        """Load those of these models that are not loaded yet, and wait for them.

        While the service starts, this returns at once, and :meth:`engine` says what is missing.
        A load goes on for the others if one who waits for it is cancelled.

        Returns:
            Whether these are still the cards that are served. Otherwise a reload has replaced one
            of them meanwhile: choose again.

        Raises:
            EngineError: a model cannot be loaded. It is tried again after a minute, or a reload.
        """
        for card in cards:
            # Again, if the load that goes on is of a card of this name that a reload has replaced.
            while self._started and self.is_loading(card):
                if reason := self._recent_failure(card):
                    raise EngineError(f"{card.name} cannot be served: {reason}")
                if card.name not in self._first_uses:
                    load = asyncio.create_task(self._load_at_first_use(card))
                    self._first_uses[card.name] = load
                await asyncio.shield(self._first_uses[card.name])
        return all(card in self.cards for card in cards)

    async def _load_at_first_use(self, card: ModelCard) -> None:
        """Load a model, or note why it cannot be loaded."""
        try:
            async with self._loading:
                if not self.is_loading(card):  # a reload has loaded or replaced it meanwhile
                    return
                self._failures.pop(card.name, None)
                try:
                    await self._load_one(card)
                except Exception as error:
                    logger.exception("%s cannot be served", card.name)
                    reason = str(error) if isinstance(error, SuperresError) else "the log says why"
                    self._failures[card.name] = time.monotonic(), reason
        finally:
            del self._first_uses[card.name]
        if card.name in self._failures:
            _free_memory()  # that of the engine whose load failed

    def _recent_failure(self, card: ModelCard) -> str:
        failed, reason = self._failures.get(card.name, (-math.inf, ""))
        return reason if time.monotonic() < failed + LOAD_AGAIN_S else ""

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
        if self.failure is not None:
            raise NotReady(f"the models cannot be served: {self.failure}", retry_after=60)
        if not self.loaded:
            raise NotReady("the models are being loaded and checked", retry_after=5)

    def check_default(self) -> None:
        """Return if all models that the default needs at x3 are served.

        Raises:
            NotReady: one of them is not.
        """
        self.check_any()
        needed = default_cards(self._default, self.cards)
        loaded = sum(self._find(card) is not None for card in needed)
        if loaded < len(needed):
            raise NotReady(
                f"{loaded} of {len(needed)} models are loaded and checked", retry_after=5
            )

    def is_loading(self, card: ModelCard) -> bool:
        """Whether a model is still to be loaded."""
        return card in self.cards and self._find(card) is None

    def engine(self, card: ModelCard) -> DeviceEngine:
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
    def lease(self, card: ModelCard) -> Iterator[DeviceEngine]:
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
        cards = (*cards, BICUBIC)
        default_cards(self._default, cards)
        preloaded_cards(self._preload, cards)
        return cards

    async def _load_one(self, card: ModelCard) -> None:
        """Load a model that is not loaded, and serve it."""
        model, measurements = await _run_in_thread(partial(self._load, card))
        self.loaded += (model,)
        self._record(measurements)

    async def _replace(self) -> list[str]:
        """Load what has changed of the models in use, and what the default needs at x3 now."""
        async with self._loading:
            try:
                cards, models, measurements = await _run_in_thread(self._load_changed)
                changed = [model.label for model in models if model not in self.loaded]
                self.loaded = models
                self.cards = cards
                self._failures.clear()
                self._started = True
                self.failure = None
                self._record(measurements)
                return changed
            finally:
                self._releasing = asyncio.create_task(self._release_replaced())

    def _record(self, measurements: list[Measurement]) -> None:
        for measurement in measurements:
            self._admission.record(*measurement)

    async def _release_replaced(self) -> None:
        """Free the memory of replaced models, once the work that began with them has ended."""
        while set(self._leased) - {model.engine for model in self.loaded}:
            await asyncio.sleep(0.5)
        _free_memory()

    def _load_changed(
        self,
    ) -> tuple[tuple[ModelCard, ...], tuple[LoadedModel, ...], list[Measurement]]:
        """Read the cards; load models whose name is served already, and those that are needed.

        Models that have not changed are taken over.
        """
        models: list[LoadedModel] = []
        measurements: list[Measurement] = []
        cards = self._read_cards()
        in_use = {model.card.name for model in self.loaded}
        needed = {
            card.name
            for card in (
                *default_cards(self._default, cards),
                *preloaded_cards(self._preload, cards),
            )
        }
        for card in cards:
            if served := self._find(card):
                models.append(served)
            elif card.name in in_use | needed:
                model, measured = self._load(card)
                models.append(model)
                measurements += measured
        return cards, tuple(models), measurements

    def _load(self, card: ModelCard) -> tuple[LoadedModel, list[Measurement]]:
        """Load, check, warm up and time a model."""
        if not card.files:  # bicubic, which needs no device
            engine: ModelEngine = superres.engines.load_engine(self._folder / card.name, card)
        elif self._given_engines is not None:
            return LoadedModel(card, self._given_engines[card.name], "float32", "given"), []
        else:
            engine = self._load_engine(self._folder / card.name, card)
        device = engine.device.strip("/").lower()
        return LoadedModel(card, engine, engine.precision, device), warm_up(engine, card)


def _free_memory() -> None:
    """Free engines that are no longer used, and return the memory to the system."""
    # TensorFlow's objects refer to each other. They are too few for Python to start the collector
    # by itself.
    gc.collect()
    with suppress(AttributeError, OSError):  # with another C library than glibc
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
