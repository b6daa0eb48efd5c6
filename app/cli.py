"""The ``superres`` command: serve, enhance, compare, models, health."""

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from superres import load_model
from superres.arrays import to_integer
from superres.codecs import (
    DEFAULT_QUALITY,
    INPUT_SUFFIXES,
    SUFFIXES,
    OutputFormat,
    Picture,
    decode,
    default_output_format,
    encode,
)
from superres.engine import PrecisionChoice
from superres.enhancer import Enhancer, output_size
from superres.errors import BadRequest, NotReady, SuperresError, Unavailable
from superres.registry import DEFAULT_MODEL, DEFAULT_MODELS, read_cards

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Scale = Annotated[float, typer.Option(help="1 to 4; fractions too.")]
Model = Annotated[str, typer.Option(help="A family (srcnn) or a name (srcnn-x3).")]
Models = Annotated[Path, typer.Option(envvar="SUPERRES_MODELS", help="The models folder.")]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(envvar="SUPERRES_PRECISION", help="Of the network; auto takes the faster."),
]
Device = Annotated[str, typer.Option(envvar="SUPERRES_DEVICE", help="auto, cpu or gpu:N.")]


@cli.command("enhance")
def enhance_command(
    inputs: Annotated[list[Path], typer.Argument(help="Pictures, and folders of pictures.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder; for one picture, also a file.")
    ],
    scale: Scale = 3,
    model: Model = DEFAULT_MODEL,
    output_format: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="Default: as OUTPUT ends, else as the input is, else png."),
    ] = None,
    quality: Annotated[int, typer.Option(help="1 to 100, for JPEG and WebP.")] = DEFAULT_QUALITY,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    models: Models = DEFAULT_MODELS,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Enlarge pictures. A bad one does not stop the rest, and is listed at the end."""
    stderr = Console(stderr=True)
    if output_format is None and output.suffix.lower() in INPUT_SUFFIXES and not output.is_dir():
        output_format = _format_of(output)
    files = _files(inputs)
    targets = _Targets(files, inputs, output, force)
    output_size((1, 1), scale)  # a wrong scale is one error, not one a file
    enhancer = _load(model, scale, models, precision, device)
    failed: list[tuple[Path, str]] = []
    with _progress(stderr) as progress:
        total = progress.add_task("pictures", total=len(files))
        for file in files:
            task = progress.add_task(file.name, total=None)
            try:
                target = _enhance_file(
                    enhancer,
                    file,
                    targets,
                    scale,
                    output_format,
                    quality,
                    partial(_show, progress, task),
                )
                progress.console.print(f"{file} -> {target}", highlight=False, markup=False)
            except (SuperresError, OSError) as error:
                failed.append((file, str(error)))
            progress.remove_task(task)
            progress.advance(total)
    if failed:
        stderr.print(f"{len(failed)} of {len(files)} failed:", style="red", highlight=False)
        for file, reason in failed:
            stderr.print(f"  {file}: {reason}", markup=False, highlight=False)
        raise typer.Exit(1)


@cli.command("compare")
def compare_command(
    picture: Annotated[Path, typer.Argument(help="The ground truth.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to put the captioned strip.")
    ] = None,
    scale: Scale = 3,
    model: Model = DEFAULT_MODEL,
    models: Models = DEFAULT_MODELS,
    precision: Precision = "auto",
    device: Device = "auto",
) -> None:
    """Shrink a picture, bring it back by bicubic and by the model, and score both."""
    from superres.proof import compare
    from superres.strip import draw_strip

    truth = to_integer(decode(picture.read_bytes()).rgb, "uint8")
    output_format = None if output is None else _format_of(output)
    enhancer = _load(model, scale, models, precision, device)
    comparison = compare(enhancer, truth, scale)
    table = Table(title=f"{picture.name} at x{scale:g}", title_justify="left")
    for column in ("method", "PSNR Y, dB", "SSIM Y", "PSNR RGB, dB", "SSIM RGB"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, scores in (("bicubic", comparison.bicubic_scores), (model, comparison.sr_scores)):
        table.add_row(
            method,
            f"{scores.psnr_y:.2f}",
            f"{scores.ssim_y:.4f}",
            f"{scores.psnr_rgb:.2f}",
            f"{scores.ssim_rgb:.4f}",
        )
    console = Console()
    console.print(table)
    console.print(f"gain over bicubic: {comparison.gain_db:+.2f} dB", highlight=False)
    if output is not None and output_format is not None:
        strip = Picture(draw_strip(comparison, model))
        _write_whole(output, encode(strip, output_format))
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
) -> None:
    """Serve the HTTP API. Settings are environment variables, SUPERRES_*: see the README."""
    import uvicorn

    from app.main import create_app

    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
    uvicorn.run(create_app(), host=host, port=port, timeout_graceful_shutdown=30)


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
        raise NotReady(answer.json()["detail"])
    print("ready")


def main() -> None:
    """Run the command; a foreseen error is one line and exit status 1."""
    try:
        cli()
    except (SuperresError, OSError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        raise SystemExit(1) from None


def _load(
    model: str, scale: float, models: Path, precision: PrecisionChoice, device: str
) -> Enhancer:
    with Console(stderr=True).status("loading the model"):
        return load_model(model, scale=scale, models=models, precision=precision, device=device)


def _files(inputs: list[Path]) -> list[Path]:
    """The pictures that the arguments name, folders opened, in order."""
    files = []
    for given in inputs:
        if not given.is_dir():
            files.append(given)
            continue
        found = sorted(p for p in given.iterdir() if p.suffix.lower() in INPUT_SUFFIXES)
        if not found:
            raise FileNotFoundError(f"no pictures in {given}")
        files += found
    return files


class _Targets:
    """Where each result goes; no two to the same place, none over a file without leave."""

    def __init__(self, files: list[Path], inputs: list[Path], output: Path, force: bool) -> None:
        self._is_file = (
            files == inputs
            and len(files) == 1
            and not output.is_dir()
            and output.suffix.lower() in INPUT_SUFFIXES
        )
        self._output = output
        self._force = force
        self._taken: dict[Path, Path] = {}

    def of(self, file: Path, output_format: OutputFormat) -> Path:
        if self._is_file:
            target = self._output
        else:
            target = self._output / f"{file.stem}{SUFFIXES[output_format]}"
        if target in self._taken:
            raise BadRequest(f"{target} is already the result of {self._taken[target]}")
        self._taken[target] = file
        if target.exists() and (not self._force or target.samefile(file)):
            advice = "an input is never overwritten" if target.samefile(file) else "use --force"
            raise BadRequest(f"{target} is there already: {advice}")
        return target


def _enhance_file(
    enhancer: Enhancer,
    file: Path,
    targets: _Targets,
    scale: float,
    output_format: OutputFormat | None,
    quality: int,
    progress: Callable[[int, int], None],
) -> Path:
    picture = decode(file.read_bytes())
    chosen = output_format or default_output_format(picture)
    target = targets.of(file, chosen)
    enhanced = enhancer.enhance(picture, scale, progress=progress)
    _write_whole(target, encode(enhanced, chosen, quality))
    return target


def _write_whole(target: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _format_of(output: Path) -> OutputFormat:
    suffix = output.suffix.lower()
    formats: dict[str, OutputFormat] = {suffix: name for name, suffix in SUFFIXES.items()}
    formats |= {".jpeg": "jpeg", ".tiff": "tiff"}
    if suffix not in formats:
        raise BadRequest(f"a result ends in {', '.join(sorted(formats))}, not in {suffix!r}")
    return formats[suffix]


def _show(progress: Progress, task: TaskID, done: int, tiles: int) -> None:
    progress.update(task, completed=done, total=tiles)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
