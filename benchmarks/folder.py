"""What a folder takes beside the device alone, on this machine: `benchmarks/folder.py`.

The device alone is the same enhancer on the same pictures, decoded beforehand and never
encoded. Both are done in turn, A B A B, so that a machine whose speed drifts favours neither.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from skimage import data

from superres import load_model
from superres.batch.ledger import Options
from superres.batch.plan import plan
from superres.batch.runner import BatchRunner
from superres.codecs import Picture, decode, encode
from superres.parameters import Parameters

PICTURES = 24
ROUNDS = 5
SCALE = 3


def main() -> None:
    """Print the throughput of both, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=("jpeg", "png"), default="jpeg")
    arguments = parser.parse_args()
    enhancer = load_model("srcnn", scale=SCALE)
    options = Options("srcnn", Parameters(scale=SCALE))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "in"
        folder.mkdir()
        for i in range(PICTURES):
            picture = Picture((data.astronaut(), data.coffee())[i % 2])
            (folder / f"{i:02}.jpg").write_bytes(encode(picture, "jpeg"))
        jobs = plan([folder], Path(temporary) / "out", arguments.format, recursive=False).jobs
        pictures = [decode(job.source.read_bytes()) for job in jobs]
        megapixels = sum(job.pixels for job in jobs) * SCALE**2 / 1e6
        batch = BatchRunner(enhancer, options, None, resume=False, force=True)

        def alone() -> None:
            for picture in pictures:
                enhancer.enhance(picture, SCALE)

        def in_folder() -> None:
            outcomes = list(batch.run(jobs, lambda job, part: None))
            if any(outcome.status != "made" for outcome in outcomes):
                raise SystemExit(f"failed: {outcomes}")

        seconds = []
        for _ in range(ROUNDS):
            seconds.append((timed(alone), timed(in_folder)))
    device, whole = (megapixels / statistics.median(times) for times in zip(*seconds, strict=True))
    ratio = statistics.median(a / b for a, b in seconds)
    Console().print(
        f"{enhancer.engine.precision}, {PICTURES} pictures, JPEG to {arguments.format.upper()} "
        f"at x{SCALE}: the device alone {device:.1f} output megapixels a second, "
        f"the folder {whole:.1f}, ratio {ratio:.2f}",
        highlight=False,
    )


def timed(call) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
