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
from typing import NamedTuple

import anyio.to_thread
import numpy as np
from skimage import data as photographs

from app.decoding.decoders import Decoders
from superres import Enhancer, Picture, load_model
from superres.codecs import Header, OutputFormat, decode, encode, probe

CASES: list[tuple[float, OutputFormat]] = [(0.25, "jpeg"), (0.25, "png"), (16, "jpeg"), (16, "png")]
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


class Taken(NamedTuple):
    """Milliseconds of one picture."""

    reading: float
    all: float
    reading_processor: float
    all_processor: float


async def measure(read: Read, content: bytes, enhancer: Enhancer | None) -> Taken:
    """Read one picture, and make its result unless there is no enhancer."""
    wall, processor = time.perf_counter(), processor_seconds()
    picture = await read(content)
    reading, reading_processor = time.perf_counter() - wall, processor_seconds() - processor
    if enhancer is not None:
        larger = await anyio.to_thread.run_sync(enhancer.enhance, picture, SCALE)
        await anyio.to_thread.run_sync(encode, larger, "jpeg")
    seconds = (
        reading,
        time.perf_counter() - wall,
        reading_processor,
        processor_seconds() - processor,
    )
    return Taken(*(1000 * one for one in seconds))


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
    parser.add_argument("--only-read", action="store_true", help="make no results: much quicker")
    arguments = parser.parse_args()
    enhancer = None
    if not arguments.only_read:
        enhancer = load_model(arguments.model, scale=SCALE, device="cpu")
    decoders = Decoders()
    decoders.start()
    ways = {"thread": in_thread, "process": in_processes(decoders)}
    print("| picture | way | reading, ms | all, ms | reading, CPU ms | all, CPU ms | ratio |")
    print("|---|---|---|---|---|---|---|", flush=True)
    try:
        for megapixels, source in CASES:
            content = encode(Picture(photograph(megapixels)), source)
            for read in ways.values():
                await measure(read, content, enhancer)
            measured: dict[str, list[Taken]] = {name: [] for name in ways}
            rounds = arguments.rounds if megapixels < 1 else max(3, arguments.rounds // 10)
            for _ in range(rounds):
                for name, read in ways.items():
                    measured[name].append(await measure(read, content, enhancer))
            # Wall times have outliers; processor time is counted in steps of 10 ms.
            rows = {
                name: Taken(
                    statistics.median(one.reading for one in all_),
                    statistics.median(one.all for one in all_),
                    statistics.mean(one.reading_processor for one in all_),
                    statistics.mean(one.all_processor for one in all_),
                )
                for name, all_ in measured.items()
            }
            for name, row in rows.items():
                figures = " | ".join(f"{one:.1f}" for one in row)
                ratio = row.all_processor / rows["thread"].all_processor
                print(
                    f"| {megapixels:g} MP, {source} | {name} | {figures} | {ratio:.3f} |",
                    flush=True,
                )
    finally:
        decoders.close()


if __name__ == "__main__":
    asyncio.run(main())
