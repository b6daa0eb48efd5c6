"""Tells in a result's XMP that an algorithm enhanced the picture, and which model.

IPTC Photo Metadata's ``DigitalSourceType`` says it by a term of the IPTC's vocabulary, and an entry
of ``xmpMM:History`` (XMP, ISO 16684-1) names the model. Both go into the packet that the picture
has: what else is in it stays to the byte. There is no date, so that the same request has the same
answer.
"""

import re
from dataclasses import dataclass, field, replace
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from superres.codecs import FORMATS, OutputFormat, Picture
from superres.xmp import DamagedXmp, to_utf_8

ENHANCED = "http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced"
CAPTURED = {
    f"http://cv.iptc.org/newscodes/digitalsourcetype/{term}"
    for term in (
        "computationalCapture",
        "digitalCapture",
        "digitisedFromNegativeOnFilm",
        "digitisedFromPositiveOnFilm",
        "digitisedFromPrint",
        "digitise",
        "humanEdits",
        "minorHumanEdits",
        "negativeFilm",
        "positiveFilm",
        "print",
        "screenCapture",
    )
}
"""Types that :data:`ENHANCED` takes the place of. Any other, as that of a picture that was
generated or composed, tells more and stays."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_MEDIA = "http://ns.adobe.com/xap/1.0/mm/"
_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
_TYPE = (_IPTC, "DigitalSourceType")
_HISTORY = (_MEDIA, "History")

_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"></rdf:RDF></x:xmpmeta>'
    '<?xpacket end="w"?>'
).encode()
_TAG = re.compile(rb"""<(?:[^'">]|"[^"]*"|'[^']*')*>""")


def with_provenance(
    picture: Picture, made_by: str, output_format: OutputFormat
) -> tuple[Picture, str]:
    """The picture with XMP that tells how it was made, and a note on that.

    Args:
        picture: what is encoded.
        made_by: the model: ``srcnn-x3@0123456789ab``.
        output_format: of the file. If its XMP has no room for more, it stays as it is.

    Raises:
        DamagedXmp: see :func:`without_damaged_xmp`.
    """
    packet, longest = claim(picture.xmp, made_by), FORMATS[output_format].limits.longest_metadata
    if longest is not None and len(packet) > longest:
        return picture, f"no provenance: {output_format} holds {longest:,} bytes of XMP"
    return replace(picture, xmp=packet), "provenance in XMP"


def without_damaged_xmp(picture: Picture) -> Picture:
    """The picture; without its XMP, if that cannot be read, so that nothing can be added to it."""
    try:
        claim(picture.xmp, "")
    except DamagedXmp:
        return replace(picture, xmp=None, dropped=(*picture.dropped, "damaged XMP"))
    return picture


def claim(packet: bytes | None, made_by: str) -> bytes:
    """An XMP packet with the type of its source and the model, in addition to what it has.

    Raises:
        DamagedXmp: it cannot be read.
    """
    text = _EMPTY if packet is None else to_utf_8(packet)
    reader = _Reader(text)
    reader.read()
    if reader.end is None:  # <rdf:RDF/>
        return claim(None, made_by)
    edits = [(start, end, b"") for start, end in reader.replaced]
    properties = (
        "" if reader.type_stays else f" Iptc4xmpExt:DigitalSourceType={quoteattr(ENHANCED)}"
    )
    event = (
        f'<rdf:li xmlns:rdf="{_RDF}" xmlns:stEvt="{_EVENT}" stEvt:action="resized" '
        f"stEvt:softwareAgent={quoteattr(f'superres {made_by}')}/>"
    )
    history = f"<xmpMM:History><rdf:Seq>{event}</rdf:Seq></xmpMM:History>"
    if reader.events_end is not None:
        edits.append((reader.events_end, reader.events_end, event.encode()))
        history = ""
    description = (
        f'<rdf:Description xmlns:rdf="{_RDF}" xmlns:Iptc4xmpExt="{_IPTC}" xmlns:xmpMM="{_MEDIA}" '
        f"rdf:about={quoteattr(reader.about)}{properties}>{history}</rdf:Description>"
    )
    if properties or history:
        edits.append((reader.end, reader.end, description.encode()))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


@dataclass
class _Reader:
    """Finds the places in a packet at which something is to be changed, in bytes."""

    text: bytes
    about: str = ""
    """Subject of the first description; a new one has the same."""
    end: int | None = None
    """Where the RDF ends."""
    events_end: int | None = None
    """Where the events of the history end."""
    type_stays: bool = False
    """Whether the source's type tells more than what is said here."""
    replaced: list[tuple[int, int]] = field(default_factory=list)
    """Where the properties are that go."""
    _path: list[tuple[str, str]] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _described: bool = False
    _value: str = ""

    def read(self) -> None:
        """Read the packet.

        Raises:
            DamagedXmp: it cannot be read, or has no RDF.
        """
        self._parser = parser = expat.ParserCreate("UTF-8", " ")
        parser.namespace_prefixes = True
        parser.ordered_attributes = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._add
        parser.StartDoctypeDeclHandler = _refuse  # entities could make it large
        self._found = False
        try:
            parser.Parse(self.text, True)
        except expat.ExpatError as error:
            raise DamagedXmp(str(error)) from error
        if not self._found:
            raise DamagedXmp("there is no RDF")

    def _start(self, name: str, attributes: list[str]) -> None:
        index = self._parser.CurrentByteIndex
        values = dict(zip(map(_name, attributes[::2]), attributes[1::2], strict=True))
        key = _name(name)
        if self._path[-1:] == [(_RDF, "RDF")] and key == (_RDF, "Description"):
            if not self._described:
                self.about = values.get((_RDF, "about"), values.get(("", "about"), ""))
                self._described = True
            if _TYPE in values:
                prefixed = next(one for one in attributes[::2] if _name(one) == _TYPE)
                self._judge(values[_TYPE], self._attribute(index, prefixed))
        self._path.append(key)
        self._starts.append(index)
        self._value = values.get((_RDF, "resource"), "")

    def _add(self, text: str) -> None:
        self._value += text if self._path[-1:] == [_TYPE] else ""

    def _end(self, name: str) -> None:
        key, start = self._path.pop(), self._starts.pop()
        index = self._parser.CurrentByteIndex  # of an empty tag, that is behind it
        inside = self._path[-2:] == [(_RDF, "RDF"), (_RDF, "Description")]
        if key == (_RDF, "RDF") and not self._found:
            self._found = True
            self.end = None if self._is_empty(start) else index
        elif key == _TYPE and inside:
            end = index if self._is_empty(start) else self._tag_end(index)
            self._judge(self._value.strip(), (start, end))
        elif key == (_RDF, "Seq") and self._path[-1:] == [_HISTORY] and not self._is_empty(start):
            self.events_end = index

    def _judge(self, value: str, place: tuple[int, int]) -> None:
        if value in CAPTURED or not value:
            self.replaced.append(place)
        else:
            self.type_stays = True

    def _attribute(self, tag: int, name: str) -> tuple[int, int]:
        """Where an attribute is in the tag that begins there."""
        _, local, *prefix = name.split(" ")
        qualified = re.escape(":".join([*prefix, local]).encode())
        pattern = re.compile(rb"\s" + qualified + rb"""\s*=\s*(?:"[^"]*"|'[^']*')""")
        found = pattern.search(self.text, tag, self._tag_end(tag))
        if found is None:
            raise DamagedXmp("an attribute is not where it was read")
        return found.span()

    def _is_empty(self, start: int) -> bool:
        return self.text.endswith(b"/>", start, self._tag_end(start))

    def _tag_end(self, start: int) -> int:
        found = _TAG.match(self.text, start)
        if found is None:
            raise DamagedXmp("a tag does not end")
        return found.end()


def _name(name: str) -> tuple[str, str]:
    """Namespace and local name, of what expat gives."""
    parts = name.split(" ")
    return (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])


def _refuse(*_: object) -> None:
    raise DamagedXmp("it has a document type")
