"""A file that is not read is named, and the error says how to get a picture of it."""

import gzip
import io
import zipfile

import pytest
from PIL import Image

from superres.codecs import INPUT_FORMATS, decode, probe
from superres.errors import BadImage, UnsupportedFormat
from tests.pictures import plain, saved


def box(brand: bytes) -> bytes:
    return b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1miaf" + bytes(600)


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.png", plain())
    return out.getvalue()


SVG = '<?xml version="1.0"?>\n<!-- made -->\n<svg xmlns="http://www.w3.org/2000/svg"/>'
DOCUMENT_TYPE = (
    '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" '
    '"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">\n<svg/>'
)
FILES = {
    "CR3": (box(b"crx "), "camera raw: develop it first"),
    "CR2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "camera raw: develop it first"),
    "RAF": (b"FUJIFILMCCD-RAW 0201" + bytes(60), "camera raw: develop it first"),
    "ORF": (b"IIRO\x08\0\0\0" + bytes(60), "camera raw: develop it first"),
    "RW2": (b"IIU\0\x18\0\0\0" + bytes(60), "camera raw: develop it first"),
    "MOV": (box(b"qt  "), "export the frame"),
    "MP4": (box(b"isom"), "MP4.*export the frame"),
    "3GP": (box(b"3gp5"), "export the frame"),
    "WEBM": (b"\x1aE\xdf\xa3" + bytes(60), "WebM.*export the frame"),
    "AVI": (b"RIFF\x10\0\0\0AVI LIST" + bytes(60), "AVI.*export the frame"),
    "WAV": (b"RIFF\x10\0\0\0WAVEfmt " + bytes(60), "sound.*send a picture"),
    "SVG": (SVG.encode(), "SVG.*in the size that you need"),
    "SVG, byte order mark": (b"\xef\xbb\xbf" + SVG.encode(), "SVG"),
    "SVG, document type": (DOCUMENT_TYPE.encode(), "SVG"),
    "HTML": (b"<!doctype html><html><body>404", "web page: save the picture itself"),
    "PDF": (b"%PDF-1.7\n", "PDF: export the page"),
    "EPS": (saved(Image.new("L", (4, 4)), "EPS"), "EPS.*export it as PNG"),
    "PSD": (b"8BPS\0\1" + bytes(60), "Photoshop.*export it as PNG or TIFF"),
    "ICO": (saved(Image.new("RGB", (16, 16)), "ICO"), "icon.*the largest"),
    "ICNS": (saved(Image.new("RGB", (16, 16)), "ICNS"), "icon.*the largest"),
    "JP2": (saved(Image.new("RGB", (16, 16)), "JPEG2000"), "JPEG 2000: export it"),
    "DDS": (saved(Image.new("RGB", (16, 16)), "DDS"), "DDS: export it"),
    "EXR": (b"v/1\1\2\0\0\0" + bytes(60), "OpenEXR.*16 bits"),
    "HDR": (b"#?RADIANCE\n" + bytes(60), "Radiance.*16 bits"),
    "PPM": (saved(Image.new("RGB", (4, 4)), "PPM"), "PNM: export it"),
    "gzip": (gzip.compress(plain()), "gzip: unpack it"),
    "ZIP": (zipped(), "ZIP archive.*unpack it"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_read_is_named_with_a_way_out(name, tmp_path):
    data, message = FILES[name]
    path = tmp_path / "upload.jpg"
    path.write_bytes(data)
    for read, source in ((probe, data), (decode, data), (probe, path)):
        with pytest.raises(UnsupportedFormat, match=message):
            read(source)


def test_the_message_also_names_what_is_read():
    with pytest.raises(UnsupportedFormat, match=", ".join(INPUT_FORMATS)):
        decode(b"%PDF-1.7")


def test_what_nobody_knows_is_shown_by_its_first_bytes():
    for data in (b"hello, world", b"RIFF\x10\0\0\0nope" + bytes(60), b"<a/>", b"\0"):
        with pytest.raises(BadImage, match=r"begins with|not WebP"):
            decode(data)
