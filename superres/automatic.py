"""Enhancers of picture files, each by the model that suits it."""

import threading
from collections.abc import Callable, Iterable

from superres.enhancer import Enhancer
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard
from superres.models.evidence import examine
from superres.models.registry import AUTO, choose
from superres.models.selection import Candidates, Selection, candidates, select
from superres.picture import Picture
from superres.sizing import SHRUNK, Sizing


class LoadedModels:
    """Enhancers of models, each loaded at its first use. Thread-safe.

    Args:
        load: loads a model.
    """

    def __init__(self, load: Callable[[ModelCard], Enhancer]) -> None:
        self._load = load
        self._loaded: dict[str, Enhancer] = {}
        self._lock = threading.Lock()

    def enhancer(self, card: ModelCard) -> Enhancer:
        """The enhancer of a model.

        Raises:
            ModelMismatch, EngineError: as :func:`superres.load_model`.
        """
        with self._lock:
            if card.name not in self._loaded:
                self._loaded[card.name] = self._load(card)
            return self._loaded[card.name]


class AutomaticEnhancer(LoadedModels):
    """Chooses a model for each picture of one scale, as ``auto`` does.

    Args:
        candidates: the models to choose between.
        load: loads one of them.
    """

    def __init__(self, candidates: Candidates, load: Callable[[ModelCard], Enhancer]) -> None:
        super().__init__(load)
        self.candidates = candidates

    def choose(self, content: bytes, picture: Picture) -> Selection:
        """Choose the model for a picture; none is loaded.

        Args:
            content: the encoded file.
            picture: the same, decoded.
        """
        return select(examine(content, picture), self.candidates)


class SizedEnhancer(LoadedModels):
    """Chooses a model for each picture by the scale that its size asks for.

    Args:
        cards: the models.
        model: what the caller asks for: ``auto``, a family or a name.
        load: loads one of them.
    """

    def __init__(
        self, cards: Iterable[ModelCard], model: str, load: Callable[[ModelCard], Enhancer]
    ) -> None:
        super().__init__(load)
        self._cards = tuple(cards)
        self._model = model

    def choose(self, content: bytes, picture: Picture, sizing: Sizing) -> Selection:
        """Choose the model for a picture; none is loaded.

        Args:
            content: the encoded file.
            picture: the same, decoded.
            sizing: how it gets its size.
        """
        if sizing.shrinks:
            return Selection(BICUBIC, SHRUNK)
        if self._model == AUTO:
            return select(examine(content, picture), candidates(self._cards, sizing.scale))
        return Selection(choose(self._cards, self._model, sizing.scale), "")
