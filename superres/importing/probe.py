"""What a network does, found by calling it: range, scale, alignment, halo."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from superres.arrays import TilesF32
from superres.errors import BadRequest
from superres.models.card import Geometry, Tiling
from superres.tiling import MULTIPLE

Mode = Literal["exact", "overlap", "whole"]
Network = Callable[[TilesF32], np.ndarray]
"""From [1, h, w, 3] to [1, h * scale, w * scale, 3], float32."""
SIDE = 48
"""Side of the pictures by which scale and alignment are found, px; a multiple of MULTIPLE."""
REACHES = (24, 48, 96, 160)
"""Halos that are tried: the picture has twice that, and room for what changes, px."""
MOST_ERROR_LEVELS = 1.0
"""Levels of 255 by which answers may depend on what is beyond the halo with ``overlap``."""
LARGEST_TILE = 512
LARGEST_SCALE = 4
WAY_OUT = (
    "--mode overlap tiles it if that influence fades, and --mode whole serves it on pictures of up "
    f"to {LARGEST_TILE**2:,} pixels"
)
PICTURES = 3
"""Random pictures in which the halo is looked for: a ReLU may hide a pixel in one of them."""


@dataclass(frozen=True)
class Findings:
    """What tiling needs to know of a network."""

    scale: int
    multiple: int
    """Number that sides and origins of tiles must be multiples of, px."""
    halo: int
    tiling: Tiling | None
    """None where it is tiled exactly."""

    @property
    def geometry(self) -> Geometry:
        """For the card."""
        return Geometry(
            domain="lr",
            scale=self.scale,
            halo=self.halo,
            largest_tile=LARGEST_TILE,
            tiling=self.tiling,
        )


def probe(network: Network, mode: Mode = "exact") -> Findings:
    """Find scale, alignment and halo of a network.

    Args:
        network: the network.
        mode: how it is to be tiled; with ``overlap``, the halo is the first of REACHES beyond which
            pixels change answers by at most MOST_ERROR_LEVELS.

    Raises:
        BadRequest: it fails, its answers have another size than a whole multiple of the input's, or
            they depend on too much of the picture to be tiled in this way.
    """
    scale = _scale(network)
    if mode == "whole":
        multiple = _multiple(network, scale, moving=False)
        return Findings(scale, multiple, 0, Tiling(mode="whole", multiple=multiple))
    multiple = _multiple(network, scale, most_levels=0.01 if mode == "exact" else MOST_ERROR_LEVELS)
    if mode == "exact":
        return Findings(scale, multiple, _halo(network, scale, multiple), None)
    for reach in REACHES:
        halo = -(-reach // multiple) * multiple
        error = _error_beyond(network, scale, halo)
        if error <= MOST_ERROR_LEVELS:
            tiling = Tiling(mode="overlap", multiple=multiple, error_levels=round(error + 0.005, 2))
            return Findings(scale, multiple, halo, tiling)
    raise BadRequest(
        f"pixels {REACHES[-1]} px away change the answers by {error:.2f} levels, "
        f"{MOST_ERROR_LEVELS:g} at most can be hidden: {WAY_OUT}"
    )


def distance(network: Network) -> float:
    """How far the answers are from a picture of smooth steps, the pixels of which they enlarge."""
    ramp = np.linspace(0.1, 0.9, SIDE, dtype=np.float32)
    picture = np.broadcast_to(ramp[None, :, None, None], (1, SIDE, SIDE, 3))
    try:
        answer = network(np.ascontiguousarray(picture))
    except Exception as error:
        raise BadRequest(f"the network fails on a picture of {SIDE}x{SIDE}: {error}") from error
    rows = answer.mean(axis=(0, 2, 3))
    expected = np.interp(np.linspace(0, 1, len(rows)), np.linspace(0, 1, SIDE), ramp)
    inside = slice(len(rows) // 4, -len(rows) // 4)
    return float(np.abs(rows - expected)[inside].mean())


def _scale(network: Network) -> int:
    shape = _random(network, SIDE, SIDE).shape
    scale = shape[1] // SIDE
    if shape != (1, SIDE * scale, SIDE * scale, 3) or not 1 <= scale <= LARGEST_SCALE:
        raise BadRequest(
            f"a picture of {SIDE}x{SIDE} comes back as {list(shape)}: whole scales of 1 to "
            f"{LARGEST_SCALE} can be served"
        )
    return scale


def _multiple(
    network: Network, scale: int, *, moving: bool = True, most_levels: float = 0.01
) -> int:
    """The smallest step of sides that the network takes, and at which shifts move its answers.

    Without ``moving``, the smallest that it takes.
    """
    for multiple in (1, 2, 4, 8, MULTIPLE):
        side = SIDE + multiple
        try:
            if _random(network, side, SIDE + 3 * multiple).shape[1] != side * scale:
                continue
        except Exception:  # noqa: S112 (sides of another step may do)
            continue
        if not moving or _moves_along(network, scale, multiple, most_levels):
            return multiple
    raise BadRequest(
        f"no step of up to {MULTIPLE} px moves the answers with the picture: the network cannot be "
        f"tiled, because it depends on the whole picture or on another grid; {WAY_OUT}"
    )


def _moves_along(network: Network, scale: int, step: int, most_levels: float) -> bool:
    """Whether a picture that is moved by a step is answered by answers that are moved."""
    side = 4 * SIDE
    picture = np.random.default_rng(1).random((1, side + step, side + step, 3), np.float32)
    large, part = network(picture), network(np.ascontiguousarray(picture[:, step:, step:]))
    middle = slice(side // 2 * scale, (side // 2 + step) * scale)
    moved = slice(middle.start + step * scale, middle.stop + step * scale)
    difference = np.abs(large[:, moved, moved] - part[:, middle, middle])
    return bool(difference.max() * 255 < most_levels)


def _error_beyond(network: Network, scale: int, halo: int) -> float:
    """Most levels by which answers change with what is beyond the halo: noise, black or white."""
    core = MULTIPLE
    seen = core + 2 * halo
    noise = np.random.default_rng(0).random((1, 3 * seen, 3 * seen, 3), np.float32)
    window = np.s_[:, seen : 2 * seen, seen : 2 * seen]
    inner = slice(halo * scale, (halo + core) * scale)
    outer = slice((seen + halo) * scale, (seen + halo + core) * scale)
    alone = network(np.ascontiguousarray(noise[window]))[:, inner, inner]
    errors = []
    for around in (noise, np.zeros_like(noise), np.ones_like(noise)):
        around[window] = noise[window]
        errors.append(np.abs(network(around)[:, outer, outer] - alone).max())
    return float(max(errors)) * 255


def _halo(network: Network, scale: int, multiple: int) -> int:
    """The distance at which a changed pixel still changes the answers, a multiple of the step."""
    for reach in REACHES:
        halo = max(_reach(network, scale, multiple, reach, number) for number in range(PICTURES))
        if halo < reach:
            return -(-halo // multiple) * multiple
    raise BadRequest(
        f"answers depend on pixels {REACHES[-1]} px away and farther: the network cannot be tiled "
        f"exactly (it may use the whole picture, as global pooling and attention do); {WAY_OUT}"
    )


def _reach(network: Network, scale: int, multiple: int, reach: int, number: int) -> int:
    """Distance from a changed square of one step to the farthest answer that changes, px."""
    middle = -(-reach // MULTIPLE) * MULTIPLE
    side = 2 * middle + MULTIPLE
    random = np.random.default_rng(number)
    picture = random.random((1, side, side, 3), np.float32)
    changed = picture.copy()
    square = slice(middle, middle + multiple)
    changed[:, square, square] = random.random((1, multiple, multiple, 3), np.float32)
    touched = (network(picture) != network(changed)).any(axis=(0, 3))
    rows, columns = (np.flatnonzero(touched.any(axis=axis)) // scale for axis in (1, 0))
    if not len(rows):
        return 0
    before = middle - min(rows[0], columns[0])
    behind = max(rows[-1], columns[-1]) - (middle + multiple - 1)
    return int(max(before, behind, 0))


def _random(network: Network, height: int, width: int) -> np.ndarray:
    picture = np.random.default_rng(0).random((1, height, width, 3), np.float32)
    return network(picture)
