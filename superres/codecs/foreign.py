"""Files that are sent often and not read here: what they are, and how to get a picture of them."""

import re
from dataclasses import dataclass, field

HEAD = 512
"""First bytes of a file that tell what it is."""

RAW = "camera raw: develop it first, and export it as JPEG, or as TIFF with 16 bits"
_EXPORT = "export it as PNG or JPEG"
_VIDEO = "export the frame as PNG or JPEG"
_UNPACK = "unpack it, and send each picture by itself"
_DEEP = "export it as TIFF or PNG with 16 bits"
_DRAWING = "export it as PNG, in the size that you need"


@dataclass(frozen=True)
class _Foreign:
    name: str
    way_out: str
    starts: tuple[bytes, ...] = ()
    """First bytes of its files."""
    at: int = 0
    """Where those are."""
    pattern: re.Pattern[bytes] | None = field(default=None)
    """Or what its files begin with."""

    def begins(self, head: bytes) -> bool:
        if self.pattern is not None:
            return self.pattern.match(head) is not None
        return head.startswith(self.starts, self.at)


def _brand(*names: bytes) -> re.Pattern[bytes]:
    """A file of the ISO base media format whose main brand is one of these."""
    return re.compile(rb"....ftyp(?:" + b"|".join(map(re.escape, names)) + rb")", re.DOTALL)


_AROUND_KIND = re.compile(r"^(an?|compressed with) |,.*| \(.*\)$")
_TEXT_START = rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*|<!DOCTYPE[^>]*>\s*)*"
_FOREIGN = (
    _Foreign("Canon CR3", RAW, pattern=_brand(b"crx ")),
    _Foreign("JPEG 2000", _EXPORT, (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    _Foreign("JPEG XR", _EXPORT, (b"II\xbc",)),
    _Foreign("Canon CR2", RAW, pattern=re.compile(rb"II\*\0....CR", re.DOTALL)),
    _Foreign("Canon CRW", RAW, (b"HEAPCCDR",), 6),
    _Foreign("Fujifilm RAF", RAW, (b"FUJIFILMCCD-RAW",)),
    _Foreign("Olympus ORF", RAW, (b"IIRO", b"IIRS", b"MMOR")),
    _Foreign("Panasonic RW2", RAW, (b"IIU\0",)),
    _Foreign("Minolta MRW", RAW, (b"\0MRM",)),
    _Foreign("Sigma X3F", RAW, (b"FOVb",)),
    _Foreign("a QuickTime video", _VIDEO, pattern=_brand(b"qt  ")),
    _Foreign("a QuickTime video", _VIDEO, (b"moov", b"mdat", b"wide"), 4),
    _Foreign("a video (MP4, or another of its family)", _VIDEO, (b"ftyp",), 4),
    _Foreign("a video (WebM or Matroska)", _VIDEO, (b"\x1aE\xdf\xa3",)),
    _Foreign("a video (AVI)", _VIDEO, pattern=re.compile(rb"RIFF....AVI ", re.DOTALL)),
    _Foreign(
        "a sound file (WAV)", "send a picture", pattern=re.compile(rb"RIFF....WAVE", re.DOTALL)
    ),
    _Foreign("a video (MPEG)", _VIDEO, (b"\0\0\1\xba", b"\0\0\1\xb3")),
    _Foreign("a video (Windows Media)", _VIDEO, (b"0&\xb2u\x8ef\xcf\x11",)),
    _Foreign("a video (Flash)", _VIDEO, (b"FLV\1",)),
    _Foreign("a video or sound (Ogg)", _VIDEO, (b"OggS",)),
    _Foreign("PDF", "export the page, or the picture in it, as PNG or JPEG", (b"%PDF",)),
    _Foreign("PostScript or EPS", _DRAWING, (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    _Foreign("SVG", _DRAWING, pattern=re.compile(_TEXT_START + rb"<(?:\w+:)?svg\b", re.DOTALL)),
    _Foreign(
        "a web page",
        "save the picture itself",
        pattern=re.compile(_TEXT_START + rb"<html\b", re.DOTALL | re.IGNORECASE),
    ),
    _Foreign("a Windows metafile", _DRAWING, (b"\xd7\xcd\xc6\x9a",)),
    _Foreign("a Windows metafile", _DRAWING, (b" EMF",), 40),
    _Foreign("Photoshop (PSD)", "export it as PNG or TIFF", (b"8BPS",)),
    _Foreign("GIMP (XCF)", "export it as PNG or TIFF", (b"gimp xcf",)),
    _Foreign(
        "an icon (ICO)", "export the largest picture in it as PNG", (b"\0\0\1\0", b"\0\0\2\0")
    ),
    _Foreign("an icon (ICNS)", "export the largest picture in it as PNG", (b"icns",)),
    _Foreign("DDS", _EXPORT, (b"DDS ",)),
    _Foreign("OpenEXR (HDR)", _DEEP, (b"v/1\1",)),
    _Foreign("Radiance (HDR)", _DEEP, (b"#?RADIANCE", b"#?RGBE")),
    _Foreign("FITS", _DEEP, (b"SIMPLE  =",)),
    _Foreign("DICOM", _DEEP, (b"DICM",), 128),
    _Foreign("PNM", _EXPORT, pattern=re.compile(rb"P[1-7fF]\s")),
    _Foreign("QOI", _EXPORT, (b"qoif",)),
    _Foreign("farbfeld", _EXPORT, (b"farbfeld",)),
    _Foreign("BPG", _EXPORT, (b"BPG\xfb",)),
    _Foreign("MNG", _VIDEO, (b"\x8aMNG", b"\x8bJNG")),
    _Foreign("DjVu", "export the page as PNG or JPEG", (b"AT&TFORM",)),
    _Foreign("compressed with gzip", _UNPACK, (b"\x1f\x8b",)),
    _Foreign("a ZIP archive, or an office document", _UNPACK, (b"PK\3\4", b"PK\5\6")),
    _Foreign("a 7z archive", _UNPACK, (b"7z\xbc\xaf\x27\x1c",)),
    _Foreign("a RAR archive", _UNPACK, (b"Rar!\x1a\7",)),
    _Foreign("compressed with xz", _UNPACK, (b"\xfd7zXZ\0",)),
    _Foreign("compressed with bzip2", _UNPACK, (b"BZh",)),
    _Foreign("compressed with Zstandard", _UNPACK, (b"\x28\xb5\x2f\xfd",)),
    _Foreign("a tar archive", _UNPACK, (b"ustar",), 257),
)


def named(head: bytes) -> str | None:
    """Say what a file is and what to do with it, by its first :data:`HEAD` bytes.

    Returns:
        None if nobody knows.

    >>> named(b"%PDF-1.7")
    'this is PDF: export the page, or the picture in it, as PNG or JPEG'
    """
    found = _find(head)
    return None if found is None else f"this is {found.name}: {found.way_out}"


def kind(head: bytes) -> str | None:
    r"""Say in short what a file is, by its first :data:`HEAD` bytes, to count such files.

    Returns:
        None if nobody knows.

    >>> kind(b"....ftypisom"), kind(b"PK\3\4"), kind(b"%PDF-1.7")
    ('video', 'ZIP archive', 'PDF')
    """
    found = _find(head)
    return None if found is None else _AROUND_KIND.sub("", found.name)


def _find(head: bytes) -> _Foreign | None:
    return next((one for one in _FOREIGN if one.begins(head[:HEAD])), None)
