"""Reproduction of a model from scratch: its data, the models it starts from, and its run."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress as Bar

from superres.arrays import to_float
from superres.evaluation.metrics import score
from superres.models.card import CARD, read_card
from training import networks
from training.config import PicturesConfig, TrainingConfig, model_name, parents
from training.durations import readable
from training.fit import Outcome, Start, TrainingFailed, fit
from training.prepare import prepare_manifest
from training.prepared import PreparedSet
from training.run import STATE, Progress
from training.timing import faster_precision, seconds_per_step
from training.validation import held_out_pairs
from training.weights import RECORD, Design, read_record, recorded


@dataclass(frozen=True)
class Sets:
    """The prepared sets of a config."""

    data: tuple[PreparedSet, ...]
    validation: PreparedSet


def prepare_sets(config: TrainingConfig, root: Path, runs: Path) -> Sets:
    """Prepare the training and validation sets of a config in ``runs/data``, if not yet done.

    Raises:
        TrainingFailed: a manifest is missing, or its hash is not the one in the config.
        training.prepare.PrepareFailed: as in :func:`training.prepare.prepare_manifest`.
    """
    with Bar() as progress:
        prepared = [_prepare(one, root, runs, progress) for one in config.all_pictures]
    return Sets(tuple(prepared[:-1]), prepared[-1])


def _prepare(wanted: PicturesConfig, root: Path, runs: Path, progress: Bar) -> PreparedSet:
    manifest = root / wanted.name / "manifest.csv"
    if not manifest.is_file():
        raise TrainingFailed(
            f"no {manifest}: set --data-root to the folder that contains {wanted.name}"
        )
    found = hashlib.sha256(manifest.read_bytes()).hexdigest()
    if wanted.manifest_sha256 not in (None, found):
        raise TrainingFailed(
            f"{manifest} has SHA-256 {found[:12]}..., but the config has "
            f"{wanted.manifest_sha256[:12]}...: these are not the pictures of the config"
        )
    part = f"-{wanted.where.partition('=')[2]}" if wanted.where else ""
    folder = runs / "data" / f"{wanted.name}{part}-{found[:8]}"
    return prepare_manifest(manifest, folder, where=wanted.where, progress=progress)


def find_start(config: TrainingConfig, runs: Path, models: Path | None = None) -> Start | None:
    """The weights that a config starts from, of a finished run or else of an exported model.

    None if it starts from nothing, or if its run has begun: then its checkpoint has the weights.

    Raises:
        TrainingFailed: there is neither a run nor a model of the committed config.
    """
    state = runs / config.name / STATE
    if config.start_from is None or (state.exists() and Progress.load(state).begun):
        return None
    parent = parents(config)[-1]
    exported = model_name(parent.family, parent.scale)
    for folder in (runs / parent.name, *([models / exported] if models else [])):
        if (folder / CARD).exists():
            record = read_card(folder).training
        elif (folder / RECORD).exists():
            record = read_record(folder)
        else:
            continue
        if record is not None and record.finished and record.config_sha256 == parent.sha256:
            return Start(parent, recorded(folder)[1])
    raise TrainingFailed(
        f"{config.name} starts from {parent.name}, but there is no finished run in {runs} and no "
        "model of its committed config: make it first"
    )


def reproduce(
    config: TrainingConfig,
    *,
    root: Path,
    runs: Path,
    console: Console,
    deadline: float | None,
    devices: int,
    workers: int,
    vgg19_weights: Path | None,
) -> Outcome:
    """Train a config after the configs it starts from. Existing runs are resumed.

    Prints an estimate of the time on this machine first.
    """
    chain = [*parents(config), config]
    sets = {one.name: prepare_sets(one, root, runs) for one in chain}
    left = [one for one in chain if not _finished(one, runs)]
    for one in left:
        seconds = estimate(one, sets[one.name], runs / one.name)
        console.print(f"{one.name}: about {readable(seconds)} left on this machine")
    for one in left:
        outcome = fit(
            one,
            data=sets[one.name].data,
            validation=sets[one.name].validation,
            run=runs / one.name,
            console=console,
            go_on=(runs / one.name / STATE).exists(),
            start=find_start(one, runs),
            deadline=deadline,
            vgg19_weights=vgg19_weights,
            devices=devices,
            workers=workers,
        )
        if not outcome.finished:
            return outcome
    return Outcome(True, False, read_record(runs / config.name).validation)


def _finished(config: TrainingConfig, runs: Path) -> bool:
    run = runs / config.name
    if not (run / STATE).exists():
        return False
    progress = Progress.load(run / STATE)
    return progress.finished and progress.config == config


def estimate(config: TrainingConfig, sets: Sets, run: Path) -> float:
    """Estimate the time for the rest of a run, s, from timed steps and a timed picture."""
    if (run / STATE).exists():
        progress = Progress.load(run / STATE)
        precision, at, done = progress.precision, progress.stage, progress.step
    else:
        at = done = 0
        precision = faster_precision(config) if config.precision == "auto" else config.precision
    total, validations = 0.0, 0
    for index, stage in enumerate(config.stages[at:]):
        steps = stage.steps - (done if index == 0 else 0)
        total += steps * seconds_per_step(config, stage, precision)
        validations += -(-steps // stage.steps_per_validation)
    pictures = config.validation.pictures or len(sets.validation)
    return total + validations * 2 * pictures * _seconds_per_picture(config, sets.validation)


def _seconds_per_picture(config: TrainingConfig, validation: PreparedSet) -> float:
    network = Design.of(config).build(precision="float32")
    domain = networks.NETWORKS[config.network].domain
    (pair,) = held_out_pairs(
        validation,
        scale=config.scale,
        halo=networks.halo(network),
        domain=domain,
        degraded=False,
        count=1,
    )
    network(to_float(pair.plane)[None])
    began = time.perf_counter()
    np.asarray(network(to_float(pair.plane)[None]))
    score(pair.hr, pair.bicubic(), data_range=255, shave=config.scale)
    return time.perf_counter() - began
