"""What the pages of the site would load from other hosts: there must be none."""

from html.parser import HTMLParser
from pathlib import Path

_LOADED = {
    "audio": "src",
    "embed": "src",
    "iframe": "src",
    "img": "src",
    "link": "href",
    "script": "src",
    "source": "src",
    "video": "src",
}
"""Tags that a browser loads something for, and the attribute with its address."""


def external_resources(site: Path) -> list[str]:
    """A line for each address of another host that a page loads; links to click on are none."""
    return [
        f"{page}: loads {address}"
        for page in sorted(site.rglob("*.html"))
        for address in _addresses(page.read_text())
        if address.startswith(("http:", "https:", "//"))
    ]


def _addresses(html: str) -> list[str]:
    parser = _Parser()
    parser.feed(html)
    return parser.found


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("rel") == "canonical":
            return
        if address := given.get(_LOADED.get(tag, "")):
            self.found.append(address)
