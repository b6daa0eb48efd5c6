"""How well a proof on a caller's own picture foretells the true gain: `benchmarks/proof.py SETS`.

Each picture of a set is shrunk by the scale: that is what a caller has. What the service
estimates from it alone is put beside what the model truly gains, which the set knows.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from superres import Enhancer, load_model
from superres.arrays import RgbU8
from superres.codecs import Picture, decode, encode
from superres.codecs.jpeg import jpeg_settings
from superres.evaluation.proof import compare_pair, estimate
from superres.resample import degrade, scaled_size

SCALES = (1.5, 2, 3)
JPEG_QUALITY = 75


@dataclass(frozen=True)
class Row:
    """One set at one scale: gains in dB, a picture an element."""

    dataset: str
    scale: float
    true: np.ndarray
    estimated: np.ndarray

    @property
    def right(self) -> int:
        """Pictures on which the estimate says rightly who wins."""
        return int(np.sum((self.true > 0) == (self.estimated > 0)))


def main() -> None:
    """Print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", type=Path, help="folders of NAME_hr.webp")
    parser.add_argument("--plot", type=Path, default=Path("proof.png"))
    arguments = parser.parse_args()
    rows = []
    for scale in SCALES:
        enhancer = load_model("srcnn", scale=scale)
        for folder in arguments.sets:
            truths = [decode(file.read_bytes()).rgb for file in sorted(folder.glob("*_hr.webp"))]
            for jpeg in (False, True):
                rows.append(measure(enhancer, truths, folder.parent.name, scale, jpeg))
    table = Table()
    for column in ("set", "pictures", "true gain, dB", "estimate, dB", "correlation", "sign right"):
        table.add_column(column, justify="left" if column == "set" else "right")
    for row in rows:
        table.add_row(
            f"{row.dataset} x{row.scale:g}",
            str(len(row.true)),
            f"{row.true.mean():+.2f}",
            f"{row.estimated.mean():+.2f}",
            f"{np.corrcoef(row.true, row.estimated)[0, 1]:.2f}",
            f"{row.right}/{len(row.true)}",
        )
    Console(width=100).print(table)
    draw(rows, arguments.plot)


def measure(enhancer: Enhancer, truths: list[RgbU8], dataset: str, scale: float, jpeg: bool) -> Row:
    """Estimate and true gain on every picture; ``jpeg`` sends the small ones through it."""
    true, estimated = [], []
    for hr in truths:
        # All SCALES divide these sides.
        height, width = (side - side % 6 for side in hr.shape[:2])
        hr = hr[:height, :width]
        lr = degrade(hr, scaled_size((height, width), 1 / scale))
        upload = encode(Picture(lr), "jpeg" if jpeg else "png", JPEG_QUALITY)
        lr = decode(upload).rgb
        true.append(compare_pair(enhancer, hr, lr, scale).gain_db)
        estimated.append(estimate(enhancer, lr, scale, jpeg=jpeg_settings(upload)).gain_db)
    name = f"{dataset}-jpeg{JPEG_QUALITY}" if jpeg else dataset
    return Row(name, scale, np.array(true), np.array(estimated))


def draw(rows: list[Row], file: Path) -> None:
    """A panel a scale: the estimate across, the true gain up; right is off the shaded quarters."""
    figure, panels = plt.subplots(1, len(SCALES), figsize=(4 * len(SCALES), 4.2), squeeze=False)
    for scale, panel in zip(SCALES, panels[0], strict=True):
        shown = [row for row in rows if row.scale == scale]
        gains = np.concatenate([np.concatenate([row.true, row.estimated]) for row in shown])
        low, high = gains.min() - 0.2, gains.max() + 0.2
        for x, y in (((low, 0), (0, high)), ((0, high), (low, 0))):
            panel.fill_between(x, y[0], y[1], color="tab:red", alpha=0.08, linewidth=0)
        panel.plot((low, high), (low, high), color="grey", linewidth=0.8)
        for row in shown:
            marker = "x" if "jpeg" in row.dataset else "o"
            panel.scatter(row.estimated, row.true, s=14, marker=marker, label=row.dataset)
        panel.set(
            title=f"x{scale:g}",
            xlim=(low, high),
            ylim=(low, high),
            xlabel="estimate, dB",
            ylabel="true gain, dB",
        )
    handles, labels = panels[0][-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
