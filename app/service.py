"""What the routes share: the models, the device's owner, and whether both are ready."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from app.settings import Settings
from app.worker import Turn, Worker
from superres.card import ModelCard, check_files
from superres.engine import Engine, SavedModelEngine
from superres.enhancer import Enhancer
from superres.errors import NotReady, SuperresError
from superres.registry import choose, read_cards

logger = logging.getLogger("superres")


@dataclass(frozen=True)
class LoadedModel:
    """A model that is being served, and how."""

    card: ModelCard
    precision: str
    device: str


class Service:
    """Loads the models in the background, and hands out enhancers once they are checked.

    Construction reads the cards and hashes the files, so that a models folder that is
    not what it says stops the service before it listens.

    Args:
        settings: the service's settings.
        engines: engines by model name, in place of the SavedModels: for tests.

    Raises:
        ModelMissing: no models.
        ModelMismatch: a card or a file is not what it says.
    """

    def __init__(self, settings: Settings, engines: Mapping[str, Engine] | None = None) -> None:
        self.settings = settings
        self.cards = tuple(
            card for card in read_cards(settings.models) if engines is None or card.name in engines
        )
        for card in self.cards:
            check_files(settings.models / card.name, card)
        self._given_engines = engines
        self._worker: Worker | None = None
        self._failure: str | None = None
        self.loaded: tuple[LoadedModel, ...] = ()

    def start(self) -> None:
        """Begin to load the models; :meth:`check_ready` tells when that is done."""
        # TensorFlow's import takes seconds, in which the socket should already answer.
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def close(self) -> None:
        """Stop the device's thread."""
        if self._worker is not None:
            self._worker.close()

    def check_ready(self) -> None:
        """Return if pictures can be enhanced now.

        Raises:
            NotReady: the models are still loading, or one of them failed.
        """
        if self._failure is not None:
            raise NotReady(f"the models cannot be served: {self._failure}", retry_after=60)
        if self._worker is None:
            raise NotReady("the models are being loaded and checked", retry_after=5)

    def choose(self, model: str, scale: float) -> ModelCard:
        """The model that a family or a name, and a scale, ask for.

        Raises:
            ModelMissing: there is none.
        """
        return choose(self.cards, model, scale)

    @contextmanager
    def enhancer(self, card: ModelCard) -> Iterator[tuple[Enhancer, Turn]]:
        """An enhancer whose tiles wait their turn at the device, under the deadline.

        Raises:
            NotReady: as :meth:`check_ready`.
            Busy: as many pictures as allowed are being worked on.
        """
        self.check_ready()
        assert self._worker is not None  # noqa: S101 - check_ready said so
        with self._worker.turn(card.name, seconds=self.settings.deadline_s) as turn:
            yield Enhancer(turn, card.geometry), turn

    @property
    def queued_tiles(self) -> int:
        """Tiles that wait for the device."""
        return 0 if self._worker is None else self._worker.queued_tiles

    @property
    def requests(self) -> int:
        """Pictures being worked on."""
        return 0 if self._worker is None else self._worker.requests

    def _load(self) -> None:
        started = time.monotonic()
        try:
            engines: dict[str, Engine] = {}
            loaded = []
            for card in self.cards:
                precision, device = "float32", "given"
                if self._given_engines is not None:
                    engines[card.name] = self._given_engines[card.name]
                else:
                    engine = SavedModelEngine(
                        self.settings.models / card.name,
                        card,
                        precision=self.settings.precision,
                        device=self.settings.device,
                    )
                    engines[card.name] = engine
                    precision, device = engine.precision, engine.device.strip("/").lower()
                loaded.append(LoadedModel(card, precision, device))
        except SuperresError as error:
            self._failure = str(error)
            logger.error("the models cannot be served: %s", error)
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"
            logger.exception("the models cannot be served")
        else:
            self.loaded = tuple(loaded)
            self._worker = Worker(engines, max_requests=self.settings.max_requests)
            logger.info("ready after %.1f s", time.monotonic() - started)
