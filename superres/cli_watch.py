"""``superres enhance --watch``: pictures are enhanced as they are put into a folder."""

import signal
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

from rich.console import Console

from superres.batch.plan import plan
from superres.batch.runner import BatchRunner
from superres.batch.watch import watch
from superres.cli_report import print_failures, print_outcome
from superres.codecs import OutputFormat
from superres.errors import BadRequest
from superres.paths import AnyPath, is_inside


def enhance_watched(
    folder: AnyPath,
    output: AnyPath,
    output_format: OutputFormat | None,
    runner: BatchRunner,
    *,
    recursive: bool,
    console: Console,
) -> None:
    """Enhance what is in a folder and what is put there, until Ctrl-C or SIGTERM.

    The pictures that are being made then are finished; a second Ctrl-C does not wait for them.

    Raises:
        BadRequest: it is no folder of this machine, or the results would be put into it.
    """
    if not isinstance(folder, Path) or not folder.is_dir():
        raise BadRequest(f"--watch is for a folder of this machine; {folder} is not one")
    if is_inside(output, folder) and is_inside(folder, output):
        raise BadRequest(
            f"the results would be put into {folder} and be enhanced again: choose another -o"
        )
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    console.print(f"watching {folder}; Ctrl-C ends it", highlight=False, markup=False)
    ends: Counter[str] = Counter()
    for jobs in watch(
        folder,
        recursive,
        lambda: plan([folder], output, output_format, recursive=recursive),
        stop,
    ):
        outcomes = []
        for outcome in runner.run(jobs, lambda job, part: None):
            print_outcome(outcome, console)
            ends[outcome.status] += 1
            outcomes.append(outcome)
            if stop.is_set():
                break
        print_failures(outcomes, console)
    told = ", ".join(f"{count} {status}" for status, count in ends.items())
    console.print(f"ended: {told or 'nothing was put there'}", highlight=False)
