"""What a PNG says of its colours, its transparency and its text is kept, or told."""

import struct
import zlib
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superres.codecs import conversion_notes, decode, encode, probe, to_srgb
from superres.colour_profiles import (
    D65,
    SRGB_PRIMARIES,
    grey_profile_of,
    profile_of,
    profile_of_cicp,
)
from superres.errors import BadImage, UnsupportedFormat
from superres.picture import Picture
from tests.pictures import WIDE_PROFILE, chunk

P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
CHRM_P3 = (
    b"cHRM",
    struct.pack(">8I", 31_270, 32_900, 68_000, 32_000, 26_500, 69_000, 15_000, 6_000),
)
CHRM_FLAT = (b"cHRM", struct.pack(">8I", *[31_270, 32_900] * 4))
CICP_P3 = (b"cICP", bytes([12, 13, 0, 1]))
SRGB = (b"sRGB", b"\0")
ICCP = (b"iCCP", b"wide\0\0" + zlib.compress(WIDE_PROFILE))
LINEAR = profile_of(SRGB_PRIMARIES, D65, (1.0,))


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def stored(
    rows: list[bytes],
    width: int,
    depth: int,
    colour: int,
    chunks: list[tuple[bytes, bytes]] | tuple = (),
    *,
    behind: tuple = (),
    end: bytes | None = None,
) -> bytes:
    """A PNG of these packed rows."""
    ihdr = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    every = [(b"IHDR", ihdr), *chunks, (b"IDAT", pixels), *behind]
    end = chunk(b"IEND", b"") if end is None else end
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in every) + end


def rgb(*chunks: tuple[bytes, bytes], **options) -> bytes:
    """Four pixels."""
    return stored([bytes(range(0, 240, 20))], 4, 8, 2, list(chunks), **options)


@pytest.mark.parametrize(
    ("chunks", "profile"),
    [
        ((), None),
        ((SRGB,), None),
        ((SRGB, gamma(1.0)), None),
        ((gamma(1.0),), LINEAR),
        ((gamma(1 / 2.2),), None),
        ((gamma(0.46),), None),
        ((gamma(1 / 1.8),), profile_of(SRGB_PRIMARIES, D65, (1 / 0.55556,))),
        ((CHRM_P3,), None),  # browsers, too, do not read it without a gamma
        ((gamma(0.45455), CHRM_P3), profile_of(P3, D65, (1 / 0.45455,))),
        ((CICP_P3,), profile_of_cicp(12, 13)),
        ((CICP_P3, ICCP, gamma(1.0)), profile_of_cicp(12, 13)),
        ((ICCP, SRGB, gamma(1.0), CHRM_P3), WIDE_PROFILE),
        (((b"cICP", bytes([1, 13, 0, 1])), ICCP), None),
        (((b"cICP", bytes([2, 13, 0, 1])), ICCP), WIDE_PROFILE),
    ],
)
def test_colours_are_what_the_standards_precedence_says(chunks, profile):
    picture = decode(rgb(*chunks))
    found = picture.icc_profile
    same = profile is None or found is None or found[132:] == profile[132:]
    # The name of a profile says where it is from.
    names = {b"gAMA", b"cHRM"} & {kind for kind, _ in chunks}
    assert (found is None) == (profile is None)
    assert same or names
    if profile is not None and found is not None:
        expected = to_srgb(Picture(picture.samples, icc_profile=profile)).samples
        assert np.array_equal(to_srgb(picture).samples, expected)
        source = "cICP" if CICP_P3 in chunks else "gAMA"
        told = f"converted: {source} to ICC profile"
        assert (told in conversion_notes(picture, "png")) == (found != WIDE_PROFILE)
        assert decode(encode(picture, "png")).icc_profile == found


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_refused_by_name_by_its_header_alone(transfer):
    data = rgb((b"cICP", bytes([9, transfer, 0, 1])))
    for read in (probe, decode):
        with pytest.raises(UnsupportedFormat, match=r"is (PQ|HLG) \(HDR\): export it as sRGB"):
            read(data)


def test_grey_gets_a_grey_profile():
    for chunks in ([gamma(1.0)], [gamma(1.0), CHRM_P3], [(b"cICP", bytes([9, 8, 0, 1]))]):
        picture = decode(stored([bytes(range(4))], 4, 8, 0, chunks))
        assert picture.grey
        assert picture.icc_profile is not None
        equal = Picture(picture.samples, grey=True, icc_profile=grey_profile_of((1.0,)))
        assert np.array_equal(to_srgb(picture).samples, to_srgb(equal).samples)


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (gamma(0), "damaged gAMA"),
        ((b"iCCP", b"x\0\0" + zlib.compress(bytes(9 * 2**20))), "damaged ICC profile"),
        ((b"iCCP", b"x\0\0abc"), "damaged ICC profile"),
        ((b"iCCP", b"x\0\0" + zlib.compress(bytes(500))), "damaged ICC profile"),
        ((b"cICP", bytes([12, 13, 1, 1])), "damaged cICP"),
        ((b"cICP", bytes([12, 13, 0, 0])), "damaged cICP"),
        ((b"caBX", b"x"), "C2PA"),
    ],
)
def test_what_cannot_be_used_is_dropped_by_name(one, told):
    picture = decode(rgb(one))
    assert picture.icc_profile is None
    assert conversion_notes(picture, "png") == f"dropped: {told}"


def test_primaries_that_make_no_colours_leave_the_gamma():
    picture = decode(rgb(gamma(1.0), CHRM_FLAT))
    assert conversion_notes(picture, "png").endswith("dropped: damaged cHRM")
    assert np.array_equal(
        to_srgb(picture).samples, to_srgb(Picture(picture.samples, icc_profile=LINEAR)).samples
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_found_at_every_depth(depth):
    levels = 2**depth
    values = [0, levels - 1, levels // 2, 0, levels // 3, levels - 1, 1, 0]
    bits = "".join(f"{value:0{depth}b}" for value in values)
    row = int(bits, 2).to_bytes(depth, "big")
    for clear in {*values}:
        # Bits above the depth do not count.
        key = struct.pack(">H", clear | (0x100 if depth < 8 else 0))
        data = stored([row], 8, depth, 0, [(b"tRNS", key)])
        picture = decode(data)
        assert probe(data).alpha
        assert picture.alpha is not None
        assert picture.grey
        most = np.iinfo(picture.samples.dtype).max
        assert (picture.alpha[0] == 0).tolist() == [value == clear for value in values]
        assert picture.rgb[0, :, 0].tolist() == [value * most // (levels - 1) for value in values]
        assert np.array_equal(decode(encode(picture, "png")).samples, picture.samples)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_found_at_both_depths(depth):
    values = np.array([[1, 2, 3], [1, 2, 4], [300 % 2**depth, 2, 3]], f">u{depth // 8}")
    data = stored([values.tobytes()], 3, depth, 2, [(b"tRNS", struct.pack(">3H", 1, 2, 3))])
    picture = decode(data)
    assert probe(data).alpha
    assert picture.alpha is not None
    assert (picture.alpha[0] == 0).tolist() == [True, False, False]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_keeps_its_opacities(depth):
    row = (1 << (16 - 2 * depth)).to_bytes(2, "big")  # 0, 1
    palette = (b"PLTE", bytes([9, 9, 9, 200, 100, 50]))
    picture = decode(stored([row], 2, depth, 3, [palette, (b"tRNS", bytes([100, 0]))]))
    assert picture.samples.tolist() == [[[9, 9, 9, 100], [200, 100, 50, 0]]]


def test_long_text_and_a_long_profile_do_not_cost_the_picture():
    xmp = b"<x>" + b"a" * 2_000_000 + b"</x>"
    noise = Random(0).randbytes(2_000_000)
    profile = WIDE_PROFILE + noise
    written = encode(Picture(np.zeros((2, 2, 3), np.uint8), icc_profile=profile, xmp=xmp), "png")
    picture = decode(written)
    assert (picture.icc_profile, picture.xmp) == (profile, xmp)
    compressed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)
    assert decode(rgb((b"iTXt", compressed))).xmp == xmp
    too_long = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(9 * 2**20))
    assert conversion_notes(decode(rgb((b"iTXt", too_long))), "png") == "dropped: damaged XMP"
    long_text = rgb((b"iTXt", b"Note\0\1\0\0\0" + zlib.compress(bytes(2_000_000))))
    assert conversion_notes(decode(long_text), "png") == "dropped: text"


@pytest.mark.parametrize(
    ("one", "told"),
    [
        ((b"tEXt", b"Author\0me"), "damaged text"),
        ((b"gAMA", struct.pack(">I", 100_000)), "damaged gAMA"),
        ((b"iCCP", ICCP[1]), "damaged iCCP"),
        ((b"pHYs", struct.pack(">IIB", 1, 1, 1)), "damaged pHYs"),
        ((b"tRNS", bytes(6)), "damaged tRNS"),
        ((b"eXIf", b"II*\0\x08\0\0\0\0\0"), "damaged eXIf"),
        ((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"), "damaged text"),
    ],
)
@pytest.mark.parametrize("depth", [8, 16])
def test_a_wrong_checksum_costs_a_chunk_that_is_not_critical_and_no_more(one, told, depth):
    row = bytes(range(4 * 3 * depth // 8))
    data = stored([row], 4, depth, 2, [one])
    at = data.index(one[0]) + 4 + len(one[1])
    data = data[:at] + b"\0\0\0\0" + data[at + 4 :]
    picture = decode(data)
    assert np.array_equal(picture.samples, decode(stored([row], 4, depth, 2)).samples)
    assert f"dropped: {told}" in conversion_notes(picture, "png")
    assert not probe(data).alpha


def test_a_wrong_checksum_of_the_pixels_is_damage():
    data = rgb()
    with pytest.raises(BadImage):
        decode(data[:-16] + b"\0\0\0\0" + data[-12:])


@pytest.mark.parametrize("end", [b"", b"\0\0", b"\0\0\0\0IE", b"\0\0\0\0IEND", b"\0\0\0\5tEXtab"])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_missing_end_marker_is_forgiven_and_told(end, depth):
    row = bytes(range(4 * 3 * depth // 8))
    picture = decode(stored([row], 4, depth, 2, end=end))
    assert picture.rgb[0, 0, 1] in (1, 2 * 256 + 3)
    cut = b"IEND" not in end
    assert ("converted: end marker added" in conversion_notes(picture, "png")) == cut


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([8, 16]))
def test_pixels_that_are_cut_off_are_damage_wherever_they_are_cut(seed, depth):
    choose = Random(seed)
    data = stored([choose.randbytes(3 * depth) for _ in range(20)], 8, depth, 2)
    at = data.index(b"IDAT") + 4
    cut = data[: choose.randrange(at, len(data) - 24)]
    # As it is, and where the chunk, too, ends there.
    whole = cut[: at - 8] + chunk(b"IDAT", cut[at:])
    for damaged in (cut, whole, whole + chunk(b"IEND", b"")):
        with pytest.raises(BadImage):
            decode(damaged)


def test_what_is_behind_the_picture_is_told():
    assert conversion_notes(decode(rgb() + b"PK"), "png") == "dropped: data behind the picture"
    assert conversion_notes(decode(rgb() + bytes(20)), "png") == ""


def test_an_iphones_own_png_is_refused_by_name():
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"CgBI", bytes(4)) + rgb()[8:]
    for read in (probe, decode):
        with pytest.raises(UnsupportedFormat, match=r"iPhone-optimised PNG \(CgBI\).*export it"):
            read(data)


def test_exif_behind_the_pixels_is_read():
    block = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHI4s", 0x010F, 2, 4, b"Abc\0") + bytes(4)
    picture = decode(rgb(behind=((b"eXIf", block),)))
    assert picture.exif is not None
    assert b"Abc" in picture.exif
