"""What a result's XMP tells of its making, and that the rest of a packet stays."""

import re
from collections import Counter
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superres.provenance import CAPTURED, ENHANCED, claim
from superres.xmp import DamagedXmp

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
HISTORY = "{http://ns.adobe.com/xap/1.0/mm/}History"
AGENT = "{http://ns.adobe.com/xap/1.0/sType/ResourceEvent#}softwareAgent"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CAMERA = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
MODEL = "srcnn-x3@0123456789ab"


def packet(inside: str, attributes: str = "", about: str = "") -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta '
        f'xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF[1:-1]}" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" '
        'xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#" '
        f'xmlns:e="{TYPE[1:].partition("}")[0]}"><rdf:Description rdf:about="{about}" {attributes}>'
        f'{inside}</rdf:Description></rdf:RDF></x:xmpmeta>  <?xpacket end="w"?>'
    ).encode()


def descriptions(data: bytes) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(data).iter(f"{RDF}Description"))


def types(data: bytes) -> list[str]:
    """The values of the source's type, in whatever form."""
    found = [one.get(TYPE) for one in descriptions(data)]
    elements = [element for one in descriptions(data) for element in one.iter(TYPE)]
    found += [(one.get(f"{RDF}resource") or one.text or "").strip() for one in elements]
    return [value for value in found if value]


def agents(data: bytes) -> list[str]:
    events = [one for history in ElementTree.fromstring(data).iter(HISTORY) for one in history]
    return [item.get(AGENT) or "?" for event in events for item in event]


def test_a_picture_without_xmp_gets_a_packet():
    made = claim(None, MODEL)
    assert made.startswith(b"<?xpacket begin=")
    assert types(made) == [ENHANCED]
    assert agents(made) == [f"superres {MODEL}"]


FORMS = {
    "attribute": lambda value: packet("", f"e:DigitalSourceType={quoteattr(value)}"),
    "quotes": lambda value: packet("<dc:x>a>b</dc:x>", f"dc:y='>' e:DigitalSourceType='{value}'"),
    "element": lambda value: packet(f"<e:DigitalSourceType> {value}\n</e:DigitalSourceType>"),
    "resource": lambda value: packet(f'<e:DigitalSourceType rdf:resource="{value}" />'),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_type_of_a_photograph_is_replaced_and_that_of_a_generated_one_stays(form):
    for captured in CAPTURED:
        assert types(claim(FORMS[form](captured), MODEL)) == [ENHANCED]
    for other in (GENERATED, ENHANCED, "http://example.org/of-tomorrow"):
        made = claim(FORMS[form](other), MODEL)
        assert types(made) == [other]
        assert agents(made) == [f"superres {MODEL}"]


def test_a_history_goes_on():
    event = '<rdf:li stEvt:action="saved" stEvt:softwareAgent="An Editor"/>'
    given_packet = packet(f"<xmpMM:History><rdf:Seq>{event}</rdf:Seq></xmpMM:History>")
    once = claim(given_packet, MODEL)
    twice = claim(once, "edsr-lite-x2@ba9876543210")
    assert agents(once) == ["An Editor", f"superres {MODEL}"]
    assert agents(twice) == [*agents(once), "superres edsr-lite-x2@ba9876543210"]
    assert types(twice) == [ENHANCED]
    for empty in ("<xmpMM:History/>", "<xmpMM:History><rdf:Seq/></xmpMM:History>"):
        assert f"superres {MODEL}" in agents(claim(packet(empty), MODEL))


def test_the_new_description_is_about_the_same_subject():
    made = claim(packet("<dc:title>A cup</dc:title>", about="uuid:&amp;1"), MODEL)
    assert {one.get(f"{RDF}about") for one in descriptions(made)} == {"uuid:&1"}


def test_packets_in_utf_16_and_without_content_are_read():
    wide = packet("<dc:title>Tasse für Käthe</dc:title>").decode().encode("utf-16")
    assert "Tasse für Käthe" in claim(wide, MODEL).decode()
    assert types(claim(f'<r:RDF xmlns:r="{RDF[1:-1]}"/>'.encode(), MODEL)) == [ENHANCED]
    padded = packet("") + bytes(5)
    assert types(claim(padded, MODEL)) == [ENHANCED]


texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=20)
names = st.sampled_from(["title", "creator", "DigitalSourceType", "x-y", "History"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(names, texts), max_size=6), st.dictionaries(names, texts, max_size=3))
def test_all_else_in_a_packet_stays(elements, attributes):
    """Also what has such a name in another namespace."""
    inside = "".join(f"<dc:{name}>{escape(text)}</dc:{name}><!-- > -->" for name, text in elements)
    given_packet = packet(inside, " ".join(f"dc:{n}={quoteattr(t)}" for n, t in attributes.items()))
    made = claim(given_packet, MODEL)
    new = re.sub(rb"<rdf:Description xmlns:rdf=.*?</rdf:Description>", b"", made, count=1)
    assert new == given_packet
    before, after = (
        Counter((element.tag, element.text) for element in ElementTree.fromstring(data).iter())
        for data in (given_packet, made)
    )
    assert before <= after
    assert types(made) == [ENHANCED]


@pytest.mark.parametrize(
    "damaged",
    [
        b"", b"x", b"<rdf", b"\xff\xfe\x00", b"<a/>", packet("<dc:title>"),
        b'<!DOCTYPE a [<!ENTITY b "b">]>' + packet(""), packet("\x01"), packet("&b;"),
        packet("").replace(b"begin", b"\xff\xff"),
    ],
)  # fmt: skip
def test_what_is_no_packet_is_refused(damaged):
    with pytest.raises(DamagedXmp):
        claim(damaged, MODEL)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 900), st.integers(0, 60))
def test_a_damaged_packet_is_refused_or_read_and_nothing_else(noise, at, cut):
    whole = FORMS["quotes"](CAMERA)
    damaged = whole[:at] + noise + whole[at + cut :]
    try:
        made = claim(damaged, MODEL)
    except DamagedXmp:
        return
    expat.ParserCreate().Parse(made, True)
    assert f'stEvt:softwareAgent="superres {MODEL}"'.encode() in made
