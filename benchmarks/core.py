"""What the core costs beside the bare network, on this machine: `make bench`.

Each row is a ratio of two things done in turn, A B A B, so that a machine whose speed
drifts does not favour either.
"""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from superres import Enhancer
from superres.codecs import Picture, decode, encode
from superres.engine import SavedModelEngine
from superres.registry import DEFAULT_MODELS, choose, read_cards
from superres.resample import upsample

ROUNDS = 7
SIDE = 512
"""Of the LR picture, px: 2.36 output megapixels at x3."""


def main() -> None:
    """Print the table."""
    card = choose(read_cards(DEFAULT_MODELS), "srcnn", 3)
    folder = DEFAULT_MODELS / card.name
    float32 = SavedModelEngine(folder, card, precision="float32")
    bfloat16 = SavedModelEngine(folder, card, precision="bfloat16")
    fast = SavedModelEngine(folder, card)
    lr = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    size = (3 * SIDE, 3 * SIDE)
    megapixels = size[0] * size[1] / 1e6
    plane = upsample(lr, size)
    tiles = np.ascontiguousarray(plane.reshape(3, SIDE, 3, SIDE, 3).swapaxes(1, 2)).reshape(
        9, SIDE, SIDE, 3
    )
    enhancer = Enhancer(fast, card.geometry)
    jpeg = encode(Picture(lr), "jpeg")

    def file_to_file() -> bytes:
        return encode(enhancer.enhance(decode(jpeg), 3), "jpeg")

    rows: list[tuple[str, Callable[[], object], str, Callable[[], object]]] = [
        (
            "bare network, float32",
            lambda: float32.predict(tiles),
            "bfloat16",
            lambda: bfloat16.predict(tiles),
        ),
        (
            "enhance_rgb",
            lambda: enhancer.enhance_rgb(lr, size),
            "bare network",
            lambda: fast.predict(tiles),
        ),
        ("JPEG to JPEG", file_to_file, "bare network", lambda: fast.predict(tiles)),
        ("bicubic", lambda: upsample(lr, size), "bare network", lambda: fast.predict(tiles)),
    ]
    table = Table(
        title=f"{card.name}, {fast.precision}, {fast.device}, {os.cpu_count()} cores; "
        f"median of {ROUNDS}, ms per output megapixel"
    )
    for column in ("A", "ms", "B", "ms", "A / B"):
        table.add_column(column, justify="left" if column in "AB" else "right")
    for a_name, a, b_name, b in rows:
        a_seconds, b_seconds = in_turn(a, b)
        ratio = statistics.median(x / y for x, y in zip(a_seconds, b_seconds, strict=True))
        a_ms, b_ms = (1000 * statistics.median(s) / megapixels for s in (a_seconds, b_seconds))
        table.add_row(a_name, f"{a_ms:.1f}", b_name, f"{b_ms:.1f}", f"{ratio:.2f}")
    Console().print(table)


def in_turn(a: Callable[[], object], b: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Seconds of each call, after one of each to warm up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    a()
    b()
    for _ in range(ROUNDS):
        for call, taken in zip((a, b), seconds, strict=True):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
