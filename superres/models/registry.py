"""A models folder -> the model that a family or a name, and a scale, ask for."""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from superres.errors import ModelMismatch, ModelMissing
from superres.models.bicubic import BICUBIC
from superres.models.card import CARD, ModelCard, read_card

_INSTALLED_MODELS = Path(str(files("superres"))) / "shipped_models"
DEFAULT_MODELS = (
    _INSTALLED_MODELS if _INSTALLED_MODELS.is_dir() else _INSTALLED_MODELS.parents[1] / "models"
)
"""The models that an installed package contains, else those of this clone or image."""
AUTO = "auto"
"""The name by which a caller leaves the choice to :mod:`superres.models.selection`."""
DEFAULT_MODEL = AUTO
COMPARED_MODEL = "srcnn"
"""The model of a comparison with bicubic, and of code that loads one without a name."""
DEFAULT_SCALE = 3


def read_cards(models: Path) -> tuple[ModelCard, ...]:
    """Cards of all models in a folder, by name.

    Raises:
        ModelMissing: there are none.
        ModelMismatch: one is not a card, or has a name that is reserved.
    """
    folders = sorted(file.parent for file in models.glob(f"*/{CARD}"))
    if not folders:
        raise ModelMissing(f"no models in {models}: a model is a folder with a {CARD}")
    cards = tuple(read_card(folder) for folder in folders)
    for card in cards:
        if reserved := {card.name, card.family} & {AUTO, BICUBIC.name}:
            raise ModelMismatch(
                f"{models / card.name}: {reserved.pop()!r} is a name of this program; "
                "export the model under another one"
            )
    return cards


def all_cards(models: Path) -> tuple[ModelCard, ...]:
    """Cards of all models that can be used: those of a folder, and bicubic's.

    Raises:
        ModelMissing, ModelMismatch: as :func:`read_cards`.
    """
    return (*read_cards(models), BICUBIC)


def choose(cards: Iterable[ModelCard], model: str, scale: float) -> ModelCard:
    """The model of that name, or of that family the one that suits the scale.

    That is the one trained for the smallest scale that reaches it, else for the largest.

    Args:
        cards: what there is to choose from.
        model: a family (``srcnn``) or a name (``srcnn-x3``).
        scale: what the caller asks for.

    Raises:
        ModelMissing: neither a name nor a family.
    """
    cards = tuple(cards)
    for card in cards:
        if card.name == model:
            return card
    family = [card for card in cards if card.family == model]
    if not family:
        known = ", ".join(sorted({card.family for card in cards} | {card.name for card in cards}))
        raise ModelMissing(f"no model or family {model!r}: there are {known}")
    reaching = [card for card in family if card.geometry.scale >= scale]
    if reaching:
        return min(reaching, key=lambda card: card.geometry.scale)
    return max(family, key=lambda card: card.geometry.scale)
