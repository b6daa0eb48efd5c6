"""What it costs that pictures are decoded in processes of their own, beside decoding in a thread.

Each picture goes through all that ``POST /enhance`` does with it after its body has arrived: its
header is read, it is decoded, enlarged and encoded. Both ways take turns in one process, so that
what else runs on the machine slows both. Processor time counts all processes; it says more than the
wall clock where others use the machine. Linux only. Usage:

    python benchmarks/decode_pool.py --rounds 30
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio.to_thread
import numpy as np
from skimage import data as photographs

from app.decoding.decoders import Decoders
from superres import Enhancer, Picture, load_model
from superres.codecs import Header, OutputFormat, decode, encode, probe

CASES: list[tuple[float, OutputFormat]] = [(0.25, "jpeg"), (0.25, "png"), (16, "jpeg")]
"""Megapixels and format."""

SCALE = 3

Read = Callable[[bytes], Awaitable[Picture]]


async def in_thread(content: bytes) -> Picture:
    """Read a picture in threads."""
    await anyio.to_thread.run_sync(probe, content)
    return await anyio.to_thread.run_sync(decode, content)


def in_processes(decoders: Decoders) -> Read:
    """Read pictures in processes."""

    async def read(content: bytes) -> Picture:
        header: Header = await decoders.probe(content, max_pixels=sys.maxsize)
        return await decoders.decode(content, header, max_bytes=2**31, check=lambda: None)

    return read


def processor_seconds(pid: int | None = None) -> float:
    """Of a process, by default this one, and of all that it has started."""
    process = Path(f"/proc/{pid or os.getpid()}")
    # User and system time of itself, and of its children that have ended.
    ticks = process.joinpath("stat").read_text().rpartition(")")[2].split()[11:15]
    children = [
        int(child)
        for task in process.joinpath("task").iterdir()
        for child in task.joinpath("children").read_text().split()
    ]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") + sum(map(processor_seconds, children))


async def measure(read: Read, content: bytes, enhancer: Enhancer) -> tuple[float, float]:
    """Seconds of reading one picture, and of everything."""
    started = time.perf_counter()
    picture = await read(content)
    decoded = time.perf_counter()
    larger = await anyio.to_thread.run_sync(enhancer.enhance, picture, SCALE)
    await anyio.to_thread.run_sync(encode, larger, "jpeg")
    return decoded - started, time.perf_counter() - started


def photograph(megapixels: float) -> np.ndarray:
    """A square photograph, repeated until it is large enough."""
    side = round((megapixels * 1e6) ** 0.5)
    astronaut = photographs.astronaut()
    times = -(-side // len(astronaut))
    return np.tile(astronaut, (times, times, 1))[:side, :side]


async def main() -> None:
    """Print a table, a row for each picture and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="srcnn")
    parser.add_argument("--rounds", type=int, default=30, help="at 0.25 MP; a tenth at 16 MP")
    arguments = parser.parse_args()
    enhancer = load_model(arguments.model, scale=SCALE, device="cpu")
    decoders = Decoders()
    decoders.start()
    ways = {"thread": in_thread, "process": in_processes(decoders)}
    print("| picture | way | reading, ms | all, ms | ratio | processor, ms | ratio |")
    print("|---|---|---|---|---|---|---|", flush=True)
    try:
        for megapixels, source in CASES:
            content = encode(Picture(photograph(megapixels)), source)
            wall: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            processor = dict.fromkeys(ways, 0.0)
            for read in ways.values():
                await measure(read, content, enhancer)
            rounds = arguments.rounds if megapixels < 1 else max(3, arguments.rounds // 10)
            for _ in range(rounds):
                for name, read in ways.items():
                    before = processor_seconds()
                    wall[name].append(await measure(read, content, enhancer))
                    processor[name] += (processor_seconds() - before) / rounds
            for name in ways:
                reading, everything = (
                    1000 * statistics.median(one) for one in zip(*wall[name], strict=True)
                )
                ratio = statistics.median(
                    this[1] / thread[1]
                    for this, thread in zip(wall[name], wall["thread"], strict=True)
                )
                print(
                    f"| {megapixels:g} MP, {source} | {name} | {reading:.1f} | {everything:.0f} "
                    f"| {ratio:.3f} | {1000 * processor[name]:.0f} "
                    f"| {processor[name] / processor['thread']:.3f} |",
                    flush=True,
                )
    finally:
        decoders.close()


if __name__ == "__main__":
    asyncio.run(main())
