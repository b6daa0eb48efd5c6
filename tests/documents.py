"""The README and the pages of docs/, and the snippets in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
from PIL import Image

from docsite.reference import COMMANDS
from superres.arrays import RgbU8

REPOSITORY = Path(__file__).parents[1]
PAGES = {
    str(file.relative_to(REPOSITORY)): file.read_text()
    for file in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
}
"""Text of each document, by path."""


def blocks(language: str) -> list[tuple[str, str]]:
    """Each block of code in a language, with the path of its page."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
    return [(page, code) for page, text in PAGES.items() for code in fence.findall(text)]


def commands() -> Iterator[tuple[str, str]]:
    """Each command of a ``sh`` block, on one line and without its comment, with its page."""
    for page, code in blocks("sh"):
        for line in re.sub(r"\\\n\s*", " ", code).splitlines():
            if command := re.sub(r"\s+# .*", "", line.strip()):
                yield page, command


def calls(page: str | None = None) -> list[list[str]]:
    """The words of each command that calls a program of ours, on all pages or on one."""
    found = [
        shlex.split(re.sub(" [<>] .*", "", command))
        for path, command in commands()
        if page in (None, path)
    ]
    named = [[words[0].removeprefix(".venv/bin/"), *words[1:]] for words in found]
    return [words for words in named if words[0] in COMMANDS]


def at(service: httpx.Client, code: str) -> str:
    """A snippet that calls a service of the tests."""
    here = code.replace("127.0.0.1:8000", f"127.0.0.1:{service.base_url.port}")
    assert here != code
    return here


def photo_folder(folder: Path, photograph: RgbU8) -> Path:
    """A folder as the snippets expect it: with ``photo.jpg``, and the samples of the page."""
    Image.fromarray(photograph[:120, :160]).save(folder / "photo.jpg")
    (folder / "app").symlink_to(REPOSITORY / "app")
    return folder
