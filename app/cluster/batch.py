"""Many pictures on a Ray cluster: what ``superres enhance --cluster`` does, by Ray Data.

Ray Data keeps the actors busy, starts as many as there is room for, and gives what a lost machine
had to another. Each actor holds one engine and does one picture at a time, from its bytes to its
file, as :class:`app.batch.plan.Batch` does on one machine. A picture's entry in the ledger tells
that it is done, so that one which is given out twice is made once.

This needs the extra ``cluster``.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from app.batch.plan import (
    READERS,
    Batch,
    Job,
    Outcome,
    Progress,
    Recipe,
    SharedLedger,
)
from app.cluster.connect import connect
from app.paths import AnyPath
from superres.enhancer import Enhancer
from superres.errors import EngineError

BLOCKS = 10_000
"""Most parts that the work is given out in."""


@dataclass(frozen=True)
class Fleet:
    """Does jobs, each on some machine of the cluster.

    Args:
        load: makes the enhancer; called in each actor.
        recipe: what is made of every picture.
        output: the folder of the results.
        resume: leave out what was made before.
        force: overwrite what is there.
    """

    load: Callable[[], Enhancer]
    recipe: Recipe
    output: AnyPath
    resume: bool
    force: bool

    def run(self, jobs: list[Job], progress: Progress) -> Iterator[Outcome]:
        """Do the jobs, and yield what became of each as soon as that is known.

        Raises:
            EngineError: the model cannot be loaded on a machine, or something unforeseen happened.
        """
        there = set() if self.resume or self.force else _existing(jobs)
        todo = [job for job in jobs if job not in there]
        for job in jobs:
            if job in there:
                progress(job, 1)
                yield Outcome(job, "failed", reason=f"{job.target} is there already: use --force")
        if not todo:
            return
        connect(logs=False)
        context = DataContext.get_current()
        context.enable_progress_bars = False  # ours tells pictures
        gpus = ray.cluster_resources().get("GPU", 0)
        outcomes = ray.data.from_items(
            [{"job": job} for job in todo], override_num_blocks=min(len(todo), BLOCKS)
        ).map(
            _Maker,  # type: ignore[arg-type]  # Ray takes the class
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
    """Those whose result is there."""
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(lambda job: job.target.exists(), jobs)
        return {job for job, there in zip(jobs, found, strict=True) if there}


class _Maker:
    """One engine, in an actor."""

    def __init__(self, fleet: Fleet) -> None:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # of the actor's one processor
        self._resume = fleet.resume
        # One that a lost actor had finished is found done, whether to resume was asked or not.
        self._batch = Batch(
            fleet.load(),
            fleet.recipe,
            SharedLedger(fleet.output),
            resume=True,
            force=fleet.force,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        outcome = self._batch.do(row["job"], lambda job, part: None)
        if outcome.verdict == "done already" and not self._resume:
            outcome = replace(outcome, verdict="made")
        return {"outcome": outcome}
