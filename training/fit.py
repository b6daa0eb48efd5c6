"""Training of a network by a config: in stages, resumable at any step, compared with bicubic.

:mod:`training.run` describes a run's folder. A run that was stopped or killed and then resumed
from its last checkpoint gives bit-identical results to an uninterrupted run: batches depend only
on the seed and the step, and the checkpoint holds the rest of the state.
"""

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import keras
import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from superres.arrays import RgbU8, to_float, to_integer
from superres.evaluation.metrics import mean_scores, score
from superres.evaluation.proof import Comparison
from superres.evaluation.strip import draw_strip
from superres.models.card import (
    DataRecord,
    Scores,
    StartRecord,
    TrainingPrecision,
)
from training import networks
from training.config import PicturesConfig, StageConfig, TrainingConfig
from training.dataset import Domain, Pair, make_pair, whole_pictures
from training.devices import Devices
from training.losses import Loss, build_loss
from training.prepared import PreparedSet
from training.provenance import session
from training.report import Report
from training.run import STATE, STEPS, Progress, StepLog, after, resume, write_record
from training.sampler import Prefetch, Sampling, batch
from training.steps import Trainer, build_optimizer
from training.timing import faster_precision
from training.validation import held_out_pairs
from training.weights import Design, Weights, hash_weights, set_weights, take_weights

CHECKPOINT_SECONDS = 600.0
"""Longest time between two checkpoints, s; every validation also writes one."""
STRIPS = 3
"""Number of held-out pictures that TensorBoard shows as strips."""
STOP_CHECK_STEPS = 10
"""Steps between two points at which several processes agree whether to stop."""


class TrainingFailed(RuntimeError):
    """The run cannot continue; the message says why."""


@dataclass(frozen=True)
class Start:
    """Initial weights of a run, and the config that they were trained with."""

    config: TrainingConfig
    weights: Weights


@dataclass(frozen=True)
class Outcome:
    """How a call of :func:`fit` ended."""

    finished: bool
    """Whether all steps are done; otherwise the run was stopped and can be resumed."""
    interrupted: bool
    """Whether a signal stopped it."""
    validation: dict[str, Scores]
    """Scores of the best weights so far, by ``clean`` and ``degraded``; empty before the first
    validation."""


class Batches(Protocol):
    """An endless iterator over batches; ``waited`` is the time spent waiting for them, s."""

    waited: float

    def __next__(self) -> tuple[np.ndarray, np.ndarray]: ...


class Stop:
    """True once the deadline has passed or a signal has arrived.

    A second signal interrupts immediately.
    """

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.signalled = False

    def __bool__(self) -> bool:
        return self.signalled or (self.deadline is not None and time.monotonic() >= self.deadline)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM as requests to stop at the next step."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: object) -> None:
            if self.signalled:
                raise KeyboardInterrupt
            self.signalled = True

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Stopped(Exception):
    """The checkpoint is written, and training must stop."""


def fit(
    config: TrainingConfig,
    *,
    data: Sequence[PreparedSet],
    validation: PreparedSet,
    run: Path,
    console: Console,
    go_on: bool = False,
    start: Start | None = None,
    deadline: float | None = None,
    vgg19_weights: Path | None = None,
    devices: int = 1,
    workers: int = 1,
    precision: TrainingPrecision | None = None,
) -> Outcome:
    """Train until all stages of the config are done, or until the deadline or a signal.

    Args:
        config: the config of the run.
        data: the training sets, in the order of ``config.data``.
        validation: the validation set.
        run: the run's folder; it is created if it does not exist.
        console: where to show progress.
        go_on: whether to resume from the last checkpoint; see :func:`training.run.resume`.
        start: the weights of the config's ``start_from``; a run that has begun needs none.
        deadline: time on the clock of ``time.monotonic()`` at which to write a checkpoint and
            return, s.
        vgg19_weights: weights for a VGG19 loss; see :func:`training.losses.vgg19_features`.
        devices: number of devices that share each batch; see :class:`training.devices.Devices`.
            The batches do not depend on it, and the weights differ only by rounding.
        workers: number of processes that prefetch batches; with 0, batches are made between steps.
        precision: precision for a config with ``auto``. It replaces the trial or, on resume, the
            precision of the checkpoint, since another machine may be faster in another precision.

    Raises:
        FileExistsError: ``run`` contains a run, and ``go_on`` is false.
        FileNotFoundError: there is no checkpoint to resume from.
        TrainingFailed: the loss is not finite, or a set or the start does not match the config.
        training.run.RunMismatch: the checkpoint is of another config.
        training.sampler.SamplerFailed: no picture is large enough.
        training.weights.WeightsMismatch: the start is of another network.
        ValueError: as :class:`training.devices.Devices`, or ``precision`` contradicts the config.
    """
    if precision is not None and config.precision not in ("auto", precision):
        raise ValueError(f"the config has precision {config.precision}: it cannot be {precision}")
    if (run / STATE).exists() and not go_on:
        raise FileExistsError(f"{run} already contains a run: resume it, or remove the folder")
    if go_on and not (run / STATE).exists():
        raise FileNotFoundError(f"nothing to resume in {run}")
    for wanted, given in zip(config.all_pictures, (*data, validation), strict=True):
        _check_set(wanted, given)
    begun = go_on and Progress.load(run / STATE).begun
    if not begun and (start and start.config.name) != config.start_from:
        raise TrainingFailed(f"{config.name} starts from {config.start_from or 'nothing'}")
    place = Devices(devices, config)
    run.mkdir(parents=True, exist_ok=True)
    stop = Stop(deadline)
    with stop.listening():
        if go_on:
            progress = resume(run, config)
            progress.precision = precision or progress.precision
        else:
            chosen = config.precision if precision is None else precision
            progress = Progress(config, faster_precision(config) if chosen == "auto" else chosen)
        progress.begin_session(session(devices, progress.precision))
        shown = console if place.chief else Console(quiet=True)
        with _RunContext(progress, validation, data, run, shown, stop, place) as context:
            try:
                while not progress.finished:
                    stage = _Stage(context, start, vgg19_weights)
                    with stage.batches(data, workers) as batches:
                        stage.run(batches)
            except _Stopped:
                shown.print(f"stopped at step {progress.steps_done}; resume {run} to continue")
    return Outcome(progress.finished, stop.signalled, progress.best_scores)


class _RunContext:
    """State that all stages share: progress, validation data, checkpoints and displays."""

    def __init__(
        self,
        progress: Progress,
        validation: PreparedSet,
        data: Sequence[PreparedSet],
        run: Path,
        console: Console,
        stop: Stop,
        place: Devices,
    ) -> None:
        self.progress = progress
        self.run = run
        self.stop = stop
        self.place = place
        self.console = console
        config = progress.config
        self.design = Design.of(config)
        self.served = self.design.build(precision="float32")
        self.domain = networks.NETWORKS[config.network].domain
        self.upscale = networks.NETWORKS[config.network].upscale(config.scale)
        self.halo = networks.halo(self.served)
        self._data = tuple(_describe(one) for one in data)
        self._validation_data = _describe(validation)
        self._checkpoint_at = time.monotonic()
        with console.status("reading the validation pictures"):
            self._held_out = self._read_held_out(validation)
            if not progress.bicubic:
                progress.bicubic = {
                    kind: mean_scores(self._scores(pairs, [pair.bicubic() for pair in pairs]))
                    for kind, pairs in self._held_out.items()
                }
        bicubic = ", ".join(f"{one.psnr_y:.3f} dB {kind}" for kind, one in progress.bicubic.items())
        console.print(
            f"{config.name}: {self.served.count_params():,} parameters, {progress.precision}, "
            f"{sum(len(one) for one in data)} training pictures, "
            f"{len(self._held_out['clean'])} validation pictures (bicubic {bicubic})"
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            done = self.progress.steps_done
            self.log = StepLog(self.run / STEPS, done) if self.place.chief else None
            if self.log is not None:
                stack.callback(self.log.close)
            report = Report(self.run, steps_done=done, writing=self.place.chief)
            self.report = stack.enter_context(report)
            self.bar = stack.enter_context(
                Bar(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    TimeRemainingColumn(),
                    console=self.console,
                )
            )
            total = sum(stage.steps for stage in self.progress.stages)
            self._task = self.bar.add_task("training", total=total, completed=done)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def stopping(self) -> bool:
        """Whether to stop now; all processes get the same answer."""
        if self.place.processes == 1:
            return bool(self.stop)
        return self.progress.step % STOP_CHECK_STEPS == 0 and self.place.agree(bool(self.stop))

    @property
    def checkpoint_due(self) -> bool:
        """Whether :data:`CHECKPOINT_SECONDS` have passed since the last checkpoint."""
        return time.monotonic() - self._checkpoint_at > CHECKPOINT_SECONDS

    def note(self, stage: str, step: int, loss: float) -> None:
        """Log and display the loss of a step.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        if not np.isfinite(loss):
            raise TrainingFailed(f"the loss is {loss} at step {step} of stage {stage}")
        if self.log is not None:
            self.log.write(stage, step, loss)
        done = self.progress.steps_done
        self.bar.update(self._task, completed=done, description=f"{stage}, loss {loss:.5f}")

    def checkpoint(self, trainer: Trainer) -> None:
        """Write a checkpoint of the current state."""
        self.progress.variables = trainer.variables()
        if self.log is not None:
            self.log.flush()
            self.progress.save(self.run / STATE)
        self._checkpoint_at = time.monotonic()

    def validate(self, trainer: Trainer, stage: StageConfig, loss: Loss) -> None:
        """Score the averaged weights, keep them if they are the best, and write a checkpoint.

        Raises:
            _Stopped: training must stop; the validation is repeated on resume.
        """
        self.checkpoint(trainer)
        progress = self.progress
        averages = trainer.averages()
        set_weights(self.served, averages)
        row: dict[str, Any] = {
            "step": progress.steps_done,
            "stage": stage.name,
            "loss": self.log.mean(progress.steps_since_validation) if self.log is not None else 0.0,
        }
        for kind, pairs in self._held_out.items():
            answers, losses = [], []
            for pair in pairs:
                if self.place.processes == 1 and self.stop:
                    raise _Stopped
                sr = self._enlarge(pair)
                if progress.config.validation.choose_by == "loss" and kind == "clean":
                    losses.append(float(loss(to_float(pair.hr)[None], sr)))
                answers.append(to_integer(keras.ops.convert_to_numpy(sr)[0], np.uint8))
            scores = self._scores(pairs, answers)
            if kind == "clean":
                for number in range(min(STRIPS, len(pairs))):
                    shown = (pairs[number], answers[number], scores[number])
                    self._show(number, *shown, row["step"])
            mean = mean_scores(scores)
            row |= {f"{kind}_{name}": value for name, value in asdict(mean).items()}
            if losses:
                row["validation_loss"] = float(np.mean(losses))
        best = progress.add_validation(row, averages)
        self.report.update(progress.history, progress.bicubic)
        self._write_record()
        gains = ", ".join(
            f"{row[f'{kind}_psnr_y']:.3f} dB {kind} ({row[f'{kind}_psnr_y'] - one.psnr_y:+.3f})"
            for kind, one in progress.bicubic.items()
        )
        self.console.print(
            f"step {row['step']:>6}  {stage.name}  loss {row['loss']:.5f}  {gains}"
            + ("  best" if best else "")
        )

    def end_stage(self) -> None:
        """Go to the next stage, and keep a checkpoint of the end of this one."""
        name = self.progress.stages[self.progress.stage].name
        self.progress.end_stage()
        if self.place.chief:
            self.progress.save(self.run / after(name))
            self._write_record()

    def _write_record(self) -> None:
        if self.place.chief:
            self.progress.save(self.run / STATE)
            write_record(self.run, self.progress, self._data, self._validation_data)

    def _read_held_out(self, validation: PreparedSet) -> dict[str, list[Pair]]:
        config = self.progress.config
        if config.keep_size:  # the upstream recipe, without degradations or halo
            halo = 0 if config.stages[-1].borders == "zero" else self.halo
            return {"clean": _whole_pairs(validation, config, halo=halo, domain=self.domain)}
        make = partial(
            held_out_pairs,
            validation,
            scale=config.scale,
            halo=self.halo,  # as in serving, for any borders of the last stage
            domain=self.domain,
            count=config.validation.pictures,
        )
        return {"clean": make(degraded=False), "degraded": make(degraded=True)}

    def _enlarge(self, pair: Pair) -> Any:
        multiple = networks.NETWORKS[self.design.network].multiple
        more = [(0, -side % multiple) for side in pair.plane.shape[:2]]
        sr = self.served(to_float(np.pad(pair.plane, (*more, (0, 0)), "edge"))[None])
        halo = pair.halo * self.upscale
        return sr[:, halo : halo + pair.hr.shape[0], halo : halo + pair.hr.shape[1]]

    def _scores(self, pairs: list[Pair], estimates: list[RgbU8]) -> list[Scores]:
        # SSIM takes longer than a small network, and releases the GIL.
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(self._score, pairs, estimates))

    def _score(self, pair: Pair, estimate: RgbU8) -> Scores:
        return score(pair.hr, estimate, data_range=255, shave=self.progress.config.scale)

    def _show(self, number: int, pair: Pair, sr: RgbU8, scores: Scores, step: int) -> None:
        bicubic = pair.bicubic()
        comparison = Comparison(
            scale=self.progress.config.scale,
            hr=pair.hr,
            bicubic=bicubic,
            sr=sr,
            bicubic_scores=self._score(pair, bicubic),
            sr_scores=scores,
        )
        self.report.add_strip(number, draw_strip(comparison, self.progress.config.name), step)


class _Stage:
    """The current stage of a run, with its loss and a network built for its borders."""

    def __init__(
        self, context: _RunContext, start: Start | None, vgg19_weights: Path | None
    ) -> None:
        progress, place = context.progress, context.place
        self.context = context
        self.config = progress.stages[progress.stage]
        self.first_step = progress.first_step(progress.stage)
        # Only for the initial weights: batches draw from the seed and the step.
        keras.utils.set_random_seed(progress.config.seed)
        with place.scope():
            network = context.design.build(
                precision=progress.precision,
                padding="valid" if self.config.borders == "replicate" else "same",
            )
            if start is not None and not progress.begun:
                progress.started_from = StartRecord(
                    config=start.config.name,
                    config_sha256=start.config.sha256,
                    weights_sha256=hash_weights(start.weights),
                    layers=take_weights(
                        network, context.design, start.weights, Design.of(start.config)
                    ),
                )
            self.loss = build_loss(
                self.config.loss, vgg19_weights=vgg19_weights, precision=progress.precision
            )
            optimizer = build_optimizer(progress.config, network, place)
            self.trainer = Trainer(network, optimizer, self.loss, place)
            if progress.variables:
                self.trainer.assign(progress.variables)
            # If patience ended a stage early, fewer steps are done than the schedule counts.
            optimizer.iterations.assign(self.first_step + progress.step)

    @contextmanager
    def batches(self, data: Sequence[PreparedSet], workers: int) -> Iterator[Batches]:
        """Batches from the next step on."""
        context, config = self.context, self.context.progress.config
        halo = context.halo if self.config.borders == "replicate" else 0
        next_step = self.first_step + context.progress.step
        if self.config.patch_size is None:
            pairs = [
                pair
                for one in data
                for pair in _whole_pairs(one, config, halo=halo, domain=context.domain)
            ]
            if len(pairs) < self.config.batch_size:
                raise TrainingFailed(
                    f"there are {len(pairs)} pictures; a batch has {self.config.batch_size}"
                )
            yield _TimedBatches(
                whole_pictures(
                    pairs,
                    batch_size=self.config.batch_size,
                    seed=config.seed,
                    first_step=next_step,
                )
            )
            return
        sampling = Sampling(
            scale=config.scale,
            domain=context.domain,
            halo=halo,
            patch_size=self.config.patch_size,
            batch_size=self.config.batch_size,
            shrinks=tuple(one.shrinks for one in config.data),
            shuffle_channels=config.shuffle_channels,
            degradations=config.degradations,
        )
        if workers:
            with Prefetch(
                data, sampling, seed=config.seed, first_step=next_step, workers=workers
            ) as batches:
                yield batches
        else:
            make = partial(batch, data, sampling, config.seed)
            yield _TimedBatches(map(make, itertools.count(next_step)))

    def run(self, batches: Batches) -> None:
        """Run the remaining steps of the stage.

        Raises:
            _Stopped: training must stop.
            TrainingFailed: the loss is not finite.
        """
        context, progress, stage = self.context, self.context.progress, self.config
        while True:
            if progress.validation_due:
                context.validate(self.trainer, stage, self.loss)
            if progress.step == stage.steps or context.place.agree(progress.out_of_patience):
                break
            self._run_steps(batches, progress.next_validation)
        context.end_stage()

    def _run_steps(self, batches: Batches, until: int) -> None:
        context, progress, stage = self.context, self.context.progress, self.config
        began, waited = time.perf_counter(), batches.waited
        pending = None

        def finish_step() -> None:
            """Wait for the last step, and add the elapsed time."""
            nonlocal began, waited, pending
            if pending is not None:
                context.note(stage.name, progress.step, float(pending))
                pending = None
            progress.seconds += time.perf_counter() - began
            progress.waited += batches.waited - waited

        def resume_clock() -> None:
            nonlocal began, waited
            began, waited = time.perf_counter(), batches.waited

        while progress.step < until:
            stopping = context.stopping
            if stopping or context.checkpoint_due:
                finish_step()
                context.checkpoint(self.trainer)
                if stopping:
                    raise _Stopped
                resume_clock()
            value = self.trainer.step(*next(batches))
            # The loss of the previous step is read while this step is computed.
            if pending is not None:
                context.note(stage.name, progress.step, float(pending))
            pending = value
            progress.step += 1
        finish_step()


class _TimedBatches:
    """Batches that are made in this process; ``waited`` is the time that this took, s."""

    def __init__(self, batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
        self._batches = batches
        self.waited = 0.0

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        began = time.perf_counter()
        made = next(self._batches)
        self.waited += time.perf_counter() - began
        return made


def _check_set(wanted: PicturesConfig, given: PreparedSet) -> None:
    description = given.description
    for name in ("name", "manifest_sha256", "where"):
        ours, theirs = getattr(wanted, name), getattr(description, name)
        if ours != theirs and not (name == "manifest_sha256" and ours is None):
            raise TrainingFailed(f"{given.folder} is a set of {name} {theirs}, not {ours}")


def _whole_pairs(
    one: PreparedSet, config: TrainingConfig, *, halo: int, domain: Domain
) -> list[Pair]:
    return [
        make_pair(
            one[index], scale=config.scale, halo=halo, domain=domain, keep_size=config.keep_size
        )
        for index in range(len(one))
    ]


def _describe(one: PreparedSet) -> DataRecord:
    description = one.description
    return DataRecord(
        name=description.name,
        manifest_sha256=description.manifest_sha256,
        where=description.where,
        pixels_sha256=description.pixels_sha256,
        pictures=len(one),
        sources=description.sources,
        licences=description.licences,
    )
