"""Makes the ten screenshots of the page in docs/page, with the shipped models and real Chromium.

Run it again when the page changes, and look at them; names of screenshots make these alone:
``PYTHONPATH=. .venv/bin/python benchmarks/page_screenshots.py [NAME ...]``.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from app.web.samples import read_sample
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.browser.people import PHONE, drawn
from tests.needs import program
from tests.serving import serve_process

FOLDER = Path(__file__).parents[1] / "docs" / "page"
PATIENCE_MS = 300_000
LAPTOP = {"viewport": {"width": 1280, "height": 720}}


def file(name: str, picture: np.ndarray, **options: object) -> dict[str, object]:
    """A file as a person would choose it."""
    data = io.BytesIO()
    kind = "PNG" if name.endswith("png") else "JPEG"
    Image.fromarray(picture).save(data, kind, **options)
    return {"name": name, "mimeType": f"image/{kind.lower()}", "buffer": data.getvalue()}


def choose(page: Page, *files: dict[str, object]) -> None:
    """Choose them."""
    page.locator("#file").set_input_files(files)  # type: ignore[arg-type]


def finish(page: Page, *files: dict[str, object]) -> None:
    """Choose them, and wait for the first result."""
    choose(page, *files)
    expect(page.locator("#outcome")).to_be_visible(timeout=PATIENCE_MS)
    drawn(page)


def start(page: Page) -> None:
    """As the page opens."""


def working(page: Page) -> None:
    """A job whose tiles are counted."""
    large = np.asarray(Image.fromarray(read_sample("coffee")).resize((2400, 1600)))
    choose(page, file("holiday.jpg", large, quality=92))
    expect(page.locator("#status")).to_contain_text("tiles", timeout=PATIENCE_MS)


def result(page: Page) -> None:
    """A photograph that became sharper."""
    finish(page, file("portrait.jpg", read_sample("astronaut"), quality=92))


def loss(page: Page) -> None:
    """A picture that was compressed too much for the model that was chosen."""
    page.locator("#kinds > summary").click()
    page.get_by_label("Clean photo or graphic").check()
    page.keyboard.press("Escape")
    finish(page, file("chat.jpg", read_sample("coffee"), quality=20))
    page.locator("#others").or_(page.locator("#download-anyway")).first.wait_for()


def transparency(page: Page) -> None:
    """A cup without its table."""
    picture = read_sample("coffee")[50:350, 150:450]
    y, x = np.mgrid[:300, :300]
    alpha = np.where((y - 150) ** 2 + (x - 150) ** 2 < 148**2, 255, 0).astype(np.uint8)
    finish(page, file("cup.png", np.dstack([picture, alpha])))


def batch(page: Page) -> None:
    """Four pictures, some of them done."""
    names = ("chelsea", "coffee", "astronaut", "rocket")
    finish(page, *(file(f"{name}.jpg", read_sample(name), quality=97) for name in names))
    expect(page.locator("#film [data-state=done]")).to_have_count(2, timeout=PATIENCE_MS)


def error(page: Page) -> None:
    """A file that is no picture yet."""
    choose(page, {"name": "IMG_0001.CR2", "mimeType": "", "buffer": b"II*\0....CR"})
    page.locator("#problem").wait_for()


DARK = LAPTOP | {"color_scheme": "dark"}
SHOTS: dict[str, tuple[Callable[[Page], None], dict[str, object]]] = {
    "start": (start, LAPTOP),
    "working": (working, LAPTOP),
    "result": (result, LAPTOP),
    "loss": (loss, LAPTOP),
    "transparency": (transparency, LAPTOP),
    "batch": (batch, LAPTOP),
    "phone-start": (start, PHONE),
    "phone-result": (result, PHONE),
    "dark": (result, DARK),
    "error": (error, LAPTOP),
}


def main() -> None:
    """Make those that are asked for; all by default."""
    FOLDER.mkdir(exist_ok=True)
    with (
        serve_process(device="cpu", default_model="auto") as (client, _),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=program(*CHROMIUM), args=ARGUMENTS)
        for name in sys.argv[1:] or SHOTS:
            visit, options = SHOTS[name]
            context = browser.new_context(**options)  # type: ignore[arg-type]
            page = context.new_page()
            page.goto(str(client.base_url))
            page.locator("#scales button").first.wait_for()
            visit(page)
            with Image.open(io.BytesIO(page.screenshot())) as shot:
                shot.convert("RGB").save(FOLDER / f"{name}.webp", quality=82, method=6)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
