"""How much memory one request takes, beside the rule: `make bench-memory`.

The rule: above idle, no more than 1.3 x 4 bytes for each input and output pixel, twice that
at 16 bits, plus the encoded bodies, plus 400 MB. A comparison has no rule: it is held against
its own forecast. Linux only.
"""

import argparse
import math
import time
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table
from skimage import data, transform

from app.inference.startup import default_cards, preloaded_cards
from superres.arrays import to_integer
from superres.codecs import OutputFormat, Picture, encode, probe
from superres.forecast import forecast_comparison
from superres.models.registry import AUTO, DEFAULT_MODELS, all_cards, choose, read_cards
from tests.serving import reset_peak, resident_bytes, serve_process, wait_until

SCALE = 3
MEGAPIXELS = (1, 4, 16, 64, 100)
KINDS: tuple[tuple[OutputFormat, int, int], ...] = (
    ("png", 8, 3),
    ("png", 8, 4),
    ("jpeg", 8, 3),
    ("webp", 8, 3),
    ("webp", 8, 4),
    ("png", 16, 3),
    ("tiff", 16, 4),
)
"""Format, bits, channels."""
COMPARED_MEGAPIXELS = (1, 4, 16)
"""Of the pictures that are compared."""
LIMITS = {"deadline_s": 600, "max_body_bytes": 2**28, "max_memory_bytes": 2**34}
"""Of the service that is measured: none that a request of 100 megapixels would meet."""


def photograph(megapixels: float, bits: int, channels: int, scale: float = SCALE) -> Picture:
    """A noisy photograph that has about so many output pixels: noise compresses badly."""
    side = math.sqrt(megapixels * 1e6) / scale
    rgb = transform.resize(data.coffee(), (round(side), round(side), 3)).astype(np.float32)
    rgb += np.random.default_rng(0).normal(0, 0.02, rgb.shape).astype(np.float32)
    samples = np.dstack([rgb, np.tile(np.linspace(0, 1, rgb.shape[1]), (rgb.shape[0], 1))])
    dtype = np.uint8 if bits == 8 else np.uint16
    return Picture(to_integer(samples[..., :channels].astype(np.float32), dtype))


def measure(
    client: httpx.Client, pid: int, picture: Picture, output_format: OutputFormat
) -> tuple[int, int, int]:
    """Bytes that one request peaks at above idle, what the rule allows, and the forecast."""
    upload = encode(picture, "tiff" if output_format == "tiff" else "png")
    params: dict[str, str | int] = {"scale": SCALE, "format": output_format}
    report = client.post("/enhance", content=upload, params=params | {"dry_run": 1}).json()
    idle = resident_bytes(pid)
    reset_peak(pid)
    answer = client.post("/enhance", content=upload, params=params)
    answer.raise_for_status()
    peak = resident_bytes(pid, peak=True) - idle
    pixels = (1 + SCALE**2) * picture.size[0] * picture.size[1]
    sixteen = picture.samples.dtype == np.uint16
    rule = 1.3 * 4 * pixels * (2 if sixteen else 1) + len(upload) + len(answer.content) + 400e6
    return peak, int(rule), report["peak_bytes"]


def measure_comparison(client: httpx.Client, pid: int, picture: Picture) -> tuple[int, int]:
    """Bytes that POST /compare, answered as a page, peaks at above idle, and the forecast."""
    upload = encode(picture, "png")
    card = choose(read_cards(DEFAULT_MODELS), "srcnn", SCALE)
    forecast = forecast_comparison(probe(upload), len(upload), SCALE, card.geometry)
    idle = resident_bytes(pid)
    reset_peak(pid)
    headers = {"Accept": "text/html"}
    client.post("/compare", content=upload, headers=headers).raise_for_status()
    return resident_bytes(pid, peak=True) - idle, forecast.peak_bytes


def print_idle() -> None:
    """Print the memory of an idle service, and when it was ready, by what it loads at the start."""
    cards = all_cards(DEFAULT_MODELS)
    for preload in ("", "auto", "all"):
        at_start = (*default_cards(AUTO, cards), *preloaded_cards(preload, cards))
        wanted = {card.name for card in at_start}
        started = time.perf_counter()
        with serve_process(device="cpu", preload=preload) as (client, pid):
            ready = time.perf_counter() - started
            wait_until(partial(are_loaded, client, len(wanted)))
            megabytes = resident_bytes(pid) / 1e6
            print(
                f"preload={preload or 'nothing'}: ready after {ready:.1f} s; idle with "
                f"{len(wanted)} models: {megabytes:.0f} MB",
                flush=True,
            )


def are_loaded(client: httpx.Client, number: int) -> bool:
    """Whether the service has loaded so many models."""
    return len(client.get("/readyz").json()["models"]) == number


def main() -> None:
    """Measure, print, and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path, help="where to put the chart")
    parser.add_argument("--idle", action="store_true", help="only the memory of an idle service")
    arguments = parser.parse_args()
    if arguments.idle:
        print_idle()
        return
    plot = arguments.plot
    table = Table(title=f"one request at x{SCALE}: memory above idle, MB")
    for column in ("kind", "output, MP", "peak", "rule", "peak / rule", "forecast"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    # Imported here, as the tests that measure memory do without.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for output_format, bits, channels in KINDS:
        peaks = []
        for megapixels in MEGAPIXELS:
            # A fresh process each: memory that an earlier one left would hide this one's.
            with serve_process(device="cpu", **LIMITS) as (client, pid):
                picture = photograph(megapixels, bits, channels)
                measure(client, pid, photograph(0.3, bits, channels), output_format)
                peak, rule, forecast = measure(client, pid, picture, output_format)
            peaks.append(peak / 1e6)
            kind = f"{output_format}, {bits} bits, {'RGBA' if channels == 4 else 'RGB'}"
            cells = (peak / 1e6, rule / 1e6, peak / rule, forecast / 1e6)
            shown = [f"{cells[0]:.0f}", f"{cells[1]:.0f}", f"{cells[2]:.2f}", f"{cells[3]:.0f}"]
            table.add_row(kind, f"{megapixels}", *shown)
            print(kind, megapixels, *shown, flush=True)
        axes.plot(MEGAPIXELS, peaks, marker="o", label=kind)
    for megapixels in COMPARED_MEGAPIXELS:
        with serve_process(device="cpu", **LIMITS) as (client, pid):
            picture = photograph(megapixels, 8, 3, scale=1)
            measure_comparison(client, pid, photograph(0.03, 8, 3, scale=1))
            peak, forecast = measure_comparison(client, pid, picture)
        shown = [f"{peak / 1e6:.0f}", "", "", f"{forecast / 1e6:.0f}"]
        table.add_row("POST /compare", f"{megapixels}", *shown)
        print(
            "compare", megapixels, *shown, f"{peak / picture.rgb.size * 3:.0f} a pixel", flush=True
        )
    for factor, bits in ((1, 8), (2, 16)):
        per_output_pixel = 1.3 * 4 * (1 + 1 / SCALE**2) * factor
        rules = [per_output_pixel * megapixels + 400 for megapixels in MEGAPIXELS]
        label = f"rule at {bits} bits, without bodies"
        axes.plot(MEGAPIXELS, rules, "k--" if bits == 8 else "k:", label=label)
    axes.set(xlabel="output, megapixels", ylabel="peak above idle, MB")
    axes.legend(fontsize="small")
    if plot is not None:
        figure.savefig(plot, dpi=120)
    Console().print(table)


if __name__ == "__main__":
    main()
