"""JPEG XL: as another decoder reads it, in its colours; and what is refused."""

import io
import struct
from dataclasses import replace

import imagecodecs
import numpy as np
import pyjpegxl
import pytest
from PIL import Image, ImageDraw

from superres.arrays import RgbU8
from superres.codecs import conversion_notes, decode, encode, probe
from superres.codecs import jxl as codec
from superres.codecs.headers import jxl as headers
from superres.codecs.headers import jxl_frames as frames
from superres.codecs.headers.isobmff import file_boxes
from superres.codecs.items import box
from superres.codecs.limits import MAX_XMP_BYTES
from superres.codecs.pillow import upright
from superres.errors import AnimatedImage, BadImage, ImageTooLarge, UnsupportedFormat
from superres.picture import Picture
from tests import heics, jxls
from tests.jxls import Bits
from tests.pictures import WIDE_PROFILE
from tests.soak import slow


def header(*numbers: tuple[int, int]) -> bytes:
    """A codestream of 8x8 whose metadata begin so."""
    return Bits().put((1, 1), (0, 5), (1, 3), (0, 1), *numbers).data()


def depth(bits: int) -> tuple[tuple[int, int], ...]:
    return ((0, 1), (3, 2), (bits - 1, 6))


@pytest.fixture(scope="module")
def photograph(coffee: RgbU8) -> RgbU8:
    return np.ascontiguousarray(coffee[100:220, 200:380])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_jpeg_xl_has_what_the_picture_had(photograph, dtype, grey, alpha):
    """Read by imagecodecs, which has a libjxl of its own, too."""
    samples = np.dstack([photograph, photograph[::-1, :, 1]]).astype(dtype)
    samples = samples * (257 if dtype == np.uint16 else 1)
    if grey:
        samples[..., :3] = samples[..., 1:2]
    samples = samples if alpha else np.ascontiguousarray(samples[..., :3])
    exif = b"Exif\0\0" + heics.exif(orientation=1)
    picture = Picture(samples, grey=grey, exif=exif, xmp=b"<x/>")
    data = encode(picture, "jxl", 95)
    channels = samples[..., [0, 3] if alpha else [0]] if grey else samples
    scale = 257 if dtype == np.uint16 else 1
    other = np.atleast_3d(imagecodecs.jpegxl_decode(data))
    assert np.abs(other.astype(float) - channels).mean() < 3 * scale
    again, found = decode(data), probe(data)
    assert (found.size, found.alpha, found.bits) == (again.size, alpha, 8 * again.samples.itemsize)
    assert (again.grey, again.samples.dtype) == (grey, dtype)
    assert np.abs(again.samples.astype(float) - samples).mean() < 3 * scale
    assert again.icc_profile is None
    assert again.xmp == b"<x/>"
    assert b"Phone" in (again.exif or b"")
    kept = ["EXIF", "XMP"] + ["alpha"] * alpha + ["16 bits"] * (dtype == np.uint16)
    assert conversion_notes(picture, "jxl") == f"kept: {', '.join(kept)}"


def test_colours_are_converted_to_srgb_since_the_library_writes_no_profile():
    red = Picture(np.full((32, 32, 3), (200, 60, 60), np.uint8), icc_profile=WIDE_PROFILE)
    written = imagecodecs.jpegxl_decode(encode(red, "jxl", 100))[16, 16]
    srgb = imagecodecs.cms_transform(
        red.samples,
        WIDE_PROFILE,
        imagecodecs.cms_profile("srgb"),
        colorspace="rgb",
        outcolorspace="rgb",
    )
    assert np.abs(written.astype(int) - srgb[16, 16]).max() <= 3
    assert srgb[16, 16, 0] > 210


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("level", [90, 101])
@pytest.mark.parametrize("container", [False, True])
def test_what_another_encoder_writes_is_read(photograph, channels, level, container):
    samples = np.dstack([photograph, photograph[..., 0]])[..., :channels]
    data = bytes(imagecodecs.jpegxl_encode(samples, level=level, usecontainer=container))
    picture = decode(data)
    assert picture.grey == (channels < 3)
    assert (picture.alpha is not None) == (channels in (2, 4))
    wanted = samples[..., [0, 0, 0, 1][: 3 + channels // 2]] if channels < 3 else samples
    assert np.abs(picture.samples.astype(int) - wanted).mean() < (3 if level == 90 else 0.01)
    assert picture.icc_profile is None


def test_ten_bits_are_scaled_and_linear_light_has_its_profile():
    """What imagecodecs writes from 16 bits is linear."""
    data = bytes(imagecodecs.jpegxl_encode(np.full((32, 32), 1023, np.uint16), bitspersample=10))
    assert headers.read(io.BytesIO(data)).bits == 10
    picture = decode(data)
    assert picture.samples.min() == 65_535
    assert picture.icc_profile is not None
    assert picture.grey


def test_floats_from_0_to_1_become_16_bits():
    levels = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(8, 0)
    data = bytes(imagecodecs.jpegxl_encode(levels, level=101))
    assert probe(data).bits == 16
    picture = decode(data)
    assert "floats to 16 bits" in picture.converted
    assert np.abs(picture.samples[0, :, 0] / 65_535 - levels[0]).max() < 1e-4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_the_codestream_is_applied_once(photograph, orientation):
    """The fields that have it are inserted into a header that another encoder wrote."""
    data = bytes(imagecodecs.jpegxl_encode(photograph[:112, :176], level=101))
    turned = jxls.turned(data, orientation)
    structure = headers.read(io.BytesIO(data))
    of_turned = headers.read(io.BytesIO(turned))
    assert replace(of_turned, head=structure.head) == replace(structure, orientation=orientation)
    picture = decode(turned)
    assert (picture.samples == upright(photograph[:112, :176], orientation)).all()
    assert probe(turned).size == picture.size


def test_animations_hdr_and_other_colours_are_refused_by_name():
    animation = header((1, 1), (0, 3), (0, 1), (0, 1), (1, 1))
    with pytest.raises(AnimatedImage, match="this JPEG XL has more than one"):
        probe(animation)
    # No further fields, 8 bits, no modular, no channels, XYB, colours not as usual, no ICC profile,
    # RGB, D65, primaries of BT.2100, no gamma.
    colours = ((0, 1), (0, 3), (0, 1), (0, 2), (1, 1), (0, 1), (0, 1), (0, 2), (1, 2), (2, 2))
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        coded = ((2, 2), (14, 4)) if transfer == 16 else ((3, 2), (0, 6))
        hdr = header(*colours, (7, 4), (0, 1), *coded)
        with pytest.raises(UnsupportedFormat, match=rf"{name} \(HDR\)"):
            probe(hdr)
    cmyk = header((0, 1), (0, 3), (0, 1), (1, 2), (0, 1), (2, 2), (2, 4), (0, 3), (0, 2), (0, 2))
    with pytest.raises(UnsupportedFormat, match="CMYK"):
        probe(cmyk)
    with pytest.raises(
        UnsupportedFormat, match="at most 16 bits a sample is read; this one has 24"
    ):
        probe(header((0, 1), *depth(24)))


def test_too_many_pixels_and_cuts_are_told_from_the_header(photograph):
    data = bytes(imagecodecs.jpegxl_encode(photograph))
    with pytest.raises(ImageTooLarge, match=r"21,600 \(180x120\)"):
        probe(data, max_pixels=10_000)
    for end in range(0, len(data) - 1, 97):
        with pytest.raises(BadImage):
            decode(data[:end])
    huge = Bits().put((0, 1), (3, 2), (2**30 - 1, 30), (1, 3), (1, 1)).data()
    with pytest.raises(ImageTooLarge, match="1073741824x1073741824"):
        probe(huge)


def test_a_codestream_in_parts_is_read(photograph):
    data = bytes(imagecodecs.jpegxl_encode(photograph))
    first, second = (struct.pack(">I", 0), data[:20]), (struct.pack(">I", 1 | 1 << 31), data[20:])
    whole = headers.CONTAINER + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    whole += b"".join(box(b"jxlp", b"".join(part)) for part in (first, second))
    assert probe(whole).size == (120, 180)
    assert (decode(whole).samples == decode(data).samples).all()


@pytest.mark.parametrize("start", [b"", bytes(4), b"\0\0\0\3abc"])
def test_exif_is_read_where_its_box_says_that_it_begins(photograph, start):
    """Some encoders leave out where it begins; the standard does not."""
    exif = heics.exif(orientation=1)
    codestream = bytes(imagecodecs.jpegxl_encode(photograph))
    whole = headers.CONTAINER + box(b"ftyp", b"jxl \0\0\0\0jxl ") + box(b"jxlc", codestream)
    assert b"Phone" in (decode(whole + box(b"Exif", start + exif)).exif or b"")


def test_exif_is_written_as_the_standard_has_it(photograph):
    data = encode(Picture(photograph, exif=b"Exif\0\0" + heics.exif(orientation=1)), "jxl", 90)
    (body,) = (data[at:end] for kind, at, end in file_boxes(io.BytesIO(data)) if kind == b"brob")
    assert body[:4] == b"Exif"
    assert imagecodecs.brotli_decode(body[4:])[:6] in (b"\0\0\0\0II", b"\0\0\0\0MM")


def test_a_decoder_that_sees_something_else_is_stopped(monkeypatch, photograph):
    data = bytes(imagecodecs.jpegxl_encode(photograph))
    read = headers.read
    monkeypatch.setattr(headers, "read", lambda file: replace(read(file), size=(4, 5)))
    with pytest.raises(BadImage, match="it says 5x4"):
        decode(data)


def test_compressed_metadata_is_read_and_cannot_take_more_than_plain_metadata(photograph):
    exif = b"Exif\0\0" + heics.exif(orientation=1)
    written = encode(Picture(photograph, exif=exif, xmp=b"<x/>"), "jxl", 90)
    expected = decode(written)

    def with_xmp(kind: bytes, body: bytes) -> bytes:
        parts, begin = [], 0
        for found, at, end in file_boxes(io.BytesIO(written)):
            is_xmp = found == b"brob" and written[at : at + 4] == b"xml "  # as the library writes
            parts.append(box(kind, body) if is_xmp else written[begin:end])
            begin = end
        return b"".join(parts)

    for same in (
        with_xmp(b"xml ", b"<x/>"),
        with_xmp(b"brob", b"xml " + imagecodecs.brotli_encode(b"<x/>")),
    ):
        read = decode(same)
        assert (read.exif, read.xmp, read.dropped) == (expected.exif, b"<x/>", ())
    bomb = with_xmp(b"brob", b"xml " + imagecodecs.brotli_encode(bytes(MAX_XMP_BYTES + 1)))
    assert len(bomb) < len(written) + 1000
    read = decode(bomb)
    assert (read.xmp, read.dropped) == (None, ("damaged XMP",))
    assert np.array_equal(read.samples, expected.samples)


def end(codestream: bytes) -> int:
    """Where our reader sees that the last frame ends, at which nothing needs to be known."""
    structure = headers.read(io.BytesIO(codestream))
    last_start = None
    ends = frames._end

    def noted(*arguments):
        nonlocal last_start
        last_start = ends(*arguments)
        return last_start

    start = codec._end_of_profile(codestream, structure) if structure.profiled else structure.end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_end", noted)
        list(frames.frames(codestream, structure, -(-start // 8)))
    bits = headers.Bits(codestream, 8 * (last_start or -(-start // 8)))
    return ends(bits, *frames._read_header(bits, structure, structure.size))


@pytest.mark.parametrize(
    ("effort", "level"),
    [(1, 90), *(slow(effort, level) for effort in (3, 5, 7) for level in (10, 90, 101))],
)
def test_frames_are_read_to_their_end(photograph, effort, level):
    """Tiny and flat pictures have short ones; larger than 2,048 pixels, sections change places."""
    pictures = (
        photograph,
        np.dstack([photograph, photograph[..., 0]]),
        photograph[..., 0].astype(np.uint16) * 257,
        np.zeros((1, 1), np.uint8),
        np.full((900, 1100, 3), 90, np.uint8),
        np.tile(np.arange(256, dtype=np.uint8), (40, 9)),
    )
    for samples in pictures:
        data = bytes(imagecodecs.jpegxl_encode(samples, level=level, effort=effort))
        codestream = codec._read_boxes(data).codestream
        assert end(codestream) == len(codestream)
        assert decode(data).size == samples.shape[:2]


@pytest.mark.parametrize("speed", [*map(slow, ("Lightning", "Cheetah", "Kitten")), "Squirrel"])
def test_frames_that_others_take_from_are_read(photograph, speed):
    """Letters are kept once; at a low quality, a smaller picture comes first."""
    letters = Image.new("RGB", (400, 300), "white")
    for row in range(0, 300, 14):
        ImageDraw.Draw(letters).text((5, row), "the same letters again and again " * 2, "black")
    for samples in (np.asarray(letters), photograph):
        for distance in (0.5, 15.0):
            options = {"quality": distance, "speed": getattr(pyjpegxl.EncoderSpeed, speed)}
            data = codec._read_boxes(pyjpegxl.encode_from_numpy(samples, **options)).codestream
            assert end(data) == len(data)
            assert decode(data).size == samples.shape[:2]


def test_a_profile_in_the_codestream_is_read_and_what_is_behind_it_is_checked():
    picture = decode(jxls.WITH_PROFILE)
    assert (picture.samples == (200, 60, 60)).all()
    assert picture.icc_profile is not None
    assert end(jxls.WITH_PROFILE) == len(jxls.WITH_PROFILE)
    with pytest.raises(BadImage, match="the profile of its codestream has no end"):
        decode(jxls.WITH_PROFILE[:200])
    bits = int.from_bytes(jxls.WITH_PROFILE, "little")
    at = headers.read(io.BytesIO(jxls.WITH_PROFILE)).end
    long = bits & (1 << at) - 1 | (3 | 0xFFF << 2 | 0x1FF << 14 | 0x1FF << 23) << at
    with pytest.raises(BadImage, match="bytes of the profile of a JPEG XL"):
        decode(long.to_bytes(200, "little"))


def test_layers_are_read_and_too_many_or_too_large_ones_are_refused():
    grey = [np.full((300, 400), level, np.uint8) for level in (90, 200)]
    first, second = (bytes(imagecodecs.jpegxl_encode(one, level=101, effort=1)) for one in grey)
    header, last = jxls.layer(second, (300, 400))
    _, kept = jxls.layer(first, (300, 400), kept_as=1)
    assert (decode(header + kept + last).samples == 200).all()
    assert probe(header + kept + last).decoder_bytes_per_pixel > 60
    with pytest.raises(UnsupportedFormat, match="at most 50 layers is read; this one has more"):
        decode(header + kept * 50 + last)
    grey = np.full((2000, 2000), 90, np.uint8)
    large = bytes(imagecodecs.jpegxl_encode(grey, level=101, effort=1))
    header, layer = jxls.layer(large, (10, 20))
    with pytest.raises(UnsupportedFormat, match="this JPEG XL of 20x10 has a layer of 2000x2000"):
        decode(header + layer)
