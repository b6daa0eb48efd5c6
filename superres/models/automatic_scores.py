"""Scores of ``model=auto`` on published sets, which ``superres-train evaluate`` writes."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from superres.models.card import DatasetScores, ModelCard
from superres.models.registry import AUTO
from superres.models.selection import Candidates, candidates, rules_label

SCORES_FILE = Path(__file__).with_name("automatic_scores.json")


class AutomaticScores(BaseModel):
    """Scores, and what was scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: dict[int, tuple[str, ...]] = {}
    """By scale, the thresholds and the models to choose between: names and hashes."""
    scores: tuple[DatasetScores, ...] = ()

    def of(self, candidates: Candidates) -> tuple[DatasetScores, ...]:
        """The scores at the scale of these candidates; none if others were scored."""
        scale = candidates.clean.geometry.scale
        if self.labels.get(scale) != labels(candidates):
            return ()
        return tuple(one for one in self.scores if one.scale == scale)


def labels(candidates: Candidates) -> tuple[str, ...]:
    """Names and hashes of what decides the scores."""
    return (rules_label(), *(f"{card.name}@{card.short_hash}" for card in candidates.cards))


def read_automatic_scores() -> AutomaticScores:
    """The scores that the package has."""
    return AutomaticScores.model_validate_json(SCORES_FILE.read_text())


class Scored(NamedTuple):
    """Scores on a set, and what has them."""

    name: str
    family: str
    scores: DatasetScores


def all_scores(cards: Iterable[ModelCard]) -> Iterator[Scored]:
    """Yield the scores of each model, then those of ``auto`` if it chooses between these models."""
    cards = tuple(cards)
    for card in cards:
        for one in card.scores:
            yield Scored(card.name, card.family, one)
    stored = read_automatic_scores()
    for scale in stored.labels:
        for one in stored.of(candidates(cards, scale)):
            yield Scored(AUTO, AUTO, one)


def store_automatic_scores(candidates: Candidates, scores: list[DatasetScores]) -> None:
    """Store scores in the package; others stay if they are of the same models and thresholds."""
    stored = read_automatic_scores()
    scale = candidates.clean.geometry.scale
    fresh = {(one.dataset, one.scale) for one in scores}
    kept = [one for one in stored.scores if one.scale != scale]
    kept += [one for one in stored.of(candidates) if (one.dataset, one.scale) not in fresh]
    merged = AutomaticScores(
        labels=stored.labels | {scale: labels(candidates)}, scores=(*kept, *scores)
    )
    SCORES_FILE.write_text(merged.model_dump_json(indent=1) + "\n")
