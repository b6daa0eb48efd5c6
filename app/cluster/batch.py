"""Runs a batch on a Ray cluster by Ray Data, as ``superres enhance --cluster`` does.

Ray Data keeps the actors busy, starts as many as there is room for, and gives the jobs of a machine
that is lost to other actors. Each actor has one engine and does one picture at a time, from the
file's bytes to the result's file, as :class:`superres.batch.runner.BatchRunner` does on one
machine. A picture's entry in the ledger says that it is done, so that a picture that is given out
twice is made once.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from app.cluster.connect import connect
from superres.automatic import SizedEnhancer
from superres.batch.ledger import Options, SharedLedger
from superres.batch.plan import READERS, Job
from superres.batch.runner import BatchRunner, Outcome, Progress
from superres.codecs import MAX_INPUT_PIXELS
from superres.enhancer import Enhancer
from superres.errors import EngineError
from superres.paths import AnyPath

BLOCKS = 10_000
"""Most blocks that Ray Data divides the jobs into."""


@dataclass(frozen=True)
class ClusterBatchRunner:
    """Does jobs, each on some machine of the cluster.

    Args:
        load: makes the enhancer; called in each actor.
        options: how every picture is enhanced.
        output: the folder of the results.
        resume: leave out the jobs that the ledger has.
        force: overwrite files that exist.
        max_pixels: most pixels of an input.
    """

    load: Callable[[], Enhancer | SizedEnhancer]
    options: Options
    output: AnyPath
    resume: bool
    force: bool
    max_pixels: int = MAX_INPUT_PIXELS

    def run(self, jobs: list[Job], progress: Progress) -> Iterator[Outcome]:
        """Do the jobs, and yield the outcome of each as soon as it is known.

        Raises:
            EngineError: the model cannot be loaded on a machine, or an unexpected error occurs.
        """
        existing = set() if self.resume or self.force else _existing(jobs)
        todo = [job for job in jobs if job not in existing]
        for job in jobs:
            if job in existing:
                progress(job, 1)
                yield Outcome(job, "failed", reason=f"{job.target} is there already: use --force")
        if not todo:
            return
        connect(logs=False)
        context = DataContext.get_current()
        context.enable_progress_bars = False  # the command's own bar counts pictures
        gpus = ray.cluster_resources().get("GPU", 0)
        outcomes = ray.data.from_items(
            [{"job": job} for job in todo], override_num_blocks=min(len(todo), BLOCKS)
        ).map(
            _BatchActor,  # type: ignore[arg-type]  # Ray takes the class
            fn_constructor_args=(self,),
            compute=ActorPoolStrategy(min_size=1, max_size=len(todo)),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )
        try:
            for row in outcomes.iter_rows():
                outcome: Outcome = row["outcome"]
                progress(outcome.job, 1)
                yield outcome
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise EngineError(f"the cluster cannot go on: {reason}") from error


def _existing(jobs: list[Job]) -> set[Job]:
    """The jobs whose result exists."""
    with ThreadPoolExecutor(READERS) as readers:
        # A job with a problem fails by that.
        found = readers.map(lambda job: job.problem is None and job.target.exists(), jobs)
        return {job for job, exists in zip(jobs, found, strict=True) if exists}


class _BatchActor:
    """One engine, in an actor."""

    def __init__(self, batch: ClusterBatchRunner) -> None:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # the actor has one processor
        self._resume = batch.resume
        # A job that a lost actor has finished is in the ledger; it is not done again, even if the
        # user has not asked to resume.
        self._runner = BatchRunner(
            batch.load(),
            batch.options,
            SharedLedger(batch.output),
            resume=True,
            force=batch.force,
            max_pixels=batch.max_pixels,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        outcome = self._runner.do(row["job"], lambda job, part: None)
        if outcome.status == "done already" and not self._resume:
            outcome = replace(outcome, status="made")
        return {"outcome": outcome}
