"""The ``superres`` command: enhance, compare, models, health; in a clone, also serve and key."""

import time
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from superres import clone, load_model
from superres.arrays import to_integer
from superres.automatic import AutomaticEnhancer
from superres.batch.ledger import Ledger, Options
from superres.batch.plan import is_file, plan
from superres.batch.runner import BatchRunner, Outcome, Status
from superres.codecs import (
    DEFAULT_QUALITY,
    MAX_INPUT_PIXELS,
    OUTPUT_SUFFIXES,
    OutputFormat,
    Picture,
    decode,
    encode,
    in_words,
)
from superres.engines.base import PrecisionChoice
from superres.enhancer import Enhancer, output_size
from superres.errors import BadRequest, NotReady, SuperresError
from superres.health import DEFAULT_URL, why_not_ready
from superres.models.card import ModelCard
from superres.models.registry import (
    AUTO,
    COMPARED_MODEL,
    DEFAULT_MODEL,
    DEFAULT_MODELS,
    DEFAULT_SCALE,
    all_cards,
    choose,
)
from superres.models.selection import candidates, rules_label
from superres.paths import AnyPath, to_path, write_whole

_SERVICE = "app.commands"
cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Scale = Annotated[float, typer.Option(help="1 to 4; fractions too.")]
Model = Annotated[
    str,
    typer.Option(
        envvar="SUPERRES_DEFAULT_MODEL",
        help="auto chooses by what each file shows; else a family (srcnn), a name (srcnn-x3), "
        "or bicubic.",
    ),
]
ComparedModel = Annotated[
    str,
    typer.Option(help="A family (srcnn) or a name (srcnn-x3); auto is its model for clean ones."),
]
Ensemble = Annotated[
    bool, typer.Option("--ensemble", help="Average eight views: eight times the work.")
]
Models = Annotated[Path, typer.Option(envvar="SUPERRES_MODELS", help="The models folder.")]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(envvar="SUPERRES_PRECISION", help="Of the network; auto takes the faster."),
]
Device = Annotated[str, typer.Option(envvar="SUPERRES_DEVICE", help="auto, cpu or gpu:N.")]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", min=1, help="Most pixels of a picture that is read.")
]
OnCluster = Annotated[
    bool,
    typer.Option("--cluster", help="On the Ray cluster of RAY_ADDRESS, else of this machine."),
]


@cli.command("enhance")
def enhance_command(
    inputs: Annotated[
        list[str], typer.Argument(help="Pictures, and folders of pictures; also s3:// and gs://.")
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="A folder; for one picture, also a file.")
    ],
    scale: Scale = DEFAULT_SCALE,
    model: Model = DEFAULT_MODEL,
    output_format: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="Default: as OUTPUT ends, else as the input is, else png."),
    ] = None,
    quality: Annotated[
        int, typer.Option(help=f"1 to 100, for {in_words('and', lossy=True)}.")
    ] = DEFAULT_QUALITY,
    ensemble: Ensemble = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders in folders, too.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what was made of the same, the same way.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decode and check everything; make nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    max_pixels: MaxPixels = MAX_INPUT_PIXELS,
    cluster: OnCluster = False,
    models: Models = DEFAULT_MODELS,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Enlarge pictures. A bad one does not stop the rest, and is listed at the end."""
    sources, target = [to_path(text) for text in inputs], to_path(output)
    if cluster:  # whose processes are not in this one's folder
        sources, target = [source.absolute() for source in sources], target.absolute()
        models = models.absolute()
    to_file = is_file(sources, target)
    if output_format is None and to_file:
        output_format = _format_of(target)
    jobs = plan(sources, target, output_format, recursive=recursive)
    output_size((1, 1), scale)  # a wrong scale is one error, not one a file
    used = _cards(model, scale, models)
    labels = [f"{card.label(ensemble=ensemble)}@{card.short_hash}" for card in used]
    if model == AUTO:
        labels.append(rules_label())
    options = Options(" ".join(labels), scale, quality)
    load = partial(_load, model, scale, models, precision, device, ensemble)
    if cluster:
        if dry_run or to_file:
            raise BadRequest("--cluster is for making pictures, into a folder")
        runner = clone.part(_SERVICE, "superres enhance --cluster").cluster_batch_runner()
        run = runner(load, options, target, resume=resume, force=force, max_pixels=max_pixels).run
    else:
        ledger = None if to_file else Ledger(target)
        enhancer = None if dry_run and model != AUTO else load()
        run = BatchRunner(
            enhancer,
            options,
            ledger,
            resume=resume,
            force=force,
            dry_run=dry_run,
            max_pixels=max_pixels,
        ).run
    stderr = Console(stderr=True)
    outcomes = []
    started = time.monotonic()
    with _progress(stderr) as progress:
        task = progress.add_task("", total=sum(job.pixels for job in jobs))
        progress.update(task, description=f"0 of {len(jobs)}")
        for outcome in run(jobs, lambda job, part: progress.advance(task, part * job.pixels)):
            outcomes.append(outcome)
            progress.update(task, description=f"{len(outcomes)} of {len(jobs)}")
            if outcome.status in ("made", "to be made"):
                height, width = outcome.size
                progress.console.print(
                    f"{outcome.job.source} -> {outcome.job.target} ({width}x{height})"
                    + (f": {outcome.note}" if outcome.note else ""),
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
    if dry_run or not to_file:
        stderr.print(_summary(outcomes, time.monotonic() - started))
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        stderr.print(f"{len(failed)} of {len(jobs)} failed:", style="red", highlight=False)
        for outcome in sorted(failed, key=lambda outcome: str(outcome.job.source)):
            stderr.print(
                f"  {outcome.job.source}: {outcome.reason}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        raise typer.Exit(1)


@cli.command("compare")
def compare_command(
    picture: Annotated[Path, typer.Argument(help="The ground truth.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to put the captioned strip.")
    ] = None,
    scale: Scale = DEFAULT_SCALE,
    model: ComparedModel = COMPARED_MODEL,
    ensemble: Ensemble = False,
    max_pixels: MaxPixels = MAX_INPUT_PIXELS,
    models: Models = DEFAULT_MODELS,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Shrink a picture, bring it back by bicubic and by the model, and score both."""
    from superres.evaluation.proof import compare
    from superres.evaluation.strip import draw_strip

    truth = to_integer(decode(picture.read_bytes(), max_pixels=max_pixels).rgb, "uint8")
    output_format = None if output is None else _format_of(output)
    card = _cards(model, scale, models)[0]
    enhancer = _load_one(scale, models, precision, device, ensemble, card)
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


def _cards(model: str, scale: float, models: Path) -> tuple[ModelCard, ...]:
    """The model, or those that ``auto`` chooses between; first that for clean pictures."""
    cards = all_cards(models)
    return candidates(cards, scale).cards if model == AUTO else (choose(cards, model, scale),)


def _load(
    model: str,
    scale: float,
    models: Path,
    precision: PrecisionChoice,
    device: str,
    ensemble: bool,
) -> Enhancer | AutomaticEnhancer:
    load = partial(_load_one, scale, models, precision, device, ensemble)
    cards = all_cards(models)
    if model == AUTO:
        return AutomaticEnhancer(candidates(cards, scale), load)
    return load(choose(cards, model, scale))


def _load_one(
    scale: float,
    models: Path,
    precision: PrecisionChoice,
    device: str,
    ensemble: bool,
    card: ModelCard,
) -> Enhancer:
    with Console(stderr=True).status("loading the model"):
        enhancer = load_model(
            card.name, scale=scale, models=models, precision=precision, device=device
        )
    return enhancer.ensembled() if ensemble else enhancer


def _format_of(output: AnyPath) -> OutputFormat:
    suffix = output.suffix.lower()
    if suffix not in OUTPUT_SUFFIXES:
        raise BadRequest(
            f"a result ends in {', '.join(sorted(OUTPUT_SUFFIXES))}, not in {suffix!r}"
        )
    return OUTPUT_SUFFIXES[suffix]


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _summary(outcomes: list[Outcome], seconds: float) -> Table:
    """How many pictures, and how many pixels, came to what end."""
    table = Table()
    for column in ("", "pictures", "megapixels"):
        table.add_column(column, justify="right" if column else "left")
    for status in get_args(Status):
        these = [outcome for outcome in outcomes if outcome.status == status]
        if these:
            pixels = sum(outcome.size[0] * outcome.size[1] for outcome in these)
            table.add_row(status, str(len(these)), f"{pixels / 1e6:.1f}" if pixels else "")
    table.add_section()
    table.add_row("in all", str(len(outcomes)), f"in {seconds:.1f} s")
    return table


_add_service_commands()
