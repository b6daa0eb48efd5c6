"""What a person does with the viewer and with folders, each with a real key, finger or file."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from superres.arrays import RgbU8
from superres.codecs import decode
from superres.models.registry import DEFAULT_MODELS, read_cards
from tests.browser.people import PHONE, OpenPage, assert_accessible, drawn, enhance
from tests.engines import BlurEngine
from tests.pictures import encoded
from tests.serving import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cat(chelsea: RgbU8) -> bytes:
    return encoded(chelsea[60:150, 100:220])


def test_full_screen_hold_labels_and_the_clipboard(fake_service, open_page: OpenPage, cat: bytes):
    page = open_page(str(fake_service.base_url), permissions=["clipboard-read", "clipboard-write"])
    enhance(page, cat)
    drawn(page)

    frame = page.locator(".frame")
    frame.focus()
    page.keyboard.press("f")
    expect(page.locator("figure:fullscreen")).to_be_visible()
    page.keyboard.press("f")
    expect(page.locator("figure:fullscreen")).to_have_count(0)
    page.get_by_role("button", name="Full screen").click()
    expect(page.locator("figure:fullscreen")).to_be_visible()
    page.get_by_role("button", name="Full screen").click()
    expect(page.locator("figure:fullscreen")).to_have_count(0)

    before, after = page.locator(".tag.left"), page.locator(".tag.right")
    for place, shown in {"0": (False, True), "50": (True, True), "100": (True, False)}.items():
        page.get_by_label("Divider").fill(place)
        expect(before).to_be_visible(visible=shown[0])
        expect(after).to_be_visible(visible=shown[1])

    page.get_by_label("Divider").fill("50")
    hold = page.get_by_role("button", name="Hold: before")
    hold.hover()
    page.mouse.down()
    expect(hold).to_have_attribute("aria-pressed", "true")
    expect(after).to_be_hidden()
    page.mouse.up()
    expect(hold).to_have_attribute("aria-pressed", "false")
    expect(after).to_be_visible()

    page.get_by_role("button", name="Copy picture").click()
    expect(page.locator("#copy-picture")).to_have_text("Copied")
    copied = page.evaluate("""async () => {
        const [item] = await navigator.clipboard.read();
        const bytes = new Uint8Array(await (await item.getType("image/png")).arrayBuffer());
        return bytes.reduce((text, byte) => text + String.fromCharCode(byte), "");
    }""")
    made = fake_service.post("/enhance", content=cat, params={"scale": 3}).content
    assert np.array_equal(decode(copied.encode("latin-1")).rgb, decode(made).rgb)


def test_two_fingers_zoom_where_they_are(fake_service, open_page: OpenPage, cat: bytes):
    page = open_page(str(fake_service.base_url), **PHONE)
    enhance(page, cat)
    drawn(page)
    box = page.locator(".frame").bounding_box()
    assert box is not None
    fit = percent(page)
    session = page.context.new_cdp_session(page)

    def touch(kind: str, apart: float) -> None:
        middle, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        places = [] if kind == "touchEnd" else [middle - apart / 2, middle + apart / 2]
        points = [{"x": x, "y": y, "id": number} for number, x in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 60)
    for apart in (80, 100, 120):
        touch("touchMove", apart)
    touch("touchEnd", 0)
    assert percent(page) == pytest.approx(2 * fit, rel=0.1)
    assert page.evaluate("visualViewport.scale") == 1  # the page itself did not zoom


def percent(page: Page) -> float:
    return float(page.locator(".percent").inner_text().removesuffix(" %"))


def test_folders_are_dropped_and_chosen_with_all_that_is_in_them(
    fake_service, open_page: OpenPage, chelsea: RgbU8, tmp_path: Path
):
    folder = tmp_path / "holiday"
    (folder / "second day").mkdir(parents=True)
    (folder / "a.png").write_bytes(encoded(chelsea[:40, :60]))
    (folder / "second day" / "b.jpg").write_bytes(encoded(chelsea[40:80, :60], "JPEG"))
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"no picture")
    page = open_page(str(fake_service.base_url))
    done = page.locator("#film li[data-state=done] .name")
    drop(page, folder)
    expect(done).to_have_count(2, timeout=60_000)
    page.locator("#folder").set_input_files(folder)
    expect(done).to_have_count(4, timeout=60_000)
    expect(page.locator("#film li")).to_have_count(4)  # what is no picture is left out
    assert sorted(done.all_inner_texts()) == ["a.png", "a.png", "b.jpg", "b.jpg"]


def drop(page: Page, path: Path) -> None:
    """Drop it as from a file manager."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        about = {"type": kind, "x": 300, "y": 400, "data": data}
        session.send("Input.dispatchDragEvent", about)


def test_kinds_have_a_line_and_a_crop_and_automatic_tells_its_reason(
    serve, open_page: OpenPage, chelsea: RgbU8
):
    cards = read_cards(DEFAULT_MODELS)
    engines = {card.name: BlurEngine(card.geometry) for card in cards}
    with serve(engines, default_model="auto") as service:
        page = open_page(str(service.base_url))
        assert_kinds(page)
        enhance(page, encoded(chelsea[:96, :96], "JPEG", quality=40), "chat.jpg")
        reason = "Compressed photo: JPEG of quality 40"
        expect(page.locator("#reason")).to_have_text(reason)
        expect(page.locator("#auto-reason")).to_have_text(reason)
        page.get_by_role("link", name="Compare").click()
        page.locator("#scales button").first.wait_for()
        assert_kinds(page)


def assert_kinds(page: Page) -> None:
    page.locator("#kinds > summary").click()
    kinds = page.locator("#kind-list .kind")
    assert kinds.locator("b").all_inner_texts() == [
        *("Automatic (recommended)", "Clean photo or graphic", "Compressed photo"),
        *("Sharpened photo", "Noisy or blurred photo", "Fastest"),
    ]
    assert all(kinds.locator("small").all_inner_texts())
    for crop in kinds.locator("img").all():
        crop.scroll_into_view_if_needed()
        wait_until(lambda crop=crop: crop.evaluate("img => img.naturalWidth") == 144)
    assert_accessible(page)
    page.locator("#all-models > summary").click()
    expect(page.locator("#model-list [value=srcnn-x3]")).to_be_visible()
    page.keyboard.press("Escape")
