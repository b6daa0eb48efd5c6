"""Held-out pairs, clean and degraded, for choosing the best weights of a run.

The degraded pictures use a fixed list of degradations in turn, with fixed random seeds.
"""

from typing import Any, Literal

import numpy as np

from superres.arrays import RgbU8
from superres.resample import degrade, upsample
from training.dataset import Pair, crop_to_multiple
from training.degrade import Degradations, shrink_and_degrade
from training.prepared import PreparedSet

SEED = 20
"""Seed of the degradations."""


def _through(*steps: dict[str, Any], shrink: str = "bicubic") -> Degradations:
    return Degradations.model_validate({"shrink_filters": (shrink,), "steps": steps})


def _jpeg(quality: int, *, chroma_420: bool = True, shifted: bool = False) -> dict[str, Any]:
    return {
        "kind": "jpeg",
        "quality": (quality, quality),
        "chroma_420": float(chroma_420),
        "shifted": float(shifted),
    }


def _blur(low: float, high: float | None = None) -> dict[str, Any]:
    """An isotropic blur; with two deviations, each axis draws its own between them."""
    anisotropic = float(high is not None)
    return {"kind": "blur", "sigma": (low, high or low), "anisotropic": anisotropic}


def _noise(sigma: float, *, grey: bool = False) -> dict[str, Any]:
    return {"kind": "noise", "sigma": (sigma, sigma), "grey": float(grey)}


def _sharpen(sigma: float, amount: float) -> dict[str, Any]:
    return {"kind": "sharpen", "sigma": (sigma, sigma), "amount": (amount, amount)}


def _resize(factor: float, shrink: str, enlarge: str) -> dict[str, Any]:
    return {
        "kind": "resize",
        "factor": (factor, factor),
        "shrink_filters": (shrink,),
        "enlarge_filters": (enlarge,),
    }


HELD_OUT: dict[str, Degradations] = {
    "jpeg 90 4:4:4": _through(_jpeg(90, chroma_420=False)),
    "jpeg 75": _through(_jpeg(75)),
    "jpeg 50": _through(_jpeg(50)),
    "jpeg 30": _through(_jpeg(30)),
    "webp 60": _through({"kind": "webp", "quality": (60, 60)}),
    "area, jpeg 85": _through(_jpeg(85), shrink="area"),
    "blur 0.8, jpeg 60": _through(_blur(0.8), _jpeg(60)),
    "blur 0.4 to 1.6 by axis, jpeg 90": _through(_blur(0.4, 1.6), _jpeg(90)),
    "noise 5, jpeg 80": _through(_noise(5), _jpeg(80)),
    "shot noise 600, grey, sharpen, jpeg 75": _through(
        {"kind": "shot_noise", "photons": (600, 600), "grey": 1.0}, _sharpen(1.0, 0.6), _jpeg(75)
    ),
    "sharpen, jpeg 80, shifted jpeg 60": _through(
        _sharpen(0.8, 0.8), _jpeg(80, shifted=True), _jpeg(60)
    ),
    "resize by 0.7 and back, jpeg 70 4:4:4": _through(
        _resize(0.7, "bilinear", "bicubic"), _jpeg(70, chroma_420=False)
    ),
}
"""Degradations of held-out pictures by name, used in turn."""


def held_out_pairs(
    pictures: PreparedSet,
    *,
    scale: int,
    halo: int,
    domain: Literal["hr", "lr"],
    degraded: bool,
    count: int | None = None,
) -> list[Pair]:
    """Make a pair of each whole picture.

    Args:
        pictures: the held-out set.
        scale: the factor to shrink by, after a crop to a multiple of it.
        halo: replicated pixels to add at each side of the plane.
        domain: the input of the network.
        degraded: whether to apply the entries of :data:`HELD_OUT` in turn, picture by picture.
        count: number of pictures, spread evenly over the set; all by default.

    Raises:
        ValueError: the set has fewer pictures than ``count``.
    """
    count = len(pictures) if count is None else count
    if count > len(pictures):
        raise ValueError(f"{pictures.folder} has {len(pictures)} pictures, not {count}")
    return [
        _pair(pictures[index], index, scale, halo, domain, degraded)
        for index in (number * len(pictures) // count for number in range(count))
    ]


def _pair(
    picture: RgbU8, index: int, scale: int, halo: int, domain: Literal["hr", "lr"], degraded: bool
) -> Pair:
    hr = crop_to_multiple(np.asarray(picture), scale)
    size = (hr.shape[0] // scale, hr.shape[1] // scale)
    if degraded:
        degradations = list(HELD_OUT.values())[index % len(HELD_OUT)]
        lr = shrink_and_degrade(hr, size, degradations, np.random.default_rng([SEED, index]))
    else:
        lr = degrade(hr, size)
    plane = lr if domain == "lr" else upsample(lr, hr.shape[:2])
    padded = np.pad(plane, ((halo, halo), (halo, halo), (0, 0)), mode="edge")
    return Pair(plane=padded, hr=hr, halo=halo)
