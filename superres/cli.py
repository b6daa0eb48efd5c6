"""The ``superres`` command: enhance, compare, models, health; in a clone, also serve and key."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from superres import clone
from superres.cli_enhance import enhance_command
from superres.cli_options import (
    ComparedModel,
    ComparedScale,
    Device,
    Ensemble,
    MaxPixels,
    Models,
    Precision,
    RuntimeName,
    cards_for,
    format_of,
    load_one,
)
from superres.codecs import MAX_INPUT_PIXELS, Picture, decode, encode
from superres.errors import NotReady, SuperresError
from superres.health import DEFAULT_URL, why_not_ready
from superres.models.registry import COMPARED_MODEL, DEFAULT_MODELS, DEFAULT_SCALE, all_cards
from superres.paths import write_whole

_SERVICE = "app.commands"
cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
cli.command("enhance")(enhance_command)


@cli.command("compare")
def compare_command(
    picture: Annotated[Path, typer.Argument(help="The ground truth.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to put the captioned strip.")
    ] = None,
    scale: ComparedScale = DEFAULT_SCALE,
    model: ComparedModel = COMPARED_MODEL,
    ensemble: Ensemble = False,
    max_pixels: MaxPixels = MAX_INPUT_PIXELS,
    models: Models = DEFAULT_MODELS,
    precision: Precision = "auto",
    device: Device = "auto",
    runtime: RuntimeName = "auto",
) -> None:
    """Shrink a picture, bring it back by bicubic and by the model, and score both."""
    from superres.evaluation.proof import compare, to_truth
    from superres.evaluation.strip import draw_strip

    truth = to_truth(decode(picture.read_bytes(), max_pixels=max_pixels))
    output_format = None if output is None else format_of(output)
    card = cards_for(all_cards(models), model, scale)[0]
    enhancer = load_one(models, precision, device, runtime, ensemble, card)
    comparison = compare(enhancer, truth, scale)
    method = f"{model}+ensemble" if ensemble else model
    table = Table(title=f"{picture.name} at x{scale:g}", title_justify="left")
    for column in ("method", "PSNR Y, dB", "SSIM Y", "PSNR RGB, dB", "SSIM RGB"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, scores in (("bicubic", comparison.bicubic_scores), (method, comparison.sr_scores)):
        table.add_row(
            name,
            f"{scores.psnr_y:.2f}",
            f"{scores.ssim_y:.4f}",
            f"{scores.psnr_rgb:.2f}",
            f"{scores.ssim_rgb:.4f}",
        )
    console = Console()
    console.print(table)
    console.print(f"gain over bicubic: {comparison.gain_db:+.2f} dB", highlight=False)
    if output is not None and output_format is not None:
        strip = Picture(draw_strip(comparison, method))
        write_whole(output, encode(strip, output_format))
        console.print(f"strip: {output}", highlight=False, markup=False)


@cli.command("models")
def models_command(models: Models = DEFAULT_MODELS) -> None:
    """List the models, with what each scored beside bicubic."""
    table = Table("name", "family", "parameters", "set", "bicubic, dB", "model, dB", "wins")
    for card in all_cards(models):
        about = (card.name, card.family, f"{card.parameters:,}")
        if not card.scores:
            table.add_row(*about, "not scored")
        for i, one in enumerate(card.scores):
            table.add_row(
                *(about if i == 0 else ("", "", "")),
                f"{one.dataset} x{one.scale:g}",
                f"{one.bicubic.psnr_y:.2f}",
                f"{one.model.psnr_y:.2f}",
                f"{one.wins_psnr_y}/{one.pictures}",
            )
    Console().print(table)


@cli.command("health")
def health_command(
    url: Annotated[str, typer.Option(help="Of the service.")] = DEFAULT_URL,
) -> None:
    """Exit with 0 if a service is ready, else with 1 and the reason: for container checks."""
    if reason := why_not_ready(url):
        raise NotReady(reason)
    print("ready")


def main() -> None:
    """Run the command; a foreseen error is one line and exit status 1."""
    try:
        cli()
    except (SuperresError, OSError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        raise SystemExit(1) from None


def _add_service_commands() -> None:
    """Add the commands of ``app``; where there is no ``app``, commands that say so."""
    if clone.has(_SERVICE):
        cli.add_typer(clone.part(_SERVICE, "superres").commands)
        return
    for name in ("serve", "key"):
        _add_missing_command(name)


def _add_missing_command(name: str) -> None:
    anything = {"allow_extra_args": True, "ignore_unknown_options": True}

    @cli.command(name, help="Only in a clone of the project.", context_settings=anything)
    def missing_command() -> None:
        clone.part(_SERVICE, f"superres {name}")


_add_service_commands()
