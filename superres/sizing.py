"""The size of a result: by a scale, or by a width, a height or both, and how the picture fits.

Pure arithmetic on sizes; :mod:`superres.enhancer` makes what is resolved here.
"""

from dataclasses import dataclass
from typing import Literal

from superres.arrays import Size
from superres.codecs.limits import MAX_OUTPUT_PIXELS
from superres.errors import BadRequest, ImageTooLarge
from superres.models.registry import DEFAULT_SCALE
from superres.resample import Box, scaled_size

SMALLEST_SCALE = 1.0
LARGEST_SCALE = 4.0

SHRUNK = "only shrunk, by bicubic: the size asked for is less than the picture's"
"""Note on a result for which no model has work to do."""

Fit = Literal["inside", "cover", "exact"]


@dataclass(frozen=True)
class Target:
    """The size that is asked for: a scale, or a width, a height or both, in pixels."""

    scale: float | None = None
    """Output side over input side, 1 to 4; None for :data:`DEFAULT_SCALE`, or with a width or a
    height."""
    width: int | None = None
    height: int | None = None
    """If only one of the two is given, the other follows from the picture's aspect."""
    fit: Fit | None = None
    """With both: ``inside`` keeps the aspect within the box, ``cover`` keeps it and fills the box,
    cropped centred, and ``exact`` ignores it. None is ``inside``."""

    @property
    def label(self) -> str:
        """What is asked for, in short: ``x3``, ``800x600 cover``, ``width 800``."""
        if self.width and self.height:
            return f"{self.width}x{self.height} {self.fit or 'inside'}"
        if self.width or self.height:
            return f"width {self.width}" if self.width else f"height {self.height}"
        return f"x{self.scale or DEFAULT_SCALE:g}"

    def check(self) -> None:
        """Return if the parts agree with each other and with the limits; no picture is needed.

        Raises:
            BadRequest: they do not.
        """
        sides = {"width": self.width, "height": self.height}
        given = {name: side for name, side in sides.items() if side is not None}
        for name, side in given.items():
            if side < 1:
                raise BadRequest(f"{name} is at least 1 px, not {side}")
            if self.scale is not None:
                raise BadRequest(
                    f"scale and {name} are two ways to say the size, and exclude each other; "
                    f"scale is {self.scale:g} and {name} {side}: leave one of them out"
                )
        if self.fit is not None and len(given) < 2:
            raise BadRequest(
                f"fit={self.fit} says how a picture fits a width and a height, and needs both; "
                f"given is {', '.join(given) or 'neither'}: name both, or leave fit out"
            )
        if self.scale is not None and not SMALLEST_SCALE <= self.scale <= LARGEST_SCALE:
            raise BadRequest(
                f"scale is {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}, not {self.scale:g}"
            )


@dataclass(frozen=True)
class Sizing:
    """How one picture gets its size."""

    size: Size
    """(height, width) of the result, px."""
    scale: float
    """The smallest scale that reaches the result on both axes; under 1, nothing is enlarged."""
    box: Box | None = None
    """The part of the picture that the result shows, px; None for all of it."""

    @property
    def shrinks(self) -> bool:
        """Whether the picture only gets smaller: by bicubic, since no model has work to do."""
        return self.scale < 1


def resolve(size: Size, target: float | Target, *, max_pixels: int = MAX_OUTPUT_PIXELS) -> Sizing:
    """How a picture of that size gets what is asked for.

    By a scale, a side becomes floor(side * scale + 0.5). By a width and a height, at most 4 times
    the picture; it may also be less than the picture.

    Args:
        size: of the picture.
        target: what is asked for; a number is a scale.
        max_pixels: most output pixels that are made.

    Raises:
        BadRequest: the target contradicts itself, or is over 4 times the picture.
        ImageTooLarge: more than ``max_pixels`` output pixels.

    >>> resolve((100, 200), 2).size
    (200, 400)
    >>> resolve((100, 200), Target(width=500)).size
    (250, 500)
    >>> resolve((100, 200), Target(width=300, height=300)).size
    (150, 300)
    >>> resolve((100, 200), Target(width=300, height=300, fit="cover"))
    Sizing(size=(300, 300), scale=3.0, box=(50.0, 0.0, 150.0, 100.0))
    >>> resolve((100, 200), Target(width=300, height=300, fit="exact")).size
    (300, 300)
    """
    target = target if isinstance(target, Target) else Target(scale=target)
    target.check()
    if target.width is None and target.height is None:
        scale = DEFAULT_SCALE if target.scale is None else target.scale
        sizing = Sizing(scaled_size(size, scale), scale)
    else:
        sizing = _within(size, target)
    (height, width), (given_height, given_width) = sizing.size, size
    if sizing.scale > LARGEST_SCALE:
        raise BadRequest(
            f"a picture is enlarged at most {LARGEST_SCALE:g} times; {target.label} of this one of "
            f"{given_width}x{given_height} is {sizing.scale:.4g} times: ask for a width of at most "
            f"{LARGEST_SCALE * given_width:.0f} and a height of at most "
            f"{LARGEST_SCALE * given_height:.0f}"
        )
    if height * width > max_pixels:
        raise ImageTooLarge(
            f"at most {max_pixels:,} output pixels are made; {given_width}x{given_height} to "
            f"{target.label} would have {height * width:,} ({width}x{height})"
        )
    return sizing


def _within(size: Size, target: Target) -> Sizing:
    """By width or height; sides are compared as integers, so that none is off by rounding."""
    height, width = size
    if target.height is None or (
        target.width is not None
        and target.fit in (None, "inside")
        and target.width * height <= target.height * width
    ):
        wide = target.width or 1
        return Sizing((_of_aspect(height, wide, width), wide), wide / width)
    if target.width is None or target.fit in (None, "inside"):
        high = target.height
        return Sizing((high, _of_aspect(width, high, height)), high / height)
    made = target.height, target.width
    scale = max(made[0] / height, made[1] / width)
    if target.fit == "exact" or made[0] * width == made[1] * height:
        return Sizing(made, scale)
    shown_height = min(height, made[0] * width / made[1])
    shown_width = min(width, made[1] * height / made[0])
    top, left = (height - shown_height) / 2, (width - shown_width) / 2
    return Sizing(made, scale, (left, top, left + shown_width, top + shown_height))


def _of_aspect(side: int, made: int, of: int) -> int:
    """``side`` times ``made / of``, rounded half up, at least 1."""
    return max(1, (2 * side * made + of) // (2 * of))
