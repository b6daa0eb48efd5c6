"""What the scripts of the page say is what the service means."""

from itertools import product

import pytest

from app.web import CLEAR_DB, EQUAL_DB, _verdict
from app.web.languages import DEFAULT, read_words
from superres.models.evidence import Evidence
from superres.models.registry import DEFAULT_MODELS, read_cards
from superres.models.selection import candidates, select
from tests.browser.people import OpenPage

pytestmark = pytest.mark.slow


def test_verdicts_and_reasons_are_those_of_the_service(fake_service, open_page: OpenPage):
    page = open_page(str(fake_service.base_url))
    gains = [
        sign * limit + step
        for sign, limit, step in product((-1, 1), (0, EQUAL_DB, CLEAR_DB), (-0.01, 0, 0.01))
    ]
    said = page.evaluate(
        """async (gains) => {
            const { verdictInWords } = await import("./static/results.js");
            return gains.map((gain) => verdictInWords({ gain, model: "srcnn-x3" }));
        }""",
        gains,
    )
    words = read_words(DEFAULT)
    assert said == [words[_verdict(gain)] for gain in gains]

    reasons = sorted(every_reason())
    told = page.evaluate(
        """async (reasons) => {
            const { reasonOf } = await import("./static/notes.js");
            return reasons.map((reason) => reasonOf(`kept: EXIF; ${reason}`));
        }""",
        reasons,
    )
    meant = dict(zip(reasons, told, strict=True))
    assert not [reason for reason in reasons if meant[reason] in reason], meant
    assert meant["chosen for a JPEG of quality 60"] == "Compressed photo: JPEG of quality 60"
    assert meant["chosen for a JPEG of quality 99, as good as a clean picture"] == "Clean picture"
    for more in ("", " and little detail"):
        reason = f"chosen for a picture compressed as AVIF{more}"
        assert meant[reason] == "Compressed photo: AVIF"
    assert meant["chosen for a JPEG of quality 60 with noise of 30.0 levels"] == (
        words["reason_noise"].format(level="30.0")
    )


def every_reason() -> set[str]:
    """What ``auto`` says of any picture."""
    between = candidates(read_cards(DEFAULT_MODELS), 3)
    return {
        select(Evidence(*facts), between).reason
        for facts in product(
            (None, 60.0, 99.0),
            ("", "AVIF"),
            (0.1, 20.0),
            (False, True),
            (0.0, 1.0),
            (0.0, 30.0),
            (0.0,),
            (0.5, 20.0),
            (0.1, 1.4, 3.9),
            (0.0,),
        )
    }
