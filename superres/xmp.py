"""XMP, less what is no longer true of an upright and larger picture in another file.

An XMP packet is RDF (ISO 16684-1). Each of its properties is judged by its namespace and name: what
describes the photograph stays; what describes the file, its pixels, or something else in it goes.
Properties are cut out of the bytes, and the rest stays as it was written.
"""

import re
from dataclasses import dataclass, field
from xml.parsers import expat

MAX_DEPTH = 100
"""Elements inside each other. Packets of editors have about 10."""
MAX_ELEMENTS = 100_000
MAX_PREFIXES = 200
"""Prefixes of namespaces that are declared at one place."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XML = "http://www.w3.org/XML/1998/namespace"
_SYNTAX = {_RDF, _XML, "adobe:ns:meta/"}
"""Namespaces whose names are no properties."""
_GOOGLE = "http://ns.google.com/photos/"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
_FILE = (
    _GOOGLE,
    "http://ns.adobe.com/hdr-gain-map/",
    "http://ns.apple.com/HDRGainMap/",
    "http://ns.apple.com/pixeldatainfo/",
    "http://ns.adobe.com/xmp/note/",
    "http://ns.adobe.com/xap/1.0/g/img/",
    "http://www.metadataworkinggroup.com/schemas/regions/",
    "http://ns.microsoft.com/photo/1.2/",
    "http://ns.adobe.com/xmp/1.0/DynamicMedia/",
)
"""Beginnings of namespaces about the file: what else it has, and places among its pixels."""
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_TIFF_KEPT = {
    "Artist",
    "Copyright",
    "DateTime",
    "ImageDescription",
    "Make",
    "Model",
    "ResolutionUnit",
    "Software",
    "XResolution",
    "YResolution",
}
_PHOTOGRAPH: dict[str, set[str]] = {
    _EXIF: {
        "ComponentsConfiguration",
        "CompressedBitsPerPixel",
        "FocalPlaneResolutionUnit",
        "FocalPlaneXResolution",
        "FocalPlaneYResolution",
        "NativeDigest",
        "PixelXDimension",
        "PixelYDimension",
        "SubjectArea",
        "SubjectLocation",
    },
    "http://cipa.jp/exif/1.0/": set(),
    "http://creativecommons.org/ns#": set(),
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": set(),
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": set(),
    "http://ns.adobe.com/camera-raw-settings/1.0/": set(),
    "http://ns.adobe.com/exif/1.0/aux/": set(),
    "http://ns.adobe.com/lightroom/1.0/": set(),
    "http://ns.adobe.com/photoshop/1.0/": {
        "ColorMode",
        "EmbeddedXMPDigest",
        "ICCProfile",
        "LegacyIPTCDigest",
    },
    "http://ns.adobe.com/xap/1.0/": {"Thumbnails"},
    "http://ns.adobe.com/xap/1.0/mm/": set(),
    "http://ns.adobe.com/xap/1.0/rights/": set(),
    "http://ns.useplus.org/ldf/xmp/1.0/": set(),
    "http://purl.org/dc/elements/1.1/": {"format"},
}
"""Namespaces about the photograph -> those of their properties that are about its file."""
_FILE_NAME = re.compile(
    "Width|Height|Pixels|Dimension|Orientation|Offset|(?<!Focal)Length$|Padding|Thumbnail|Preview"
    "|Embedded|Mime|Digest|Checksum|Hash|GainMap|MotionPhoto|Video|DepthMap|Base64",
    re.IGNORECASE,
)
"""Names by which a property of another namespace is about the file."""
_ROUTINE = {_TIFF, *_PHOTOGRAPH}
"""Namespaces whose file properties nearly every editor writes."""

_ATTRIBUTE = rb"""\s+([^\s=/>]+)\s*=\s*(?:"[^"]*"|'[^']*')"""
_TAG = re.compile(rb"<[^\s/>]+((?:" + _ATTRIBUTE + rb")*)\s*/?>")
_ATTRIBUTES = re.compile(_ATTRIBUTE)


@dataclass(frozen=True)
class Filtered:
    """What is left of a packet."""

    packet: bytes | None
    """Nothing where no property is left."""
    claims: tuple[str, ...] = ()
    """What else is in the file by what the packet says: a video, a gain map."""
    stale: bool = False
    """Whether it had properties about the file besides those that every editor writes."""


class DamagedXmp(Exception):
    """Bytes that are no XML in UTF-8 or UTF-16, have a document type, or are too much work."""


def filtered(packet: bytes) -> Filtered:
    """Cut the properties out of a packet that are not true of another file of the same picture.

    Raises:
        DamagedXmp: it cannot be read, so that nobody knows what it says.
    """
    text = to_utf_8(packet)
    reader = _Reader(text)
    reader.read()
    if not reader.cuts:
        return Filtered(packet)
    left = reader.without_cuts() if reader.kept else None
    return Filtered(left, tuple(sorted(reader.claims)), reader.stale)


def to_utf_8(packet: bytes) -> bytes:
    """A packet in UTF-8, without the zeros at its end.

    Raises:
        DamagedXmp: it begins as UTF-16, and is not.
    """
    if packet[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return packet.decode("utf-16").encode()
        except UnicodeError as error:
            raise DamagedXmp(str(error)) from error
    return packet.rstrip(b"\0")


@dataclass
class _Element:
    namespaces: dict[str, str]
    """By prefix."""
    name: tuple[str, str]
    """Namespace and local name."""
    start: int
    tag_end: int
    """Behind its start tag."""
    text: str = ""


@dataclass
class _Reader:
    text: bytes
    cuts: list[tuple[int, int]] = field(default_factory=list)
    """Where what is cut begins and ends."""
    claims: set[str] = field(default_factory=set)
    stale: bool = False
    elements: int = 0
    kept: int = 0
    """Properties that stay."""
    open: list[_Element] = field(default_factory=list)
    cutting: int | None = None
    """How many elements are open around the one that is cut."""

    def read(self) -> None:
        parser = expat.ParserCreate("utf-8")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._refuse  # entities, which may be huge
        self.parser = parser
        try:
            parser.Parse(self.text, True)
        except expat.ExpatError as error:
            raise DamagedXmp(str(error)) from error

    def without_cuts(self) -> bytes:
        pieces, at = [], 0
        for start, end in sorted(self.cuts):
            pieces.append(self.text[at:start])
            at = end
        return b"".join([*pieces, self.text[at:]])

    def _refuse(self, *_: object) -> None:
        raise DamagedXmp("it has a document type")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        spaces = self.open[-1].namespaces if self.open else {"": "", "xml": _XML}
        declared = {
            key.partition(":")[2]: value
            for key, value in attributes.items()
            if key == "xmlns" or key.startswith("xmlns:")
        }
        spaces = spaces | declared if declared else spaces
        self.elements += 1
        if (
            len(self.open) >= MAX_DEPTH
            or self.elements > MAX_ELEMENTS
            or len(spaces) > MAX_PREFIXES
        ):
            raise DamagedXmp("it has more elements, or prefixes, than are read")
        start = self.parser.CurrentByteIndex
        tag = _TAG.match(self.text, start)
        if tag is None:
            raise DamagedXmp("a tag cannot be read")
        element = _Element(spaces, _resolved(spaces, name), start, tag.end())
        self.open.append(element)
        if self.cutting is None and _is_about_the_file(*element.name):
            self.cutting = len(self.open) - 1
        stale = self._attributes(spaces, attributes)
        if self.cutting is not None:
            return
        if stale:
            for one in _ATTRIBUTES.finditer(self.text, *tag.span(1)):
                if one[1].decode() in stale:
                    self.cuts.append(one.span())
        self.kept += element.name[0] not in _SYNTAX

    def _attributes(self, spaces: dict[str, str], attributes: dict[str, str]) -> set[str]:
        """Count the attributes that are properties, and return those to cut.

        With them go the prefixes of namespaces that no property has any more.
        """
        stale = set()
        for key, value in attributes.items():
            if key.startswith("xmlns:") and _is_a_file_namespace(value):
                stale.add(key)
            if ":" not in key or key.startswith("xmlns:"):
                continue
            name = _resolved(spaces, key)
            if self.cutting is not None or _is_about_the_file(*name):
                self._note(name, value)
                stale.add(key)
            elif name[0] not in _SYNTAX:
                self.kept += 1
        return stale

    def _characters(self, text: str) -> None:
        if self.cutting is not None and len(self.open[-1].text) < 100:
            self.open[-1].text += text[:100]

    def _end(self, name: str) -> None:
        element = self.open.pop()
        if self.cutting is None:
            return
        self._note(element.name, element.text.strip())
        if self.cutting == len(self.open):
            at = self.parser.CurrentByteIndex
            empty = self.text[at : at + 2] != b"</"
            end = element.tag_end if empty else self.text.index(b">", at) + 1
            self.cuts.append((element.start, end))
            self.cutting = None

    def _note(self, name: tuple[str, str], value: str) -> None:
        """Note what a property about the file says is there."""
        space, local = name
        self.stale |= space not in _ROUTINE and space not in _SYNTAX
        if "HDRGainMap" in space or "hdr-gain-map" in space or value == "GainMap":
            self.claims.add("HDR gain map")
        if (re.fullmatch("Motion(Photo)?|MicroVideo", local) and value not in ("0", "")) or (
            value == "MotionPhoto" or value.startswith("video/")
        ):
            self.claims.add("video")
        if "/depthmap/" in space or value in ("Depth", "DepthMap"):
            self.claims.add("depth map")
        if "/audio/" in space or value.startswith("audio/"):
            self.claims.add("sound")


def _resolved(spaces: dict[str, str], name: str) -> tuple[str, str]:
    """Namespace and local name."""
    prefix, _, local = name.rpartition(":")
    if prefix not in spaces:
        raise DamagedXmp(f"the prefix {prefix} is not declared")
    return spaces[prefix], local


def _is_about_the_file(space: str, local: str) -> bool:
    if space in _SYNTAX:
        return False
    if space == _TIFF:
        return local not in _TIFF_KEPT
    if space in _PHOTOGRAPH:
        return local in _PHOTOGRAPH[space]
    return _is_a_file_namespace(space) or _FILE_NAME.search(local) is not None


def _is_a_file_namespace(space: str) -> bool:
    return space.startswith(_FILE) and space != _PANORAMA
