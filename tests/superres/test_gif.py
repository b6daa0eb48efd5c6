"""A GIF is shown as browsers show it."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from superres.codecs import conversion_notes, decode, probe
from tests.pictures import saved

CANVAS = (12, 20)


def framed(top: int, left: int, height: int, width: int, clear: int | None = None) -> bytes:
    """A GIF of 12x20 whose frame is elsewhere: of colours 1, 2, 3 and so on."""
    image = Image.new("P", (width, height))
    image.putpalette([value for index in range(256) for value in (index, 100, 255 - index)])
    image.putdata([1 + number % 200 for number in range(width * height)])
    options = {} if clear is None else {"transparency": clear}
    data = bytearray(saved(image, "GIF", optimize=False, **options))
    data[6:10] = struct.pack("<HH", CANVAS[1], CANVAS[0])
    at = data.index(b"," + bytes(4) + struct.pack("<HH", width, height))
    data[at + 1 : at + 5] = struct.pack("<HH", left, top)
    return bytes(data)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10), st.integers(0, 10), st.integers(1, 12), st.integers(1, 20), st.booleans()
)
def test_what_is_outside_the_frame_is_transparent(top, left, height, width, clear):
    data = framed(top, left, height, width, 3 if clear else None)
    header, picture = probe(data), decode(data)
    size = max(CANVAS[0], top + height), max(CANVAS[1], left + width)
    assert header.size == picture.size == size
    whole = (top, left, height, width) == (0, 0, *size)
    assert header.alpha == (picture.alpha is not None) == (clear or not whole)
    expected = np.zeros(size, np.uint8)
    expected[top : top + height, left : left + width] = 255
    indices = (1 + np.arange(width * height) % 200).reshape(height, width)
    if clear:
        expected[top : top + height, left : left + width][indices == 3] = 0
    if picture.alpha is not None:
        assert np.array_equal(picture.alpha, expected)
    seen = expected[top : top + height, left : left + width] > 0
    inside = picture.rgb[top : top + height, left : left + width, 0]
    assert np.array_equal(inside[seen], indices[seen])


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (b";", ""),
        (b"", ", end marker added"),
        (b";PK", "; dropped: data behind the picture"),
    ],
)
def test_the_end_of_a_gif_is_told_where_it_is_not_as_it_should_be(end, told):
    picture = decode(framed(0, 0, *CANVAS)[:-1] + end)
    assert conversion_notes(picture, "png") == "converted: palette to RGB" + told
