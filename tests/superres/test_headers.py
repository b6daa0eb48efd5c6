"""What a stranger's header may cost, and that no decoder sees another picture than admitted."""

import contextlib
import io
import re
import struct
import time
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from superres.codecs import FORMATS, decode, limits, pillow, probe
from superres.errors import AnimatedImage, BadImage, UnsupportedFormat
from tests.pictures import saved
from tests.raw_files import exif_chunk
from tests.soak import REPOSITORY
from tests.structures import COSTLY, gif, honest, jpeg, lying, png, scans, segment, tiff, webp


class CountingFile(io.BytesIO):
    """Counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads = self.bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.reads += 1
        self.bytes += len(data)
        return data


@cache
def costly(name: str) -> bytes:
    build, _ = COSTLY[name]
    return build()


def cost(name: str, data: bytes) -> CountingFile:
    """Probe a file of that format, and return how it was read."""
    file = CountingFile(data)
    began = time.process_time()
    with contextlib.suppress(Exception):  # probe() makes BadImage of whatever it is
        FORMATS[name].probe(file, 10**6)
    # 100 ms, on a machine that does nothing else.
    assert time.process_time() - began < 0.4
    return file


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_header_is_refused_or_read_in_bounded_work(name: str):
    _, message = COSTLY[name]
    data = costly(name)
    file = cost(name.partition(",")[0], data)
    assert file.reads < 20_000
    assert file.bytes <= len(data) + 2**20
    began = time.process_time()
    if message:
        with pytest.raises(BadImage, match=message):
            decode(data)
    else:
        decode(data)
    assert time.process_time() - began < 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(COSTLY)))
def test_no_header_costs_more_than_its_length_and_a_bounded_number_of_reads(seed: int, name: str):
    """A part of a costly file, repeated."""
    choose, data = Random(seed), costly(name)[:400_000]
    start = choose.randrange(len(data))
    part = data[start : start + choose.choice((1, 2, 3, 12, 16, 255, 4096))]
    data = data[:start] + part * (choose.randrange(400_000) // len(part)) + data[start:]
    file = cost(name.partition(",")[0], data)
    assert file.reads < 20_000
    assert file.bytes <= len(data) + 2**20


def test_looking_for_exif_behind_the_pixels_of_a_png_reads_little_of_them():
    data = png(*[(b"IDAT", bytes(2**20))] * 30, (b"IDAT", b""), exif_chunk(6))
    file = cost("png", data)
    assert file.bytes < len(data) / 100
    assert file.reads < 100


@pytest.mark.parametrize("count", [100, 101])
def test_a_hundred_scans_are_decoded_and_no_more(count: int):
    data = scans(count)
    if count == 100:
        assert decode(data).size == (64, 64)
    else:
        with pytest.raises(BadImage, match=r"at most 100 scans of a JPEG are read; .* has 101"):
            decode(data)


def test_scans_behind_the_end_of_a_jpeg_are_not_its_own():
    """As the previews of a phone's MPO are."""
    assert decode(scans(100) + scans(100)).size == (64, 64)


def test_bytes_that_look_like_scans_inside_a_segment_are_none():
    data = jpeg(segment(0xE5, b"\xff\xda\0\2" * 200))
    assert decode(data).size == (8, 8)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({32_997: (4, (150_000,))}, "depth of 1; this one has 150,000"),
        ({322: (3, (16,)), 323: (3, (16,)), 32_998: (4, (9,))}, "tile of 1; this one has 9"),
        ({256: (1, (4,))}, "tag 256 is not one number"),
        ({256: (3, (4, 4))}, "tag 256 is not one number"),
        ({259: (3, (6,))}, "this picture has old-style JPEG: save it with Deflate or LZW"),
        ({317: (3, (3,))}, "predictor 1 or 2, and 3 for floats; this picture has 3"),
        ({284: (3, (3,))}, "planar configuration is not 1 or 2"),
        ({277: (3, (7,))}, "1 to 6 samples a pixel are read; this picture has 7"),
        ({258: (3, (8,) * 7)}, "at most 6 samples a pixel are read; tag 258"),
        ({322: (3, (16,)), 323: (3, (16,)), 324: (4, (8,))}, "neither strips nor tiles, or both"),
        ({258: (3, (16,)), 259: (3, (7,))}, "TIFF with JPEG is read at 8 bits"),
    ],
)
def test_what_two_readers_of_tiff_could_take_for_different_pictures_is_refused(tags, message):
    data = tiff(tags)
    for read in (probe, decode):
        with pytest.raises(BadImage, match=message):
            read(data)
    assert decode(tiff()).size == (4, 4)


def test_a_tile_that_is_much_larger_than_the_picture_is_refused():
    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((40, 40), np.uint16), tile=(2048, 1024), compression="zlib")
    with pytest.raises(
        UnsupportedFormat, match=r"tiles of at most 1,048,576 .* of 1024x2048: save"
    ):
        decode(out.getvalue())
    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((40, 40), np.uint16), tile=(1024, 1024), compression="zlib")
    assert decode(out.getvalue()).size == (40, 40)


def test_a_tag_that_is_there_twice_is_refused():
    data = bytearray(tiff({65_000: (4, (4,))}))
    at = data.index(struct.pack("<HHI", 65_000, 4, 1))
    struct.pack_into("<HHII", data, at, 257, 4, 1, 60_000)
    with pytest.raises(BadImage, match="has a tag twice"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (jpeg(segment(0xC0, bytes((8, 0, 4, 0, 4, 1, 1, 0x11, 0)))), "tells two sizes"),
        (jpeg(segment(0xC0, bytes((8, 0, 4, 0, 4, 3, 1, 0x11, 0)))), "frame has another length"),
        (png((b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))), "IHDR is there twice"),
        (webp()[:24] + b"\xff\xff" + webp()[26:], "tells two sizes"),
    ],
)
def test_a_picture_that_tells_two_sizes_is_refused(data, message):
    for read in (probe, decode):
        with pytest.raises(BadImage, match=message):
            read(data)


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"avif", "heif", "jxl"}))
def test_a_decoder_that_sees_another_size_is_stopped(name: str, monkeypatch):
    """By any reader's mistake: here the one that admits has it wrong."""
    data = saved(Image.new("L", (6, 4)), name.upper())
    opened = pillow.opened

    def misled(opener, data, structure, max_pixels):
        return opened(opener, data, replace(structure, size=(4, 5)), max_pixels)

    monkeypatch.setattr(pillow, "opened", misled)
    with pytest.raises(BadImage, match="it says 5x4, and the decoder sees 6x4"):
        decode(data)


def test_a_frame_outside_the_canvas_of_a_gif_counts_before_pillow_makes_room_for_it(monkeypatch):
    data = gif().replace(b",\0\0\0\0\1\0\1\0", b",\0\0\0\0\xff\xff\xff\xff")

    def never(file: io.BytesIO) -> Image.Image:
        raise AssertionError

    monkeypatch.setattr("superres.codecs.gif_bmp._Gif", never)
    with pytest.raises(BadImage, match=r"at most 64,000,000 input pixels .* \(65535x65535\)"):
        probe(data)


@pytest.mark.parametrize("extension", [b"!\1\0", b"!\xf9\0", b"!\xff\0", b"!\xff\x0bNETSCAPE2.0\0"])
@pytest.mark.parametrize("read", [probe, decode])
def test_an_extension_of_a_gif_that_pillow_does_not_end_where_we_do_is_refused(
    monkeypatch, extension, read
):
    """Pillow would take the frame for data of the extension, and find another frame."""
    data = gif()
    at = data.index(b",\0\0\0\0")
    assert decode(data[:at] + b"!\xfe\0" + data[at:]).size == decode(data).size  # a comment

    def never(file: io.BytesIO) -> Image.Image:
        raise AssertionError

    monkeypatch.setattr("superres.codecs.gif_bmp._Gif", never)
    with pytest.raises(BadImage, match="an extension without data"):
        read(data[:at] + extension + data[at:])


def test_frames_are_not_counted():
    many = COSTLY["tiff, directories"][0]()
    with pytest.raises(AnimatedImage, match=r"more than one: .* save one frame or page as a pict"):
        probe(many)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(FORMATS)), st.booleans())
def test_the_header_and_the_picture_agree(seed: int, name: str, lie: bool):
    choose = Random(seed)
    data = honest(choose, name, 3_000)
    if lie:
        data = lying(choose, name, data)
    try:
        header = probe(data, max_pixels=10**6)
    except BadImage:
        assert lie
        with pytest.raises(BadImage):
            decode(data, max_pixels=10**6)
        return
    try:
        picture = decode(data, max_pixels=10**6)
    except BadImage:
        assert lie
        return
    assert picture.size == header.size
    assert picture.samples.dtype == (np.uint16 if header.bits == 16 else np.uint8)
    assert (picture.alpha is not None) == header.alpha


def test_the_documentation_has_every_limit_with_its_value():
    text = (REPOSITORY / "docs" / "hostile-files.md").read_text()
    told = dict(re.findall(r"^\| `(MAX_\w+)` \| ([\d,]+) \|", text, re.MULTILINE))
    found = {
        name: f"{value:,}"
        for name, value in vars(limits).items()
        if name.startswith("MAX_") and "PUT_PIXELS" not in name
    }
    assert told == found
