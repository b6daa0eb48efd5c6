"""Every kind of picture becomes a right one, or a clear error that names limit and value."""

import io
import struct
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from PIL.ExifTags import GPS, IFD, Base
from PIL.PngImagePlugin import PngInfo

from superres.arrays import RgbU8, to_float, to_integer
from superres.codecs import (
    FORMATS,
    OUTPUT_FORMATS,
    Header,
    Picture,
    check_output,
    conversion_notes,
    decode,
    default_output_format,
    encode,
    probe,
    to_srgb,
    without_metadata,
)
from superres.errors import AnimatedImage, BadImage, BadRequest, ImageTooLarge, UnsupportedFormat
from superres.metadata import DESCRIPTIVE, RESOLUTION
from tests.pictures import SRGB_PROFILE, WIDE_PROFILE, animated, bomb, chunk, saved
from tests.raw_files import tiff

GREY_PROFILE = imagecodecs.cms_profile("gray", gamma=1.8)


@pytest.fixture
def small(coffee: RgbU8) -> Image.Image:
    """30 wide, 20 high: no side can be taken for the other."""
    return Image.fromarray(coffee).resize((30, 20))


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_files_are_read_as_they_are(small, image_format):
    options = {"lossless": True} if image_format == "WEBP" else {}
    picture = decode(saved(small, image_format, **options))
    assert np.array_equal(picture.rgb, np.asarray(small))
    assert (picture.size, picture.alpha, picture.grey) == ((20, 30), None, False)
    assert picture.source_format == image_format.lower()


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr"])
def test_palette_cmyk_and_ycbcr_become_rgb(small, mode):
    file_format = {"P": "PNG", "CMYK": "TIFF", "YCbCr": "TIFF"}[mode]
    image = small.quantize(200) if mode == "P" else small.convert(mode)
    picture = decode(saved(image, file_format))
    assert np.abs(picture.rgb.astype(int) - np.asarray(image.convert("RGB"))).max() == 0
    assert not picture.grey


def test_cmyk_with_a_damaged_profile_is_read_without_it(small):
    cmyk = small.convert("CMYK")
    picture = decode(saved(cmyk, "JPEG", quality=100, icc_profile=b"not a profile"))
    assert np.abs(picture.rgb.astype(int) - np.asarray(cmyk.convert("RGB"))).mean() < 4
    assert picture.icc_profile is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_stays_grey(small, mode):
    grey = small.convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = grey.convert(mode)
    picture = decode(saved(image, "PNG"))
    assert picture.grey
    assert np.array_equal(picture.rgb[..., 0], picture.rgb[..., 2])
    again = Image.open(io.BytesIO(encode(picture, "png")))
    assert again.mode == {"1": "L"}.get(mode, mode)
    assert np.array_equal(
        np.asarray(again), np.asarray(image.convert("L") if mode == "1" else image)
    )


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_alpha_comes_through(small, image_format):
    small.putalpha(Image.linear_gradient("L").resize(small.size))
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    picture = decode(saved(small, image_format, **options))
    assert np.array_equal(np.dstack([picture.rgb, picture.alpha]), np.asarray(small))
    if image_format != "WEBP":
        again = Image.open(io.BytesIO(encode(picture, image_format.lower())))
        assert np.array_equal(np.asarray(again), np.asarray(small))


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_a_transparent_colour_becomes_alpha(mode):
    image = Image.new("RGB", (4, 4), (9, 9, 9))
    image.paste((200, 200, 200), (0, 0, 2, 4))
    if mode == "P":
        image = image.quantize(2)
        clear = image.getpixel((0, 0))
    else:
        image = image.convert(mode)
        clear = image.getpixel((0, 0))
    picture = decode(saved(image, "PNG", transparency=clear))
    assert picture.alpha is not None
    assert picture.alpha[0].tolist() == [0, 0, 255, 255]


def test_jpeg_is_flattened_on_white(small):
    small.putalpha(0)
    flat = Image.open(io.BytesIO(encode(decode(saved(small, "PNG")), "jpeg")))
    assert np.asarray(flat).min() == 255


@pytest.mark.parametrize(
    ("image_format", "channels"),
    [*(("png", n) for n in (1, 2, 3, 4)), ("tiff", 1), ("tiff", 3), ("tiff", 4)],
)
def test_sixteen_bits_are_kept_to_the_last(image_format, channels):
    samples = np.random.default_rng(0).integers(0, 65536, (5, 7, channels), np.uint16)
    samples = samples[..., 0] if channels == 1 else samples
    if image_format == "png":
        data = imagecodecs.png_encode(samples)
    else:
        out = io.BytesIO()
        photometric = "rgb" if channels > 2 else "minisblack"
        extra = ["unassalpha"] if channels in (2, 4) else None
        planar = "contig" if channels > 1 else None
        tifffile.imwrite(
            out, samples, photometric=photometric, extrasamples=extra, planarconfig=planar
        )
        data = out.getvalue()
    picture = decode(data)
    assert picture.rgb.dtype == np.uint16
    again = decode(encode(picture, image_format))
    expected = np.atleast_3d(samples)
    for read in (picture, again):
        assert np.array_equal(read.rgb[..., 0], expected[..., 0])
        assert np.array_equal(read.rgb[..., 2], expected[..., 0 if channels < 3 else 2])
        if channels in (2, 4):
            assert np.array_equal(read.alpha, expected[..., -1])
        assert read.grey == (channels < 3)


@pytest.mark.parametrize(
    ("kind", "colour", "alpha"),
    [("unspecified", 20_000, None), ("assocalpha", 39_999, 32_768), ("unassalpha", 20_000, 32_768)],
)
def test_a_fourth_channel_of_sixteen_bits_is_what_the_file_says_it_is(kind, colour, alpha):
    samples = np.full((5, 7, 4), 20_000, np.uint16)
    samples[..., 3] = 32_768
    out = io.BytesIO()
    tifffile.imwrite(out, samples, photometric="rgb", extrasamples=[kind])
    picture = decode(out.getvalue())
    assert np.unique(picture.rgb).tolist() == [colour]
    assert (picture.alpha is None) == (alpha is None)
    assert probe(out.getvalue()).alpha == (alpha is not None)
    assert alpha is None or np.unique(picture.alpha).tolist() == [alpha]


def test_sixteen_bit_grey_with_alpha_is_written_to_tiff_as_rgb_which_all_programs_read():
    plane = np.random.default_rng(0).integers(0, 65536, (5, 7), np.uint16)
    picture = Picture(np.dstack([plane] * 4), grey=True)
    again = decode(encode(picture, "tiff"))
    assert np.array_equal(again.rgb, picture.rgb)
    assert np.array_equal(again.alpha, plane)


def test_sixteen_bits_are_rounded_not_cut_where_the_format_holds_eight():
    picture = Picture(np.full((8, 8, 3), 200 * 257 + 200, np.uint16))
    assert np.asarray(Image.open(io.BytesIO(encode(picture, "jpeg"))))[0, 0].tolist() == [201] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP", "PNG16", "TIFF16"])
def test_all_eight_exif_orientations_come_out_upright(orientation, image_format):
    """An L of black on white is drawn upright, then stored as a turned camera stores it."""
    upright = np.full((32, 48, 3), 255, np.uint8)
    upright[:, :8] = upright[-8:] = 0
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    if image_format == "PNG16":
        png = imagecodecs.png_encode(np.ascontiguousarray(stored).astype(np.uint16) * 257)
        data = png[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + png[33:]
    elif image_format == "TIFF16":
        out = io.BytesIO()
        tag = (274, 3, 1, orientation, True)
        tifffile.imwrite(out, stored.astype(np.uint16) * 257, photometric="rgb", extratags=[tag])
        data = out.getvalue()
    else:
        data = saved(Image.fromarray(np.ascontiguousarray(stored)), image_format, exif=exif)
    picture = decode(data)
    rgb = picture.rgb if picture.rgb.dtype == np.uint8 else (picture.rgb // 257).astype(np.uint8)
    assert picture.size == (32, 48)
    assert np.abs(rgb.astype(int) - upright).mean() < 3


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_colour_profile_is_kept(output_format, dtype):
    picture = Picture(np.zeros((4, 4, 3), dtype), icc_profile=WIDE_PROFILE)
    read, notes = decode(encode(picture, output_format)), conversion_notes(picture, output_format)
    if FORMATS[output_format].limits.longest_profile != 0:
        assert read.icc_profile == WIDE_PROFILE
        assert notes.startswith("kept: ICC profile")
    else:
        assert read.icc_profile is None
        assert "converted: ICC profile to sRGB" in notes
        assert "dropped" not in notes


@pytest.fixture
def described(small) -> tuple[Image.Image, dict]:
    """A turned photograph with all that a camera and an editor write, and how to save it."""
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    exif[Base.Make] = "Maker"
    exif[Base.Artist] = "José".encode()
    exif[Base.ImageWidth] = 999
    exif.get_ifd(IFD.Exif)[Base.ExposureTime] = 0.01
    exif.get_ifd(IFD.Exif)[Base.ExifImageWidth] = 999
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSLatitude] = (1.0, 2.0, 3.0)
    xmp = (
        b'<rdf:Description xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
        b' xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
        b' xmlns:dc="http://purl.org/dc/elements/1.1/"'
        b' tiff:Orientation="6" exif:PixelXDimension="9" dc:title="A cup"/>'
    )
    return small, {"exif": exif, "xmp": xmp, "dpi": (300, 200), "icc_profile": SRGB_PROFILE}


def camera_file(described, image_format: str) -> bytes:
    image, options = described
    if image_format == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", options["xmp"].decode())
        return saved(image, "PNG", **options, pnginfo=text)
    if image_format == "TIFF":
        del options["exif"][Base.ImageWidth]
        tags = Image.Exif()
        tags.load(options["exif"].tobytes())
        tags[Base.Artist] = options["exif"][Base.Artist]  # Pillow has made "?" of it
        tags[Base.XMLPacket] = options["xmp"]
        options = options | {"exif": tags}
    return saved(image, image_format, **options)


@pytest.mark.parametrize("output_format", [one for one in OUTPUT_FORMATS if one != "jxl"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_metadata_is_kept_where_it_is_still_true(described, image_format, output_format):
    picture = decode(camera_file(described, image_format))
    encoded = encode(picture, output_format)
    with Image.open(io.BytesIO(encoded)) as again:
        again.load()
        exif, xmp, dpi = again.getexif(), again.info["xmp"], again.info.get("dpi")
        assert exif[Base.Make] == "Maker"
        assert exif[Base.Artist].encode("latin-1").decode() == "José"
        assert exif.get_ifd(IFD.Exif)[Base.ExposureTime] == 0.01
        assert exif.get_ifd(IFD.GPSInfo)[GPS.GPSLatitude] == (1.0, 2.0, 3.0)
        assert exif.get(Base.Orientation, 1) == 1
        assert Base.ExifImageWidth not in exif.get_ifd(IFD.Exif)
        assert exif.get(Base.ImageWidth, again.width) == again.width
        assert again.info["icc_profile"] == SRGB_PROFILE
    assert b"A cup" in xmp
    assert b"Orientation" not in xmp
    assert b"PixelXDimension" not in xmp
    holds_dpi = image_format != "WEBP" and FORMATS[output_format].limits.dpi
    if holds_dpi:
        assert dpi == pytest.approx((200, 300), abs=0.1)  # turned with the picture
    kept = ["ICC profile", "EXIF", "XMP"] + ["DPI"] * holds_dpi
    notes = f"kept: {', '.join(kept)}; converted: orientation 6 to upright"
    assert conversion_notes(picture, output_format).startswith(notes)
    assert decode(encoded).size == picture.size


def tags_of(block: bytes | None) -> dict[tuple[str, int], object]:
    """All tags of a block but the resolution, by directory and number."""
    exif = Image.Exif()
    exif.load(block or b"")
    directories = {one.name: exif.get_ifd(one) for one in (IFD.Exif, IFD.GPSInfo)}
    directories["first"] = {tag: exif[tag] for tag in exif if tag not in (*RESOLUTION, *IFD)}
    return {(name, tag): value for name, tags in directories.items() for tag, value in tags.items()}


RATINGS = [3, 70_000, -1, 0.5, b"\4\0", "four", (1, 2), (1, 70_000), (0.5, 2.0)]
"""One that is usual, and some that are not."""


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS)
@pytest.mark.parametrize("rating", RATINGS)
def test_every_tag_that_is_kept_is_in_every_format(small, output_format, rating):
    exif = Image.Exif()
    for tag in DESCRIPTIVE - RESOLUTION - {Base.Rating}:
        text = f"Größe 東京 {tag.name}"
        exif[tag] = text.encode("utf-16-le" if tag.name.startswith("XP") else "utf-8")
    exif[Base.Rating] = rating
    exif.get_ifd(IFD.Exif)[Base.CameraOwnerName] = "Renée".encode()
    exif.get_ifd(IFD.Exif)[Base.LensSpecification] = (24.0, 70.0, 2.8, 2.8)
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSMapDatum] = "Bessel 1841, Müggelberg".encode()
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSAltitudeRef] = b"\1"
    picture = decode(saved(small, "JPEG", exif=exif))
    kept = tags_of(picture.exif)
    assert {number for name, number in kept if name == "first"} == exif.keys() - {*IFD}
    assert tags_of(decode(encode(picture, output_format)).exif) == kept
    assert conversion_notes(picture, output_format).startswith("kept: EXIF")


def test_metadata_that_is_not_wanted_is_gone(described):
    picture = without_metadata(decode(camera_file(described, "JPEG")))
    encoded = encode(picture, "jpeg")
    with Image.open(io.BytesIO(encoded)) as again:
        assert not again.getexif()
        assert "xmp" not in again.info
        assert again.info["dpi"] == (200, 300)
    assert b"Maker" not in encoded
    assert conversion_notes(picture, "jpeg").endswith("dropped: EXIF, XMP")


@pytest.mark.parametrize("output_format", ["png", "tiff"])
def test_sixteen_bit_files_keep_their_metadata_too(described, output_format):
    picture = decode(camera_file(described, "JPEG"))
    picture = replace(picture, samples=to_integer(to_float(picture.samples), np.uint16))
    again = decode(encode(picture, output_format))
    assert (again.xmp, again.icc_profile) == (picture.xmp, picture.icc_profile)
    assert again.dpi == pytest.approx(picture.dpi, abs=0.1)
    assert conversion_notes(again, output_format).startswith(
        "kept: ICC profile, EXIF, XMP, DPI, 16 bits"
    )


@pytest.mark.parametrize("told", [None, 72, 300])
@pytest.mark.parametrize("image_format", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_a_resolution_is_that_of_the_file_and_none_is_made_up(small, image_format, told):
    """Pillow says 72 of a JPEG with EXIF, and 1 of a TIFF, that say nothing."""
    exif = Image.Exif()
    exif[Base.Make] = "Maker"
    if told is not None:
        exif[Base.XResolution] = exif[Base.YResolution] = told
        exif[Base.ResolutionUnit] = 2
    if image_format == "TIFF" and told is None:  # which Pillow writes none of
        data = tiff(np.asarray(small), 8, 2, 1)
    else:
        data = saved(small, image_format, exif=exif)
    found = decode(data).dpi
    by_exif = image_format in ("JPEG", "TIFF")
    assert found == ((told, told) if told is not None and by_exif else None)


def test_exif_longer_than_jpeg_holds_is_dropped_by_name(small):
    picture = Picture(np.asarray(small), exif=bytes(70_000), xmp=b"<x/>")
    assert conversion_notes(picture, "jpeg") == "kept: XMP; dropped: EXIF"
    assert decode(encode(picture, "jpeg")).xmp == b"<x/>"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_does_not_cost_the_picture(small):
    data = saved(small, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    picture = decode(data)
    assert picture.size == (20, 30)
    assert picture.exif is None


def test_comments_and_text_are_dropped_by_name(small):
    text = PngInfo()
    text.add_text("Author", "me")
    assert conversion_notes(decode(saved(small, "PNG", pnginfo=text)), "png") == "dropped: text"
    assert (
        conversion_notes(decode(saved(small, "JPEG", comment=b"hi")), "png") == "dropped: comment"
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_profile_is_converted_to_srgb_when_asked(small, dtype):
    rgb = to_integer(to_float(np.asarray(small)), dtype)
    wide = to_srgb(Picture(rgb, icc_profile=WIDE_PROFILE))
    assert wide.icc_profile is None
    assert wide.rgb.dtype == dtype
    expected = ImageCms.profileToProfile(small, io.BytesIO(WIDE_PROFILE), io.BytesIO(SRGB_PROFILE))
    difference = to_integer(wide.rgb, np.uint8).astype(int) - np.asarray(expected)
    assert np.abs(difference).mean() < 0.5
    assert np.abs(np.asarray(small) - np.asarray(expected).astype(int)).max() > 10
    assert (
        conversion_notes(wide, "png").startswith("converted: ICC profile to sRGB")
        or dtype != np.uint8
    )


def test_grey_is_converted_by_its_own_profile_and_stays_grey():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 4, axis=2)
    picture = to_srgb(Picture(grey, grey=True, icc_profile=GREY_PROFILE))
    assert np.array_equal(picture.rgb[..., 0], picture.rgb[..., 2])
    assert picture.rgb[0, [0, 255], 0].tolist() == [0, 255]
    assert picture.rgb[0, 128, 0] > 135  # gamma 1.8 is brighter
    assert np.array_equal(picture.alpha, grey[..., 3])


def test_a_profile_that_cannot_be_used_is_dropped_by_name(small):
    for profile, grey in [(b"nothing", False), (WIDE_PROFILE, True)]:
        picture = to_srgb(Picture(np.asarray(small), grey=grey, icc_profile=profile))
        assert np.array_equal(picture.samples, np.asarray(small))
        assert "dropped: damaged ICC profile" in conversion_notes(picture, "png")


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_the_header_tells_what_decoding_will_show(small, image_format):
    assert probe(saved(small, image_format)) == Header(image_format.lower(), (20, 30), 8)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "GIF"])
def test_the_header_tells_of_alpha_from_a_file_too(small, image_format, tmp_path):
    small.putalpha(100 if image_format != "GIF" else 0)
    file = tmp_path / "small"
    file.write_bytes(saved(small, image_format))
    header = probe(file)
    assert header.alpha
    assert header == probe(file.read_bytes())
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "none")


@pytest.mark.parametrize("output_format", ["png", "tiff"])
def test_the_header_tells_the_depth(output_format):
    data = encode(Picture(np.zeros((20, 30, 3), np.uint16)), output_format)
    assert probe(data) == Header(output_format, (20, 30), 16)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_header_of_a_turned_picture_tells_its_upright_size(described, image_format):
    data = camera_file(described, image_format)
    assert probe(data).size == decode(data).size == (30, 20)


def test_the_header_decodes_no_pixel(coffee):
    data = saved(Image.fromarray(coffee), "PNG")
    assert probe(data[:200]).size == (400, 600)


def test_the_format_asked_for_by_default_is_the_pictures_own_or_png(small):
    assert default_output_format(decode(saved(small, "JPEG"))) == "jpeg"
    assert default_output_format(decode(saved(small, "BMP"))) == "png"


def test_a_one_pixel_picture_and_a_long_strip_are_pictures():
    assert decode(saved(Image.new("RGB", (1, 1)), "PNG")).size == (1, 1)
    assert decode(saved(Image.new("RGB", (5000, 1)), "PNG")).size == (1, 5000)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (1, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "grey"), [(3, False), (3, True), (4, False), (4, True)])
def test_the_smallest_pictures_are_written_in_every_format(size, dtype, channels, grey):
    samples = np.random.default_rng(0).integers(0, 256, (*size, channels)).astype(dtype)
    samples[..., :3] = samples[..., :1] if grey else samples[..., :3]
    for output_format in OUTPUT_FORMATS:
        again = decode(encode(Picture(samples, grey=grey), output_format))
        assert again.size == size
        if output_format in ("png", "tiff"):
            assert np.array_equal(again.samples, samples)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_file_is_damaged_wherever_it_is_cut(coffee, image_format):
    whole = saved(Image.fromarray(coffee), image_format)
    for part in (0.001, 0.1, 0.5):
        with pytest.raises(BadImage) as raised:
            decode(whole[: max(8, int(len(whole) * part))])
        assert not isinstance(raised.value, UnsupportedFormat)


def test_a_length_that_no_memory_holds_is_damage(small, monkeypatch):
    """As the fuzzer found, in files that one version of a decoder writes."""

    def read(*_):
        raise MemoryError

    monkeypatch.setattr("superres.codecs.pillow.to_picture", read)
    with pytest.raises(BadImage, match="more memory than its pixels need"):
        decode(saved(small, "TIFF"))


def test_an_empty_file_is_said_to_be_empty():
    with pytest.raises(BadImage, match="empty: 0 bytes"):
        decode(b"")


def test_text_is_not_a_picture_whatever_its_name():
    with pytest.raises(UnsupportedFormat, match=r"PNG, JPEG.*it begins with b'hello, w'"):
        decode(b"hello, world")


@pytest.mark.parametrize("image_format", ["PNG", "GIF", "WEBP", "TIFF"])
def test_animated_and_multi_page_files_are_refused_by_name(image_format):
    with pytest.raises(AnimatedImage, match=f"this {image_format} has more than one: "):
        decode(animated(image_format))


def test_a_decompression_bomb_is_refused_from_its_header():
    with pytest.raises(ImageTooLarge, match=r"at most 64,000,000 input pixels .* 1,600,000,000"):
        decode(bomb())


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF"])
def test_the_limit_of_the_host_process_is_for_its_own_pictures(monkeypatch, small, image_format):
    """Pillow's, which warns above it, and raises above its double."""
    data = saved(small, image_format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert probe(data).size == decode(data).size == (20, 30)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_a_gif_whose_frame_is_larger_than_its_canvas_is_not_held_to_pillows_limit(
    monkeypatch, small
):
    data = bytearray(saved(small, "GIF"))
    data[6:10] = struct.pack("<HH", 1, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(bytes(data)).size == (20, 30)


def test_a_side_longer_than_the_format_holds_is_refused_by_number():
    with pytest.raises(ImageTooLarge, match=r"webp holds at most 16383 px a side; .* has 16384"):
        encode(Picture(np.zeros((1, 16_384, 3), np.uint8)), "webp")


def test_more_pixels_than_the_format_holds_are_refused_by_number():
    with pytest.raises(ImageTooLarge, match=r"webp holds at most 200,000,000 pixels; .* 256,0"):
        check_output((16_000, 16_000), "webp")


@pytest.mark.slow
def test_more_detail_than_the_format_holds_is_refused():
    """Stripes, each block of 16x16 its own way: the worst for how VP8 tells its predictions."""
    blocks = 881
    upright = np.random.default_rng(0).random((blocks, blocks)) < 0.5
    stripes = np.tile(np.arange(0, 256, 16, np.uint8), (16, 1))
    mixed = np.where(upright[:, None, :, None], stripes[:, None], stripes.T[:, None])
    plane = mixed.reshape(16 * blocks, 16 * blocks)
    with pytest.raises(ImageTooLarge, match="webp cannot hold so much detail in 14096x14096"):
        encode(Picture(np.dstack([plane] * 3), grey=True), "webp")


@pytest.mark.parametrize("metadata", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_webp_is_whole_with_alpha_and_metadata_and_without(small, alpha, metadata):
    """Odd lengths, which are padded, and a side of a length of its own."""
    rgb = np.asarray(small)
    samples = np.dstack([rgb, rgb[..., 0]]) if alpha else rgb
    about = {"icc_profile": SRGB_PROFILE, "xmp": b"<x>!</x>"} if metadata else {}
    webp = encode(Picture(samples, **about), "webp", 100)
    assert int.from_bytes(webp[4:8], "little") == len(webp) - 8
    again = decode(webp)
    assert np.abs(again.rgb.astype(int) - rgb).mean() < 6
    assert (again.icc_profile, again.xmp) == (about.get("icc_profile"), about.get("xmp"))
    assert np.array_equal(again.samples[..., 3:], samples[..., 3:])


def test_a_quality_out_of_range_and_an_unknown_format_are_refused():
    picture = Picture(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(BadRequest, match="quality is 1 to 100, not 101"):
        encode(picture, "jpeg", quality=101)
