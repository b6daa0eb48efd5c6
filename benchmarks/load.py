"""The service under load, with the shipped model, on loopback: `make bench-load`.

What it carries, how long requests take at 80 % of that and at twice that, what memory does
meanwhile, and what a 512x512 picture waits beside one of 50 megapixels. Linux only.
"""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table
from skimage import data, transform

from superres.arrays import to_integer
from superres.codecs import Picture, encode
from tests.serving import resident_bytes, serve_process

SECONDS = 30
SMALL = 200
"""Side of the pictures that the load is made of, px; enlarged by 3."""


def photograph(height: int, width: int) -> bytes:
    """A JPEG."""
    resized = transform.resize(data.coffee(), (height, width)).astype(np.float32)
    return encode(Picture(to_integer(resized, np.uint8)), "jpeg")


def timed(client: httpx.Client, content: bytes) -> tuple[int, float]:
    """Status and seconds of one call."""
    started = time.perf_counter()
    status = client.post("/enhance", content=content).status_code
    return status, time.perf_counter() - started


def capacity(client: httpx.Client, content: bytes) -> float:
    """Calls a second that four callers get who ask again as soon as they have an answer."""
    until = time.monotonic() + SECONDS

    def ask(_: int) -> int:
        answered = 0
        while time.monotonic() < until:
            answered += timed(client, content)[0] == 200
        return answered

    with ThreadPoolExecutor(4) as callers:
        return sum(callers.map(ask, range(4))) / SECONDS


def at_rate(client: httpx.Client, content: bytes, rate: float) -> list[tuple[int, float]]:
    """Calls at random times (a Poisson process), whatever becomes of the earlier ones."""
    gaps, next_at = random.Random(0), time.monotonic()
    with ThreadPoolExecutor(256) as callers:
        calls = []
        for _ in range(int(rate * SECONDS)):
            next_at += gaps.expovariate(rate)
            time.sleep(max(0, next_at - time.monotonic()))
            calls.append(callers.submit(timed, client, content))
        return [call.result() for call in calls]


def fairness(client: httpx.Client) -> tuple[float, float]:
    """Median seconds of a 512x512 picture: alone, and beside one of 50 megapixels of output."""
    small, large = photograph(512, 512), photograph(2357, 2357)

    def median() -> float:
        return float(np.median([timed(client, small)[1] for _ in range(9)]))

    alone, stop = median(), threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            client.post("/enhance", content=large).raise_for_status()

    beside = threading.Thread(target=repeat)
    beside.start()
    time.sleep(1)
    try:
        return alone, median()
    finally:
        stop.set()
        beside.join()


def main() -> None:
    """Measure and print."""
    content = photograph(SMALL, SMALL)
    with serve_process(deadline_s=600) as (client, pid):
        timed(client, content)
        rate = capacity(client, content)
        table = Table(title=f"{SMALL}x{SMALL} px by 3; {rate:.1f} a second can be carried")
        for column in ("load", "answered", "503", "p50, s", "p99, s", "resident, MB"):
            table.add_column(column, justify="right")
        p99 = {}
        for load in (0.8, 2.0):
            answers = at_rate(client, content, load * rate)
            seconds = [one for status, one in answers if status == 200]
            p99[load] = float(np.percentile(seconds, 99))
            refused = sum(status == 503 for status, _ in answers)
            table.add_row(
                f"{load:.0%}",
                f"{len(seconds)}",
                f"{refused}",
                f"{np.median(seconds):.2f}",
                f"{p99[load]:.2f}",
                f"{resident_bytes(pid) / 1e6:.0f}",
            )
        alone, beside = fairness(client)
    console = Console()
    console.print(table)
    console.print(f"p99 at 200 % over p99 at 80 %: {p99[2.0] / p99[0.8]:.2f}")
    console.print(
        f"512x512 by 3: {alone:.2f} s alone, {beside:.2f} s beside 50 MP: {beside / alone:.2f}"
    )


if __name__ == "__main__":
    main()
