"""Tiled equals whole, bands equal the whole, alpha and depth come through."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superres import Enhancer, load_model
from superres.arrays import RgbU8, to_float, to_integer
from superres.codecs import Picture
from superres.engines.base import Engine
from superres.errors import BadRequest, ImageTooLarge
from superres.evaluation.proof import compare
from superres.models.card import Geometry
from superres.resample import scaled_size, upsample
from superres.sizing import resolve
from tests.engines import BlurEngine


def at_once(engine: Engine, geometry: Geometry, lr: np.ndarray, size: tuple[int, int]):
    """The plane extended by its edges, through the network in one call."""
    plane = upsample(lr, size) if geometry.domain == "hr" else lr
    halo = geometry.halo
    padded = np.pad(plane, ((halo, halo), (halo, halo), (0, 0)), mode="edge")
    cut = slice(halo * geometry.upscale, -halo * geometry.upscale or None)
    return engine.predict(padded[None])[0, cut, cut]


class Leaning(BlurEngine):
    """A blur that looks further to one side than to the others, as a network may."""

    def predict(self, tiles):
        return super().predict(np.roll(tiles, 3, axis=2))


def noise(height: int, width: int) -> RgbU8:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 1600),
    width=st.integers(1, 1600),
    scale=st.integers(1, 4),
    largest_tile=st.sampled_from([64, 96, 256, 512]),
    halo=st.integers(1, 15),
)
def test_tiled_equals_whole(height, width, scale, largest_tile, halo):
    geometry = Geometry(domain="hr", scale=scale, halo=halo, largest_tile=largest_tile)
    enhancer = Enhancer(BlurEngine(geometry), geometry)
    size = (height, width)
    lr = noise(*(max(1, side // scale) for side in size))
    if min(size) < scale:
        size = scaled_size(lr.shape[:2], scale)
    expected = at_once(enhancer.engine, geometry, lr, size)
    assert np.array_equal(enhancer.enhance_rgb(lr, size), expected)


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    scale=st.integers(1, 4),
    largest_tile=st.sampled_from([64, 128]),
)
def test_tiled_equals_whole_for_networks_that_enlarge(height, width, scale, largest_tile):
    geometry = Geometry(domain="lr", scale=scale, halo=10, largest_tile=largest_tile)
    enhancer = Enhancer(BlurEngine(geometry), geometry)
    lr = noise(height, width)
    size = (height * scale, width * scale)
    expected = at_once(enhancer.engine, geometry, lr, size)
    assert np.array_equal(enhancer.enhance_rgb(lr, size), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("domain", ["hr", "lr"])
def test_an_ensemble_tiled_equals_whole(dtype: type, domain: str):
    geometry = Geometry(domain=domain, scale=3, halo=7, largest_tile=64)
    engine = Leaning(geometry.model_copy(update={"halo": 4}))
    enhancer = Enhancer(engine, geometry).ensembled()
    lr = noise(70, 130)
    if dtype is np.uint16:
        lr = to_float(lr)
    size = (210, 390)
    expected = at_once(enhancer.engine, geometry, lr, size)
    assert not np.array_equal(expected, at_once(engine, geometry, lr, size))
    assert np.array_equal(enhancer.enhance_rgb(lr, size), expected)


def test_the_real_models_ensemble_tiled_equals_whole_to_the_bit(srcnn_in_each_precision: Enhancer):
    ensemble = srcnn_in_each_precision.ensembled()
    lr = noise(20, 200)
    expected = at_once(ensemble.engine, ensemble.geometry, lr, (60, 600))
    assert np.array_equal(ensemble.enhance_rgb(lr, (60, 600)), expected)


@pytest.mark.parametrize("lr_size", [(1, 1), (40, 333), (333, 333), (170, 400), (256, 170)])
def test_the_real_model_tiled_equals_whole_to_the_bit(srcnn_in_each_precision: Enhancer, lr_size):
    enhancer = srcnn_in_each_precision
    lr = noise(*lr_size)
    size = scaled_size(lr_size, 3)
    expected = at_once(enhancer.engine, enhancer.geometry, lr, size)
    assert np.array_equal(enhancer.enhance_rgb(lr, size), expected)


@pytest.mark.parametrize("domain", ["hr", "lr"])
@pytest.mark.parametrize("scale", [1, 2.5, 4])
def test_a_network_works_at_its_own_scale_and_what_it_makes_is_resized(domain, scale):
    geometry = Geometry(domain=domain, scale=3, halo=1, largest_tile=64)
    enhancer = Enhancer(BlurEngine(geometry), geometry)
    lr = noise(40, 30)
    size = scaled_size((40, 30), scale)
    made = at_once(enhancer.engine, geometry, lr, (120, 90))
    assert np.array_equal(enhancer.enhance(Picture(lr), scale).samples, upsample(made, size))


@pytest.mark.xdist_group("shipped model")
@pytest.mark.parametrize("scale", [1.25, 1.5, 2.5, 3.5])
def test_between_the_scales_that_were_trained_for_srcnn_still_wins(chelsea: RgbU8, scale):
    enhancer = load_model("srcnn", scale=scale)
    assert compare(enhancer, chelsea, scale).gain_db > 0.5


def test_alpha_is_enlarged_by_bicubic_and_a_picture_keeps_its_character(srcnn: Enhancer):
    alpha = noise(20, 30)[..., 0]
    picture = Picture(
        np.dstack([noise(20, 30), alpha]), grey=True, icc_profile=b"x", source_format="webp"
    )
    enhanced = srcnn.enhance(picture, 2)
    assert np.array_equal(enhanced.alpha, upsample(alpha, (40, 60)))
    assert (enhanced.grey, enhanced.icc_profile, enhanced.source_format) == (True, b"x", "webp")


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_transparent_does_not_colour_the_edge_of_what_is_not(
    srcnn: Enhancer, hidden: int, dtype
):
    """A red disc on nothing, whatever colour the file has where nothing is."""
    y, x = np.mgrid[:60, :60]
    disc = np.hypot(y - 29.5, x - 29.5) < 20
    samples = np.where(disc[..., None], [200, 30, 30, 255], [hidden, hidden, hidden, 0])
    picture = Picture(to_integer(to_float(samples.astype(np.uint8)), dtype))
    enhanced = to_integer(srcnn.enhance(picture, 3).samples, np.uint8)
    alpha = enhanced[..., 3]
    assert ((alpha > 0) & (alpha < 255)).any()
    # Its own reconstruction of a flat red is what the network may do to it.
    flat = np.full((60, 60, 3), (200, 30, 30), np.uint8)
    expected = srcnn.enhance(Picture(flat), 3).rgb[90, 90]
    seen = enhanced[alpha > 0][:, :3].astype(int)
    assert np.abs(seen - expected).max() <= 3


def test_a_picture_one_pixel_high_and_very_long_takes_little_memory():
    geometry = Geometry(domain="hr", scale=1, halo=7, largest_tile=512)
    enhancer = Enhancer(BlurEngine(geometry), geometry)
    picture = Picture(noise(1, 300_000))
    tracemalloc.start()
    enhancer.enhance(picture, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # 1 MB of it is the result; all of the plane with its halo would be 29 MB


@pytest.mark.slow
def test_sixteen_bits_never_become_a_whole_plane_of_floats():
    geometry = Geometry(domain="hr", scale=1, halo=2, largest_tile=64)
    enhancer = Enhancer(BlurEngine(geometry), geometry)
    picture = Picture(np.zeros((2500, 2500, 4), np.uint16))
    tracemalloc.start()
    enhancer.enhance(picture, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < picture.samples.nbytes + 40e6  # floats would be 75 MB more


def test_sixteen_bits_come_back_as_sixteen_and_agree_with_eight(srcnn: Enhancer, chelsea: RgbU8):
    eight = chelsea[:60, :60]
    sixteen = to_integer(to_float(eight), np.uint16)
    enhanced = srcnn.enhance(Picture(sixteen[..., [0, 1, 2, 0]]), 3)
    assert enhanced.rgb.dtype == enhanced.alpha.dtype == np.uint16
    assert len(np.unique(enhanced.rgb)) > 256
    difference = (
        to_integer(enhanced.rgb, np.uint8).astype(int) - srcnn.enhance(Picture(eight), 3).rgb
    )
    assert np.abs(difference).max() <= 2


def test_progress_counts_every_tile():
    geometry = Geometry(domain="hr", scale=1, halo=2, largest_tile=64)
    seen: list[tuple[int, int]] = []
    enhancer = Enhancer(BlurEngine(geometry), geometry)
    enhancer.enhance(Picture(noise(100, 50)), 1, progress=lambda *tiles: seen.append(tiles))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("scale", [0.99, 4.01, float("nan"), -3])
def test_a_scale_out_of_range_is_refused(scale):
    with pytest.raises(BadRequest, match=rf"scale is 1 to 4, not {scale:g}"):
        resolve((10, 10), scale)


def test_too_many_output_pixels_are_refused_by_number():
    with pytest.raises(ImageTooLarge, match=r"at most 1,000 output pixels .* 1,600 \(80x20\)"):
        resolve((10, 40), 2, max_pixels=1000)
