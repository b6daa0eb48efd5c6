"""Enhancers of picture files, each by the model that ``auto`` chooses for it."""

import threading
from collections.abc import Callable

from superres.enhancer import Enhancer
from superres.models.card import ModelCard
from superres.models.evidence import examine
from superres.models.selection import Candidates, Selection, select
from superres.picture import Picture


class AutomaticEnhancer:
    """Chooses a model for each picture, and loads each model at its first use. Thread-safe.

    Args:
        candidates: the models to choose between.
        load: loads one of them.
    """

    def __init__(self, candidates: Candidates, load: Callable[[ModelCard], Enhancer]) -> None:
        self.candidates = candidates
        self._load = load
        self._loaded: dict[str, Enhancer] = {}
        self._lock = threading.Lock()

    def choose(self, content: bytes, picture: Picture) -> Selection:
        """Choose the model for a picture; none is loaded.

        Args:
            content: the encoded file.
            picture: the same, decoded.
        """
        return select(examine(content, picture), self.candidates)

    def enhancer(self, card: ModelCard) -> Enhancer:
        """The enhancer of a model that was chosen.

        Raises:
            ModelMismatch, EngineError: as :func:`superres.load_model`.
        """
        with self._lock:
            if card.name not in self._loaded:
                self._loaded[card.name] = self._load(card)
            return self._loaded[card.name]
