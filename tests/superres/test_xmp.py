"""XMP keeps what is true of the picture, and loses what its file alone made true."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superres import xmp
from superres.xmp import DamagedXmp, filtered

NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpGImg": "http://ns.adobe.com/xap/1.0/g/img/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "shop": "http://example.com/our-own-shop/",
}
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
TRUE = [
    ("dc", "title", "A cup"),
    ("tiff", "Make", "Maker"),
    ("exif", "FocalLength", "50/1"),
    ("exif", "ExposureTime", "1/60"),
    ("xmp", "CreatorTool", "a > b"),
    ("photoshop", "City", "Ulm"),
    ("GPano", "ProjectionType", "equirectangular"),
    ("shop", "FocalLength", "50"),
    ("shop", "AssetNumber", "7"),
]
STALE = [
    ("tiff", "Orientation", "6"),
    ("tiff", "BitsPerSample", "8"),
    ("exif", "PixelXDimension", "9"),
    ("exif", "SubjectArea", "1 2 3 4"),
    ("dc", "format", "image/jpeg"),
    ("photoshop", "ICCProfile", "Display P3"),
    ("xmpNote", "HasExtendedXMP", "ABC"),
    ("hdrgm", "Version", "1.0"),
    ("hdrgm", "AnythingNew", "1"),
    ("GCamera", "MotionPhoto", "1"),
    ("GCamera", "MicroVideoOffset", "4120"),
    ("GDepth", "Data", "abc"),
    ("GPano", "FullPanoWidthPixels", "4000"),
    ("HDRGainMap", "HDRGainMapVersion", "65536"),
    ("mwg-rs", "Regions", ""),
    ("shop", "ImageWidth", "100"),
    ("shop", "ThumbnailOffset", "100"),
    ("shop", "VideoLength", "100"),
]
PROPERTIES = st.lists(st.sampled_from(TRUE + STALE), unique=True)


def escaped(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;")


def packet(attributes, elements=(), inside: str = "") -> bytes:
    declared = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    written = " ".join(
        f"{prefix}:{name} = '{escaped(value)}'" for prefix, name, value in attributes
    )
    children = "".join(
        f"<{prefix}:{name}>{escaped(value)}</{prefix}:{name}>" for prefix, name, value in elements
    )
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" {declared} {written}>'
        f"{children}{inside}</rdf:Description></rdf:RDF></x:xmpmeta>{' ' * 20}<?xpacket end='w'?>"
    ).encode()


def properties(text: bytes) -> set[tuple[str, str, str]]:
    """What an independent reader finds."""
    prefixes = {uri: prefix for prefix, uri in NAMESPACES.items()}
    found = set()
    for element in ET.fromstring(text).iter():
        pairs = [*element.attrib.items(), (element.tag, element.text or "")]
        for name, value in pairs:
            uri, _, local = name.removeprefix("{").rpartition("}")
            if uri in prefixes:
                found.add((prefixes[uri], local, value))
    return found


@settings(max_examples=40, deadline=None)
@given(PROPERTIES, PROPERTIES)
def test_what_is_true_stays_and_what_is_stale_goes_as_attribute_or_element(attributes, elements):
    elements = [one for one in elements if one not in attributes]
    given_ = packet(attributes, elements)
    left = filtered(given_)
    true = {one for one in (*attributes, *elements) if one in TRUE}
    if left.packet is None:
        assert not true
    else:
        assert properties(left.packet) == true
        assert left.packet.count(b"xpacket") == 2


def test_a_packet_without_anything_stale_stays_to_the_byte():
    assert filtered(b"<x/>").packet == b"<x/>"
    plain = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="me">\n</x:xmpmeta>\0\0'
    assert filtered(plain).packet == plain


def test_structures_go_whole_and_say_what_else_was_in_the_file():
    inside = (
        "<Container:Directory><rdf:Seq><rdf:li rdf:parseType='Resource'>"
        "<Container:Item Item:Mime='video/mp4' Item:Length='4120'/></rdf:li>"
        "<rdf:li><Container:Item><Item:Semantic>GainMap</Item:Semantic></Container:Item></rdf:li>"
        "</rdf:Seq></Container:Directory><xmp:Thumbnails><rdf:Alt><rdf:li xmpGImg:image='abc'/>"
        "</rdf:Alt></xmp:Thumbnails><dc:title>A <!-- > --> cup</dc:title>"
    )
    left = filtered(packet([("GCamera", "MotionPhoto", "0")], inside=inside))
    assert left.claims == ("HDR gain map", "video")
    assert left.stale
    assert left.packet is not None
    assert properties(left.packet) == {("dc", "title", "A  cup")}
    assert not any(one in left.packet for one in (b"Container", b"GCamera", b"xmpGImg", b"hdrgm"))


def test_a_motion_photo_that_is_switched_off_claims_no_video():
    assert filtered(packet([("GCamera", "MotionPhoto", "0")])).claims == ()
    assert filtered(packet([], [("GCamera", "MotionPhoto", "1")])).claims == ("video",)


def test_utf_16_is_read():
    text = packet([("dc", "title", "A cup"), ("tiff", "Orientation", "6")]).decode()
    left = filtered(text.encode("utf-16")).packet
    assert left is not None
    assert properties(left) == {("dc", "title", "A cup")}


LAUGHS = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x",
        b"<x/>!",
        b'<x tiff:Orientation="6"/>',
        b"<x>\xff</x>",
        b"\xff\xfe<\xd8",
        LAUGHS,
        b"<a>" * 101 + b"</a>" * 101,
        b"<a>" + b"<b/>" * 2_000 + b"</a>",
        b"<a " + b" ".join(b'xmlns:n%d="u"' % n for n in range(300)) + b"/>",
    ],
    ids=range(10),
)
def test_what_nobody_can_read_is_damaged(text, monkeypatch):
    monkeypatch.setattr(xmp, "MAX_ELEMENTS", 2_000)
    with pytest.raises(DamagedXmp):
        filtered(text)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 2000), st.integers(0, 40))
def test_damaged_packets_raise_nothing_else(noise, at, length):
    whole = packet(TRUE[:3] + STALE[:3], TRUE[3:5] + STALE[8:11])
    try:
        left = filtered(whole[:at] + noise + whole[at + length :])
    except DamagedXmp:
        return
    if left.packet is not None:
        assert filtered(left.packet).packet == left.packet
