"""The header tells the upright size of a picture, however its file says that it is turned."""

import io
import struct
from random import Random

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from superres.codecs import FORMATS, decode, probe
from superres.errors import BadImage
from tests import heics, jxls
from tests.matrix import HEIF_TURNS
from tests.pictures import chunk, saved
from tests.raw_files import exif, exif_chunk
from tests.structures import segment, webp

UPRIGHT = (20, 30)
"""Size where the file says nothing of an orientation, or one of 1 to 4."""
SAMPLES = np.random.default_rng(0).integers(0, 256, (*UPRIGHT, 3), np.uint8)
DEEP = SAMPLES.astype(np.uint16) * 257


def block(orientation: int) -> bytes:
    """EXIF as a chunk of PNG or WebP has it."""
    return exif_chunk(orientation)[1]


def png(orientation: int, place: str, samples: np.ndarray = SAMPLES) -> bytes:
    """A PNG of four chunks of pixels, with its EXIF at a place."""
    stored = bytes(imagecodecs.png_encode(samples, level=0))
    length = int.from_bytes(stored[33:37], "big")
    pixels = stored[41 : 41 + length]
    parts = [chunk(b"IDAT", pixels[at : at + length // 3]) for at in range(0, length, length // 3)]
    at = {"before": 0, "behind": len(parts)}[place]
    parts.insert(at, chunk(*exif_chunk(orientation)))
    return b"".join([stored[:33], *parts, chunk(b"IEND", b"")])


def jpeg(orientation: int, behind: int | None = None) -> bytes:
    """A JPEG; with a second EXIF behind its first scan, or behind its last."""
    options = {"progressive": behind is not None, "exif": exif(orientation)}
    data = saved(Image.fromarray(SAMPLES), "JPEG", **options)
    if behind is None:
        return data
    other = segment(0xE1, b"Exif\0\0" + block(9 - orientation))
    first = data.index(b"\xff\xda")
    at = (data.index(b"\xff\xda", first + 2), len(data) - 2)[behind]
    return data[:at] + other + data[at:]


def jpeg_12_bits(orientation: int) -> bytes:
    samples = np.full((*UPRIGHT, 3), 2000, np.uint16)
    data = bytes(imagecodecs.jpeg8_encode(samples, bitspersample=12, optimize=True))
    return data[:2] + segment(0xE1, b"Exif\0\0" + block(orientation)) + data[2:]


def webp_file(orientation: int, flags: int = 0x0C, *, before: bool = False) -> bytes:
    """A WebP; its EXIF counts if the flags say that there is some."""
    chunks = (b"XMP ", b"<x/>"), (b"EXIF", block(orientation))
    first, last = (chunks, ()) if before else ((), chunks)
    return webp(*last, before=first, flags=flags, size=UPRIGHT)


def tiff_file(orientation: int, samples: np.ndarray, **options) -> bytes:
    """A TIFF with its directory behind the pixels."""
    tag = (274, 3, 1, orientation, True)
    out = io.BytesIO()
    tifffile.imwrite(out, samples, photometric="rgb", extratags=[tag], **options)
    return out.getvalue()


def items(orientation: int, brand: bytes, coded: bytes) -> bytes:
    """A HEIF or AVIF with a wrong orientation in its EXIF, at the end of the file."""
    file = heics.Builder(brands=(brand, b"mif1", brand))
    primary = file.add_coded(coded, *HEIF_TURNS[orientation])
    file.add(b"Exif", bytes(4) + heics.exif(orientation=9 - orientation), cdsc=[primary])
    return file.file()


HEVC, AV1 = heics.heic(SAMPLES), heics.avif(SAMPLES)
JXL = bytes(imagecodecs.jpegxl_encode(SAMPLES, level=101))
FILES = {
    "png, before the pixels": lambda turn: png(turn, "before"),
    "png, behind the pixels": lambda turn: png(turn, "behind"),
    "png of 16 bits, before the pixels": lambda turn: png(turn, "before", DEEP),
    "png of 16 bits, behind the pixels": lambda turn: png(turn, "behind", DEEP),
    "jpeg": jpeg,
    "jpeg of 12 bits": jpeg_12_bits,
    "jpeg, another behind the first scan": lambda turn: jpeg(turn, 0),
    "jpeg, another behind the pixels": lambda turn: jpeg(turn, 1),
    "webp, before the pixels": lambda turn: webp_file(turn, before=True),
    "webp, behind the pixels": webp_file,
    "webp, before the pixels, without its flag": lambda turn: webp_file(turn, 4, before=True),
    "webp, behind the pixels, without its flag": lambda turn: webp_file(turn, 4),
    "tiff": lambda turn: tiff_file(turn, SAMPLES),
    "tiff of 16 bits": lambda turn: tiff_file(turn, DEEP),
    "tiff, big-endian": lambda turn: tiff_file(turn, SAMPLES, byteorder=">"),
    "tiff, big": lambda turn: tiff_file(turn, SAMPLES, bigtiff=True),
    "tiff, big and big-endian": lambda turn: tiff_file(turn, DEEP, bigtiff=True, byteorder=">"),
    "heif": lambda turn: items(turn, b"heic", HEVC),
    "avif": lambda turn: items(turn, b"avif", AV1),
    "jxl": lambda turn: jxls.turned(JXL, turn),
}
"""Kind of a file -> one whose picture is stored in an orientation of EXIF."""
IGNORED = {name for name in FILES if "without its flag" in name}


def test_every_format_with_an_orientation_is_here():
    assert {name.partition(",")[0].split()[0] for name in FILES} == {*FORMATS} - {"bmp", "gif"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", FILES)
def test_the_header_tells_the_size_of_the_decoded_picture(tmp_path, name: str, orientation: int):
    data = FILES[name](orientation)
    expected = UPRIGHT[::-1] if orientation >= 5 and name not in IGNORED else UPRIGHT
    assert probe(data).size == expected
    assert decode(data).size == expected
    (file := tmp_path / "picture").write_bytes(data)
    assert probe(file).size == expected


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("count", range(4))
@pytest.mark.parametrize("kind", range(1, 19))
def test_an_orientation_of_a_tiff_that_is_not_one_number_is_refused(
    kind: int, count: int, big: bool
):
    """Decoders take the first of several for it, or a fraction, or do not."""
    data = bytearray(tiff_file(6, SAMPLES, bigtiff=big))
    at = data.index(struct.pack("<HH", 274, 3))
    wide = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
    form = wide.get(kind, {5: "II", 10: "ii", 11: "f", 12: "d"}.get(kind, "B"))
    value = struct.pack(f"<{count * form}", *[6] * count * len(form))
    if len(value) > (8 if big else 4):
        place, value = len(data), value.ljust(16, b"\0")
        data += value
        value = struct.pack("<Q" if big else "<I", place)
    entry = struct.pack("<HHQ8s" if big else "<HHI4s", 274, kind, count, value)
    data[at : at + len(entry)] = entry
    if count == 1 and kind in (3, 4, 16):
        assert probe(bytes(data)).size == decode(bytes(data)).size == UPRIGHT[::-1]
        return
    for read in (probe, decode):
        with pytest.raises(BadImage, match="tag 274 is not one number"):
            read(bytes(data))


def damaged(one: bytes) -> bytes:
    return one[:-1] + bytes([one[-1] ^ 1])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_wherever_the_exif_of_a_png_is_the_header_and_the_picture_agree(seed: int):
    choose = Random(seed)
    stored = png(1, "before")
    exif_at = stored.index(b"eXIf") - 4
    pixels_at = stored.index(b"IDAT") - 4
    second_at = stored.index(b"IDAT", pixels_at + 8) - 4
    places = [exif_at, second_at, stored.index(b"IEND") - 4, len(stored)]
    found = []
    for place in sorted(choose.choices(places, k=choose.randrange(4))):
        one = chunk(*exif_chunk(choose.randint(1, 8)))
        one = choose.choice((one, one, damaged(one), chunk(b"tEXt", b"Note\0x"), one[:-6]))
        found.append((place, one))
    data = stored[:exif_at] + stored[pixels_at:]
    for place, one in reversed(found):
        place -= 0 if place == exif_at else pixels_at - exif_at
        data = data[:place] + one + data[place:]
    if choose.random() < 0.3:
        data = data[: -choose.randrange(60)]
    try:
        picture = decode(data)
    except BadImage:
        return
    assert probe(data).size == picture.size


def test_the_first_part_of_a_png_tells_its_stored_size():
    """The page sends no more for a forecast."""
    data = png(6, "behind")
    for length in range(data.index(b"IDAT") + 4, data.index(b"eXIf") + 30):
        assert probe(data[:length]).size == UPRIGHT
    assert probe(data[:-12]).size == UPRIGHT[::-1]
