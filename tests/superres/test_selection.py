"""model=auto: what a file shows, and which model that calls for."""

import io
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from superres import load_model
from superres.automatic import AutomaticEnhancer
from superres.codecs import Picture, decode, encode, without_metadata
from superres.codecs.coded_bytes import coded_bytes
from superres.codecs.items import box
from superres.errors import ModelMismatch, ModelMissing
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard, read_card, write_card
from superres.models.evidence import Evidence, examine
from superres.models.registry import DEFAULT_MODELS, all_cards, read_cards
from superres.models.selection import (
    Candidates,
    Rules,
    automatic_families,
    candidates,
    read_rules,
    select,
    sharpening,
)
from superres.resample import degrade
from tests import heics
from tests.pictures import encoded
from tests.subjects import CLEAN
from training.degrade import gaussian_blur

EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
RULES = Rules(
    light=2.5,
    light_bits=0.5,
    blockiness=0.1,
    noise=0.7,
    colour_noise=0.8,
    blurred=1,
    sharpened=2.2,
    noise_compressed=0.9,
    blurred_compressed=1,
    sharpened_compressed=2,
    detail=6,
)
CODED = st.tuples(st.none() | st.floats(1, 100), st.just("")) | st.just((None, "AVIF"))
EVIDENCE = st.builds(
    lambda coded, **others: Evidence(*coded, **others),
    CODED,
    bits_per_pixel=st.floats(0, 24),
    few_colours=st.booleans(),
    blockiness=st.floats(0, 3),
    noise=st.floats(0, 50),
    colour_noise=st.floats(0, 50),
    detail=st.floats(0, 100),
    sharpness=st.floats(0, 4),
    texture=st.floats(-1, 2),
)


@pytest.fixture(scope="module")
def between() -> Candidates:
    return candidates(all_cards(DEFAULT_MODELS), 3)


def examined(content: bytes) -> Evidence:
    return examine(content, decode(content))


def chosen(content: bytes, between: Candidates) -> tuple[str, str]:
    card, reason = select(examined(content), between)
    return card.name, reason


@given(evidence=EVIDENCE)
def test_any_evidence_leads_to_a_candidate_and_a_reason(between: Candidates, evidence: Evidence):
    card, reason = select(evidence, between, RULES)
    assert card in between.cards
    assert reason.startswith("chosen for ")


@given(evidence=EVIDENCE, worse=st.floats(1, 100))
def test_more_damage_never_leads_back_to_the_model_for_clean_pictures(
    between: Candidates, evidence: Evidence, worse: float
):
    damaged = replace(evidence, blockiness=evidence.blockiness + worse)
    if evidence.coded_as:
        damaged = replace(damaged, bits_per_pixel=evidence.bits_per_pixel / (1 + worse))
    else:
        damaged = replace(damaged, jpeg_quality=min(evidence.jpeg_quality or 100, worse))
    if select(evidence, between, RULES).card != between.clean:
        assert select(damaged, between, RULES).card != between.clean


@given(evidence=EVIDENCE)
def test_without_a_model_for_damaged_pictures_they_get_bicubic(
    between: Candidates, evidence: Evidence
):
    card, _ = select(evidence, between, RULES)
    nothing = replace(between, photo=None, compressed=None, sharpened=None)
    alone, _ = select(evidence, nothing, RULES)
    assert alone == (card if card == between.clean else BICUBIC)


@given(evidence=EVIDENCE)
@pytest.mark.parametrize("missing", ["compressed", "sharpened"])
def test_the_photo_model_takes_the_place_of_a_missing_one(
    between: Candidates, evidence: Evidence, missing: str
):
    card, _ = select(evidence, between, RULES)
    without, _ = select(evidence, replace(between, **{missing: None}), RULES)
    assert without == (between.photo if card == getattr(between, missing) else card)


@given(evidence=EVIDENCE, worse=st.floats(1, 100))
def test_a_lower_quality_never_leads_to_a_model_for_less_damage(
    between: Candidates, evidence: Evidence, worse: float
):
    if evidence.jpeg_quality is not None:
        order = [between.clean, between.compressed, between.sharpened, between.photo]
        before, _ = select(evidence, between, RULES)
        lower = min(evidence.jpeg_quality, worse)
        after, _ = select(replace(evidence, jpeg_quality=lower), between, RULES)
        if BICUBIC not in (before, after):
            assert order.index(after) >= order.index(before)


@pytest.mark.parametrize(
    ("change", "model", "reason"),
    [
        ({}, "edsr-lite-x3", "chosen for a clean picture"),
        (
            {"jpeg_quality": 92.0},
            "edsr-lite-x3",
            "chosen for a JPEG of quality 92, as good as a clean picture",
        ),
        (
            {"jpeg_quality": 92.0, "detail": 8.0},
            "edsr-lite-compressed-x3",
            "chosen for a JPEG of quality 92",
        ),
        ({"jpeg_quality": 85.0}, "edsr-lite-compressed-x3", "chosen for a JPEG of quality 85"),
        ({"jpeg_quality": 12.0}, "edsr-lite-compressed-x3", "chosen for a JPEG of quality 12"),
        (
            {"jpeg_quality": 95.0, "sharpness": 2.1, "texture": 0.0},
            "edsr-lite-sharpened-x3",
            "chosen for a JPEG of quality 95 that looks sharpened",
        ),
        (
            {"jpeg_quality": 85.0, "noise": 5.0},
            "edsr-lite-photo-x3",
            "chosen for a JPEG of quality 85 with noise of 5.0 levels",
        ),
        (
            {"coded_as": "AVIF", "bits_per_pixel": 1.5},
            "edsr-lite-compressed-x3",
            "chosen for a picture compressed as AVIF",
        ),
        (
            {"coded_as": "AVIF", "bits_per_pixel": 3.0},
            "edsr-lite-x3",
            "chosen for a picture compressed as AVIF, as good as a clean picture",
        ),
        (
            {"coded_as": "WebP", "bits_per_pixel": 1.5, "sharpness": 0.7},
            "edsr-lite-photo-x3",
            "chosen for a picture compressed as WebP that is blurred",
        ),
        (
            {"blockiness": 0.5},
            "edsr-lite-compressed-x3",
            "chosen for a picture with the blocks of a JPEG",
        ),
        ({"noise": 3.2}, "edsr-lite-photo-x3", "chosen for a picture with noise of 3.2 levels"),
        (
            {"noise": 3.2, "jpeg_quality": 85.0},
            "edsr-lite-compressed-x3",
            "chosen for a JPEG of quality 85",
        ),
        ({"noise": 5.0, "detail": 60.0}, "edsr-lite-x3", "chosen for a clean picture"),
        (
            {"colour_noise": 4.0},
            "edsr-lite-photo-x3",
            "chosen for a picture with noise of 4.0 levels",
        ),
        ({"colour_noise": 4.0, "detail": 30.0}, "edsr-lite-x3", "chosen for a clean picture"),
        ({"few_colours": True}, "bicubic", "chosen for a picture of few colours, as pixel art"),
        (
            {"jpeg_quality": 50.0, "detail": 4.0},
            "bicubic",
            "chosen for a JPEG of quality 50 and little detail",
        ),
        (
            {"jpeg_quality": 50.0, "detail": 4.0, "sharpness": 0.5},
            "edsr-lite-photo-x3",
            "chosen for a JPEG of quality 50 that is blurred",
        ),
        ({"detail": 4.0}, "edsr-lite-x3", "chosen for a clean picture"),
        (
            {"jpeg_quality": 98.0, "detail": 4.0},
            "edsr-lite-x3",
            "chosen for a JPEG of quality 98, as good as a clean picture",
        ),
        ({"sharpness": 0.7}, "edsr-lite-photo-x3", "chosen for a picture that is blurred"),
        (
            {"sharpness": 1.8, "texture": -0.4},
            "edsr-lite-sharpened-x3",
            "chosen for a picture that looks sharpened",
        ),
        ({"sharpness": 2.5, "texture": 0.3}, "edsr-lite-x3", "chosen for a clean picture"),
        (
            {"sharpness": 2.5, "texture": 0.0},
            "edsr-lite-sharpened-x3",
            "chosen for a picture that looks sharpened",
        ),
    ],
)
def test_each_kind_of_evidence_counts(
    between: Candidates, change: dict[str, object], model: str, reason: str
):
    card, said = select(replace(CLEAN, **change), between, RULES)
    assert (card.name, said) == (model, reason)


@pytest.mark.parametrize("quality", [10, 30, 50, 62, 75, 90, 95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_the_quality_of_a_jpeg_is_that_of_its_tables(coffee, quality: int, subsampling: str):
    content = encoded(coffee[:64, :64], "JPEG", quality=quality, subsampling=subsampling)
    assert examined(content).jpeg_quality == pytest.approx(quality, abs=0.6)


@pytest.mark.parametrize(("top", "left"), [*((i, i) for i in range(8)), (3, 6)])
def test_blocks_are_noticed_wherever_they_begin(coffee, chelsea, top: int, left: int):
    for picture in (degrade(coffee, (200, 300)), degrade(chelsea, (150, 225))):
        before = examined(encoded(picture)).blockiness
        compressed = decode(encoded(picture, "JPEG", quality=40)).rgb
        after = examined(encoded(np.ascontiguousarray(compressed[top:, left:]))).blockiness
        assert after > 3 * before
        assert after > 0.1


def test_noise_is_measured_in_levels(coffee):
    picture = degrade(coffee, (200, 300))
    random = np.random.default_rng(0)
    measured = []
    for sigma in (0, 4, 8):
        noisy = picture + sigma * random.standard_normal((200, 300, 1))
        measured.append(examined(encoded(np.rint(noisy).clip(0, 255).astype(np.uint8))).noise)
    assert measured[0] < 1
    assert measured[1] == pytest.approx(4, rel=0.35)
    assert measured[2] == pytest.approx(8, rel=0.35)


def test_blocks_count_relative_to_the_steps_beside_them(coffee):
    decoded = decode(encoded(degrade(coffee, (200, 300)), "JPEG", quality=40)).rgb
    faint = np.rint(decoded / 2.0 + 64).astype(np.uint8)
    found = [examine(b"", Picture(picture)).blockiness for picture in (decoded, faint)]
    assert found[1] == pytest.approx(found[0], rel=0.3)


def test_texture_of_one_colour_is_no_noise():
    cloth = np.full((128, 128, 3), 100, np.uint8)
    cloth[..., 0] = np.random.default_rng(0).integers(60, 140, (128, 128))
    assert examine(b"", Picture(cloth)).noise > 5
    assert examine(b"", Picture(cloth)).colour_noise == 0


def test_texture_hides_noise_of_luma_but_not_of_colours():
    random = np.random.default_rng(0)
    texture = 128 + 12 * random.standard_normal((128, 128, 1))
    alike = np.repeat(texture, 3, axis=2)
    for sigma in (0, 2, 5):
        noisy = alike + sigma * random.standard_normal((128, 128, 3))
        found = examine(b"", Picture(np.rint(noisy).clip(0, 255).astype(np.uint8)))
        assert found.noise > 9
        assert found.colour_noise == pytest.approx(sigma, rel=0.25, abs=0.3)


@pytest.mark.parametrize("background", [0.0, 0.8])
def test_sharpness_is_that_of_the_edges_in_focus(coffee, background: float):
    picture = degrade(coffee, (200, 300)).astype(np.float32)
    share = np.clip((np.arange(300) / 300 - background) / 0.1 + 1, 0, 1)[:, None]

    def sharpness(blur: float) -> float:
        in_focus = gaussian_blur(picture, blur, blur, 0.0)
        shown = share * in_focus + (1 - share) * gaussian_blur(picture, 6.0, 6.0, 0.0)
        return examine(b"", Picture(np.rint(shown).clip(0, 255).astype(np.uint8))).sharpness

    assert sharpness(0.1) > 1.4
    assert sharpness(0.8) < 0.9


def test_lines_are_texture_and_sharpening_is_not(coffee):
    lines = np.full((64, 64, 3), 90, np.uint8)
    lines[:, ::8] = 140
    assert examine(b"", Picture(lines)).sharpness > 2.5
    assert examine(b"", Picture(lines)).texture > 0.9

    def sharpening_of(picture: np.ndarray) -> float:
        shown = np.rint(picture).clip(0, 255).astype(np.uint8)
        return sharpening(examine(b"", Picture(shown)))

    photo = degrade(coffee, (200, 300)).astype(np.float32)
    sharpened = photo + 0.8 * (photo - gaussian_blur(photo, 0.8, 0.8, 0.0))
    assert sharpening_of(sharpened) > sharpening_of(photo) + 0.2


def test_values_that_fall_back_at_one_side_are_texture_and_at_both_sides_halos():
    step = np.full((16, 16, 3), 50, np.uint8)
    step[:, 8:] = 150
    both, one = step.copy(), step.copy()
    both[:, 7], both[:, 8] = 35, 165
    one[:, 8] = 180
    of_both, of_one, of_none = (examine(b"", Picture(shown)).texture for shown in (both, one, step))
    assert of_none == 0
    assert of_both == pytest.approx(2 * 15 / 130 - 1)
    assert of_one == pytest.approx(30 / 130)


def test_a_direction_counts_if_it_has_steps():
    lines = np.full((64, 64, 3), 90, np.uint8)
    lines[:, ::8] = 140
    one_step_below = lines.copy()
    one_step_below[32:] += 60
    of_one_direction = examine(b"", Picture(lines)).texture
    assert examine(b"", Picture(one_step_below)).texture == pytest.approx(of_one_direction / 2)

    step = np.full((64, 64, 3), 40, np.uint8)
    step[32:] += 100
    ramp = step + np.arange(64, dtype=np.uint8)[:, None]
    of_one_direction = examine(b"", Picture(step)).sharpness
    assert examine(b"", Picture(ramp)).sharpness == pytest.approx(of_one_direction / 2)


def test_grain_does_not_make_a_blurred_picture_sharp(coffee):
    blurred = gaussian_blur(degrade(coffee, (200, 300)).astype(np.float32), 0.8, 0.8, 0.0)
    grain = 3 * np.random.default_rng(0).standard_normal((200, 300, 1))
    picture = np.rint(blurred + grain).clip(0, 255).astype(np.uint8)
    assert examine(b"", Picture(picture)).sharpness < 0.8


@pytest.mark.parametrize(
    ("name", "options", "coded_as"),
    [
        ("WEBP", {"quality": 60}, "WebP"),
        ("WEBP", {"quality": 60, "exif": EXIF}, "WebP"),
        ("WEBP", {"lossless": True}, ""),
        ("WEBP", {"lossless": True, "exif": EXIF}, ""),
        ("AVIF", {"quality": 60}, "AVIF"),
        ("PNG", {}, ""),
        ("JPEG", {"quality": 60}, ""),
    ],
)
def test_a_lossy_format_that_is_not_jpeg_is_named(coffee, name: str, options, coded_as: str):
    file = io.BytesIO()
    Image.fromarray(coffee[:64, :64]).save(file, name, **options)
    found = examined(file.getvalue())
    assert found.coded_as == coded_as
    assert found.bits_per_pixel == 8 * len(file.getvalue()) / 64**2


@pytest.mark.parametrize("output_format", ["webp", "avif", "jxl"])
def test_metadata_does_not_count_as_bits_of_the_picture(coffee, output_format: str):
    picture = Picture(degrade(coffee, (100, 150)))
    exif = Image.Exif()
    exif[0x010E] = "a long description " * 1000
    plain = examined(encode(picture, output_format, 60)).bits_per_pixel
    tagged = examined(encode(replace(picture, exif=exif.tobytes()), output_format, 60))
    assert tagged.bits_per_pixel == pytest.approx(plain, abs=0.1)


def test_maps_and_thumbnails_do_not_count_as_bits_of_the_picture(coffee):
    """Those that phones put into a HEIC, beside the tiles of the picture itself."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    phone, alone = heics.phone(coffee, profile), heics.Builder()
    alone.add_grid(np.ascontiguousarray(np.rot90(coffee)), 512)
    bits = examined(alone.file()).bits_per_pixel
    assert examined(phone).bits_per_pixel == pytest.approx(bits, abs=0.1)
    assert 8 * len(phone) / coffee[..., 0].size > bits + 0.2
    moving = phone + box(b"mpvd", bytes(100_000))
    assert examined(moving).bits_per_pixel == pytest.approx(bits, abs=0.1)


@pytest.mark.parametrize("kind", [b"Exif", b"brob", b"jhgm"])
def test_boxes_beside_a_jpeg_xl_do_not_count_as_bits_of_the_picture(coffee, kind: bytes):
    exif = Image.Exif()
    exif[0x010E] = "a description"
    picture = Picture(coffee[:64, :64], exif=exif.tobytes())
    in_boxes = encode(picture, "jxl", 60)
    alone = examined(encode(replace(picture, exif=None), "jxl", 60)).bits_per_pixel
    more = bytes(4) if kind == b"Exif" else b"Exif" if kind == b"brob" else b""
    found = coded_bytes(
        in_boxes + box(kind, more + bytes(50_000)), replace(picture, source_format="jxl")
    )
    assert 8 * found / 64**2 == pytest.approx(alone, abs=0.2)


def test_metadata_that_the_caller_wants_to_be_dropped_does_not_count_either(coffee):
    exif = Image.Exif()
    exif[0x010E] = "a long description " * 1000
    picture = Picture(coffee[:64, :64])
    plain = examined(encode(picture, "webp", 60)).bits_per_pixel
    tagged = encode(replace(picture, exif=exif.tobytes()), "webp", 60)
    found = examine(tagged, without_metadata(decode(tagged)))
    assert found.bits_per_pixel == pytest.approx(plain, abs=0.1)


def test_stripes_are_as_sharp_as_their_edges():
    stripes = np.repeat(np.arange(0, 256, 2, dtype=np.uint8) % 97, 3)[None, :, None]
    picture = np.tile(stripes, (128, 1, 3))
    assert examine(b"", Picture(picture)).sharpness > 1.5


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_the_best_jpeg_has_quality_100(coffee, subsampling: str):
    content = encoded(coffee[:64, :64], "JPEG", quality=100, subsampling=subsampling)
    assert examined(content).jpeg_quality == 100


@pytest.mark.parametrize("output_format", ["webp", "avif", "jxl"])
def test_a_file_of_few_bits_is_compressed_and_one_of_many_is_clean(
    between: Candidates, coffee, output_format: str
):
    picture = Picture(degrade(coffee, (200, 300)))
    card, reason = select(examined(encode(picture, output_format, 50)), between)
    assert (card.family, "as good as" in reason) == ("edsr-lite-compressed", False)
    card, reason = select(examined(encode(picture, output_format, 98)), between)
    assert (card.family, "as good as" in reason) == ("edsr-lite", True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 9), (130, 20)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_of_any_size_and_depth_has_evidence(between: Candidates, shape, dtype):
    largest = np.iinfo(dtype).max
    samples = np.random.default_rng(0).integers(0, largest, (*shape, 4), dtype)
    picture = Picture(samples)
    found = examine(encode(picture, "png"), picture)
    measured = (found.blockiness, found.noise, found.detail, found.sharpness, found.texture)
    assert all(np.isfinite(measured))
    assert select(found, between).card in between.cards


def test_sixteen_bits_show_what_eight_show(chelsea):
    eight = examine(b"", Picture(chelsea))
    sixteen = examine(b"", Picture(chelsea.astype(np.uint16) * 257))
    assert sixteen == eight


def cut_out(rgb: np.ndarray, hidden: str) -> Picture:
    """An ellipse of a picture, which is opaque; the rest is transparent."""
    height, width = rgb.shape[:2]
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    visible = across**2 + down**2 < 0.8
    noise = np.random.default_rng(1).integers(0, 256, rgb.shape, np.uint8)
    below = {"kept": rgb, "black": np.zeros_like(rgb), "noise": noise}[hidden]
    colours = np.where(visible[..., None], rgb, below)
    return Picture(np.dstack([colours, visible * np.uint8(255)]))


def noisy(picture: np.ndarray) -> np.ndarray:
    noise = 6.5 * np.random.default_rng(0).standard_normal(picture.shape)
    return np.rint(picture + noise).clip(0, 255).astype(np.uint8)


def compressed(picture: np.ndarray) -> np.ndarray:
    return decode(encoded(picture, "JPEG", quality=50)).rgb


def blurred(picture: np.ndarray) -> np.ndarray:
    return np.rint(gaussian_blur(picture.astype(np.float32), 1.2, 1.2, 0.0)).astype(np.uint8)


@pytest.mark.parametrize("size", [(200, 300), (400, 600)])
@pytest.mark.parametrize(
    ("damaged", "model"),
    [
        (np.ascontiguousarray, "edsr-lite-x3"),
        (noisy, "edsr-lite-photo-x3"),
        (compressed, "edsr-lite-compressed-x3"),
        (blurred, "edsr-lite-photo-x3"),
    ],
)
def test_what_is_hidden_is_no_evidence(between: Candidates, coffee, size, damaged, model: str):
    picture = damaged(degrade(coffee, size))
    opaque = examine(b"", Picture(picture))
    found = [examine(b"", cut_out(picture, hidden)) for hidden in ("kept", "black", "noise")]
    assert found[0] == found[1] == found[2]
    for evidence in (opaque, found[0]):
        assert select(evidence, between).card.name == model
    assert found[0].noise == pytest.approx(opaque.noise, rel=0.25, abs=0.1)
    assert found[0].sharpness == pytest.approx(opaque.sharpness, rel=0.1)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (700, 400), (650, 1490), (1600, 1500)])
def test_a_small_subject_on_a_large_canvas_is_found(
    between: Candidates, coffee, top: int, left: int
):
    subject = noisy(degrade(coffee, (200, 300)))
    canvas = np.zeros((1800, 2000, 4), np.uint8)
    canvas[top : top + 200, left : left + 300] = np.dstack([subject, np.full((200, 300), 255)])
    card, reason = select(examine(b"", Picture(canvas)), between)
    assert card.name == "edsr-lite-photo-x3"
    assert "with noise of" in reason


@pytest.mark.parametrize("hidden", ["black", "noise"])
def test_colours_are_counted_of_visible_pixels(coffee, hidden: str):
    colours = np.random.default_rng(0).integers(0, 2, (9, 9, 3), np.uint8) * np.uint8(200)
    art = np.kron(colours, np.ones((16, 16, 1), np.uint8))
    assert examine(b"", cut_out(art, hidden)).few_colours
    assert not examine(b"", cut_out(coffee, hidden)).few_colours


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (130, 200)])
def test_a_picture_of_which_nothing_is_visible_has_evidence(between: Candidates, size):
    samples = np.random.default_rng(0).integers(0, 256, (*size, 4), np.uint8)
    samples[..., 3] = 0
    found = examine(encode(Picture(samples), "png"), Picture(samples))
    assert select(found, between).card == BICUBIC
    assert (found.noise, found.detail, found.sharpness, found.texture) == (0, 0, 0, 0)


@pytest.mark.parametrize("opacity", [1, 255])
@pytest.mark.parametrize("size", [(1, 1), (20, 130), (400, 600)])
def test_alpha_that_hides_nothing_changes_no_bit_of_the_evidence(coffee, size, opacity: int):
    picture = degrade(coffee, size)
    alpha = np.full(size, opacity, np.uint8)
    assert examine(b"", Picture(np.dstack([picture, alpha]))) == examine(b"", Picture(picture))


def test_the_evidence_of_opaque_pictures_is_that_on_which_the_thresholds_were_fitted():
    across, down = np.arange(300), np.arange(260)[:, None]
    grain = (across * 1103 + down * 5407 + across * down * 7919) % 17
    channels = (across * down // 97 % 230, across**2 // 211 % 235, down**2 // 53 % 220)
    drawn = np.dstack([channel + grain for channel in channels]).astype(np.uint8)
    found = examine(b"", Picture(drawn))
    figures = (found.blockiness, found.noise, found.colour_noise)
    assert figures == pytest.approx((0.01846665, 3.979548, 0), rel=1e-5)
    figures = (found.detail, found.sharpness, found.texture)
    assert figures == pytest.approx((10.56429, 2.134352, -0.1813913), rel=1e-5)


def test_a_large_picture_is_measured_as_soon_as_a_small_one(chelsea):
    small, large = (Picture(np.tile(chelsea[:256, :448], (n, n, 1))) for n in (2, 12))

    def seconds(picture: Picture) -> float:
        started = time.process_time()
        examine(b"", picture)
        return time.process_time() - started

    assert min(seconds(large) for _ in range(5)) < 5 * min(seconds(small) for _ in range(5)) + 0.02


def test_files_of_each_kind_are_told_apart(between: Candidates, coffee):
    picture = degrade(coffee, (200, 300))
    art = np.kron(np.random.default_rng(0).integers(0, 2, (30, 30, 1)), np.ones((4, 4, 1)))
    assert chosen(encoded(picture), between)[0] == "edsr-lite-x3"
    assert chosen(encoded(picture, "JPEG", quality=50), between) == (
        "edsr-lite-compressed-x3",
        "chosen for a JPEG of quality 50",
    )
    assert chosen(encoded((art * [200, 90, 30]).astype(np.uint8)), between)[0] == "bicubic"


def test_there_are_thresholds_for_every_scale_that_a_model_has():
    cards = read_cards(DEFAULT_MODELS)
    scales = {card.geometry.scale for card in cards if card.family == "edsr-lite"}
    assert scales <= read_rules().keys()


def renamed(card: ModelCard, name: str, family: str) -> ModelCard:
    return card.model_copy(update={"name": name, "family": family})


def test_a_family_without_a_model_of_that_scale_is_left_out():
    cards = {card.name: card for card in all_cards(DEFAULT_MODELS)}
    x3 = [cards["edsr-lite-x2"], cards["edsr-lite-x3"], cards["edsr-lite-photo-x3"], BICUBIC]
    assert candidates(x3, 3).photo == cards["edsr-lite-photo-x3"]
    assert candidates(x3, 3).compressed is None
    assert candidates(x3, 2).photo is None
    assert candidates(x3, 4).photo == cards["edsr-lite-photo-x3"]  # both end at x3
    assert candidates(x3[:2], 3).photo is None
    assert candidates(x3, 3).dearest == cards["edsr-lite-x3"]


def test_in_a_folder_of_other_families_the_first_is_for_all_pictures(srcnn_card: ModelCard):
    own = renamed(srcnn_card, "mine-x3", "mine")
    between = candidates([own, srcnn_card, BICUBIC], 3)
    assert automatic_families([own, srcnn_card, BICUBIC]) == ("mine", "bicubic")
    assert select(CLEAN, between).card == own
    assert select(replace(CLEAN, jpeg_quality=50.0), between).card == own
    with pytest.raises(ModelMissing, match="no model for auto"):
        candidates([BICUBIC], 3)


def of_scale(card: ModelCard, scale: int) -> ModelCard:
    geometry = card.geometry.model_copy(update={"scale": scale})
    return card.model_copy(update={"geometry": geometry, "name": f"{card.family}-x{scale}"})


@pytest.mark.parametrize("family", ["denoiser", "edsr-lite"])
@pytest.mark.parametrize("asked", [1, 1.3, 2, 2.5, 4])
def test_models_of_a_scale_without_thresholds_have_those_of_the_nearest(
    srcnn_card: ModelCard, family: str, asked: float
):
    own = of_scale(renamed(srcnn_card, family, family), 1)
    between = candidates([own, BICUBIC], asked)
    assert between.clean == own
    compressed = replace(CLEAN, jpeg_quality=50.0)
    for evidence in (CLEAN, compressed, replace(CLEAN, noise=9.0), replace(CLEAN, sharpness=0.1)):
        assert select(evidence, between) == select(evidence, between, read_rules()[2])
    assert select(CLEAN, between).card == own
    assert select(replace(CLEAN, few_colours=True), between).card == BICUBIC


def test_a_family_that_does_not_enlarge_does_not_take_the_place_of_one_that_does(
    srcnn_card: ModelCard,
):
    denoiser = of_scale(renamed(srcnn_card, "a", "a"), 1)
    both = [of_scale(renamed(srcnn_card, "b", "b"), scale) for scale in (1, 3)]
    assert automatic_families([denoiser, *both, BICUBIC]) == ("b", "bicubic")
    assert candidates([denoiser, *both, BICUBIC], 1).clean.name == "b-x1"
    assert candidates([denoiser, *both, BICUBIC], 1.3).clean.name == "b-x3"
    assert automatic_families([denoiser, BICUBIC]) == ("a", "bicubic")


@pytest.mark.parametrize("names", [("auto", "mine"), ("mine", "auto"), ("bicubic", "bicubic")])
def test_names_of_this_program_are_not_for_models(tmp_path, srcnn_card: ModelCard, names):
    (tmp_path / names[0]).mkdir()
    write_card(tmp_path / names[0], renamed(srcnn_card, *names))
    read_card(tmp_path / names[0])
    with pytest.raises(ModelMismatch, match="is a name of this program"):
        read_cards(tmp_path)


def test_a_model_is_loaded_when_a_picture_needs_it(between: Candidates, coffee):
    loaded = []

    def load(card: ModelCard):
        loaded.append(card.name)
        return load_model("bicubic")

    enhancer = AutomaticEnhancer(between, load)
    for quality in (50, 60):
        content = encoded(degrade(coffee, (200, 300)), "JPEG", quality=quality)
        selection = enhancer.choose(content, decode(content))
        assert loaded == [] if quality == 50 else [selection.card.name]
        enhancer.enhancer(selection.card)
    assert loaded == ["edsr-lite-compressed-x3"]
