"""Engines: tiles in, tiles out; and which one loads a model.

A new engine is a module here and a row of :data:`ENGINES`. The module imports its runtime when it
loads a model, not before: importing this package imports no runtime.
"""

from pathlib import Path

from superres.engines.base import LoadedEngine, PrecisionChoice
from superres.engines.bicubic import BicubicEngine
from superres.engines.tensorflow import SavedModelEngine
from superres.errors import ModelMismatch
from superres.models.card import ModelCard

ENGINES: dict[str, type[LoadedEngine]] = {
    "bicubic": BicubicEngine,
    "savedmodel": SavedModelEngine,
}
"""The engine of each ``format`` that a card may have."""


def load_engine(
    folder: Path, card: ModelCard, *, precision: PrecisionChoice = "auto", device: str = "auto"
) -> LoadedEngine:
    """Load a model with the engine of its format, and check it.

    The arguments are those of :class:`LoadedEngine`.

    Raises:
        ModelMismatch: no engine loads that format, or the model is not what its card says.
        EngineError: no such device.
    """
    return _engine_class(card)(folder, card, precision=precision, device=device)


def check_files(folder: Path, card: ModelCard) -> None:
    """Check a model's files against its card, without loading them.

    Raises:
        ModelMismatch: no engine loads that format; a file is missing, changed, or not on the card.
    """
    _engine_class(card).check_files(folder, card)


def _engine_class(card: ModelCard) -> type[LoadedEngine]:
    if card.format not in ENGINES:
        raise ModelMismatch(
            f"{card.name}: the card says format {card.format!r}; "
            f"there is an engine for {', '.join(sorted(ENGINES))}"
        )
    return ENGINES[card.format]
