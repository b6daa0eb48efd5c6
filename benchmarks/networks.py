"""Which network gives most: quality after equal training time, beside the time of serving it.

    python benchmarks/networks.py time --threads 1 --data-root DATA
    python benchmarks/networks.py time --threads 2 --data-root DATA
    python benchmarks/networks.py train --minutes 30 --seed 1 --data-root DATA
    python benchmarks/networks.py table

Every finished row is written at once into ``rows.jsonl``, and a row that is there is not made
again, so that each command can be stopped and given again. Training takes one thread, and one more
process makes batches: two commands of ``train`` with other networks fit on two cores.

There is no network with ESA (RLFB): it pools over squares of 6 px, so that an answer depends on
where a tile begins, and on pixels farther away than a halo can be.
"""

import json
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import typer
from rich.console import Console

from benchmarks.pareto import in_turn
from superres import Enhancer
from superres.codecs import Picture
from superres.engines.base import Precision
from superres.engines.tensorflow import SavedModelEngine
from superres.models.card import read_card
from superres.models.registry import DEFAULT_MODELS
from training import networks
from training.config import TrainingConfig, load_config
from training.fit import fit
from training.provenance import machine
from training.reproduce import Sets, prepare_sets
from training.run import STATE, Progress
from training.timing import seconds_per_step

RECIPE = "edsr-lite-photo-x3"
"""The config whose network is exchanged."""
BASE = "srcnn-x3"
"""The shipped model whose time the others are compared with."""
CANDIDATES = [
    name for name in networks.NETWORKS if name not in ("srcnn_935", "edsr_2x8", "edsr_5x32")
]
DECAY_SHARE = 0.25
"""Of a run's time, the last part, in which the learning rate falls."""
SIDE = 512
"""Of the picture whose enlargement is timed."""

cli = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
DataRoot = Annotated[Path, typer.Option(envvar="SUPERRES_TRAINING_DATA")]
Runs = Annotated[Path, typer.Option(help="Where prepared sets are kept.")]
Out = Annotated[Path, typer.Option(help="Where rows, runs and exported networks are kept.")]
Network = Annotated[list[str], typer.Option(help="Candidate; repeat for more.")]
DEFAULT_RUNS, DEFAULT_OUT = Path("runs"), Path("runs/networks")


@cli.command("time")
def time_command(
    data_root: DataRoot,
    threads: Annotated[int, typer.Option(min=1)],
    network: Network = CANDIDATES,
    runs: Runs = DEFAULT_RUNS,
    out: Out = DEFAULT_OUT,
    rounds: int = 9,
    side: int = SIDE,
) -> None:
    """Time the served path of each network, in turn, as shares of srcnn's time."""
    _use_threads(threads)
    known = {(row["network"], row["threads"]) for row in read_rows(out, "time")}
    left = [name for name in network if (name, threads) not in known]
    if not left:
        return
    config = load_config(RECIPE)
    sets = prepare_sets(config, data_root, runs)
    folders = {name: export_fresh(config, name, sets, out) for name in left}
    folders[BASE] = DEFAULT_MODELS / BASE
    picture = Picture(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    calls = {}
    for name, folder in folders.items():
        card = read_card(folder)
        engine = SavedModelEngine(folder, card, precision="float32", device="cpu")
        calls[name] = partial(Enhancer(engine, card.geometry).enhance, picture, config.scale)
    seconds = in_turn(calls, rounds)
    for name in left:
        card = read_card(folders[name])
        built = networks.build(name, scale=config.scale, skip=True, precision="float32")
        row = {
            "network": name,
            "threads": threads,
            "times_srcnn": statistics.median(np.divide(seconds[name], seconds[BASE])),
            "seconds": statistics.median(seconds[name]),
            "parameters": built.count_params(),
            "multiply_adds": card.multiply_adds_per_output_pixel,
            "halo": card.geometry.halo,
        }
        add_row(out, "time", row)


@cli.command("train")
def train_command(
    data_root: DataRoot,
    minutes: Annotated[
        float | None, typer.Option(help="Of each run's steps, as timed beforehand.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of each run, in place of minutes.")] = None,
    seed: Annotated[list[int], typer.Option(help="Repeat for more.")] = [1],  # noqa: B006
    network: Network = CANDIDATES,
    batch_size: int = 8,
    patch_size: int = 144,
    pictures: Annotated[int | None, typer.Option(help="Of validation; all if not given.")] = None,
    precision: Precision = "float32",
    workers: int = 1,
    runs: Runs = DEFAULT_RUNS,
    out: Out = DEFAULT_OUT,
) -> None:
    """Train each network for as long, by the same recipe on the same crops, and validate it."""
    if (minutes is None) == (steps is None):
        raise typer.BadParameter("give either --minutes or --steps")
    _use_threads(1)
    recipe = load_config(RECIPE)
    sets = prepare_sets(recipe, data_root, runs)
    for one_seed in seed:
        for name in network:
            facts = {
                "network": name,
                "length": f"{minutes:g} min" if minutes else f"{steps} steps",
                "batch_size": batch_size,
                "patch_size": patch_size,
                "precision": precision,
            }
            key = facts | {"seed": one_seed}
            if any(key.items() <= row.items() for row in read_rows(out, "train")):
                continue
            if steps is not None:
                decay = round(DECAY_SHARE * steps)
                stable = steps - decay
            else:
                stable, decay = _steps(recipe, facts, minutes or 0.0, out)
            config = comparable(
                recipe,
                name,
                seed=one_seed,
                batch_size=batch_size,
                patch_size=patch_size,
                precision=precision,
                steps=(stable, decay),
                pictures=pictures,
            )
            run = out / config.name
            # What was stopped on the way goes on.
            outcome = fit(
                config,
                data=sets.data,
                validation=sets.validation,
                run=run,
                console=Console(stderr=True),
                go_on=(run / STATE).exists(),
                workers=workers,
            )
            if not outcome.finished:
                raise typer.Exit(130)
            progress = Progress.load(run / STATE)
            row = key | {
                "steps": stable + decay,
                "seconds": progress.seconds,
                "waited": progress.waited,
                "machine": machine(),
            }
            for kind, bicubic in progress.bicubic.items():
                row[kind] = progress.history[-1][f"{kind}_psnr_y"]
                row[f"{kind}_bicubic"] = bicubic.psnr_y
            add_row(out, "train", row)


@cli.command("table")
def table_command(out: Out = DEFAULT_OUT) -> None:
    """Print what is known as a Markdown table; means of the seeds, and their range."""
    times = list(read_rows(out, "time"))
    trained = list(read_rows(out, "train"))
    same = ("length", "batch_size", "patch_size", "precision", "machine")
    kinds = sorted({tuple(row[key] for key in same) for row in trained}) or [None]
    for kind in kinds:
        here = [row for row in trained if tuple(row[key] for key in same) == kind]
        if kind is not None:
            length, batch_size, patch_size, precision, place = kind
            print(
                f"{length} of batches of {batch_size} patches of {patch_size} px, {precision}, "
                f"on {place}:\n"
            )
        heads = ["1 thread, × srcnn", "2 threads, × srcnn", "weights", "multiply-adds", "halo"]
        if here:
            heads += ["seeds", "steps", "clean, dB", "degraded, dB"]
        print(f"| network | {' | '.join(heads)} |")
        print("|---|" + "---|" * len(heads))
        if here:
            bicubic = [f"{here[0][f'{kind}_bicubic']:.2f}" for kind in ("clean", "degraded")]
            print(f"| bicubic | | | | | | | | {' | '.join(bicubic)} |")
        for name in networks.NETWORKS:
            mine = [row for row in here if row["network"] == name]
            served = {row["threads"]: row for row in times if row["network"] == name}
            if not mine and not served:
                continue
            cells = [f"{served[n]['times_srcnn']:.2f}" if n in served else "" for n in (1, 2)]
            facts = next(iter(served.values()), None)
            for key in ("parameters", "multiply_adds", "halo"):
                cells.append(f"{facts[key]:,}" if facts else "")
            if here:
                cells += [str(len(mine)), f"{mine[0]['steps']:,}" if mine else ""]
                cells += [_spread([row[kind] for row in mine]) for kind in ("clean", "degraded")]
            print(f"| {name} | {' | '.join(cells)} |")
        print()


def comparable(
    recipe: TrainingConfig,
    network: str,
    *,
    seed: int,
    batch_size: int,
    steps: tuple[int, int],
    patch_size: int = 144,
    precision: Precision = "float32",
    pictures: int | None = None,
) -> TrainingConfig:
    """The recipe with another network and as many steps, from fresh weights.

    Validated at the end of each stage only. A short run forgets sooner than a long one does.
    """
    values = recipe.model_dump()
    values |= {
        "name": f"{network.replace('_', '-')}-seed{seed}-steps{sum(steps)}"
        f"-batch{batch_size}-patch{patch_size}",
        "network": network,
        "start_from": None,
        "seed": seed,
        "precision": precision,
        "ema_momentum": 0.99,
    }
    values["validation"] |= {"pictures": pictures}
    stable = values["stages"][0] | {
        "name": "stable",
        "final_learning_rate": None,
        "batch_size": batch_size,
        "patch_size": patch_size,
    }
    decay = {"name": "decay", "final_learning_rate": 1e-6}
    values["stages"] = [
        stage | {"steps": n, "steps_per_validation": n, "warmup_steps": 0}
        for stage, n in zip((stable, stable | decay), steps, strict=True)
    ]
    values["stages"][0]["warmup_steps"] = steps[0] // 20
    return TrainingConfig.model_validate(values)


def export_fresh(config: TrainingConfig, network: str, sets: Sets, out: Path) -> Path:
    """Export a network that was hardly trained, which takes as long to serve as any other."""
    from training.export import export  # it needs TensorFlow

    one = comparable(config, network, seed=0, batch_size=1, steps=(1, 1), pictures=1)
    zero = [stage.model_copy(update={"borders": "zero"}) for stage in one.stages]
    one = one.model_copy(update={"optimizer": "adam", "stages": tuple(zero)})
    run = out / one.name
    if not (run / STATE).exists() or not Progress.load(run / STATE).finished:
        quiet = Console(quiet=True)
        resume = (run / STATE).exists()
        fit(
            one,
            data=sets.data,
            validation=sets.validation,
            run=run,
            console=quiet,
            go_on=resume,
            workers=0,
        )
    # A folder each, since models are named after their family.
    folder = out / "models" / network
    return folder / export(run, folder, draft=True).name


def read_rows(out: Path, kind: str) -> Iterator[dict[str, Any]]:
    """The rows of a kind: ``time``, ``steps`` or ``train``."""
    file = out / "rows.jsonl"
    for line in file.read_text().splitlines() if file.exists() else []:
        row = json.loads(line)
        if row.pop("kind") == kind:
            yield row


def add_row(out: Path, kind: str, row: dict[str, Any]) -> None:
    """Keep a row."""
    out.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"kind": kind} | row)
    with (out / "rows.jsonl").open("a") as file:
        file.write(f"{line}\n")
    print(line, flush=True)


def _steps(
    recipe: TrainingConfig, facts: dict[str, Any], minutes: float, out: Path
) -> tuple[int, int]:
    """Steps of the two stages that fill the minutes; timed once, for all seeds."""
    for row in read_rows(out, "steps"):
        if facts.items() <= row.items():
            return row["stable"], row["decay"]
    shape = {key: facts[key] for key in ("batch_size", "patch_size", "precision")}
    config = comparable(recipe, facts["network"], seed=0, steps=(1, 1), **shape)
    stable, decay = (seconds_per_step(config, stage, config.precision) for stage in config.stages)
    seconds = 60 * minutes
    row = facts | {
        "stable": max(1, round((1 - DECAY_SHARE) * seconds / stable)),
        "decay": max(1, round(DECAY_SHARE * seconds / decay)),
        "seconds_per_step": [stable, decay],
    }
    add_row(out, "steps", row)
    return row["stable"], row["decay"]


def _use_threads(threads: int) -> None:
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _spread(figures: list[float]) -> str:
    if not figures:
        return ""
    mean = f"{statistics.mean(figures):.3f}"
    return f"{mean} ± {(max(figures) - min(figures)) / 2:.3f}" if len(figures) > 1 else mean


if __name__ == "__main__":
    cli()
