"""The words of the pages: one JSON file a language in ``static/languages``, which scripts read too.

A key is the same in every file; ``{name}`` in a sentence is a value that is put in.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header

FOLDER = Path(__file__).with_name("static") / "languages"
DEFAULT = "en"
LANGUAGES = (DEFAULT, *sorted(file.stem for file in FOLDER.glob("*.json") if file.stem != DEFAULT))
"""Tags of the languages, the default first."""


def choose_language(accept_language: str) -> str:
    """The language that a browser's ``Accept-Language`` prefers; the default if none is there.

    A regional variant is as good as its language: ``de-CH`` is served ``de``.

    >>> choose_language("tlh, en-GB;q=0.5"), choose_language("")
    ('en', 'en')
    """
    by_primary = {language.partition("-")[0]: language for language in LANGUAGES}
    for tag, quality in parse_accept_header(accept_language, LanguageAccept):
        primary = tag.partition("-")[0].lower()
        if quality > 0 and primary in by_primary:
            return by_primary[primary]
    return DEFAULT


@cache
def read_words(language: str) -> Mapping[str, str]:
    """The sentences of one of LANGUAGES, by key."""
    words: dict[str, str] = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return words
