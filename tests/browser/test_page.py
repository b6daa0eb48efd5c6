"""The page, as people use it, in a real Chromium."""

import base64
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Route, expect

from app.access import make_key
from superres.arrays import RgbU8
from superres.codecs import decode
from superres.engines.base import BATCH
from superres.models.card import ModelCard
from tests import heics
from tests.browser.people import (
    PHONE,
    OpenPage,
    Screenshot,
    assert_accessible,
    assert_no_sideways_scroll,
    choose,
    drawn,
    enhance,
    hand_over,
    open_settings,
    payload,
    pixels,
    tab_to,
)
from tests.engines import BlurEngine, HeldEngine
from tests.integration.test_callers import wait_until_idle
from tests.integration.test_errors import Stuck
from tests.integration.test_jobs import order
from tests.integration.test_watchers import open_events
from tests.pictures import animated, bomb, encoded, plain
from tests.serving import wait_until


@pytest.fixture(scope="module")
def cat(chelsea: RgbU8) -> bytes:
    """90 high, 120 wide: at x3 it fits on a screen."""
    return encoded(chelsea[60:150, 100:220])


@pytest.mark.slow
def test_the_slower_and_better_way_is_a_box_to_tick(fake_service, open_page: OpenPage, cat: bytes):
    page = open_page(str(fake_service.base_url))
    open_settings(page)
    page.get_by_label("A bit better, 8× slower").check()
    enhance(page, cat)
    expect(page.locator("#method")).to_contain_text("srcnn-x3+ensemble")
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
        expect(page.locator("#status")).to_contain_text("Enhancing to 1.2\u00a0MP")
        screenshot(page, "enhance-progress-light")
        # It goes on while nothing is heard of the service.
        wait_until(lambda: page.get_by_role("progressbar").evaluate("bar => bar.value") > 0.2)
        engine.go.set()
        expect(page.locator("#outcome")).to_be_visible(timeout=60_000)
        seen = page.evaluate("window.seen")
        assert seen == sorted(seen)
        assert len(set(seen)) > 3
        screenshot(page, "enhance-result-light")

        expected = service.post("/enhance?scale=3&proof=true", content=picture)
        gain = float(expected.headers["x-proof-gain-db"])
        words = "Sharper than" if gain > 0.15 else "About the same as"
        said = f"{words} plain enlarging (+{gain:.1f}\u00a0dB)"
        expect(page.locator("#verdict")).to_have_text(said)
        expect(page.locator("#method")).to_contain_text("An estimate: the picture was shrunk")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download PNG").click()
        assert download.value.suggested_filename == "cat-x3.png"
        download.value.save_as(tmp_path / "cat-x3.png")
        assert decode((tmp_path / "cat-x3.png").read_bytes()).size == (900, 1353)
        assert (tmp_path / "cat-x3.png").read_bytes() == expected.content

        # The command that is shown makes the same file.
        (tmp_path / "cat.png").write_bytes(picture)
        (tmp_path / "again").mkdir()
        command = (page.locator("#curl").text_content() or "").replace("@cat.png", "@../cat.png")
        subprocess.run(
            ["bash", "-c", command], cwd=tmp_path / "again", check=True, capture_output=True
        )
        assert (tmp_path / "again" / "cat-x3.png").read_bytes() == expected.content


def test_at_one_to_one_each_side_of_the_divider_shows_its_own_pixels(fake_service, open_page, cat):
    page = open_page(str(fake_service.base_url))
    enhance(page, cat)
    drawn(page)
    expect(page.locator(".percent")).to_have_text("100 %")
    for over in page.locator(".divider, .tag").all():
        over.evaluate("element => element.style.visibility = 'hidden'")
    plain, enhanced = (
        decode(fake_service.post("/enhance", content=cat, params=query).content).rgb
        for query in ({"model": "bicubic"}, {})
    )
    frame = page.locator(".frame").bounding_box()
    assert frame is not None
    left, top = ((frame[side] - length) // 2 for side, length in (("width", 360), ("height", 270)))
    box = {"x": frame["x"] + left, "y": frame["y"] + top, "width": 360, "height": 270}

    def shown(where: int) -> np.ndarray:
        before = int(page.locator("figure").get_attribute("data-drawn") or 0)
        page.get_by_label("Divider").fill(str(where))
        page.wait_for_function(
            "n => document.querySelector('figure').dataset.drawn > n", arg=before
        )
        return pixels(page.screenshot(clip=box)).astype(int)

    wait_until(lambda: np.array_equal(shown(0), enhanced))
    # The browser enlarges the picture by itself, almost as the service does.
    wait_until(lambda: np.abs(shown(100)[8:-8, 8:-8] - plain[8:-8, 8:-8]).mean() < 1.5)
    half = shown(50)
    assert np.array_equal(half[:, 181:], enhanced[:, 181:])
    assert not np.array_equal(half[:, :179], enhanced[:, :179])


def test_the_divider_is_dragged_and_a_zoomed_picture_is_panned(fake_service, open_page, chelsea):
    page = open_page(str(fake_service.base_url))
    enhance(page, encoded(chelsea))
    drawn(page)
    frame = page.locator(".frame")

    def drag(start: float, end: float, down: float = 0.5) -> None:
        box = frame.bounding_box()
        at = box["y"] + box["height"] * down
        page.mouse.move(box["x"] + start * box["width"], at)
        page.mouse.down()
        page.mouse.move(box["x"] + end * box["width"], at, steps=5)
        page.mouse.up()

    divider = page.get_by_label("Divider")
    drag(0.5, 0.25, 0.05)
    assert float(divider.input_value()) == pytest.approx(25, abs=0.6)

    page.get_by_role("button", name="1:1").click()
    expect(page.locator(".percent")).to_have_text("100 %")
    before = page.locator(".box").bounding_box()
    width = frame.bounding_box()["width"]
    drag(0.6, 0.55, 0.05)
    after = page.locator(".box").bounding_box()
    assert after["x"] == pytest.approx(before["x"] - 0.05 * width, abs=3)
    assert float(divider.input_value()) == pytest.approx(25, abs=0.6)
    drag(0.25, 0.75, 0.05)  # on the divider itself, a drag moves it still
    assert float(divider.input_value()) == pytest.approx(75, abs=0.6)

    page.mouse.wheel(0, -300)  # at once, wherever the focus is
    expect(page.locator(".percent")).not_to_have_text("100 %")
    page.get_by_role("button", name="Fit", exact=True).click()
    expect(page.locator(".frame.pannable")).to_have_count(0)


@pytest.mark.slow
def test_the_detail_shows_both_pictures_at_one_to_one_where_they_differ_most(
    fake_service, open_page: OpenPage, screenshot: Screenshot, chelsea
):
    """Only a patch of noise is sharpened: the rest is flat."""
    picture = np.full_like(chelsea, 128)
    noisy = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    picture[200:260, 330:390] = noisy
    page = open_page(
        str(fake_service.base_url),
        viewport={"width": 640, "height": 900},
        device_scale_factor=2,
    )
    enhance(page, encoded(picture))
    drawn(page)
    box = page.locator(".box").bounding_box()
    frame = page.locator(".frame").bounding_box()
    zoom = float(page.locator(".percent").inner_text().removesuffix(" %")) / 100 / 2
    left = frame["x"] + (frame["width"] - 1353 * zoom) / 2
    at = [
        (box["x"] + box["width"] / 2 - left) / zoom / 3,
        (box["y"] + box["height"] / 2) / zoom / 3,
    ]
    assert 300 < at[0] < 420, at
    pane = page.locator(".detail").bounding_box()
    # At 1:1 of the screen: the box is what half of the pane has of the picture.
    assert box["width"] == pytest.approx((pane["width"] / 2 - 0.5) * 2 * zoom, abs=3)
    shown = pixels(page.screenshot(clip=pane)).astype(int)
    half = shown.shape[1] // 2
    whole = decode(fake_service.post("/enhance", content=encoded(picture)).content).rgb.astype(int)
    noise = whole[680:704, 1070:1094, 1]
    found = np.lib.stride_tricks.sliding_window_view(shown[:, half:, 1], noise.shape)
    assert (found == noise).all(axis=(2, 3)).any()
    screenshot(page, "enhance-detail-light")
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] - 35, box["y"] + 5, steps=3)
    page.mouse.up()
    moved = page.locator(".box").bounding_box()
    assert moved["x"] == pytest.approx(box["x"] - 40, abs=1.5)
    assert page.get_by_label("Divider").input_value() == "50"
    page.locator(".detail").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".box").bounding_box()["x"] < moved["x"]


def test_everything_is_done_by_keyboard(fake_service, open_page: OpenPage, cat, tmp_path: Path):
    page = open_page(str(fake_service.base_url))
    # Expected well before the key, which may else open Chromium's own chooser.
    with page.expect_file_chooser() as chooser:
        tab_to(page, page.locator("#file"))
        page.keyboard.press("Space")
    chooser.value.set_files(payload(cat))
    expect(page.locator("#outcome")).to_be_visible(timeout=60_000)

    drawn(page)
    frame = page.locator(".frame")
    tab_to(page, frame)
    for _ in range(5):
        page.keyboard.press("+")
    expect(page.locator(".percent")).to_have_text("759 %")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("0")
    expect(page.locator(".percent")).to_have_text("100 %")
    page.keyboard.down("Space")
    expect(page.get_by_role("button", name="Hold: before")).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(page.locator(".tag.right")).to_be_hidden()
    page.keyboard.up("Space")
    expect(page.locator(".tag.right")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()

    divider = page.get_by_label("Divider")
    tab_to(page, divider)
    page.keyboard.press("ArrowLeft")
    assert float(divider.input_value()) == 49.5
    assert divider.get_attribute("aria-valuetext") == "Before: 49.5 % of the width"

    tab_to(page, page.locator("#download"))
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert decode(Path(download.value.path()).read_bytes()).size == (270, 360)

    tab_to(page, page.get_by_role("button", name="coffee", exact=True))
    page.keyboard.press("Enter")
    expect(page.locator("#curl")).to_contain_text("coffee-x3.png", timeout=60_000)


def test_scale_and_model_are_picked_from_what_there_is(fake_service, open_page: OpenPage, cat):
    page = open_page(str(fake_service.base_url))
    models = fake_service.get("/models").json()["models"]
    offered = page.locator("[name=model]").evaluate_all("inputs => inputs.map((i) => i.value)")
    assert offered[0] == "auto"
    expect(page.locator("[value=srcnn]")).to_be_checked()  # the default of this service
    assert set(offered) == {"auto"} | {model[key] for model in models for key in ("name", "family")}
    scales = page.locator("#scales span").all_inner_texts()
    assert scales == [
        f"×{scale}"
        for scale in sorted({model["scale"] for model in models if model["name"] != "bicubic"})
    ]
    page.get_by_role("button", name="×2").click()
    page.locator("#kinds > summary").click()
    page.locator("#all-models > summary").click()
    page.get_by_label("srcnn-x3").check()
    expect(page.locator("#kind-chosen")).to_have_text("srcnn-x3")
    page.keyboard.press("Escape")
    enhance(page, cat, 'it\'s; a "cat".png')
    command = page.locator("#curl").text_content() or ""
    assert "scale=2&model=srcnn-x3" in command
    split = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    assert split.stdout.splitlines()[2] == 'file=@"it\'s; a \\"cat\\".png"'
    page.locator("#scale").fill("1,25")
    page.get_by_role("button", name="Update").click()
    expect(page.locator("#method")).to_contain_text("The gain is estimated from a scale of 1.5 on")


def test_a_picture_is_pasted(fake_service, open_page: OpenPage, cat):
    page = open_page(str(fake_service.base_url))
    hand_over(page, "paste", cat)
    expect(page.locator("#outcome")).to_be_visible(timeout=60_000)


def test_where_plain_enlarging_is_better_that_is_the_main_download(
    serve, srcnn_card: ModelCard, open_page: OpenPage, screenshot: Screenshot, cat, tmp_path: Path
):
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as service:
        page = open_page(str(service.base_url))
        enhance(page, cat)
        expect(page.locator("#verdict")).to_contain_text("Plain enlarging is better here (−")
        expect(page.locator("#download")).to_be_hidden()
        expect(page.locator("#outcome .primary:visible")).to_have_text(
            "Download plain enlarging (PNG)"
        )
        screenshot(page, "enhance-loss-light")
        with page.expect_download() as download:
            page.locator("#outcome .primary:visible").click()
        assert download.value.suggested_filename == "cat-x3-plain.png"
        plain = service.post("/enhance", content=cat, params={"model": "bicubic"})
        assert Path(download.value.path()).read_bytes() == plain.content
        with page.expect_download() as download:
            page.get_by_role("link", name="Download that of srcnn-x3 all the same").click()
        enhanced = service.post("/enhance", content=cat)
        assert Path(download.value.path()).read_bytes() == enhanced.content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("/", b"", "cat.png is empty. Choose the file again, or another one."),
        ("/compare", b"", "cat.png is empty. Choose the file again, or another one."),
        ("/", b"hello", "cat.png cannot be read here: not a picture in a format that is read here"),
        ("/", plain()[:50], "cat.png cannot be read: the picture cannot be decoded"),
        ("/", animated("GIF"), "cat.png has more than one picture: one frame"),
        ("/", bomb(), "cat.png has too many pixels: at most 64,000,000 input pixels"),
    ],
)
def test_a_file_that_is_no_picture_for_us_is_told_in_a_sentence(
    fake_service, open_page: OpenPage, path, content, says
):
    page = open_page(str(fake_service.base_url) + path)
    choose(page, content)
    expect(page.get_by_role("alert")).to_contain_text(says)
    expect(page.get_by_role("progressbar")).to_be_hidden()
    expect(page.locator("#drop, #preview").filter(visible=True)).to_have_count(1)


def test_a_scale_out_of_range_is_told_before_anything_is_sent(
    fake_service, open_page: OpenPage, screenshot: Screenshot, cat
):
    page = open_page(str(fake_service.base_url))
    page.locator("#scale").fill("9")
    said = "The scale is a number from 1 to 4, as 2 or 2.5, not “9”."
    expect(page.locator("#scale-problem")).to_have_text(said)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    choose(page, cat)
    expect(page.locator("#scale")).to_be_focused()
    assert_accessible(page)
    screenshot(page, "enhance-problem-light")
    page.locator("#scale").fill("2,5")
    expect(page.locator("#scale-problem")).to_be_hidden()
    assert "POST" not in sent
    choose(page, cat)
    expect(page.locator("#outcome")).to_be_visible(timeout=60_000)
    expect(page.locator("#curl")).to_contain_text("scale=2.5")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_body_bytes": 1000}, "cat.png is too large a file: a body has at most 1,000 bytes"),
        ({"max_output_pixels": 1000}, "cat.png has too many pixels: at most 1,000 output"),
        ({"deadline_s": 0.2}, "cat.png took too long: "),
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
            "() => fetch('metrics').then((a) => a.text())"
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
        expect(page.locator("#cancelled")).to_be_visible()
        expect(page.get_by_role("button", name="Enhance", exact=True)).to_be_enabled()
        expect(page.get_by_role("alert")).to_be_hidden()
        engine.go.set()


class Rationed:
    """A device that gives so many tiles back, and then waits for more to be allowed."""

    batch, calls_at_once = BATCH, 1

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
    working = re.compile(r"Enhancing to 8\.[56]\u00a0MP \([1-9]\d* of 42 tiles\)")
    with serve({srcnn_card.name: engine}) as service:

        def wait_for(jobs: dict[str, int]) -> None:
            counted = [f'superres_jobs{{state="{state}"}} {n:.1f}' for state, n in jobs.items()]
            wait_until(lambda: all(line in service.get("/metrics").text for line in counted))

        page = open_page(str(service.base_url))
        page.evaluate("""() => {
            [window.seen, window.heard] = [[], []];
            new MutationObserver(() => window.seen.push(document.getElementById("progress").value))
                .observe(document.getElementById("progress"), { attributes: true });
            const status = document.getElementById("announced");
            new MutationObserver(() => window.heard.push(status.textContent))
                .observe(status, { childList: true });
        }""")
        choose(page, large, "large.jpg")
        engine.allowed.release(30)
        expect(page.locator("#status")).to_have_text(working)
        screenshot(page, "enhance-job-light")
        engine.allowed.release(8)
        expect(page.locator("#announced")).to_contain_text("50 %")
        engine.allowed.release(1000)
        expect(page.locator("#outcome")).to_be_visible(timeout=60_000)
        seen = page.evaluate("window.seen")
        assert seen == sorted(seen)
        assert len(set(seen)) > 3
        *steps, verdict = page.evaluate("window.heard")
        percents = [step.rsplit(": ")[-1] for step in steps]
        assert percents == sorted({"0 %", "25 %", "50 %", "75 %"} & set(percents)), steps
        assert len(percents) >= 3
        assert verdict.endswith("plain enlarging")
        expect(page.locator("#download")).to_contain_text("Download JPEG")
        wait_for({"running": 0, "done": 0})

        engine.allowed = threading.Semaphore(30)
        open_settings(page)
        page.get_by_label("Quality").fill("90")
        page.get_by_role("button", name="Update", exact=True).click()
        expect(page.locator("#status")).to_have_text(working)
        wait_for({"running": 1})
        page.get_by_role("button", name="Cancel").click()
        # What there was before is shown again.
        expect(page.locator("#download")).to_contain_text("Download JPEG")
        expect(page.get_by_label("Quality")).to_have_value("")
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


@pytest.mark.slow
def test_while_a_proxy_does_not_reach_the_service_the_page_keeps_its_job(
    fake_service: httpx.Client, open_page: OpenPage
):
    large = encoded(np.zeros((950, 1000, 3), np.uint8), "JPEG")
    page = open_page(str(fake_service.base_url))
    calls: list[str] = []

    def answer(route: Route) -> None:
        calls.append(route.request.method)
        if len(calls) > 4:
            route.continue_()
        else:
            route.fulfill(status=502, content_type="text/html", body="<h1>502 Bad Gateway</h1>")

    page.route("**/jobs/**", answer)
    with page.expect_request(lambda request: request.method == "DELETE"):
        choose(page, large, "large.jpg")
    assert calls[:5] == ["GET"] * 5
    expect(page.locator("#outcome")).to_be_visible(timeout=60_000)


def test_a_service_that_went_away_is_told_in_a_sentence(
    serve, srcnn_card: ModelCard, open_page: OpenPage, cat
):
    with serve({srcnn_card.name: BlurEngine(srcnn_card.geometry)}) as service:
        page = open_page(str(service.base_url))
    choose(page, cat)
    expect(page.get_by_role("alert")).to_have_text(
        "The service did not answer. Check that it still runs, then press “Enhance” again."
    )


def test_a_sample_is_compared_with_a_table_and_difference_maps(
    fake_service: httpx.Client, open_page: OpenPage, screenshot: Screenshot
):
    page = open_page(f"{fake_service.base_url}/compare?sample=chelsea&scale=2")
    report = fake_service.get("/compare?sample=chelsea&scale=2").json()
    expect(page.locator(".gain")).to_contain_text(f"(+{report['gain_db']:.2f} dB)")
    cells = page.locator("tbody td").all_inner_texts()
    assert cells == [
        f"{report[method][score]:.{digits}f}"
        for method in ("bicubic", "sr")
        for score, digits in (("psnr_y", 2), ("ssim_y", 4))
    ]
    drawn(page)
    screenshot(page, "compare-sample-light")
    page.get_by_label("What to show").select_option("differences")
    expect(page.locator(".tag").first).to_have_text("Error of plain enlarging")
    expect(page.get_by_role("img", name="Error of srcnn-x2")).to_be_visible()
    screenshot(page, "compare-differences-light")
    maps = [
        pixels(base64.b64decode(data)).mean()
        for data in re.findall(
            r'-difference" .*? src="data:image/png;base64,([^"]+)"',
            fake_service.get(
                "/compare?sample=chelsea&scale=2", headers={"Accept": "text/html"}
            ).text,
        )
    ]
    assert len(maps) == 2
    assert maps[0] > maps[1]
    page.get_by_role("button", name="rocket").click()
    page.wait_for_url("**/compare?sample=rocket&scale=2&model=srcnn")
    drawn(page)
    assert_accessible(page)


def test_an_upload_is_compared_as_the_truth(fake_service, open_page: OpenPage, screenshot, coffee):
    page = open_page(f"{fake_service.base_url}/compare")
    choose(page, encoded(coffee[:200, :300]), "mine.png")
    report = fake_service.post("/compare", content=encoded(coffee[:200, :300])).json()
    expect(page.locator(".gain")).to_contain_text(f"{report['gain_db']:.2f} dB", timeout=60_000)
    drawn(page)
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
        assert_no_sideways_scroll(page)

    look("enhance-empty")
    enhance(page, encoded(chelsea))
    drawn(page)
    look("enhance-result")
    page.get_by_role("link", name="Compare").click()
    drawn(page)
    look("compare-sample")


def test_a_finger_drags_the_divider_on_a_phone(fake_service, open_page: OpenPage, cat):
    page = open_page(str(fake_service.base_url), **PHONE)
    enhance(page, cat)
    drawn(page)
    box = page.locator(".frame").bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + 0.3 * box["width"], box["y"] + box["height"] * 0.1)
    assert float(page.get_by_label("Divider").input_value()) == pytest.approx(30, abs=0.6)


@pytest.mark.slow
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
        assert "$SUPERRES_KEY" in (page.locator("#curl").text_content() or "")
        assert key not in page.content()

        page.get_by_role("link", name="Compare").click()
        expect(page.locator(".gain")).to_contain_text("dB")
        drawn(page)
        expect(page.locator("#drop")).to_be_hidden()

        # Another tab knows nothing of it, and one may go on without.
        other = open_page(f"{service.base_url}", "#key-dialog[open]")
        other.get_by_role("button", name="Not now").click()
        choose(other, cat)
        expect(other.locator("#key-dialog")).to_be_visible(timeout=60_000)
        other.keyboard.press("Escape")
        expect(other.locator("#problem")).to_contain_text("This service asks for a key.")


def test_the_docs_offer_to_send_a_key(fake_service, open_page: OpenPage):
    page = open_page(f"{fake_service.base_url}/docs", ".opblock")
    page.locator(".btn.authorize").click()
    expect(page.get_by_text("A key that the operator gave you.")).to_be_visible()


@pytest.mark.slow
def test_more_settings_ask_for_a_size(fake_service, open_page: OpenPage, screenshot, cat: bytes):
    page = open_page(str(fake_service.base_url))
    open_settings(page)
    page.get_by_label("Exact width").fill("200")
    page.get_by_label("Exact height").fill("200")
    page.get_by_label("Fit", exact=True).select_option("cover")
    page.get_by_label("Format").select_option("webp")
    page.get_by_label("Quality").fill("80")
    enhance(
        page,
        encoded(decode(cat).rgb, "JPEG", exif=b"Exif\0\0" + heics.exif(orientation=1)),
        "cat.jpg",
    )
    expect(page.locator("#told")).to_contain_text("Kept")
    expect(page.locator("#told")).to_contain_text("EXIF")
    screenshot(page, "more-settings")
    command = page.locator("#curl").text_content() or ""
    assert "width=200&height=200&fit=cover" in command
    assert "format=webp" in command
    assert "quality=80" in command
    assert "scale=" not in command
    assert "cat-200x200.webp" in command
    expect(page.locator("#method")).to_contain_text("An estimate")
    page.get_by_label("Estimate the gain").uncheck()
    page.get_by_label("Metadata").select_option("remove")
    page.get_by_label("Exact width").fill("")
    page.get_by_label("Fit", exact=True).select_option("")
    expect(page.locator("#python")).to_contain_text('height=200, format="webp", quality=80')
    page.get_by_role("button", name="Update").click()
    expect(page.locator("#verdict")).to_have_text("Enlarged to 267 × 200")
    expect(page.locator("#told")).to_contain_text("Dropped")
    expect(page.locator("#told")).not_to_contain_text("Kept")
