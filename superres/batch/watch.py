"""Watches a folder for pictures that are put into it, by looking again and again.

Networks' file systems and buckets' mounts tell nobody of new files, so looking is all that works
everywhere.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from superres.batch.plan import Job, Plan

POLL_S = 0.5
"""Seconds between two looks."""
SETTLE_S = 2.0
"""Seconds for which a file has not changed when it is taken: it may still be written before."""

Stamp = tuple[int, int, int]
"""What changes when a file is written: its number, its size and its time of change in ns."""


class Settling:
    """Tells which files have stopped changing; each once, until it changes again.

    Args:
        seconds: for which a file must not have changed.
    """

    def __init__(self, seconds: float = SETTLE_S) -> None:
        self._seconds = seconds
        self._since: dict[Path, tuple[Stamp, float]] = {}
        self._told: dict[Path, Stamp] = {}

    def settled(self, stamps: Mapping[Path, Stamp], now: float) -> set[Path]:
        """The files that have settled since the last look.

        Args:
            stamps: of all files that there are.
            now: seconds of a clock that runs evenly.
        """
        for known in (self._since, self._told):
            for gone in known.keys() - stamps.keys():
                del known[gone]
        settled = set()
        for file, stamp in stamps.items():
            before, since = self._since.get(file, (None, now))
            if before != stamp:
                self._since[file] = stamp, now
            elif now - since >= self._seconds and self._told.get(file) != stamp:
                self._told[file] = stamp
                settled.add(file)
        return settled


def watch(
    folder: Path, recursive: bool, plan: Callable[[], Plan], stop: threading.Event
) -> Iterator[list[Job]]:
    """Yield jobs for the pictures that are put into a folder, until ``stop`` is set.

    Those that are there already come first.

    Args:
        folder: what is watched.
        recursive: whether folders in it are, too.
        plan: makes the plan of all that is in the folder now.
        stop: ends it.
    """
    settling = Settling()
    while not stop.is_set():
        settled = settling.settled(_stamps(folder, recursive), time.monotonic())
        if settled:
            try:
                jobs = plan().jobs
            except FileNotFoundError:  # no pictures among the files
                jobs = []
            if jobs := [job for job in jobs if job.source in settled]:
                yield jobs
        stop.wait(POLL_S)


def _stamps(folder: Path, recursive: bool) -> dict[Path, Stamp]:
    stamps = {}
    for file in _visible(folder.rglob("*") if recursive else folder.iterdir(), folder):
        try:
            stat = file.stat()
        except OSError:  # it is gone
            continue
        stamps[file] = stat.st_ino, stat.st_size, stat.st_mtime_ns
    return stamps


def _visible(files: Iterable[Path], folder: Path) -> Iterator[Path]:
    for file in files:
        if not any(part.startswith(".") for part in file.relative_to(folder).parts):
            yield file
