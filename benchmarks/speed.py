"""What the service costs beside the bare network, and beside what else runs it: `make bench`.

Each row is a ratio of two things done in turn, A B A B, so that a machine whose speed drifts
favours neither. The bare network is srcnn-x3's SavedModel, called with its largest tile. Nothing
else should run meanwhile; it takes about 20 minutes on 2 cores. Linux only.
"""

import argparse
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from matplotlib.figure import Figure
from skimage import data

from superres.card import ModelCard
from superres.codecs import OutputFormat, Picture, encode
from superres.engine import SavedModelEngine
from superres.enhancer import plan
from superres.registry import DEFAULT_MODELS, choose, read_cards
from tests.serving import free_port, resident_bytes, serve_process, wait_until_ready
from training.fit import machine

SCALE = 3
RESULTS = Path(__file__).with_name("results.json")
FORMATS: tuple[OutputFormat, ...] = ("jpeg", "png", "webp")
MEGAPIXELS = (0.25, 1, 4, 16, 64)
CALLERS = (1, 2, 8, 32)
LIMITS = {"deadline_s": 600, "max_body_bytes": 2**28, "max_memory_bytes": 2**34}
"""Of the service that is measured: none that a request of 64 megapixels would meet."""
BARE_CALLS = 16
"""4.2 megapixels."""


@dataclass
class Row:
    """A against B: the median of A's time over B's, pair by pair."""

    section: str
    name: str
    ratio: float
    a_ms: float
    """Median milliseconds per output megapixel, of A; or what the section says."""
    b_ms: float
    more: dict[str, float] = field(default_factory=dict)


def photograph(height: int, width: int) -> np.ndarray:
    """A photograph's own pixels, mirrored where it ends: noise and grain as they are."""
    coffee = np.asarray(data.coffee())
    below, right = max(0, height - coffee.shape[0]), max(0, width - coffee.shape[1])
    return np.pad(coffee, [(0, below), (0, right), (0, 0)], "symmetric")[:height, :width]


def in_turn(
    a: Callable[[], float], b: Callable[[], float], rounds: int
) -> tuple[float, float, float]:
    """Median ratio of what both return, and the medians, after one of each to warm up."""
    a()
    b()
    pairs = [(a(), b()) for _ in range(rounds)]
    a_median, b_median = (statistics.median(one) for one in zip(*pairs, strict=True))
    return statistics.median(x / y for x, y in pairs), a_median, b_median


def timed(work: Callable[[], object], megapixels: float) -> Callable[[], float]:
    """Does it, and tells the milliseconds per megapixel."""

    def run() -> float:
        started = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - started) / megapixels

    return run


class Bare:
    """The SavedModel, called with its largest tile."""

    def __init__(self, card: ModelCard) -> None:
        self.engine = SavedModelEngine(DEFAULT_MODELS / card.name, card)
        side = card.geometry.largest_tile // card.geometry.upscale
        self.tiles = photograph(side, side)[None]
        self.megapixels = (side * card.geometry.upscale) ** 2 / 1e6

    def __call__(self, calls: int = BARE_CALLS) -> float:
        """Milliseconds per output megapixel."""

        def work() -> None:
            for _ in range(calls):
                self.engine.predict(self.tiles)

        return timed(work, calls * self.megapixels)()


class Asked:
    """Calls of POST /enhance by several callers at a time, and what the answers tell."""

    def __init__(
        self, http: httpx.Client, body: bytes, megapixels: float, callers: int, calls: int
    ) -> None:
        self._http, self._body, self._megapixels = http, body, megapixels
        self._callers, self._calls = callers, calls
        self._seconds: list[float] = []
        self._stages: list[dict[str, float]] = []

    def __call__(self) -> float:
        """Milliseconds per output megapixel."""
        with ThreadPoolExecutor(self._callers) as callers:
            return timed(
                lambda: list(callers.map(self._ask, range(self._calls))),
                self._calls * self._megapixels,
            )()

    def told(self) -> dict[str, float]:
        """Percentiles of a call's milliseconds, and each stage's mean per output megapixel."""
        told = {f"p{q}": 1000 * float(np.percentile(self._seconds, q)) for q in (50, 95, 99)}
        for name in self._stages[0]:
            told[name] = statistics.mean(one[name] for one in self._stages) / self._megapixels
        return told

    def _ask(self, _: int) -> None:
        started = time.perf_counter()
        while (answer := self._post()).status_code == 503:
            time.sleep(float(answer.headers["Retry-After"]))
        answer.raise_for_status()
        self._seconds.append(time.perf_counter() - started)
        timing = answer.headers.get("Server-Timing", "")
        self._stages.append({n: float(ms) for n, ms in re.findall(r"(\w+);dur=([\d.]+)", timing)})

    def _post(self) -> httpx.Response:
        return self._http.post("/enhance", files={"file": self._body})


def asked(
    http: httpx.Client, output_format: OutputFormat, megapixels: float, callers: int, calls: int
) -> Asked:
    """Pictures that have about so many output pixels, in the format that is wanted back."""
    side = round(math.sqrt(megapixels * 1e6) / SCALE)
    body = encode(Picture(photograph(side, side)), output_format)
    return Asked(http, body, (SCALE * side) ** 2 / 1e6, callers, calls)


def service(bare: Bare) -> Iterator[Row]:
    """POST /enhance against the bare network: by size, by format, by callers."""
    with serve_process(**LIMITS) as (http, _):
        kinds = [(output_format, mp, 2) for output_format in FORMATS for mp in MEGAPIXELS]
        kinds += [("jpeg", 0.59, 1), *(("jpeg", 1, callers) for callers in CALLERS)]
        for output_format, megapixels, callers in kinds:
            calls = max(2 * callers, math.ceil(12 / megapixels / callers) * callers)
            calls = min(calls, callers * 8)
            work = asked(http, output_format, megapixels, callers, calls)
            ratio, a, b = in_turn(work, bare, 3 if megapixels < 16 else 2)
            name = f"{output_format}, {megapixels:g} MP, callers: {callers}"
            yield Row("service", name, ratio, a, b, work.told())


def crowd(_: Bare) -> Iterator[Row]:
    """The throughput at 32 callers over that at 2."""
    with serve_process(**LIMITS) as (http, _):
        many, few = (asked(http, "jpeg", 1, callers, 32) for callers in (32, 2))
        ratio, a, b = in_turn(few, many, 3)
        yield Row("crowd", "throughput, 32 callers over 2", ratio, a, b)


def runtimes(bare: Bare) -> Iterator[Row]:
    """The bare call against other runtimes', with the same weights and tile."""
    from benchmarks import rivals

    onnx = rivals.to_onnx()
    card = bare.engine.card
    float32 = SavedModelEngine(DEFAULT_MODELS / card.name, card, precision="float32")
    others = {
        "the same SavedModel, float32": float32.predict,
        "OpenVINO, bfloat16": rivals.openvino(onnx, "bf16"),
        "OpenVINO, float32": rivals.openvino(onnx, "f32"),
        "ONNX Runtime, float32": rivals.onnx_runtime(onnx),
        "keras.Model.predict, float32": rivals.keras_predict(),
    }
    for name, predict in others.items():
        other = timed(partial(predict, bare.tiles), bare.megapixels)
        ratio, a, b = in_turn(partial(bare, 1), other, 25)
        yield Row("runtimes", name, ratio, a, b)


def handlers(_: Bare) -> Iterator[Row]:
    """POST /enhance against other ways to serve it; 8 callers, 256x256 JPEG to 768x768."""
    for rival in ("handler", "litserve"):
        with serve_process(**LIMITS) as (ours, _), rival_process(rival) as theirs:
            works = [asked(http, "jpeg", 0.59, 8, 24) for http in (ours, theirs)]
            ratio, a, b = in_turn(*works, 3)
            yield Row("handlers", rival, ratio, a, b)


@contextmanager
def rival_process(name: str) -> Iterator[httpx.Client]:
    """One of :mod:`benchmarks.rivals`, answering."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.rivals", name, "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=600,
            limits=httpx.Limits(max_connections=None),
        ) as http:
            _wait_for(http)
            yield http
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # LitServe's has children
        process.wait()


def _wait_for(http: httpx.Client) -> None:
    """Until a picture is enhanced."""
    body = encode(Picture(photograph(32, 32)), "jpeg")
    for _ in range(1200):
        with suppress(httpx.TransportError):
            if http.post("/enhance", files={"file": body}).status_code == 200:
                return
        time.sleep(0.05)
    raise TimeoutError(f"no picture from {http.base_url}")


def start_up(_: Bare) -> Iterator[Row]:
    """From a cold start to the first enhanced picture, in ms, of which TensorFlow's import."""

    def first_picture() -> float:
        started = time.perf_counter()
        with serve_process(ready=False, **LIMITS) as (http, pid):
            _wait_for(http)
            seconds = time.perf_counter() - started
            wait_until_ready(http)
            more["all models ready"] = 1000 * (time.perf_counter() - started)
            more["resident MB"] = resident_bytes(pid) / 1e6
        return 1000 * seconds

    def tensorflow() -> float:
        command = [sys.executable, "-c", "import tensorflow"]
        return timed(partial(subprocess.run, command, check=True, stderr=subprocess.DEVNULL), 1)()

    more: dict[str, float] = {}
    ratio, a, b = in_turn(first_picture, tensorflow, 3)
    yield Row("start_up", "first picture over TensorFlow's import", ratio, a, b, more)


def waste(_: Bare) -> Iterator[Row]:
    """Pixels that the network works on over those that are kept: halo and padding."""
    geometry = choose(read_cards(DEFAULT_MODELS), "srcnn", SCALE).geometry
    for name, size in (("4000x3000 plane", (3000, 4000)), ("200x200 input", (600, 600))):
        cut = plan(size, geometry)
        worked, kept = cut.tiles * cut.tile[0] * cut.tile[1], size[0] * size[1]
        yield Row("waste", name, worked / kept, worked, kept)


SECTIONS: dict[str, Callable[[Bare], Iterator[Row]]] = {
    "waste": waste,
    "start_up": start_up,
    "runtimes": runtimes,
    "service": service,
    "crowd": crowd,
    "handlers": handlers,
}


def main() -> None:
    """Measure, keep what other sections said, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    only = parser.parse_args().only
    card = choose(read_cards(DEFAULT_MODELS), "srcnn", SCALE)
    bare = Bare(card)
    earlier = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = [Row(**row) for row in earlier]
    for section in only:
        measured = []
        for row in SECTIONS[section](bare):
            print(section, row.name, f"{row.ratio:.2f}", flush=True)
            measured.append(row)
        rows = [row for row in rows if row.section != section] + measured
    measured_on = f"{machine()}; {card.name}, {bare.engine.precision}"
    kept = {"machine": measured_on, "rows": [asdict(row) for row in rows]}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(report(measured_on, rows))
    plot(rows, RESULTS.with_suffix(".png"))


ABOUT = {
    "waste": "Pixels that the network works on (halo and padding among them) over those kept.",
    "start_up": "A cold start to the first enhanced picture, over `import tensorflow`; ms.",
    "runtimes": "The bare SavedModel call over other runtimes with the same weights, on one tile "
    "of 512x512; ms a megapixel. Below 1, the SavedModel is faster.",
    "service": "`POST /enhance` from file to file over the bare SavedModel call on as many pixels; "
    "ms an output megapixel. Both files are in the format that is named.",
    "crowd": "Ms a megapixel of 2 callers over those of 32: at 1, the crowd costs nothing.",
    "handlers": "`POST /enhance` over other services with the same weights, 8 callers, 256x256 "
    "JPEG to 768x768; ms a megapixel. `handler` is FastAPI around `keras.Model.predict`, "
    "`litserve` LitServe around the SavedModel in bfloat16; both take a picture in one piece.",
}
TITLES = {
    "waste": "Waste",
    "start_up": "Start-up",
    "runtimes": "Runtimes",
    "service": "The service over the bare network",
    "crowd": "A crowd",
    "handlers": "Other services",
}


def report(machine: str, rows: list[Row]) -> str:
    """The Markdown of all rows."""
    lines = [
        "# What the service costs\n",
        f"Measured on: {machine}. Made by `make bench`; each row is A over B, done in turn.",
    ]
    for section, title in TITLES.items():
        these = [row for row in rows if row.section == section]
        if not these:
            continue
        extra = list(dict.fromkeys(name for row in these for name in row.more))
        columns = ["", "A / B", "A", "B", *extra]
        lines += [f"\n## {title}\n", f"{ABOUT[section]}\n"]
        lines += [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
        for row in these:
            figures = [row.a_ms, row.b_ms, *(row.more.get(name, math.nan) for name in extra)]
            cells = [f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}" for figure in figures]
            lines.append(f"| {row.name} | **{row.ratio:.2f}** | {' | '.join(cells)} |")
        if section == "service":
            lines.append(
                "\np50, p95 and p99 are ms of a call; from `decode` on, ms an output megapixel by "
                "the service's own stopwatch. With several callers, stages of one wait for others."
            )
    return "\n".join(lines) + "\n"


STAGES = ("decode", "queue", "infer", "bicubic", "encode")


def plot(rows: list[Row], file: Path) -> None:
    """The service's ratio by size and format; where a lone caller's time goes."""
    named = {row.name: row for row in rows if row.section == "service"}
    if not named:
        return
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    by_size, by_stage = figure.subplots(1, 2)
    for output_format in FORMATS:
        ratios = [named[f"{output_format}, {mp:g} MP, callers: 2"].ratio for mp in MEGAPIXELS]
        by_size.plot(MEGAPIXELS, ratios, marker="o", label=output_format)
    by_size.axhline(1, color="k", linewidth=0.8, linestyle="--")
    by_size.set(xscale="log", xlabel="output, megapixels", ylabel="time over the bare network's")
    by_size.set_xticks(MEGAPIXELS, [f"{mp:g}" for mp in MEGAPIXELS])
    by_size.set_title("2 callers", fontsize="medium")
    by_size.legend()
    left = np.zeros(len(FORMATS))
    for stage in STAGES:
        cost = [named[f"{one}, 4 MP, callers: 2"].more[stage] for one in FORMATS]
        by_stage.barh(FORMATS, cost, left=left, label=stage)
        left += cost
    by_stage.set(xlabel="ms an output megapixel of a call")
    by_stage.set_title("4 MP, 2 callers: where a call's time goes", fontsize="medium")
    by_stage.legend(fontsize="small")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
