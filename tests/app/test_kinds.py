"""The kinds of pictures that the page offers."""

from app.web import STATIC
from app.web.kinds import KINDS
from app.web.languages import LANGUAGES, read_words
from superres.models.registry import DEFAULT_MODELS, read_cards


def test_each_kind_has_a_shipped_family_of_its_own_a_crop_and_words():
    shipped = {card.family for card in read_cards(DEFAULT_MODELS)}
    assert set(KINDS.values()) <= shipped
    assert len(set(KINDS.values())) == len(KINDS)
    crops = {file.stem for file in (STATIC / "kinds").glob("*.webp")}
    assert crops == {*KINDS, "auto", "plain"}
    for language in LANGUAGES:
        words = read_words(language)
        named = {key.removeprefix("kind_") for key in words if key.startswith("kind_")}
        assert named == {*KINDS, *(f"{kind}_line" for kind in KINDS), "auto_line"}, language
