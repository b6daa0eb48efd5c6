"""The page, as people use it, in a real Chromium."""

import base64
import io
import re
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, expect

from app.access import make_key
from superres.arrays import RgbU8
from superres.codecs import decode
from superres.models.card import ModelCard
from tests.engines import BlurEngine, HeldEngine
from tests.integration.test_callers import wait_until_idle
from tests.integration.test_errors import Stuck
from tests.integration.test_jobs import order
from tests.integration.test_watchers import open_events
from tests.pictures import animated, bomb, encoded, plain
from tests.serving import wait_until

OpenPage = Callable[..., Page]
Screenshot = Callable[[Page, str], None]
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}


@pytest.fixture(scope="module")
def cat(chelsea: RgbU8) -> bytes:
    """90 high, 120 wide: at x3 it fits on a screen."""
    return encoded(chelsea[60:150, 100:220])


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
    assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == []


def test_the_slower_and_better_way_is_a_box_to_tick(fake_service, open_page: OpenPage, cat: bytes):
    page = open_page(str(fake_service.base_url))
    page.get_by_label("A bit better, 8× slower").check()
    enhance(page, cat)
    expect(page.locator(".tag.right")).to_have_text("srcnn-x3+ensemble")
    expect(page.locator("#curl")).to_contain_text("ensemble=true")
    assert_accessible(page)
    page.get_by_role("link", name="Compare").click()
    page.get_by_label("A bit better, 8× slower").check()
    page.get_by_role("button", name="rocket").click()
    expect(page.locator(".scores")).to_contain_text("srcnn-x3+ensemble")
    expect(page.get_by_label("A bit better, 8× slower")).to_be_checked()


def test_a_dropped_picture_is_enhanced_shown_and_downloaded(
    serve, srcnn_card, open_page: OpenPage, screenshot: Screenshot, chelsea, tmp_path: Path
):
    engine = HeldEngine(srcnn_card)
    with serve({srcnn_card.name: engine}) as service:
        page = open_page(str(service.base_url))
        screenshot(page, "enhance-empty-light")
        picture = encoded(chelsea)
        page.evaluate("""() => {
            window.seen = [];
            new MutationObserver(() => window.seen.push(document.getElementById("progress").value))
                .observe(document.getElementById("progress"), { attributes: true });
        }""")
        hand_over(page, "drop", picture)
        expect(page.get_by_role("progressbar")).to_be_visible()
        expect(page.locator("#status")).to_contain_text("Enhancing to 1.2 megapixels")
        screenshot(page, "enhance-progress-light")
        engine.go.set()
        expect(page.locator("#outcome")).to_be_visible(timeout=60_000)
        seen = page.evaluate("window.seen")
        assert seen == sorted(seen)
        assert len(set(seen)) > 3
        screenshot(page, "enhance-result-light")

        expected = service.post("/enhance?scale=3&proof=true", content=picture)
        gain = float(expected.headers["x-proof-gain-db"])
        expect(page.locator("#gain")).to_have_text(f"+{gain:.1f} dB over bicubic, on your picture")
        expect(page.locator("#proof")).to_contain_text("An estimate: your picture was shrunk by 3")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download PNG").click()
        assert download.value.suggested_filename == "cat-x3.png"
        download.value.save_as(tmp_path / "cat-x3.png")
        assert decode((tmp_path / "cat-x3.png").read_bytes()).size == (900, 1353)
        assert (tmp_path / "cat-x3.png").read_bytes() == expected.content

        # The command that is shown makes the same file.
        (tmp_path / "cat.png").write_bytes(picture)
        (tmp_path / "again").mkdir()
        command = page.locator("#curl").inner_text().replace("@cat.png", "@../cat.png")
        subprocess.run(
            ["bash", "-c", command], cwd=tmp_path / "again", check=True, capture_output=True
        )
        assert (tmp_path / "again" / "cat-x3.png").read_bytes() == expected.content


def test_at_one_to_one_each_side_of_the_divider_shows_its_own_pixels(fake_service, open_page, cat):
    page = open_page(str(fake_service.base_url))
    enhance(page, cat)
    expect(page.locator(".percent")).to_have_text("100 %")
    for over in page.locator(".divider, .tag").all():
        over.evaluate("element => element.hidden = true")
    shown = [
        decode(fake_service.post("/enhance", content=cat, params=query).content).rgb
        for query in ({"fallback": "always"}, {})
    ]
    box = page.locator(".frame img").last.bounding_box()
    assert box is not None
    assert (box["width"], box["height"]) == (360, 270)
    for where, expected in ((100, shown[0]), (0, shown[1])):
        page.get_by_label("Divider").fill(str(where))
        assert np.array_equal(pixels(page.screenshot(clip=box)), expected)
    page.get_by_label("Divider").fill("50")
    half = pixels(page.screenshot(clip=box))
    assert np.array_equal(half[:, :179], shown[0][:, :179])
    assert np.array_equal(half[:, 181:], shown[1][:, 181:])


def test_the_divider_is_dragged_and_a_zoomed_picture_is_panned(fake_service, open_page, chelsea):
    page = open_page(str(fake_service.base_url))
    enhance(page, encoded(chelsea))
    frame = page.locator(".frame")

    def drag(start: float, end: float) -> None:
        frame.scroll_into_view_if_needed()
        box = frame.bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + start * box["width"], middle)
        page.mouse.down()
        page.mouse.move(box["x"] + end * box["width"], middle, steps=5)
        page.mouse.up()

    divider = page.get_by_label("Divider")
    drag(0.5, 0.25)
    assert float(divider.input_value()) == pytest.approx(25, abs=0.6)

    page.get_by_role("button", name="1:1").click()
    expect(page.locator(".percent")).to_have_text("100 %")
    pictures = page.locator(".frame img:visible")
    box = frame.bounding_box()
    before = [pictures.nth(i).bounding_box() for i in range(2)]
    assert before[0] == before[1]
    drag(0.6, 0.55)
    after = [pictures.nth(i).bounding_box() for i in range(2)]
    assert after[0] == after[1]
    assert after[0]["x"] == pytest.approx(before[0]["x"] - 0.05 * box["width"], abs=1.5)
    assert float(divider.input_value()) == pytest.approx(25, abs=0.6)
    drag(0.25, 0.75)  # on the divider itself, a drag moves it still
    assert float(divider.input_value()) == pytest.approx(75, abs=0.6)

    page.mouse.wheel(0, -300)
    expect(page.locator(".percent")).not_to_have_text("100 %")
    frame.dblclick()
    page.get_by_role("button", name="Fit", exact=True).click()
    fitted = pictures.first.bounding_box()
    assert fitted["width"] <= box["width"]
    assert fitted["height"] <= box["height"] + 1


def test_the_loupe_shows_both_pictures_at_one_to_one(
    fake_service, open_page: OpenPage, screenshot: Screenshot, chelsea
):
    page = open_page(str(fake_service.base_url))
    picture = encoded(chelsea)
    enhance(page, picture)
    page.get_by_role("button", name="Loupe").click()
    box = page.locator(".frame").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    screenshot(page, "enhance-loupe-light")
    drawn = page.locator(".loupe").evaluate("canvas => canvas.toDataURL()")
    loupe = pixels(base64.b64decode(drawn.split(",")[1]))
    assert loupe.shape == (150, 300, 3)
    for pane, query in ((loupe[:, :148], {"fallback": "always"}), (loupe[:, 152:], {})):
        whole = decode(fake_service.post("/enhance", content=picture, params=query).content).rgb
        # Which pixel is under the pointer is known to one pixel or so.
        height, width = pane.shape[:2]
        top, left = (whole.shape[0] - 150) // 2, (whole.shape[1] - 150) // 2
        left += 0 if query else 2
        errors = [
            np.abs(
                whole[top + y : top + y + height, left + x : left + x + width].astype(int) - pane
            ).mean()
            for y in range(-4, 5)
            for x in range(-4, 5)
        ]
        assert min(errors) < 2.5
        assert min(errors) < 0.7 * np.median(errors)


def test_everything_is_done_by_keyboard(fake_service, open_page: OpenPage, cat, tmp_path: Path):
    page = open_page(str(fake_service.base_url))
    # Expected well before the key, which may else open Chromium's own chooser.
    with page.expect_file_chooser() as chooser:
        tab_to(page, page.locator("#file"))
        page.keyboard.press("Space")
    chooser.value.set_files(payload(cat))
    expect(page.locator("#outcome")).to_be_visible(timeout=60_000)

    frame = page.locator(".frame")
    tab_to(page, frame)
    for _ in range(5):
        page.keyboard.press("+")
    expect(page.locator(".percent")).to_have_text("759 %")
    before = page.locator(".frame img").last.bounding_box()
    page.keyboard.press("ArrowRight")
    after = page.locator(".frame img").last.bounding_box()
    assert after["x"] == before["x"] - 40
    page.keyboard.press("l")
    expect(page.locator(".loupe")).to_be_visible()
    page.keyboard.press("0")
    expect(page.locator(".percent")).to_have_text("100 %")

    divider = page.get_by_label("Divider")
    tab_to(page, divider)
    page.keyboard.press("ArrowLeft")
    assert float(divider.input_value()) == 49.5

    tab_to(page, page.locator("#download"))
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert decode(Path(download.value.path()).read_bytes()).size == (270, 360)

    tab_to(page, page.get_by_role("button", name="coffee"))
    page.keyboard.press("Enter")
    expect(page.locator("#curl")).to_contain_text("coffee-x3.png", timeout=60_000)


def test_scale_and_model_are_picked_from_what_there_is(fake_service, open_page: OpenPage, cat):
    page = open_page(str(fake_service.base_url))
    models = fake_service.get("/models").json()["models"]
    offered = page.locator("#model option").all_inner_texts()
    assert offered[0] == "Auto: chosen for each picture"
    expect(page.locator("#model")).to_have_value("srcnn")  # the default of this service
    assert {model["name"] for model in models} < set(offered)
    assert {model["family"] for model in models} < set(offered)
    scales = page.locator("#scales button").all_inner_texts()
    assert scales == [
        f"×{scale}"
        for scale in sorted({model["scale"] for model in models if model["name"] != "bicubic"})
    ]
    page.get_by_role("button", name="×2").click()
    page.locator("#model").select_option("srcnn-x3")
    enhance(page, cat, 'it\'s; a "cat".png')
    command = page.locator("#curl").inner_text()
    assert "scale=2&model=srcnn-x3" in command
    split = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    assert split.stdout.splitlines()[2] == 'file=@"it\'s; a \\"cat\\".png"'
    page.locator("#scale").fill("1.25")
    page.get_by_role("button", name="Enhance").click()
    expect(page.locator("#proof")).to_contain_text(
        "no proof below a scale of 1.5", ignore_case=True
    )


def test_a_picture_is_pasted(fake_service, open_page: OpenPage, cat):
    page = open_page(str(fake_service.base_url))
    hand_over(page, "paste", cat)
    expect(page.locator("#outcome")).to_be_visible(timeout=60_000)


def test_where_bicubic_is_better_the_page_says_so(
    serve, srcnn_card: ModelCard, open_page: OpenPage, cat
):
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as service:
        page = open_page(str(service.base_url))
        enhance(page, cat)
        expect(page.locator("#gain")).to_contain_text("under bicubic, on your picture: bicubic is")


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("/", b"", "The picture cannot be read: the picture is empty: 0 bytes."),
        ("/compare", b"", "The picture cannot be read: the picture is empty: 0 bytes."),
        (
            "/",
            b"hello",
            "Not a format that is read here: not a picture in a format that is read here",
        ),
        ("/", plain()[:50], "The picture cannot be read: the picture cannot be decoded"),
        ("/", animated("GIF"), "Animated and multi-page pictures are not enhanced: one frame"),
        ("/", bomb(), "The picture has too many pixels: at most 64,000,000 input pixels"),
    ],
)
def test_a_file_that_is_no_picture_for_us_is_told_in_a_sentence(
    fake_service, open_page: OpenPage, path, content, says
):
    page = open_page(str(fake_service.base_url) + path)
    choose(page, content)
    expect(page.get_by_role("alert")).to_contain_text(says)
    expect(page.get_by_role("progressbar")).to_be_hidden()
    expect(page.locator("#drop")).to_be_visible()


def test_a_scale_out_of_range_is_told_and_then_mended(
    fake_service, open_page: OpenPage, screenshot: Screenshot, cat
):
    page = open_page(str(fake_service.base_url))
    page.locator("#scale").fill("9")
    choose(page, cat)
    alert = page.get_by_role("alert")
    expect(alert).to_have_text(
        "Invalid parameter: scale: input should be less than or equal to 4, not '9'."
    )
    assert_accessible(page)
    screenshot(page, "enhance-problem-light")
    page.get_by_role("button", name="×2").click()
    page.get_by_role("button", name="Enhance").click()
    expect(page.locator("#outcome")).to_be_visible(timeout=60_000)
    expect(alert).to_be_hidden()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_body_bytes": 1000}, "The body has too many bytes: a body has at most 1,000 bytes"),
        ({"max_output_pixels": 1000}, "The picture has too many pixels: at most 1,000 output"),
        ({"deadline_s": 0.2}, "Deadline exceeded: "),
    ],
)
def test_the_services_limits_are_told_in_a_sentence(
    serve, srcnn_card: ModelCard, open_page: OpenPage, cat, settings, says
):
    engine = Stuck(srcnn_card)
    with serve({srcnn_card.name: engine}, **settings) as service:
        page = open_page(str(service.base_url))
        choose(page, cat)
        expect(page.get_by_role("alert")).to_contain_text(says)
        engine.go.set()


def test_a_busy_service_is_told_and_a_wait_can_be_cancelled(
    serve, srcnn_card: ModelCard, open_page: OpenPage, cat
):
    engine = Stuck(srcnn_card)
    with serve({srcnn_card.name: engine}, max_requests=1) as service, ThreadPoolExecutor() as pool:
        waiting = pool.submit(service.post, "/enhance", content=plain())
        page = open_page(str(service.base_url))
        page.wait_for_function(
            "fetch('metrics').then((a) => a.text())"
            ".then((t) => t.includes('superres_pictures_in_progress 1.0'))"
        )
        choose(page, cat)
        expect(page.get_by_role("alert")).to_contain_text("The service is busy: at most 1 pictures")
        expect(page.get_by_role("alert")).to_contain_text("Try again in ")
        engine.go.set()
        assert waiting.result().status_code == 200

        engine.go.clear()
        page.get_by_role("button", name="Enhance").click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#drop")).to_be_visible()
        expect(page.get_by_role("alert")).to_be_hidden()
        engine.go.set()


class Rationed:
    """A device that gives so many tiles back, and then waits for more to be allowed."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)

    def predict(self, tiles):
        for _ in tiles:
            self.allowed.acquire(timeout=100)
        return tiles


@pytest.mark.slow
def test_a_large_picture_is_a_job_whose_tiles_are_counted_and_cancelling_removes_it(
    serve, srcnn_card: ModelCard, open_page: OpenPage, screenshot: Screenshot
):
    large = encoded(np.zeros((950, 1000, 3), np.uint8), "JPEG")
    engine = Rationed()
    working = re.compile(r"Enhancing to 8\.5 megapixels \([1-9]\d* of 42 tiles\)")
    with serve({srcnn_card.name: engine}) as service:

        def wait_for(jobs: dict[str, int]) -> None:
            counted = [f'superres_jobs{{state="{state}"}} {n:.1f}' for state, n in jobs.items()]
            wait_until(lambda: all(line in service.get("/metrics").text for line in counted))

        page = open_page(str(service.base_url))
        page.evaluate("""() => {
            window.seen = [];
            new MutationObserver(() => window.seen.push(document.getElementById("progress").value))
                .observe(document.getElementById("progress"), { attributes: true });
        }""")
        choose(page, large, "large.jpg")
        engine.allowed.release(30)
        expect(page.locator("#status")).to_have_text(working)
        screenshot(page, "enhance-job-light")
        engine.allowed.release(1000)
        expect(page.locator("#outcome")).to_be_visible(timeout=60_000)
        seen = page.evaluate("window.seen")
        assert seen == sorted(seen)
        assert len(set(seen)) > 5
        expect(page.locator("#download")).to_contain_text("Download JPEG")
        wait_for({"running": 0, "done": 0})

        engine.allowed = threading.Semaphore(30)
        page.get_by_role("button", name="Enhance", exact=True).click()
        expect(page.locator("#status")).to_have_text(working)
        wait_for({"running": 1})
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#drop")).to_be_visible()
        expect(page.get_by_role("alert")).to_be_hidden()
        wait_for({"running": 0, "done": 0, "failed": 0})
        engine.allowed.release(1000)
        wait_until_idle(service)


@pytest.mark.slow
def test_without_room_for_its_stream_of_events_the_page_asks_for_its_job(
    serve, srcnn_card: ModelCard, open_page: OpenPage
):
    engine = Rationed()
    large = encoded(np.zeros((950, 1000, 3), np.uint8), "JPEG")
    with (
        serve({srcnn_card.name: engine}, max_watchers=1) as service,
        ExitStack() as streams,
    ):
        open_events(streams, service, order(service, encoded(np.zeros((9, 9, 3), np.uint8))))
        page = open_page(str(service.base_url))
        with page.expect_response(lambda answer: answer.status == 503):
            choose(page, large, "large.jpg")
        engine.allowed.release(1000)
        expect(page.locator("#outcome")).to_be_visible(timeout=60_000)


def test_a_service_that_went_away_is_told_in_a_sentence(
    serve, srcnn_card: ModelCard, open_page: OpenPage, cat
):
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as service:
        page = open_page(str(service.base_url))
    choose(page, cat)
    expect(page.get_by_role("alert")).to_have_text(
        "The service did not answer. Is it still running?"
    )


def test_a_sample_is_compared_with_a_table_and_difference_maps(
    fake_service: httpx.Client, open_page: OpenPage, screenshot: Screenshot
):
    page = open_page(f"{fake_service.base_url}/compare?sample=chelsea&scale=2")
    report = fake_service.get("/compare?sample=chelsea&scale=2").json()
    expect(page.locator(".gain")).to_have_text(f"+{report['gain_db']:.2f} dBover bicubic")
    cells = page.locator("tbody td").all_inner_texts()
    assert cells == [
        f"{report[method][score]:.{digits}f}"
        for method in ("bicubic", "sr")
        for score, digits in (("psnr_y", 2), ("ssim_y", 4))
    ]
    expect(page.locator(".percent")).to_have_text("100 %")
    screenshot(page, "compare-sample-light")
    page.get_by_label("What to show").select_option("differences")
    expect(page.locator(".tag").first).to_have_text("bicubic’s difference")
    expect(page.get_by_alt_text("How far srcnn-x2 is from the original")).to_be_visible()
    screenshot(page, "compare-differences-light")
    maps = [
        page.locator(f'[data-name="{name}-difference"]').evaluate(
            """(img) => {
                const canvas = document.createElement("canvas");
                [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
                const context = canvas.getContext("2d");
                context.drawImage(img, 0, 0);
                const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
                return data.reduce((sum, value) => sum + value, 0) / data.length;
            }"""
        )
        for name in ("bicubic", "sr")
    ]
    assert maps[0] > maps[1]
    page.get_by_role("button", name="rocket").click()
    page.wait_for_url("**/compare?sample=rocket&scale=2&model=srcnn")
    assert_accessible(page)


def test_an_upload_is_compared_as_the_truth(fake_service, open_page: OpenPage, screenshot, coffee):
    page = open_page(f"{fake_service.base_url}/compare")
    choose(page, encoded(coffee[:200, :300]), "mine.png")
    report = fake_service.post("/compare", content=encoded(coffee[:200, :300])).json()
    expect(page.locator(".gain")).to_contain_text(f"{report['gain_db']:.2f} dB", timeout=60_000)
    expect(page.locator(".percent")).to_have_text("100 %")
    expect(page.locator("caption")).to_contain_text("300 × 198")
    screenshot(page, "compare-upload-light")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {}),
        pytest.param("dark", {"color_scheme": "dark"}, marks=pytest.mark.slow),
        pytest.param("phone", PHONE, marks=pytest.mark.slow),
        ("phone-dark", PHONE | {"color_scheme": "dark"}),
    ],
)
def test_it_is_accessible_and_fits_in_light_in_dark_and_on_a_phone(
    fake_service, open_page: OpenPage, screenshot: Screenshot, chelsea, name, options
):
    page = open_page(str(fake_service.base_url), **options)

    def look(what: str) -> None:
        screenshot(page, f"{what}-{name}")
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    look("enhance-empty")
    enhance(page, encoded(chelsea))
    look("enhance-result")
    page.get_by_role("link", name="Compare").click()
    expect(page.locator(".percent")).to_contain_text("%")
    expect(page.locator(".percent")).not_to_be_empty()
    look("compare-sample")


def test_a_finger_drags_the_divider_on_a_phone(fake_service, open_page: OpenPage, cat):
    page = open_page(str(fake_service.base_url), **PHONE)
    enhance(page, cat)
    box = page.locator(".frame").bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    assert float(page.get_by_label("Divider").input_value()) == pytest.approx(30, abs=0.6)


def test_a_service_with_keys_is_given_one_which_the_tab_keeps(
    serve, open_page: OpenPage, screenshot: Screenshot, srcnn_card: ModelCard, cat
):
    key, entry = make_key("alice")
    engines = {srcnn_card.name: BlurEngine(srcnn_card.geometry)}
    with serve(engines, api_keys=entry) as service:
        page = open_page(f"{service.base_url}", "#key-dialog[open]")
        assert_accessible(page)
        screenshot(page, "key-light")
        field = page.get_by_label("The key that its operator gave you")
        field.fill("superres_wrong")
        field.press("Enter")
        expect(page.get_by_text("That key was not accepted.")).to_be_visible()
        assert_accessible(page)
        field.fill(key)
        page.get_by_role("button", name="Go on").click()
        expect(page.locator("#scales button").first).to_be_visible()
        enhance(page, cat)
        assert "$SUPERRES_KEY" in page.locator("#curl").inner_text()
        assert key not in page.content()

        page.get_by_role("link", name="Compare").click()
        expect(page.locator(".gain")).to_contain_text("dB")
        expect(page.locator(".percent")).not_to_be_empty()
        expect(page.locator("#drop")).to_be_hidden()

        # Another tab knows nothing of it, and one may go on without.
        other = open_page(f"{service.base_url}", "#key-dialog[open]")
        other.get_by_role("button", name="Not now").click()
        choose(other, cat)
        expect(other.locator("#key-dialog")).to_be_visible()
        other.keyboard.press("Escape")
        expect(other.locator("#problem")).to_contain_text("A key is needed")


def test_the_docs_offer_to_send_a_key(fake_service, open_page: OpenPage):
    page = open_page(f"{fake_service.base_url}/docs", ".opblock")
    page.locator(".btn.authorize").click()
    expect(page.get_by_text("A key that the operator gave you.")).to_be_visible()


@pytest.mark.slow
def test_more_settings_ask_for_a_size(fake_service, open_page: OpenPage, screenshot, cat: bytes):
    page = open_page(str(fake_service.base_url))
    page.locator("#advanced > summary").click()
    page.get_by_label("Width").fill("200")
    page.get_by_label("Height").fill("200")
    page.get_by_label("Fit", exact=True).select_option("cover")
    page.get_by_label("Format").select_option("webp")
    page.get_by_label("Quality").fill("80")
    enhance(page, cat, "cat.png")
    screenshot(page, "more-settings")
    command = page.locator("#curl").inner_text()
    assert "width=200&height=200&fit=cover" in command
    assert "format=webp" in command
    assert "quality=80" in command
    assert "scale=" not in command
    assert "cat-200x200.webp" in command
    expect(page.locator("#proof")).to_contain_text("your picture was shrunk by 2.22")
    page.get_by_label("Proof").uncheck()
    page.get_by_label("Width").fill("")
    page.get_by_label("Fit", exact=True).select_option("default")
    page.get_by_role("button", name="Enhance").click()
    expect(page.locator("#gain")).to_have_text("267 × 200 pixels")
