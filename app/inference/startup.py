"""What happens when the service starts: which models are loaded, and how they are warmed up."""

import time
from typing import NamedTuple

import numpy as np

from app.inference.admission import WorkloadKey
from superres.codecs import Header, Picture
from superres.engines.base import Engine
from superres.engines.ensemble import VIEWS
from superres.enhancer import Enhancer
from superres.forecast import forecast
from superres.models.card import ModelCard
from superres.models.registry import AUTO, DEFAULT_SCALE, choose
from superres.models.selection import automatic_families, candidates

WARM_UP_SIZE = (128, 128)
"""Size of the picture by which a model is warmed up and timed."""


class Measurement(NamedTuple):
    """Time of a warm-up, as :meth:`app.inference.admission.Admission.record` takes it."""

    workload: WorkloadKey
    pixels: int
    seconds: float


def default_cards(default: str, cards: tuple[ModelCard, ...]) -> list[ModelCard]:
    """The models that the default needs where a caller names no scale, the first choice first.

    Args:
        default: ``auto``, a family or a name.
        cards: what there is to choose from.

    Raises:
        ModelMissing: no such model.
    """
    if default == AUTO:
        return [*candidates(cards, DEFAULT_SCALE).cards]
    return [choose(cards, default, DEFAULT_SCALE)]


def preloaded_cards(setting: str, cards: tuple[ModelCard, ...]) -> list[ModelCard]:
    """The models of ``SUPERRES_PRELOAD``.

    Args:
        setting: families and names, separated by commas, ``auto`` for all families that it uses,
            or ``all``.
        cards: what there is to choose from.

    Raises:
        ModelMissing: no such model.
    """
    if setting == "all":
        return [*cards]
    names = {name.strip() for name in setting.split(",")} - {""}
    if AUTO in names:
        names = names - {AUTO} | {*automatic_families(cards)}
    for name in names:
        choose(cards, name, DEFAULT_SCALE)
    return [card for card in cards if {card.name, card.family} & names]


def warm_up(engine: Engine, card: ModelCard) -> list[Measurement]:
    """Enlarge a picture of 8 bits and one of 16; the times predict those of the first requests."""
    measurements: list[Measurement] = []
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        started = time.monotonic()
        scale = card.geometry.scale
        picture = Picture(np.zeros((*WARM_UP_SIZE, 3), dtype))
        Enhancer(engine, card.geometry).enhance(picture, scale)
        seconds = time.monotonic() - started
        cost = forecast(Header("png", picture.size, bits), 0, scale, card.geometry)
        for ensemble, views in ((False, 1), (True, VIEWS)):
            workload = WorkloadKey("enhance", card.label(ensemble=ensemble), bits)
            measurements.append(Measurement(workload, views * cost.engine_pixels, views * seconds))
    return measurements
