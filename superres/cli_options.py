"""Options that commands share. Those of an enhancement are :mod:`superres.parameters`'s."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from superres import load_model
from superres.automatic import SizedEnhancer
from superres.codecs import OUTPUT_SUFFIXES, OutputFormat
from superres.engines.base import PrecisionChoice, Runtime
from superres.enhancer import Enhancer
from superres.errors import BadRequest
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard
from superres.models.registry import AUTO, all_cards, choose
from superres.models.selection import candidates
from superres.parameters import Fallback, Icc, Metadata, Parameters, in_plain_text
from superres.paths import AnyPath
from superres.sizing import Fit


def _option(name: str, **more: Any) -> Any:
    return typer.Option(f"--{name}", help=in_plain_text(name), show_default=False, **more)


Scale = Annotated[float | None, _option("scale")]
Width = Annotated[int | None, _option("width")]
Height = Annotated[int | None, _option("height")]
Fitting = Annotated[Fit | None, _option("fit")]
Model = Annotated[str, _option("model", envvar="SUPERRES_DEFAULT_MODEL")]
Format = Annotated[OutputFormat | None, _option("format")]
Quality = Annotated[int, typer.Option("--quality", help=in_plain_text("quality"))]
IccProfile = Annotated[Icc, typer.Option("--icc", help=in_plain_text("icc"))]
MetadataKept = Annotated[Metadata, typer.Option("--metadata", help=in_plain_text("metadata"))]
Ensemble = Annotated[bool, _option("ensemble")]
Proof = Annotated[bool, _option("proof")]
FallbackKind = Annotated[Fallback, typer.Option("--fallback", help=in_plain_text("fallback"))]

Provenance = Annotated[
    bool,
    typer.Option(
        "--provenance/--no-provenance",
        envvar="SUPERRES_PROVENANCE",
        help="Tell in the XMP of results that a model enhanced them, and which.",
    ),
]
ComparedScale = Annotated[float, typer.Option(help="Over 1, to 4; fractions too.")]
ComparedModel = Annotated[
    str,
    typer.Option(help="A family (srcnn) or a name (srcnn-x3); auto is its model for clean ones."),
]
Models = Annotated[Path, typer.Option(envvar="SUPERRES_MODELS", help="The models folder.")]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(envvar="SUPERRES_PRECISION", help="Of the network; auto takes the faster."),
]
Device = Annotated[str, typer.Option(envvar="SUPERRES_DEVICE", help="auto, cpu or gpu:N.")]
RuntimeName = Annotated[
    Runtime,
    typer.Option(
        "--runtime",
        envvar="SUPERRES_RUNTIME",
        help="What runs the network; auto takes the fastest that is installed.",
    ),
]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", min=1, help="Most pixels of a picture that is read.")
]


def read_parameters(**given: Any) -> Parameters:
    """The parameters of an enhancement, checked as far as no picture is needed.

    Raises:
        BadRequest: one is out of range, or two contradict each other.
    """
    if given.get("fallback") == "always":
        given |= {"fallback": "none", "model": BICUBIC.name}
    Parameters.model_construct(**given).target.check()
    try:
        return Parameters(**given)
    except ValidationError as error:
        reasons = (
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}, not {one['input']!r}"
            for one in error.errors()
        )
        raise BadRequest("; ".join(reasons)) from None


def cards_for(cards: tuple[ModelCard, ...], model: str, scale: float) -> tuple[ModelCard, ...]:
    """The model, or those that ``auto`` chooses between; first that for clean pictures."""
    return candidates(cards, scale).cards if model == AUTO else (choose(cards, model, scale),)


def load_sized(
    model: str,
    models: Path,
    precision: PrecisionChoice,
    device: str,
    runtime: Runtime,
    ensemble: bool,
) -> SizedEnhancer:
    """What chooses a model of the folder for each picture; none is loaded yet."""
    load = partial(load_one, models, precision, device, runtime, ensemble)
    return SizedEnhancer(all_cards(models), model, load)


def load_one(
    models: Path,
    precision: PrecisionChoice,
    device: str,
    runtime: Runtime,
    ensemble: bool,
    card: ModelCard,
) -> Enhancer:
    """Load a model."""
    with Console(stderr=True).status("loading the model"):
        enhancer = load_model(
            card.name, models=models, precision=precision, device=device, runtime=runtime
        )
    return enhancer.ensembled() if ensemble else enhancer


def format_of(output: AnyPath) -> OutputFormat:
    """The format that a file's suffix names.

    Raises:
        BadRequest: it names none that is written.
    """
    suffix = output.suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise BadRequest(
            f"a result ends in {', '.join(sorted(OUTPUT_SUFFIXES))}, not in {suffix!r}"
        )
    return OUTPUT_SUFFIXES[suffix]
