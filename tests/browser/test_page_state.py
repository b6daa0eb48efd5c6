"""What is always in sight on the page: what is being done, how to stop it, and what came of it."""

import io
import re
import time
import zipfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Dialog, Locator, Page, Route, expect

from app.web.languages import DEFAULT, LANGUAGES, read_words
from superres.arrays import RgbU8
from superres.models.card import ModelCard
from superres.models.registry import DEFAULT_MODELS, read_cards
from tests import heics
from tests.browser.people import (
    OpenPage,
    assert_accessible,
    assert_no_sideways_scroll,
    choose,
    drawn,
    enhance,
    payload,
    pixels,
)
from tests.engines import BlurEngine, HeldEngine
from tests.pictures import encoded
from tests.serving import link_models, resident_bytes, wait_until

pytestmark = pytest.mark.slow

SIZES = {
    "phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
    "tablet": {"viewport": {"width": 820, "height": 1180}},
    "laptop": {"viewport": {"width": 1280, "height": 720}},
    "desktop": {"viewport": {"width": 1440, "height": 900}},
    "zoomed to 200 %": {"viewport": {"width": 640, "height": 360}, "device_scale_factor": 2},
    "narrow": {"viewport": {"width": 320, "height": 640}},
}


@pytest.fixture(scope="module")
def cat(chelsea: RgbU8) -> bytes:
    return encoded(chelsea[60:150, 100:220])


def in_sight(page: Page, *names: str) -> None:
    """Assert that these are in the window, which nobody has scrolled, and not covered."""
    assert page.evaluate("scrollY") == 0
    for name in names:
        found = page.locator(name).evaluate(
            """element => {
                const box = element.getBoundingClientRect();
                const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                const top = document.elementFromPoint(x, y);
                return [box.width > 0, box.top >= 0, box.bottom <= innerHeight + 1, box.left >= 0,
                        box.right <= innerWidth, element.contains(top) || top?.contains(element)];
            }"""
        )
        assert all(found), f"{name} at {page.viewport_size}: {found}"
    assert_no_sideways_scroll(page)


def test_progress_and_verdict_are_in_sight_at_every_size(
    serve, srcnn_card: ModelCard, open_page: OpenPage, chelsea: RgbU8
):
    engine = HeldEngine(srcnn_card)
    with serve({srcnn_card.name: engine}) as service:
        for options in SIZES.values():
            engine.go.clear()
            page = open_page(str(service.base_url), **options)
            choose(page, encoded(chelsea))
            expect(page.locator("#status")).to_contain_text("Enhancing", timeout=60_000)
            in_sight(page, "#status", "#left", "#progress", "#cancel")
            # Nothing invites to begin the same again.
            expect(page.get_by_role("button", name="Enhance", exact=True)).to_be_disabled()
            engine.go.set()
            expect(page.locator("#outcome")).to_be_visible(timeout=60_000)
            drawn(page)
            in_sight(page, "#verdict", "#download")
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert_accessible(page)


def test_a_picture_is_uploaded_once_and_only_its_head_for_forecasts(
    serve, srcnn_card: ModelCard, open_page: OpenPage, coffee: RgbU8
):
    engine = HeldEngine(srcnn_card)
    with serve({srcnn_card.name: engine}) as service:
        page = open_page(str(service.base_url))
        sent: list[tuple[bool, int]] = []

        def note(route: Route) -> None:
            request = route.request
            query = parse_qs(urlsplit(request.url).query)
            sent.append(("dry_run" in query, len(request.post_data_buffer or b"")))
            route.continue_()

        page.route("**/enhance?*", note)
        page.evaluate("""() => {
            window.titles = [];
            new MutationObserver(() => window.titles.push(document.title))
                .observe(document.querySelector("title"), { childList: true });
        }""")
        content = encoded(coffee)
        choose(page, content)
        expect(page.locator("#status")).to_contain_text("Enhancing", timeout=60_000)
        expect(page.locator("#scales [value='3'] small")).to_contain_text("2.2\u00a0MP, ")
        expect(page.locator("#scales [value='3']")).to_have_attribute(
            "title", re.compile(r"^0\.2\u00a0MP to 2\.2\u00a0MP, about \d+ s$")
        )
        progress = re.compile(r"\d+ % · about \d+ s left · superres")
        wait_until(lambda: any(map(progress.match, page.evaluate("window.titles"))))
        asked: list[str] = []

        def stay(dialog: Dialog) -> None:
            asked.append(dialog.type)
            dialog.dismiss()

        page.on("dialog", stay)
        page.close(run_before_unload=True)
        deadline = time.monotonic() + 30
        while not asked and time.monotonic() < deadline:
            page.wait_for_timeout(50)  # in which Playwright hears of it
        assert asked == ["beforeunload"]
        engine.go.set()
        expect(page.locator("#outcome")).to_be_visible(timeout=60_000)
        drawn(page)
        whole = [length for dry_run, length in sent if not dry_run]
        assert len(whole) == 1
        assert whole[0] > len(content)
        choose(page, large_heic(coffee), "phone.heic")  # which no browser here shows
        expect(page.locator("#scales [value='3'] small")).to_contain_text("2.2\u00a0MP, ")
        assert all(length < 70_000 for dry_run, length in sent if dry_run)


def large_heic(picture: RgbU8) -> bytes:
    """Over 64 kB."""
    data = heics.heic(picture, quality=100)
    assert len(data) > 70_000
    return data


def test_a_large_picture_is_first_made_twice_as_large(
    serve, srcnn_card: ModelCard, open_page: OpenPage, cat: bytes
):
    large = encoded(np.zeros((2100, 2000, 3), np.uint8), "JPEG")
    engine = HeldEngine(srcnn_card)
    with serve({srcnn_card.name: engine}) as service:
        page = open_page(str(service.base_url))
        choose(page, large, "large.jpg")
        expect(page.locator("#scale")).to_have_value("2")
        page.get_by_role("button", name="Cancel").click()
        choose(page, cat)
        expect(page.get_by_role("button", name="×3")).to_have_attribute("aria-pressed", "true")
        engine.go.set()


def test_several_pictures_are_jobs_with_one_download_each_and_one_zip(
    fake_service, open_page: OpenPage, screenshot, chelsea: RgbU8
):
    page = open_page(str(fake_service.base_url))
    page.evaluate("window.showSaveFilePicker = undefined")  # nobody is there to choose
    asked: list[str | None] = []
    page.on(
        "request",
        lambda request: (
            "dry_run" in request.url or asked.append(request.headers.get("prefer"))
            if request.method == "POST"
            else None
        ),
    )
    files = [
        payload(encoded(chelsea[top : top + 60, :90]), name)
        for top, name in ((0, "a.png"), (60, "b.png"), (120, "a.png"))
    ]
    page.locator("#file").set_input_files([*files, payload(b"", "empty.png")])
    items = page.locator("#film li")
    expect(items).to_have_count(4)
    expect(page.locator("#film li[data-state=done]")).to_have_count(3, timeout=60_000)
    expect(page.locator("#film li[data-state=failed]")).to_have_count(1)
    drawn(page)
    screenshot(page, "enhance-batch-light")
    assert_accessible(page)
    expect(page.locator("#film li .button:visible")).to_have_count(3)
    assert asked == ["respond-async"] * 3
    with page.expect_download() as download:
        page.get_by_role("button", name="Save all 3 (zip)").click()
    downloaded = Path(download.value.path()).read_bytes()
    with zipfile.ZipFile(io.BytesIO(downloaded)) as archive:
        assert sorted(archive.namelist()) == ["a-x3-2.png", "a-x3.png", "b-x3.png"]
        assert archive.testzip() is None
        with Image.open(archive.open("b-x3.png")) as image:
            assert image.size == (270, 180)
    assert len(streamed_zip(page)) == len(downloaded)
    assert not fake_service.get("/jobs").json()["jobs"]
    items.nth(3).get_by_role("button").first.click()
    expect(page.locator("#problem")).to_have_text(
        "empty.png is empty. Choose the file again, or another one."
    )
    page.get_by_role("button", name="Remove empty.png").click()
    expect(items).to_have_count(3)


def streamed_zip(page: Page) -> bytes:
    """What "Save all" writes into a file that a person has chosen; here, one of the browser's."""
    page.evaluate("""async () => {
        const folder = await navigator.storage.getDirectory();
        window.showSaveFilePicker = (options) =>
            folder.getFileHandle(options.suggestedName, { create: true });
    }""")
    page.get_by_role("button", name="Save all 3 (zip)").click()
    read = """async () => {
        const folder = await navigator.storage.getDirectory();
        const file = await (await folder.getFileHandle("superres.zip")).getFile();
        return Array.from(new Uint8Array(await file.arrayBuffer()));
    }"""
    wait_until(lambda: page.evaluate(f"({read})().then((bytes) => bytes.length)") > 0)
    return bytes(page.evaluate(read))


def test_changed_settings_update_a_result_and_two_results_are_compared(
    fake_service, open_page: OpenPage, cat: bytes
):
    page = open_page(str(fake_service.base_url))
    enhance(page, cat)
    expect(page.locator("#go")).to_be_disabled()
    page.get_by_role("button", name="×2").click()
    expect(page.locator("#curl")).to_contain_text("scale=2")
    page.get_by_role("button", name="Update").click()
    expect(page.locator("#film li[data-state=done]")).to_have_count(2, timeout=60_000)
    drawn(page)
    page.get_by_label("Compare with").select_option("srcnn-x3 ×3")
    expect(page.locator(".tag.left")).to_have_text("srcnn-x3 ×3")
    expect(page.locator(".tag.right")).to_have_text("srcnn-x2 ×2")
    page.locator("#film li").first.get_by_role("button").first.click()
    expect(page.locator("#scale")).to_have_value("3")


def test_both_sides_of_a_transparent_picture_are_clipped(fake_service, open_page: OpenPage):
    """Black ink on nothing, and a divider: what lies below must not be seen through it."""
    ink = np.zeros((120, 160, 4), np.uint8)
    ink[30:90, ::8, 3] = ink[30:90, 1::8, 3] = 255
    page = open_page(str(fake_service.base_url))
    data = io.BytesIO()
    Image.fromarray(ink).save(data, "PNG")
    enhance(page, data.getvalue())
    drawn(page)
    frame = page.locator(".frame")
    before = page.get_by_label("Divider")

    page.locator(".divider").evaluate("element => element.style.display = 'none'")

    def shown(where: str) -> np.ndarray:
        drawn_before = int(page.locator("figure").get_attribute("data-drawn") or 0)
        before.fill(where)
        page.wait_for_function(
            "n => document.querySelector('figure').dataset.drawn > n", arg=drawn_before
        )
        return pixels(frame.screenshot())

    left, half, right = shown("100"), shown("50"), shown("0")
    middle = left.shape[1] // 2
    assert np.array_equal(half[60:, : middle - 2], left[60:, : middle - 2])
    assert np.array_equal(half[60:, middle + 2 :], right[60:, middle + 2 :])
    assert not np.array_equal(left, right)
    light = right.max()
    page.get_by_role("button", name="Dark squares").click()
    wait_until(lambda: shown("0")[40:80, middle].max() < light)


def test_models_that_win_are_offered_by_name(
    serve, open_page: OpenPage, chelsea: RgbU8, tmp_path: Path
):
    models = link_models(tmp_path / "models", "srcnn-x3", "edsr-nano-x3")
    cards = {name: _card(name) for name in ("srcnn-x3", "edsr-nano-x3")}
    engines = {
        "srcnn-x3": BlurEngine(cards["srcnn-x3"].geometry),
        "edsr-nano-x3": Plain(cards["edsr-nano-x3"].geometry),
    }
    with serve(engines, models=models) as service:
        page = open_page(str(service.base_url))
        enhance(page, encoded(chelsea))
        expect(page.locator("#verdict")).to_contain_text("Plain enlarging is better here")
        offer = page.locator("#others button")
        expect(offer).to_contain_text("Fastest (+", timeout=60_000)
        offer.click()
        expect(page.locator("#verdict")).to_contain_text("harper than plain", timeout=60_000)
        expect(page.locator("#download")).to_be_visible()


class Plain(BlurEngine):
    """Makes of a small picture what a better method than bicubic would."""

    def predict(self, tiles):
        size = tiles.shape[2] * self.geometry.upscale, tiles.shape[1] * self.geometry.upscale
        integers = tiles if tiles.dtype == np.uint8 else np.rint(tiles * 255).astype(np.uint8)
        lanczos = Image.Resampling.LANCZOS
        return np.stack(
            [np.asarray(Image.fromarray(one).resize(size, lanczos)) for one in integers]
        )


def _card(name: str) -> ModelCard:
    return next(card for card in read_cards(DEFAULT_MODELS) if card.name == name)


def test_escape_cancels_and_closes(serve, srcnn_card: ModelCard, open_page: OpenPage, cat: bytes):
    engine = HeldEngine(srcnn_card)
    with serve({srcnn_card.name: engine}) as service:
        page = open_page(str(service.base_url))
        page.locator("#kinds > summary").click()
        page.keyboard.press("Escape")
        assert page.locator("#kinds").evaluate("details => !details.open")
        choose(page, cat)
        expect(page.locator("#status")).to_contain_text("Enhancing", timeout=60_000)
        page.keyboard.press("Escape")
        expect(page.locator("#cancelled")).to_be_visible()
        engine.go.set()


def test_without_javascript_a_form_makes_the_picture(fake_service, chromium, cat: bytes):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(str(fake_service.base_url))
    page.locator("#file").set_input_files(payload(cat))
    with page.expect_response("**/enhance") as answer:
        page.get_by_role("button", name="Enhance").click()
    assert answer.value.status == 200
    assert answer.value.headers["content-type"].startswith("image/")
    context.close()


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one != DEFAULT])
def test_the_page_speaks_the_browsers_language(
    fake_service, open_page: OpenPage, cat: bytes, language: str
):
    page = open_page(
        str(fake_service.base_url), locale=language, viewport=SIZES["narrow"]["viewport"]
    )
    assert page.locator("html").get_attribute("lang") == language
    in_sight(page)
    enhance(page, cat)
    drawn(page)
    in_sight(page, "#verdict", "#download")
    expect(page.locator("#verdict")).to_contain_text(read_words(language)["verdict_sharper"])


def test_a_camera_raw_file_is_refused_before_it_is_sent(fake_service, open_page: OpenPage):
    page = open_page(str(fake_service.base_url))
    choose(page, b"II*\0....CR", "IMG_0001.CR2")
    expect(page.get_by_role("alert")).to_have_text(
        "IMG_0001.CR2 is a camera raw file. Develop it to TIFF or JPEG first."
    )
    expect(page.locator("#drop")).to_be_visible()


def test_forced_colours_and_print_keep_what_matters(
    fake_service, open_page: OpenPage, screenshot, cat: bytes
):
    page = open_page(str(fake_service.base_url), forced_colors="active")
    enhance(page, cat)
    drawn(page)
    screenshot(page, "enhance-forced-colours")
    chosen, other = (
        page.locator(f"#scales [aria-pressed={pressed}]").first.evaluate(
            "element => getComputedStyle(element).backgroundColor"
        )
        for pressed in ("true", "false")
    )
    assert chosen != other  # by the system's colours alone
    outline = page.locator(".frame").evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"
    page.emulate_media(media="print", forced_colors="none")
    screenshot(page, "enhance-print")
    visible: list[Locator] = [page.locator(name) for name in (".frame", "#verdict")]
    for shown in visible:
        expect(shown).to_be_visible()
    for name in ("#settings", ".tools", "#download", "header"):
        expect(page.locator(name)).to_be_hidden()


def test_a_result_of_108_megapixels_neither_blocks_the_page_nor_fills_the_memory(
    fake_service, open_page: OpenPage, chelsea: RgbU8, tmp_path: Path
):
    """The answer is made here, as the fake engine would take long."""
    small = np.tile(chelsea[:300, :400], (10, 10, 1))
    given = encoded(small, "JPEG")
    made = encoded(small.repeat(3, axis=0).repeat(3, axis=1), "JPEG")
    headers = {
        "X-Model": "srcnn-x3@0",
        "X-Output-Size": "12000x9000",
        "X-Notes": "",
        "X-Proof-Gain-dB": "-0.5",  # then the page cuts a part on which to try other models
        "X-Proof-Bicubic-dB": "30",
        "X-Proof-Model-dB": "29.5",
    }
    page = open_page(str(fake_service.base_url))
    page.route(
        lambda address: "/enhance?" in address and "dry_run" not in address,
        lambda route: route.fulfill(body=made, content_type="image/jpeg", headers=headers),
    )
    page.evaluate("""() => {
        window.tasks = [0];
        new PerformanceObserver((list) => {
            for (const task of list.getEntries()) window.tasks.push(task.duration);
        }).observe({ type: "longtask" });
    }""")
    file = tmp_path / "large.jpg"
    file.write_bytes(given)
    page.locator("#file").set_input_files(file)
    drawn(page)
    for where in ("20", "80"):
        page.get_by_label("Divider").fill(where)
    page.get_by_role("button", name="1:1").click()
    expect(page.locator(".percent")).to_have_text("100 %")
    page.locator(".frame").hover(position={"x": 20, "y": 20})
    page.mouse.wheel(0, 50)
    expect(page.locator(".percent")).to_have_text("85 %")
    drawn(page)
    longest = max(page.evaluate("window.tasks"))
    # Decoding takes seconds; what the page does with the result, about 50 ms.
    assert longest < 200
    peak = max(map(_peak_bytes, _renderers(page)))
    assert peak < 1.5e9


def _renderers(page: Page) -> list[int]:
    """Processes of Chromium that show pages."""
    session = page.context.browser.new_browser_cdp_session()  # type: ignore[union-attr]
    found = session.send("SystemInfo.getProcessInfo")["processInfo"]
    return [one["id"] for one in found if one["type"] == "renderer"]


def _peak_bytes(pid: int) -> int:
    return resident_bytes(pid, peak=True)
