"""ICC profiles for colours that a file describes by numbers, as ``cICP``, ``gAMA`` and ``nclx`` do.

What is written is version 4 with parametric curves (ICC.1:2022), the same bytes for the same
colours.
"""

import struct
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from superres.errors import UnsupportedFormat

Chromaticity: TypeAlias = tuple[float, float]
"""x and y of CIE 1931."""
Transfer: TypeAlias = tuple[float, ...]
"""How stored values become light: (g,) for X^g; or (g, a, b, c, d) for (a X + b)^g from d on, and
c X below (parametricCurveType 0 and 3)."""

D65: Chromaticity = (0.3127, 0.3290)
_DCI: Chromaticity = (0.314, 0.351)
_C: Chromaticity = (0.310, 0.316)
SRGB_PRIMARIES: tuple[Chromaticity, ...] = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
SRGB_TRANSFER: Transfer = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)

_UNSPECIFIED = 2
_SRGB_PRIMARIES, _SRGB_TRANSFER = 1, 13
_SMPTE_C: tuple[Chromaticity, ...] = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_P3: tuple[Chromaticity, ...] = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_PRIMARIES: dict[int, tuple[str, tuple[Chromaticity, ...], Chromaticity]] = {
    1: ("BT.709", SRGB_PRIMARIES, D65),
    4: ("BT.470 M", ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), _C),
    5: ("BT.470 BG", ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), D65),
    6: ("BT.601", _SMPTE_C, D65),
    7: ("SMPTE 240M", _SMPTE_C, D65),
    8: ("film", ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049)), _C),
    9: ("BT.2020", ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65),
    11: ("DCI-P3", _P3, _DCI),
    12: ("Display P3", _P3, D65),
    22: ("EBU Tech 3213", ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077)), D65),
}
"""ColourPrimaries of ITU-T H.273 -> name, red, green and blue, white."""
_BT1886: Transfer = (2.4,)
"""How displays show what cameras code by BT.709, BT.601 and BT.2020, in browsers too; not the
inverse of those, which is how cameras see."""
_TRANSFERS: dict[int, Transfer] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), _BT1886),
    4: (2.2,),
    5: (2.8,),
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913),
    8: (1.0,),
    13: SRGB_TRANSFER,
    17: (2.6, (52.37 / 48) ** (1 / 2.6), 0, 0, 0),
}
"""TransferCharacteristics of H.273, from 0 to 1."""
_NOT_READ = {16: "PQ (HDR)", 18: "HLG (HDR)", 9: "logarithmic", 10: "logarithmic"}

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_HEADER_BYTES = 128


def profile_of(
    primaries: Sequence[Chromaticity],
    white: Chromaticity,
    transfer: Transfer,
    name: str = "RGB",
) -> bytes:
    """Build the profile of RGB with these red, green and blue, this white and this transfer.

    Raises:
        ValueError: no colours are mixed of these.
    """
    curve = _curve(transfer)
    return _matrix_profile(primaries, white, curve, name)


def grey_profile_of(transfer: Transfer, name: str = "grey") -> bytes:
    """Build the profile of grey with this transfer."""
    return _written(b"GRAY", name, {b"kTRC": _curve(transfer)})


def profile_of_cicp(primaries: int, transfer: int, *, grey: bool = False) -> bytes | None:
    """Build the profile of these code points of ITU-T H.273; None for sRGB, which needs none.

    What is unspecified (2) is taken to be as in sRGB.

    Raises:
        UnsupportedFormat: HDR (PQ, HLG), or code points that are not known.
    """
    primaries = _SRGB_PRIMARIES if primaries == _UNSPECIFIED else primaries
    transfer = _SRGB_TRANSFER if transfer == _UNSPECIFIED else transfer
    if transfer not in _TRANSFERS:
        found = _NOT_READ.get(transfer, f"number {transfer} of ITU-T H.273")
        raise UnsupportedFormat(
            f"pictures of standard dynamic range are read; the transfer function of this one is "
            f"{found}: export it as sRGB or Display P3"
        )
    if primaries not in _PRIMARIES:
        raise UnsupportedFormat(
            f"the primaries that are read are those of ITU-T H.273; this picture has number "
            f"{primaries}: export it as sRGB or Display P3"
        )
    name, colours, white = _PRIMARIES[primaries]
    if transfer == _SRGB_TRANSFER and (grey or primaries == _SRGB_PRIMARIES):
        return None
    if transfer != _SRGB_TRANSFER:
        name += f", transfer {transfer}"
    curve = _TRANSFERS[transfer]
    return grey_profile_of(curve, name) if grey else profile_of(colours, white, curve, name)


def colour_space(profile: bytes) -> str | None:
    """The colour space that a profile is for, as ``RGB`` or ``GRAY``; None if it is damaged."""
    if len(profile) < _HEADER_BYTES + 4 or profile[36:40] != b"acsp":
        return None
    if profile[12:16] not in (b"mntr", b"scnr", b"prtr", b"spac"):
        return None
    return profile[16:20].decode("latin-1").strip()


def rgb_profile_of_grey(profile: bytes) -> bytes | None:
    """Build the RGB profile by which equal channels look as they do by this one of grey.

    Returns:
        None if the profile has no curve.
    """
    count = int.from_bytes(profile[_HEADER_BYTES : _HEADER_BYTES + 4], "big")
    table = profile[_HEADER_BYTES + 4 :][: 12 * min(count, 100)]
    for signature, offset, length in struct.iter_unpack(">4sII", table[: len(table) // 12 * 12]):
        curve = profile[offset : offset + length]
        if signature == b"kTRC" and len(curve) == length and curve[:4] in (b"curv", b"para"):
            return _matrix_profile(SRGB_PRIMARIES, D65, curve, "grey as RGB")
    return None


def _matrix_profile(
    primaries: Sequence[Chromaticity], white: Chromaticity, curve: bytes, name: str
) -> bytes:
    """The profile of three primaries with one curve."""
    if min(y for _, y in (*primaries, white)) <= 0:
        raise ValueError(f"chromaticities have a y above 0, not {primaries} and {white}")
    colours = np.array([_xyz(one) for one in primaries]).T
    try:
        matrix = colours * np.linalg.solve(colours, _xyz(white))
    except np.linalg.LinAlgError as error:
        raise ValueError(f"{primaries} are on one line") from error
    gains = (_BRADFORD @ _D50) / (_BRADFORD @ _xyz(white))
    adaptation = np.linalg.inv(_BRADFORD) @ (gains[:, None] * _BRADFORD)
    red, green, blue = (_number_block(b"XYZ ", column) for column in (adaptation @ matrix).T)
    tags = {b"chad": _number_block(b"sf32", adaptation.ravel())}
    tags |= {b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue}
    return _written(b"RGB ", name, tags | {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve})


def _xyz(colour: Chromaticity) -> np.ndarray:
    x, y = colour
    return np.array([x / y, 1, (1 - x - y) / y])


def _curve(transfer: Transfer) -> bytes:
    kind = {1: 0, 5: 3}[len(transfer)]
    return b"para" + struct.pack(">IHH", 0, kind, 0) + _fixed(transfer)


def _number_block(kind: bytes, numbers: Sequence[float] | np.ndarray) -> bytes:
    return kind + bytes(4) + _fixed(numbers)


def _fixed(numbers: Sequence[float] | np.ndarray) -> bytes:
    """Numbers as s15Fixed16Number.

    Raises:
        ValueError: one does not fit.
    """
    if not all(abs(number) < 32_767 for number in numbers):
        raise ValueError(f"a profile cannot hold {list(numbers)}")
    integers = [round(number * 65_536) for number in numbers]
    return struct.pack(f">{len(integers)}i", *integers)


def _text(text: str) -> bytes:
    utf_16 = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(utf_16), 28) + utf_16


def _written(space: bytes, name: str, tags: dict[bytes, bytes]) -> bytes:
    """A profile of a display; tags with the same contents share them."""
    tags = {
        b"desc": _text(name),
        b"cprt": _text("CC0"),
        b"wtpt": _number_block(b"XYZ ", _D50),
    } | tags
    at = _HEADER_BYTES + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    table, data = struct.pack(">I", len(tags)), b""
    for signature, block in tags.items():
        if block not in places:
            places[block] = at + len(data)
            data += block + bytes(-len(block) % 4)
        table += struct.pack(">4sII", signature, places[block], len(block))
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    header = struct.pack(">I4sI4s4s4s", at + len(data), b"", 0x04300000, b"mntr", space, b"XYZ ")
    header += date + b"acsp" + bytes(28) + _fixed(_D50) + bytes(48)
    return header + table + data
