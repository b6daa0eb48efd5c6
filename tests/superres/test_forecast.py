"""What a picture takes, from its header. That it is enough is measured by `make bench-memory`."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from superres.codecs import Header, Picture
from superres.enhancer import Enhancer
from superres.errors import BadRequest, ImageTooLarge
from superres.evaluation.proof import compare, estimate
from superres.forecast import forecast, forecast_comparison
from superres.models.card import Geometry
from tests.engines import BlurEngine

GEOMETRY = Geometry(domain="hr", scale=3, halo=7, largest_tile=512)


def peak(bits: int = 8, alpha: bool = False, **options) -> int:
    header = Header("png", (1000, 2000), bits, alpha)
    return forecast(header, 5000, 3, GEOMETRY, **options).peak_bytes


def test_memory_is_what_the_rule_allows_and_the_answer_at_its_largest():
    pixels, out = 20_000_000, 18_000_000
    assert peak() - (1.3 * 4 * pixels + 3 * out + 5000) < 150e6
    assert peak(16) > 2 * peak() - 5000
    assert peak(output_format="webp") == peak()
    assert peak(alpha=True) == peak()
    assert peak(alpha=True, output_format="webp") == peak() + 30 * out


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("domain", ["hr", "lr"])
def test_tiles_in_flight_and_what_is_made_too_large_are_foreseen(domain, ensemble, bits):
    geometry = Geometry(domain=domain, scale=4, halo=7, largest_tile=128)
    enhancer = Enhancer(BlurEngine(geometry), geometry)
    if ensemble:
        enhancer = enhancer.ensembled()
    picture = Picture(np.zeros((100, 500, 3), np.uint8 if bits == 8 else np.uint16))
    scale = 2.5
    foreseen = forecast(Header("png", picture.size, bits), 0, scale, geometry, ensemble=ensemble)
    tracemalloc.start()
    enhanced = enhancer.enhance(picture, scale)
    peak = tracemalloc.get_traced_memory()[1] + picture.samples.nbytes
    tracemalloc.stop()
    # Beside it are what decoders and encoders keep, and the answer's file at its largest.
    assert peak < foreseen.peak_bytes - enhanced.samples.nbytes


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells")
def test_the_worst_alpha_in_webp_is_foreseen():
    """Noise, which libwebp looks for in vain in all that came before."""
    alone = forecast(Header("png", (1500, 1500), 8, True), 0, 1, GEOMETRY)
    foreseen = forecast(Header("png", (1500, 1500), 8, True), 0, 1, GEOMETRY, output_format="webp")
    # In a process of its own: one that has freed memory takes that again, unseen.
    script = """
import os
import numpy as np
from superres.codecs import Picture, encode
from tests.serving import reset_peak, resident_bytes
samples = np.random.default_rng(0).integers(0, 256, (1500, 1500, 4), np.uint8)
encode(Picture(samples[:50, :50]), "webp")
before = resident_bytes(os.getpid())
reset_peak(os.getpid())
encode(Picture(samples), "webp")
print(resident_bytes(os.getpid(), peak=True) - before)
"""
    run = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    taken = int(run.stdout)
    assert 10 * 1500**2 < taken < foreseen.peak_bytes - alone.peak_bytes + 6 * 1500**2


def test_the_limits_are_those_of_the_work():
    header = Header("png", (1000, 2000), 8)
    with pytest.raises(BadRequest, match="scale is 1 to 4"):
        forecast(header, 1, 5, GEOMETRY)
    with pytest.raises(ImageTooLarge, match="at most 100 output pixels"):
        forecast(header, 1, 3, GEOMETRY, max_pixels=100)


def test_comparing_takes_more_a_pixel_than_enlarging():
    compared = forecast_comparison(Header("png", (1000, 2000), 8), 5000, 3, GEOMETRY)
    assert compared.peak_bytes / 2e6 > peak() / 20e6
    assert compared.tiles > 1


class Counting:
    """An engine that counts the pixels that it is given."""

    def __init__(self, geometry: Geometry) -> None:
        self.upscale, self.given = geometry.upscale, 0

    def predict(self, tiles):
        self.given += tiles.size // 3
        return tiles.repeat(self.upscale, axis=1).repeat(self.upscale, axis=2)


sides = st.integers(1, 40) | st.integers(1, 700)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.tuples(sides, sides) | st.tuples(st.just(1), st.integers(1, 8000)),
    st.floats(1, 4) | st.sampled_from((1.5, 2, 3, 4)),
    st.builds(
        Geometry,
        domain=st.sampled_from(("hr", "lr")),
        scale=st.integers(2, 4),
        halo=st.integers(0, 15),
        largest_tile=st.sampled_from((64, 128, 512)),
    ),
    st.booleans(),
)
def test_the_forecast_counts_what_the_engine_is_given(size, scale, geometry, ensemble):
    """All of it: the padding of a picture of one row, halos, views, and the tiles of a proof."""
    assume(max(size) * scale < 12_000)
    assume(size[0] * size[1] * max(scale, geometry.scale) ** 2 < 1e6)
    header, picture = Header("png", size, 8), np.zeros((*size, 3), np.uint8)
    cost = forecast(header, 0, scale, geometry, ensemble=ensemble)
    compared = forecast_comparison(header, 0, scale, geometry, ensemble=ensemble)

    def made(work) -> int:
        engine = Counting(geometry)
        enhancer = Enhancer(engine, geometry)
        work(enhancer.ensembled() if ensemble else enhancer)
        return engine.given * geometry.upscale**2

    assert cost.engine_pixels == made(lambda e: e.enhance(Picture(picture), scale))
    if min(size) >= 20 and scale > 1:
        assert compared.engine_pixels == made(lambda e: compare(e, picture, scale))
    if min(size) >= 20 and scale >= 1.5:
        assert cost.proof_pixels == made(lambda e: estimate(e, picture, scale))
