"""HEIC and AVIF: the primary picture, upright, in its colours; and what is refused."""

import io
import re
import struct
import time
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from superres import load_model
from superres.arrays import RgbU8
from superres.codecs import conversion_notes, decode, encode, probe
from superres.codecs.headers import heif as headers
from superres.codecs.headers.isobmff import Property, file_boxes, read_meta
from superres.codecs.items import box
from superres.colour_profiles import profile_of_cicp
from superres.errors import AnimatedImage, BadImage, ImageTooLarge, UnsupportedFormat
from superres.picture import Picture
from tests import heics
from tests.pictures import WIDE_PROFILE, animated, saved


@pytest.fixture(scope="module")
def photograph(coffee: RgbU8) -> RgbU8:
    return np.ascontiguousarray(coffee[100:220, 200:380])


def difference(picture: Picture, expected: np.ndarray) -> float:
    """Mean, in levels of 8 bits."""
    scale = 257 if picture.samples.dtype == np.uint16 else 1
    return float(np.abs(picture.samples / scale - expected).mean())


def test_a_phones_heic_is_read_upright_with_its_profile_and_tells_what_it_drops(photograph):
    data = heics.phone(photograph, WIDE_PROFILE, side=64)
    header, picture = probe(data), decode(data)
    assert header.size == picture.size == photograph.shape[:2]
    assert (header.bits, header.alpha, picture.grey) == (8, False, False)
    assert difference(picture, photograph) < 3
    assert picture.icc_profile == WIDE_PROFILE
    assert conversion_notes(picture, "png") == (
        "kept: ICC profile, EXIF, XMP; converted: orientation 6 to upright; "
        "dropped: depth map, HDR gain map"
    )
    kept = Image.Exif()
    kept.load(picture.exif)
    assert kept[0x0110] == "Phone"
    assert 0x0112 not in kept


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["heic", "avif"]),
    st.lists(st.tuples(st.sampled_from(["irot", "imir"]), st.integers(0, 3)), max_size=3),
)
def test_turns_and_mirrors_are_applied_in_their_order_and_exif_says_nothing(kind, turns):
    corner = np.full((64, 96, 3), 30, np.uint8)
    corner[:16, :32] = 220
    corner[:16, :8] = 120
    expected, properties = corner, []
    for name, number in turns:
        if name == "irot":
            expected = np.rot90(expected, number)
            properties.append(heics.turned(number))
        else:
            expected = expected[::-1] if number % 2 == 0 else expected[:, ::-1]
            properties.append(heics.mirrored(number % 2))
    file = heics.Builder()
    if kind == "avif":
        file.brands = (b"avif", b"mif1")
    primary = file.add_coded(getattr(heics, kind)(corner), *properties)
    file.add(b"Exif", bytes(4) + heics.exif(orientation=5), cdsc=[primary])
    data = file.file()
    picture = decode(data)
    assert probe(data).size == picture.size == expected.shape[:2]
    assert difference(picture, expected) < 3
    orientation = headers.read(io.BytesIO(data)).orientation
    assert ("upright" in " ".join(picture.converted)) == (orientation != 1)


@pytest.mark.parametrize("kind", ["heic", "avif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("deep", [False, True])
def test_each_depth_is_read_and_grey_stays_grey(photograph, kind, channels, deep):
    samples = np.dstack([photograph, photograph[..., 0]])[..., :channels]
    samples = samples[..., 0] if channels == 1 else samples
    samples = np.ascontiguousarray(samples)
    if kind == "heic":
        data = heics.heic(samples.astype(np.uint16) * 257 if deep else samples)
    else:
        ten = (samples.astype(np.uint32) * 1023 // 255).astype(np.uint16)
        data = heics.avif(ten if deep else samples, bitspersample=10 if deep else 8)
    header, picture = probe(data), decode(data)
    assert header.bits == (16 if deep else 8)
    assert picture.samples.dtype == (np.uint16 if deep else np.uint8)
    assert header.alpha == (picture.alpha is not None) == (channels == 4)
    assert picture.grey == (channels == 1)
    expected = np.atleast_3d(samples)[..., [0, 0, 0] if channels == 1 else slice(None)]
    assert difference(picture, expected) < 4


@pytest.mark.parametrize("bits", [10, 12])
def test_white_is_white_at_any_depth(bits):
    most = 2**bits - 1
    data = heics.avif(np.full((32, 32), most, np.uint16), bitspersample=bits)
    assert decode(data).samples.min() == 65_535
    white = heics.heic(np.full((32, 32), 65_535, np.uint16))
    assert decode(white).samples.min() == 65_535


def test_grey_with_alpha_in_heic_stays_grey(photograph):
    file = heics.Builder()
    primary = file.add_coded(heics.heic(np.ascontiguousarray(photograph[..., 0])))
    alpha = heics.heic(np.full(photograph.shape[:2], 128, np.uint8))
    file.add_coded(alpha, heics.auxiliary(heics.ALPHA), auxl=[primary])
    picture = decode(file.file())
    assert picture.grey
    assert picture.alpha is not None
    assert np.abs(picture.alpha.astype(int) - 128).max() <= 2


def test_colours_multiplied_by_alpha_get_back_what_they_were():
    file = heics.Builder()
    half = heics.heic(np.full((64, 64, 3), (100, 50, 20), np.uint8), chroma="444")
    primary = file.add_coded(half)
    alpha = heics.heic(np.full((64, 64), 128, np.uint8))
    number = file.add_coded(alpha, heics.auxiliary(heics.ALPHA), auxl=[primary])
    file.items[primary].references[b"prem"] = [number]
    rgb = decode(file.file()).rgb
    assert np.abs(rgb.astype(int) - (199, 100, 40)).max() <= 5


@pytest.mark.parametrize("kind", ["heic", "avif"])
@pytest.mark.parametrize(("primaries", "transfer"), [(1, 13), (12, 13), (9, 1), (2, 2)])
def test_colours_by_code_points_become_a_profile_of_equal_meaning(kind, primaries, transfer):
    file = heics.Builder()
    grey = getattr(heics, kind)(np.full((64, 64, 3), 90, np.uint8))
    file.add_coded(grey, heics.nclx(primaries, transfer, 6))
    # Chromium shows the transfer characteristics of video as those of sRGB.
    shown = 13 if transfer == 1 else transfer
    assert decode(file.file()).icc_profile == profile_of_cicp(primaries, shown)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_by_name(transfer, name):
    file = heics.Builder()
    file.add_coded(heics.avif(np.zeros((64, 64, 3), np.uint8)), heics.nclx(9, transfer, 9))
    for read in (probe, decode):
        with pytest.raises(UnsupportedFormat, match=rf"{name} \(HDR\): export it as sRGB"):
            read(file.file())


def test_the_matrix_of_the_code_points_counts():
    """The same samples are other colours by BT.601 and by BT.709."""
    red = heics.avif(np.full((64, 64, 3), (250, 20, 30), np.uint8), pixelformat="yuv444")
    shown = []
    for matrix in (6, 1):
        file = heics.Builder(brands=(b"avif", b"mif1"))
        file.add_coded(red, heics.nclx(1, 13, matrix))
        shown.append(decode(file.file()).rgb[32, 32].astype(int))
    assert np.abs(shown[0] - (250, 20, 30)).max() <= 3
    assert np.abs(shown[0] - shown[1]).max() > 10


def test_a_crop_is_applied_before_turns(photograph):
    for kind in ("heic", "avif"):
        file = heics.Builder()
        clap = Property(b"clap", struct.pack(">8i", 140, 1, 80, 1, -10, 1, 5, 1))
        file.add_coded(getattr(heics, kind)(photograph), clap, heics.turned(1))
        picture = decode(file.file())
        # The middle of what is shown is 10 left of the picture's middle, and 5 below.
        cropped = photograph[25:105, 10:150]
        assert difference(picture, np.rot90(cropped)) < 3


def test_a_crop_that_leaves_much_away_is_refused():
    clap = Property(b"clap", struct.pack(">8i", 10, 1, 10, 1, 0, 1, 0, 1))
    file = heics.Builder()
    file.add_coded(heics.avif(np.zeros((1200, 1200), np.uint8)), clap)
    with pytest.raises(BadImage, match=r"at most 1,048,576 pixels outside .* shows 10x10 of 1,44"):
        probe(file.file())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (heics.GAIN_MAP, "HDR gain map"),
        (heics.DEPTH, "depth map"),
        (heics.MATTE, "matte"),
        (b"urn:x", "auxiliary image"),
        (None, "further image"),
    ],
)
def test_each_other_picture_is_dropped_by_name(kind, name):
    file = heics.Builder()
    grey = heics.avif(np.zeros((64, 64), np.uint8))
    primary = file.add_coded(grey)
    if kind is None:
        file.add_coded(grey)
    else:
        file.add_coded(grey, heics.auxiliary(kind), auxl=[primary])
    assert decode(file.file()).dropped == (name,)


def test_the_gain_map_of_iso_21496_is_dropped_by_name():
    file = heics.Builder()
    grey = heics.avif(np.zeros((64, 64), np.uint8))
    primary, gains = file.add_coded(grey), file.add_coded(grey)
    file.add(b"tmap", bytes(60), dimg=[primary, gains])
    assert decode(file.file()).dropped == ("HDR gain map",)


def test_the_video_behind_a_still_picture_is_dropped_by_name():
    data = heics.heic(np.zeros((64, 64), np.uint8)) + box(b"mpvd", bytes(1000))
    assert decode(data).dropped == ("video",)


def test_sequences_are_refused():
    moving = animated("AVIF")
    for read in (probe, decode):
        with pytest.raises(AnimatedImage, match="this AVIF has more than one"):
            read(moving)
    still = heics.heic(np.zeros((64, 64), np.uint8))
    with pytest.raises(AnimatedImage, match="this HEIF has more than one"):
        probe(still[:8] + b"hevc" + still[12:])


def test_the_brands_tell_the_formats_apart():
    grey = np.zeros((64, 64), np.uint8)
    for brands, name in (
        ((b"heic", b"mif1"), "heif"),
        ((b"mif1", b"heic"), "heif"),
        ((b"avif", b"mif1"), "avif"),
        ((b"mif1", b"avif"), "avif"),
        ((b"mif1", b"mif1"), "heif"),
        ((b"heic", b"avif"), "heif"),
    ):
        coded = heics.avif(grey) if name == "avif" else heics.heic(grey)
        file = heics.Builder(brands=brands)
        file.add_coded(coded)
        assert probe(file.file()).source_format == name
        assert decode(file.file()).source_format == name
    # What only has the container in common is none.
    for brand in (b"isom", b"qt  ", b"crx "):
        file = heics.Builder(brands=(brand, brand))
        file.add_coded(heics.heic(grey))
        with pytest.raises(UnsupportedFormat, match="the formats that are read here are"):
            probe(file.file())


@pytest.mark.parametrize("kind", [b"jpeg", b"iovl", b"unci", b"vvc1"])
def test_other_ways_to_code_are_refused_by_name(kind):
    file = heics.Builder()
    file.add(kind, bytes(20), (heics.size(10, 10),))
    with pytest.raises(UnsupportedFormat, match=rf"HEVC or AV1 inside.* kind '{kind.decode()}'"):
        probe(file.file())


def test_a_profile_too_many_pixels_and_cuts_are_told_from_the_header():
    data = heics.heic(np.zeros((100, 200, 3), np.uint8))
    with pytest.raises(ImageTooLarge, match=r"20,000 \(200x100\)"):
        probe(data, max_pixels=10_000)
    with pytest.raises(ImageTooLarge):
        decode(data, max_pixels=10_000)
    for end in range(0, len(data) - 1, 7):
        with pytest.raises(BadImage):
            decode(data[:end])


# What is admitted is what is decoded: the size is in the properties and in the codec's data.


def test_a_size_that_the_codec_does_not_have_is_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(imagecodecs, "avif_decode", None)
    monkeypatch.setattr("pi_heif.open_heif", None)
    for data in (
        heics.avif(np.zeros((96, 64, 3), np.uint8)),
        heics.heic(np.zeros((96, 64, 3), np.uint8)),
    ):
        at = data.index(b"ispe") + 8
        lie = data[:at] + struct.pack(">II", 64, 64) + data[at + 8 :]
        for read in (probe, decode):
            with pytest.raises(BadImage, match="it says 64x64, and its codec 64x96"):
                read(lie)


def test_a_grid_that_does_not_fit_its_tiles_is_refused(photograph):
    file = heics.Builder()
    number = file.add_grid(photograph, 64)
    body = file.blocks[number]
    changes = {
        "and a grid of 2x2": body[:2] + b"\1\1" + body[4:],
        "tells two sizes": body[:4] + struct.pack(">HH", 20, 20),
    }
    for message, changed in changes.items():
        file.blocks[number] = changed
        with pytest.raises(BadImage, match=message):
            probe(file.file())
    file.blocks[number] = body[:4] + struct.pack(">HH", 64, 64)
    file.items[number].properties[0] = heics.size(64, 64)
    with pytest.raises(BadImage, match="6 tiles of 64x64 for 64x64 pixels"):
        probe(file.file())


def test_parameters_in_the_data_of_hevc_are_refused(photograph):
    kind, data, properties = heics.coded(heics.heic(photograph))
    sps = data[:4] + bytes([33 << 1]) + data[5:]
    file = heics.Builder()
    file.add(kind, sps, properties)
    with pytest.raises(BadImage, match="parameters of their own"):
        probe(file.file())


def test_a_decoder_that_sees_something_else_is_stopped(monkeypatch, photograph):
    """By any reader's mistake: here the one that admits has it wrong."""
    read = headers.read
    monkeypatch.setattr(
        headers,
        "read",
        lambda file: replace(read(file), size=(4, 5), crop=headers.Crop(0, 0, 4, 5)),
    )
    for kind in (heics.heic, heics.avif):
        with pytest.raises(BadImage, match="it says 5x4"):
            decode(kind(photograph))


def test_frames_and_layers_of_av1_beside_the_first_are_refused():
    kind, data, properties = heics.coded(heics.avif(np.zeros((64, 64, 3), np.uint8)))
    start = data.index(bytes([0x0A]))  # the sequence header
    frame = start + 2 + data[start + 1]
    file = heics.Builder()
    file.add(kind, data + data[frame:], properties)
    with pytest.raises(UnsupportedFormat, match="AVIF of one layer is read"):
        probe(file.file())


def test_an_items_data_outside_the_file_are_noticed():
    data = heics.avif(np.zeros((64, 64, 3), np.uint8))
    assert len(read_meta(io.BytesIO(data)).items) == 1
    with pytest.raises(BadImage, match="an AV1 picture is not in the file"):
        decode(data[:-10])


def test_the_first_part_of_a_file_tells_its_header_if_its_boxes_are_in_it(photograph):
    alpha = np.dstack([photograph, photograph[..., 0]])
    files = [
        heics.heic(photograph),
        heics.heic(alpha),
        heics.avif(photograph),
        heics.avif(alpha),
        heics.avif(photograph[..., 0]),
        heics.avif(photograph.astype(np.uint16) * 4, bitspersample=10),
        heics.avif(photograph.astype(np.uint16) * 16, bitspersample=12),
        heics.phone(photograph, WIDE_PROFILE, side=64),
    ]
    for data in files:
        header = probe(data)
        boxes_end = next(end for kind, _, end in file_boxes(io.BytesIO(data)) if kind == b"meta")
        # The arrangement of a grid is the first of its data.
        for end in range(boxes_end + 20, len(data), len(data) // 20):
            assert probe(data[:end]) == header, end
            with pytest.raises(BadImage):
                decode(data[:end])
        with pytest.raises(BadImage):
            probe(data[: boxes_end - 1])


# What is written


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_an_avif_has_what_the_picture_had(photograph, dtype, grey, alpha):
    """Read by Pillow, which has another reader of the items than ours."""
    samples = np.dstack([photograph, photograph[::-1, :, 1]]).astype(dtype)
    samples = samples * (257 if dtype == np.uint16 else 1)
    if grey:
        samples[..., :3] = samples[..., 1:2]
    samples = samples if alpha else np.ascontiguousarray(samples[..., :3])
    profile = None if grey else WIDE_PROFILE
    picture = Picture(
        samples,
        grey=grey,
        icc_profile=profile,
        exif=b"Exif\0\0" + heics.exif(orientation=1),
        xmp=b"<x/>",
    )
    data = encode(picture, "avif", 95)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info.get("icc_profile") == profile
        assert image.info["xmp"] == b"<x/>"
        assert image.getexif()[0x0110] == "Phone"
        assert image.has_transparency_data == alpha
        shown = np.asarray(image.convert("RGBA" if alpha else "RGB"))
    expected = samples if dtype == np.uint8 else samples // 257
    assert np.abs(shown.astype(int) - expected).mean() < 2
    again = decode(data)
    assert again.grey == grey
    assert again.samples.dtype == dtype
    assert difference(again, expected) < 2
    notes = conversion_notes(picture, "avif")
    assert ("16 bits rounded to 10" in notes) == (dtype == np.uint16)
    assert not re.search("dropped|grey to RGB", notes)


def test_quality_counts_in_avif(photograph):
    lengths = [len(encode(Picture(photograph), "avif", quality)) for quality in (1, 40, 92, 100)]
    assert lengths == sorted(set(lengths))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_avif_of_quality_100_has_the_samples_as_they_were(photograph, channels):
    samples = np.dstack([photograph, photograph[::-1, :, 1]])
    if channels < 3:
        samples[..., :3] = samples[..., 1:2]
    kept = np.ascontiguousarray(samples[..., : 3 + (channels + 1) % 2])
    picture = Picture(kept, grey=channels < 3, icc_profile=None, xmp=b"<x/>")
    data = encode(picture, "avif", 100)
    again = decode(data)
    assert (again.samples == kept).all()
    assert (again.grey, again.xmp) == (picture.grey, picture.xmp)
    with Image.open(io.BytesIO(data)) as image:
        shown = np.asarray(image.convert("RGBA" if channels in (2, 4) else "RGB"))
    assert (shown == kept).all()


def test_an_avif_of_pillow_is_read_with_what_it_has(photograph):
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Camera"
    about = {"exif": exif, "xmp": b"<x/>", "icc_profile": WIDE_PROFILE}
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(photograph)))
    picture = decode(saved(stored, "AVIF", quality=90, **about))
    assert difference(picture, photograph) < 4
    assert picture.converted == ("orientation 6 to upright",)
    assert picture.icc_profile == WIDE_PROFILE
    assert picture.xmp == b"<x/>"
    assert b"Camera" in (picture.exif or b"")


@pytest.mark.slow
@pytest.mark.xdist_group("shipped model")
def test_a_phones_heic_takes_little_longer_than_the_same_jpeg(coffee, record_property):
    """With the fastest network, in seconds of CPU, alternately; its tiles are all the same."""
    tile = np.asarray(Image.fromarray(coffee).resize((512, 512)))
    picture = np.tile(tile, (4, 3, 1))
    files = {
        "HEIC": heics.phone(picture, WIDE_PROFILE),
        "JPEG": saved(Image.fromarray(picture), "JPEG", quality=92, icc_profile=WIDE_PROFILE),
    }
    enhancer = load_model("edsr-nano", scale=2, device="cpu")
    taken = dict.fromkeys(files, 0.0)
    enhancer.enhance(Picture(tile), 2)
    for _ in range(2):
        for name, data in files.items():
            began = time.process_time()
            encode(enhancer.enhance(decode(data), 2), "jpeg")
            taken[name] += time.process_time() - began
    record_property("ratio", round(taken["HEIC"] / taken["JPEG"], 2))
    assert taken["HEIC"] < 1.3 * taken["JPEG"]
