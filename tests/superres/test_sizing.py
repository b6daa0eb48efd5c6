"""Sizes: by scale, width and height; what is made of them; and that the forecast knows it."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from superres.arrays import RgbU8
from superres.codecs import Header, Picture
from superres.enhancer import Enhancer
from superres.errors import BadRequest, ImageTooLarge
from superres.forecast import forecast
from superres.models.card import Geometry
from superres.resample import resize_bands
from superres.sizing import LARGEST_SCALE, Target, resolve
from tests.engines import BlurEngine

sides = st.integers(1, 5000)
fits = st.sampled_from([None, "inside", "cover", "exact"])


@settings(max_examples=50, deadline=None)
@given(size=st.tuples(sides, sides), width=sides, height=sides, fit=fits)
def test_a_picture_fits_its_box_as_asked(size, width, height, fit):
    target = Target(width=width, height=height, fit=fit)
    ratios = (width / size[1], height / size[0])
    if (min if fit in (None, "inside") else max)(ratios) > LARGEST_SCALE:
        with pytest.raises(BadRequest, match="at most 4 times"):
            resolve(size, target)
        return
    sizing = resolve(size, target)
    made_height, made_width = sizing.size
    if fit in ("cover", "exact"):
        assert sizing.size == (height, width)
    else:
        assert made_height <= height
        assert made_width <= width
        assert made_height == height or made_width == width
    if fit != "exact":
        left, top, right, bottom = sizing.box or (0, 0, size[1], size[0])
        # The part that is shown has the aspect of the result, but for a pixel's rounding.
        assert made_width == 1 or abs((right - left) * sizing.scale - made_width) < 0.51
        assert made_height == 1 or abs((bottom - top) * sizing.scale - made_height) < 0.51
        assert left == pytest.approx(size[1] - right)
        assert top == pytest.approx(size[0] - bottom)
        assert 0 <= left < right <= size[1]
        assert 0 <= top < bottom <= size[0]


@given(size=st.tuples(sides, sides), side=sides)
def test_one_side_brings_the_other(size, side):
    assume(side <= 4 * size[1])
    height, width = resolve(size, Target(width=side)).size
    assert width == side
    assert height == max(1, int(size[0] * side / size[1] + 0.5))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Target(scale=2, width=800), "exclude each other; scale is 2 and width 800: leave one"),
        (Target(scale=2, height=800), "scale is 2 and height 800"),
        (Target(fit="cover"), "fit=cover .* needs both; given is neither: name both, or leave"),
        (Target(width=100, fit="inside"), "needs both; given is width"),
        (Target(width=0), "width is at least 1 px, not 0"),
        (
            Target(width=401),
            "at most 4 times; width 401 of this one of 100x50 is 4.01 times: ask for a width of "
            "at most 400 and a height of at most 200",
        ),
        (Target(width=500, height=100, fit="cover"), "500x100 cover of this one of 100x50 is 5 t"),
    ],
)
def test_what_is_not_possible_is_told_with_limit_value_and_way_out(target, says):
    with pytest.raises(BadRequest, match=says):
        resolve((50, 100), target)


def test_too_many_pixels_are_told_with_the_limit():
    with pytest.raises(ImageTooLarge, match=r"at most 1,000 output .* 40x10 to 80x20 .* 1,600"):
        resolve((10, 40), Target(width=80, height=20, fit="exact"), max_pixels=1000)


def enhancer(domain: str = "lr", scale: int = 3) -> Enhancer:
    geometry = Geometry(domain=domain, scale=scale, halo=4, largest_tile=64)
    return Enhancer(BlurEngine(geometry), geometry)


@pytest.mark.parametrize("domain", ["lr", "hr"])
@pytest.mark.parametrize("fit", ["inside", "cover", "exact"])
def test_what_the_network_makes_is_shrunk_to_the_size(chelsea: RgbU8, domain, fit):
    picture = Picture(chelsea[:, :400])  # 300 by 400
    made = enhancer(domain).enhance(picture, 3).rgb
    sized = enhancer(domain).enhance(picture, Target(width=700, height=700, fit=fit))
    height, width = sized.size
    box = {"cover": ((1200 - 900) / 2, 0, (1200 + 900) / 2, 900)}.get(fit)
    expected = Image.fromarray(made).resize((width, height), Image.Resampling.BICUBIC, box=box)
    assert (height, width) == ((525, 700) if fit == "inside" else (700, 700))
    assert np.abs(sized.rgb.astype(int) - np.asarray(expected)).max() <= 2


def test_alpha_and_16_bits_are_sized_alike(chelsea: RgbU8):
    wide = np.dstack([chelsea, chelsea[..., :1]]).astype(np.uint16) * 257
    sized = enhancer().enhance(Picture(wide), Target(width=500, height=500, fit="cover"))
    assert sized.samples.dtype == np.uint16
    assert sized.size == (500, 500)
    assert sized.alpha is not None
    assert np.corrcoef(sized.alpha.ravel(), sized.rgb[..., 0].ravel())[0, 1] > 0.9


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_shrinking_by_any_factor_is_pillows_bicubic(size, made):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    pieces = np.concatenate(list(resize_bands(picture, made))).astype(int)
    whole = Image.fromarray(picture).resize(made[::-1], Image.Resampling.BICUBIC)
    assert np.abs(pieces - np.asarray(whole)).max() <= 2


def test_a_picture_that_shrinks_a_hundredfold_is_read_in_blocks():
    picture = np.zeros((6000, 6000, 3), np.uint8)
    tracemalloc.start()
    for band in resize_bands(picture, (60, 60)):
        assert band.shape[1:] == (60, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < picture.nbytes / 2


@pytest.mark.parametrize(
    "target",
    [
        Target(width=900, height=300),
        Target(width=900, height=700, fit="cover"),
        Target(width=900, height=150, fit="exact"),
        Target(width=60),
    ],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_the_forecast_foresees_memory_tiles_and_size(target, bits):
    one = enhancer("lr", 4)
    picture = Picture(np.zeros((200, 400, 3), np.uint8 if bits == 8 else np.uint16))
    foreseen = forecast(Header("png", picture.size, bits), 0, target, one.geometry)
    tiles: list[int] = []
    tracemalloc.start()
    sized = one.enhance(picture, target, progress=lambda done, of: tiles.append(of))
    peak = tracemalloc.get_traced_memory()[1] + picture.samples.nbytes
    tracemalloc.stop()
    assert foreseen.output_size == sized.size
    assert foreseen.tiles == tiles[-1]
    assert peak < foreseen.peak_bytes
