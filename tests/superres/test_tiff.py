"""A sound TIFF is read faithfully, or refused by what it is."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from superres.codecs import conversion_notes, decode, encode, probe
from superres.errors import AnimatedImage, BadImage, UnsupportedFormat
from superres.forecast import forecast_decoding
from tests.pictures import SRGB_PROFILE, saved
from tests.structures import tiff

RNG = np.random.default_rng(0)


def written(samples: np.ndarray, **options) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, samples, **options)
    return out.getvalue()


def levels(channels: int, dtype: type = np.uint16) -> np.ndarray:
    """5 high, 7 wide."""
    most = np.iinfo(dtype).max + 1
    return RNG.integers(0, most, (5, 7, channels)).astype(dtype)


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("channels", [1, 3])
def test_nine_to_fifteen_bits_are_scaled_to_sixteen(bits, channels):
    most = 2**bits - 1
    samples = RNG.integers(0, most + 1, (6, 8, channels)).astype(np.uint16)
    samples[0, 0], samples[0, 1] = 0, most
    packed = b"".join(imagecodecs.packints_encode(row.ravel(), bits) for row in samples)
    length = len(packed)
    tags = {256: (3, (8,)), 257: (3, (6,)), 258: (3, (bits,) * channels), 277: (3, (channels,))}
    tags |= {262: (3, (1 if channels == 1 else 2,)), 279: (4, (length,))}
    data = tiff(tags | {273: (4, (1,))})
    data = tiff(tags | {273: (4, (len(data),))}) + packed
    header, picture = probe(data), decode(data)
    assert (header.bits, header.size) == (16, (6, 8))
    expected = samples * (65_535 / most)
    assert np.abs(picture.rgb - np.broadcast_to(expected, (6, 8, 3))).max() <= 1
    assert (picture.rgb.min(), picture.rgb.max()) == (0, 65_535)
    assert f"converted: {bits} bits to 16" in conversion_notes(picture, "png")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib", "predictor": 3}, {"compression": "lzw"}, {"byteorder": ">"}],
)
def test_floats_from_0_to_1_become_sixteen_bits(dtype, options):
    samples = RNG.random((5, 7, 3)).astype(dtype)
    samples[0, 0], samples[0, 1] = 0, 1
    picture = decode(data := written(samples, photometric="rgb", **options))
    assert probe(data).bits == 16
    assert np.abs(picture.rgb - samples.astype(np.float64) * 65_535).max() <= 0.51
    assert f"converted: {np.dtype(dtype).name} to 16 bits" in conversion_notes(picture, "png")


@pytest.mark.parametrize("value", [-0.1, 1.5, 255, np.nan, np.inf])
def test_other_floats_are_refused_by_their_values(value):
    samples = np.full((5, 7), 0.5, np.float32)
    samples[2, 2] = value
    with pytest.raises(UnsupportedFormat, match="floats from 0 to 1 are read; this TIFF has"):
        decode(written(samples))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_bigtiff_and_tiff_are_read_alike_in_both_byte_orders(big, order, dtype, compression):
    samples = levels(4, dtype)
    tags = [(271, "s", 0, "Maker", True), (274, "H", 1, 6, True), (700, "B", 4, b"<x/>", True)]
    data = written(
        samples,
        photometric="rgb",
        extrasamples=["unassalpha"],
        bigtiff=big,
        byteorder=order,
        compression=compression,
        iccprofile=SRGB_PROFILE,
        resolution=(300, 200),
        resolutionunit="inch",
        extratags=tags,
    )
    header, picture = probe(data), decode(data)
    assert header.size == picture.size == (7, 5)
    assert header.alpha
    assert np.array_equal(picture.samples, np.rot90(samples, -1))
    assert (picture.icc_profile, picture.xmp, picture.dpi) == (SRGB_PROFILE, b"<x/>", (200, 300))
    assert b"Maker" in (picture.exif or b"")


def test_big_endian_bigtiff_keeps_the_directories_of_exif():
    """Whose offsets and types are those of a BigTIFF."""
    inner = struct.pack(">QHHQ4s4x", 1, 0x9003, 2, 4, b"Now\0") + bytes(8)

    def pointing(at: int) -> bytes:
        tags = [(34_664, "Q", 1, at, True)]  # its neighbour: tifffile does not write it
        samples = np.zeros((5, 7, 3), np.uint8)
        options = {"photometric": "rgb", "bigtiff": True, "byteorder": ">", "extratags": tags}
        data = written(samples, **options)
        return data.replace(struct.pack(">HHQ", 34_664, 16, 1), struct.pack(">HHQ", 34_665, 16, 1))

    data = pointing(len(pointing(9)))
    exif = decode(data + inner).exif
    assert exif is not None
    assert b"Now" in exif


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", [0, 1])
def test_few_bits_are_read_in_big_endian_bigtiff_too(bits, photometric):
    values = np.arange(8) % 2**bits
    row = int("".join(f"{value:0{bits}b}" for value in values), 2).to_bytes(bits, "big")
    entries = {256: 8, 257: 1, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 1}
    entries |= {273: 16, 279: bits}
    table = b"".join(
        struct.pack(">HHQH6x", tag, 3, 1, value) for tag, value in sorted(entries.items())
    )
    start = b"MM\0+\0\x08\0\0" + struct.pack(">Q", 24)
    data = start + row.ljust(8, b"\0") + struct.pack(">Q", len(entries)) + table + bytes(8)
    picture = decode(data)
    expected = values * 255 // (2**bits - 1)
    expected = expected if photometric else 255 - expected
    assert picture.rgb[0, :, 0].tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("colours", "extra", "alpha", "told"),
    [
        (1, ("unassalpha",), 0, ""),
        (1, ("unspecified",), None, "1 extra sample"),
        (3, ("unspecified",), None, "1 extra sample"),
        (3, ("unassalpha", "unspecified"), 0, "1 extra sample"),
        (3, ("unspecified", "unassalpha"), 1, "1 extra sample"),
        (3, ("unspecified", "unspecified"), None, "2 extra samples"),
        (3, ("assocalpha",), 0, ""),
        (1, ("assocalpha",), 0, ""),
    ],
)
def test_extra_samples_are_alpha_or_dropped_by_name(dtype, planar, colours, extra, alpha, told):
    samples = levels(colours + len(extra), dtype)
    most = np.iinfo(dtype).max
    if "assocalpha" in extra:
        samples[..., -1] = most // 2
        samples[..., :-1] = most // 4
    stored = np.moveaxis(samples, -1, 0) if planar == "separate" else samples
    data = written(
        stored,
        photometric="rgb" if colours == 3 else "minisblack",
        extrasamples=extra,
        planarconfig=planar,
    )
    header, picture = probe(data), decode(data)
    assert header.alpha == (alpha is not None) == (picture.alpha is not None)
    assert picture.grey == (colours == 1)
    if "assocalpha" in extra:
        assert np.abs(picture.rgb.astype(int) - most // 2).max() <= 2
    else:
        assert np.array_equal(picture.rgb[..., 0], samples[..., 0])
        assert np.array_equal(picture.rgb[..., 2], samples[..., colours - 1])
    if alpha is not None:
        assert np.array_equal(picture.alpha, samples[..., colours + alpha])
    assert (told in picture.dropped) == bool(told)
    if told == "":
        assert picture.dropped == ()
        again = decode(encode(picture, "tiff"))
        assert np.array_equal(again.samples, picture.samples)


@pytest.mark.parametrize("extra", ["unassalpha", "unspecified"])
def test_cmyk_with_a_fifth_sample_is_cmyk_with_alpha_or_without(extra):
    samples = levels(5, np.uint8)
    data = written(samples, photometric="separated", extrasamples=[extra])
    plain = Image.fromarray(np.ascontiguousarray(samples[..., :4]), "CMYK")
    picture = decode(data)
    assert np.array_equal(picture.rgb, decode(saved(plain, "TIFF")).rgb)
    assert probe(data).alpha == (extra == "unassalpha")
    if extra == "unassalpha":
        assert np.array_equal(picture.alpha, samples[..., 4])
    else:
        assert picture.dropped == ("1 extra sample",)
    assert "converted: CMYK to sRGB" in conversion_notes(picture, "png")


def test_white_is_zero_is_turned_round_and_alpha_is_not():
    for dtype in (np.uint8, np.uint16):
        samples = levels(2, dtype)
        data = written(
            samples, photometric="miniswhite", extrasamples=["unassalpha"], planarconfig="contig"
        )
        picture = decode(data)
        assert np.array_equal(picture.rgb[..., 1], np.iinfo(dtype).max - samples[..., 0])
        assert np.array_equal(picture.alpha, samples[..., 1])


GREY = np.zeros((5, 7), np.uint8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (written(levels(3).astype(np.uint32), photometric="rgb"), "unsigned integers of 32"),
        (written(levels(3).astype(np.int16), photometric="rgb"), "signed integers of 16"),
        (written(GREY.astype(np.int8)), "signed integers of 8"),
        (written(GREY.astype(np.float64)), "floats of 64"),
        (written(GREY.astype(np.complex64)), "complex floats of 64"),
        (written(levels(3), photometric="cielab"), "is Lab of 16 bits: convert it to RGB"),
        (written(levels(4), photometric="separated"), "is CMYK of 16 bits: convert it to RGB"),
        (written(levels(3, np.uint8), photometric="icclab"), "ICC Lab: convert it to RGB"),
        (written(levels(3, np.uint8), photometric="rgb", compression="jpeg2000"), "has JPEG 2000"),
        (written(levels(3, np.uint8), photometric="rgb", compression="jpegxl"), "has JPEG XL"),
        (written(levels(3, np.uint8), photometric="rgb", compression="webp"), "has WebP: save it"),
        (written(GREY, compression="lerc"), "has LERC: save it with Deflate"),
        (tiff({258: (3, (4,) * 3), 262: (3, (2,)), 277: (3, (3,))}), r"BitsPerSample \(4, 4, 4\)"),
        (tiff({258: (3, (5, 6, 5)), 262: (3, (2,)), 277: (3, (3,))}), r"samples of \(5, 6, 5\)"),
        (tiff({262: (3, (2,))}), "has 1 samples a pixel, and its colours need 3"),
        (tiff({262: (3, (9999,))}), "photometric interpretation 9999"),
        (tiff({266: (3, (2,)), 258: (3, (16,))}), "fill order 1; this one has 2"),
    ],
    ids=range(17),
)
def test_a_sound_tiff_that_is_not_read_is_named_and_not_called_damaged(data, message):
    for read in (probe, decode):
        with pytest.raises(BadImage, match=message):
            read(data)


def pages(*kinds: int | None) -> bytes:
    """A TIFF of a page for each NewSubfileType; None for one that does not say it."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        for number, kind in enumerate(kinds):
            if kind is not None and kind & 4:
                page, colours = np.ones((20, 30), bool), "minisblack"
            else:
                page, colours = np.full((20, 30 - number, 3), 9 + number, np.uint8), "rgb"
            writer.write(page, photometric=colours, subfiletype=kind, metadata=None)
    return out.getvalue()


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        ((0, 1), ("thumbnail",)),
        ((None, 1, 4), ("thumbnail", "mask")),
        ((0, 5), ("mask",)),
        ((1,), ()),
        ((2, 1), ("thumbnail",)),
    ],
)
def test_thumbnails_and_masks_are_no_further_pictures(kinds, told):
    picture = decode(pages(*kinds))
    assert probe(pages(*kinds)).size == picture.size == (20, 30)
    assert picture.rgb.max() == 9
    assert picture.dropped == told


def test_further_pictures_are_refused_and_so_is_a_thumbnail_before_its_picture():
    for kinds in ((0, 0), (0, 1, 0), (None, None), (0, 2)):
        with pytest.raises(AnimatedImage):
            probe(pages(*kinds))
    with pytest.raises(UnsupportedFormat, match="that of this one is a thumbnail: save it with"):
        probe(pages(1, 0))


def with_next(data: bytes, following: int) -> bytes:
    """The TIFF of tests.structures with another place of the next directory."""
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    at = first + 2 + 12 * count
    return data[:at] + struct.pack("<I", following) + data[at + 4 :]


def test_pages_that_go_round_are_read_once_and_endless_ones_are_refused():
    start = len(tiff())
    page = struct.pack("<HHHII", 1, 254, 4, 1, 1)
    assert decode(with_next(tiff(), start) + page + struct.pack("<I", start)).size == (4, 4)
    many = b"".join(page + struct.pack("<I", start + 18 * (n + 1)) for n in range(200))
    with pytest.raises(BadImage, match="at most 100 pages of a TIFF"):
        probe(with_next(tiff(), start) + many)


def raw(**where) -> bytes:
    """A preview of 4x4 with a sensor's data somewhere."""
    sensor = struct.pack("<HHHII", 1, 262, 3, 1, 32_803) + bytes(4)
    if "inner" in where:
        at = len(tiff({330: (4, (0,))}))
        return tiff({330: (4, (at,))}) + sensor
    if "page" in where:
        return with_next(tiff(), len(tiff())) + sensor
    return tiff(where["tags"])


@pytest.mark.parametrize(
    "data",
    [
        raw(inner=True),
        raw(page=True),
        raw(tags={50_706: (1, (1, 4, 0, 0))}),
        raw(tags={262: (3, (32_803,))}),
        raw(tags={262: (3, (34_892,))}),
        raw(tags={33_421: (3, (2, 2))}),
        raw(tags={259: (3, (34_713,))}),
        raw(tags={259: (3, (65_535,))}),
        b"II*\0\x10\0\0\0CR\2\0" + tiff()[12:],
    ],
    ids=["NEF", "ARW", "DNG", "PEF", "linear", "CFA", "Nikon's compression", "Pentax's", "CR2"],
)
def test_camera_raw_is_refused_and_its_preview_is_not_enlarged(data):
    for read in (probe, decode):
        with pytest.raises(UnsupportedFormat, match="camera raw: develop it first"):
            read(data)


def test_damaged_directories_inside_are_no_raw():
    for offset in (0, 3, 10**6, 2**32 - 1):
        assert decode(tiff({330: (4, (offset,))})).size == (4, 4)


def test_what_floats_take_is_foreseen():
    floats = written(np.zeros((50, 70, 4), np.float32), photometric="rgb", extrasamples=[2])
    integers = written(np.zeros((50, 70, 4), np.uint8), photometric="rgb", extrasamples=[2])
    more = forecast_decoding(probe(floats), 0) - forecast_decoding(probe(integers), 0)
    assert more > 20 * 50 * 70
