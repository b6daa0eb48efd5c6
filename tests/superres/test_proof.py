import math
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageFilter

from superres import Enhancer
from superres.arrays import RgbU8, to_integer
from superres.codecs import Picture, decode, encode
from superres.codecs.jpeg import jpeg_settings
from superres.errors import BadRequest
from superres.evaluation.proof import (
    check_estimable,
    compare,
    compare_pair,
    estimate,
    estimate_file,
)
from superres.evaluation.strip import AMPLIFIED, PANEL, draw_difference, draw_strip
from superres.models.card import Geometry
from superres.models.evidence import examine
from superres.resample import degrade, scaled_size
from tests.engines import BlurEngine, SharpenEngine
from tests.pictures import encoded, saved
from tests.structures import segment


def test_the_model_comes_nearer_to_a_photograph_than_bicubic(
    srcnn_in_each_precision: Enhancer, coffee: RgbU8
):
    comparison = compare(srcnn_in_each_precision, coffee, 3)
    assert comparison.hr.shape == (399, 600, 3)
    assert comparison.gain_db > 0.5
    assert comparison.sr_scores.ssim_y > comparison.bicubic_scores.ssim_y


def test_an_engine_that_only_blurs_loses_and_it_shows(coffee: RgbU8):
    geometry = Geometry(domain="hr", scale=3, halo=3, largest_tile=256)
    assert compare(Enhancer(BlurEngine(geometry), geometry), coffee, 2).gain_db < -1


def test_fractional_scales_keep_the_whole_picture(srcnn: Enhancer, chelsea: RgbU8):
    assert compare(srcnn, chelsea, 2.5).sr.shape == chelsea.shape


def test_equal_scores_are_no_gain_even_at_infinity(srcnn: Enhancer):
    assert compare(srcnn, np.zeros((60, 60, 3), np.uint8), 3).gain_db == 0


@pytest.mark.parametrize(
    ("size", "scale", "says"),
    [
        ((40, 16), 3, r"at least 17 px a side; the picture has 15x39"),
        ((40, 40), 1, "scale is over 1, to 4, not 1"),
        ((40, 40), 5, "not 5"),
    ],
)
def test_what_cannot_be_compared_is_refused(srcnn: Enhancer, size, scale, says):
    with pytest.raises(BadRequest, match=says):
        compare(srcnn, np.zeros((*size, 3), np.uint8), scale)


def test_a_strip_shows_three_panels_of_a_bounded_size(srcnn: Enhancer, coffee: RgbU8):
    strip = draw_strip(compare(srcnn, coffee, 3), "srcnn")
    original = strip[-399:, -PANEL:]
    assert strip.shape[1] <= 3 * PANEL + 20
    assert any(np.array_equal(original, coffee[:399, left:][:, :PANEL]) for left in (0, 120))


def test_a_difference_map_is_black_where_luma_is_equal_and_bright_where_it_is_not():
    truth = np.full((4, 6, 3), 100, np.uint8)
    restored = truth.copy()
    restored[:, 3:] += 10
    drawn = draw_difference(truth, restored)
    assert drawn[:, :3].max() == 0
    assert np.unique(drawn[:, 3:]).tolist() == [round(10 * 219 / 255 * AMPLIFIED)]


@pytest.mark.parametrize("scale", [1.5, 2.5, 3])
def test_the_estimate_scores_the_picture_as_a_comparison_would(srcnn: Enhancer, coffee, scale):
    estimated, compared = estimate(srcnn, coffee, scale), compare(srcnn, coffee, scale)
    assert estimated.bicubic_psnr_y == pytest.approx(compared.bicubic_scores.psnr_y, abs=1e-9)
    assert estimated.gain_db == pytest.approx(compared.gain_db, abs=1e-9)


def test_a_picture_already_enlarged_and_blurred_is_not_praised(srcnn: Enhancer, coffee: RgbU8):
    """The estimate can be negative: where there is no detail, sharpening only errs."""
    blurred = np.asarray(Image.fromarray(coffee).filter(ImageFilter.GaussianBlur(6)))
    assert estimate(srcnn, blurred, 3).gain_db < 0


def test_the_estimate_knows_what_jpeg_did_to_the_picture(srcnn: Enhancer, coffee: RgbU8):
    """What the model truly gains on a JPEG is less than on the picture it was made of."""
    hr = coffee[:399]
    upload = encode(Picture(degrade(hr, (133, 200))), "jpeg", 60)
    lr = decode(upload).rgb
    true = compare_pair(srcnn, hr, lr, 3).gain_db
    blind, seeing = (
        estimate(srcnn, lr, 3, jpeg=jpeg).gain_db for jpeg in (None, jpeg_settings(upload))
    )
    assert abs(seeing - true) < abs(blind - true) / 2


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpegs_settings_do_the_same_to_another_picture(chelsea, coffee, subsampling):
    options = {"quality": 70, "subsampling": subsampling}
    settings = jpeg_settings(encoded(chelsea, "JPEG", **options))
    assert settings is not None
    assert np.array_equal(settings.apply(coffee), decode(encoded(coffee, "JPEG", **options)).rgb)
    grey = jpeg_settings(encoded(chelsea[..., 0], "JPEG", quality=70))
    assert grey is not None
    assert grey.apply(coffee).shape == coffee.shape
    assert jpeg_settings(encoded(chelsea)) is None


def cut_out(rgb: RgbU8, hidden: str, dtype: type = np.uint8) -> Picture:
    """A disc of a picture, which is opaque; the rest is transparent."""
    height, width = rgb.shape[:2]
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    visible = across**2 + down**2 < 0.6
    noise = np.random.default_rng(1).integers(0, 256, rgb.shape, np.uint8)
    below = {"kept": rgb, "black": np.zeros_like(rgb), "noise": noise}[hidden]
    samples = np.dstack([np.where(visible[..., None], rgb, below), visible * np.uint8(255)])
    return Picture(samples if dtype == np.uint8 else samples.astype(np.uint16) * 257)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_that_nobody_sees_are_not_scored(coffee: RgbU8, dtype: type):
    geometry = Geometry(domain="hr", scale=3, halo=3, largest_tile=256)
    enhancer = Enhancer(SharpenEngine(geometry), geometry)
    rgb = coffee[60:240, 100:340]
    found = [
        estimate_file(enhancer, cut_out(rgb, hidden, dtype), 3, b"")
        for hidden in ("kept", "black", "noise")
    ]
    assert found[0] == found[1] == found[2]
    # What is not scored may be anything: here, what has no error at all, and a third of all.
    flat = rgb.copy()
    flat[cut_out(rgb, "kept").alpha == 0] = 128
    of_all = estimate(enhancer, flat, 3)
    assert found[0].bicubic_psnr_y < of_all.bicubic_psnr_y
    whole = estimate(enhancer, rgb, 3)
    assert found[0].gain_db == pytest.approx(whole.gain_db, abs=0.5)


def test_of_a_picture_whose_alpha_hides_nothing_the_estimate_is_that_without_alpha(coffee: RgbU8):
    geometry = Geometry(domain="hr", scale=3, halo=3, largest_tile=256)
    enhancer = Enhancer(SharpenEngine(geometry), geometry)
    rgb = coffee[60:240, 100:340]
    for opacity in (1, 255):
        alpha = np.full(rgb.shape[:2], opacity, np.uint8)
        found = estimate_file(enhancer, Picture(np.dstack([rgb, alpha])), 3, b"")
        assert found == estimate(enhancer, rgb, 3)


@pytest.mark.parametrize("visible", [0, 1])
def test_of_a_picture_of_which_nothing_is_visible_nothing_is_estimated(visible: int):
    """At its border nothing is scored."""
    samples = np.zeros((40, 40, 4), np.uint8)
    samples[:visible, :, 3] = 255
    geometry = Geometry(domain="hr", scale=3, halo=3, largest_tile=256)
    with pytest.raises(BadRequest, match="needs visible pixels"):
        estimate_file(Enhancer(BlurEngine(geometry), geometry), Picture(samples), 3, b"")


def with_frame(data: bytes, *fields: tuple[int, int]) -> bytes:
    """A JPEG with other bytes of its frame header: offsets from its marker, 0xC0 for baseline."""
    changed = bytearray(data)
    at = max(data.find(bytes([0xFF, marker, 0])) for marker in (0xC0, 0xC2)) + 1
    for offset, value in fields:
        changed[at + offset] = value
    return bytes(changed)


def with_tables(data: bytes, *tables: bytes) -> bytes:
    """A JPEG with further quantisation tables behind all others."""
    at = data.index(b"\xff\xda")
    return data[:at] + b"".join(segment(0xDB, table) for table in tables) + data[at:]


def unusual_jpegs(rgb: RgbU8) -> dict[str, tuple[bytes, bool]]:
    """Files that a camera does not write, and whether a proof compresses as they are."""
    plain, grey = encoded(rgb, "JPEG", quality=60), encoded(rgb[..., 0], "JPEG", quality=60)
    progressive = encoded(rgb, "JPEG", quality=60, progressive=True)
    lossless, lossless_grey = (
        bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(one), lossless=True))
        for one in (rgb, rgb[..., 0])
    )
    twelve = rgb.astype(np.uint16) * 16
    steps = bytes([0x10]) + struct.pack(">64H", *range(200, 264))
    further = [bytes([number]) + bytes(range(1, 65)) for number in (1, 2, 3)]
    cmyk = saved(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=60)
    files = {
        "lossless": (lossless, False),
        "lossless grey": (lossless_grey, False),
        "lossless with a table": (with_tables(lossless, further[0]), False),
        "12 bits": (bytes(imagecodecs.jpeg8_encode(twelve, bitspersample=12)), False),
        "grey": (grey, True),
        "CMYK": (cmyk, True),
        # Its data is read as if it were coded in another way, and is another picture.
        "arithmetic coding": (with_frame(plain, (0, 0xC9)), True),
        "progressive, arithmetic coding": (with_frame(progressive, (0, 0xCA)), True),
        "4:1:0": (with_frame(encoded(rgb, "JPEG", subsampling=0), (10, 0x42)), True),
        "grey at 2x2": (with_frame(grey, (10, 0x22)), True),
        "chroma at 1x2 and 2x1": (with_frame(plain, (13, 0x12), (16, 0x21)), True),
        "tables of 16 bits": (with_tables(with_frame(cmyk, (0, 0xC1)), steps), True),
        "four tables": (with_tables(plain, *further[1:]), True),
        "four tables that are used": (
            with_tables(with_frame(cmyk, (14, 1), (17, 2), (20, 3)), *further),
            True,
        ),
        "RGB": (encoded(rgb, "JPEG", quality=60, keep_rgb=True), True),
        "the lowest quality": (encoded(rgb, "JPEG", quality=1), True),
    }
    for sampling in ("411", "440"):
        content = bytes(imagecodecs.jpeg8_encode(rgb, subsampling=sampling, level=60))
        files[sampling] = content, True
    return files


@pytest.mark.parametrize("name", unusual_jpegs(np.zeros((64, 64, 3), np.uint8)))
def test_of_any_jpeg_that_is_read_a_proof_is_estimated(coffee: RgbU8, name: str):
    content, compressed = unusual_jpegs(coffee[100:196, 100:228])[name]
    picture, settings = decode(content), jpeg_settings(content)
    assert (settings is not None) == compressed
    geometry = Geometry(domain="hr", scale=3, halo=3, largest_tile=256)
    enhancer = Enhancer(BlurEngine(geometry), geometry)
    rgb = to_integer(picture.rgb, np.uint8)
    assert math.isfinite(estimate(enhancer, rgb, 2, jpeg=settings).gain_db)
    quality = examine(content, picture).jpeg_quality
    assert (quality is not None) == compressed


def test_each_component_has_the_table_that_the_frame_names(chelsea: RgbU8, coffee: RgbU8):
    fine, coarse, other = ([step] * 64 for step in (3, 20, 60))
    usual = {"qtables": [fine, coarse], "subsampling": 0}
    expected = decode(encoded(coffee, "JPEG", **usual)).rgb
    content = encoded(chelsea, "JPEG", **usual)
    # A third table that no component uses; and luma with the second one.
    unused = with_tables(content, bytes([2, *other]))
    swapped = encoded(chelsea, "JPEG", qtables=[coarse, fine], subsampling=0)
    swapped = with_frame(swapped, (11, 1), (14, 0), (17, 0))
    for one in (content, unused, swapped):
        settings = jpeg_settings(one)
        assert settings is not None
        assert list(settings.tables[0]) == fine
        assert np.array_equal(settings.apply(coffee), expected)


def test_below_one_and_a_half_nothing_is_estimated():
    check_estimable(1.5)
    with pytest.raises(BadRequest, match=r"a scale of 1\.5 to 4, not 1\.4"):
        check_estimable(1.4)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["Set14", "BSD100"])
def test_the_estimate_tells_who_wins_on_the_published_sets(
    srcnn: Enhancer, benchmarks: Path, dataset: str
):
    """The caller's picture is the small one; the truth is what only the set knows."""
    right = []
    for file in sorted((benchmarks / dataset / "x3").glob("*_hr.webp")):
        truth = compare(srcnn, decode(file.read_bytes()).rgb, 3)
        estimated = estimate(srcnn, degrade(truth.hr, scaled_size(truth.hr.shape[:2], 1 / 3)), 3)
        right.append((estimated.gain_db > 0) == (truth.gain_db > 0))
    assert len(right) >= 14
    assert np.mean(right) >= 0.95
