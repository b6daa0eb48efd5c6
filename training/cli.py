"""The ``superres-train`` command: prepare, fit, reproduce, evaluate, export and more."""

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from superres.engines.base import PrecisionChoice
from superres.enhancer import Enhancer
from superres.errors import SuperresError
from superres.models.card import (
    DatasetScores,
    Scores,
    TrainingPrecision,
    read_card,
    write_card,
)
from superres.models.registry import AUTO, DEFAULT_MODELS, all_cards, read_cards
from training.evaluate import (
    JPEG_QUALITY,
    Evaluation,
    Protocol,
    evaluate,
    upstream_table,
    write_report,
)

if TYPE_CHECKING:
    from training.fit import Outcome

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
prepare = typer.Typer(
    no_args_is_help=True, help="Make a folder to train on; finished work is not repeated."
)
cli.add_typer(prepare, name="prepare")
Out = Annotated[Path, typer.Option(help="The folder to write, with train, val and test.")]
Crop = Annotated[
    Literal["corner", "center", "detail"],
    typer.Option(help="Which 512x512 crop of each picture to take; corner is at (0, 0)."),
]
Scale = Annotated[int, typer.Option(min=2, max=4, help="Scale of the pairs.")]
Folders = Annotated[
    list[Path], typer.Option(help="Folder of HR pictures; repeat the option for more.")
]
_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
)
Models = Annotated[Path, typer.Option(help="The models folder.")]
Config = Annotated[str, typer.Argument(help="Name of a committed config, or path of a TOML file.")]
DataRoot = Annotated[
    Path,
    typer.Option(
        envvar="SUPERRES_TRAINING_DATA",
        help="The folder that holds the datasets, each as NAME/manifest.csv.",
    ),
]
Runs = Annotated[Path, typer.Option(help="The folder for runs and prepared sets.")]
DEFAULT_RUNS = Path("runs")
StopAfter = Annotated[
    str | None,
    typer.Option(help="Write a checkpoint and stop after this time, such as 170m (s, m or h)."),
]
Vgg19Weights = Annotated[
    Path | None,
    typer.Option(help="NPZ of weights for a VGG19 loss; without it, Keras downloads them."),
]
DeviceCount = Annotated[
    int, typer.Option(min=1, help="Number of devices that share each batch, over all processes.")
]
Workers = Annotated[int, typer.Option(min=0, help="Number of processes that prefetch batches.")]
Draft = Annotated[
    bool, typer.Option("--draft", help="Export a model that must not be shipped; its card says so.")
]


@prepare.command("div2k")
def prepare_div2k_command(out: Out, crop: Crop = "corner", scale: Scale = 3) -> None:
    """Download DIV2K's 800 training pictures (3.5 GB), crop them to pairs, split 560/120/120."""
    from training.prepare import DIV2K, prepare_archive

    with Progress(*_COLUMNS) as progress:
        counts = prepare_archive(DIV2K, out, crop=crop, scale=scale, progress=progress)
    Console().print(f"{out}: {counts}")


@prepare.command("folder")
def prepare_folder_command(
    folder: Annotated[Path, typer.Argument(help="A folder of photographs.")],
    out: Out,
    crop: Crop = "corner",
    scale: Scale = 3,
    licence: Annotated[
        str, typer.Option(help="Licence of the photographs; the cards of models name it.")
    ] = "own photographs",
) -> None:
    """Crop, make pairs and split a folder of photographs, 70/15/15 %."""
    from training.prepare import prepare_folder

    with Progress(*_COLUMNS) as progress:
        counts = prepare_folder(
            folder, out, crop=crop, scale=scale, licence=licence, progress=progress
        )
    Console().print(f"{out}: {counts}")


@prepare.command("manifest")
def prepare_manifest_command(
    manifest: Annotated[
        Path, typer.Argument(help="A CSV file beside its pictures, with licences.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to write the prepared set to.")],
    where: Annotated[
        str | None, typer.Option(help="Rows to use, as COLUMN=VALUE, such as split=train.")
    ] = None,
) -> None:
    """Decode the pictures of a manifest into one file to train on."""
    from training.prepare import prepare_manifest

    with Progress(*_COLUMNS) as progress:
        done = prepare_manifest(manifest, out, where=where, progress=progress).description
    Console().print(
        f"{out}: {len(done.pictures)} pictures, "
        f"{sum(picture.height * picture.width for picture in done.pictures) / 1e6:.1f} megapixels"
    )


@cli.command("sheet")
def sheet_command(
    degradations: Annotated[
        Path, typer.Argument(help="A TOML file with a [degradations] table, such as a config.")
    ],
    data: Annotated[
        list[Path], typer.Option(help="Folder of a prepared set; repeat the option for more.")
    ],
    out: Annotated[Path, typer.Option(help="The picture file to write.")],
    shrinks: Annotated[
        list[float], typer.Option(min=0.25, max=1, help="Factor to shrink pictures by first.")
    ] = [0.75],  # noqa: B006 (typer reads it)
    crops: Annotated[int, typer.Option(min=1, help="Number of crops to draw.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Seed of crops and degradations.")] = 0,
) -> None:
    """Draw degraded crops beside their ground truth, to compare them with real photographs."""
    from training.degrade import load_degradations
    from training.prepared import PreparedSet
    from training.sheet import draw_sheet

    sheet = draw_sheet(
        [PreparedSet.open(folder) for folder in data],
        load_degradations(degradations),
        shrinks=tuple(shrinks),
        crops=crops,
        seed=seed,
    )
    sheet.save(out)
    Console().print(f"{out}: {crops} crops, each to the left of its ground truth")


@cli.command("pack")
def pack_command(
    config: Config,
    data_root: DataRoot,
    out: Annotated[Path, typer.Option(help="The folder to write the parts to.")],
    largest: Annotated[int, typer.Option(min=1, help="Largest size of a part, in MiB.")] = 58,
) -> None:
    """Pack a config's pictures into ZIP files, to train on a machine without a network."""
    from training.config import load_config
    from training.pack import pack

    for part in pack(load_config(config), data_root, out, largest=largest):
        Console().print(f"{part}: {part.stat().st_size / 2**20:.1f} MiB")


@cli.command("fit")
def fit_command(
    config: Config,
    data_root: DataRoot,
    runs: Runs = DEFAULT_RUNS,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint.")
    ] = False,
    stop_after: StopAfter = None,
    models: Models = DEFAULT_MODELS,
    vgg19_weights: Vgg19Weights = None,
    devices: DeviceCount = 1,
    workers: Workers = 1,
    precision: Annotated[
        TrainingPrecision | None,
        typer.Option(help="Precision, if the config has auto; it may change on resume."),
    ] = None,
) -> None:
    """Train a network in runs/NAME and compare it with bicubic; Ctrl-C writes a checkpoint.

    The weights to start from come from runs/ or, if they are not there, from the models folder,
    unless another config has continued the model there: then the first config must be run. A run
    that has begun does not need them.
    """
    deadline = _deadline(stop_after)
    from training.config import load_config
    from training.fit import fit
    from training.reproduce import find_start, prepare_sets

    resolved = load_config(config)
    run = runs / resolved.name
    sets = prepare_sets(resolved, data_root, runs)
    _print_outcome(
        run,
        fit(
            resolved,
            data=sets.data,
            validation=sets.validation,
            run=run,
            console=Console(),
            go_on=resume,
            start=find_start(resolved, runs, models),
            deadline=deadline,
            vgg19_weights=vgg19_weights,
            devices=devices,
            workers=workers,
            precision=precision,
        ),
    )


@cli.command("reproduce")
def reproduce_command(
    config: Config,
    data_root: DataRoot,
    runs: Runs = DEFAULT_RUNS,
    models: Annotated[
        Path | None, typer.Option(help="The folder to export to; runs/models by default.")
    ] = None,
    benchmarks: Annotated[
        Path | None,
        typer.Option(help="A folder of SET/xSCALE; the scores on these sets go into the card."),
    ] = None,
    draft: Draft = False,
    stop_after: StopAfter = None,
    vgg19_weights: Vgg19Weights = None,
    devices: DeviceCount = 1,
    workers: Workers = 1,
) -> None:
    """Make a model from scratch, after the models it starts from; run it again to resume.

    Prepares the data, estimates the time on this machine, trains, exports and scores.
    """
    deadline = _deadline(stop_after)
    from training.config import load_config
    from training.export import check_tree, export
    from training.reproduce import reproduce

    if not draft:
        check_tree()
    resolved = load_config(config)
    outcome = reproduce(
        resolved,
        root=data_root,
        runs=runs,
        console=Console(),
        deadline=deadline,
        devices=devices,
        workers=workers,
        vgg19_weights=vgg19_weights,
    )
    run, models = runs / resolved.name, models or runs / "models"
    _print_outcome(run, outcome)
    if not outcome.finished:
        return
    card = export(run, models, draft=draft)
    Console().print(f"{models / card.name}: weights {card.weights_sha256[:12]}, {card.short_hash}")
    if benchmarks is not None:
        folders = sorted(benchmarks.glob(f"*/x{resolved.scale}"))
        # A fixed precision: the scores of a card must not depend on a timed trial.
        evaluate_command(
            models / card.name, folders, resolved.scale, precision="float32", write_card=True
        )


def _deadline(stop_after: str | None) -> float | None:
    from training.durations import parse_duration

    return None if stop_after is None else time.monotonic() + parse_duration(stop_after)


def _print_outcome(run: Path, outcome: "Outcome") -> None:
    console = Console()
    for kind, scores in outcome.validation.items():
        console.print(f"{run}: best validation {scores.psnr_y:.3f} dB of luma, {kind}")
    if outcome.interrupted:
        raise typer.Exit(130)


@cli.command("evaluate")
def evaluate_command(
    model: Annotated[
        Path,
        typer.Option(
            help="A model's folder, such as models/srcnn-x3; or auto, for which the LR pictures "
            "become files."
        ),
    ],
    data: Folders,
    scale: Scale = 3,
    precision: Annotated[
        PrecisionChoice, typer.Option(help="Precision of the network; auto chooses the faster one.")
    ] = "auto",
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Average the outputs for eight views, at eight times the cost."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON with the scores of each picture.")
    ] = False,
    degraded: Annotated[
        bool,
        typer.Option("--degraded", help="More rows: the kinds of files that people have."),
    ] = False,
    protocol: Annotated[
        Protocol,
        typer.Option(help="The protocol of the published tables, or of the upstream project."),
    ] = "published",
    report: Annotated[
        Path | None, typer.Option(help="A folder to write a CSV file, a chart and strips to.")
    ] = None,
    write_card: Annotated[
        bool,
        typer.Option(
            "--write-card",
            help="Store the mean scores in the model's card; those of auto in the package.",
        ),
    ] = False,
) -> None:
    """Score a model and bicubic on folders of HR pictures, or of NNN_hr and NNN_lr pairs.

    Each set has a second row, for LR pictures that are compressed as JPEG at quality 75.
    """
    from superres import load_model
    from superres.automatic import AutomaticEnhancer
    from superres.models.automatic_scores import store_automatic_scores
    from superres.models.selection import candidates
    from training.kinds import KINDS

    automatic = str(model) == AUTO
    if ensemble and write_card:
        raise ValueError("a card stores scores without the ensemble: leave out --ensemble")
    if protocol == "upstream" and (as_json or report or write_card):
        raise ValueError(
            "--protocol upstream only prints a table: leave out --json, --report and --write-card"
        )
    folder = DEFAULT_MODELS if automatic else model.resolve().parent

    def load(name: str) -> Enhancer:
        enhancer = load_model(name, models=folder, precision=precision)
        return enhancer.ensembled() if ensemble else enhancer

    enhancer = (
        AutomaticEnhancer(candidates(all_cards(folder), scale), lambda card: load(card.name))
        if automatic
        else load(model.name)
    )
    if protocol == "upstream":
        for pictures in data:
            evaluation = evaluate(enhancer, pictures, scale, protocol=protocol)
            Console().print(upstream_table(model.name, evaluation))
        return
    evaluations = [
        (pictures, lr_jpeg, evaluate(enhancer, pictures, scale, lr_jpeg=lr_jpeg))
        for pictures in data
        for lr_jpeg in (None, JPEG_QUALITY)
    ]
    summaries = [evaluation.summarise() for _, _, evaluation in evaluations]
    if degraded:
        summaries += [
            evaluate(enhancer, pictures, scale, kind=kind).summarise()
            for pictures in data
            for kind in KINDS.items()
            if kind[0] not in ("clean", f"jpeg {JPEG_QUALITY}")
        ]
    if as_json:
        print(json.dumps([_to_json(evaluation) for _, _, evaluation in evaluations], indent=2))
    else:
        Console().print(_table(model.name, scale, summaries))
    if report is not None:
        write_report(evaluations, enhancer, model.name, report)
    if write_card:
        _check_finite(summaries)
        if isinstance(enhancer, AutomaticEnhancer):
            store_automatic_scores(enhancer.candidates, summaries)
        else:
            _store_scores(model, summaries)


@cli.command("fit-selection")
def fit_selection_command(
    data: Annotated[Path, typer.Option(help="Folder of HR pictures: photos512/val.")],
    scale: Annotated[list[int], typer.Option(help="Repeat the option for more.")] = [2, 3, 4],  # noqa: B006
    models: Models = DEFAULT_MODELS,
    scores: Annotated[
        Path, typer.Option(help="Where the scores of the models are kept, for the next time.")
    ] = Path("artefacts/selection.json"),
) -> None:
    """Fit the thresholds by which `model=auto` chooses, and write them to the package.

    Each picture is shrunk, degraded and encoded in many ways; all models of auto are scored on
    each file. A stored score is used again until its model changes.
    """
    from superres.models.selection import RULES_FILE
    from training.selection import StoredScores, fit_scale, write_rules

    stored = StoredScores(scores)
    write_rules(RULES_FILE, {one: fit_scale(data, one, models, stored) for one in scale})
    print(RULES_FILE.read_text(), end="")


@cli.command("export")
def export_command(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs, such as runs/srcnn-x3, or of models."),
    ],
    models: Models = DEFAULT_MODELS,
    draft: Draft = False,
) -> None:
    """Export the best weights of runs as SavedModels and ONNX files, with cards.

    The run must be finished, and both its config and its code must be committed.
    """
    from training.export import export

    for folder in folders:
        card = export(folder, models, draft=draft)
        Console().print(f"{models / card.name}: {card.parameters:,} parameters, {card.short_hash}")


@cli.command("convert")
def convert_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names of exported models; without any, all.")
    ] = None,
    models: Models = DEFAULT_MODELS,
) -> None:
    """Write the ONNX files of exported models from their weights, and note them in their cards."""
    from training.export import convert

    exported = [card.name for card in read_cards(models) if "savedmodel" in card.formats]
    for name in names or exported:
        card = convert(models / name)
        Console().print(f"{models / card.name}: {', '.join(card.formats)}")


@cli.command("quantise")
def quantise_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of models; without any, all that were trained here."),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="A folder of held-out HR pictures, such as photos512/val.")
    ] = Path("data/photos512/val"),
    pictures: Annotated[
        int, typer.Option(help="Pictures on which each model is scored.", min=1)
    ] = 24,
    models: Models = DEFAULT_MODELS,
) -> None:
    """Make int8 files of models, and keep those that lose little and gain speed.

    A model that does not offer int8 loses at once what it had.
    """
    from training.quantise import quantise

    with_onnx = [
        card.name
        for card in read_cards(models)
        if "onnx" in card.formats and card.network != "imported"
    ]
    for name in names or with_onnx:
        measured = quantise(models / name, data, pictures=pictures)
        lost = ", ".join(f"{lost:.3f} dB of {kind}" for kind, lost in measured.lost_db.items())
        Console().print(
            f"{name}: loses {lost}, {measured.gain:.2f} times as fast with "
            f"{measured.float_layers} layers in float32: "
            f"{'offered' if measured.offered else 'not offered'}",
            highlight=False,
        )


def _to_json(evaluation: Evaluation) -> dict[str, Any]:
    mean = evaluation.summarise()
    return {
        "dataset": evaluation.dataset,
        "scale": evaluation.scale,
        "mean": {"model": mean.model.as_dict(), "bicubic": mean.bicubic.as_dict()},
        "wins_psnr_y": mean.wins_psnr_y,
        "pictures": [
            {"file": one.file, "model": one.model.as_dict(), "bicubic": one.bicubic.as_dict()}
            for one in evaluation.pictures
        ],
    }


def _table(model: str, scale: int, summaries: list[DatasetScores]) -> Table:
    table = Table(title=f"{model} at x{scale}: PSNR in dB / SSIM, mean over pictures")
    for column in ("set", "pictures", "channel", "bicubic", model, "gain, dB", "wins"):
        table.add_column(column, justify="left" if column in ("set", "channel") else "right")
    for summary in summaries:
        for channel in ("y", "rgb"):
            bicubic, ours = (_figures(s, channel) for s in (summary.bicubic, summary.model))
            table.add_row(
                summary.dataset if channel == "y" else "",
                str(summary.pictures) if channel == "y" else "",
                channel.upper(),
                f"{bicubic[0]:.3f} / {bicubic[1]:.4f}",
                f"{ours[0]:.3f} / {ours[1]:.4f}",
                f"{ours[0] - bicubic[0]:+.3f}",
                f"{summary.wins_psnr_y}/{summary.pictures}" if channel == "y" else "",
            )
    return table


def _figures(scores: Scores, channel: str) -> tuple[float, float]:
    return getattr(scores, f"psnr_{channel}"), getattr(scores, f"ssim_{channel}")


def _check_finite(summaries: list[DatasetScores]) -> None:
    for one in summaries:
        if not math.isfinite(one.model.psnr_y + one.bicubic.psnr_y):
            raise ValueError(
                f"a card keeps finite means, and in {one.dataset} a picture is reproduced "
                "without error, as a picture of one colour is: remove it from the set"
            )


def _store_scores(model: Path, summaries: list[DatasetScores]) -> None:
    card = read_card(model)
    fresh = {(summary.dataset, summary.scale) for summary in summaries}
    kept = [old for old in card.scores if (old.dataset, old.scale) not in fresh]
    write_card(model, card.model_copy(update={"scores": (*kept, *summaries)}))


def main() -> None:
    """Run the command. An expected error prints one line and gives exit status 1."""
    # Without this, TensorFlow logs at every start which CPU features it was not built for.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # As the first process of a container, it would ignore what `docker stop` sends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli()
    except (SuperresError, ValidationError, OSError, ValueError, RuntimeError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False)
        raise SystemExit(1) from None
