"""Reports of a run: ``history.csv``, ``curves.png`` and TensorBoard."""

import csv
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from matplotlib.figure import Figure
from tensorboardX import SummaryWriter

from superres.arrays import RgbU8
from superres.models.card import Scores

TENSORBOARD = "tensorboard"


class Report:
    """Reports that are updated at every validation, if ``writing`` is true for this process."""

    def __init__(self, run: Path, *, steps_done: int, writing: bool) -> None:
        self.run = run
        self.writing = writing
        self._board = SummaryWriter(
            str(run / TENSORBOARD),
            purge_step=steps_done + 1 if steps_done else None,
            write_to_disk=writing,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._board.close()

    def add_strip(self, number: int, strip: RgbU8, step: int) -> None:
        """Show bicubic, the network's output and the ground truth of a held-out picture."""
        self._board.add_image(f"validation/{number}", strip, step, dataformats="HWC")

    def update(self, history: list[dict[str, Any]], bicubic: Mapping[str, Scores]) -> None:
        """Add the last row of the history to TensorBoard, and rewrite the files."""
        row = history[-1]
        for name, value in row.items():
            if isinstance(value, float):
                self._board.add_scalar(name, value, row["step"])
        if self.writing:
            _write_history(history, self.run / "history.csv")
            _draw_curves(history, bicubic, self.run / "curves.png")


def _write_history(history: list[dict[str, Any]], file: Path) -> None:
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, history[0])
        writer.writeheader()
        writer.writerows(history)


def _draw_curves(history: list[dict[str, Any]], bicubic: Mapping[str, Scores], file: Path) -> None:
    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    steps = [row["step"] for row in history]
    for color, (kind, scores) in enumerate(bicubic.items()):
        above.plot(steps, [row[f"{kind}_psnr_y"] for row in history], f"C{color}", label=kind)
        above.axhline(scores.psnr_y, color=f"C{color}", linestyle="--", label=f"{kind}, bicubic")
    above.set_ylabel("PSNR of luma, dB")
    above.legend()
    below.plot(steps, [row["loss"] for row in history])
    below.set_yscale("log")
    below.set_ylabel("training loss")
    below.set_xlabel("step")
    figure.savefig(file, dpi=100)
