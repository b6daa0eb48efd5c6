"""Decodes files in a process of its own, and measures what each takes. Linux only.

``python -m tests.decoding`` reads files from standard input, each behind its length, and writes a
line of JSON for each.
"""

import contextlib
import ctypes
import json
import logging
import os
import struct
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass

from superres.codecs import Header, decode, probe
from superres.errors import BadImage
from superres.forecast import forecast_decoding
from tests.serving import reset_peak, resident_bytes
from tests.soak import REPOSITORY

MAX_PIXELS = 8_000_000


@dataclass(frozen=True)
class Decoded:
    """What probing and decoding a file took."""

    length: int
    header: dict | None
    """Of the file; None if it is refused."""
    size: list[int] | None
    """Of the picture; None if it is refused."""
    probe_seconds: float
    """Of CPU."""
    decode_seconds: float
    peak_bytes: int
    """Of memory while it was decoded, the file included."""
    forecast_bytes: int
    """By its header; for a file that is refused, as for a picture without pixels."""


def measure(data: bytes) -> Decoded:
    """Probe and decode a file in this process."""
    ctypes.CDLL(None).malloc_trim(0)
    picture = None
    header, probe_seconds = _probed(data)
    if probe_seconds > 0.02:  # a collection of garbage may have fallen into it
        probe_seconds = min(probe_seconds, _probed(data)[1])
    probed = time.process_time()
    before = resident_bytes(os.getpid())
    reset_peak(os.getpid())
    with contextlib.suppress(BadImage):
        picture = decode(data, max_pixels=MAX_PIXELS)
    return Decoded(
        length=len(data),
        header=asdict(header) if header else None,
        size=list(picture.size) if picture else None,
        probe_seconds=probe_seconds,
        decode_seconds=time.process_time() - probed,
        peak_bytes=resident_bytes(os.getpid(), peak=True) - before + len(data),
        forecast_bytes=forecast_decoding(header or Header("png", (0, 0), 8), len(data)),
    )


def _probed(data: bytes) -> tuple[Header | None, float]:
    began = time.process_time()
    header = None
    with contextlib.suppress(BadImage):
        header = probe(data, max_pixels=MAX_PIXELS)
    return header, time.process_time() - began


class Decoder:
    """That process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.decoding"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def measure(self, data: bytes) -> Decoded:
        """Probe and decode a file there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(struct.pack("<Q", len(data)) + data)
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the decoder died with {self._process.wait()}"
        return Decoded(**json.loads(line))

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)


def main() -> None:
    """Serve :class:`Decoder`."""
    warnings.simplefilter("ignore")
    logging.disable()
    from tests.hostile import seeds

    for seed in seeds():  # imports what decoding imports
        measure(seed)
    while len(length := sys.stdin.buffer.read(8)) == 8:
        data = sys.stdin.buffer.read(struct.unpack("<Q", length)[0])
        print(json.dumps(asdict(measure(data))), flush=True)


if __name__ == "__main__":
    main()
