"""Train a network from a config: in stages, resumable at any step, validated beside bicubic.

:mod:`training.run` tells what a run's folder holds. A run that was stopped or killed, and goes on
from its last checkpoint, ends as one that never stopped, to the bit: batches depend on the seed
and the step alone, and all else is in the checkpoint.
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
from superres.engines.base import Precision
from superres.evaluation.metrics import mean_scores, score
from superres.evaluation.proof import Comparison
from superres.evaluation.strip import draw_strip
from superres.models.card import DataRecord, Scores, StartRecord
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
"""Between two checkpoints where no validation comes first."""
STRIPS = 3
"""Held-out pictures that TensorBoard shows as strips."""
AGREE_STEPS = 10
"""Steps after which several processes ask whether to go on."""


class TrainingFailed(RuntimeError):
    """The run cannot go on; the message says at which step and why."""


@dataclass(frozen=True)
class Start:
    """The weights that a run begins with, and the config that made them."""

    config: TrainingConfig
    weights: Weights


@dataclass(frozen=True)
class Outcome:
    """How a call of :func:`fit` ended."""

    finished: bool
    """Whether all steps are done; otherwise it was stopped, and can be resumed."""
    interrupted: bool
    """Whether a signal stopped it."""
    validation: dict[str, Scores]
    """Of the best weights so far, ``clean`` and ``degraded``; empty before the first one."""


class Batches(Protocol):
    """Batches without end, and the seconds that it took to get them."""

    waited: float

    def __next__(self) -> tuple[np.ndarray, np.ndarray]: ...


class Stop:
    """Whether to stop: the time is up, or a signal came. SIGINT's second one interrupts at once."""

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.signalled = False

    def __bool__(self) -> bool:
        return self.signalled or (self.deadline is not None and time.monotonic() >= self.deadline)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as a wish to stop at the next step."""
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
    """The checkpoint is written; stop."""


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
    precision: Precision | None = None,
) -> Outcome:
    """Train until the config's stages are done, or until it is time to stop.

    Args:
        config: what to train, and how.
        data: the sets to learn from, in the order of ``config.data``.
        validation: the set to choose the weights by.
        run: the run's folder, made if need be.
        console: where progress is shown.
        go_on: go on from ``run``'s last checkpoint; see :func:`training.run.resume`.
        start: weights of the config's ``start_from``.
        deadline: of ``time.monotonic()``, at which to write a checkpoint and return.
        vgg19_weights: of a VGG19 term in the loss; see :func:`training.losses.vgg19_features`.
        devices: how many share each batch; see :class:`training.devices.Devices`. The batches are
            the same for any number, and the weights but for rounding.
        workers: processes that make batches ahead; with 0 they are made here, between steps.
        precision: of a config whose precision is ``auto``, in place of a trial or, where the run
            goes on, of what it had: another machine has another one that is fast.

    Raises:
        FileExistsError: ``run`` holds a run already, and ``go_on`` is false.
        FileNotFoundError: nothing to go on from.
        TrainingFailed: the loss is not a number, or a set or the start is not the config's.
        training.run.RunMismatch: the checkpoint is of another config.
        training.sampler.SamplerFailed: no picture is large enough.
        training.weights.WeightsMismatch: the start is of another network.
        ValueError: as :class:`training.devices.Devices`; or ``precision`` is not the config's.
    """
    if precision is not None and config.precision not in ("auto", precision):
        raise ValueError(f"precision is {config.precision}, as the config says, not {precision}")
    if (run / STATE).exists() and not go_on:
        raise FileExistsError(f"{run} holds a run already: resume it, or remove the folder")
    if go_on and not (run / STATE).exists():
        raise FileNotFoundError(f"nothing to resume in {run}")
    for wanted, given in zip(config.all_pictures, (*data, validation), strict=True):
        _check_set(wanted, given)
    if (start and start.config.name) != config.start_from:
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
        with _Keeper(progress, validation, data, run, shown, stop, place) as keeper:
            try:
                while not progress.finished:
                    stage = _Stage(keeper, start, vgg19_weights)
                    with stage.batches(data, workers) as batches:
                        stage.work(batches)
            except _Stopped:
                shown.print(f"stopped at step {progress.steps_done}; resume {run} to go on")
    return Outcome(progress.finished, stop.signalled, progress.best_scores)


class _Keeper:
    """What lasts through all stages: progress, validation, checkpoints and what is shown."""

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
        self._kept_at = time.monotonic()
        with console.status("reading the pictures of validation"):
            self._held_out = self._read_held_out(validation)
            if not progress.bicubic:
                progress.bicubic = {
                    kind: mean_scores(self._scores(pairs, [pair.bicubic() for pair in pairs]))
                    for kind, pairs in self._held_out.items()
                }
        bicubic = ", ".join(f"{one.psnr_y:.3f} dB {kind}" for kind, one in progress.bicubic.items())
        console.print(
            f"{config.name}: {self.served.count_params():,} parameters, {progress.precision}, "
            f"{sum(len(one) for one in data)} pictures to learn from, "
            f"{len(self._held_out['clean'])} to validate on (bicubic {bicubic})"
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
        return self.progress.step % AGREE_STEPS == 0 and self.place.agree(bool(self.stop))

    @property
    def checkpoint_due(self) -> bool:
        """Whether the last checkpoint is old."""
        return time.monotonic() - self._kept_at > CHECKPOINT_SECONDS

    def note(self, stage: str, step: int, loss: float) -> None:
        """Write down a step's loss.

        Raises:
            TrainingFailed: it is not a number.
        """
        if not np.isfinite(loss):
            raise TrainingFailed(f"the loss is {loss} at step {step} of stage {stage}")
        if self.log is not None:
            self.log.write(stage, step, loss)
        done = self.progress.steps_done
        self.bar.update(self._task, completed=done, description=f"{stage}, loss {loss:.5f}")

    def checkpoint(self, trainer: Trainer) -> None:
        """Write all that is needed to go on from here."""
        self.progress.variables = trainer.variables()
        if self.log is not None:
            self.log.flush()
            self.progress.save(self.run / STATE)
        self._kept_at = time.monotonic()

    def validate(self, trainer: Trainer, stage: StageConfig, loss: Loss) -> None:
        """Score the averaged weights, keep them if they are the best, and write a checkpoint.

        Raises:
            _Stopped: it is time to stop; the validation is done when the run goes on.
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
        self._keep()
        gains = ", ".join(
            f"{row[f'{kind}_psnr_y']:.3f} dB {kind} ({row[f'{kind}_psnr_y'] - one.psnr_y:+.3f})"
            for kind, one in progress.bicubic.items()
        )
        self.console.print(
            f"step {row['step']:>6}  {stage.name}  loss {row['loss']:.5f}  {gains}"
            + ("  best" if best else "")
        )

    def end_stage(self) -> None:
        """Go to the next stage; a checkpoint of this moment stays."""
        name = self.progress.stages[self.progress.stage].name
        self.progress.end_stage()
        if self.place.chief:
            self.progress.save(self.run / after(name))
            self._keep()

    def _keep(self) -> None:
        if self.place.chief:
            self.progress.save(self.run / STATE)
            write_record(self.run, self.progress, self._data, self._validation_data)

    def _read_held_out(self, validation: PreparedSet) -> dict[str, list[Pair]]:
        config = self.progress.config
        if config.keep_size:  # the upstream recipe, which knows neither degradations nor halos
            halo = 0 if config.stages[-1].borders == "zero" else self.halo
            return {"clean": _whole_pairs(validation, config, halo=halo, domain=self.domain)}
        make = partial(
            held_out_pairs,
            validation,
            scale=config.scale,
            halo=self.halo,  # as in service, whatever the borders of the last stage
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
        # SSIM takes longer than a small network, and leaves other threads alone.
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
    """The stage that a run is at: its network, which has the borders of the stage, and its loss."""

    def __init__(self, keeper: _Keeper, start: Start | None, vgg19_weights: Path | None) -> None:
        progress, place = keeper.progress, keeper.place
        self.keeper = keeper
        self.config = progress.stages[progress.stage]
        self.first_step = progress.first_step(progress.stage)
        # Of the first weights; what else is drawn depends on the seed and the step.
        keras.utils.set_random_seed(progress.config.seed)
        with place.scope():
            network = keeper.design.build(
                precision=progress.precision,
                padding="valid" if self.config.borders == "replicate" else "same",
            )
            if start is not None and not progress.variables:
                progress.started_from = StartRecord(
                    config=start.config.name,
                    config_sha256=start.config.sha256,
                    weights_sha256=hash_weights(start.weights),
                    layers=take_weights(
                        network, keeper.design, start.weights, Design.of(start.config)
                    ),
                )
            self.loss = build_loss(
                self.config.loss, vgg19_weights=vgg19_weights, precision=progress.precision
            )
            optimizer = build_optimizer(progress.config, network, place)
            self.trainer = Trainer(network, optimizer, self.loss, place)
            if progress.variables:
                self.trainer.assign(progress.variables)
            # Where patience ended a stage early, fewer steps are done than the schedule has.
            optimizer.iterations.assign(self.first_step + progress.step)

    @contextmanager
    def batches(self, data: Sequence[PreparedSet], workers: int) -> Iterator[Batches]:
        """Those from the next step on."""
        keeper, config = self.keeper, self.keeper.progress.config
        halo = keeper.halo if self.config.borders == "replicate" else 0
        next_step = self.first_step + keeper.progress.step
        if self.config.patch_size is None:
            pairs = [
                pair
                for one in data
                for pair in _whole_pairs(one, config, halo=halo, domain=keeper.domain)
            ]
            if len(pairs) < self.config.batch_size:
                raise TrainingFailed(
                    f"there are {len(pairs)} pictures; a batch has {self.config.batch_size}"
                )
            yield _Timed(
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
            domain=keeper.domain,
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
            yield _Timed(map(make, itertools.count(next_step)))

    def work(self, batches: Batches) -> None:
        """Do the rest of the stage.

        Raises:
            _Stopped: it is time to stop.
            TrainingFailed: the loss is not a number.
        """
        keeper, progress, stage = self.keeper, self.keeper.progress, self.config
        while True:
            if progress.validation_due:
                keeper.validate(self.trainer, stage, self.loss)
            if progress.step == stage.steps or keeper.place.agree(progress.out_of_patience):
                break
            self._learn(batches, progress.next_validation)
        keeper.end_stage()

    def _learn(self, batches: Batches, until: int) -> None:
        keeper, progress, stage = self.keeper, self.keeper.progress, self.config
        began, waited = time.perf_counter(), batches.waited
        pending = None

        def settle() -> None:
            """Wait for the last step, and count the time."""
            nonlocal began, waited, pending
            if pending is not None:
                keeper.note(stage.name, progress.step, float(pending))
                pending = None
            progress.seconds += time.perf_counter() - began
            progress.waited += batches.waited - waited

        def resume_clock() -> None:
            nonlocal began, waited
            began, waited = time.perf_counter(), batches.waited

        while progress.step < until:
            stopping = keeper.stopping
            if stopping or keeper.checkpoint_due:
                settle()
                keeper.checkpoint(self.trainer)
                if stopping:
                    raise _Stopped
                resume_clock()
            value = self.trainer.step(*next(batches))
            # The loss of the step before is read while this one is computed.
            if pending is not None:
                keeper.note(stage.name, progress.step, float(pending))
            pending = value
            progress.step += 1
        settle()


class _Timed:
    """Batches that are made while one waits for them."""

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
