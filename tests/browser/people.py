"""What the tests of the page share: how a person uses it, and what is read from it."""

import base64
import io
from collections.abc import Callable

import numpy as np
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, expect

OpenPage = Callable[..., Page]
Screenshot = Callable[[Page, str], None]
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}


def payload(content: bytes, name: str = "cat.png") -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def choose(page: Page, content: bytes, name: str = "cat.png") -> None:
    page.locator("#file").set_input_files(payload(content, name))


def enhance(page: Page, content: bytes, name: str = "cat.png") -> None:
    choose(page, content, name)
    expect(page.locator("#outcome")).to_be_visible(timeout=60_000)


def hand_over(page: Page, event: str, content: bytes, name: str = "cat.png") -> None:
    """Drop or paste a file, as a browser would tell the page of it."""
    page.evaluate(
        """([event, content, name]) => {
            const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], name, { type: "image/png" }));
            const about = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(
                event === "paste"
                    ? new ClipboardEvent(event, { ...about, clipboardData: carried })
                    : new DragEvent(event, { ...about, dataTransfer: carried }));
        }""",
        [event, base64.b64encode(content).decode(), name],
    )


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the target has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"{target} cannot be reached by Tab")


def assert_accessible(page: Page) -> None:
    violations = Axe().run(page).response["violations"]
    found = [(one["id"], one["nodes"][0]["html"]) for one in violations]
    assert not found, found


def assert_no_sideways_scroll(page: Page) -> None:
    """Assert that the page is no wider than the window; a phone widens that to what is there."""
    assert page.viewport_size is not None
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"]


def drawn(page: Page) -> None:
    """Wait until the result is shown, with the spot of its detail."""
    expect(page.locator("figure[data-ready]")).to_be_visible(timeout=60_000)


def open_settings(page: Page) -> None:
    """Open what is folded: output and more settings."""
    page.locator("#advanced > summary").click()
