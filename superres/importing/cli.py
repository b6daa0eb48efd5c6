"""The ``superres-models`` command: import networks from elsewhere."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from superres.arrays import to_integer
from superres.cli_options import Models
from superres.codecs import decode
from superres.errors import BadRequest, SuperresError
from superres.importing.probe import Mode
from superres.models.registry import DEFAULT_MODELS

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@cli.callback()
def group() -> None:
    """Import networks from elsewhere."""


@cli.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="An ONNX file; or a PyTorch file, with spandrel.")],
    name: Annotated[str, typer.Option(help="Name of the model, such as esrgan-x4.")],
    licence: Annotated[str, typer.Option(help="Licence of the network, for the card.")],
    source: Annotated[str, typer.Option(help="Where it comes from, for the card.")],
    family: Annotated[str | None, typer.Option(help="Its family; the name, if none.")] = None,
    scale: Annotated[
        int | None, typer.Option(help="Refuse a network of another scale.", min=1, max=4)
    ] = None,
    bgr: Annotated[bool, typer.Option("--bgr", help="Its channels are blue, green, red.")] = False,
    mode: Annotated[
        Mode,
        typer.Option(
            help="exact: tiled as though whole, to the bit; overlap: with a small error at the "
            "seams; whole: small pictures alone, in one piece."
        ),
    ] = "exact",
    picture: Annotated[
        list[Path] | None,
        typer.Option(help="A picture to score it on beside bicubic; repeat the option for more."),
    ] = None,
    models: Models = DEFAULT_MODELS,
) -> None:
    """Make a served model of a network in ONNX or PyTorch.

    Layout, range of values, type, scale, alignment and halo are found by calling it. A network that
    cannot be tiled in the mode that is asked for is refused.
    """
    try:
        from superres.importing.model import import_model
    except ModuleNotFoundError as error:
        raise BadRequest(
            f"importing needs more packages ({error}): pip install onnx onnxruntime"
        ) from error
    card = import_model(
        file,
        models,
        name=name,
        family=family or name,
        licence=licence,
        source=source,
        scale=scale,
        colours="bgr" if bgr else "rgb",
        mode=mode,
        pictures=[to_integer(decode(one.read_bytes()).rgb, "uint8") for one in picture or ()],
    )
    console = Console()
    geometry, form = card.geometry, (card.legacy or {})["form"]
    multiple = (card.legacy or {})["tiling"]["multiple"]
    how = {
        "exact": f"tiled exactly on steps of {multiple} px",
        "overlap": f"tiled on steps of {multiple} px with up to "
        f"{geometry.tiling.error_levels if geometry.tiling else 0:g} levels of 255 at the seams",
        "whole": f"pictures of up to {geometry.largest_tile**2:,} pixels in one piece",
    }[mode]
    console.print(
        f"{models / name}: x{geometry.scale}, halo {geometry.halo} px, {how}; {form['layout']}, "
        f"{form['channels']} channels, {form['dtype']}, white is {form['largest']}",
        highlight=False,
    )
    for scores in card.scores:
        console.print(
            f"{scores.model.psnr_y:.2f} dB of luma, bicubic {scores.bicubic.psnr_y:.2f}; better "
            f"on {scores.wins_psnr_y} of {scores.pictures} pictures",
            highlight=False,
        )


def main() -> None:
    """Run the command; a foreseen error is one line and exit status 1."""
    try:
        cli()
    except (SuperresError, OSError, ValueError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        raise SystemExit(1) from None
