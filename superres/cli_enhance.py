"""The command ``superres enhance``."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from superres import clone
from superres.automatic import SizedEnhancer
from superres.batch.ledger import Ledger, Options
from superres.batch.plan import is_file, plan
from superres.batch.runner import BatchRunner
from superres.cli_options import (
    Device,
    Ensemble,
    FallbackKind,
    Fitting,
    Format,
    Height,
    IccProfile,
    MaxPixels,
    MetadataKept,
    Model,
    Models,
    Precision,
    Proof,
    Provenance,
    Quality,
    RuntimeName,
    Scale,
    Width,
    cards_for,
    format_of,
    load_sized,
    read_parameters,
)
from superres.cli_report import print_failures, print_skipped, show_progress, summary
from superres.cli_streams import STREAM, enhance_stream
from superres.cli_watch import enhance_watched
from superres.codecs import DEFAULT_QUALITY, MAX_INPUT_PIXELS
from superres.errors import BadRequest
from superres.models.bicubic import BICUBIC
from superres.models.card import ModelCard
from superres.models.registry import AUTO, DEFAULT_MODEL, DEFAULT_MODELS, DEFAULT_SCALE, all_cards
from superres.models.selection import rules_label
from superres.parameters import Parameters
from superres.paths import to_path

SERVICE = "app.commands"
SCALES = (1, 2, 3, 4)
"""Scales at which each model of a family, and each candidate of ``auto``, is chosen."""


def enhance_command(
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="A folder; for one picture, also a file, or - (standard output)."
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures, and folders of pictures; also s3:// and gs://; - is standard input."
        ),
    ] = None,
    scale: Scale = None,
    width: Width = None,
    height: Height = None,
    fit: Fitting = None,
    model: Model = DEFAULT_MODEL,
    output_format: Format = None,
    quality: Quality = DEFAULT_QUALITY,
    icc: IccProfile = "keep",
    metadata: MetadataKept = "keep",
    ensemble: Ensemble = False,
    proof: Proof = False,
    fallback: FallbackKind = "none",
    provenance: Provenance = True,
    watch: Annotated[
        str | None,
        typer.Option(
            "--watch", metavar="DIR", help="Enhance what is put into a folder, until Ctrl-C."
        ),
    ] = None,
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
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="On the Ray cluster of RAY_ADDRESS, else of this machine."),
    ] = False,
    models: Models = DEFAULT_MODELS,
    precision: Precision = "auto",
    device: Device = "auto",
    runtime: RuntimeName = "auto",
) -> None:
    """Enlarge pictures. A bad one does not stop the rest, and is listed at the end."""
    asked = read_parameters(
        scale=scale,
        width=width,
        height=height,
        fit=fit,
        model=model,
        format=output_format,
        quality=quality,
        icc=icc,
        metadata=metadata,
        ensemble=ensemble,
        proof=proof,
        fallback=fallback,
    )
    if not inputs and watch is None:
        raise BadRequest("there is nothing to enhance: name pictures or folders, - or --watch DIR")
    if inputs and watch is not None:
        raise BadRequest("--watch DIR is instead of other inputs: leave one of the two out")
    streams = STREAM in (output, *(inputs or ()))
    alone = {"--resume": resume, "--cluster": cluster, "--watch": watch is not None}
    if streams and (wrong := [name for name, there in alone.items() if there]):
        raise BadRequest(f"- is one picture, and does not go with {', '.join(wrong)}")
    if watch is not None and (cluster or dry_run):
        raise BadRequest("--watch does not go with --cluster or --dry-run: leave one of them out")
    stderr = Console(stderr=True)
    options = replace(_options(asked, models), provenance=provenance)
    load = partial(
        load_sized, asked.model or AUTO, models, precision, device, runtime, asked.ensemble
    )

    def local_runner(ledger: Ledger | None) -> BatchRunner:
        return BatchRunner(
            _load_first(load, None if dry_run else _first_card(asked, models)),
            options,
            ledger,
            resume=resume or watch is not None,
            force=force,
            dry_run=dry_run,
            replace_own=watch is not None,
            max_pixels=max_pixels,
        )

    if streams:
        enhance_stream(
            inputs or [],
            output,
            asked.format,
            local_runner(None),
            force=force,
            dry_run=dry_run,
            max_pixels=max_pixels,
            console=stderr,
        )
        return
    target = to_path(output)
    if watch is not None:
        enhance_watched(
            to_path(watch),
            target,
            asked.format,
            local_runner(Ledger(target)),
            recursive=recursive,
            console=stderr,
        )
        return
    sources = [to_path(text) for text in inputs or ()]
    if cluster:  # whose processes are not in this one's folder
        sources, target = [source.absolute() for source in sources], target.absolute()
        there = models.absolute()
        load = partial(
            load_sized, asked.model or AUTO, there, precision, device, runtime, asked.ensemble
        )
    to_file = is_file(sources, target)
    planned = plan(
        sources,
        target,
        asked.format or (format_of(target) if to_file else None),
        recursive=recursive,
    )
    if cluster:
        if dry_run or to_file:
            raise BadRequest("--cluster is for making pictures, into a folder")
        runner = clone.part(SERVICE, "superres enhance --cluster").cluster_batch_runner()
        load_there = partial(_load_first, load, _first_card(asked, models))
        run = runner(
            load_there, options, target, resume=resume, force=force, max_pixels=max_pixels
        ).run
    else:
        run = local_runner(None if to_file else Ledger(target)).run
    started = time.monotonic()
    outcomes = show_progress(run, planned.jobs, stderr)
    if dry_run or not to_file:
        stderr.print(summary(outcomes, time.monotonic() - started))
        print_skipped(planned.skipped, stderr)
    if print_failures(outcomes, stderr):
        raise typer.Exit(1)


def _options(asked: Parameters, models: Path) -> Options:
    """The parameters, and the labels of all models that may be used for them."""
    cards, model = all_cards(models), asked.model or AUTO
    by_scale = asked.width is None and asked.height is None
    scales = (asked.scale or DEFAULT_SCALE,) if by_scale else SCALES
    used = [card for scale in scales for card in cards_for(cards, model, scale)]
    if not by_scale or asked.fallback == "auto":
        used.append(BICUBIC)
    labels = [f"{card.label(ensemble=asked.ensemble)}@{card.short_hash}" for card in used]
    if model == AUTO:
        labels.append(rules_label())
    return Options(" ".join(dict.fromkeys(labels)), asked)


def _load_first(load: Callable[[], SizedEnhancer], first: ModelCard | None) -> SizedEnhancer:
    """Make an enhancer and load its first model: if that fails, there is no run."""
    enhancer = load()
    if first is not None:
        enhancer.enhancer(first)
    return enhancer


def _first_card(asked: Parameters, models: Path) -> ModelCard | None:
    """The one model of all pictures, if it is known: what is wrong with it is one error."""
    if asked.model == AUTO or asked.width is not None or asked.height is not None:
        return None
    scale = asked.scale or DEFAULT_SCALE
    return cards_for(all_cards(models), asked.model or AUTO, scale)[0]
