"""The parameters of an enhancement: the one definition that all ways to ask for one read.

The query and the form of ``POST /enhance``, its OpenAPI, jobs, the clients, the command and the
page. A test compares them.
"""

from typing import Any, Literal, TypedDict, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

from superres.codecs import DEFAULT_QUALITY, OutputFormat, in_words
from superres.models.registry import DEFAULT_SCALE
from superres.sizing import LARGEST_SCALE, SMALLEST_SCALE, Fit, Target

Icc = Literal["keep", "srgb"]
Metadata = Literal["keep", "strip"]
Fallback = Literal["none", "auto", "always"]

LARGEST_SIDE = 10**9
"""Of a width or a height that is asked for; no picture has it."""


class Parameters(BaseModel):
    """How a picture is enhanced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float | None = Field(
        None,
        ge=SMALLEST_SCALE,
        le=LARGEST_SCALE,
        description=f"Output side over input side; fractions too. Default: {DEFAULT_SCALE}, unless "
        "`width` or `height` is given.",
    )
    width: int | None = Field(
        None,
        ge=1,
        le=LARGEST_SIDE,
        description="Pixels, instead of `scale`; at most 4 times the picture's. Without `height`, "
        "that follows. A size that is less than the picture is made by bicubic.",
    )
    height: int | None = Field(
        None, ge=1, le=LARGEST_SIDE, description="Likewise; without `width`, that follows."
    )
    fit: Fit | None = Field(
        None,
        description="With `width` and `height`: `inside` keeps the aspect within the box, `cover` "
        "fills the box and crops centred, `exact` ignores the aspect. Default: `inside`.",
    )
    model: str | None = Field(
        None,
        description="`auto`, which chooses by what the file shows; a family (`srcnn`), a name "
        "(`srcnn-x3`) or `bicubic`. Default: `SUPERRES_DEFAULT_MODEL`, which is `auto`.",
    )
    format: OutputFormat | None = Field(
        None,
        description="Of the result. Default: what `Accept` asks for, or as the output file is "
        "named; else the picture's own format, else png.",
    )
    quality: int = Field(
        DEFAULT_QUALITY, ge=1, le=100, description=f"For {in_words('and', lossy=True)}."
    )
    icc: Icc = Field("keep", description="Keep the colour profile, or convert the colours to sRGB.")
    metadata: Metadata = Field(
        "keep", description="EXIF and XMP; orientation is applied and DPI kept either way."
    )
    ensemble: bool = Field(
        False,
        description="Average the model's answers to eight views of the picture, turned and "
        "mirrored: slightly better, in eight times the time.",
    )
    proof: bool = Field(
        False,
        description="Estimate the gain on this picture: it is shrunk by the scale (1.5 and above), "
        "brought back by bicubic and by the model, and both are scored against it.",
    )
    fallback: Fallback = Field(
        "none",
        description="`auto`: with a proof, and bicubic's answer where it favours bicubic. "
        "`always` is deprecated: it means `model=bicubic`.",
    )

    @property
    def target(self) -> Target:
        """The size that is asked for."""
        return Target(self.scale, self.width, self.height, self.fit)

    @property
    def wants_proof(self) -> bool:
        """Whether the gain over bicubic is estimated."""
        return self.proof or self.fallback == "auto"


class Given(TypedDict, total=False):
    """The same, but for ``scale``, as keywords of a call, each of which may be left out."""

    width: int | None
    height: int | None
    fit: Fit | None
    model: str | None
    format: OutputFormat | None
    quality: int
    icc: Icc
    metadata: Metadata
    ensemble: bool
    proof: bool
    fallback: Fallback


def bounds(name: str) -> dict[str, Any]:
    """The smallest and the largest value of a parameter that is a number: ``min`` and ``max``."""
    known = {"ge": "min", "le": "max"}
    return {
        word: getattr(limit, attribute)
        for limit in Parameters.model_fields[name].metadata
        for attribute, word in known.items()
        if hasattr(limit, attribute)
    }


def choices(name: str) -> tuple[str, ...]:
    """The values of a parameter that has a few, without None; empty for any other."""
    annotation = Parameters.model_fields[name].annotation
    kinds = (annotation, *get_args(annotation))
    return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


def in_plain_text(name: str) -> str:
    """The description of a parameter, without marks."""
    return (Parameters.model_fields[name].description or "").replace("`", "")
