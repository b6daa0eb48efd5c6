"""TensorFlow, ONNX Runtime and OpenVINO around the shipped models: speed, start and size.

    python benchmarks/runtimes.py speed --rounds 7
    python benchmarks/runtimes.py start --runtime onnxruntime
    python benchmarks/runtimes.py size

`speed` calls each runtime in turn with a tile of a picture of 256x256, on one core, and prints the
median processor time, which depends little on what else the machine does, and how far the
answers are from TensorFlow's in float32, largest and mean. OpenVINO, of the group bench, gets the
ONNX files.
`start` and `size` are about the environment of the Python that runs them, such as that of
`make serve EXTRA=onnx`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np

from superres.arrays import without_margin
from superres.codecs import Picture, decode, encode
from superres.engines import load_engine
from superres.engines.onnxruntime import ONNX, ONNX_FILES
from superres.enhancer import plan
from superres.models.card import ModelCard
from superres.models.registry import DEFAULT_MODELS, read_cards

PHOTOGRAPH = Path(__file__).parents[1] / "app" / "web" / "photographs" / "coffee.jpg"
COMMON = 256
"""Side of the picture whose tiles are timed, px."""
SIDE = 32
"""Side of the first picture that a service enhances, px."""
TICKS = os.sysconf("SC_CLK_TCK")

COLUMNS = (
    "TensorFlow",
    "ONNX Runtime",
    "ONNX Runtime int8",
    "TensorFlow bf16",
    "OpenVINO",
    "OpenVINO bf16",
)
Predict = Callable[[np.ndarray], np.ndarray]


def engines(card: ModelCard) -> dict[str, Predict]:
    """Every runtime that is installed, in each precision that it has."""
    folder = DEFAULT_MODELS / card.name
    made: dict[str, Predict] = {}
    for name, runtime, precision in (
        ("TensorFlow", "tensorflow", "float32"),
        ("ONNX Runtime", "onnxruntime", "float32"),
        ("ONNX Runtime int8", "onnxruntime", "int8"),
        ("TensorFlow bf16", "tensorflow", "bfloat16"),
    ):
        if find_spec(runtime) and (precision != "int8" or card.int8 is not None):
            engine = load_engine(folder, card, precision=precision, device="cpu", runtime=runtime)
            made[name] = engine.predict
    if find_spec("openvino"):
        made["OpenVINO"] = openvino(folder / ONNX, "f32")
        made["OpenVINO bf16"] = openvino(folder / ONNX, "bf16")
    return made


def openvino(files: Path, precision: str) -> Predict:
    """OpenVINO on the CPU, with the file for uint8."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(files / ONNX_FILES["u8_float32"]),
        "CPU",
        {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1},
    )
    request = compiled.create_infer_request()
    return lambda tiles: np.array(request.infer([tiles])[0])


def speed(rounds: int) -> None:
    """Print the processor time for an output megapixel of each model and runtime.

    With a tile of a common picture; its halo is not counted.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # each runtime takes one thread
    photograph = decode(PHOTOGRAPH.read_bytes()).rgb
    for number, card in enumerate(read_cards(DEFAULT_MODELS)):
        geometry = card.geometry
        side, _ = plan((COMMON * geometry.scale, COMMON * geometry.scale), geometry).tile
        margin = geometry.halo * geometry.upscale
        missing = max(0, side - photograph.shape[0])
        tiles = np.pad(photograph[:side, :side], [(0, missing), (0, 0), (0, 0)], "symmetric")[None]
        megapixels = (side * geometry.upscale - 2 * margin) ** 2 / 1e6
        calls = engines(card)
        answers = {name: without_margin(call(tiles), margin) for name, call in calls.items()}
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                began = time.process_time()
                call(tiles)
                seconds[name].append(time.process_time() - began)
        if number == 0:
            columns = [name for name in COLUMNS if name in calls or "int8" in name]
            print("| CPU ms per output megapixel (levels apart) |", " | ".join(columns), "|")
            print("|---" * (len(columns) + 1) + "|")
        reference = answers.get("TensorFlow", answers["ONNX Runtime"]).astype(int)
        cells = dict.fromkeys(columns, "not offered")
        for name, times in seconds.items():
            apart = np.abs(answers[name] - reference)
            milliseconds = 1000 * statistics.median(times) / megapixels
            cells[name] = f"{milliseconds:.0f} ({apart.max()}, {apart.mean():.2f})"
        print(f"| {card.name} |", " | ".join(cells.values()), "|", flush=True)


def start(model: str, runtime: str, rounds: int) -> None:
    """Print the seconds from a fresh process of the service to its first enhanced picture."""
    body = encode(Picture(np.zeros((SIDE, SIDE, 3), np.uint8)), "png")
    walls, processors = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "models").mkdir()
            (Path(folder) / "models" / model).symlink_to(DEFAULT_MODELS / model)
            port = 8000 + os.getpid() % 1000
            settings = {
                "SUPERRES_MODELS": f"{folder}/models",
                "SUPERRES_DEFAULT_MODEL": model,
                "SUPERRES_RUNTIME": runtime,
                "SUPERRES_JOBS": f"{folder}/jobs",
            }
            began = time.perf_counter()
            service = subprocess.Popen(
                [Path(sys.executable).with_name("superres"), "serve", "--port", str(port)],
                env=os.environ | settings,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                _wait_for_picture(f"http://127.0.0.1:{port}/enhance", body)
                walls.append(time.perf_counter() - began)
                processors.append(_processor_seconds(service.pid))
            finally:
                service.kill()
                service.wait()
    print(
        f"{model} on {runtime}: first picture after {min(walls):.2f} s (the least of {rounds}), "
        f"of which {min(processors):.2f} s on a processor"
    )


def _wait_for_picture(url: str, body: bytes) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with suppress(httpx.TransportError):
            if httpx.post(url, content=body, timeout=60).status_code == 200:
                return
        time.sleep(0.01)
    raise TimeoutError(f"no picture from {url}")


def _processor_seconds(pid: int) -> float:
    """Of the process and of those children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def size() -> None:
    """Print the megabytes of the files that the installed packages record."""
    sizes = {
        one.metadata["Name"]: sum(file.size or 0 for file in one.files or ()) / 1e6
        for one in distributions()
        if one.metadata["Name"] != "pip"
    }
    print(f"{sum(sizes.values()):.0f} MB in {len(sizes)} packages")
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True)[:10]:
        print(f"  {name}: {sizes[name]:.0f}")


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["speed", "start", "size"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="srcnn-x3", help="of start")
    parser.add_argument("--runtime", default="auto", help="of start")
    arguments = parser.parse_args()
    if arguments.what == "speed":
        speed(arguments.rounds)
    elif arguments.what == "start":
        start(arguments.model, arguments.runtime, arguments.rounds)
    else:
        size()


if __name__ == "__main__":
    main()
