"""The ``superres`` command: serve, key, enhance, compare, models, health."""

import ipaddress
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn, get_args

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.batch.ledger import Ledger, Options
from app.batch.plan import is_file, plan
from app.batch.runner import BatchRunner, Outcome, Status
from app.paths import AnyPath, to_path, write_whole
from superres import load_model
from superres.arrays import to_integer
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
from superres.errors import BadRequest, NotReady, SuperresError, Unavailable
from superres.models.registry import (
    DEFAULT_MODEL,
    DEFAULT_MODELS,
    DEFAULT_SCALE,
    choose,
    read_cards,
)

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Scale = Annotated[float, typer.Option(help="1 to 4; fractions too.")]
Model = Annotated[str, typer.Option(help="A family (srcnn) or a name (srcnn-x3).")]
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
    card = choose(read_cards(models), model, scale)
    options = Options(f"{card.label(ensemble=ensemble)}@{card.short_hash}", scale, quality)
    load = partial(_load, card.name, scale, models, precision, device, ensemble)
    if cluster:
        if dry_run or to_file:
            raise BadRequest("--cluster is for making pictures, into a folder")
        with _cluster_needed():
            from app.cluster.batch import ClusterBatchRunner
        run = ClusterBatchRunner(
            load, options, target, resume=resume, force=force, max_pixels=max_pixels
        ).run
    else:
        ledger = None if to_file else Ledger(target)
        enhancer = None if dry_run else load()
        run = BatchRunner(
            enhancer, options, ledger, resume=resume, force=force, max_pixels=max_pixels
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
                    f"{outcome.job.source} -> {outcome.job.target} ({width}x{height})",
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
    model: Model = DEFAULT_MODEL,
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
    enhancer = _load(model, scale, models, precision, device, ensemble)
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
    table = Table()
    for column in ("name", "family", "parameters", "set", "bicubic, dB", "model, dB", "wins"):
        table.add_column(column)
    for card in read_cards(models):
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


@cli.command("serve")
def serve_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 8000,
    without_keys: Annotated[
        bool,
        typer.Option(
            "--without-keys", help="Listen beyond this machine though everybody may then call."
        ),
    ] = False,
    cluster: OnCluster = False,
) -> None:
    """Serve the HTTP API. Settings are environment variables, SUPERRES_*: see the README."""
    from app.access import read_keys
    from app.drain import serve
    from app.logs import configure
    from app.main import create_app
    from app.settings import Settings

    settings = Settings()
    keys = read_keys(settings.api_keys.get_secret_value(), settings.rate_limit)
    if not (keys or without_keys or settings.without_keys or _is_loopback(host)):
        raise BadRequest(
            f"on {host}, others than this machine could call, and there are no keys: set "
            "SUPERRES_API_KEYS (`superres key NAME` makes one), or, if something else decides "
            "who may call, say --without-keys or set SUPERRES_WITHOUT_KEYS=true"
        )
    if cluster:
        with _cluster_needed():
            from app.cluster.serve import serve_on_cluster
        serve_on_cluster(host, port)
        return
    app = create_app(settings)
    configure(settings.log_format)
    serve(app, app.state.drain, host=host, port=port)


@cli.command("key")
def key_command(
    name: Annotated[str, typer.Argument(help="Whose it is: in logs, and as owner of jobs.")],
    admin: Annotated[bool, typer.Option("--admin", help="Good for /admin, too.")] = False,
    limit: Annotated[
        str | None, typer.Option(help="As 120/minute. Default: SUPERRES_RATE_LIMIT.")
    ] = None,
) -> None:
    """Make an API key. It is shown once: the service knows only its hash."""
    from app.access import make_key

    key, entry = make_key(name, admin=admin, limit=limit)
    print(f"The key, for {name} alone; it is not shown again:\n  {key}")
    print(f"For SUPERRES_API_KEYS, beside the others, separated by commas:\n  {entry}")


@cli.command("health")
def health_command(
    url: Annotated[str, typer.Option(help="Of the service.")] = "http://127.0.0.1:8000",
) -> None:
    """Exit with 0 if a service is ready, else with 1 and the reason: for container checks."""
    import httpx

    try:
        answer = httpx.get(f"{url}/readyz", timeout=5)
    except httpx.HTTPError as error:
        raise Unavailable(f"no answer from {url}: {error}") from error
    if answer.status_code != 200:
        with suppress(ValueError, KeyError, TypeError):  # a proxy says it in words of its own
            raise NotReady(answer.json()["detail"])
        raise NotReady(f"{url} answers {answer.status_code}")
    print("ready")


def main() -> None:
    """Run the command; a foreseen error is one line and exit status 1."""
    try:
        cli()
    except (SuperresError, OSError) as error:
        _fail(str(error))
    except ValidationError as error:
        if error.title != "Settings":
            raise
        # Without what was set: it may be a secret.
        messages = (
            f"SUPERRES_{one['loc'][0]}".upper() + f": {one['msg']}" for one in error.errors()
        )
        _fail("; ".join(messages))


def _fail(reason: str) -> NoReturn:
    Console(stderr=True).print(f"error: {reason}", style="red", markup=False, highlight=False)
    raise SystemExit(1) from None


@contextmanager
def _cluster_needed() -> Iterator[None]:
    """Around the import of what needs Ray."""
    try:
        yield
    except ImportError as error:
        raise BadRequest(
            f"--cluster needs the extra cluster ({error}): make install EXTRA=cluster"
        ) from error


def _load(
    model: str,
    scale: float,
    models: Path,
    precision: PrecisionChoice,
    device: str,
    ensemble: bool,
) -> Enhancer:
    with Console(stderr=True).status("loading the model"):
        enhancer = load_model(model, scale=scale, models=models, precision=precision, device=device)
    return enhancer.ensembled() if ensemble else enhancer


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
