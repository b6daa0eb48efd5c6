"""Grey in, grey out: by any model, in tiles, with alpha, at any depth, in a proof."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from superres import Enhancer
from superres.arrays import RgbU8, TileBatch
from superres.codecs import Picture, decode, encode
from superres.colour import is_grey, to_grey
from superres.models.card import Geometry
from superres.sizing import Target
from tests.engines import BlurEngine


class TintingEngine(BlurEngine):
    """A network that answers each channel in its own way, as trained ones do."""

    def predict(self, tiles: TileBatch) -> TileBatch:
        answers = super().predict(tiles)
        answers[..., 0] = answers[..., 0] ** 2 if answers.dtype == np.float32 else ~answers[..., 0]
        return answers


def enhancer(domain: str, largest_tile: int = 64) -> Enhancer:
    geometry = Geometry(domain=domain, scale=2, halo=4, largest_tile=largest_tile)
    return Enhancer(TintingEngine(geometry), geometry)


def equal_channels(samples: np.ndarray) -> bool:
    red, green, blue = (samples[..., channel] for channel in range(3))
    return np.array_equal(red, green) and np.array_equal(green, blue)


def picture_of(
    size: tuple[int, int], dtype: type, seed: int, alpha: bool, hidden_colours: bool
) -> Picture:
    """Grey noise stored as RGB, some of it transparent, and what is hidden perhaps coloured."""
    random, peak = np.random.default_rng(seed), np.iinfo(dtype).max
    samples = np.repeat(random.integers(0, peak, (*size, 1), dtype, endpoint=True), 3, axis=2)
    if alpha:
        opacity = random.integers(0, 3, (*size, 1), dtype) * (peak // 2)
        opacity[0, 0] = peak
        samples = np.dstack([samples, opacity])
        if hidden_colours:
            samples[samples[..., 3] == 0, :1] = 7
    return Picture(samples)


worlds = {
    "size": st.tuples(st.integers(10, 90), st.integers(10, 90)),
    "dtype": st.sampled_from([np.uint8, np.uint16]),
    "seed": st.integers(0, 99),
    "alpha": st.booleans(),
    "hidden_colours": st.booleans(),
}
targets = st.sampled_from([1, 1.7, 2, 3.1, Target(width=40, height=40, fit="exact")])


@settings(max_examples=12, deadline=None)
@given(st.fixed_dictionaries(worlds), st.sampled_from(["lr", "hr"]), targets, st.booleans())
def test_grey_stays_grey_and_tiled_equals_whole(world, domain, target, ensemble):
    picture = picture_of(**world)
    one, whole = enhancer(domain), enhancer(domain, largest_tile=512)
    if ensemble:
        one, whole = one.ensembled(), whole.ensembled()
    made = one.enhance(picture, target)
    assert equal_channels(made.rgb)
    assert made.grey == picture.grey
    assert np.array_equal(made.samples, whole.enhance(picture, target).samples)
    assert equal_channels(one.enhance_rgb(made.rgb, made.size))


@settings(max_examples=12, deadline=None)
@given(st.fixed_dictionaries(worlds), targets)
def test_bicubic_makes_of_grey_what_it_makes_of_each_channel(world, target):
    picture = picture_of(**world)
    geometry = Geometry(domain="hr", scale=1, halo=0, largest_tile=64)
    bicubic = Enhancer(BlurEngine(geometry), geometry)
    rgb = Picture(picture.samples[..., [1, 1, 1]])
    tinted = rgb.samples.copy()
    tinted[0, 0, 2] ^= 1  # no longer grey: nothing is done to its channels
    made = bicubic.enhance(rgb, target).samples
    assert np.array_equal(made[..., 0], bicubic.enhance(Picture(tinted), target).samples[..., 0])


def test_one_pixel_of_colour_makes_a_picture_of_colour(chelsea: RgbU8):
    grey = np.repeat(chelsea[..., :1], 3, axis=2)
    assert is_grey(grey)
    for at in ((0, 0), (150, 200), (-1, -1)):
        coloured = grey.copy()
        coloured[at] += np.uint8([0, 0, 1])
        assert not is_grey(coloured)
        assert not equal_channels(enhancer("lr").enhance(Picture(coloured), 2).rgb)


def test_what_is_wholly_transparent_keeps_its_colours():
    hidden = np.zeros((5, 5, 4), np.uint8)
    hidden[..., 0] = 9
    assert not is_grey(hidden)
    assert is_grey(hidden[..., [1, 1, 1, 3]]) is False  # nothing is visible: nothing is known
    hidden[2, 2] = (4, 4, 4, 1)
    assert is_grey(hidden)


def test_every_level_comes_back_as_it_is():
    levels = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    assert np.array_equal(to_grey(levels), levels)
    wide = (np.arange(65_536) / np.float32(65_535)).astype(np.float32)[:, None].repeat(3, axis=1)
    assert np.array_equal(to_grey(wide), wide)


def test_a_halftone_through_the_shipped_model_stays_grey(srcnn: Enhancer):
    dots = np.indices((60, 80)).sum(axis=0) % 3 < 1
    halftone = Picture(np.repeat(np.uint8(dots * 255)[..., None], 3, axis=2))
    tinted = halftone.samples.copy()
    tinted[0, 0, 0] ^= 1
    assert not equal_channels(srcnn.enhance(Picture(tinted), 3).rgb[9:])  # the network alone
    for target in (3, 2, Target(width=100, height=100, fit="cover")):
        made = srcnn.enhance(halftone, target)
        assert equal_channels(made.rgb)
        for output_format in ("png", "tiff", "jpeg"):
            again = decode(encode(made, output_format))
            assert equal_channels(again.rgb)
            assert not again.grey  # stored as RGB, as it was
    grey = srcnn.enhance(replace(halftone, grey=True), 3)
    assert decode(encode(grey, "png")).grey
