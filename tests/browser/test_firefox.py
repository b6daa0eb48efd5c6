"""The page in a real Firefox: the ways from a picture to its result."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from superres.arrays import RgbU8
from superres.models.card import ModelCard
from tests.browser.people import (
    OpenPage,
    assert_no_sideways_scroll,
    choose,
    drawn,
    hand_over,
    payload,
    tab_to,
)
from tests.engines import HeldEngine
from tests.pictures import encoded

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cat(chelsea: RgbU8) -> bytes:
    return encoded(chelsea[60:150, 100:220])


def test_a_dropped_picture_is_enhanced_shown_and_downloaded(
    fake_service, open_in_firefox: OpenPage, cat: bytes
):
    page = open_in_firefox(str(fake_service.base_url), viewport={"width": 320, "height": 640})
    assert_no_sideways_scroll(page)
    hand_over(page, "drop", cat)
    expect(page.locator("#outcome")).to_be_visible(timeout=60_000)
    drawn(page)
    expect(page.locator("#verdict")).to_contain_text("harper than plain enlarging (+")
    assert_no_sideways_scroll(page)
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "cat-x3.png"
    expected = fake_service.post("/enhance", content=cat, params={"scale": 3}).content
    assert Path(download.value.path()).read_bytes() == expected


def test_everything_is_done_by_keyboard(fake_service, open_in_firefox: OpenPage, cat: bytes):
    page = open_in_firefox(str(fake_service.base_url))
    with page.expect_file_chooser() as chooser:
        tab_to(page, page.locator("#file"))
        page.keyboard.press("Space")
    chooser.value.set_files(payload(cat))
    expect(page.locator("#outcome")).to_be_visible(timeout=60_000)
    drawn(page)
    tab_to(page, page.locator(".frame"))
    page.keyboard.press("1")
    expect(page.locator(".percent")).to_have_text("100 %")
    page.keyboard.down(" ")
    expect(page.locator(".tag.right")).to_be_hidden()
    page.keyboard.up(" ")
    expect(page.locator(".tag.right")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    tab_to(page, page.get_by_label("Divider"))
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_label("Divider")).to_have_attribute(
        "aria-valuetext", "Before: 49.5 % of the width"
    )
    tab_to(page, page.locator("#download"))
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "cat-x3.png"


def test_a_wait_is_cancelled_and_a_wrong_file_is_told_in_a_sentence(
    serve, srcnn_card: ModelCard, open_in_firefox: OpenPage, cat: bytes
):
    engine = HeldEngine(srcnn_card)
    with serve({srcnn_card.name: engine}) as service:
        page = open_in_firefox(str(service.base_url))
        choose(page, cat)
        expect(page.locator("#status")).to_contain_text("Enhancing", timeout=60_000)
        page.keyboard.press("Escape")
        expect(page.locator("#cancelled")).to_be_visible()
        choose(page, b"hello")
        expect(page.get_by_role("alert")).to_contain_text("cat.png cannot be read here: not a")
        engine.go.set()
