"""Looks for files that take long to probe or decode, or more memory than forecast: `make fuzz`.

``python -m tests.fuzz --seconds 60`` mutates files of each format for so many seconds of CPU. What
breaks a limit is left in ``--out``. :mod:`tests.fuzz_by_coverage` lets libFuzzer choose.
"""

import argparse
import logging
import os
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from superres.codecs import FORMATS
from tests.decoding import Decoded, measure
from tests.hostile import damaged, seeds
from tests.structures import COSTLY, honest, lying

LONGEST_PROBE = 0.1
"""Seconds of CPU."""
LONGEST_DECODE = 5.0
"""Seconds of CPU for a picture of at most a megapixel, and for each megapixel of a larger one."""
MOST_MEMORY = 1.1
"""Of the forecast."""
LONGEST_FILE = 64 * 2**20


@dataclass
class Found:
    """The worst of a format."""

    files: int = 0
    admitted: int = 0
    decoded: int = 0
    probe_seconds: float = 0
    decode_seconds: float = 0
    memory: float = 0
    broken: list[str] = field(default_factory=list)

    def add(self, decoded: Decoded) -> list[str]:
        """Count a file, and return the limits that it breaks."""
        self.files += 1
        self.admitted += decoded.header is not None
        self.decoded += decoded.size is not None
        height, width = decoded.header["size"] if decoded.header else (0, 0)
        seconds = decoded.decode_seconds / max(1, height * width / 1e6)
        memory = decoded.peak_bytes / decoded.forecast_bytes
        worst = (decoded.probe_seconds, seconds, memory)
        self.probe_seconds = max(self.probe_seconds, worst[0])
        self.decode_seconds = max(self.decode_seconds, worst[1])
        self.memory = max(self.memory, worst[2])
        limits = (LONGEST_PROBE, LONGEST_DECODE, MOST_MEMORY)
        named = zip(("probe", "decode", "memory"), worst, limits, strict=True)
        return [f"{what}-{value:.2f}" for what, value, most in named if value > most]

    def __str__(self) -> str:
        return (
            f"{self.files:7} {self.admitted:9} {self.decoded:8} {self.probe_seconds * 1000:9.1f} "
            f"{self.decode_seconds:12.2f} {self.memory:7.2f}  {' '.join(self.broken)}"
        )


TITLE = "format   files  admitted  decoded  probe, ms  decode, s/MP  memory"


def candidate(choose: Random, name: str) -> bytes:
    """A file of that format: lying, damaged, or costly and damaged."""
    kind = choose.random()
    if kind < 0.4:
        data = honest(choose, name, choose.choice((1_000, 100_000, 1_000_000)))
        return lying(choose, name, data) if kind < 0.3 else data
    if kind < 0.9:
        own = [seed for seed in seeds() if FORMATS[name].is_format_of(seed)]
        return damaged(choose, own)
    build, _ = choose.choice([one for key, one in COSTLY.items() if key.startswith(name)])
    data = build()
    start = choose.randrange(len(data))
    part = data[start : start + choose.choice((1, 2, 12, 16, 255, 4096))]
    piled = part * (choose.randrange(4_000_000) // len(part))
    return (data[:start] + piled + data[start:])[:LONGEST_FILE]


def search(name: str, seconds: float, out: Path) -> Found:
    """Try files of a format for so many seconds of CPU."""
    found, number = Found(), 0
    until = time.process_time() + seconds
    while time.process_time() < until:
        number += 1
        data = candidate(Random(number), name)
        if broken := found.add(measure(data)):
            found.broken.append(f"{number}:{','.join(broken)}")
            (out / f"{name}-{number}-{'-'.join(broken)}").write_bytes(data)
    return found


def main() -> None:
    """Search, print the worst of each format, and fail if a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of CPU, for each format")
    parser.add_argument("--out", type=Path, default=Path("artefacts/fuzz"))
    parser.add_argument("formats", nargs="*", help="all, if none is named")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff tells every line that it cannot read
    for seed in seeds():  # imports what decoding imports
        measure(seed)
    print(TITLE)
    broken = False
    for name in options.formats or FORMATS:
        found = search(name, options.seconds, options.out)
        print(f"{name:6} {found}", flush=True)
        broken |= bool(found.broken)
    if broken:
        print(f"what broke a limit is in {options.out}")
        sys.exit(1)


if __name__ == "__main__":
    main()
