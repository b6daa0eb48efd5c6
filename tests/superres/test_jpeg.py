"""What phones put into JPEGs besides the picture is told, and no byte of it is believed."""

import io
import re
import struct
from random import Random

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from superres.arrays import RgbU8
from superres.codecs import Header, conversion_notes, decode, encode, probe
from superres.codecs.jpeg import jpeg_settings
from superres.errors import BadImage, UnsupportedFormat
from superres.picture import Picture
from tests.pictures import WIDE_PROFILE, saved
from tests.structures import jpeg, segment

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
    ' xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"'
    ' xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'
    ' xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
    ' xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="me" {}/></rdf:RDF></x:xmpmeta>'
)
VIDEO = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(range(200))
ISO_GAIN_MAP = segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0")


@pytest.fixture(scope="module")
def small(coffee: RgbU8) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(coffee[40:104, 100:196]))


def mpf(pictures: int) -> bytes:
    """A segment with the index of so many pictures."""
    entry = struct.pack("<HHII", 0xB001, 4, 1, pictures)
    return segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0" + entry + bytes(4))


def with_segments(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


@pytest.mark.parametrize(
    ("claim", "segments", "behind", "told"),
    [
        ('GCamera:MotionPhoto="1"', (), VIDEO, "video"),
        ('GCamera:MicroVideo="1" GCamera:MicroVideoOffset="216"', (), VIDEO, "video"),
        ("", (), VIDEO, "video"),
        ("", (), b"garbage" + VIDEO, "video"),
        ('hdrgm:Version="1.0"', (mpf(2),), jpeg(), "HDR gain map"),
        ("", (ISO_GAIN_MAP, mpf(2)), jpeg(), "HDR gain map"),
        (
            "",
            (mpf(2),),
            jpeg(segment(0xE1, b"urn:com:apple:photo:2020:aux:hdrgainmap")),
            "HDR gain map",
        ),
        (
            'hdrgm:Version="1.0" GCamera:MotionPhoto="1"',
            (mpf(2),),
            jpeg() + VIDEO,
            "video, HDR gain map",
        ),
        ("", (mpf(2),), jpeg(), "further pictures"),
        ("", (mpf(3), ISO_GAIN_MAP), jpeg() * 2, "HDR gain map, further pictures"),
        ("", (), jpeg(), "further pictures"),
        ("", (), b"PK and more", "data behind the picture"),
        ("", (), bytes(100), ""),
        ("", (segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0abc"),), b"", "extended XMP"),
        ("", (segment(0xEB, b"JP\0\1\0\0\0\1jumb"),), b"", "C2PA"),
        ('tiff:Orientation="6"', (), b"", ""),
    ],
)
def test_what_is_in_the_file_besides_is_told_and_not_claimed(small, claim, segments, behind, told):
    data = saved(small, "JPEG", quality=90, xmp=XMP.format(claim).encode())
    data = with_segments(data, *segments) + behind
    picture = decode(data)
    assert probe(data).size == picture.size == (64, 96)
    notes = conversion_notes(picture, "jpeg").partition("dropped: ")[2]
    assert sorted(filter(None, notes.split(", "))) == sorted(filter(None, told.split(", ")))
    assert picture.xmp is not None
    assert b"dc:source" in picture.xmp
    written = encode(picture, "jpeg")
    assert not any(
        one in written for one in (b"GCamera", b"hdrgm", b"Orientation", b"ftyp", b"MPF")
    )


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_a_damaged_index_of_pictures_is_no_matter(index):
    assert decode(jpeg(segment(0xE2, b"MPF\0" + index))).size == (8, 8)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("image_mode", ["L", "RGB", "CMYK"])
def test_a_missing_end_marker_is_forgiven_and_told(small, progressive, image_mode):
    image = small.convert(image_mode)
    whole = saved(image, "JPEG", quality=90, progressive=progressive)
    picture = decode(whole[:-2])
    assert np.array_equal(picture.samples, decode(whole).samples)
    assert "end marker added" in conversion_notes(picture, "png")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.booleans())
def test_a_jpeg_without_its_last_pixels_is_damaged(coffee, seed, progressive, restarts):
    choose = Random(seed)
    image = Image.fromarray(np.ascontiguousarray(coffee[40:104, 100:196]))
    options = {"restart_marker_blocks": 5} if restarts else {}
    whole = saved(image, "JPEG", quality=90, progressive=progressive, **options)
    at = whole.index(b"\xff\xda") + 14
    with pytest.raises(
        BadImage, match=r"ends among its pixels|cannot be decoded|header is damaged"
    ):
        decode(whole[: choose.randrange(at, len(whole) - 12)])


def test_a_jpeg_that_ends_before_or_after_any_restart_marker_is_damaged(small):
    for progressive in (False, True):
        whole = saved(small, "JPEG", quality=90, progressive=progressive, restart_marker_blocks=5)
        for marker in re.finditer(rb"\xff[\xd0-\xd7]", whole):
            for end in (marker.start(), marker.end()):
                with pytest.raises(BadImage, match="ends among its pixels"):
                    decode(whole[:end])


def test_a_progressive_jpeg_without_its_last_scans_is_damaged(small):
    whole = saved(small, "JPEG", quality=90, progressive=True)
    for scan in range(2, whole.count(b"\xff\xda") + 1):
        cut = b"\xff\xda".join(whole.split(b"\xff\xda")[:scan])
        with pytest.raises(BadImage, match="ends among its pixels"):
            decode(cut)


@pytest.mark.parametrize("channels", [1, 3])
def test_twelve_bits_become_sixteen(small, channels):
    ramp = np.linspace(0, 4095, 96).round().astype(np.uint16)
    samples = np.tile(ramp[None, :, None], (64, 1, channels))
    samples = samples if channels == 3 else samples[..., 0]
    data = bytes(imagecodecs.jpeg8_encode(samples, level=100, bitspersample=12))
    header, picture = probe(data), decode(data)
    assert header == Header("jpeg", (64, 96), 16)
    assert picture.samples.dtype == np.uint16
    assert picture.grey == (channels == 1)
    assert np.abs(picture.rgb[0, :, 0].astype(int) - ramp * (65_535 / 4095)).max() < 40
    assert "12 bits to 16" in conversion_notes(picture, "png")
    assert (picture.rgb.min(), picture.rgb.max()) == (0, 65_535)
    assert jpeg_settings(data) is None
    for cut in (len(data) // 2, len(data) - 30):
        with pytest.raises(BadImage, match="ends among its pixels"):
            decode(data[:cut])
    assert np.array_equal(decode(data[:-2]).samples, picture.samples)


def test_twelve_bits_keep_their_metadata(small):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    about = saved(small, "JPEG", exif=exif, icc_profile=WIDE_PROFILE, comment=b"hi")
    about = about[2 : about.index(b"\xff\xdb")]
    data = bytes(imagecodecs.jpeg8_encode(np.zeros((64, 96, 3), np.uint16), bitspersample=12))
    data = data[:2] + about + data[2:]
    picture = decode(data)
    assert picture.size == probe(data).size == (96, 64)
    assert picture.icc_profile == WIDE_PROFILE
    assert b"Maker" in (picture.exif or b"")
    assert picture.dropped == ("comment",)


def test_a_lossless_jpeg_is_read(small):
    rgb = np.asarray(small)
    assert np.array_equal(decode(bytes(imagecodecs.jpeg8_encode(rgb, lossless=True))).rgb, rgb)


@pytest.mark.parametrize(
    ("frame", "bits", "channels", "message"),
    [
        (0xC5, 8, 1, "this picture is hierarchical: save it as"),
        (0xCB, 8, 1, "lossless with arithmetic coding"),
        (0xC3, 16, 1, "at 8 and 12 bits a sample; this picture has 16"),
        (0xC1, 12, 4, "1 or 3 channels; this picture has 4"),
    ],
)
def test_other_kinds_of_jpeg_are_refused_by_what_they_are(frame, bits, channels, message):
    body = struct.pack(">BHHB", bits, 8, 8, channels) + b"\1\x11\0" * channels
    data = b"\xff\xd8" + segment(frame, body) + segment(0xDA, bytes(10))
    for read in (probe, decode):
        with pytest.raises(UnsupportedFormat, match=message):
            read(data)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_in_xmp_alone_turns_nothing(small, name):
    packet = XMP.format('tiff:Orientation="6"').encode()
    if name == "TIFF":
        tags = Image.Exif()
        tags[700] = packet
        data = saved(small, name, exif=tags)
    elif name == "PNG":
        data = encode(Picture(np.asarray(small), xmp=packet), "png")
    else:
        data = saved(small, name, xmp=packet)
    picture = decode(data)
    assert probe(data).size == picture.size == (64, 96)
    assert conversion_notes(picture, "png") in ("kept: XMP", "kept: XMP, DPI")
    assert b"Orientation" not in (picture.xmp or b"")


def test_a_grey_profile_is_on_grey_pixels_and_an_rgb_profile_on_rgb_in_every_output(small):
    grey_profile = imagecodecs.cms_profile("gray", gamma=1.8)
    grey = small.convert("L")
    kept = decode(saved(grey, "JPEG", quality=95, icc_profile=grey_profile))
    assert kept.grey
    turned = decode(saved(grey, "JPEG", quality=95, icc_profile=WIDE_PROFILE))
    assert not turned.grey
    assert "grey to RGB, as its ICC profile" in conversion_notes(turned, "jpeg")
    dropped = decode(saved(small, "JPEG", icc_profile=grey_profile))
    assert conversion_notes(dropped, "png") == "dropped: ICC profile of GRAY"
    cmyk = imagecodecs.cms_profile("null")
    assert "dropped: ICC profile of GRAY" in conversion_notes(
        decode(saved(small, "JPEG", icc_profile=cmyk)), "png"
    )
    for picture in (kept, turned):
        for name in ("png", "jpeg", "webp", "tiff"):
            with Image.open(io.BytesIO(encode(picture, name, 100))) as written:
                profile = written.info["icc_profile"]
                assert profile[16:20] == (b"GRAY" if written.mode == "L" else b"RGB ")
                assert "kept: ICC profile" in conversion_notes(picture, name)
