"""The folder of a run: its checkpoints, results and log.

``state.npz`` is the last checkpoint, which is replaced atomically: variables by path, the best
weights so far, and the rest of the state that a resumed run needs. ``after-STAGE.npz`` is the
checkpoint at the end of a stage, from which a later stage can be repeated. ``weights.npz`` (the
best weights) and ``record.json`` are derived from the checkpoint. ``steps.csv`` has the loss of
every step.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from superres.models.card import (
    DataRecord,
    Scores,
    SessionRecord,
    StartRecord,
    TrainingPrecision,
    TrainingRecord,
)
from training.config import StageConfig, TrainingConfig
from training.weights import RECORD, WEIGHTS, Weights, hash_weights, save_weights

STATE = "state.npz"
STEPS = "steps.csv"
_VARIABLE, _BEST = "variable:", "best:"


class RunMismatch(RuntimeError):
    """The checkpoint is of another config; the message says what changed."""


@dataclass
class Progress:
    """State of a run: its position, history, variables and best weights."""

    config: TrainingConfig
    precision: TrainingPrecision
    """Precision in use, after ``auto`` is resolved."""
    stage: int = 0
    """Index of the current stage; the number of stages when the run is finished."""
    step: int = 0
    """Steps done in the current stage."""
    done: dict[str, int] = field(default_factory=dict)
    """Steps done in each earlier stage; fewer than in the config if patience ended the stage."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per validation."""
    bicubic: dict[str, Scores] = field(default_factory=dict)
    seconds: float = 0.0
    """Time spent on steps, s."""
    waited: float = 0.0
    """Part of that time spent waiting for batches, s."""
    started_from: StartRecord | None = None
    sessions: list[SessionRecord] = field(default_factory=list)
    variables: dict[str, np.ndarray] = field(default_factory=dict)
    """Variables of the network and the optimizer, by path."""
    best: Weights = field(default_factory=dict)
    best_row: int = -1
    """Index into the history of the validation of ``best``."""

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """The stages of the config."""
        return self.config.stages

    @property
    def finished(self) -> bool:
        """Whether all stages are done."""
        return self.stage == len(self.stages)

    @property
    def begun(self) -> bool:
        """Whether it has weights, so that what the config starts from is no longer needed."""
        return bool(self.variables)

    def first_step(self, stage: int) -> int:
        """Steps of the config before a stage: the offset of its batches and learning rates."""
        return sum(one.steps for one in self.stages[:stage])

    @property
    def steps_done(self) -> int:
        """Total number of steps done."""
        return sum(self.done.values()) + self.step

    @property
    def next_validation(self) -> int:
        """Step of the stage after which the next validation is due."""
        stage = self.stages[self.stage]
        every = stage.steps_per_validation
        return min(self.step // every * every + every, stage.steps)

    @property
    def validation_due(self) -> bool:
        """Whether the current weights must be validated and have not been validated yet."""
        stage = self.stages[self.stage]
        due = self.step == stage.steps or self.step % stage.steps_per_validation == 0
        return due and self.step > 0 and self.steps_since_validation > 0

    @property
    def steps_since_validation(self) -> int:
        """Steps since the last validation, of this stage or another."""
        return self.steps_done - (self.history[-1]["step"] if self.history else 0)

    @property
    def out_of_patience(self) -> bool:
        """Whether the stage has had ``patience`` validations without an improvement."""
        stage = self.stages[self.stage]
        here = sum(row["stage"] == stage.name for row in self.history)
        without = min(here, len(self.history) - 1 - self.best_row)
        return stage.patience is not None and without >= stage.patience

    @property
    def best_scores(self) -> dict[str, Scores]:
        """Scores of the best validation, by ``clean`` and ``degraded``; empty before the first."""
        if not self.history:
            return {}
        row = self.history[self.best_row]
        return {
            kind: Scores(**{name: row[f"{kind}_{name}"] for name in Scores.__dataclass_fields__})
            for kind in self.bicubic
        }

    def add_validation(self, row: dict[str, Any], weights: Weights) -> bool:
        """Add a validation, keep its weights if it is the best, and return whether it is."""
        self.history.append(row)
        choose_by = self.config.validation.choose_by
        best = self.best_row < 0 or _merit(row, choose_by) > _merit(
            self.history[self.best_row], choose_by
        )
        if best:
            self.best_row, self.best = len(self.history) - 1, weights
        return best

    def begin_session(self, session: SessionRecord) -> None:
        """Add a session, unless it equals the last one."""
        if not self.sessions or self.sessions[-1] != session:
            self.sessions.append(session)

    def end_stage(self) -> None:
        """Go to the next stage."""
        self.done[self.stages[self.stage].name] = self.step
        self.stage, self.step = self.stage + 1, 0

    def save(self, file: Path) -> None:
        """Write a checkpoint atomically, so that a power failure leaves the new or the old one."""
        facts = {
            "config": self.config.model_dump(mode="json"),
            "precision": self.precision,
            "stage": self.stage,
            "step": self.step,
            "done": self.done,
            "history": self.history,
            "bicubic": {kind: asdict(scores) for kind, scores in self.bicubic.items()},
            "seconds": self.seconds,
            "waited": self.waited,
            "started_from": self.started_from and self.started_from.model_dump(mode="json"),
            "sessions": [session.model_dump(mode="json") for session in self.sessions],
            "best_row": self.best_row,
        }
        arrays = {"facts": np.array(json.dumps(facts))}
        arrays |= {f"{_VARIABLE}{path}": array for path, array in self.variables.items()}
        arrays |= {f"{_BEST}{path}": array for path, array in self.best.items()}
        partial = file.with_name(f".{file.name}.partial")
        with partial.open("wb") as out:
            np.savez(out, allow_pickle=False, **arrays)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, file)

    @classmethod
    def load(cls, file: Path) -> "Progress":
        """Read a checkpoint.

        Raises:
            FileNotFoundError: there is no checkpoint.
        """
        with np.load(file) as saved:
            facts = json.loads(str(saved["facts"]))
            arrays = {name: saved[name] for name in saved.files if name != "facts"}
        return cls(
            **facts
            | {
                "config": TrainingConfig.model_validate(facts["config"]),
                "bicubic": {kind: Scores(**one) for kind, one in facts["bicubic"].items()},
                "started_from": facts["started_from"]
                and StartRecord.model_validate(facts["started_from"]),
                "sessions": [SessionRecord.model_validate(one) for one in facts["sessions"]],
            },
            variables=_with_prefix(arrays, _VARIABLE),
            best=_with_prefix(arrays, _BEST),
        )


def _with_prefix(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _merit(row: dict[str, Any], choose_by: str) -> float:
    if choose_by == "loss":
        return -row["validation_loss"]
    if choose_by == "mean":
        return (row["clean_psnr_y"] + row["degraded_psnr_y"]) / 2
    return row[f"{choose_by}_psnr_y"]


def resume(run: Path, config: TrainingConfig) -> Progress:
    """Load the checkpoint to resume from, for a config whose later stages may have changed.

    A stage with a constant learning rate may get more steps; the run then resumes from the end of
    that stage. After any other change it resumes from the end of the stage before the changed one.
    Either way it has the optimizer state saved there, and repeats later stages. Stages may be
    appended.

    Raises:
        FileNotFoundError: there is no checkpoint.
        RunMismatch: the config has other changes.
    """
    progress = Progress.load(run / STATE)
    old = progress.config
    _check_changes(old, config, run)
    for index, (was, now) in enumerate(zip(old.stages, config.stages, strict=False)):
        if was == now:
            continue
        longer = _is_longer(was, now)
        if longer and progress.stage > index and progress.done[was.name] < was.steps:
            continue  # patience ended the stage, and more steps would not change that
        if longer and progress.stage > index:
            progress = Progress.load(run / after(was.name))
            progress.stage, progress.step = index, progress.done.pop(was.name)
        elif not longer and (progress.stage, progress.step) > (index, 0):
            progress = Progress.load(run / after(old.stages[index - 1].name))
        break
    progress.config = config
    return progress


def after(stage: str) -> str:
    """File name of the checkpoint at the end of a stage."""
    return f"after-{stage}.npz"


def _check_changes(old: TrainingConfig, new: TrainingConfig, run: Path) -> None:
    """Return if a run of the old config can go on with the new one.

    Raises:
        RunMismatch: it cannot.
    """
    whole = [name for name in type(old).model_fields if name != "stages"]
    changed = [name for name in whole if getattr(old, name) != getattr(new, name)]
    if len(new.stages) < len(old.stages):
        changed.append("stages (some are gone)")
    was, now = old.stages[0], new.stages[0]
    if not _is_longer(was, now):
        changed += [f"stages.{was.name}.{name}" for name in _differing(was, now)]
    if changed:
        raise RunMismatch(
            f"{run / STATE} is of another config: {', '.join(changed)} changed. Stages after the "
            "first may change, and stages may be appended. The first stage may only get more "
            "steps, and only if its learning rate is constant and its steps were a multiple of "
            "steps_per_validation"
        )


def _is_longer(was: StageConfig, now: StageConfig) -> bool:
    """Whether a stage differs by more steps alone, and can go on from where it ended."""
    more = _differing(was, now) == ["steps"] and now.steps > was.steps
    return more and was.constant and was.steps % was.steps_per_validation == 0


def _differing(was: StageConfig, now: StageConfig) -> list[str]:
    return [name for name in type(was).model_fields if getattr(was, name) != getattr(now, name)]


class StepLog:
    """``steps.csv``: stage, step in the stage and loss, appended after every step."""

    def __init__(self, file: Path, done: int) -> None:
        """Open the log after ``done`` steps, and remove lines of later steps.

        Raises:
            RunMismatch: the log has fewer steps.
        """
        lines = file.read_text().splitlines(keepends=True) if done else []
        if len(lines) < done + 1 and done:
            raise RunMismatch(f"{file} has {len(lines) - 1} steps; the checkpoint has {done}")
        partial = file.with_name(f".{file.name}.partial")
        partial.write_text("".join(lines[: done + 1]) or "stage,step,loss\n")
        os.replace(partial, file)
        self.file = file
        self._out = file.open("a", buffering=1)  # line-buffered, so that users can follow it

    def write(self, stage: str, step: int, loss: float) -> None:
        """Log a step. The loss has the shortest digits that identify the float32 value exactly."""
        self._out.write(f"{stage},{step},{np.float32(loss)!s}\n")

    def mean(self, steps: int) -> float:
        """Mean loss of the last ``steps`` steps."""
        self.flush()
        lines = self.file.read_text().splitlines()[1:][-steps:]
        return float(np.mean([float(line.rpartition(",")[2]) for line in lines]))

    def flush(self) -> None:
        """Flush to the system. Checkpoints need this first: they must not be ahead of the log."""
        self._out.flush()

    def close(self) -> None:
        """Close the file."""
        self._out.close()


def write_record(
    run: Path, progress: Progress, data: tuple[DataRecord, ...], validation_data: DataRecord
) -> TrainingRecord:
    """Write ``weights.npz`` and ``record.json`` of a run with at least one validation."""
    row = progress.history[progress.best_row]
    record = TrainingRecord(
        config=progress.config.model_dump(mode="json"),
        config_sha256=progress.config.sha256,
        data=data,
        validation_data=validation_data,
        started_from=progress.started_from,
        sessions=tuple(progress.sessions),
        precision=progress.precision,
        steps=progress.done
        | ({} if progress.finished else {progress.stages[progress.stage].name: progress.step}),
        finished=progress.finished,
        seconds=round(progress.seconds, 1),
        waited_share=round(progress.waited / progress.seconds, 4) if progress.seconds else 0.0,
        best_step=row["step"],
        validation=progress.best_scores,
        validation_bicubic=progress.bicubic,
        steps_sha256=hashlib.sha256((run / STEPS).read_bytes()).hexdigest(),
        weights_sha256=hash_weights(progress.best),
    )
    save_weights(run / WEIGHTS, progress.best)
    partial = run / f".{RECORD}.partial"
    partial.write_text(record.model_dump_json(indent=2) + "\n")
    os.replace(partial, run / RECORD)
    return record
