"""What the service costs beside the bare network, and beside what else runs it: `make bench`.

Each row is a ratio of two things done in turn, A B A B, so that a machine whose speed drifts
favours neither. The bare network is srcnn-x3's SavedModel, called with two of its largest tiles at
once. Nothing else should run meanwhile; all of it takes about 10 minutes on 2 cores. With `--only
jpeg png`, those sections take the place of what the report said, if it was made on such a machine.
Linux only.
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

from superres import load_model
from superres.codecs import OutputFormat, Picture, decode, encode
from superres.engines.tensorflow import SavedModelEngine
from superres.enhancer import Enhancer, plan
from superres.models.card import ModelCard
from superres.models.registry import DEFAULT_MODELS, choose, read_cards
from superres.resample import resize_bands
from tests.serving import free_port, resident_bytes, serve_process, wait_until_ready
from training.provenance import machine

FAMILY, SCALE = "srcnn", 3
"""Of the model that is measured."""
RESULTS = Path(__file__).with_name("results.json")
FORMATS: tuple[OutputFormat, ...] = ("jpeg", "png", "webp")
CALLS = {0.25: 16, 1: 12, 4: 4, 16: 2, 64: 2}
"""By output megapixels of a picture: how often it is sent in a round, by two callers."""
CALLERS = {1: 8, 2: 16, 8: 24, 32: 32}
"""By their number: how often they send 1 megapixel in a round."""
SMALL = 0.59
"""Megapixels of 768x768, from 256x256."""
LIMITS = {"deadline_s": 600, "max_body_bytes": 2**28, "max_memory_bytes": 2**34}
"""Of the service that is measured: none that a request of 64 megapixels would meet."""
BARE_CALLS = 16
"""4.2 megapixels."""
ROUNDS = 3


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
    """Median ratio of what both return, and the medians. Both are warm."""
    pairs = [(a(), b()) for _ in range(rounds)]
    a_median, b_median = (statistics.median(one) for one in zip(*pairs, strict=True))
    return statistics.median(x / y for x, y in pairs), a_median, b_median


def timed(work: Callable[[], object], megapixels: float) -> Callable[[], float]:
    """Do it, and return the milliseconds per megapixel."""

    def run() -> float:
        started = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - started) / megapixels

    return run


class Bare:
    """The SavedModel, called with two of its largest tiles."""

    def __init__(self, card: ModelCard) -> None:
        self.engine = SavedModelEngine(DEFAULT_MODELS / card.name, card)
        side = card.geometry.largest_tile // card.geometry.upscale
        self.tiles = np.stack([photograph(side, side)] * 2)
        self.megapixels = 2 * ((side - 2 * card.geometry.halo) * card.geometry.upscale) ** 2 / 1e6
        self()

    def __call__(self, calls: int = BARE_CALLS) -> float:
        """Milliseconds per output megapixel, the halo not counted."""

        def work() -> None:
            for _ in range(calls):
                self.engine.predict(self.tiles)

        return timed(work, calls * self.megapixels)()


class Asked:
    """Calls of POST /enhance by several callers at a time, and what the answers say.

    Args:
        http: the service, which is asked once to warm up.
        output_format: of the pictures that are sent, and come back.
        megapixels: that come back, about.
        callers: at a time.
        calls: in all.
    """

    def __init__(
        self,
        http: httpx.Client,
        output_format: OutputFormat,
        megapixels: float,
        callers: int,
        calls: int,
    ) -> None:
        side = round(math.sqrt(megapixels * 1e6) / SCALE)
        self._body = encode(Picture(photograph(side, side)), output_format)
        self._megapixels = (SCALE * side) ** 2 / 1e6
        self._http, self._callers, self._calls = http, callers, calls
        self._seconds: list[float] = []
        self._stages: list[dict[str, float]] = []
        self._post()

    def __call__(self) -> float:
        """Milliseconds per output megapixel."""
        with ThreadPoolExecutor(self._callers) as callers:
            return timed(
                lambda: list(callers.map(self._ask, range(self._calls))),
                self._calls * self._megapixels,
            )()

    def times(self) -> dict[str, float]:
        """Percentiles of a call's milliseconds, and each stage's mean per output megapixel."""
        times = {"calls": float(len(self._seconds))}
        times |= {f"p{q}": 1000 * float(np.percentile(self._seconds, q)) for q in (50, 95, 99)}
        for name in self._stages[0]:
            times[name] = statistics.mean(one[name] for one in self._stages) / self._megapixels
        return times

    def _ask(self, _: int) -> None:
        started = time.perf_counter()
        answer = self._post()
        self._seconds.append(time.perf_counter() - started)
        timing = answer.headers.get("Server-Timing", "")
        self._stages.append({n: float(ms) for n, ms in re.findall(r"(\w+);dur=([\d.]+)", timing)})

    def _post(self) -> httpx.Response:
        """The answer, after as many tries as it takes: a busy service answers 503."""
        while True:
            answer = self._http.post(
                "/enhance", params={"model": FAMILY}, files={"file": self._body}
            )
            if answer.status_code != 503:
                return answer.raise_for_status()
            time.sleep(float(answer.headers["Retry-After"]))


@contextmanager
def served(bare: Bare) -> Iterator[httpx.Client]:
    """The service, in the precision of the bare network."""
    with serve_process(**LIMITS, precision=bare.engine.precision) as (http, _):
        yield http


def over_bare(section: str, name: str, work: Asked, bare: Bare, rounds: int = ROUNDS) -> Row:
    """What is asked over the bare network, on as many pixels."""
    return Row(section, name, *in_turn(work, bare, rounds), work.times())


def pixels(output_format: OutputFormat, bare: Bare) -> Iterator[Row]:
    """POST /enhance against the bare network: as pictures grow."""
    with served(bare) as http:
        for megapixels, calls in CALLS.items():
            work = Asked(http, output_format, megapixels, 2, calls)
            rounds = ROUNDS if megapixels < 64 else 1  # of half a minute each
            yield over_bare(output_format, f"{megapixels:g} MP", work, bare, rounds)


def callers(bare: Bare) -> Iterator[Row]:
    """The same, as there are more callers; and the throughput of many over that of two."""
    with served(bare) as http:
        work = Asked(http, "jpeg", SMALL, 1, 16)
        yield over_bare("callers", "256x256 to 768x768, 1", work, bare)
        for number, calls in CALLERS.items():
            work = Asked(http, "jpeg", 1, number, calls)
            yield over_bare("callers", f"1 MP, {number}", work, bare)
        few, many = (Asked(http, "jpeg", 1, number, 64) for number in (2, 32))
        ratio, a, b = in_turn(few, many, 2)
        yield Row("crowd", "throughput, 32 callers over 2", ratio, a, b, many.times())


def pictures(bare: Bare) -> Iterator[Row]:
    """The same, as there are more pictures to be made by two callers."""
    with served(bare) as http:
        for number in (2, 8, 64):
            work = Asked(http, "jpeg", SMALL, 2, number)
            yield over_bare("pictures", f"{number} pictures", work, bare)


def around(bare: Bare) -> Iterator[Row]:
    """What one thread needs for all that is not the network, in this process."""
    rgb = photograph(1334, 1334)
    size = (SCALE * rgb.shape[0], SCALE * rgb.shape[1])
    megapixels = size[0] * size[1] / 1e6
    small, large = Picture(rgb), Picture(photograph(*size))
    without_network = Enhancer(load_model("bicubic").engine, bare.engine.card.geometry)
    works: dict[str, Callable[[], object]] = {
        f"decode, {one}": partial(decode, encode(small, one)) for one in FORMATS
    }
    works["bicubic"] = lambda: list(resize_bands(rgb, size))
    works["bicubic, cut and stitch"] = lambda: without_network.enhance(small, SCALE)
    works |= {f"encode, {one}": partial(encode, large, one) for one in FORMATS}
    for name, work in works.items():
        work()
        yield Row("around", name, *in_turn(timed(work, megapixels), bare, ROUNDS))


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
        predict(bare.tiles)
        other = timed(partial(predict, bare.tiles), bare.megapixels)
        yield Row("runtimes", name, *in_turn(partial(bare, 1), other, 25))


def opencv(files: list[Path], bare: Bare) -> Iterator[Row]:
    """OpenCV's dnn_superres, with networks of its own; whole pictures, from pixels to pixels."""
    from benchmarks import rivals

    enhancer = Enhancer(bare.engine, bare.engine.card.geometry)

    def enlarge(work: Callable[[np.ndarray], object], scale: int) -> Callable[[], float]:
        rgb = photograph(1000 // scale, 1000 // scale)
        work(rgb)
        return timed(partial(work, rgb), (rgb.shape[0] * scale) ** 2 / 1e6)

    ours = enlarge(lambda rgb: enhancer.enhance(Picture(rgb), SCALE), SCALE)
    for file in files:
        yield Row("opencv", file.stem, *in_turn(ours, enlarge(*rivals.opencv(file)), 10))


def handlers(bare: Bare) -> Iterator[Row]:
    """Other ways to serve it against POST /enhance; 8 callers, 256x256 JPEG to 768x768.

    There are eight calls a caller, so that the last ones, beside fewer others, weigh little.
    """
    for rival in ("handler", "litserve"):
        with served(bare) as http, rival_process(rival) as (rival_http, group):
            theirs, ours = (Asked(one, "jpeg", SMALL, 8, 64) for one in (rival_http, http))

            def stopped_afterwards(work: Asked = theirs, group: int = group) -> float:
                os.killpg(group, signal.SIGCONT)
                ms = work()
                os.killpg(group, signal.SIGSTOP)  # what it does while idle is not ours to pay
                return ms

            yield Row("handlers", rival, *in_turn(stopped_afterwards, ours, ROUNDS))


@contextmanager
def rival_process(name: str, *more: str) -> Iterator[tuple[httpx.Client, int]]:
    """One of :mod:`benchmarks.rivals`, answering: a client, and its group of processes."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.rivals", name, "--port", str(port), *more]
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
            yield http, process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # LitServe's has children
        process.wait()


def _wait_for(http: httpx.Client) -> None:
    """Until a picture is enhanced."""
    body = encode(Picture(photograph(32, 32)), "jpeg")
    for _ in range(1200):
        with suppress(httpx.TransportError):
            answer = http.post("/enhance", params={"model": FAMILY}, files={"file": body})
            if answer.status_code == 200:
                return
        time.sleep(0.05)
    raise TimeoutError(f"no picture from {http.base_url}")


def start_up(_: Bare) -> Iterator[Row]:
    """From a cold start to the first enhanced picture, in ms, of which TensorFlow's import."""

    def first_picture() -> float:
        started = time.perf_counter()
        with serve_process(ready=False, default_model=FAMILY, **LIMITS) as (http, pid):
            _wait_for(http)
            seconds = time.perf_counter() - started
            wait_until_ready(http)
            more["ready"] = 1000 * (time.perf_counter() - started)
            more["resident MB"] = resident_bytes(pid) / 1e6
        return 1000 * seconds

    def tensorflow() -> float:
        command = [sys.executable, "-c", "import tensorflow"]
        return timed(partial(subprocess.run, command, check=True, stderr=subprocess.DEVNULL), 1)()

    more: dict[str, float] = {}
    first_picture()  # the files are in memory from then on
    timings = in_turn(first_picture, tensorflow, ROUNDS)
    yield Row("start_up", "first picture over TensorFlow's import", *timings, more)


def waste(_: Bare) -> Iterator[Row]:
    """Pixels that the network works on over those that are kept: halo and padding."""
    geometry = choose(read_cards(DEFAULT_MODELS), FAMILY, SCALE).geometry
    for name, size in (("4000x3000 plane", (3000, 4000)), ("200x200 input", (600, 600))):
        cut = plan(size, geometry)
        worked, kept = cut.tiles * cut.tile[0] * cut.tile[1], size[0] * size[1]
        yield Row("waste", name, worked / kept, worked, kept)


SECTIONS: dict[str, Callable[[Bare], Iterator[Row]]] = {
    "waste": waste,
    "start_up": start_up,
    "runtimes": runtimes,
    "around": around,
    **{one: partial(pixels, one) for one in FORMATS},
    "callers": callers,
    "pictures": pictures,
    "handlers": handlers,
}


def main() -> None:
    """Measure, keep what other sections said, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument(
        "--opencv", nargs="*", type=Path, default=[], help="dnn_superres models, as FSRCNN_x3.pb"
    )
    arguments = parser.parse_args()
    sections = SECTIONS | (
        {"opencv": partial(opencv, arguments.opencv)} if arguments.opencv else {}
    )
    only = [*arguments.only, *(sections.keys() - SECTIONS.keys())]
    card = choose(read_cards(DEFAULT_MODELS), FAMILY, SCALE)
    bare = Bare(card)
    measured_on = f"{machine()}; {card.name}, {bare.engine.precision}"
    earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"machine": ""}
    rows = [Row(**row) for row in earlier["rows"]] if earlier["machine"] == measured_on else []
    for section in only:
        measured = []
        for row in sections[section](bare):
            print(row.section, row.name, f"{row.ratio:.2f}", flush=True)
            measured.append(row)
        done = {row.section for row in measured}
        rows = [row for row in rows if row.section not in done] + measured
        kept = {"machine": measured_on, "rows": [asdict(row) for row in rows]}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(report(measured_on, rows))
        plot(rows, RESULTS.with_suffix(".png"))


SERVICE = (
    "`POST /enhance` over the bare SavedModel call, on as many pixels without their halo; ms an "
    "output megapixel."
)
TIMES = (
    "p50, p95 and p99 are ms of one of the calls; from `decode` on, ms an output megapixel by the "
    "service's own stopwatch. With several callers, one's stages wait for the others'. `bicubic` "
    "is all that is done around the network, cutting and stitching too."
)
ABOUT = {
    "waste": ("Waste", "Pixels that the network works on, halo and padding too, over those kept."),
    "start_up": (
        "Start-up",
        "From a fresh process, whose files are in the page cache, to the first enhanced picture, "
        "over `import tensorflow`; ms. The memory is that at idle, when srcnn-x3 is "
        "ready; `auto` needs more.",
    ),
    "runtimes": (
        "Runtimes",
        "The bare SavedModel call over other runtimes with the same weights, on one tile of "
        "512x512; ms a megapixel. Below 1, the SavedModel is faster.",
    ),
    "opencv": (
        "OpenCV",
        "From pixels to pixels, in this process, over OpenCV's `dnn_superres`; 1 MP, ms an output "
        "megapixel. Its networks are others, and so is what they make of a picture.",
    ),
    "around": (
        "Around the network",
        "What one thread needs for the rest of the work, in one process, over the bare SavedModel "
        "call, which has all cores; ms an output megapixel, of 16 MP.",
    ),
    **{
        one: (f"{one.upper()} to {one.upper()}, 2 callers", f"{SERVICE} {TIMES}") for one in FORMATS
    },
    "callers": (
        "Callers",
        f"{SERVICE} JPEG to JPEG; so many callers. The 32 ask once each, all at the same time: "
        "after a 503 they wait whole seconds, and the last are alone.",
    ),
    "crowd": (
        "A crowd",
        "Ms a megapixel of 2 callers over those of 32: at 1, the crowd costs nothing. JPEG, 1 MP, "
        "64 calls a round; after a 503 they call again. The times of a call are of the 32.",
    ),
    "pictures": (
        "Pictures",
        f"{SERVICE} So many pictures, 256x256 to 768x768, JPEG to JPEG, by 2 callers.",
    ),
    "handlers": (
        "Other services",
        "Other services with the same weights over `POST /enhance`, 8 callers, 256x256 JPEG to "
        "768x768; ms a megapixel. At 2, this one has twice the throughput. `handler` is FastAPI "
        "around `keras.Model.predict`, `litserve` LitServe around the SavedModel in bfloat16, with "
        "a halo around each picture; both take a picture in one piece.",
    ),
}


def report(machine: str, rows: list[Row]) -> str:
    """The Markdown of all rows."""
    lines = [
        "# What the service costs\n",
        f"Measured on: {machine}. Made by `make bench`; each row is A over B, done in turn.",
    ]
    for section, (title, about) in ABOUT.items():
        these = [row for row in rows if row.section == section]
        if not these:
            continue
        extra = list(dict.fromkeys(name for row in these for name in row.more))
        columns = ["", "A / B", "A", "B", *extra]
        lines += [f"\n## {title}\n", f"{about}\n"]
        lines += [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
        for row in these:
            figures = [row.a_ms, row.b_ms, *(row.more[name] for name in extra)]
            cells = [f"{x:,.0f}" if x >= 100 or x % 1 == 0 else f"{x:.1f}" for x in figures]
            lines.append(f"| {row.name} | **{row.ratio:.2f}** | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


STAGES = ("decode", "queue", "infer", "bicubic", "encode")


def plot(rows: list[Row], file: Path) -> None:
    """The cost as pictures grow, and as callers become more; where a call's time goes."""
    sections = {name: [row for row in rows if row.section == name] for name in SECTIONS}
    formats = [one for one in FORMATS if sections[one]]
    if not formats or not sections["callers"]:
        return
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    by_size, by_callers, by_stage = figure.subplots(1, 3, width_ratios=(3, 2, 3))
    for one in formats:
        by_size.plot(list(CALLS), [row.ratio for row in sections[one]], marker="o", label=one)
        left = 0.0
        at_4_megapixels = sections[one][list(CALLS).index(4)]
        for number, stage in enumerate(STAGES):
            ms = at_4_megapixels.more[stage]
            by_stage.barh(one, ms, left=left, color=f"C{number}", label=stage)
            left += ms
    ratios = [row.ratio for row in sections["callers"] if row.name.startswith("1 MP")]
    by_callers.plot(list(CALLERS), ratios, marker="o")
    for axes, ticks in ((by_size, CALLS), (by_callers, CALLERS)):
        axes.set(xscale="log", ylim=(0.95, None))
        axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.axhline(1, color="k", linewidth=0.8, linestyle="--")
    by_size.set(xlabel="megapixels made", ylabel="time over the bare network's")
    by_size.set_title("2 callers", fontsize="medium")
    by_size.legend()
    by_callers.set(xlabel="callers")
    by_callers.set_title("jpeg, 1 MP", fontsize="medium")
    by_stage.set(xlabel="ms an output megapixel, of one call", ylim=(-0.6, len(formats) + 0.3))
    by_stage.set_title("4 MP, 2 callers: where a call's time goes", fontsize="medium")
    handles, _ = by_stage.get_legend_handles_labels()
    by_stage.legend(handles[: len(STAGES)], STAGES, fontsize="small", ncols=3, loc="upper center")
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
