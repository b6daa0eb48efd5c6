"""What so many machines carry: `PYTHONPATH=. .venv/bin/python benchmarks/capacity.py`.

Measures, on a Ray cluster of this machine, what a picture costs the front and a replica of one
thread, and how many pictures a second one and two replicas make; benchmarks/capacity.json keeps it.
Then simulates 1 to 1,000 replicas with these costs, and holds the simulation against what was
measured: that alone, with `--simulate`.
"""

import heapq
import json
import os
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
from ray import serve
from ray.serve.config import ProxyLocation
from rich.console import Console
from rich.table import Table

from app.cluster.serve import APPLICATION, ENVIRONMENT, Devices, Front
from benchmarks.load import photograph
from superres.enhancer import COLUMNS, plan
from superres.models.registry import DEFAULT_MODELS, choose, read_cards
from tests.clusters import add_node, ray_cluster
from tests.serving import free_port, wait_until_ready

MEASURED = Path(__file__).with_name("capacity.json")
SIDE = 577
"""Of the pictures, px: 3 megapixels when they are enlarged by 3."""
SECONDS = 12
CALLERS = 6
LOADS = (0.5, 0.7, 0.8, 0.9, 0.95)
PICTURES = 300
"""Simulated, a replica; but 20,000 at most, and 3,000 at least."""
DOLLARS_PER_CORE_HOUR = 0.04
"""An assumption: about what clouds ask for a virtual processor on demand."""


@dataclass(frozen=True)
class Costs:
    """Of one picture."""

    rows: int
    columns: int
    """Of tiles: a row is with the devices at once, and the next one follows."""
    tile_s: float
    """That a replica is at work on a tile."""
    front_s: float
    """That the front's processors are at work on a picture."""
    alone_s: float
    """From request to answer, where there is nobody else."""

    @property
    def device_s(self) -> float:
        """That replicas are at work on a picture, together."""
        return self.rows * self.columns * self.tile_s

    @property
    def pause_s(self) -> float:
        """Before each row, in which the front alone works for the picture."""
        return self.front_s / self.rows


def simulate(
    costs: Costs, replicas: int, pictures: int, *, rate: float = 0, callers: int = 0
) -> tuple[float, np.ndarray]:
    """Pictures a second, and the seconds of each.

    Tiles wait in one queue, first come first served, and the next free replica takes the oldest.

    Args:
        costs: of a picture; a tile takes within a tenth of its mean.
        replicas: each takes a tile at a time.
        pictures: how many are made.
        rate: pictures a second that come, at random (a Poisson process).
        callers: who come again as soon as they have their answer, in place of the rate.
    """
    chance = random.Random(0)
    tiles: deque[int] = deque()
    free = replicas
    began: dict[int, float] = {}
    rows_left: dict[int, int] = {}
    tiles_left: dict[int, int] = {}
    took: list[float] = []
    events: list[tuple[float, bool, int]] = []  # when, whether a tile is done, whose
    now, come = 0.0, 0

    def arrive(at: float) -> None:
        nonlocal come
        began[come], rows_left[come] = at, costs.rows
        heapq.heappush(events, (at + costs.pause_s, False, come))
        come += 1

    for _ in range(callers or 1):
        arrive(0.0)
    while len(took) < pictures:
        now, done, picture = heapq.heappop(events)
        if done:
            free += 1
            tiles_left[picture] -= 1
            if not tiles_left[picture] and rows_left[picture]:
                heapq.heappush(events, (now + costs.pause_s, False, picture))
            elif not tiles_left[picture]:
                took.append(now - began.pop(picture))
                if callers:
                    arrive(now)
        else:
            if rate and rows_left[picture] == costs.rows:
                arrive(began[picture] + chance.expovariate(rate))
            rows_left[picture] -= 1
            tiles_left[picture] = costs.columns
            tiles.extend([picture] * costs.columns)
        while free and tiles:
            free -= 1
            seconds = costs.tile_s * chance.uniform(0.9, 1.1)
            heapq.heappush(events, (now + seconds, True, tiles.popleft()))
    return len(took) / now, np.asarray(took)


@contextmanager
def _cluster() -> Iterator[httpx.Client]:
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as jobs,
        ray_cluster(
            SUPERRES_PRECISION="float32",
            SUPERRES_DEVICE="cpu",
            SUPERRES_JOBS=jobs,
            **ENVIRONMENT,
        ) as cluster,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client,
    ):
        add_node(cluster)
        add_node(cluster)
        serve.start(proxy_location=ProxyLocation.HeadOnly, http_options={"port": port})
        yield client
        serve.shutdown()


def _deploy(client: httpx.Client, replicas: int) -> None:
    devices = Devices.options(autoscaling_config=None, num_replicas=replicas)
    serve.run(Front.bind(devices.bind()), name=APPLICATION)
    wait_until_ready(client)


def _processor_seconds() -> dict[str, float]:
    """Of the front, of the devices, and of all else of Ray and of this process."""
    seconds = {"front": 0.0, "device": 0.0, "rest": 0.0}
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        command = " ".join(process.info["cmdline"] or [])
        kind = "rest" if "ray" in command else ""
        for name in ("Front", "Device"):
            if f"ServeReplica:{APPLICATION}:{name}" in command:
                kind = name.lower()
        if process.pid == os.getpid():
            kind = "rest"
        if kind:
            times = process.info["cpu_times"]
            seconds[kind] += times.user + times.system
    return seconds


def _calls(client: httpx.Client, callers: int, seconds: float) -> float:
    """Pictures a second that so many callers get."""
    content, started = photograph(SIDE, SIDE), time.monotonic()

    def ask(_: int) -> int:
        made = 0
        while time.monotonic() < started + seconds:
            client.post("/enhance", content=content).raise_for_status()
            made += 1
        return made

    with ThreadPoolExecutor(callers) as pool:
        made = sum(pool.map(ask, range(callers)))
    return made / (time.monotonic() - started)


def _measure() -> tuple[Costs, dict[int, float], float]:
    """Costs, pictures a second by replicas, and the processors' share that all the rest took."""
    card = choose(read_cards(DEFAULT_MODELS), "srcnn", 3)
    cut = plan((3 * SIDE, 3 * SIDE), card.geometry)
    columns = cut.tiles // len(cut.tops)
    assert columns <= COLUMNS  # a row at once
    carried: dict[int, float] = {}
    with _cluster() as client:
        _deploy(client, 1)
        _calls(client, 1, 3)
        alone = 1 / _calls(client, 1, SECONDS)
        before, started = _processor_seconds(), time.monotonic()
        carried[1] = _calls(client, CALLERS, SECONDS)
        pictures = carried[1] * (time.monotonic() - started)
        used = {kind: one - before[kind] for kind, one in _processor_seconds().items()}
        rest = used["rest"] / (time.monotonic() - started)
        costs = Costs(
            len(cut.tops),
            columns,
            used["device"] / pictures / cut.tiles,
            used["front"] / pictures,
            alone,
        )
        _deploy(client, 2)
        _calls(client, CALLERS, 3)
        carried[2] = _calls(client, CALLERS, SECONDS)
    return costs, carried, rest


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def main() -> None:
    """Measure, simulate, print."""
    console = Console(width=120)
    if "--simulate" not in sys.argv:
        costs, carried, rest = _measure()
        kept = {
            "costs": asdict(costs),
            "pictures_a_second": carried,
            "rest": rest,
            "cores": os.cpu_count(),
        }
        MEASURED.write_text(json.dumps(kept, indent=2) + "\n")
    measured = json.loads(MEASURED.read_text())
    costs, rest = Costs(**measured["costs"]), measured["rest"]
    cores = measured["cores"]
    megapixels = 9 * SIDE**2 / 1e6
    console.print(
        f"{megapixels:.1f} megapixels, {costs.rows} x {costs.columns} tiles: a replica "
        f"{costs.device_s:.3f} s, the front {costs.front_s:.3f} s, alone {costs.alone_s:.3f} s; "
        f"all the rest on this machine takes {rest:.2f} of its {cores} processors",
        highlight=False,
    )
    table = _table("pictures/s", "replicas", "measured", "simulated", "the processors' bound")
    for replicas, carried in measured["pictures_a_second"].items():
        simulated, _ = simulate(costs, int(replicas), 3000, callers=CALLERS)
        bound = (cores - rest) / (costs.device_s + costs.front_s)
        table.add_row(replicas, f"{carried:.2f}", f"{simulated:.2f}", f"{bound:.2f}")
    console.print(table)

    heads = [f"at {load:.0%}: p50, p99" for load in LOADS]
    table = _table("seconds of a picture", "replicas", "pictures/s at most", *heads)
    for replicas in (1, 2, 10, 100, 1000):
        most = replicas / costs.device_s
        cells = []
        for load in LOADS:
            count = min(20_000, max(3000, PICTURES * replicas))
            _, seconds = simulate(costs, replicas, count, rate=load * most)
            cells.append("{:.2f}, {:.2f}".format(*np.percentile(seconds, [50, 99])))
        table.add_row(str(replicas), f"{most:.1f}", *cells)
    console.print(table)
    core_s = costs.device_s + costs.front_s
    dollars = 1000 * core_s / 3600 * DOLLARS_PER_CORE_HOUR / 0.8
    console.print(
        f"one front of 4 processors, half busy, feeds {2 / costs.front_s * costs.device_s:.0f} "
        f"replicas; 1,000 pictures at 80 % load: ${dollars:.3f}, at "
        f"${DOLLARS_PER_CORE_HOUR} a processor and hour",
        highlight=False,
    )


if __name__ == "__main__":
    main()
