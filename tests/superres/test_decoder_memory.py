"""Decoding takes no more memory than the header lets forecast, for honest and lying headers."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from superres.codecs import FORMATS, probe
from superres.codecs.headers import jxl
from superres.errors import BadImage
from superres.forecast import forecast, forecast_decoding
from superres.models.card import Geometry
from tests import jxls
from tests.decoding import Decoder
from tests.hostile import seeds
from tests.soak import slow
from tests.structures import COSTLY, honest, lying, tiff

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells"
)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """A process of its own: one that has freed memory takes that again, unseen."""
    decoder = Decoder()
    yield decoder
    decoder.close()


@pytest.mark.parametrize(
    ("examples", "pixels", "least"), [(5, 2_000_000, 0.01), slow(25, 4_000_000, 0.25)]
)
@pytest.mark.parametrize("name", FORMATS)
def test_no_file_takes_more_memory_than_its_header_lets_forecast(
    decoder: Decoder, name: str, examples: int, pixels: int, least: float, record_property
):
    worst = 0.0

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 2**32), st.booleans())
    def search(seed: int, lie: bool) -> None:
        nonlocal worst
        choose = Random(seed)
        data = honest(choose, name, pixels)
        if lie:
            data = lying(choose, name, data)
        decoded = decoder.measure(data)
        assert decoded.peak_bytes < 1.1 * decoded.forecast_bytes
        if decoded.size is not None:
            assert decoded.header is not None
            assert decoded.size == decoded.header["size"]
            worst = max(worst, decoded.peak_bytes / decoded.forecast_bytes)

    search()
    record_property(f"worst, {name}", round(worst, 2))
    assert worst > least  # or the forecast would refuse what there is room for


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_file_takes_no_more_memory_than_forecast(decoder: Decoder, name: str):
    build, _ = COSTLY[name]
    decoded = decoder.measure(build())
    assert decoded.peak_bytes < 1.1 * decoded.forecast_bytes


@pytest.mark.parametrize("examples", [20, slow(1000)])
def test_boxes_of_a_jpeg_xl_take_no_memory_for_what_they_say_to_be(decoder: Decoder, examples: int):
    """The decoder would take as much as a box says that it is long, or expands to."""
    own = [seed for seed in seeds() if seed.startswith(jxl.CONTAINER)]

    @settings(max_examples=examples, deadline=None)
    @given(st.integers(0, 2**32))
    def search(seed: int) -> None:
        choose = Random(seed)
        decoded = decoder.measure(jxls.with_lying_boxes(choose, choose.choice(own)))
        assert decoded.peak_bytes < 1.1 * decoded.forecast_bytes

    search()


@pytest.mark.parametrize("examples", [5, slow(200)])
def test_layers_of_a_jpeg_xl_take_no_more_memory_than_forecast(decoder: Decoder, examples: int):
    """Some hundred bytes may say that they are a layer of any size, and be kept four times."""
    read = refused = 0

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.integers(0, 2**32))
    @example(28)  # large layers on a small canvas
    @example(38)  # as many as there are places for
    def search(seed: int) -> None:
        nonlocal read, refused
        decoded = decoder.measure(jxls.with_layers(Random(seed), 8))
        assert decoded.peak_bytes < 1.1 * decoded.forecast_bytes
        read += decoded.size is not None
        refused += decoded.size is None

    search()
    assert read
    assert refused


def test_a_picture_that_is_deep_for_one_reader_alone_takes_no_memory(decoder: Decoder):
    deep = tiff({256: (3, (100,)), 257: (3, (100,)), 258: (3, (16,)), 32_997: (4, (150_000,))})
    assert decoder.measure(deep).peak_bytes < 2**20


def test_the_forecast_of_enhancing_counts_decoding():
    """Where little else is needed: WebP, which libwebp decodes into two canvases."""
    geometry = Geometry(domain="hr", scale=1, halo=7, largest_tile=32)
    data = honest(Random(0), "webp", 1_000_000)
    header = probe(data)
    pixels = header.size[0] * header.size[1]
    alone = forecast_decoding(header, len(data)) - 16 * 2**20
    assert alone > 22 * pixels
    assert forecast(header, len(data), 1, geometry).peak_bytes >= alone
    with pytest.raises(BadImage):
        probe(data, max_pixels=10)
