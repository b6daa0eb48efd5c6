"""The words of the pages in every language."""

import re
from collections import Counter
from pathlib import Path

import pytest

from app.web import STATIC, enhance_page
from app.web.languages import DEFAULT, LANGUAGES, choose_language, read_words

PLACEHOLDER = re.compile(r"\{(\w+)\}")
ENGLISH = read_words(DEFAULT)


def used_keys() -> set[str]:
    """Keys that scripts and templates name."""
    scripts = "\n".join(file.read_text() for file in STATIC.glob("*.js"))
    named = set(re.findall(r"\b(?:say|named)\(\s*\"(\w+)\"", scripts))
    # Of a choice between two, and of a table of keys.
    named |= {word for word in re.findall(r'"(\w+)"', scripts) if word in ENGLISH}
    starts = re.findall(r"(?:say\(|key = )`(\w+_)\$\{", scripts)
    named |= {key for key in ENGLISH if key.startswith(tuple(starts))}
    folder = STATIC.parent
    html = "".join(file.read_text() for file in folder.glob("*.html"))
    named |= {word for word in re.findall(r"\$(\w+)", html) if word in ENGLISH}
    code = (folder / "__init__.py").read_text()
    named |= {word for word in re.findall(r"\w+", code) if word in ENGLISH}
    return named | {key for key in ENGLISH if key.startswith(("field_", "value_", "sample_"))}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_language_lacks_a_key_or_a_placeholder(language: str):
    words = read_words(language)
    assert words.keys() == ENGLISH.keys()
    for key, text in words.items():
        assert text.strip(), key
        assert Counter(PLACEHOLDER.findall(text)) == Counter(PLACEHOLDER.findall(ENGLISH[key])), key


def test_every_key_that_is_named_is_there_and_every_key_is_used():
    scripts = "\n".join(file.read_text() for file in Path(STATIC).glob("*.js"))
    asked = set(re.findall(r"\bsay\(\s*\"(\w+)\"", scripts))
    assert asked - ENGLISH.keys() == set()
    assert ENGLISH.keys() - used_keys() == set()


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("tlh", "en"),
        ("de", "de"),
        ("de-CH,en;q=0.5", "de"),
        ("fr-CA, en;q=0.9", "fr"),
        ("en;q=0.4, ja;q=0.8", "ja"),
        ("pt-BR", "pt"),
        ("zh-CN", "zh-Hans"),
        ("zh-Hans-SG", "zh-Hans"),
        ("zh", "zh-Hans"),
    ],
)
def test_the_browser_chooses_the_language(accepted: str, language: str):
    assert choose_language(accepted) == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_in_its_language(language: str):
    html = enhance_page("auto", language)
    assert f'<html lang="{language}">' in html
    assert read_words(language)["drop"] in html
