"""What the routes share: the models, the device's owner, and whether both are ready."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from app.admission import Admission
from app.schemas import DryRun
from app.settings import Settings
from app.transfer import Call
from app.worker import Turn, Worker
from superres.card import ModelCard, check_files
from superres.codecs import Header, OutputFormat, Picture
from superres.engine import VIEWS, Engine, SavedModelEngine
from superres.enhancer import Enhancer
from superres.errors import NotReady, SuperresError
from superres.forecast import Forecast, forecast
from superres.registry import choose, read_cards

TRIAL = (256, 256)
"""Size of the picture that is timed at start-up; it is enlarged by 3."""

logger = logging.getLogger("superres")


@dataclass(frozen=True)
class LoadedModel:
    """A model that is being served, and how."""

    card: ModelCard
    precision: str
    device: str


class Service:
    """Loads the models in the background, and lets requests work once they are checked.

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
        self.admission = Admission(
            max_requests=settings.max_requests, max_bytes=settings.max_memory_bytes
        )
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

    @contextmanager
    def at_work(
        self, call: Call, card: ModelCard, bits: int, taken: Forecast, *, ensemble: bool = False
    ) -> Iterator[Turn]:
        """Let a request work, if there is room; its tiles wait their turn at the device.

        Args:
            call: the request.
            card: the model.
            bits: of the picture's samples.
            taken: what the work takes.
            ensemble: whether it is an ensemble's, which goes at a pace of its own.

        Raises:
            NotReady: as :meth:`check_ready`.
            Busy, ImageTooLarge: as :meth:`app.admission.Admission.work`.
            DeadlineExceeded: the request's time is up already.
        """
        self.check_ready()
        assert self._worker is not None  # noqa: S101 - check_ready said so
        turn = Turn(self._worker, card.name, call.seconds, call.began)
        turn.check()
        kind = (call.route, card.label(ensemble=ensemble), bits)
        with (
            self.admission.work(
                call.reservation, kind, taken.pixels, taken.peak_bytes, call.seconds_left()
            ),
            call.hung_up(turn.cancel),
        ):
            yield turn

    def report(
        self,
        call: Call,
        card: ModelCard,
        header: Header,
        taken: Forecast,
        *,
        ensemble: bool = False,
    ) -> DryRun:
        """What a request would take, and whether there is room for it now."""
        label = card.label(ensemble=ensemble)
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
        return 0 if self._worker is None else self._worker.queued_tiles

    @property
    def done_tiles(self) -> int:
        """Tiles that the device has done."""
        return 0 if self._worker is None else self._worker.done_tiles

    @property
    def requests(self) -> int:
        """Pictures being worked on."""
        return self.admission.at_work

    def _time(self, engine: Engine, card: ModelCard) -> None:
        """Give the first requests a pace to be judged by."""
        for bits, dtype in ((8, np.uint8), (16, np.uint16)):
            started = time.monotonic()
            Enhancer(engine, card.geometry).enhance(Picture(np.zeros((*TRIAL, 3), dtype)), 3)
            pixels = 10 * TRIAL[0] * TRIAL[1]
            seconds = time.monotonic() - started
            for ensemble, times in ((False, 1), (True, VIEWS)):
                kind = ("/enhance", card.label(ensemble=ensemble), bits)
                self.admission.measured(kind, pixels, times * seconds)

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
                    self._time(engine, card)
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
            self._worker = Worker(engines)
            logger.info("ready after %.1f s", time.monotonic() - started)
