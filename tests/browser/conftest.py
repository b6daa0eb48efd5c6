"""A real Chromium and a real Firefox, driven by Playwright, and pages whose complaints are kept."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.browser.firefox import write_starter
from tests.needs import program

ARTEFACTS = Path(__file__).parents[2] / "artefacts"
"""Screenshots, to be looked at; not kept in git."""

CHROMIUM = ("chromium-headless-shell", "chromium", "chromium-browser")
"""Programs; the first is the same without windows, and opens a page in a third of the time."""

ARGUMENTS = [
    # Chromium's own sandbox does not start as root, nor in many containers.
    *(["--no-sandbox"] if os.getuid() == 0 else []),
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")  # its event loop must be gone before other tests want theirs
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(*CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    starter = write_starter(tmp_path_factory.mktemp("firefox"), program("firefox-esr", "firefox"))
    with sync_playwright() as playwright:
        browser = playwright.firefox.launch(channel="moz-firefox", executable_path=starter)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address in Chromium; see :func:`watched`."""
    with watched(chromium) as open_page:
        yield open_page


@pytest.fixture
def open_in_firefox(firefox: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address in Firefox; see :func:`watched`."""
    with watched(firefox) as open_page:
        yield open_page


@contextmanager
def watched(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address until something is there; options are the context's: viewport, ...

    At the end, nothing may have gone to another host, and nothing may be on the console.
    """
    contexts = []
    complaints: list[str] = []

    def keep(line: ConsoleMessage) -> None:
        # Chromium logs every answer of 400 and above, which some tests ask for.
        if line.type in ("error", "warning") and "Failed to load resource" not in line.text:
            complaints.append(line.text)

    def open_page(address: str, until: str = "#scales button", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        ours = f"http://{urlsplit(address).netloc}/"

        def hold_to_this_host(request: Request) -> None:
            if not request.url.startswith((ours, "blob:", "data:")):
                complaints.append(f"asked for {request.url}")

        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", keep)
        page.on("request", hold_to_this_host)
        page.goto(address)
        page.locator(until).first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def screenshot() -> Callable[[Page, str], None]:
    """Keep what a page looks like, from top to bottom."""

    def screenshot(page: Page, name: str) -> None:
        ARTEFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    return screenshot
