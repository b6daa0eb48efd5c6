"""What the ``enhance`` command prints: progress, each result, the summary, the failures."""

from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from superres.batch.folders import Skipped
from superres.batch.plan import Job
from superres.batch.runner import Outcome, Status

Run = Callable[[list[Job], Callable[[Job, float], None]], Iterator[Outcome]]


def show_progress(run: Run, jobs: list[Job], console: Console) -> list[Outcome]:
    """Do jobs under a progress bar, and print what is made."""
    outcomes: list[Outcome] = []
    with _progress(console) as progress:
        task = progress.add_task("", total=sum(job.pixels for job in jobs))
        progress.update(task, description=f"0 of {len(jobs)}")
        for outcome in run(jobs, lambda job, part: progress.advance(task, part * job.pixels)):
            outcomes.append(outcome)
            progress.update(task, description=f"{len(outcomes)} of {len(jobs)}")
            print_outcome(outcome, progress.console)
    return outcomes


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print what was made, or would be; nothing of another end."""
    if outcome.status in ("made", "to be made"):
        height, width = outcome.size
        _print(
            f"{outcome.job.source} -> {outcome.job.target} ({width}x{height})"
            + (f": {outcome.note}" if outcome.note else ""),
            console,
        )


def print_failures(outcomes: Sequence[Outcome], console: Console) -> int:
    """List what failed, and return how many that is."""
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        console.print(f"{len(failed)} of {len(outcomes)} failed:", style="red", highlight=False)
    for outcome in sorted(failed, key=lambda outcome: str(outcome.job.source)):
        _print(f"  {outcome.job.source}: {outcome.reason}", console)
    return len(failed)


def print_skipped(skipped: Skipped, console: Console) -> None:
    """Tell what was left out of the folders, and why."""
    if text := str(skipped):
        _print(text, console)


def summary(outcomes: Sequence[Outcome], seconds: float) -> Table:
    """How many pictures, and how many pixels, came to what end."""
    table = Table()
    for column in ("", "pictures", "megapixels"):
        table.add_column(column, justify="right" if column else "left")
    for status in get_args(Status):
        these = [outcome for outcome in outcomes if outcome.status == status]
        if these:
            pixels = sum(outcome.size[0] * outcome.size[1] for outcome in these)
            table.add_row(status, str(len(these)), f"{pixels / 1e6:.1f}" if pixels else "")
    table.add_section()
    table.add_row("in all", str(len(outcomes)), f"in {seconds:.1f} s")
    return table


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _print(line: str, console: Console) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
