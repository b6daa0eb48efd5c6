"""``model=auto``: chooses the model for a picture by what its file shows.

One family is for clean pictures, one for those that were compressed, one for those that were
sharpened, and one for those with other damage: noise and blur. Where none helps, bicubic is chosen.
The thresholds are data: ``selection.toml``, which ``superres-train fit-selection`` writes.
"""

import hashlib
import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from superres.errors import ModelMissing
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard
from superres.models.evidence import Evidence
from superres.models.registry import choose

CLEAN_FAMILY = "edsr-lite"
COMPRESSED_FAMILY = "edsr-lite-compressed"
SHARPENED_FAMILY = "edsr-lite-sharpened"
PHOTO_FAMILY = "edsr-lite-photo"
BLURRED = "that is blurred"
SHARPENED = "that looks sharpened"
TEXTURE = 1.5
"""How much sharpness texture explains, where sharpness is to tell whether a picture was sharpened.
Chosen by ``benchmarks/sharpening.py`` on photos512/train."""
RULES_FILE = Path(__file__).with_name("selection.toml")


class Rules(BaseModel):
    """The thresholds of one scale."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    light: float
    """A JPEG is as good as clean if 100 - quality is less than this times the root of 1 + detail,
    since strong detail survives more. Any other JPEG is for the model of compressed pictures."""
    light_bits: float
    """A file of another lossy format is as good as clean if its bits per pixel are more than this
    times that root. Any other is for the model of compressed pictures."""
    blockiness: float
    """So is a picture that is in none of these formats and has more blockiness than this."""
    noise: float
    """A picture whose noise is more than this times that root, since strong detail hides noise, is
    for the photo model."""
    colour_noise: float
    """So is one whose noise of colours is more than this times that root, since noise harms strong
    detail less."""
    blurred: float
    """So is a picture with less sharpness than this."""
    sharpened: float
    """A picture with more :func:`sharpening` than this is for the model of sharpened pictures."""
    noise_compressed: float
    """For compressed pictures in place of ``noise``."""
    blurred_compressed: float
    """For compressed pictures in place of ``blurred``."""
    sharpened_compressed: float
    """For compressed pictures in place of ``sharpened``."""
    detail: float
    """A compressed picture that is not blurred and has less detail than this has little that a
    model could sharpen but what the compression made: it is for bicubic."""


@cache
def read_rules() -> dict[int, Rules]:
    """The rules that the package has, by scale."""
    return parse_rules(RULES_FILE.read_text())


def parse_rules(text: str) -> dict[int, Rules]:
    """The rules in the text of such a file, by scale."""
    tables = tomllib.loads(text)["scale"]
    return {int(scale): Rules.model_validate(table) for scale, table in tables.items()}


def rules_for(scale: int) -> Rules:
    """The rules of a scale; if it has none, as that of a model that does not enlarge, the nearest.

    Args:
        scale: of the models to choose between.
    """
    rules = read_rules()
    return rules[min(rules, key=lambda known: abs(known - scale))]


def rules_label() -> str:
    """Names the rules that the package has, as a model's label names the model."""
    return f"selection@{hashlib.sha256(RULES_FILE.read_bytes()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Candidates:
    """The models between which ``auto`` chooses at one scale."""

    clean: ModelCard
    photo: ModelCard | None
    """None if the family has no model for the scale of ``clean``."""
    compressed: ModelCard | None = None
    """Likewise; the photo model takes its place."""
    sharpened: ModelCard | None = None
    """Likewise."""
    bicubic: ModelCard = BICUBIC

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """Each of them once."""
        cards = (self.clean, self.compressed, self.sharpened, self.photo, self.bicubic)
        return tuple({card.name: card for card in cards if card is not None}.values())

    @property
    def dearest(self) -> ModelCard:
        """The one that takes the most work."""
        return max(self.cards, key=lambda card: card.multiply_adds_per_output_pixel)


class Selection(NamedTuple):
    """A model that was chosen, and why."""

    card: ModelCard
    reason: str
    """As ``chosen for a JPEG of quality 62``."""


def automatic_families(cards: Iterable[ModelCard]) -> tuple[str, ...]:
    """The families that ``auto`` uses, that for clean pictures first.

    A models folder without :data:`CLEAN_FAMILY` is somebody's own: there, the first of its families
    that enlarge is for all pictures; the first of all, if none enlarges.

    Raises:
        ModelMissing: there is no model but bicubic.
    """
    cards = [card for card in cards if card.family != BICUBIC.family]
    families = {card.family for card in cards}
    if CLEAN_FAMILY in families:
        used = (CLEAN_FAMILY, COMPRESSED_FAMILY, SHARPENED_FAMILY, PHOTO_FAMILY)
        return (*(family for family in used if family in families), BICUBIC.family)
    if not families:
        raise ModelMissing("there is no model for auto to choose: the models folder has none")
    enlarging = {card.family for card in cards if card.geometry.scale > 1}
    return (min(enlarging or families), BICUBIC.family)


def candidates(cards: Iterable[ModelCard], scale: float) -> Candidates:
    """The models to choose between at a scale.

    Raises:
        ModelMissing: there is no model but bicubic.
    """
    cards = tuple(cards)
    families = automatic_families(cards)
    clean = choose(cards, families[0], scale)
    if families[0] != CLEAN_FAMILY:
        return Candidates(clean, clean)
    found = {card.family: card for card in cards if card.geometry.scale == clean.geometry.scale}
    return Candidates(
        clean,
        found.get(PHOTO_FAMILY),
        found.get(COMPRESSED_FAMILY),
        found.get(SHARPENED_FAMILY),
    )


def select(evidence: Evidence, candidates: Candidates, rules: Rules | None = None) -> Selection:
    """Choose a model.

    Args:
        evidence: what the picture's file shows.
        candidates: the models to choose between.
        rules: the thresholds; by default :func:`rules_for` the models' scale.
    """
    rules = rules or rules_for(candidates.clean.geometry.scale)
    if evidence.few_colours:
        return Selection(candidates.bicubic, "chosen for a picture of few colours, as pixel art")
    compressed = _compression(evidence, rules)
    damage = _other_damage(evidence, rules)
    light = bool(compressed) and _is_light(evidence, rules)
    if compressed and not light and damage != BLURRED and evidence.detail < rules.detail:
        return Selection(candidates.bicubic, f"chosen for {compressed} and little detail")
    if damage:
        sharpened = candidates.sharpened if damage == SHARPENED else None
        card = sharpened or candidates.photo
        what = f"{compressed or 'a picture'} {damage}"
    elif not compressed:
        card, what = candidates.clean, "a clean picture"
    elif light:
        card, what = candidates.clean, f"{compressed}, as good as a clean picture"
    else:
        card, what = candidates.compressed or candidates.photo, compressed
    if card is None:
        reason = f"chosen for {what}, for which there is no model at this scale"
        return Selection(candidates.bicubic, reason)
    return Selection(card, f"chosen for {what}")


def _compression(evidence: Evidence, rules: Rules) -> str:
    """How the picture was compressed with loss; empty if nothing shows it."""
    if evidence.jpeg_quality is not None:
        return f"a JPEG of quality {evidence.jpeg_quality:.0f}"
    if evidence.coded_as:
        return f"a picture compressed as {evidence.coded_as}"
    return "a picture with the blocks of a JPEG" if evidence.blockiness > rules.blockiness else ""


def _is_light(evidence: Evidence, rules: Rules) -> bool:
    """Whether the picture was compressed so little that it is as good as clean."""
    root = math.sqrt(evidence.detail + 1)
    if evidence.jpeg_quality is not None:
        return 100 - evidence.jpeg_quality < rules.light * root
    return bool(evidence.coded_as) and evidence.bits_per_pixel > rules.light_bits * root


def _other_damage(evidence: Evidence, rules: Rules) -> str:
    """What calls for the photo model or that of sharpened pictures; empty if nothing does."""
    noise, blurred, sharpened = rules.noise, rules.blurred, rules.sharpened
    if _compression(evidence, rules):
        noise, blurred = rules.noise_compressed, rules.blurred_compressed
        sharpened = rules.sharpened_compressed
    root = math.sqrt(evidence.detail + 1)
    if evidence.noise > noise * root or evidence.colour_noise > rules.colour_noise * root:
        return f"with noise of {max(evidence.noise, evidence.colour_noise):.1f} levels"
    if evidence.sharpness < blurred and evidence.detail:
        return BLURRED
    return SHARPENED if sharpening(evidence) > sharpened else ""


def sharpening(evidence: Evidence, weight: float = TEXTURE) -> float:
    """The sharpness of a picture, less what its texture explains.

    Args:
        evidence: what the picture's file shows.
        weight: how much sharpness texture explains.
    """
    return evidence.sharpness - weight * evidence.texture
