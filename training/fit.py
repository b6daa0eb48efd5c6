"""Train a network from a config: resumable, validated against bicubic as it goes.

A run lives in one folder: ``config.json`` (as resolved), ``state.npz`` (all that a
resumed run needs), ``best.weights.h5`` (the averaged weights of the best validation),
``history.csv`` and ``curves.png``, and ``record.json`` (what the card says of how the
model was trained). ``tensorboard/`` has the curves and strips of three held-out pictures.
"""

import csv
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter

from superres.arrays import RgbU8, to_float, to_integer
from superres.card import CARD, read_card
from superres.metrics import SSIM_WINDOW, Scores, mean_scores, score
from superres.proof import Comparison
from superres.strip import draw_strip
from training import networks
from training.config import TrainingConfig
from training.dataset import Pair, crops, dataset_name, read_pairs, whole_pictures
from training.devices import Devices
from training.losses import Loss, build_loss
from training.soap import Soap

CONFIG = "config.json"
STATE = "state.npz"
BEST_WEIGHTS = "best.weights.h5"
WEIGHTS = "network.weights.h5"
"""Of an exported model: what its SavedModel was made of, for runs that start from it."""
RECORD = "record.json"
TENSORBOARD = "tensorboard"
STRIPS = 3
"""Held-out pictures that TensorBoard shows as strips."""
OPTIMIZERS = {"adam": keras.optimizers.Adam, "soap": Soap}
CRITERIA = {"psnr_y": ("psnr_y", 1), "loss": ("validation_loss", -1)}
"""Column of the history that chooses the best weights, and which way is better."""


class TrainingFailed(RuntimeError):
    """The run cannot go on; the message says at which step and why."""


def fit(
    config: TrainingConfig,
    *,
    data: list[Path],
    validation: list[Path],
    run: Path,
    resume: bool,
    console: Console,
    start_from: Path | None = None,
    vgg19_weights: Path | None = None,
    devices: int = 1,
) -> Scores:
    """Train until the config's steps are done or validation stops getting better.

    Args:
        config: what to train, and how.
        data: folders of HR pictures to learn from.
        validation: folders of HR pictures to choose the weights by.
        run: the run's folder, made if need be.
        resume: go on from ``run``'s last checkpoint, which must be of the same config.
        console: where progress is shown.
        start_from: folder of another run, whose best weights are this one's first, or of an
            exported model; a layer whose shape depends on the scale begins afresh, and so do
            blocks that the other has not.
        vgg19_weights: of a VGG19 term in the loss; see :func:`training.losses.vgg19_features`.
        devices: how many share each batch; see :class:`training.devices.Devices`. The batches are
            the same for any number, and the weights but for rounding.

    Returns:
        The best validation's mean scores.

    Raises:
        FileExistsError: ``run`` holds a run already, and ``resume`` is false.
        FileNotFoundError: nothing to resume, or a folder without pictures.
        TrainingFailed: the loss is not a number, the checkpoint is of another config,
            ``start_from`` has another network, or too few pictures are large enough.
        ValueError: as :class:`training.devices.Devices`.
    """
    if (run / STATE).exists() and not resume:
        raise FileExistsError(f"{run} holds a run already: resume it, or remove the folder")
    if resume and not (run / STATE).exists():
        raise FileNotFoundError(f"nothing to resume in {run}")
    place = Devices(devices, config)
    console = console if place.chief else Console(quiet=True)
    run.mkdir(parents=True, exist_ok=True)

    config = _resolve(config, run, resume=resume, devices=devices)
    # After the trial of precisions, which draws weights, too.
    keras.utils.set_random_seed(config.seed)
    architecture = networks.NETWORKS[config.network]
    with place.scope():
        network = _build(config, precision=config.precision, trained=True)
        loss = build_loss(config.loss, vgg19_weights=vgg19_weights, precision=config.precision)
        optimizer = OPTIMIZERS[config.optimizer](
            _learning_rate(config),
            weight_decay=config.weight_decay or None,
            use_ema=True,
            ema_momentum=config.ema_momentum,
        )
        optimizer.build(network.trainable_variables)
        network.compile(
            optimizer,
            # Of a loss without a dimension, Keras forgets to take the mean over the devices.
            loss=lambda hr, sr: loss(hr, sr)[None],
            # XLA made a step slower on TensorFlow's CPU; JAX has nothing else.
            jit_compile=keras.backend.backend() == "jax",
        )
    halo = networks.receptive_field(network) // 2 if config.borders == "replicate" else 0
    if start_from is not None:
        _take_weights(network, trained_network(start_from))
    state = _State(run, config, network, optimizer)
    if resume:
        state.restore()
    elif place.chief:
        (run / CONFIG).write_text(config.model_dump_json(indent=2) + "\n")

    with console.status("reading pictures"):
        read = partial(
            read_pairs,
            scale=config.scale,
            halo=halo,
            domain=architecture.domain,
            keep_size=config.keep_size,
            degradation=config.degradation,
        )
        pairs = read(
            data,
            shrinks=config.shrinks,
            smallest=config.patch_size or config.scale,
        )
        held_out = read(validation, shrinks=(1.0,), smallest=2 * config.scale + SSIM_WINDOW)
    _check_enough(pairs, held_out, config)
    description = _describe(config, data, start_from, devices)
    if resume and start_from is None and (run / RECORD).exists():
        description["started_from"] = json.loads((run / RECORD).read_text())["started_from"]
    keeper = _Keeper(state, held_out, loss, console, description, place)
    console.print(
        f"{config.name}: {network.count_params():,} parameters, {config.precision}, "
        f"{len(pairs)} pictures to learn from, {len(held_out)} to validate on "
        f"(bicubic {keeper.bicubic.psnr_y:.3f} dB)"
    )
    with keeper.progress, keeper.board, place.scope():
        network.fit(
            place.batches(partial(_batches, pairs, config, state.step)),
            steps_per_epoch=config.steps_per_validation,
            initial_epoch=len(state.history),
            epochs=config.steps // config.steps_per_validation,
            callbacks=[keeper],
            shuffle=False,
            verbose=0,
        )
    best = state.history[-1 - state.since_best]
    return Scores(**{name: best[name] for name in Scores.__dataclass_fields__})


def trained_network(folder: Path, *, precision: str = "float32") -> keras.Model:
    """The network of a run, with its best weights, or of an exported model; as it is served.

    Raises:
        FileNotFoundError: the run has no best weights yet, or it is neither of them.
        superres.errors.ModelMismatch: the model's card is not one.
    """
    record, weights = recorded(folder)
    network = _build(TrainingConfig.model_validate(record["config"]), precision=precision)
    # The file knows layers by their place, so that only the same network can read it.
    network.load_weights(weights)
    return network


def recorded(folder: Path) -> tuple[dict[str, Any], Path]:
    """The record of a run or of an exported model, and the file of its best weights.

    Raises:
        FileNotFoundError: it is neither of them.
        superres.errors.ModelMismatch: the model's card is not one.
    """
    if (folder / CARD).exists():
        return read_card(folder).training, folder / WEIGHTS
    return json.loads((folder / RECORD).read_text()), folder / BEST_WEIGHTS


def _check_enough(pairs: list[Pair], held_out: list[Pair], config: TrainingConfig) -> None:
    fewest = config.batch_size if config.patch_size is None else 1
    if len(pairs) < fewest:
        raise TrainingFailed(
            f"{len(pairs)} pictures are large enough to learn from; at least {fewest} are needed"
        )
    if not held_out:
        raise TrainingFailed("no picture is large enough to validate on")


def _take_weights(network: keras.Model, first: keras.Model) -> None:
    theirs = {layer.name: layer.get_weights() for layer in first.layers if layer.weights}
    taken = 0
    for layer in network.layers:
        weights = theirs.get(layer.name, [])
        if weights and [w.shape for w in weights] == [tuple(w.shape) for w in layer.weights]:
            layer.set_weights(weights)
            taken += 1
    if not taken:
        raise TrainingFailed(
            f"the run to start from has another network, {first.name}: "
            "no layer is of this one's name and shape"
        )


def _learning_rate(config: TrainingConfig) -> keras.optimizers.schedules.LearningRateSchedule:
    """Up from zero over the warm-up, then down by a half cosine."""
    return keras.optimizers.schedules.CosineDecay(
        0.0 if config.warmup_steps else config.learning_rate,
        config.steps - config.warmup_steps,
        alpha=config.final_learning_rate / config.learning_rate,
        warmup_target=config.learning_rate if config.warmup_steps else None,
        warmup_steps=config.warmup_steps,
    )


def _resolve(config: TrainingConfig, run: Path, *, resume: bool, devices: int) -> TrainingConfig:
    """Put the faster precision in the place of ``auto``; a resumed run keeps what it had."""
    if config.precision != "auto":
        return config
    share = config.model_copy(update={"batch_size": config.batch_size // devices})
    precision = (
        TrainingConfig.model_validate_json((run / CONFIG).read_text()).precision
        if resume
        else faster_precision(share)
    )
    return config.model_copy(update={"precision": precision})


def faster_precision(config: TrainingConfig) -> str:
    """Time a few steps' worth of the network in each precision, and name the faster."""
    side = config.patch_size or 255
    plane = side // networks.NETWORKS[config.network].upscale(config.scale)
    seconds = {}
    for precision in ("float32", "bfloat16"):
        network = _build(config, precision=precision)
        network.compile(optimizer="sgd", loss="mse", jit_compile=keras.backend.backend() == "jax")
        batch = [
            np.zeros((config.batch_size, size, size, 3), np.float32)
            for size in (plane, network.compute_output_shape((1, plane, plane, 3))[1])
        ]
        network.train_on_batch(*batch)
        start = time.perf_counter()
        for _ in range(3):
            network.train_on_batch(*batch)
        seconds[precision] = time.perf_counter() - start
    return min(seconds, key=lambda precision: seconds[precision])


def _build(config: TrainingConfig, *, precision: str, trained: bool = False) -> keras.Model:
    """The config's network, as it is validated and served or as it is trained."""
    return networks.build(
        config.network,
        scale=config.scale,
        skip=config.skip,
        centred=config.centred,
        precision=precision,
        padding="valid" if trained and config.borders == "replicate" else "same",
    )


def _batches(
    pairs: list[Pair], config: TrainingConfig, first_step: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    common = {"batch_size": config.batch_size, "seed": config.seed, "first_step": first_step}
    if config.patch_size is None:
        return whole_pictures(pairs, **common)
    upscale = networks.NETWORKS[config.network].upscale(config.scale)
    return crops(
        pairs,
        patch_size=config.patch_size,
        upscale=upscale,
        shuffle_channels=config.shuffle_channels,
        **common,
    )


class _State:
    """All that a resumed run needs, in one file that is replaced whole."""

    def __init__(
        self,
        run: Path,
        config: TrainingConfig,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
    ) -> None:
        self.run = run
        self.config = config
        self.network = network
        self.optimizer = optimizer
        self.history: list[dict[str, float]] = []
        """A row a validation: step, loss and scores."""
        self.seconds = 0.0

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.history) * self.config.steps_per_validation

    @property
    def since_best(self) -> int:
        """Validations since the best one."""
        column, sign = CRITERIA[self.config.choose_by]
        return (
            len(self.history)
            - 1
            - max(range(len(self.history)), key=lambda i: sign * self.history[i][column])
        )

    def average(self) -> list[np.ndarray]:
        """The exponential moving average of the weights, in the model's order."""
        return [
            keras.ops.convert_to_numpy(variable)
            for variable in self.optimizer.variables
            if variable.name.endswith("_average")
        ]

    def save(self) -> None:
        variables = [*self.network.variables, *self.optimizer.variables]
        partial = self.run / "state.partial.npz"
        np.savez(
            partial,
            config=self.config.model_dump_json(),
            history=json.dumps(self.history),
            seconds=self.seconds,
            **{str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)},
        )
        os.replace(partial, self.run / STATE)

    def restore(self) -> None:
        with np.load(self.run / STATE) as saved:
            theirs = TrainingConfig.model_validate_json(str(saved["config"]))
            if theirs != self.config:
                ours = self.config.model_dump()
                changed = [key for key, value in theirs.model_dump().items() if ours[key] != value]
                raise TrainingFailed(
                    f"{self.run / STATE} is of another config: {', '.join(changed)} changed"
                )
            for i, variable in enumerate([*self.network.variables, *self.optimizer.variables]):
                variable.assign(saved[str(i)])
            self.history = json.loads(str(saved["history"]))
            self.seconds = float(saved["seconds"])


class _Keeper(keras.callbacks.Callback):
    """Shows progress, validates, keeps the best weights, writes the checkpoint."""

    def __init__(
        self,
        state: _State,
        held_out: list[Pair],
        loss: Loss,
        console: Console,
        description: dict[str, Any],
        place: Devices,
    ) -> None:
        super().__init__()
        self.state = state
        self.held_out = held_out
        self.loss = loss
        self.description = description
        self.place = place
        config = state.config
        self.averaged = _build(config, precision="float32")
        self.upscale = networks.NETWORKS[config.network].upscale(config.scale)
        self.bicubics = [_score(pair, pair.bicubic(), config.scale) for pair in held_out]
        self.bicubic = mean_scores(self.bicubics)
        self.board = SummaryWriter(
            str(state.run / TENSORBOARD),
            purge_step=state.step + 1 if state.step else None,
            write_to_disk=place.chief,
        )
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self.task = self.progress.add_task("training", total=config.steps, completed=state.step)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {})["loss"]
        step = self.state.step + batch + 1
        if not np.isfinite(loss):
            raise TrainingFailed(f"the loss is {loss} at step {step}")
        self.progress.update(self.task, completed=step, description=f"loss {loss:.5f}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        state, loss = self.state, (logs or {})["loss"]
        state.seconds += time.monotonic() - self.started
        self.averaged.set_weights(state.average())
        step = state.step + state.config.steps_per_validation
        scores, validation_loss = self._validate(step)
        row = {"step": step, "loss": loss, "validation_loss": validation_loss, **asdict(scores)}
        state.history.append(row)
        for name, value in row.items():
            if name != "step":
                self.board.add_scalar(name, value, step)
        best = state.since_best == 0
        if self.place.chief:
            self._write(step, scores, best=best)
        self.progress.print(
            f"step {step:>6}  loss {loss:.5f}  validation {scores.psnr_y:.3f} dB "
            f"({scores.psnr_y - self.bicubic.psnr_y:+.3f} over bicubic)  {'best' if best else ''}"
        )
        self.model.stop_training = self.place.agree(state.since_best >= state.config.patience)

    def _write(self, step: int, scores: Scores, *, best: bool) -> None:
        state = self.state
        if best:
            partial = state.run / f"partial.{BEST_WEIGHTS}"
            self.averaged.save_weights(partial)
            os.replace(partial, state.run / BEST_WEIGHTS)
            record = self.description | {
                "steps": step,
                "seconds": round(state.seconds),
                "validation": scores.as_dict(),
                "validation_bicubic": self.bicubic.as_dict(),
            }
            partial = state.run / f"partial.{RECORD}"
            partial.write_text(json.dumps(record, indent=2) + "\n")
            os.replace(partial, state.run / RECORD)
        _write_history(state.history, state.run / "history.csv")
        _draw_curves(state.history, self.bicubic, state.run / "curves.png")
        state.save()

    def _validate(self, step: int) -> tuple[Scores, float]:
        """Scores and loss of the averaged weights, on whole pictures one at a time."""
        scores, losses = [], []
        for i, (pair, bicubic_scores) in enumerate(zip(self.held_out, self.bicubics, strict=True)):
            sr = self.averaged(to_float(pair.plane)[None])
            halo = pair.halo * self.upscale
            sr = sr[:, halo : halo + pair.hr.shape[0], halo : halo + pair.hr.shape[1]]
            losses.append(float(self.loss(to_float(pair.hr)[None], sr)))
            pixels = to_integer(keras.ops.convert_to_numpy(sr)[0], np.uint8)
            scores.append(_score(pair, pixels, self.state.config.scale))
            if i < STRIPS:
                comparison = Comparison(
                    scale=self.state.config.scale,
                    hr=pair.hr,
                    bicubic=pair.bicubic(),
                    sr=pixels,
                    bicubic_scores=bicubic_scores,
                    sr_scores=scores[-1],
                )
                strip = draw_strip(comparison, self.state.config.name)
                self.board.add_image(f"validation/{i}", strip, step, dataformats="HWC")
        return mean_scores(scores), float(np.mean(losses))


def _score(pair: Pair, estimate: RgbU8, scale: int) -> Scores:
    return score(pair.hr, estimate, data_range=255, shave=scale)


def _write_history(history: list[dict[str, float]], file: Path) -> None:
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, history[0])
        writer.writeheader()
        writer.writerows(history)


def _draw_curves(history: list[dict[str, float]], bicubic: Scores, file: Path) -> None:
    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    steps = [row["step"] for row in history]
    above.plot(steps, [row["psnr_y"] for row in history], label="validation")
    above.axhline(bicubic.psnr_y, color="C7", linestyle="--", label="bicubic")
    above.set_ylabel("PSNR of luma, dB")
    above.legend()
    below.plot(steps, [row["loss"] for row in history])
    below.set_yscale("log")
    below.set_ylabel("training loss")
    below.set_xlabel("step")
    figure.savefig(file, dpi=100)


def _describe(
    config: TrainingConfig, data: list[Path], start_from: Path | None, devices: int
) -> dict[str, Any]:
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607 - from the PATH
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "config": config.model_dump(mode="json"),
        "data": [dataset_name(folder) for folder in data],
        "started_from": None if start_from is None else start_from.resolve().name,
        "backend": f"Keras {keras.__version__} on {keras.backend.backend()}",
        "machine": machine() + (f", {devices} devices" if devices > 1 else ""),
        "commit": git.stdout.strip() or "unknown",
    }


def machine() -> str:
    """The processor's name, and its cores: what a time was measured on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
    return f"{name}, {os.cpu_count()} cores"
