"""Collects the pages of the site, inserts what is generated, and checks links and navigation."""

import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docsite import models, reference

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
CONFIG = REPOSITORY / "zensical.toml"
ELSEWHERE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "benchmarks/results.md": "project/benchmarks.md",
    "benchmarks/results.png": "project/results.png",
}
"""Files outside docs/ that are part of the site, and where they are there."""
GENERATORS: dict[str, Callable[..., str]] = {
    "api": reference.api,
    "commands": reference.commands,
    "errors": reference.errors,
    "metrics": reference.metrics,
    "settings": reference.settings,
    "gains": models.gains,
    "scores": models.scores,
    "selection": models.choice,
    "model-costs": models.costs,
    "model-data": models.data,
    "model-facts": models.facts,
    "model-list": models.list_of_families,
    "model-scores": models.family_scores,
    "model-worst": models.worst,
}
"""What a line ``<!-- generated: NAME WORDS -->`` of a page is replaced by."""

_GENERATED = re.compile(r"^<!-- generated: (\S+)((?: \S+)*) -->$", re.MULTILINE)
_CODE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def assemble(pages: Path) -> list[str]:
    """Write the pages and pictures of the site into a folder, which is emptied first.

    Links to files of the repository that are not part of the site become their paths.

    Returns:
        A line for each fault: a link or picture that leads nowhere, a page outside the navigation,
        a place in the navigation without a page, a model family without a page or with the worst
        cases of other weights.
    """
    if faults := list(_families_without_page()):
        return faults
    shutil.rmtree(pages, ignore_errors=True)
    places = _places()
    for source, place in places.items():
        target = pages / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text, broken = _with_links(_with_generated(source.read_text()), source, places)
            target.write_text(text)
            faults += broken
        else:
            shutil.copyfile(source, target)
    return [*faults, *_outside_navigation(places.values())]


def _places() -> dict[Path, str]:
    """Each file of the site, and its path there."""
    inside = {
        file: file.relative_to(DOCS).as_posix()
        for file in sorted(DOCS.rglob("*"))
        if file.suffix in {".css", ".jpg", ".md", ".png", ".webp"}
    }
    return {REPOSITORY / path: place for path, place in ELSEWHERE.items()} | inside


def _with_generated(text: str) -> str:
    def generate(marker: re.Match[str]) -> str:
        return GENERATORS[marker[1]](*marker[2].split())

    return _GENERATED.sub(generate, text)


def _with_links(text: str, source: Path, places: dict[Path, str]) -> tuple[str, list[str]]:
    """The text with links as they are in the site, and a line for each that leads nowhere."""
    faults: list[str] = []
    code = [match.span() for match in _CODE.finditer(text)]

    def rewrite(link: re.Match[str]) -> str:
        url = urlsplit(link["target"])
        if url.scheme or not url.path or any(a <= link.start() < b for a, b in code):
            return link[0]
        file = Path(os.path.normpath(source.parent / url.path))
        if file in places:
            here = Path(places[source]).parent
            target = os.path.relpath(places[file], here) + (f"#{url.fragment}" * bool(url.fragment))
            return f"{link['image']}[{link['text']}]({target})"
        if link["image"] or not file.exists() or not file.is_relative_to(REPOSITORY):
            faults.append(f"{source.relative_to(REPOSITORY)}: {link[0]} leads nowhere")
            return link[0]
        path = f"`{file.relative_to(REPOSITORY)}`"
        return path if link["text"].strip("`") in path else f"{link['text']} ({path})"

    return _LINK.sub(rewrite, text), faults


def _outside_navigation(places: Iterable[str]) -> Iterator[str]:
    pages = {place for place in places if place.endswith(".md")}
    listed = set(_listed(tomllib.loads(CONFIG.read_text())["project"]["nav"]))
    for page in sorted(pages - listed):
        yield f"{page} is not in the navigation: add it to nav in {CONFIG.name}"
    for page in sorted(listed - pages):
        yield f"{page} is in the navigation, and there is no such page: see nav in {CONFIG.name}"


def _listed(entries: list[dict[str, Any]]) -> Iterator[str]:
    """The pages of a navigation, whose entries are ``{title: page}`` or ``{title: entries}``."""
    for entry in entries:
        for page in entry.values():
            yield from (page,) if isinstance(page, str) else _listed(page)


def _families_without_page() -> Iterator[str]:
    for family in models.families():
        if not (DOCS / "models" / f"{family}.md").exists():
            yield f"the model family {family} has no page docs/models/{family}.md"
    for family in models.without_worst_cases():
        yield (
            f"the worst cases of {family} are not of its present weights: run "
            "benchmarks/worst_cases.py"
        )
